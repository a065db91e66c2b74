"""`headstart search`: compare pretrained networks on a sample of the data, or with --trials
settings of fine-tuning on the rows of a run."""

import argparse
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.display import display
from headstart.base.errors import SpecError
from headstart.cli.flags import add_flags, flag_of, made
from headstart.cli.language import translated
from headstart.cli.measuring import GOES_ON, add_measuring_flags, measuring_parser, opened
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line, print_table, tell_left_out
from headstart.cli.progress import WIDE, kept_if_stopped
from headstart.data.checks import CheckPlan
from headstart.evaluation.backbone_search import SearchPlan
from headstart.evaluation.commands import data_flags, train_command
from headstart.evaluation.tuning_search import TrialPlan
from headstart.evaluation.tuning_space import TuningSpace
from headstart.targets.plan import TargetPlan

if TYPE_CHECKING:
    pass

TRIED = "the finished trials are kept; the same command goes on from there"


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = measuring_parser("search")
    add_flags(parser, SearchPlan())
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to keep the table in, or the trials"
    )
    trials = parser.add_argument_group("settings of fine-tuning")
    add_flags(trials, TrialPlan(), "trials", "backbone")
    add_flags(trials, TuningSpace())
    add_measuring_flags(parser, "all that was tried")
    return parser


def run(args: argparse.Namespace) -> int:
    _refuse_idle(args)
    if "trials" in args:
        return _try_settings(args)
    from headstart.runs.search import search

    plan, limits = made(SearchPlan(), args), made(CheckPlan(), args)
    data, context = opened(args)
    with kept_if_stopped(GOES_ON):
        found = search(data, plan, context, checks=limits, out=args.out)
    if args.json:
        print_json(found.to_plain())
    else:
        print_table(found.table())
        print()
        print(textwrap.fill(display(translated(found.why)), WIDE))
        flags = data_flags(made(TargetPlan(), args), limits)
        print_line(train_command(str(args.data), *flags, "--backbone", found.chosen))
    return tell_left_out((*found.unread, *found.left_out))


def _refuse_idle(args: argparse.Namespace) -> None:
    """Raise SpecError for flags that this kind of search does not read."""
    tries = "trials" in args
    kinds = (SearchPlan,) if tries else (TrialPlan, TuningSpace)
    names = {f.name for kind in kinds for f in fields(kind)} - {"seed"}
    if given := sorted(names & vars(args).keys()):
        useless = f"{flag_of(given[0])} would change nothing "
        raise SpecError(
            useless + "beside --trials, which tries settings of one --backbone: leave it out."
            if tries
            else useless + "without --trials, which tries settings of fine-tuning: add it."
        )


def _try_settings(args: argparse.Namespace) -> int:
    from headstart.base.display import source_of
    from headstart.runs.tuning_search import BEST, check_installed, check_place, search_settings

    plan, space = made(TrialPlan(), args), made(TuningSpace(), args)
    if args.out is None:
        raise SpecError("--trials keeps its trials in a folder: name one with --out.")
    check_installed()
    check_place(args.out)
    from headstart.runs.job import Job

    data, context = opened(args)
    job = replace(
        Job(source=source_of(args.data)),
        target=made(TargetPlan(), args),
        checks=made(CheckPlan(), args),
    )
    with kept_if_stopped(TRIED):
        found = search_settings(data, plan, space, job, args.out, context)
    if args.json:
        print_json(found.to_plain())
        return tell_left_out(found.left_out)
    print_table(found.table())
    print()
    print(textwrap.fill(display(found.why), WIDE))
    if found.best:
        print_line(found.command(str(args.data)))
        best = shlex.quote(str(args.out / BEST))
        print_line(f"or: headstart train --config {best} --out RUN")
    return tell_left_out(found.left_out)
