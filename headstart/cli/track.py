"""`headstart track`: write a finished run to TensorBoard or MLflow."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import say

TRACKERS = ("tensorboard", "mlflow")


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("track")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "where",
        choices=TRACKERS,
        help="MLflow is set up by its own variables, such as MLFLOW_TRACKING_URI",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    write_tracked(args.run, args.where)
    return DONE


def write_tracked(run: Path, where: str | None) -> None:
    if where:
        from headstart.runs.tracking import track

        say("tracked", track(run, where))
