"""`headstart train`: train a model on labelled examples and test it."""

import argparse
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.display import Verbatim, source_of
from headstart.base.errors import SpecError
from headstart.base.listener import Listeners
from headstart.base.ranks import ALONE, Ranks, under_torchrun
from headstart.cli.flags import (
    DATA_HELP,
    add_flags,
    add_store_flag,
    count,
    flag_of,
    store_of,
    word_after,
)
from headstart.cli.parser import Parser
from headstart.cli.printing import DONE, print_forecast, print_run, print_table, tell_left_out
from headstart.cli.progress import GOES_ON, WIDE, Terminal, kept_if_stopped, say
from headstart.cli.track import TRACKERS, write_tracked
from headstart.heads.families import HEADS, spec_named
from headstart.modalities.images.augment import WORDS, AutoViews
from headstart.runs.job import Job
from headstart.runs.recipes import get_recipe
from headstart.runs.settings import job_with

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset

JOB_FLAGS = (
    "backbone",
    "weights",
    "strategy",
    "tta",
    "baseline",
    "checkpoint_s",
    "refit",
    "resume",
    "language",
    "insights",
    "data_licence",
    "folds",
    "shots",
    "draws",
    "budget",
)
OWN = {  # flags of no spec
    *(
        "data",
        "out",
        "config",
        "dry_run",
        "lr_find",
        "seeds",
        "ensemble",
        "track",
        "store",
        "reread",
    ),
}
JOB_SPECS = {  # specs of a job, with the titles of their flags in help
    "target": "data",
    "recipe": "head",
    "finetune": "fine-tuning",
    "augment": "augmentation",
    "trust": "unknown answers",
    "split": "data",
    "checks": "data",
    "runtime": "machine",
}
SHORT = (  # what `--help` shows
    *(
        "--out",
        "--recipe",
        "--config",
        "--dry-run",
        "--strategy",
        "--resume",
        "--backbone",
        "--weights",
    ),
    *("--head", "--class-weights", "--seed", "--epochs", "--batch-size", "--lr", "--thaw"),
    *("--flip", "--rotation", "--target", "--val", "--test", "--folds"),
    *("--shots", "--budget", "--device"),
)


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("train", short=SHORT)
    config = word_after(argv, "--config")
    parser.add_argument(  # optional with a config, which records its data
        "data", type=Path, metavar="DATA", nargs="?" if config else None, help=DATA_HELP
    )
    finds = "--lr-find" in argv
    parser.add_argument(
        "--out", type=Path, required=not finds, metavar="RUN", help="folder for the run"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="named settings to start from; see `headstart recipes`",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings of a run, its recipe.json; some of its keys are enough",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and write nothing"
    )
    parser.add_argument(
        "--lr-find",
        action="store_true",
        help="print the losses of steps at rising learning rates, and write nothing",
    )
    parser.add_argument(
        "--seeds",
        type=count(most=1000),
        default=1,
        metavar="N",
        help="train N times, each with another seed, and show the spread (default: %(default)s)",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="with --seeds: one run with one split, in which fine-tuning starts N times from the "
        "same head; its model averages them, by weights or by answers, as validation says",
    )
    parser.add_argument("--track", choices=TRACKERS, help="also write the run there")
    job = _base(word_after(argv, "--recipe"), Path(config) if config else None)  # help shows it
    if (head := word_after(argv, "--head")) and head not in HEADS.built_in:  # and its flags
        job = replace(job, recipe=replace(job.recipe, head=spec_named(head, job.recipe.head)))
    add_flags(parser, job, *JOB_FLAGS)
    add_store_flag(parser)
    groups = {title: parser.add_argument_group(title) for title in JOB_SPECS.values()}
    groups["augmentation"].add_argument(
        "--augment",
        choices=WORDS,
        default=argparse.SUPPRESS,
        help="auto: cross-validated heads choose the changes that help, on up to 400 examples; "
        "none: no changes (default: none)",
    )
    if isinstance(job.spec.views, AutoViews):  # all flags are known, and refused by name
        job = job.with_changes(())
    for name, title in JOB_SPECS.items():
        add_flags(groups[title], getattr(job, name))
    return parser


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    from headstart.runs.recorded import data_from  # PyTorch, which --help does not need
    from headstart.runs.seeds import as_ensemble

    job = _base(args.recipe, args.config)
    if args.data is None and not job.source:
        raise SpecError(f"{args.config} does not say where its data was: name DATA.")
    source = source_of(args.data) if args.data else job.source
    job = replace(job, source=source, store=store_of(args))
    job = job_with(job, {n: v for n, v in vars(args).items() if n not in OWN}, flag_of)
    if args.ensemble:
        job, args.seeds = as_ensemble(job, args.seeds), 1
    if args.lr_find:
        from headstart.runs.rates import check_alone

        others = {"seeds": args.seeds != 1, "dry-run": args.dry_run, "track": bool(args.track)}
        check_alone(job, others)
    if args.track and not args.dry_run:
        from headstart.runs.tracking import check_tracker

        check_tracker(args.track)
    if under_torchrun():
        return _run_together(args, job, began)
    data = data_from(args.data or job.source, job.target)
    if args.lr_find:
        return _find_rate(data, job)
    if args.dry_run:
        return _dry_run(data, job, args)
    if args.seeds != 1:
        return _train_seeds(data, job, args)
    return _train_one(data, job, args, began)


