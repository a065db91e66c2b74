"""Section: accuracy by number of training pictures, and whether more data would help."""

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from headstart.evaluation.learning_curve import CurvePoint, LearningCurve
from headstart.evaluation.score_curve import ScoreCurve
from headstart.reporting.blocks import Figure, Figures, Key, PageBlock, Text
from headstart.reporting.charts import Series, axis, line_chart
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words

HARDLY = 0.005  # accuracy: a smaller gain is not worth new labels


def more_data_section(facts: Facts, w: Words) -> list[PageBlock]:
    curve = facts.insights.learning_curve
    if (scores := facts.insights.score_curve) and len(scores.points) > 1:
        return _scores(w, scores)
    if curve is None or not curve.points:
        return [Text(w("more.none"), "empty")] if facts.of_classes else []
    note = w("more.explained", on=w.named("part", curve.judged_on), n=curve.n)
    figures = Figures([_data_curve(w, curve)])
    return [Text(_would_help(w, curve), "lead"), figures, Text(note, "note")]


def _scores(w: Words, curve: ScoreCurve) -> list[PageBlock]:
    """Draw the curve of a metric that is no share of right answers."""
    first, half, last = curve.points[0], curve.points[max(-3, -len(curve.points))], curve.points[-1]
    metric = w.named("metric", curve.metric)
    moved = not half.low <= last.value <= half.high
    lead = w(
        "more.metric_moves" if moved else "more.metric_still",
        metric=metric,
        few=w.count(first.rows),
        many=w.count(last.rows),
        half=w.count(half.rows),
        few_right=w.brief(first.value),
        many_right=w.brief(last.value),
        half_right=w.brief(half.value),
    )
    band = [(p.low, p.high) for p in curve.points]
    notes = [f"{w.count(p.rows)}: {w.brief(p.value)}" for p in curve.points]
    series = Series([(p.rows, p.value) for p in curve.points], "train", notes, band)
    x = axis(str(w("more.rows")), [0, *(p.rows for p in curve.points)], lambda v: w.count(int(v)))
    y = axis(metric.striptags(), [v for pair in band for v in pair], w.tick)
    keys = [Key("train", w("more.measured"))]
    figure = line_chart(w("more.metric_figure"), x, y, [series], keys)
    note = w("more.explained", on=w.named("part", curve.judged_on), n=curve.n)
    return [Text(lead, "lead"), Figures([figure]), Text(note, "note")]


def _would_help(w: Words, curve: LearningCurve) -> Markup:
    """Answer "yes" if the projection's lower bound is above today's accuracy, "hardly" if the
    projected gain is below HARDLY, "unclear" if accuracy does not rise with the rows so far by more
    than the error of measuring it, else "perhaps"."""
    first, now, ahead = curve.points[0], curve.points[-1], curve.projection
    if not curve.rises or ahead is None:
        return w(
            "more.seen" if curve.rises else "more.unclear",
            few=w.count(first.rows),
            many=w.count(now.rows),
            few_right=w.share(first.accuracy),
            many_right=w.share(now.accuracy),
            n=curve.n,
        )
    gain = ahead.accuracy - now.accuracy
    better = "more.yes" if ahead.low > now.accuracy else "more.perhaps"
    return w(
        "more.hardly" if gain < HARDLY else better,
        rows=w.count(ahead.rows),
        now=w.share(now.accuracy),
        then=w.estimate(ahead.estimate),
        gain=w.points(gain),
    )


def _data_curve(w: Words, curve: LearningCurve) -> Figure:
    drawn, keys = [_series(w, curve.points, "train")], [Key("train", w("more.measured"))]
    if curve.projection:
        last = curve.points[-1]  # the projection starts at the last measured point
        start = replace(last, low=last.accuracy, high=last.accuracy)
        drawn.append(_series(w, [start, curve.projection], "val"))
        keys.append(Key("val", w("more.projected")))
    values = [v for s in drawn for pair in s.band for v in pair]
    rows = [0, *(x for s in drawn for x, _ in s.points)]
    x = axis(str(w("more.rows")), rows, lambda v: w.count(int(v)))
    y = axis(str(w("metric.accuracy")), values, w.percent)
    return line_chart(w("more.figure"), x, y, drawn, keys)


def _series(w: Words, points: Sequence[CurvePoint], style: str) -> Series:
    notes = [f"{w.count(p.rows)}: {w.share(p.accuracy)}" for p in points]
    band = [(p.low, p.high) for p in points]
    return Series([(p.rows, p.accuracy) for p in points], style, notes, band)
