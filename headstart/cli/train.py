"""`headstart train`: train a model on labelled images and test it."""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import headstart as hs
from headstart.base.errors import SpecError
from headstart.cli.flags import (
    DATA_HELP,
    add_flags,
    add_store_flag,
    count,
    flag_of,
    made,
    word_after,
)
from headstart.cli.opening import CELLS, source_of
from headstart.cli.parser import Parser
from headstart.cli.printing import print_forecast, print_run, print_table, tell_left_out
from headstart.cli.progress import GOES_ON, Terminal, kept_if_stopped, say
from headstart.cli.track import TRACKERS, write_tracked
from headstart.heads.families import HEADS, spec_named
from headstart.runs.job import setting_of_head

JOB_FLAGS = (
    "backbone",
    "weights",
    "strategy",
    "baseline",
    "checkpoint_s",
    "resume",
    "language",
    "data_licence",
)
JOB_SPECS = {  # specs of a job, with the titles of their flags in help
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
        "--size",
    ),
    *("--head", "--class-weights", "--seed", "--fit", "--epochs", "--batch-size", "--lr", "--thaw"),
    *("--flip", "--rotation", "--trivial-augment", "--val", "--test", "--device"),
)


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("train", short=SHORT)
    config = word_after(argv, "--config")
    parser.add_argument(  # optional with a config, which records its data
        "data", type=Path, metavar="DATA", nargs="?" if config else None, help=DATA_HELP
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run")
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
        "--seeds",
        type=count(most=1000),
        default=1,
        metavar="N",
        help="train N times, each with another seed, and show the spread (default: %(default)s)",
    )
    parser.add_argument("--track", choices=TRACKERS, help="also write the finished run there")
    job = _base(word_after(argv, "--recipe"), Path(config) if config else None)  # help shows it
    if (head := word_after(argv, "--head")) and head not in HEADS.built_in:  # and its flags
        job = replace(job, recipe=replace(job.recipe, head=spec_named(head, job.recipe.head)))
    add_flags(parser, job, *JOB_FLAGS)
    add_store_flag(parser)
    groups = {title: parser.add_argument_group(title) for title in JOB_SPECS.values()}
    for name, title in JOB_SPECS.items():
        add_flags(groups[title], getattr(job, name))
    return parser


def run(args: argparse.Namespace) -> int:
    job = _base(args.recipe, args.config)
    if args.data is None and not job.source:
        raise SpecError(f"{args.config} does not say where its data was: name DATA.")
    job = replace(
        job,
        source=source_of(args.data) if args.data else job.source,
        store=hs.Store(args.store),
        **{name: made(getattr(job, name), args) for name in JOB_SPECS},
        **{name: getattr(args, name) for name in JOB_FLAGS if name in args},
    )
    _refuse_idle(job, args)
    job = _with_rate_of_head(job, args)
    if args.track:
        hs.check_tracker(args.track)
    data = hs.solar_cells() if job.source == CELLS else hs.read(args.data or job.source)
    if args.dry_run:
        return _dry_run(data, job, args)
    if args.seeds != 1:
        return _train_seeds(data, job, args)
    with kept_if_stopped(GOES_ON):
        finished = hs.train(data, args.out, job, Terminal())
    print_run(finished)
    write_tracked(finished.folder, args.track)
    return tell_left_out(finished.left_out)


def _base(recipe: str | None, config: Path | None) -> "hs.Job":
    """Return the job that flags change: of a named recipe or of a file."""
    if recipe and config:
        raise SpecError("--recipe and --config both say what to start from: leave one out.")
    if config:
        from headstart.runs.config import read_config

        return read_config(config)
    return hs.recipe(recipe or "default").job


def _dry_run(data: "hs.Dataset", job: "hs.Job", args: argparse.Namespace) -> int:
    from headstart.runs.forecast import forecast

    found = forecast(data, args.out, job, Terminal())
    print_forecast(found, args.out, job, args.seeds)
    return tell_left_out(found.left_out)


def _train_seeds(data: "hs.Dataset", job: "hs.Job", args: argparse.Namespace) -> int:
    with kept_if_stopped(GOES_ON):
        runs = hs.train_seeds(data, args.out, job, args.seeds, Terminal())
    rows = [("seed", "run", "accuracy on test", "")]
    for run in runs:
        before = "" if run.trained else "from before"
        rows.append((f"{run.seed}", str(run.folder), str(run.test.accuracy or "n/a"), before))
    print_table(rows)
    print()
    print_table(hs.spread_rows(hs.spread([run.test for run in runs])))
    for run in runs:
        if args.track and not run.trained:
            say("tracked", f"not {run.folder}, finished before: headstart track does it")
        else:
            write_tracked(run.folder, args.track)
    return tell_left_out(dict.fromkeys(item for run in runs for item in run.left_out))


def _with_rate_of_head(job: "hs.Job", args: argparse.Namespace) -> "hs.Job":
    """Set the fine-tuning rate from --head-lr for a head that has no learning rate itself."""
    if "head_lr" not in args or job.recipe.head.by_epochs or job.finetune.lr:
        return job
    rate = args.head_lr if job.strategy == "scratch" else args.head_lr / 10
    return replace(job, finetune=replace(job.finetune, lr=rate))


def _settings_of_heads() -> set[str]:
    specs = [HEADS[name].spec for name in HEADS.built_in]
    return {setting_of_head(f.name) for spec in specs for f in fields(spec)}


def _refuse_idle(job: "hs.Job", args: argparse.Namespace) -> None:
    """Raise SpecError for a given flag that this job would not read."""
    head = {setting_of_head(f.name) for f in fields(job.recipe.head)}
    others = _settings_of_heads() - head - {f.name for f in fields(job.finetune)}
    others -= {"head_lr"} if job.strategy == "scratch" or job.tunes else set()
    idle = [flag_of(name) for name in sorted({*job.idle(), *others}) if name in args]
    if idle:
        raise SpecError(
            f"{' and '.join(idle)} would change nothing, with --strategy {job.strategy} and --head "
            f"{job.recipe.head.family}: leave out what you don't need, or name the --head or "
            f"--strategy that it belongs to."
        )
    if "views" in args and not job.augment.active:
        raise SpecError(
            "--views would change nothing: it counts augmented views, and no augmentation is asked "
            "for. Add one, such as --flip horizontal, or leave it out."
        )
