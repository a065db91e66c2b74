"""What came of training: the answer, its curves, how far it can be trusted, and what would help."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate, Evaluation
from headstart.evaluation.judged import (
    ConfidenceLimit,
    ConformalSets,
    DistanceLimit,
    Doubts,
    Gain,
    TemperatureScaling,
)
from headstart.evaluation.learning_curve import CurvePoint, LearningCurve
from headstart.modalities.images.thumbnails import Album
from headstart.models.calibration import Calibration
from headstart.reporting.blocks import (
    Block,
    Figure,
    Figures,
    Heading,
    Key,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from headstart.reporting.charts import Axis, Series, axis, line_chart
from headstart.reporting.facts import Facts
from headstart.reporting.reading import read_curves
from headstart.reporting.words import Words, data
from headstart.training.history import Epoch

LEARNED = ("finetune", "scratch")  # phases that may be trained against attacks
FROM_SCRATCH = " from scratch"  # ends the names of baselines in evaluation.json
CHANCE = 0.05  # of a p from which on a difference may be one
HARDLY = 0.005  # of accuracy: a gain below it is not worth new labels


def answer_section(facts: Facts, w: Words, album: Album) -> Section:
    test, accuracy = facts.evaluation.test, facts.evaluation.test.accuracy
    sentences = [
        w(
            "answer.what." + _manner(facts.kept),
            backbone=data(facts.recipe.backbone),
            classes=w("count.classes", n=len(facts.classes)),
            rows=w("count.pictures", n=len(facts.part("train"))),
        )
    ]
    if accuracy:
        rows = w("count.test_pictures", n=accuracy.n)
        sentences.append(w("answer.good", rows=rows, accuracy=w.estimate(accuracy)))
    else:
        sentences.append(w("answer.untested"))
    sentences += _against(facts, w)
    sentences += _cost(facts, w)
    tiles = [
        _tile(w, test, "accuracy"),
        _tile(w, test, "balanced_accuracy"),
        Tile(w.count(len(facts.classes)), w("tile.classes"), w("tile.rows", n=len(facts.rows))),
        Tile(w.seconds(facts.timings.total_seconds), w("tile.time"), w("tile.time_note")),
    ]
    lead = Text(Markup(" ").join(sentences), "lead")
    return Section("answer", w("answer.title"), [lead, Tiles(tiles)])


def _manner(kept: str) -> str:
    return kept if kept in ("head", "finetune", "scratch") else "other"


def _tile(w: Words, test: Evaluation, name: str) -> Tile:
    e = getattr(test, name)
    return Tile(w.share(e.value if e else None), w("metric." + name), _interval(w, e))


def _interval(w: Words, e: Estimate | None) -> str:
    if e is None:
        return ""
    low, high = w.number(100 * e.low, 1), w.share(e.high)
    return w("tile.interval", low=low, high=high)


def _against(facts: Facts, w: Words) -> list[Markup]:
    sentences = []
    if base := facts.evaluation.test.baseline:
        share = w.estimate(base.metric)
        sentences.append(w("answer.majority", majority=data(base.answer), accuracy=share))
    for name, judged in facts.evaluation.baselines_on_test.items():
        share = w.estimate(judged.accuracy)
        sentences.append(w("answer.baseline", name=contender(w, name), accuracy=share))
    return sentences


def _cost(facts: Facts, w: Words) -> list[Markup]:
    rate = facts.timings.examples_per_second
    if not rate:
        return [w("answer.no_cost")]
    return [w("answer.cost", time=w.seconds(1 / rate), device=data(facts.recipe.device))]


def contender(w: Words, name: str) -> Markup:
    """A phase of training or a baseline, in words."""
    if name.endswith(FROM_SCRATCH):
        return w("phase.from_scratch", name=data(name.removesuffix(FROM_SCRATCH)))
    return w.named("phase", name)


def curves_section(facts: Facts, w: Words, album: Album) -> Section:
    return Section("curves", w("curves.title"), _curves(facts, w, facts.history))


def _curves(facts: Facts, w: Words, lines: Sequence[Epoch]) -> list[Block]:
    if not lines:
        return [Text(w("curves.none"), "empty")]
    if len(lines) < 2:
        return [Text(w("curves.solved"), "note")]
    tuning = facts.recipe.finetune
    reach = tuning.values.get("adversarial", 0.0) if tuning else 0.0
    attacked = bool(reach) and lines[-1].phase in LEARNED
    keys = [Key("train", w("part.train")), Key("val", w("part.val"))]
    tuned = [line for line in lines if line.phase == "finetune"]
    starts = bool(tuned) and lines[0].phase == "head"
    if starts:
        keys.append(Key("start", w("curves.start")))
    marks = [(float(tuned[0].epoch), str(w("curves.start_short")))] if starts else []
    figures = [
        Figure(_curve(w, lines, what, marks), w("curves." + what), keys)
        for what in ("accuracy", "loss")
    ]
    notes = [Text(w("curves.before"), "note")] if any(line.lr is None for line in tuned) else []
    if attacked:
        notes.append(Text(w("curves.attacked", reach=f"{reach * 255:.3g}/255"), "note"))
    blocks: list[Block] = [Figures(figures), *notes]
    if attacked and lines[-1].val_loss is None:
        return blocks  # nothing to read by
    reading = read_curves(lines, guess=_guess(facts), attacked=attacked)
    return [Text(w("reading." + reading.kind, epoch=reading.best), "lead"), *blocks]


def _guess(facts: Facts) -> float | None:
    """The accuracy on the training part of always naming its commonest class."""
    counts = Counter(row.label for row in facts.part("train"))
    return max(counts.values()) / counts.total() if counts else None


def _curve(
    w: Words, lines: Sequence[Epoch], what: str, marks: Sequence[tuple[float, str]]
) -> Markup:
    """A phase's lines are joined among themselves: where another begins, it is measured anew."""
    show = w.share if what == "accuracy" else lambda v, d=3: w.number(v, d)
    series, values = list[Series](), list[float]()
    for part in ("train", "val"):
        for phase in dict.fromkeys(line.phase for line in lines):
            points = [
                (float(line.epoch), _nan(getattr(line, f"{part}_{what}")))
                for line in lines
                if line.phase == phase
            ]
            said = [
                f"{w('part.' + part)}, {w('curves.epoch')} {x:.0f}: {show(y)}" for x, y in points
            ]
            values += [y for _, y in points]
            series.append(Series(points, part, said))
    epochs = [line.epoch for line in lines]
    ticks = (lambda v: w.share(v, 0)) if what == "accuracy" else (lambda v: w.number(v, 2))
    x = Axis(str(w("curves.epoch")), min(epochs), max(epochs), lambda v: f"{v:.0f}")
    return line_chart(w("curves." + what), x, axis("", values, ticks), series, marks=marks)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


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


