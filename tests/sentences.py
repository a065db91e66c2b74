"""Print sentences of the README, the documentation and the docstrings, drawn at random.

    python tests/sentences.py --seed 1

Show them to someone who is new here: a sentence that is not understood at first reading is
rewritten, and so are the others of its kind. The same seed draws the same places of the same text.
"""

import argparse
import ast
import random
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/guide.md",
    "docs/inside.md",
    "docs/python.md",
    "docs/scale.md",
    "CONTRIBUTING.md",
)
END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*\[])")
FEWEST = 5  # words: less is a caption or an item of a list


def sentences() -> Iterator[tuple[str, str]]:
    """Each sentence with the file that it is in, in a fixed order."""
    for page in PAGES:
        for paragraph in _paragraphs((ROOT / page).read_text()):
            yield from ((page, text) for text in _split(paragraph))
    for path in sorted(ROOT.glob("headstart/**/*.py")):
        for docstring in _docstrings(path):
            for paragraph in docstring.split("\n\n"):
                name = str(path.relative_to(ROOT))
                yield from ((name, text) for text in _split(paragraph))


def _paragraphs(text: str) -> list[str]:
    """Prose alone: no code, table, heading or picture."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[-*#|!])", prose)
    return [part for part in parts if part.strip() and part.lstrip()[0] not in "#|!"]


def _docstrings(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, kinds) and (found := ast.get_docstring(node)):
            yield found


def _split(paragraph: str) -> Iterator[str]:
    if ">>>" in paragraph:
        return
    for text in END.split(" ".join(paragraph.split()).removeprefix("- ")):
        if len(text.split()) >= FEWEST:
            yield text


def main() -> None:
    parser = argparse.ArgumentParser(description="Print sentences of the project's prose.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    for n, (place, text) in enumerate(
        random.Random(args.seed).sample(list(sentences()), args.count), 1
    ):
        print(textwrap.fill(f"{n:2}. {text}  ({place})", 96, subsequent_indent="    "))


if __name__ == "__main__":
    main()
