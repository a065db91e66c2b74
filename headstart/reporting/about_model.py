"""What came of training: the answer, its curves, how far it can be trusted, and what would help."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate
from headstart.modalities.images.thumbnails import Album
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
from headstart.reporting.facts import Facts, estimate
from headstart.reporting.reading import read_curves
from headstart.reporting.words import Words, data
from headstart.training.history import Epoch

LEARNED = ("finetune", "scratch")  # phases that may be trained against attacks
FROM_SCRATCH = " from scratch"  # ends the names of baselines in evaluation.json
CHANCE = 0.05  # of a p from which on a difference may be one
HARDLY = 0.005  # of accuracy: a gain below it is not worth new labels


def answer_section(facts: Facts, w: Words, album: Album) -> Section:
    test, accuracy = facts.evaluation["test"], estimate(facts.evaluation["test"]["accuracy"])
    sentences = [
        w(
            "answer.what." + _manner(facts.kept),
            backbone=data(facts.recipe["backbone"]),
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
        Tile(
            w.seconds(facts.timings.get("total_seconds") or 0), w("tile.time"), w("tile.time_note")
        ),
    ]
    lead = Text(Markup(" ").join(sentences), "lead")
    return Section("answer", w("answer.title"), [lead, Tiles(tiles)])


def _manner(kept: str) -> str:
    return kept if kept in ("head", "finetune", "scratch") else "other"


def _tile(w: Words, test: dict[str, Any], name: str) -> Tile:
    e = estimate(test.get(name))
    return Tile(w.share(e.value if e else None), w("metric." + name), _interval(w, e))


def _interval(w: Words, e: Estimate | None) -> str:
    if e is None:
        return ""
    low, high = w.number(100 * e.low, 1), w.share(e.high)
    return w("tile.interval", low=low, high=high)


def _against(facts: Facts, w: Words) -> list[Markup]:
    said = []
    if base := facts.evaluation["test"].get("baseline"):
        share = w.estimate(estimate(base["accuracy"]))
        said.append(w("answer.majority", majority=data(base["majority"]), accuracy=share))
    for name, judged in facts.evaluation.get("baselines_on_test", {}).items():
        share = w.estimate(estimate(judged["accuracy"]))
        said.append(w("answer.baseline", name=contender(w, name), accuracy=share))
    return said


def _cost(facts: Facts, w: Words) -> list[Markup]:
    rate, device = facts.timings.get("examples_per_second"), facts.recipe.get("device", "")
    if not rate:
        return [w("answer.no_cost")]
    return [w("answer.cost", time=w.seconds(1 / rate), device=data(device))]


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
    reach = (facts.recipe.get("finetune") or {}).get("adversarial", 0.0)
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
    calibration, doubt = facts.insights.get("calibration"), facts.insights.get("doubt")
    blocks = list[Block]()
    blocks += _calibration(w, calibration) if calibration else [Text(w("trust.none"), "empty")]
    blocks += [Heading(w("trust.doubt_title"))]
    said = _doubt(w, doubt) if doubt else []
    blocks += said or [Text(w("trust.no_doubt"), "empty")]
    return Section("trust", w("trust.title"), blocks)


def _calibration(w: Words, c: dict[str, Any]) -> list[Block]:
    before, after = c["test"]["before"], c["test"]["after"]
    sentence = w(
        "trust.ece",
        before=w.share(before["ece"]),
        after=w.share(after["ece"]),
        temperature=w.number(c["temperature"], 2),
        n=int(c["fitted_on"]),
    )
    verdict = w("trust.better" if after["ece"] < before["ece"] else "trust.no_better")
    if not c["fitted_on"]:
        sentence, verdict = w("trust.unscaled", ece=w.share(after["ece"])), Markup("")
    figures = [_reliability(w, before, after)]
    if c.get("coverage"):
        figures.append(_coverage(w, c["coverage"]))
    return [
        Text(Markup("{} {}").format(sentence, verdict), "lead"),
        Figures(figures),
        Text(w("trust.explained"), "note"),
    ]


def _reliability(w: Words, before: dict[str, Any], after: dict[str, Any]) -> Figure:
    series = [Series([(0.0, 0.0), (1.0, 1.0)], "ideal", dots=False)]
    for name, style, judged in (("before", "val", before), ("after", "train", after)):
        bins = [b for b in judged["bins"] if b["n"]]
        points = [(b["confidence"], b["accuracy"]) for b in bins]
        said = [
            f"{w('trust.' + name)}: {w.share(b['confidence'])} → {w.share(b['accuracy'])}, "
            f"{w('count.pictures', n=int(b['n']))}"
            for b in bins
        ]
        series.append(Series(points, style, said))
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


def _coverage(w: Words, pairs: list[list[float]]) -> Figure:
    points = [(float(share), float(right)) for share, right in pairs if right is not None]
    said = [f"{w.share(share, 0)} → {w.share(right)}" for share, right in points]
    x = Axis(str(w("trust.answered")), 0.0, 1.0, lambda v: w.share(v, 0))
    y = axis(str(w("metric.accuracy")), [v for _, v in points], lambda v: w.share(v, 0))
    title = w("trust.coverage")
    chart = line_chart(title, x, y, [Series(points, "train", said, dots=len(points) <= 30)])
    return Figure(chart, title, [Key("train", w("trust.coverage_key"))])


def _doubt(w: Words, doubt: dict[str, Any]) -> list[Block]:
    said = list[Block]()
    c, d = doubt.get("conformal"), doubt.get("distance")
    if c and c["limit"] is None:
        said.append(Text(w("trust.conformal_small"), "note"))
    elif c:
        said.append(
            Text(
                w(
                    "trust.conformal",
                    asked=w.share(1 - c["alpha"], 0),
                    coverage=w.estimate(estimate(c["coverage"])),
                    size=w.number(c["mean_size"], 2),
                )
            )
        )
    if d and d["asked"] and d["limit"] is None:
        said.append(Text(w("trust.distance_small", asked=w.share(d["asked"])), "note"))
    elif d and d["asked"]:
        unknown = w.estimate(estimate(d["unknown"]))
        said.append(Text(w("trust.distance", asked=w.share(d["asked"]), unknown=unknown)))
    s = doubt.get("confidence")
    if s and s["limit"] is None:
        said.append(Text(w(f"trust.{s['kind']}_small", asked=w.share(s["asked"])), "note"))
    elif s:
        said.append(
            Text(
                w(
                    "trust.confidence",
                    asked=w("trust.asked_" + s["kind"], share=w.share(s["asked"])),
                    limit=w.share(s["limit"]),
                    coverage=w.estimate(estimate(s["coverage"])),
                    precision=w.estimate(estimate(s["precision"])),
                )
            )
        )
    return said


def compared_section(facts: Facts, w: Words, album: Album) -> Section:
    blocks = list[Block]([_candidates(facts, w)])
    compared = facts.insights.get("compared")
    if compared:
        blocks += [Heading(w("compared.difference")), _differences(w, compared)]
        blocks += [Text(w("compared.explained"), "note")]
    else:
        blocks.append(Text(w("compared.none"), "empty"))
    return Section("compared", w("compared.title"), blocks)


def _candidates(facts: Facts, w: Words) -> Table:
    on_val = facts.evaluation["candidates_on_val"]
    on_test = dict(facts.evaluation.get("baselines_on_test", {}))
    rows = list[Sequence[Any]]()
    for name in dict.fromkeys([*on_val, *on_test]):
        kept = name == facts.kept
        test = facts.evaluation["test"] if kept else on_test.get(name)
        trained = facts.recipe["phases"].get(name, {}).get("trainable", {}).get("parameters")
        label = contender(w, name)
        rows.append(
            [
                Markup("<strong>{}</strong> ({})").format(label, w("compared.kept"))
                if kept
                else label,
                w.estimate(estimate(on_val[name]["accuracy"])) if name in on_val else "–",
                w.estimate(estimate(test["accuracy"])) if test else "–",
                w.count(trained) if trained is not None else "–",
            ]
        )
    head = [w("compared.what"), w("compared.on_val"), w("compared.on_test"), w("compared.trained")]
    return Table(head, rows, caption=w("compared.caption"))


def _differences(w: Words, compared: list[dict[str, Any]]) -> Table:
    rows = list[Sequence[Any]]()
    for pair in compared:
        e = estimate(pair["gain"])
        p = pair.get("p")
        rows.append(
            [
                w("compared.pair", a=contender(w, pair["a"]), b=contender(w, pair["b"])),
                w.named("part", pair["on"]),
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
    curve = facts.insights.get("learning_curve")
    if not curve or not curve.get("points"):
        return Section("more-data", w("more.title"), [Text(w("more.none"), "empty")])
    points, ahead = curve["points"], curve.get("projection")
    blocks = [
        Text(_would_help(w, points, ahead), "lead"),
        Figures([_data_curve(w, points, ahead)]),
        Text(
            w("more.explained", on=w.named("part", curve["judged_on"]), n=int(curve["n"])), "note"
        ),
    ]
    return Section("more-data", w("more.title"), blocks)


def _would_help(w: Words, points: list[dict[str, Any]], ahead: dict[str, Any] | None) -> Markup:
    """Yes if even the projection's lower end is above today's accuracy; hardly below HARDLY."""
    now = points[-1]
    if not ahead:
        first = points[0]
        return w(
            "more.seen",
            a=w.share(first["accuracy"]),
            b=w.share(now["accuracy"]),
            few=w.count(first["rows"]),
            many=w.count(now["rows"]),
        )
    gain = ahead["accuracy"] - now["accuracy"]
    key = "hardly" if gain < HARDLY else "yes" if ahead["low"] > now["accuracy"] else "perhaps"
    return w(
        "more." + key,
        rows=w.count(int(ahead["rows"])),
        now=w.share(now["accuracy"]),
        then=w.estimate(Estimate(ahead["accuracy"], ahead["low"], ahead["high"], 0)),
        gain=w.points(gain),
    )


def _data_curve(w: Words, points: list[dict[str, Any]], ahead: dict[str, Any] | None) -> Figure:
    def series(rows: list[dict[str, Any]], style: str) -> Series:
        said = [f"{w.count(int(p['rows']))}: {w.share(p['accuracy'])}" for p in rows]
        band = [(p["low"], p["high"]) for p in rows]
        return Series([(p["rows"], p["accuracy"]) for p in rows], style, said, band)

    drawn, keys = [series(points, "train")], [Key("train", w("more.measured"))]
    if ahead:
        now = points[-1]["accuracy"]  # the law begins where the heads end
        drawn.append(series([{**points[-1], "low": now, "high": now}, ahead], "val"))
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
