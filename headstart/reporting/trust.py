"""Section: how far the scores can be trusted: calibration and limits."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.evaluation.evaluation import wilson
from headstart.evaluation.judged import ConfidenceLimit, Doubts, TemperatureScaling
from headstart.models.calibration import Bin, Calibration
from headstart.reporting.blocks import (
    Figure,
    Figures,
    Heading,
    Key,
    PageBlock,
    TableBlock,
    Text,
)
from headstart.reporting.charts import Axis, Cloud, Counts, Series, axis, line_chart
from headstart.reporting.facts import Facts, spread
from headstart.reporting.words import Words, data
from headstart.targets.target import CHART_POINTS


def trust_section(facts: Facts, w: Words) -> list[PageBlock]:
    scaling, doubt = facts.insights.calibration, facts.insights.doubt
    if not facts.of_classes:
        return _regions(facts, w, doubt) if doubt else []
    limits = _limits(w, doubt) if doubt else []
    return [
        *(_calibration(w, scaling) if scaling else [Text(w("trust.none"), "empty")]),
        Heading(w("trust.doubt_title")),
        *(limits or [Text(w("trust.no_doubt"), "empty")]),
    ]


def _regions(facts: Facts, w: Words, doubt: Doubts) -> list[PageBlock]:
    """Return the stated and the measured coverage of intervals or sets, and the other limits."""
    blocks, target = list[PageBlock](), facts.evaluation.test.target
    if sets := doubt.conformal:
        limits = sets.limit if isinstance(sets.limit, tuple) else (sets.limit,)
        asked, known = w.percent(1 - sets.alpha), None not in limits
        kind = target.kind if f"trust.region_{target.kind}" in w else "other"
        key = f"trust.region_{kind}" if known else "trust.region_small"
        size = w.texts["none"] if sets.mean_size is None else w.brief(sets.mean_size)
        values = {"asked": asked, "coverage": w.estimate(sets.coverage), "size": size}
        blocks.append(Text(w(key, **values), "lead"))
        figures = [_intervals(facts, w)] if {"low", "high"} <= facts.test.region.keys() else []
        blocks += [Figures(figures)] if figures else []
        if sets.each:
            head = [w("column.label"), w("trust.coverage_each")]
            rows = [[data(one.name), w.estimate(one.coverage)] for one in sets.each]
            blocks.append(TableBlock(head, rows))
        blocks.append(Text(w("trust.region_explained", asked=asked), "note"))
    return [*blocks, *_limits(w, replace(doubt, conformal=None))]


def _intervals(facts: Facts, w: Words) -> Figure:
    """Draw the true values over the answers, with the interval of each answer as a band."""
    known = facts.test.take(np.flatnonzero(facts.test.known))
    answer = np.asarray(next(iter(known.target.columns(known.outputs).values())), float)
    order = spread(np.argsort(answer, kind="stable").tolist(), CHART_POINTS)
    truth = np.array(known.target.decode(known.labels), float)
    low, high = (np.asarray(known.region[name], float) for name in ("low", "high"))
    values = [*truth[order].tolist(), *low[order].tolist(), *high[order].tolist()]
    x = axis(str(w("trust.answer")), answer[order].tolist(), w.tick)
    y = axis(str(w("trust.truth")), values, w.tick)
    band = Series(
        [(answer[i], answer[i]) for i in order],
        "train",
        band=[(low[i], high[i]) for i in order],
        dots=False,
    )
    dots = [
        Cloud(
            [(answer[i], truth[i]) for i in order if (low[i] <= truth[i] <= high[i]) == inside],
            style,
        )
        for inside, style in ((True, "dots"), (False, "dots out"))
    ]
    keys = [Key("train", w("trust.band")), Key("val", w("trust.outside"))]
    return line_chart(w("trust.intervals"), x, y, [band], keys, dots=dots)


def _calibration(w: Words, scaling: TemperatureScaling) -> list[PageBlock]:
    before, after = scaling.test.before, scaling.test.after
    sentence = w(
        "trust.ece",
        before=w.share(before.ece),
        after=w.share(after.ece),
        temperature=w.number(scaling.temperature, 2),
        n=scaling.fitted_on,
    )
    verdict = w("trust.better" if after.ece < before.ece else "trust.no_better")
    if not scaling.fitted_on:
        sentence, verdict = w("trust.unscaled", ece=w.share(after.ece)), Markup("")
    figures = [_reliability(w, before, after)]
    if scaling.coverage:
        figures.append(_coverage(w, scaling.coverage))
    lead = Text(Markup("{} {}").format(sentence, verdict), "lead")
    return [lead, Figures(figures), Text(w("trust.explained"), "note")]


def _reliability(w: Words, before: Calibration, after: Calibration) -> Figure:
    series = list[Series]()
    for name, style, calibration in (("before", "val", before), ("after", "train", after)):
        points = [(b.confidence, b.accuracy) for b in calibration.bins]
        notes = [
            f"{w('trust.' + name)}: {w.share(b.confidence)} → {w.share(b.accuracy)}, "
            f"{w('count.pictures', n=b.n)}"
            for b in calibration.bins
        ]
        ranges = [_range_of(b) for b in calibration.bins] if name == "after" else []
        series.append(Series(points, style, notes, ranges=ranges))
    low = min((x for s in series for x, _ in s.points), default=0.0)
    start = min(math.floor(low * 10) / 10, 0.9)
    ideal = Series([(start, start), (1.0, 1.0)], "ideal", dots=False)
    values = [v for s in (ideal, *series) for point in (*s.points, *s.ranges) for v in point]
    x = Axis(str(w("trust.x")), start, 1.0, w.percent)
    y = axis(str(w("trust.y")), values, w.percent)
    styles = {"val": "before", "train": "after", "ideal": "ideal"}
    keys = [Key(style, w("trust." + name)) for style, name in styles.items()]
    bins = [(b.low, b.high, b.n) for b in after.bins if b.high > start]
    counts = Counts(str(w("trust.counts")), bins)
    return line_chart(w("trust.reliability"), x, y, [ideal, *series], keys, counts=counts)


def _range_of(b: Bin) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy in a bin (Wilson)."""
    found = wilson(round(b.accuracy * b.n), b.n)
    return (found.low, found.high) if found else (b.accuracy, b.accuracy)


