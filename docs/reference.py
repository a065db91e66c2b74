"""Build the API reference as HTML pages from the docstrings; a warning is an error.

python docs/reference.py site
"""

import sys
import warnings
from pathlib import Path

import pdoc

import headstart

MODULES = ("headstart", "headstart.sklearn")  # headstart names specs, extend and errors itself


def build(out: Path) -> None:
    """Write the pages of the public modules into a folder. Raises any warning as an error."""
    for name in headstart.__all__:  # which are loaded when first asked for
        vars(headstart)[name] = getattr(headstart, name)
    pdoc.render.configure(docformat="markdown", show_source=False, search=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=out)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
