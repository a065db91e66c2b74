"""RUN/figures: the charts of the report as SVG and PNG, for slides and papers."""

from collections.abc import Iterator
from pathlib import Path

from headstart.base.atomic import make_folder, write_bytes, write_text
from headstart.modalities.images.svg_drawing import bitmap_of, has_letters
from headstart.reporting.blocks import Confusion, Figure, Figures, Matrix, PageBlock
from headstart.reporting.charts import matrix_chart
from headstart.reporting.facts import Facts
from headstart.reporting.standalone import standalone_svg
from headstart.reporting.words import Words

FIGURES = "figures"  # the folder in a run
# Sections with charts, and the names of their files in order.
NAMES = {
    "curves": ("accuracy", "loss"),
    "test": ("result", "result-2", "result-3", "result-4", "result-5", "result-6"),
    "trust": ("reliability", "coverage"),
    "more-data": ("learning-curve",),
}


def write_figures(run: Path, facts: Facts, w: Words, blocks: dict[str, list[PageBlock]]) -> None:
    """Write RUN/figures/NAME.svg and NAME.png of every chart in these blocks of the sections.

    There is no PNG of a chart whose letters no font of this machine has.
    """
    folder = run / FIGURES
    for name, figure in figures_of(w, facts, blocks):
        make_folder(folder)
        svg = standalone_svg(figure)
        write_text(folder / f"{name}.svg", svg)
        if has_letters(svg):
            write_bytes(folder / f"{name}.png", bitmap_of(svg))


def figures_of(
    w: Words, facts: Facts, blocks: dict[str, list[PageBlock]]
) -> Iterator[tuple[str, Figure]]:
    """Yield the charts of a page by the names of their files."""
    for section, names in NAMES.items():
        own = blocks.get(section, [])
        found = [figure for b in own if isinstance(b, Figures) for figure in b.figures]
        if section == "curves" and len(found) == 1:
            names = ("loss",)
        if section == "trust" and not facts.of_classes:
            names = ("intervals",)
        yield from zip(names, found, strict=False)
        for block in own:
            if isinstance(block, Confusion):
                title, axes = str(w("test.confusion")), (str(w("test.truth")), str(w("test.said")))
                yield "confusion", matrix_chart(title, block.names, block.rows, axes)
            if isinstance(block, Matrix) and block.corner == w("matrix.confusion"):  # of grades
                title, axes = (
                    str(w("test.confusion")),
                    (str(w("trust.truth")), str(w("trust.answer"))),
                )
                yield "confusion", matrix_chart(title, block.names, block.rows, axes)