def _coverage(w: Words, points: Sequence[tuple[float, float]]) -> Figure:
    notes = [f"{w.percent(share)} → {w.share(right)}" for share, right in points]
    x = Axis(str(w("trust.answered")), 0.0, 1.0, w.percent)
    y = axis(str(w("metric.accuracy")), [right for _, right in points], w.percent)
    series = Series(points, "train", notes, dots=len(points) <= 30)
    return line_chart(w("trust.coverage"), x, y, [series], [Key("train", w("trust.coverage_key"))])


def _limits(w: Words, doubt: Doubts) -> list[PageBlock]:
    blocks = list[PageBlock]()
    if sets := doubt.conformal:
        asked, size = w.percent(1 - sets.alpha), w.number(sets.mean_size, 2)
        coverage = w.estimate(sets.coverage)
        limit = sets.limit[0] if isinstance(sets.limit, tuple) else sets.limit
        blocks.append(_limit(w, "conformal", limit, asked=asked, coverage=coverage, size=size))
    if (far := doubt.distance) and far.asked:
        asked, unknown = w.share(far.asked), w.estimate(far.unknown)
        blocks.append(_limit(w, "distance", far.limit, asked=asked, unknown=unknown))
    return [*blocks, _confidence(w, doubt.confidence)] if doubt.confidence else blocks


def _limit(w: Words, name: str, limit: float | None, **values: Any) -> Text:
    """State a limit and its effect, or that validation was too small for it."""
    if limit is None:
        return Text(w(f"trust.{name}_small", **values), "note")
    return Text(w("trust." + name, **values))


def _confidence(w: Words, sure: ConfidenceLimit) -> Text:
    asked = w.share(sure.asked)
    if sure.limit is None:
        return Text(w(f"trust.{sure.kind}_small", asked=asked), "note")
    return Text(
        w(
            "trust.confidence",
            asked=w("trust.asked_" + sure.kind, share=asked),
            limit=w.share(sure.limit),
            coverage=w.estimate(sure.coverage),
            precision=w.estimate(sure.precision),
        )
    )
