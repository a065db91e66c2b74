"""Section: saliency maps of the worst mistakes and of a few right answers."""

import numpy as np
from markupsafe import Markup

from headstart.explaining.pixels.saved import ExplainedRow
from headstart.modalities.images.inputs import ImageInput, of_pictures
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import Block, Heading, Pairs, PictureCard, Section, Text
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data, path_line

COMMANDS = {
    "command": Markup('<code translate="no">headstart explain RUN</code>'),
    "report": Markup('<code translate="no">headstart report RUN</code>'),
}

SWATCHES = {
    "red": Markup('<span class="swatch for"></span>'),
    "blue": Markup('<span class="swatch against"></span>'),
}


def why_section(facts: Facts, w: Words, album: Album) -> Section:
    rows = facts.explained.rows
    if not rows:
        return Section("why", w("why.title"), [Text(w("why.none", **COMMANDS), "empty")])
    input = of_pictures(facts.card.input) if facts.card else ImageInput(fit="squash")
    better = sum(row.deletion.area.ours < row.deletion.area.random for row in rows)
    judged = w("why.judged", n=len(rows), better=w.count(better))
    blocks: list[Block] = [Text(w("why.lead", **SWATCHES), "lead"), Text(judged)]
    for title, right in (("why.wrong", False), ("why.right", True)):
        pairs = [_pair(row, w, album, input) for row in rows if row.right == right]
        if pairs:
            blocks += [Heading(w(title)), Pairs(pairs)]
    return Section("why", w("why.title"), [*blocks, Text(w("why.note"), "note")])


def _pair(row: ExplainedRow, w: Words, album: Album, input: ImageInput) -> list[PictureCard]:
    """Return the picture and its saliency map for the predicted class."""
    mark = "right" if row.right else "wrong"
    score = w.share(row.score, 0)
    lines = [Markup("{} <span class=number>{}</span>").format(data(row.name), score)]
    if mark == "wrong":
        lines.append(w("test.really", label=data(row.label)))
    seen, over = album.explained(row.path, input, np.array(row.map, np.float32))
    area = row.deletion.area
    judged = w("why.area", ours=w.number(area.ours, 2), random=w.number(area.random, 2))
    return [
        PictureCard(seen, [*lines, path_line(row.path)], mark, w("test." + mark)),
        PictureCard(over, [w("why.speaks", label=data(row.name)), judged]),
    ]
