"""Section: the data: counts, samples, findings of the checks, and augmented views."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.backbones.views import UserViews
from headstart.base.errors import HeadstartError
from headstart.base.phrasebook import phrasebook
from headstart.base.values import Settings
from headstart.data.dataset import LeftOut
from headstart.data.findings import Remark
from headstart.modalities.images.augment import Augment
from headstart.reporting.blocks import (
    Bar,
    ExampleCard,
    Gallery,
    Heading,
    PageBlock,
    TableBlock,
    Text,
    card_of,
)
from headstart.reporting.facts import Facts, spread
from headstart.reporting.run_files import RecordedRow
from headstart.reporting.words import Words, data, path_line
from headstart.targets.tallies import MANY

SHARES = {"share": 0, "rest": 1}  # facts of remarks that are shares, and their digits
FORMS = ("form", "better")  # facts that are the meaning of boxes' numbers
PARTS = ("train", "val", "test")
SAMPLES = 48  # pictures shown over all classes
EACH = 6  # pictures shown per class, at most
VIEWS = 11  # augmented views shown beside their picture
EXAMPLES = 5  # listed in a table cell


def data_section(facts: Facts, w: Words) -> list[PageBlock]:
    sizes = {part: len(facts.part(part)) for part in PARTS}
    values = {
        "rows": w("count.pictures", n=len(facts.rows)),
        **{part: w.count(n) for part, n in sizes.items()},
    }
    if facts.classes:
        values["classes"] = w("count.classes", n=len(facts.classes))
    lead = w("data.lead" if facts.classes else "data.lead_rows", **values)
    if facts.evaluation.folds:
        lead = w("data.lead_folds", **values)
    counts = _counts(facts, w) if facts.classes else _census(facts, w)
    return [
        *(Text(lead, "lead"), *counts),
        *(Heading(w("data.samples")), Gallery(_samples(facts, w))),
        *(Heading(w("data.checks")), *_findings(facts, w)),
        *([] if has_no_views(facts) else [Heading(w("data.augment")), *_views(facts, w)]),
        *_searched(facts, w),
    ]


def has_no_views(facts: Facts) -> bool:
    """Return whether the examples are of a kind that is never augmented, such as texts."""
    return facts.in_parts


def _counts(facts: Facts, w: Words) -> list[PageBlock]:
    """Count the rows of each class by part; of very many classes those with the fewest rows."""
    counts = Counter((row.label, row.part) for row in facts.rows)
    names = list(dict.fromkeys([*facts.classes, *(row.label for row in facts.rows)]))
    sizes = [[counts[name, part] for part in PARTS] for name in names]
    most, notes = max(map(sum, sizes), default=0) or 1, list[PageBlock]()
    listed = list(zip(names, sizes, strict=True))
    if len(listed) > MANY:
        listed = sorted(listed, key=lambda own: sum(own[1]))[:MANY]
        notes = [Text(w("data.fewest", n=MANY, all=w.count(len(names))), "note")]
    rows = [
        [data(name), *map(w.count, [*own, sum(own)]), Bar([n / most for n in own])]
        for name, own in listed
    ]
    head = [w("test.class"), *(w("part." + part) for part in PARTS), w("data.all"), w("data.bar")]
    return [*notes, TableBlock(head, rows, left=(0, 5))]


def _census(facts: Facts, w: Words) -> list[PageBlock]:
    """Count the rows of each group of labels, such as a range of numbers, by part."""
    target = facts.evaluation.test.target
    names, inside = target.census(target.parse([row.label for row in facts.rows]))
    if not names:
        return []
    part = np.array([row.part for row in facts.rows])
    sizes = [[int(inside[part == p, g].sum()) for p in PARTS] for g in range(len(names))]
    most = max(map(sum, sizes), default=0) or 1
    rows = [
        [data(w.label(name)), *map(w.count, [*own, sum(own)]), Bar([n / most for n in own])]
        for name, own in zip(names, sizes, strict=True)
    ]
    head = [w("data.label"), *(w("part." + p) for p in PARTS), w("data.all"), w("data.bar")]
    return [TableBlock(head, rows, left=(0, 5))]


def _samples(facts: Facts, w: Words) -> list[ExampleCard]:
    """Pick the same number of training rows per class, evenly spread, at most SAMPLES in all.

    Without classes, pick training rows at even steps.
    """
    if not facts.classes:
        rows = spread(facts.part("train"), SAMPLES // 2)
        named = ((row.path, w.label(facts.caption(row.label))) for row in rows)
        return [card_of(facts.album, path, data(name)) for path, name in named]
    by_class = defaultdict[str, list[RecordedRow]](list)
    for row in facts.part("train"):
        by_class[row.label].append(row)
    each = max(1, min(EACH, SAMPLES // max(1, len(by_class))))
    picked = [row for rows in by_class.values() for row in spread(rows, each)][:SAMPLES]
    return [card_of(facts.album, row.path, data(row.label)) for row in picked]


def _findings(facts: Facts, w: Words) -> list[PageBlock]:
    """Return a table of what was found, and a sentence on what was looked for in vain."""
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
    of_kind = defaultdict[str, list[str]](list)
    for remark in checks.remarks:
        of_kind[remark.kind].append(_said(remark, w))
    found |= of_kind
    if not facts.classes:
        found = {k: v for k, v in found.items() if k not in ("empty", "one")}
    if facts.in_parts and not checks.odd_sizes:
        del found["odd"]
    about_all = [[_said(remark, w)] for remark in checks.remarks if not remark.path]
    rows = [
        [w.named("found", k), "" if v in about_all else w.count(len(v)), _examples(w, v)]
        for k, v in found.items()
        if v
    ]
    head = [w("found.what"), w("found.count"), w("found.examples")]
    table = [TableBlock(head, rows, left=(0, 2))] if rows else []
    none = Markup("; ").join(w.named("found", k) for k, v in found.items() if not v)
    return [*table, *([Text(w("found.clean", names=none), "note")] if none else [])]


def _named(out: LeftOut, w: Words) -> str:
    """Return the path and the reason in the language of the page, if its phrases have it."""
    return f"{out.path}: {phrasebook(w.language)(out.reason)}"


def _said(remark: Remark, w: Words) -> str:
    """Return a remark in the language of the page, if it has words for it; else in English."""
    key = f"remark.{remark.text}"
    if w.language == "en" or key not in w:
        return str(remark)
    sentence = w(key, **{name: _fact(name, value, w) for name, value in remark.facts})
    return Markup("{}: {}").format(remark.path, sentence) if remark.path else sentence


def _fact(name: str, value: str | int | float, w: Words) -> Any:
    """Return a value for `Words`, which writes the number `n` itself."""
    if name == "language":
        return w.name_of_language(str(value))
    if name in FORMS:
        layout, unit = str(value).split()
        return w(f"box_form.{layout}", unit=w(f"box_unit.{unit}"))
    if isinstance(value, str) or name == "n":
        return value
    if name in SHARES:
        return w.share(value, SHARES[name])
    return w.count(value) if isinstance(value, int) else w.tick(value)


def _examples(w: Words, found: Sequence[str]) -> Markup:
    more = len(found) - EXAMPLES
    lines = [path_line(text) for text in found[:EXAMPLES]]
    if more > 0:
        lines.append(w("found.more", n=more))
    return Markup("<br>").join(lines)


def _searched(facts: Facts, w: Words) -> list[PageBlock]:
    """Show the changes that were tried, if the run chose them."""
    found = facts.recipe.view_search
    if found is None:
        return []
    rows = [
        [
            " + ".join(w.named("change", name) for name in own.names),
            *(f"{w.number(g.value)} ± {w.number(g.error)}" for g in (own.loss, own.score)),
            w.number(own.on_changed),
            w("change.taken") if own.taken else "",
        ]
        for own in found.tried
    ]
    head = [w(f"change.{key}") for key in ("change", "loss", "score", "on_changed")]
    note = Text(w("change.note", rows=w.count(found.rows)), "note")
    return [Heading(w("change.title")), note, TableBlock([*head, ""], rows)]


def _views(facts: Facts, w: Words) -> list[PageBlock]:
    path, views = "", list[str]()
    try:
        if facts.recipe.augment.kind == UserViews.__name__:
            name = facts.recipe.augment.values.get("name")
            return [Text(w("data.augment_own", name=data(str(name))), "note")]
        augment = facts.recipe.augment.spec(Augment) if facts.recipe.augment.kind else Augment()
        if not augment.active:
            return [Text(w("data.no_augment"), "empty")]
        for path in (row.path for row in facts.part("train")[:EXAMPLES]):
            if views := facts.album.views(path, augment, VIEWS, facts.recipe.seed):
                break
    except HeadstartError:  # settings of another version, or no torchvision
        views = []
    if not views:
        return [Text(w("data.augment_undrawn"), "empty")]
    cards = [ExampleCard(views[0], [w("data.plain"), path_line(path)])]
    cards += [ExampleCard(uri, [w("data.view", i=i)]) for i, uri in enumerate(views[1:], start=1)]
    usual = Settings.of(Augment()).values
    settings = [f"{k} {v}" for k, v in facts.recipe.augment.values.items() if v != usual.get(k)]
    note = w("data.augment_note", settings=path_line(", ".join(settings)))
    return [Text(note, "note"), Gallery(cards)]
