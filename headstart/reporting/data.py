"""Section: the data: counts, samples, findings of the checks, and augmented views."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from headstart.base.errors import HeadstartError
from headstart.base.values import Settings
from headstart.data.dataset import LeftOut
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import (
    Bar,
    Block,
    Gallery,
    Heading,
    PictureCard,
    Section,
    TableBlock,
    Text,
)
from headstart.reporting.facts import Facts, Row
from headstart.reporting.words import Words, data, path_line

PARTS = ("train", "val", "test")
SAMPLES = 48  # pictures shown over all classes
EACH = 6  # pictures shown per class, at most
VIEWS = 11  # augmented views shown beside their picture
EXAMPLES = 5  # listed in a table cell


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


def _counts(facts: Facts, w: Words) -> TableBlock:
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
    return TableBlock(head, rows, left=(0, 5))


def _samples(facts: Facts, w: Words, album: Album) -> list[PictureCard]:
    """Pick the same number of training rows per class, evenly spread, at most SAMPLES in all."""
    by_class = defaultdict[str, list[Row]](list)
    for row in facts.part("train"):
        by_class[row.label].append(row)
    each = max(1, min(EACH, SAMPLES // max(1, len(by_class))))
    picked = [row for rows in by_class.values() for row in _spread(rows, each)][:SAMPLES]
    return [PictureCard(album.picture(r.path), [data(r.label), path_line(r.path)]) for r in picked]


def _spread(rows: Sequence[Row], n: int) -> list[Row]:
    return [rows[i * len(rows) // n] for i in range(n)] if len(rows) > n else list(rows)


def _findings(facts: Facts, w: Words) -> TableBlock:
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
    return TableBlock(head, rows, left=(0, 2))


def _named(out: LeftOut, w: Words) -> str:
    """Return the path, with the reason on an English page: checks.json has it in English only."""
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
    except HeadstartError:  # settings of another version, or no torchvision
        return [Text(w("data.augment_undrawn"), "empty")]
    if not shown:
        return [Text(w("data.augment_undrawn"), "empty")]
    path, cells = shown
    cards = [PictureCard(cells[0], [w("data.plain"), path_line(path)])]
    cards += [PictureCard(cell, [w("data.view", i=i)]) for i, cell in enumerate(cells[1:], start=1)]
    usual = Settings.of(Augment()).values
    settings = [f"{k} {v}" for k, v in facts.recipe.augment.values.items() if v != usual.get(k)]
    note = w("data.augment_note", settings=path_line(", ".join(settings)))
    return [Text(note, "note"), Gallery(cards)]


def _first_views(facts: Facts, album: Album, augment: Augment) -> tuple[str, list[str]] | None:
    """Return the path and views of the first readable training picture among EXAMPLES."""
    for row in facts.part("train")[:EXAMPLES]:
        if cells := album.views(row.path, augment, VIEWS, facts.recipe.seed):
            return row.path, cells
    return None
