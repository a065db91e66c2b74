"""Section: pictures to review: likely label mistakes, duplicates, outliers."""

from headstart.evaluation.missing_labels import MissingLabel
from headstart.reporting.blocks import (
    ExampleCard,
    Gallery,
    Heading,
    LargeCards,
    PageBlock,
    Pairs,
    Text,
    card_of,
)
from headstart.reporting.boxes import unlabelled_card
from headstart.reporting.facts import Facts, spelt
from headstart.reporting.words import Words, data

GROUPS = 12  # groups of duplicates shown
MEMBERS = 6  # pictures shown per group
SUSPECTS = 24  # likely label mistakes shown
OUTLIERS = 12


def suspects_section(facts: Facts, w: Words) -> list[PageBlock]:
    parts = {"mistakes": _mistakes, "missing": _missing, "near": _duplicates, "outliers": _outliers}
    found = {name: blocks(facts, w) for name, blocks in parts.items()}
    shown = [(name, blocks) for name, blocks in found.items() if blocks]
    if facts.insights.errors:
        shown = [("errors" if name == "mistakes" else name, blocks) for name, blocks in shown]
    titled = [
        block for name, blocks in shown for block in (Heading(w("suspects." + name)), *blocks)
    ]
    return [Text(w("suspects.lead"), "lead"), *titled]


def _mistakes(facts: Facts, w: Words) -> list[PageBlock]:
    found = facts.insights.mistakes
    if errors := facts.insights.errors:
        cards = [
            card_of(
                facts.album,
                row.path,
                w("suspects.labelled", label=data(w.label(row.label))),
                w("results.answer", answer=data(w.label(row.answer))),
            )
            for row in [row for row in errors.rows if row.answer != row.label][: SUSPECTS // 2]
        ]
        if not cards:
            return []
        return [Text(w("suspects.errors_note", n=errors.of), "note"), Gallery(cards)]
    if found is None:
        return [Text(w("suspects.mistakes_none"), "empty")] if facts.of_classes else []
    if not found.rows:
        return [Text(w("suspects.mistakes_clean", n=found.of), "note")]
    cards = list[ExampleCard]()
    for row in found.rows[:SUSPECTS]:
        looks = w("suspects.looks", label=data(row.suggested), score=w.percent(row.score))
        labelled = w("suspects.labelled", label=data(row.label))
        cards.append(card_of(facts.album, row.path, labelled, looks))
    note = w("suspects.mistakes_note", n=found.found, of=w.count(found.of))
    return [Text(note, "note"), Gallery(cards)]


def _missing(facts: Facts, w: Words) -> list[PageBlock]:
    """Show the pictures with detections where no box is labelled."""
    found, target = facts.insights.missing_labels, facts.test.target
    if found is None:
        return []
    if not found.rows:
        return [Text(w("suspects.missing_none", n=found.of), "note")]
    truth = {spelt(row.path): row.label for row in facts.rows}
    by_path = dict[str, list[MissingLabel]]()
    for row in found.rows:
        by_path.setdefault(row.path, []).append(row)
    cards = [
        unlabelled_card(facts, w, path, rows, target.parse([truth.get(path, "")])[0])
        for path, rows in list(by_path.items())[: SUSPECTS // 2]
    ]
    note = w("suspects.missing_note", n=len(found.rows), of=w.count(found.of))
    return [Text(note, "note"), LargeCards(cards)]


def _duplicates(facts: Facts, w: Words) -> list[PageBlock]:
    """Show groups with two labels first: one of their labels must be wrong."""
    label = {row.path: facts.caption(row.label) for row in facts.rows}
    groups = [*facts.checks.exact_duplicates, *facts.checks.near_duplicates]
    if not groups:
        return [Text(w("suspects.near_none"), "note")]
    two_labels = [len({label.get(path, "") for path in group}) > 1 for group in groups]
    cards = [
        [
            card_of(facts.album, path, data(w.label(label.get(path, "–"))))
            for path in groups[i][:MEMBERS]
        ]
        for i in sorted(range(len(groups)), key=lambda i: not two_labels[i])[:GROUPS]
    ]
    note = w("suspects.near_note", n=len(groups), two=w.count(sum(two_labels)))
    return [Text(note, "note"), Pairs(cards)]


def _outliers(facts: Facts, w: Words) -> list[PageBlock]:
    """Show each outlier beside the picture nearest to it."""
    found = facts.insights.outliers
    if not found:
        return [Text(w("suspects.outliers_none"), "empty")] if facts.of_classes else []
    pairs = list[list[ExampleCard]]()
    for row in found[:OUTLIERS]:
        far = w("suspects.far", distance=w.number(row.distance, 2))
        label = data(w.label(facts.caption(row.label)))
        outlier = card_of(facts.album, row.path, label, far)
        pairs.append([outlier, card_of(facts.album, row.nearest, w("suspects.nearest"))])
    return [Text(w("suspects.outliers_note"), "note"), Pairs(pairs)]
