"""Write docs/figures.md from bench/results: every measured figure, and where it comes from.

python bench/figures.py        (or `make figures`)
"""

import ast
from pathlib import Path

from harness import RESULTS, ROOT, Measurement, read
from tables import markdown, shown

PAGE = ROOT / "docs" / "figures.md"
TOPICS = {
    "Speed": (
        "extract",
        "classic",
        "finetune",
        "text_speed",
        "by_hand",
        "draft",
        "startup",
        "stages",
        "budgets",
        "scale",
        "export",
        "serve",
    ),
    "Memory and size": ("light", "memory", "many", "report"),
    "Accuracy": ("accuracy", "elpv", "targets", "boxes", "text", "adversarial", "robustness"),
    "What a model knows about itself": (
        "intervals",
        "unknowns",
        "small_data",
        "mistakes",
        "unlike",
    ),
    "Looking inside a model": ("explain", "ideal", "attack"),
    "Reading pictures": ("decoding", "colour_profiles", "fuzz_images", "duplicates"),
    "From version to version": ("same_results",),
    "Killed, damaged, run again": ("kill_train", "kill_store", "hostile", "second_run"),
}
BY_HAND = {  # figures without a bench
    "by_hand": "Operations on a CPU.",
    "colour_profiles": "Pictures with a colour profile, converted to sRGB and not.",
    "second_run": "A second run on the same pictures.",
}
HEAD = """\
# Measured figures
[README](../README.md) and [guide](guide.md) cite a few of these. `make figures` writes this page
from `bench/results/*.json`, where every bench records what it measured;
[Contributing](../CONTRIBUTING.md#benchmarks) lists the benches. A figure stands until the code
under it changes. The machines were shared and noisy: trust ratios, which are measured side by side
in one run, more than seconds.
"""


def main() -> None:
    PAGE.write_text(page())


def page(results: Path = RESULTS) -> str:
    """The whole page; raises ValueError for results that no topic names."""
    there = {path.stem: read(path) for path in sorted(results.glob("*.json"))}
    if unknown := there.keys() - {name for names in TOPICS.values() for name in names}:
        raise ValueError(f"TOPICS must name all results; it lacks {', '.join(sorted(unknown))}.")
    sections = [
        f"## {topic}\n{''.join(section(name, there[name]) for name in names if name in there)}"
        for topic, names in TOPICS.items()
        if there.keys() & set(names)
    ]
    return "\n".join([HEAD, *sections])


def section(name: str, measurements: list[Measurement]) -> str:
    """All measurements of a bench, each with its origin, its figures and its tables."""
    return f"### {title_of(name)}\n{''.join(map(measured, measurements))}"


def measured(found: Measurement) -> str:
    figures = [{"measured": what, "figure": shown(v)} for what, v in found.figures.items()]
    parts = [f"{origin(found)}{found.note and ' ' + found.note}"]
    for title, rows in [("", figures), ("", found.rows), *found.more.items()]:
        if rows:
            parts += [title, markdown(rows)] if title else [markdown(rows)]
    return "\n\n".join(parts) + "\n\n"


def origin(found: Measurement) -> str:
    """What ran, at which commit, where and when."""
    command = f"`{found.command}`" if found.command else "By hand"
    where = found.processor or "processor not noted"
    cores = "1 core" if found.cores == 1 else f"{found.cores} cores"
    return f"{command}, commit `{found.commit}`, {where}, {cores}, {found.date}."


def title_of(name: str) -> str:
    """The first line of the bench's docstring, without its full stop."""
    if name in BY_HAND:
        return BY_HAND[name].rstrip(".")
    doc = ast.get_docstring(ast.parse((RESULTS.parent / f"{name}.py").read_text())) or name
    return doc.splitlines()[0].rstrip(".")


if __name__ == "__main__":
    main()
