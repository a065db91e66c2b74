"""How the answers hold when pictures are changed, by an adversary or by everyday damage."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import Block, Figure, Figures, Heading, Key, Section, Table, Text
from headstart.reporting.charts import Axis, Series, line_chart, spark
from headstart.reporting.facts import Facts, estimate
from headstart.reporting.words import Words, data

COMMAND = Markup('<code translate="no">headstart robustness RUN</code>')
FLAG = Markup('<code translate="no">--adversarial</code>')
LEVELS = 255  # of a pixel's value
UNSEEN = 2  # levels: a change that nobody sees
FRAGILE, FIRM = 0.25, 0.75  # of the clean accuracy, under attack
MIDDLE = 3  # of the five strengths

Guess = dict[str, Any] | None  # what always naming the commonest class would have got


def robustness_section(facts: Facts, w: Words, album: Album) -> Section:
    found = facts.robustness
    if not found:
        none = Text(w("robust.none", command=COMMAND), "empty")
        return Section("robustness", w("robust.title"), [none])
    blocks = [] if found["finished"] else [Text(w("robust.cut_off", command=COMMAND), "empty")]
    guess = facts.evaluation["test"].get("baseline")
    blocks += _attacked(w, found, guess)
    blocks += _corrupted(w, found, guess)
    if found["neighbours"]["of"]:
        of = w.count(int(found["neighbours"]["of"]))
        nearest = w.count(int(found["neighbours"]["nearest"]))
        blocks.append(Text(w("robust.neighbours_note", of=of, nearest=nearest), "note"))
    return Section("robustness", w("robust.title"), blocks)


def _attacked(w: Words, found: dict[str, Any], guess: Guess) -> list[Block]:
    tried = found["attacked"]
    if len(tried) < 2:
        return []
    rows = [
        [
            f"{row['levels']}/{LEVELS}",
            w.estimate(estimate(row["accuracy"])),
            *_shares(w, row["neighbours"]),
        ]
        for row in tried
    ]
    head = [w("robust.epsilon"), w("metric.accuracy"), w("robust.same"), w("robust.own")]
    told = w("robust.attack_note", steps=w.count(int(found["plan"]["steps"])))
    return [
        Text(_attack_said(w, tried, guess), "lead"),
        Figures(_curves(w, tried, "levels", guess)),
        Table(head, rows, caption=w("robust.attack_caption", n=int(found["rows"]))),
        Text(told, "note"),
    ]


def _attack_said(w: Words, tried: list[dict[str, Any]], guess: Guess) -> Markup:
    """By the change that nobody sees, or else the smallest that was tried. What always naming the
    commonest class would get as well is no firmness."""
    clean = tried[0]
    row = next((r for r in tried if r["levels"] == UNSEEN), tried[1])
    left = row["accuracy"]["value"] / max(clean["accuracy"]["value"], 1e-9)
    said = w(
        "robust.unseen" if row["levels"] <= UNSEEN else "robust.seen",
        levels=w.count(int(row["levels"])),
        clean=w.estimate(estimate(clean["accuracy"])),
        accuracy=w.estimate(estimate(row["accuracy"])),
        n=int(clean["accuracy"]["n"]),
    )
    earned = guess is None or row["accuracy"]["low"] > guess["accuracy"]["value"]
    kind = "fragile" if left < FRAGILE else "firm" if left > FIRM and earned else "partly"
    return Markup("{} {}").format(said, w("robust." + kind, flag=FLAG))


def _corrupted(w: Words, found: dict[str, Any], guess: Guess) -> list[Block]:
    tried, clean = found["corrupted"], found["attacked"][0]
    if not tried:
        return []
    kinds = dict[str, list[dict[str, Any]]]()
    for row in tried:
        kinds.setdefault(row["name"], []).append(row)
    strengths = sorted({int(row["strength"]) for row in tried})
    rows = list[Sequence[Any]]()
    for name, own in kinds.items():
        shares = [row["accuracy"]["value"] for row in own]
        cells = [w.share(share, 0) for share in shares] + [""] * (len(strengths) - len(shares))
        mean = w.share(_mean(shares), 0) if len(shares) == len(strengths) else ""
        drawn = spark([clean["accuracy"]["value"], *shares])
        rows.append([w.named("corruption", name), *cells, mean, drawn])
    head = [w("robust.what"), *map(w.count, strengths), w("robust.mean"), w("robust.drawn")]
    sure = max((r["accuracy"]["high"] - r["accuracy"]["low"]) / 2 for r in tried)
    caption = w("robust.corrupt_caption", n=int(found["rows"]), sure=w.number(100 * sure, 0))
    return [
        Heading(w("robust.corrupted")),
        *_corruption_said(w, kinds),
        Table(head, rows, caption=caption),
        Figures(_curves(w, _by_strength(clean, tried), "strength", guess)),
        Text(w("robust.corrupt_note"), "note"),
    ]


def _corruption_said(w: Words, kinds: dict[str, list[dict[str, Any]]]) -> list[Text]:
    """By the middle strength, of the kinds that were tried at it."""
    tried = {name: rows for name, rows in kinds.items() if len(rows) >= MIDDLE}
    if not tried:
        return []
    middle = {name: rows[MIDDLE - 1]["accuracy"] for name, rows in tried.items()}
    order = sorted(middle, key=lambda name: float(middle[name]["value"]))
    worst, best = order[0], order[-1]
    said = w(
        "robust.worst",
        worst=w.named("corruption", worst),
        best=w.named("corruption", best),
        low=w.estimate(estimate(middle[worst])),
        high=w.estimate(estimate(middle[best])),
    )
    return [Text(said)]


def _by_strength(clean: dict[str, Any], tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of all kinds at each strength, between the worst and the best of them."""
    found = [{"strength": 0, **{k: clean[k] for k in ("accuracy", "neighbours")}}]
    for strength in sorted({int(row["strength"]) for row in tried}):
        own = [row for row in tried if row["strength"] == strength]
        shares = [float(row["accuracy"]["value"]) for row in own]
        moved = [row["neighbours"] for row in own if row["neighbours"]]
        accuracy = {"value": _mean(shares), "low": min(shares), "high": max(shares)}
        neighbours = {k: _mean([m[k] for m in moved]) for k in ("same", "own")} if moved else None
        found.append({"strength": strength, "accuracy": accuracy, "neighbours": neighbours})
    value = clean["accuracy"]["value"]  # of one kind, so nothing lies between
    found[0] = {**found[0], "accuracy": {"value": value, "low": value, "high": value}}
    return found


