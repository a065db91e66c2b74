"""Section: saliency maps of the worst mistakes and of a few right answers."""

import numpy as np
from markupsafe import Markup

from headstart.explaining.pixels.saved import ExplainedRow
from headstart.modalities.images.inputs import ImageInput, of_pictures
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import Heading, PageBlock, Pairs, PictureCard, Text, answer_card
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, code, data

COMMANDS = {"command": code("headstart explain RUN"), "report": code("headstart report RUN")}
SWATCHES = {
    "red": Markup('<span class="swatch for"></span>'),
    "blue": Markup('<span class="swatch against"></span>'),
}


def why_section(facts: Facts, w: Words) -> list[PageBlock]:
    rows = facts.explained.rows
    if not rows and not facts.of_classes:
        return []
    if not rows:
        return [Text(w("why.none", **COMMANDS), "empty")]
    input = of_pictures(facts.card.input) if facts.card else ImageInput(fit="squash")
    better = sum(row.deletion.area.ours < row.deletion.area.random for row in rows)
    judged = w("why.judged", n=len(rows), better=w.count(better))
    blocks: list[PageBlock] = [Text(w("why.lead", **SWATCHES), "lead"), Text(judged)]
    for title, right in (("why.wrong", False), ("why.right", True)):
        pairs = [_pair(row, w, facts.album, input) for row in rows if row.right == right]
        if pairs:
            blocks += [Heading(w(title)), Pairs(pairs)]
    return [*blocks, Text(w("why.note"), "note")]


def _pair(row: ExplainedRow, w: Words, album: Album, input: ImageInput) -> list[PictureCard]:
    """Return the picture and its saliency map for the predicted class."""
    plain, under_map = album.explained(row.path, input, np.array(row.map, np.float32))
    area = row.deletion.area
    judged = w("why.area", ours=w.number(area.ours, 2), random=w.number(area.random, 2))
    return [
        answer_card(w, plain, row.path, row.name, row.score, row.label),
        PictureCard(under_map, [w("why.speaks", label=data(row.name)), judged]),
    ]
