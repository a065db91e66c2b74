"""`headstart track`: write a finished run to TensorBoard or MLflow."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cli.parser import Parser
from headstart.cli.printing import DONE
from headstart.cli.progress import say

if TYPE_CHECKING:
    from headstart.runs.tensorboard import LiveRun

TRACKERS = ("tensorboard", "mlflow")


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("track")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "where",
        choices=TRACKERS,
        help="mlflow: its own variables, such as MLFLOW_TRACKING_URI, say where; without them "
        "mlflow.db in the working folder",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    write_tracked(args.run, args.where)
    return DONE


def write_tracked(run: Path, where: str | None, live: "LiveRun | None" = None) -> None:
    if where:
        from headstart.runs.tracking import track

        say("tracked", track(run, where, live))
