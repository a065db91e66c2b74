"""Section: pictures to review: likely label mistakes, duplicates, outliers."""

from headstart.evaluation.mistakes import Outlier
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import (
    Block,
    Gallery,
    Heading,
    Pairs,
    PictureCard,
    Section,
    Text,
)
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data, path_line

GROUPS = 12  # groups of duplicates shown
MEMBERS = 6  # pictures shown per group
SUSPECTS = 24  # likely label mistakes shown
OUTLIERS = 12


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
        PictureCard(
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
    """Show groups with two labels first: one of their labels must be wrong."""
    label = {row.path: row.label for row in facts.rows}
    near = [*facts.checks.exact_duplicates, *facts.checks.near_duplicates]
    if not near:
        return [Text(w("suspects.near_none"), "note")]
    order = sorted(near, key=lambda group: len({label.get(p, "") for p in group}) < 2)
    groups = [
        [
            PictureCard(album.picture(path), [data(label.get(path, "–")), path_line(path)])
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


def _outlier(w: Words, album: Album, row: Outlier) -> PictureCard:
    far = w("suspects.far", distance=w.number(row.distance, 2))
    return PictureCard(album.picture(row.path), [data(row.label), far, path_line(row.path)])


def _beside(w: Words, album: Album, row: Outlier) -> PictureCard:
    """Return the card of the picture nearest to an outlier."""
    return PictureCard(album.picture(row.nearest), [w("suspects.nearest"), path_line(row.nearest)])
