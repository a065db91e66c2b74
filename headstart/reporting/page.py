"""The report of a run: one self-contained page made from the files of its folder."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.atomic import write_text
from headstart.base.display import escaped_page
from headstart.base.errors import DataError, HeadstartError, MissingPackage
from headstart.data.dataset import CheckedFile
from headstart.modalities.images.thumbnails import COLUMNS, TILE
from headstart.reporting.facts import Facts, read_facts

if TYPE_CHECKING:
    from headstart.reporting.blocks import PageBlock
    from headstart.reporting.words import Words

Progress = Callable[[int, int], None]  # hears how many sections, of all, are made


def write_report(
    run: Path,
    sources: Mapping[str, Path | CheckedFile],
    language: str | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Write RUN/report.html and RUN/figures from the files of a finished run; returns its path.

    sources: the picture of each path; unreadable and changed pictures are left out, and the page
    states their number. language: "en" or "ru"; None is the run's language. Raises DataError if
    `run` holds no finished run, UnknownName for an unknown language, MissingPackage without jinja2.
    """
    facts, page = read_facts(run, sources), run / "report.html"
    try:
        w = words_of(facts, language or facts.recipe.language)
        blocks = blocks_of(facts, w, progress)
        text = page_of(facts, w, blocks)
    except HeadstartError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"The files in {run} are not as this version writes them ({type(error).__name__}: "
            f"{error}): make the report with the version that made the run, or train again."
        ) from error
    from headstart.reporting.figure_files import write_figures

    write_text(page, text)
    write_figures(run, facts, w, blocks)
    return page


def render(facts: Facts, language: str = "en") -> str:
    """Render the page as HTML; it depends only on the facts and their pictures."""
    w = words_of(facts, language)
    return page_of(facts, w, blocks_of(facts, w))


def words_of(facts: Facts, language: str) -> "Words":
    """Return the words of a language for the kind of the run's examples."""
    if find_spec("jinja2") is None:
        raise MissingPackage("jinja2", purpose="The report", command="pip install jinja2")
    from headstart.reporting.words import Words

    return Words(language, facts.card.input.kind if facts.card else "")


def blocks_of(
    facts: Facts, w: "Words", progress: Progress = lambda done, total: None
) -> dict[str, "list[PageBlock]"]:
    """Return the blocks of each section that has any, by its name."""
    from headstart.reporting.sections import SECTIONS

    made = dict[str, Any]()
    for name, blocks in SECTIONS.items():
        progress(len(made), len(SECTIONS))
        made[name] = blocks(facts, w)
    progress(len(SECTIONS), len(SECTIONS))
    return {name: blocks for name, blocks in made.items() if blocks}


def page_of(facts: Facts, w: "Words", sections: dict[str, "list[PageBlock]"]) -> str:
    """Return the page of these sections as HTML."""
    from headstart.reporting.heading import page_head

    page = _template().render(
        w=w,
        language=w.language,
        head=page_head(facts, w),
        sections=sections,
        missing=len(facts.album.missing),  # once the sections have asked for their pictures
        style=_file("style.css"),
        script=_file("script.js"),
        tile=TILE,
        columns=COLUMNS,
        version=facts.recipe.versions.get("headstart", ""),
    )
    return escaped_page(page)


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _file(name: str) -> str:
    return (files("headstart.reporting") / name).read_text(encoding="utf-8")
