"""An advice in words, for a person who is new to transfer learning."""

import math

from headstart.evaluation.advice import NONE, Advice
from headstart.evaluation.evaluation import Estimate
from headstart.evaluation.tuning_probe import TuningProbe
from headstart.models.specs import FineTune
from headstart.reporting.words import Words

SEVERAL = 2  # times the rows that were measured on, from which on a run may find more


def advice_text(advice: Advice, language: str = "en") -> tuple[str, ...]:
    """Return the advice as paragraphs of plain text: what to do, then why, and how long it takes.

    Raises UnknownName for an unsupported language.
    """
    w = Words(language, advice.kind)
    parts = (
        _what(advice, w),
        _network(advice, w),
        _data(advice, w),
        *_measured(advice, w),
        *_more(advice, w),
        _time(advice, w),
    )
    return tuple(" ".join(part) for part in parts)


def _said(w: Words, key: str, **values: object) -> str:
    """Return a text without the page's marks."""
    return str(w(key, **values).striptags())


def _what(advice: Advice, w: Words) -> list[str]:
    name, probe = advice.search.chosen, advice.probe
    if advice.thaw == NONE or probe is None:
        return [_said(w, "advice.freeze", backbone=name)]
    return [_said(w, "advice.tune", backbone=name, layers=_layers(probe, w))]


def _layers(probe: TuningProbe, w: Words) -> str:
    if probe.thaw == "all":
        return _said(w, "advice.layers.all")
    return _said(w, "advice.layers.some", k=probe.thaw, blocks=probe.blocks)


def _network(advice: Advice, w: Words) -> list[str]:
    search, own = advice.search, advice.backbone
    best = search.tried[0]
    key = "best" if own is best else "faster"
    return [
        _said(
            w,
            f"advice.network.{key if len(search.tried) > 1 else 'only'}",
            backbone=own.name,
            count=len(search.tried),
            best=best.name,
            fast=w.seconds(own.ms / 1000),
            slow=w.seconds(best.ms / 1000),
            metric=_metric(advice, w),
            merit=_merit(own.merit, advice, w),
            rows=search.rows,
        )
    ]


def _data(advice: Advice, w: Words) -> list[str]:
    size = "little" if advice.little else "much"
    sentences = [_said(w, f"advice.data.{size}", shown=w("count.pictures", n=advice.rows))]
    if advice.smallest:
        sentences.append(_said(w, "advice.smallest", smallest=w.count(advice.smallest)))
    sentences.append(_said(w, f"advice.place.{advice.measured.place or 'unknown'}"))
    if advice.rule:
        sentences.append(_said(w, f"advice.rule.{advice.rule}"))
    return sentences


def _measured(advice: Advice, w: Words) -> list[list[str]]:
    measured = advice.measured
    if not measured.probes:
        return [[_said(w, "advice.not_measured", reason=measured.why_not)]]
    sentences = [[_probed(probe, advice, w)] for probe in measured.probes]
    sentences[-1].append(_said(w, f"advice.{'chance' if advice.thaw == NONE else 'gains'}"))
    if advice.thaw == NONE and advice.rows > SEVERAL * advice.search.rows:
        rows, sample = w.count(advice.rows), w.count(advice.search.rows)
        values = {"rows": rows, "sample": sample, "flag": "--strategy auto"}
        sentences[-1].append(_said(w, "advice.sample", **values))
    return sentences


def _probed(probe: TuningProbe, advice: Advice, w: Words) -> str:
    return _said(
        w,
        "advice.measured",
        rows=probe.rows,
        metric=_metric(advice, w),
        head=_merit(probe.head, advice, w),
        tuned=_merit(probe.tuned, advice, w),
        epochs=probe.epochs,
        layers=_layers(probe, w),
        gain=_gain(probe.gain, advice, w),
    )


def _more(advice: Advice, w: Words) -> list[list[str]]:
    more = advice.measured.more
    if more is None:
        return []
    key = "helps" if more.low > 0 else "still"
    return [[_said(w, f"advice.more.{key}", gain=_gain(more, advice, w))]]


def _time(advice: Advice, w: Words) -> list[str]:
    head, tuned = w.seconds(max(1, advice.head_seconds)), advice.tuned_seconds
    if tuned is None:
        return [_said(w, "advice.time.head", head=head)]
    times = {"head": head, "tuned": w.seconds(max(1, tuned)), "epochs": FineTune().epochs}
    return [_said(w, "advice.time.both", **times)]


def _metric(advice: Advice, w: Words) -> str:
    name = advice.search.merit_name
    return str(w.named("metric", name, name.replace("_", " ")).striptags())


def _merit(estimate: Estimate, advice: Advice, w: Words) -> str:
    """Return a merit with its interval: 86.8% [83.1, 89.8], or a number."""
    shown = w.estimate(estimate) if advice.shares else w.measure(estimate)
    if math.isnan(estimate.low):
        return w.share(estimate.value) if advice.shares else w.brief(estimate.value)
    return str(shown.striptags())


def _gain(gain: Estimate, advice: Advice, w: Words) -> str:
    if not advice.shares:
        return str(w.plain_gain(gain).striptags())
    return _said(w, "advice.points", v=w.gain(gain))