def _train_one(
    data: "Dataset", job: Job, args: argparse.Namespace, began: float, ranks: Ranks = ALONE
) -> int:
    from headstart.runs.run import train

    live = None
    if args.track:
        from headstart.runs.tracking import live_tracker

        live = live_tracker(args.track, args.out)
    listener = Listeners(Terminal(), live) if live else Terminal()
    with kept_if_stopped(GOES_ON):
        finished = train(data, args.out, job, listener, began=began, ranks=ranks)
    ranks.close()
    print_run(finished)
    write_tracked(finished.folder, args.track, live)
    return tell_left_out(finished.left_out)


def _run_together(args: argparse.Namespace, job: Job, began: float) -> int:
    """Train with the other processes that torchrun started; the first one does the rest alone."""
    from headstart.runs.recorded import data_from
    from headstart.runs.together import check_together, follow, joined

    alone = {"seeds": args.seeds != 1, "lr-find": args.lr_find, "dry-run": args.dry_run}
    check_together(job, alone)
    ranks, job = joined(job)

    def read() -> "Dataset":
        return data_from(args.data or job.source, job.target)

    if not ranks.leads:
        follow(read, args.out, job, ranks)
        ranks.close()
        return DONE
    return _train_one(read(), job, args, began, ranks)


def _base(name: str | None, config: Path | None) -> Job:
    """Return the job that flags change: of a named recipe or of a file."""
    if name and config:
        raise SpecError("--recipe and --config both say what to start from: leave one out.")
    if config:
        from headstart.runs.config import read_config

        return read_config(config)
    return get_recipe(name or "default").job


def _find_rate(data: "Dataset", job: Job) -> int:
    from headstart.runs.rates import find_rate

    with kept_if_stopped("the features so far are kept; nothing else is written"):
        found = find_rate(data, job, Terminal())
    print_table(found.table())
    print()
    print(textwrap.fill(found.verdict, WIDE))
    return tell_left_out(found.left_out)


def _dry_run(data: "Dataset", job: Job, args: argparse.Namespace) -> int:
    from headstart.runs.forecast import forecast

    found = forecast(data, args.out, job, Terminal())
    print_forecast(found, args.out, job, args.seeds)
    return tell_left_out(found.left_out)


def _train_seeds(data: "Dataset", job: Job, args: argparse.Namespace) -> int:
    from headstart.evaluation.evaluation import measured
    from headstart.runs.seeds import spread_of, spread_rows, train_seeds

    with kept_if_stopped(GOES_ON):
        runs = train_seeds(data, args.out, job, args.seeds, Terminal())
    main = next(iter(runs[0].test.target.shown or runs[0].test.metrics)).replace("_", " ")
    spell = str if runs[0].test.target.counts_right else measured
    rows = [("seed", "run", f"{main} on test", "")]
    for run in runs:
        before, shown = "" if run.trained else "from before", run.test.main
        rows.append((f"{run.seed}", Verbatim(run.folder), spell(shown) if shown else "n/a", before))
    print_table(rows)
    print()
    print_table(spread_rows(spread_of([run.test for run in runs])))
    for run in runs:
        if args.track and not run.trained:
            say("tracked", f"not {run.folder}, finished before: headstart track does it")
        else:
            write_tracked(run.folder, args.track)
    return tell_left_out(dict.fromkeys(item for run in runs for item in run.left_out))
