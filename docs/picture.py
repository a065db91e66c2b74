"""Draw what a command printed as a terminal window, for the README.

headstart demo 2>&1 | python docs/picture.py "make demo" docs/images/demo.svg
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 112  # columns; what is longer ends in …


def main(command: str, out: str) -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {command}", style="bold"))
    for line in sys.stdin.read().splitlines():
        shown = line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
        text = Text(shown, no_wrap=True)
        text.highlight_regex(r"^\w+(?=  +\S)", "cyan")
        text.highlight_regex(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", "green")
        console.print(text)
    svg = console.export_svg(title="headstart")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # nothing is fetched to draw it
    Path(out).write_text(svg)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
