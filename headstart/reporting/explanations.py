"""Section: saliency maps, or marked words, of the worst mistakes and a few good answers."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from headstart.explaining.pixels.saved import ExplainedRow, ExplainedRows
from headstart.explaining.tokens.saved import ExplainedTexts
from headstart.modalities.images.inputs import ImageInput, of_pictures
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import ExampleCard, Heading, PageBlock, Pairs, Text, answer_card
from headstart.reporting.facts import Facts
from headstart.reporting.marked import marked_section
from headstart.reporting.words import Words, code, data, path_line
from headstart.targets.target import POOLED

COMMANDS = {"command": code("headstart explain RUN"), "report": code("headstart report RUN")}
DISTRUST = Markup('<strong class="doubt">{}</strong>')
SWATCHES = {
    "red": Markup('<span class="swatch for"></span>'),
    "blue": Markup('<span class="swatch against"></span>'),
}


def why_section(facts: Facts, w: Words) -> list[PageBlock]:
    explained = facts.explained
    if isinstance(explained, ExplainedTexts) and explained.rows:
        return marked_section(facts, w, explained.rows)
    if isinstance(explained, ExplainedRows) and explained.rows:
        return _maps(facts, w, explained.rows)
    if facts.test.target.takes != POOLED:
        return []  # nothing explains such answers
    return [Text(w("why.none", **COMMANDS), "empty")]


def _maps(facts: Facts, w: Words, rows: Sequence[ExplainedRow]) -> list[PageBlock]:
    input = of_pictures(facts.card.input) if facts.card else ImageInput(fit="squash")
    better = sum(row.deletion.area.ours < row.deletion.area.random for row in rows)
    kind = _kind(facts)
    judged = w(f"why.judged{kind}", n=len(rows), better=w.count(better))
    blocks: list[PageBlock] = [Text(w(f"why.lead{kind}", **SWATCHES), "lead"), Text(judged)]
    if 2 * better <= len(rows):
        blocks.append(Text(w("why.distrust"), "warning"))
    for group in ("wrong", "right", "worst", "middle", "best"):
        pairs = [_pair(row, w, facts.album, input) for row in rows if _group(row) == group]
        if pairs:
            blocks += [Heading(w(f"why.{group}")), Pairs(pairs)]
    return [*blocks, Text(w(f"why.note{kind}"), "note")]


def _kind(facts: Facts) -> str:
    """Return the ending of the keys of the words, "" for classes."""
    if facts.of_classes:
        return ""
    return "_label" if facts.test.target.names_topics else "_quantity"


def _group(row: ExplainedRow) -> str:
    return row.group or ("right" if row.right else "wrong")


def _pair(row: ExplainedRow, w: Words, album: Album, input: ImageInput) -> list[ExampleCard]:
    """Return the picture and its saliency map for what is explained."""
    plain, under_map = album.explained(row.path, input, np.array(row.map, np.float32))
    area = row.deletion.area
    numbers = {"ours": w.number(area.ours, 2), "random": w.number(area.random, 2)}
    if not row.group:
        card = answer_card(w, plain, row.path, row.name, row.score, row.label)
        speaks, judged = w("why.speaks", label=data(row.name)), w("why.area", **numbers)
    else:
        card = ExampleCard(plain, _answered(row, w))
        labelled, end = not row.answer, "_quantity" if row.answer else ""
        speaks = w("why.speaks_label", label=data(row.name)) if labelled else w("why.raises")
        judged = w(f"why.area{end}", **numbers)
    distrust = [] if area.ours < area.random else [DISTRUST.format(w("why.distrust_one"))]
    return [card, ExampleCard(under_map, [speaks, judged, *distrust])]


def _answered(row: ExplainedRow, w: Words) -> list[Markup]:
    """Return the lines of an answer that is not just right or wrong: it, the truth, the path."""
    score = Markup(" <span class=number>{}</span>").format(w.percent(row.score))
    answer = data(row.answer) if row.answer else data(row.name) + score
    truth = [w("why.truth", label=data(w.label(row.label)))] if row.label else []
    return [answer, *truth, path_line(row.path)]