def compared_section(facts: Facts, w: Words, album: Album) -> Section:
    blocks = list[Block]([_candidates(facts, w)])
    compared = facts.insights.compared
    if compared:
        blocks += [Heading(w("compared.difference")), _differences(w, compared)]
        blocks += [Text(w("compared.explained"), "note")]
    else:
        blocks.append(Text(w("compared.none"), "empty"))
    return Section("compared", w("compared.title"), blocks)


def _candidates(facts: Facts, w: Words) -> Table:
    on_val, on_test = facts.evaluation.candidates_on_val, facts.evaluation.baselines_on_test
    rows = list[Sequence[Any]]()
    for name in dict.fromkeys([*on_val, *on_test]):
        kept = name == facts.kept
        test = facts.evaluation.test if kept else on_test.get(name)
        phase = facts.recipe.phases.get(name)
        label = contender(w, name)
        rows.append(
            [
                Markup("<strong>{}</strong> ({})").format(label, w("compared.kept"))
                if kept
                else label,
                w.estimate(on_val[name].accuracy) if name in on_val else "–",
                w.estimate(test.accuracy) if test else "–",
                w.count(phase.trainable.parameters) if phase else "–",
            ]
        )
    head = [w("compared.what"), w("compared.on_val"), w("compared.on_test"), w("compared.trained")]
    return Table(head, rows, caption=w("compared.caption"))


