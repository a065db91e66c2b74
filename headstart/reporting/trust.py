"""Section: how far the scores can be trusted: calibration and limits."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from headstart.evaluation.judged import (
    ConfidenceLimit,
    ConformalSets,
    DistanceLimit,
    Doubts,
    TemperatureScaling,
)
from headstart.modalities.images.thumbnails import Album
from headstart.models.calibration import Calibration
from headstart.reporting.blocks import (
    Block,
    Figure,
    Figures,
    Heading,
    Key,
    Section,
    Text,
)
from headstart.reporting.charts import Axis, Series, axis, line_chart
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words


def trust_section(facts: Facts, w: Words, album: Album) -> Section:
    scaling, doubt = facts.insights.calibration, facts.insights.doubt
    blocks = list[Block]()
    blocks += _calibration(w, scaling) if scaling else [Text(w("trust.none"), "empty")]
    blocks += [Heading(w("trust.doubt_title"))]
    limits = _limits(w, doubt) if doubt else []
    blocks += limits or [Text(w("trust.no_doubt"), "empty")]
    return Section("trust", w("trust.title"), blocks)


def _calibration(w: Words, scaling: TemperatureScaling) -> list[Block]:
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
    return [
        Text(Markup("{} {}").format(sentence, verdict), "lead"),
        Figures(figures),
        Text(w("trust.explained"), "note"),
    ]


def _reliability(w: Words, before: Calibration, after: Calibration) -> Figure:
    series = [Series([(0.0, 0.0), (1.0, 1.0)], "ideal", dots=False)]
    for name, style, judged in (("before", "val", before), ("after", "train", after)):
        points = [(b.confidence, b.accuracy) for b in judged.bins]
        notes = [
            f"{w('trust.' + name)}: {w.share(b.confidence)} → {w.share(b.accuracy)}, "
            f"{w('count.pictures', n=b.n)}"
            for b in judged.bins
        ]
        series.append(Series(points, style, notes))
    low = min((p[0] for s in series[1:] for p in s.points), default=0.0)
    start = min(math.floor(low * 10) / 10, 0.9)
    series[0] = Series([(start, start), (1.0, 1.0)], "ideal", dots=False)
    values = [v for s in series for p in s.points for v in p]
    y = axis(str(w("trust.y")), [*values, start], lambda v: w.share(v, 0))
    x = Axis(str(w("trust.x")), start, 1.0, lambda v: w.share(v, 0))
    title = w("trust.reliability")
    keys = [
        Key("val", w("trust.before")),
        Key("train", w("trust.after")),
        Key("ideal", w("trust.ideal")),
    ]
    return Figure(line_chart(title, x, y, series), title, keys)


def _coverage(w: Words, points: Sequence[tuple[float, float]]) -> Figure:
    notes = [f"{w.share(share, 0)} → {w.share(right)}" for share, right in points]
    x = Axis(str(w("trust.answered")), 0.0, 1.0, lambda v: w.share(v, 0))
    y = axis(str(w("metric.accuracy")), [v for _, v in points], lambda v: w.share(v, 0))
    title = w("trust.coverage")
    chart = line_chart(title, x, y, [Series(points, "train", notes, dots=len(points) <= 30)])
    return Figure(chart, title, [Key("train", w("trust.coverage_key"))])


def _limits(w: Words, doubt: Doubts) -> list[Block]:
    blocks = list[Block]()
    if doubt.conformal:
        blocks.append(_conformal(w, doubt.conformal))
    if doubt.distance and doubt.distance.asked:
        blocks.append(_distance(w, doubt.distance))
    if doubt.confidence:
        blocks.append(_confidence(w, doubt.confidence))
    return blocks


def _conformal(w: Words, sets: ConformalSets) -> Text:
    if sets.limit is None:
        return Text(w("trust.conformal_small"), "note")
    asked, size = w.share(1 - sets.alpha, 0), w.number(sets.mean_size, 2)
    return Text(w("trust.conformal", asked=asked, coverage=w.estimate(sets.coverage), size=size))


def _distance(w: Words, far: DistanceLimit) -> Text:
    asked = w.share(far.asked)
    if far.limit is None:
        return Text(w("trust.distance_small", asked=asked), "note")
    return Text(w("trust.distance", asked=asked, unknown=w.estimate(far.unknown)))


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
