"""`headstart demo`: train on a built-in example."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from headstart.base.display import Verbatim
from headstart.cli.flags import add_store_flag
from headstart.cli.parser import Parser
from headstart.cli.printing import print_line, print_run, print_table, tell_left_out
from headstart.cli.progress import Terminal, kept_if_stopped, say

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.targets.predictions import Predictions

EXAMPLES = (
    "images",
    "text",
    "number",
    "boxes",
)  # the names of runs.demos, which takes long to import
FEW = 5  # test rows whose predictions are printed
WIDE = 50  # characters of a text that are printed


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("demo")
    parser.add_argument(
        "example",
        nargs="?",
        choices=EXAMPLES,
        default="images",
        help="solar cells, defective or not (images, the default); film reviews, negative or "
        "positive (text); the probability of a cell's defect (number); crowns of trees in aerial "
        "pictures (boxes)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="folder for the run (default: runs/demo, or -2, …)"
    )
    add_store_flag(parser, reread=False)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.base.store import Store
    from headstart.models.bundle import load_bundle
    from headstart.runs.demos import get_demo
    from headstart.runs.folder import free_folder
    from headstart.runs.run import train

    demo = get_demo(args.example)
    out = args.out or free_folder(Path("runs/demo"))
    say("demo", demo.about)
    data, job = demo.read(), replace(demo.job, store=Store(args.store))
    which = "" if args.example == "images" else f" {args.example}"
    again = f"headstart demo{which} --out {quote(str(out))}"
    kept = f"what was finished is kept; {again} goes on from there"
    with kept_if_stopped(kept):
        finished = train(data, out, job, Terminal())
    print_run(finished)
    test, folder = finished.splits.test, finished.folder
    few = test.take(range(0, len(test), max(1, len(test) // FEW)))
    predictions = load_bundle(folder / "model").model.predict(few, store=None)
    print(f"\na few test {demo.row}s, by the saved bundle")
    print_table([*_few_rows(demo.row, few, predictions)])
    print()
    page, words = folder / "report.html", quote(str(folder))
    print_line(f"next: look at {page}; headstart predict {words} FILE…")
    return tell_left_out(finished.left_out)


def _few_rows(row: str, few: "Dataset", predictions: "Predictions") -> Iterator[Sequence[str]]:
    """Yield a header, then what each example is, its label and the answer."""
    texts = few.input is not None and few.input.column != "path"
    names = dict(zip(few.ids, map(str, few.sources), strict=True)) if texts else {}
    shown = [names.get(id, id) for id in predictions.ids]
    shown = [text if len(text) <= WIDE else f"{text[: WIDE - 1]}…" for text in shown]
    header, answers = _answers(predictions)
    yield row, "truth", *header
    truth = predictions.target.brief(predictions.labels)
    yield from (tuple(map(Verbatim, cells)) for cells in zip(shown, truth, *answers, strict=True))


def _answers(predictions: "Predictions") -> tuple[Sequence[str], list[list[str]]]:
    """Return the titles and the cells of the columns of predictions."""
    scores = predictions.target.confidence(predictions.outputs)
    if scores is not None:
        return ("predicted", "score"), [
            list(predictions.names),
            [f"{score:.3f}" for score in scores],
        ]
    if predictions.target.listing:
        return ("found",), [
            [
                predictions.target.answer_at(predictions.outputs, row)
                for row in range(len(predictions))
            ]
        ]
    columns = predictions.target.columns(predictions.outputs)
    return tuple(columns), [[f"{value:.3f}" for value in column] for column in columns.values()]