def _differences(w: Words, compared: Sequence[Gain]) -> Table:
    rows = list[Sequence[Any]]()
    for pair in compared:
        e, p = pair.gain, pair.p
        rows.append(
            [
                w("compared.pair", a=contender(w, pair.a), b=contender(w, pair.b)),
                w.named("part", pair.on),
                gained(w, e),
                w("compared.tiny") if p is not None and p < 0.001 else w.number(p),
                w("compared.verdict." + verdict(e, p)),
            ]
        )
    head = [w("compared." + k) for k in ("pair_head", "on", "gain", "p", "verdict")]
    return Table(head, rows, left=(0, 1, 4))


def gained(w: Words, e: Estimate | None) -> Markup:
    """A difference in points with its interval."""
    if e is None:
        return Markup(w.texts["none"])
    text = '{} <span class="interval">[{}; {}]</span>'
    return Markup(text).format(w.points(e.value), w.points(e.low), w.points(e.high))


def verdict(e: Estimate | None, p: float | None) -> str:
    """A tie unless the interval leaves 0 out and McNemar's p is below 0.05."""
    if e is None or e.low <= 0 <= e.high or (p is not None and p >= CHANCE):
        return "tie"
    return "better" if e.low > 0 else "worse"


def more_data_section(facts: Facts, w: Words, album: Album) -> Section:
    curve = facts.insights.learning_curve
    if curve is None or not curve.points:
        return Section("more-data", w("more.title"), [Text(w("more.none"), "empty")])
    note = w("more.explained", on=w.named("part", curve.judged_on), n=curve.n)
    blocks = [
        Text(_would_help(w, curve), "lead"),
        Figures([_data_curve(w, curve)]),
        Text(note, "note"),
    ]
    return Section("more-data", w("more.title"), blocks)


def _would_help(w: Words, curve: LearningCurve) -> Markup:
    """Yes if even the projection's lower end is above today's accuracy; hardly below HARDLY."""
    first, now, ahead = curve.points[0], curve.points[-1], curve.projection
    if ahead is None:
        return w(
            "more.seen",
            a=w.share(first.accuracy),
            b=w.share(now.accuracy),
            few=w.count(first.rows),
            many=w.count(now.rows),
        )
    gain = ahead.accuracy - now.accuracy
    key = "hardly" if gain < HARDLY else "yes" if ahead.low > now.accuracy else "perhaps"
    return w(
        "more." + key,
        rows=w.count(ahead.rows),
        now=w.share(now.accuracy),
        then=w.estimate(ahead.estimate),
        gain=w.points(gain),
    )


def _data_curve(w: Words, curve: LearningCurve) -> Figure:
    drawn, keys = [_series(w, curve.points, "train")], [Key("train", w("more.measured"))]
    if curve.projection:
        last = curve.points[-1]  # the law begins where the heads end
        start = replace(last, low=last.accuracy, high=last.accuracy)
        drawn.append(_series(w, [start, curve.projection], "val"))
        keys.append(Key("val", w("more.projected")))
    values = [v for s in drawn for pair in s.band for v in pair]
    x = axis(
        str(w("more.rows")),
        [0, *(p[0] for s in drawn for p in s.points)],
        lambda v: w.count(int(v)),
    )
    y = axis(str(w("metric.accuracy")), values, lambda v: w.share(v, 0))
    title = w("more.figure")
    return Figure(line_chart(title, x, y, drawn), title, keys)


def _series(w: Words, points: Sequence[CurvePoint], style: str) -> Series:
    notes = [f"{w.count(p.rows)}: {w.share(p.accuracy)}" for p in points]
    band = [(p.low, p.high) for p in points]
    return Series([(p.rows, p.accuracy) for p in points], style, notes, band)
