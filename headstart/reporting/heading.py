"""The head of the page: the run's name, when and from what it was made, and warnings."""

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, code, data
from headstart.targets.temperature import at_bound

SHORT = 12  # characters of a digest and of a commit at the top; section "how" has all of them


@dataclass(frozen=True)
class PageHead:
    """name: of the run. facts: pairs (name, value). warnings: sentences; most runs have none."""

    name: str
    facts: tuple[tuple[Markup, Markup], ...]
    warnings: tuple[Markup, ...] = ()


def page_head(facts: Facts, w: Words) -> PageHead:
    return PageHead(facts.name, tuple(_facts(facts, w)), tuple(_warnings(facts, w)))


def _facts(facts: Facts, w: Words) -> Iterator[tuple[Markup, Markup]]:
    """Yield what is known of the run; little of a run of an earlier version."""
    made, source = facts.timings.made, facts.recipe.data
    if made.began:
        yield (
            w("head.date"),
            Markup("<time datetime='{}'>{}</time>").format(made.began, _shown_time(made.began)),
        )
    rows = w("count.pictures", n=made.rows or len(facts.rows))
    parts = [code(source), rows] if source else [rows]
    if made.data_sha256:
        parts.append(code(f"SHA-256 {made.data_sha256[:SHORT]}"))
    yield w("head.data"), Markup(", ").join(parts)
    if made.commit:
        yield w("head.commit"), code(made.commit[:SHORT])
    if made.parent:
        yield w("head.parent"), code(made.parent)
    if made.command:
        yield w("head.command"), code(made.command)


def _shown_time(began: str) -> str:
    """Return a time of ISO 8601 without its seconds: "2026-11-30 20:15 UTC"."""
    return began[:16].replace("T", " ") + (" UTC" if began.endswith("+00:00") else "")


def _warnings(facts: Facts, w: Words) -> Iterator[Markup]:
    recipe, scaling = facts.recipe, facts.insights.calibration
    if recipe.weights.origin == "random" and facts.evaluation.kept != "scratch":
        yield w("warning.random", backbone=data(recipe.backbone))
    if scaling and scaling.fitted_on and at_bound(scaling.temperature):
        yield w("warning.temperature", temperature=w.number(scaling.temperature, 2))