def _curves(w: Words, rows: list[dict[str, Any]], along: str, guess: Guess) -> list[Figure]:
    """Accuracy and, if there are any, neighbours, against `along`: levels or strength."""
    drawn = [_line(w, rows, along, "accuracy", "value", "train")]
    keys = [Key("train", w("robust.band_" + along))]
    if guess and guess["accuracy"]:
        share, ends = float(guess["accuracy"]["value"]), (rows[0][along], rows[-1][along])
        drawn.append(Series([(float(x), share) for x in ends], "ideal", dots=False))
        keys.append(Key("ideal", w("robust.always", majority=data(guess["majority"]))))
    figures = [_figure(w, w("robust.accuracy_" + along), along, drawn, keys)]
    if all(row["neighbours"] for row in rows):
        styles = {"same": "train", "own": "val"}
        drawn = [_line(w, rows, along, "neighbours", name, s) for name, s in styles.items()]
        keys = [Key(style, w("robust." + name)) for name, style in styles.items()]
        figures.append(_figure(w, w("robust.neighbours_" + along), along, drawn, keys))
    return figures


def _line(
    w: Words, rows: list[dict[str, Any]], along: str, of: str, name: str, style: str
) -> Series:
    points = [(float(row[along]), float(row[of][name])) for row in rows]
    said = [f"{x:.0f}: {w.share(y)}" for x, y in points]
    band = [(row[of]["low"], row[of]["high"]) for row in rows] if of == "accuracy" else []
    return Series(points, style, said, band)


def _figure(
    w: Words, title: Markup, along: str, drawn: Sequence[Series], keys: Sequence[Key]
) -> Figure:
    last = max(4.0, *(x for series in drawn for x, _ in series.points))
    x = Axis(str(w("robust.along_" + along)), 0.0, last, lambda v: f"{v:.0f}")
    y = Axis("", 0.0, 1.0, lambda v: w.share(v, 0))
    return Figure(line_chart(title, x, y, drawn), title, keys)


def _shares(w: Words, neighbours: dict[str, Any] | None) -> tuple[str, str]:
    moved = neighbours or {"same": None, "own": None}
    return w.share(moved["same"], 0), w.share(moved["own"], 0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
