"""Section: accuracy under adversarial attacks and under corruptions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate
from headstart.explaining.pixels.robustness import (
    Neighbours,
    Robustness,
    UnderAttack,
    UnderCorruption,
)
from headstart.reporting.blocks import Figure, Figures, Heading, Key, PageBlock, TableBlock, Text
from headstart.reporting.charts import Axis, Series, line_chart, spark
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, code, data
from headstart.targets.target import Baseline

COMMAND, FLAG = code("headstart robustness RUN"), code("--adversarial")
LEVELS = 255  # largest value of a pixel
UNSEEN = 2  # levels: an invisible change
FRAGILE, FIRM = 0.25, 0.75  # accuracy under attack / clean accuracy
MIDDLE = 3  # of the five strengths


def robustness_section(facts: Facts, w: Words) -> list[PageBlock]:
    results, guess = facts.robustness, facts.evaluation.test.baseline
    if results is None and (facts.in_parts or not facts.of_classes):
        return []
    if results is None:
        return [Text(w("robust.none", command=COMMAND), "empty")]
    cut_off = Text(w("robust.cut_off", command=COMMAND), "empty")
    blocks: list[PageBlock] = [] if results.finished else [cut_off]
    blocks += [*_attacked(w, results, guess), *_corrupted(w, results, guess)]
    if results.neighbours.of:
        of, nearest = w.count(results.neighbours.of), w.count(results.neighbours.nearest)
        blocks.append(Text(w("robust.neighbours_note", of=of, nearest=nearest), "note"))
    return blocks


def _attacked(w: Words, found: Robustness, guess: Baseline | None) -> list[PageBlock]:
    tried = found.attacked
    if len(tried) < 2:
        return []
    rows = [
        [f"{row.levels}/{LEVELS}", w.estimate(row.accuracy), *_shares(w, row.neighbours)]
        for row in tried
    ]
    head = [w("robust.epsilon"), w("metric.accuracy"), w("robust.same"), w("robust.own")]
    note = w("robust.attack_note", steps=w.count(int(found.plan.values.get("steps", 0))))
    return [
        Text(_attack_verdict(w, tried, guess), "lead"),
        Figures(_curves(w, tried, "levels", guess)),
        TableBlock(head, rows, caption=w("robust.attack_caption", n=found.rows)),
        Text(note, "note"),
    ]


def _attack_verdict(w: Words, tried: Sequence[UnderAttack], guess: Baseline | None) -> Markup:
    """Judge the model under attack at epsilon UNSEEN, or else the smallest epsilon tried.

    A model no better than the constant answer is never called firm.
    """
    clean = tried[0].accuracy
    row = next((r for r in tried if r.levels == UNSEEN), tried[1])
    left = row.accuracy.value / max(clean.value, 1e-9)
    sentence = w(
        "robust.unseen" if row.levels <= UNSEEN else "robust.seen",
        levels=w.count(row.levels),
        clean=w.estimate(clean),
        accuracy=w.estimate(row.accuracy),
        n=clean.n,
    )
    earned = guess is None or guess.metric is None or row.accuracy.low > guess.metric.value
    kind = "fragile" if left < FRAGILE else "firm" if left > FIRM and earned else "partly"
    return Markup("{} {}").format(sentence, w("robust." + kind, flag=FLAG))


def _corrupted(w: Words, found: Robustness, guess: Baseline | None) -> list[PageBlock]:
    tried, clean = found.corrupted, found.attacked[0]
    if not tried:
        return []
    names = dict.fromkeys(row.name for row in tried)
    kinds = {name: [row for row in tried if row.name == name] for name in names}
    strengths = sorted({row.strength for row in tried})
    rows = [_by_kind(w, name, own, clean.accuracy, len(strengths)) for name, own in kinds.items()]
    head = [w("robust.what"), *map(w.count, strengths), w("robust.mean"), w("robust.drawn")]
    sure = max((r.accuracy.high - r.accuracy.low) / 2 for r in tried)
    caption = w("robust.corrupt_caption", n=found.rows, sure=w.number(100 * sure, 0))
    return [
        Heading(w("robust.corrupted")),
        *_worst_and_best(w, kinds),
        TableBlock(head, rows, caption=caption),
        Figures(_curves(w, _by_strength(clean, tried), "strength", guess)),
        Text(w("robust.corrupt_note"), "note"),
    ]


def _by_kind(
    w: Words, name: str, rows: Sequence[UnderCorruption], clean: Estimate, strengths: int
) -> list[Any]:
    """Return a row of the table: accuracy at each strength; empty if it was not tried."""
    shares = [row.accuracy.value for row in rows]
    cells = [*map(w.percent, shares)] + [""] * (strengths - len(shares))
    mean = w.percent(_mean(shares)) if len(shares) == strengths else ""
    return [w.named("corruption", name), *cells, mean, spark([clean.value, *shares])]


def _worst_and_best(w: Words, kinds: Mapping[str, Sequence[UnderCorruption]]) -> list[Text]:
    """Name the worst and the best corruption at the middle strength."""
    middle = {k: rows[MIDDLE - 1].accuracy for k, rows in kinds.items() if len(rows) >= MIDDLE}
    if not middle:
        return []
    order = sorted(middle, key=lambda name: middle[name].value)
    worst, best = order[0], order[-1]
    sentence = w(
        "robust.worst",
        worst=w.named("corruption", worst),
        best=w.named("corruption", best),
        low=w.estimate(middle[worst]),
        high=w.estimate(middle[best]),
    )
    return [Text(sentence)]


def _by_strength(clean: UnderAttack, tried: Sequence[UnderCorruption]) -> list[UnderCorruption]:
    """Return the mean over corruptions at each strength, with the worst and the best as bounds."""
    value = clean.accuracy.value  # a single value: its bounds coincide
    points = [UnderCorruption("", 0, Estimate(value, value, value, 1), clean.neighbours)]
    for strength in sorted({row.strength for row in tried}):
        own = [row for row in tried if row.strength == strength]
        shares = [row.accuracy.value for row in own]
        moved = [row.neighbours for row in own if row.neighbours]
        mean = Neighbours(_mean([m.same for m in moved]), _mean([m.own for m in moved]))
        accuracy = Estimate(_mean(shares), min(shares), max(shares), len(shares))
        points.append(UnderCorruption("", strength, accuracy, mean if moved else None))
    return points


def _curves(
    w: Words, points: Sequence[UnderAttack | UnderCorruption], along: str, guess: Baseline | None
) -> list[Figure]:
    """Draw accuracy and, if measured, neighbours against `along`: "levels" or "strength"."""
    at: list[float] = [getattr(p, along) for p in points]
    accuracy = _line(w, at, [p.accuracy.value for p in points], "train")
    drawn = [replace(accuracy, band=[(p.accuracy.low, p.accuracy.high) for p in points])]
    keys = [Key("train", w("robust.band_" + along))]
    if guess and guess.metric:
        ends = [(x, guess.metric.value) for x in (at[0], at[-1])]
        drawn.append(Series(ends, "ideal", dots=False))
        keys.append(Key("ideal", w("robust.always", majority=data(guess.answer))))
    figures = [_figure(w, w("robust.accuracy_" + along), along, drawn, keys)]
    moved = [p.neighbours for p in points if p.neighbours]
    if len(moved) == len(points):
        same, own = [m.same for m in moved], [m.own for m in moved]
        drawn = [_line(w, at, same, "train"), _line(w, at, own, "val")]
        keys = [Key("train", w("robust.same")), Key("val", w("robust.own"))]
        figures.append(_figure(w, w("robust.neighbours_" + along), along, drawn, keys))
    return figures


def _line(w: Words, at: Sequence[float], shares: Sequence[float], style: str) -> Series:
    points = list(zip(at, shares, strict=True))
    return Series(points, style, [f"{x:.0f}: {w.share(y)}" for x, y in points])


def _figure(
    w: Words, title: Markup, along: str, drawn: Sequence[Series], keys: Sequence[Key]
) -> Figure:
    last = max(4.0, *(x for series in drawn for x, _ in series.points))
    x = Axis(str(w("robust.along_" + along)), 0.0, last, lambda v: f"{v:.0f}")
    return line_chart(title, x, Axis("", 0.0, 1.0, w.percent), drawn, keys)


def _shares(w: Words, moved: Neighbours | None) -> tuple[str, str]:
    same, own = (moved.same, moved.own) if moved else (None, None)
    return w.share(same, 0), w.share(own, 0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
