"""What the model learned from: counts, samples, what was found in the data, and its map."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from headstart.base.errors import HeadstartError
from headstart.base.values import Settings
from headstart.data.dataset import LeftOut
from headstart.evaluation.mistakes import Outlier
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.about_accuracy import path_line
from headstart.reporting.blocks import (
    Bar,
    Block,
    Card,
    Gallery,
    Heading,
    Key,
    Map,
    Pairs,
    Section,
    Table,
    Text,
)
from headstart.reporting.charts import mark, scatter
from headstart.reporting.facts import Facts, Row
from headstart.reporting.words import Words, data

PARTS = ("train", "val", "test")
SAMPLES = 48  # pictures of the data, over all classes
EACH = 6  # of one class, at most
VIEWS = 11  # augmented views shown beside their picture
EXAMPLES = 5  # named in a table
GROUPS = 12  # of duplicates shown
MEMBERS = 6  # of one such group
SUSPECTS = 24  # likely label mistakes shown
OUTLIERS = 12
POINTS = 1500  # of the map, at most


def data_section(facts: Facts, w: Words, album: Album) -> Section:
    sizes = {part: len(facts.part(part)) for part in PARTS}
    lead = w(
        "data.lead",
        rows=w("count.pictures", n=len(facts.rows)),
        classes=w("count.classes", n=len(facts.classes)),
        **{part: w.count(n) for part, n in sizes.items()},
    )
    blocks: list[Block] = [Text(lead, "lead"), _counts(facts, w)]
    blocks += [Heading(w("data.samples")), Gallery(_samples(facts, w, album))]
    blocks += [Heading(w("data.checks")), _findings(facts, w)]
    blocks += [Heading(w("data.augment")), *_views(facts, w, album)]
    return Section("data", w("data.title"), blocks)


def _counts(facts: Facts, w: Words) -> Table:
    counts = Counter((row.label, row.part) for row in facts.rows)
    names = list(dict.fromkeys([*facts.classes, *(row.label for row in facts.rows)]))
    totals = {name: sum(counts[name, part] for part in PARTS) for name in names}
    most = max(totals.values(), default=0) or 1
    rows = [
        [
            data(name),
            *(w.count(counts[name, part]) for part in PARTS),
            w.count(totals[name]),
            Bar([counts[name, part] / most for part in PARTS]),
        ]
        for name in names
    ]
    head = [w("test.class"), *(w("part." + part) for part in PARTS), w("data.all"), w("data.bar")]
    return Table(head, rows, left=(0, 5))


def _samples(facts: Facts, w: Words, album: Album) -> list[Card]:
    """As many of each class as fit, evenly spread over its training rows."""
    by_class = defaultdict[str, list[Row]](list)
    for row in facts.part("train"):
        by_class[row.label].append(row)
    each = max(1, min(EACH, SAMPLES // max(1, len(by_class))))
    picked = [row for rows in by_class.values() for row in _spread(rows, each)][:SAMPLES]
    return [Card(album.picture(r.path), [data(r.label), path_line(r.path)]) for r in picked]


def _spread(rows: Sequence[Row], n: int) -> list[Row]:
    return [rows[i * len(rows) // n] for i in range(n)] if len(rows) > n else list(rows)


def _findings(facts: Facts, w: Words) -> Table:
    checks, two = facts.checks, facts.checks.two_labels
    found: dict[str, Sequence[str]] = {
        "unreadable": [_named(o, w) for o in checks.unreadable],
        "left_out": [_named(o, w) for o in checks.left_out],
        "exact": [" = ".join(group) for group in checks.exact_duplicates],
        "near": [" ≈ ".join(group) for group in checks.near_duplicates],
        "two_exact": [" = ".join(group) for group in two.exact],
        "two_near": [f"{a} ≈ {b}" for a, b, _ in two.near],
        "empty": checks.empty_classes,
        "one": checks.one_image_classes,
        "odd": [f"{s.path} ({s.width}×{s.height})" for s in checks.odd_sizes],
    }
    rows = [[w("found." + k), w.count(len(v)), _examples(w, v)] for k, v in found.items()]
    head = [w("found.what"), w("found.count"), w("found.examples")]
    return Table(head, rows, left=(0, 2))


def _named(out: LeftOut, w: Words) -> str:
    """A file with the reason, which checks.json tells in English."""
    return f"{out.path}: {out.reason}" if w.language == "en" else out.path


def _examples(w: Words, found: Sequence[str]) -> Markup:
    if not found:
        return Markup("–")
    more = len(found) - EXAMPLES
    lines = [path_line(text) for text in found[:EXAMPLES]]
    if more > 0:
        lines.append(w("found.more", n=more))
    return Markup("<br>").join(lines)


def _views(facts: Facts, w: Words, album: Album) -> list[Block]:
    try:
        augment = facts.recipe.augment.spec(Augment) if facts.recipe.augment.kind else Augment()
        if not augment.active:
            return [Text(w("data.no_augment"), "empty")]
        shown = _first_views(facts, album, augment)
    except HeadstartError:  # settings of another version, or no torchvision here
        return [Text(w("data.augment_undrawn"), "empty")]
    if not shown:
        return [Text(w("data.augment_undrawn"), "empty")]
    path, cells = shown
    cards = [Card(cells[0], [w("data.plain"), path_line(path)])]
    cards += [Card(cell, [w("data.view", i=i)]) for i, cell in enumerate(cells[1:], start=1)]
    usual = Settings.of(Augment()).values
    settings = [f"{k} {v}" for k, v in facts.recipe.augment.values.items() if v != usual.get(k)]
    note = w("data.augment_note", settings=path_line(", ".join(settings)))
    return [Text(note, "note"), Gallery(cards)]


def _first_views(facts: Facts, album: Album, augment: Augment) -> tuple[str, list[str]] | None:
    """Of the first training picture that can be read, among a few."""
    for row in facts.part("train")[:EXAMPLES]:
        if cells := album.views(row.path, augment, VIEWS, facts.recipe.seed):
            return row.path, cells
    return None


def suspects_section(facts: Facts, w: Words, album: Album) -> Section:
    blocks: list[Block] = [Text(w("suspects.lead"), "lead"), Heading(w("suspects.mistakes"))]
    blocks += _mistakes(facts, w, album)
    blocks += [Heading(w("suspects.near")), *_duplicates(facts, w, album)]
    blocks += [Heading(w("suspects.outliers")), *_outliers(facts, w, album)]
    return Section("suspects", w("suspects.title"), blocks)


def _mistakes(facts: Facts, w: Words, album: Album) -> list[Block]:
    found = facts.insights.mistakes
    if found is None:
        return [Text(w("suspects.mistakes_none"), "empty")]
    if not found.rows:
        return [Text(w("suspects.mistakes_clean", n=found.of), "note")]
    cards = [
        Card(
            album.picture(row.path),
            [
                w("suspects.labelled", label=data(row.label)),
                w("suspects.looks", label=data(row.suggested), score=w.share(row.score, 0)),
                path_line(row.path),
            ],
        )
        for row in found.rows[:SUSPECTS]
    ]
    note = w("suspects.mistakes_note", n=found.found, of=w.count(found.of))
    return [Text(note, "note"), Gallery(cards)]


def _duplicates(facts: Facts, w: Words, album: Album) -> list[Block]:
    """Groups under two labels first: they are the ones that must be wrong somewhere."""
    label = {row.path: row.label for row in facts.rows}
    near = [*facts.checks.exact_duplicates, *facts.checks.near_duplicates]
    if not near:
        return [Text(w("suspects.near_none"), "note")]
    order = sorted(near, key=lambda group: len({label.get(p, "") for p in group}) < 2)
    groups = [
        [
            Card(album.picture(path), [data(label.get(path, "–")), path_line(path)])
            for path in group[:MEMBERS]
        ]
        for group in order[:GROUPS]
    ]
    two = sum(len({label.get(p, "") for p in group}) > 1 for group in near)
    return [Text(w("suspects.near_note", n=len(near), two=w.count(two)), "note"), Pairs(groups)]


def _outliers(facts: Facts, w: Words, album: Album) -> list[Block]:
    found = facts.insights.outliers
    if not found:
        return [Text(w("suspects.outliers_none"), "empty")]
    pairs = [[_outlier(w, album, row), _beside(w, album, row)] for row in found[:OUTLIERS]]
    return [Text(w("suspects.outliers_note"), "note"), Pairs(pairs)]


def _outlier(w: Words, album: Album, row: Outlier) -> Card:
    far = w("suspects.far", distance=w.number(row.distance, 2))
    return Card(album.picture(row.path), [data(row.label), far, path_line(row.path)])


def _beside(w: Words, album: Album, row: Outlier) -> Card:
    """The picture that is nearest to an outlier."""
    return Card(album.picture(row.nearest), [w("suspects.nearest"), path_line(row.nearest)])


def map_section(facts: Facts, w: Words, album: Album) -> Section:
    found = facts.insights.map
    if found is None or not found.maps or not found.paths:
        return Section("map", w("map.title"), [Text(w("map.none"), "empty")])
    paths, labels = found.paths[:POINTS], found.labels[:POINTS]
    names = list(dict.fromkeys([*facts.classes, *labels]))
    groups = [names.index(label) for label in labels]
    views = [(name, scatter(points[:POINTS], groups, name)) for name, points in found.maps.items()]
    sheet = album.sheet(paths)
    shown = {
        "paths": paths,
        "labels": [names.index(label) for label in labels],
        "names": names,
        "parts": [str(w.texts.get("part." + p, p)) for p in found.parts[:POINTS]],
        "sheet": sheet.uri if sheet else "",
        "held": [int(h) for h in sheet.held] if sheet else [],
    }
    keys = [Key(mark(i), data(name)) for i, name in enumerate(names)]
    blocks = [
        Text(w("map.lead", n=len(paths)), "lead"),
        Map(views, keys, shown, w("map.hint")),
    ]
    return Section("map", w("map.title"), blocks)
