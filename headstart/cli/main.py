"""The command line: our own first user. It goes through the front door like everyone else.

stdout is for results, stderr for talk and progress. Exit codes: 0 done; 1 the data or the run
failed; 2 the command was wrong; 3 done, but some inputs were left out; 130 interrupted.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import headstart as hs
from headstart.base.atomic import check_folder
from headstart.base.display import display
from headstart.base.errors import (
    DataError,
    HeadstartError,
    Mismatch,
    MissingPackage,
    SpecError,
    UnknownName,
    is_of_the_machine,
    sentence_of,
)
from headstart.base.values import to_plain
from headstart.cli.attack import attack
from headstart.cli.explain import explain
from headstart.cli.flags import (
    MODEL_HELP,
    Parser,
    add_files_flags,
    add_flags,
    add_language_flag,
    add_store_flag,
    add_weights_flag,
    bundle_of,
    count,
    made,
    named_files,
    word_after,
)
from headstart.cli.ideal import ideal
from headstart.cli.opening import CELLS, pictures_of
from headstart.cli.printing import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG,
    Told,
    predicted_rows,
    print_evaluation,
    print_json,
    print_line,
    print_predictions,
    print_run,
    print_table,
    tell_left_out,
)
from headstart.cli.process import lasting_streams, next_signal_ends, stoppable
from headstart.cli.progress import (
    FEATURES_KEPT,
    GOES_ON,
    kept_if_stopped,
    say,
    stop_bars,
    talking,
    watching,
)
from headstart.cli.robustness import robustness

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
TRACKERS = ("tensorboard", "mlflow")
BUNDLE_RUNTIME = ("threads", "decode_threads")  # a bundle runs on the CPU, whatever there is
JOB_SPECS = ("recipe", "finetune", "augment", "trust", "split", "checks", "runtime")


def demo(argv: list[str]) -> int:
    """the main job, on the built-in example (2,624 photographs of solar cells)"""
    parser = Parser("demo", demo)
    parser.add_argument(
        "--out", type=Path, help="folder for the run (default: runs/demo, or -2, …)"
    )
    add_store_flag(parser)
    args = parser.parse_args(argv)

    out = args.out or _free(Path("runs/demo"))
    say("demo", "solar cells, defective or not (ELPV data set, CC BY-NC-SA 4.0, not shipped)")
    job = hs.Job(
        source=CELLS,
        data_licence="CC BY-NC-SA 4.0",
        recipe=hs.FeatureExtraction(fit="squash"),
        finetune=hs.FineTune(epochs=5, lr=2e-4),
        augment=hs.Augment(flip="both", quarter_turns=True, views=4),  # a cell has no upside
        store=hs.Store(args.store),
    )
    data = hs.solar_cells()
    kept = f"what was finished is kept; headstart demo --out {out} goes on from there"
    with kept_if_stopped(kept):
        run = hs.train(data, out, job, talking())
    print_run(run)
    few = run.splits.test.take(range(0, len(run.splits.test), max(1, len(run.splits.test) // 5)))
    said = hs.load(run.folder / "model").model.predict(few, store=None)
    print("\na few test cells, by the saved bundle")
    print_table([("cell", "truth", "predicted", "score"), *predicted_rows(said)])
    print()
    print_line(f"next: look at {run.folder / 'report.html'}; headstart predict {run.folder} FILE…")
    return tell_left_out(run.left_out)


def train(argv: list[str]) -> int:
    """a folder of labelled images becomes a tested model"""
    parser = Parser("train", train)
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run")
    parser.add_argument(
        "--recipe",
        default="default",
        help="a recipe by name, which sets what follows (%(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=count(most=1000),
        default=1,
        help="train as many times, the seed one more each time, and tell the spread (%(default)s)",
    )
    parser.add_argument(
        "--track", choices=TRACKERS, help="write the finished run to TensorBoard or MLflow as well"
    )
    job = hs.recipe(word_after(argv, "--recipe") or "default").job  # its settings are the defaults
    add_flags(parser, job, *JOB_FLAGS)
    add_store_flag(parser)
    for name in JOB_SPECS:
        add_flags(parser, getattr(job, name))
    args = parser.parse_args(argv)

    job = replace(
        job,
        source=_source(args.data),
        store=hs.Store(args.store),
        **{name: made(getattr(job, name), args) for name in JOB_SPECS},
        **{name: getattr(args, name) for name in JOB_FLAGS if name in args},
    )
    _refuse_idle(job, args)
    if args.track:
        hs.check_tracker(args.track)
    if args.seeds != 1:
        return _train_seeds(job, args)
    data = hs.read(args.data)
    with kept_if_stopped(GOES_ON):
        run = hs.train(data, args.out, job, talking())
    print_run(run)
    _track(run.folder, args.track)
    return tell_left_out(run.left_out)


def _train_seeds(job: "hs.Job", args: argparse.Namespace) -> int:
    data = hs.read(args.data)
    with kept_if_stopped(GOES_ON):
        runs = hs.train_seeds(data, args.out, job, args.seeds, talking())
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
            _track(run.folder, args.track)
    return tell_left_out(dict.fromkeys(item for run in runs for item in run.left_out))


def _track(run: Path, where: str | None) -> None:
    if where:
        say("tracked", hs.track(run, where))


def recipes(argv: list[str]) -> int:
    """the tutorials' recipes by name, and what each does"""
    parser = Parser("recipes", recipes)
    parser.add_argument("--json", action="store_true", help="print one JSON value, every setting")
    args = parser.parse_args(argv)

    if args.json:
        print_json({name: to_plain(named.job) for name, named in hs.RECIPES.items()})
        return DONE
    for name, named in hs.RECIPES.items():
        print(
            f"{name}\n{textwrap.fill(named.does, 96, initial_indent='  ', subsequent_indent='  ')}"
        )
    print("\nheadstart train DATA --out RUN --recipe NAME; any setting can be changed by its flag.")
    return DONE


def views(argv: list[str]) -> int:
    """what augmentation makes of a picture: a grid of its views, as a PNG"""
    parser = Parser("views", views)
    parser.add_argument("file", type=Path, metavar="FILE", help="one image")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="where to write it")
    parser.add_argument("--size", type=int, default=224, help="pixels of a view (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws others")
    changes = [field.name for field in fields(hs.Augment) if field.name != "views"]  # 15 are drawn
    add_flags(parser, hs.Augment(), *changes)
    args = parser.parse_args(argv)

    augment = made(hs.Augment(), args)
    if not augment.active:
        raise SpecError("No change was asked for: add --flip horizontal, --rotation 0.1, ….")
    if args.out.exists():
        raise SpecError(f"{args.out} is there already: name another --out.")
    check_folder(args.out.parent)
    hs.draw_views(args.file, args.out, augment, size=args.size, seed=args.seed)
    say("views", f"the picture, top left, and 15 views of it: {args.out}")
    return DONE


def check(argv: list[str]) -> int:
    """what is wrong with the data, before any training"""
    parser = Parser("check", check)
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--json", action="store_true", help="print everything found, as JSON")
    parser.add_argument(
        "--backbone",
        help=f"say how far the data lies from what it learned on, as source:id; none leaves it out "
        f"(default: {hs.DEFAULT_BACKBONE}, where it is installed)",
    )
    add_weights_flag(parser)
    add_store_flag(parser)
    add_flags(parser, hs.CheckPlan())
    add_flags(parser, hs.Runtime(), "device", *BUNDLE_RUNTIME)
    args = parser.parse_args(argv)

    plan, runtime = made(hs.CheckPlan(), args), made(hs.Runtime(), args).resolved()
    data, backbone = hs.read(args.data), _compared_with(args)
    watch = watching("checks")
    with kept_if_stopped("what was seen of the files is kept; the same command goes on from there"):
        seen = hs.survey(
            data,
            store=hs.Store(args.store),
            threads=runtime.decode_threads,
            progress=watch.progress,
        )
    found = hs.check(data, seen, threads=runtime.decode_threads)
    if not args.json:
        print_table(found.table())
    far = None
    if backbone and len(found.dataset):
        far = hs.unlike(backbone, found.dataset, runtime=runtime, watch=watching("unlike"))
    if args.json:
        print_json(found.to_plain() | {"unlike": far and far.to_plain()})
    elif far:
        _print_unlike(far)
    if found.warning:
        say("warning", found.warning)
    hs.good_rows(data, seen, plan)  # refuses what training would refuse
    hs.split(found.dataset, together=found.exact)  # by its usual shares; so does this
    return tell_left_out(found.left_out)


def _compared_with(args: argparse.Namespace) -> "hs.Backbone | None":
    """The backbone that was named; the default one only if it is installed."""
    if args.backbone == "none":
        if args.weights != "pretrained":
            raise SpecError("--weights goes with a --backbone, and none was to be compared with.")
        return None
    try:
        return hs.load_backbone(args.backbone or hs.DEFAULT_BACKBONE, weights=args.weights)
    except MissingPackage as error:
        if args.backbone:
            raise
        say("unlike", f"left out: {error}")
        return None


def _print_unlike(far: "hs.Unlike") -> None:
    print()
    print_line(f"source task: {far.sentence}")
    if far.distance or far.sure:
        print_table(far.table())
    print(textwrap.fill(display(far.advice), 98, initial_indent="  ", subsequent_indent="  "))


def report(argv: list[str]) -> int:
    """write RUN/report.html again, one page that tells all of a run"""
    parser = Parser("report", report)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--data", type=Path, help="where the pictures are now (default: where the run had them)"
    )
    add_language_flag(parser)
    args = parser.parse_args(argv)

    pictures = pictures_of(args.run, args.data)
    check_folder(args.run)
    page = hs.write_report(args.run, pictures, args.language)
    say("report", str(page))
    return DONE


def compare(argv: list[str]) -> int:
    """runs against the first of them, on the same test rows"""
    parser = Parser("compare", compare)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or files of predictions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    args = parser.parse_args(argv)

    found = hs.compare_runs(args.runs)
    if args.json:
        print_json([one.to_plain() for one in found])
    else:
        print_table(hs.comparison_rows(found))
        print("\np is McNemar's: how likely such a difference is if both are equally accurate.")
    return DONE


def track(argv: list[str]) -> int:
    """write a finished run to TensorBoard or MLflow"""
    parser = Parser("track", track)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("where", choices=TRACKERS, help="MLflow as its own variables set it up")
    args = parser.parse_args(argv)
    _track(args.run, args.where)
    return DONE


def evaluate(argv: list[str]) -> int:
    """how good a model is on labelled images, or a file of predictions"""
    parser = Parser("evaluate", evaluate)
    parser.add_argument(
        "model",
        type=Path,
        metavar="RUN_OR_BUNDLE",
        help=f"{MODEL_HELP}; or a CSV of path,label,predicted,score:CLASS…, made anywhere",
    )
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--part",
        choices=("auto", "train", "val", "test", "all"),
        default="auto",
        help="rows to judge by; auto: of data in parts, or of the run's own, the test rows; and "
        "never a picture that the run has learned from, whatever it is called now",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    add_store_flag(parser)
    add_flags(parser, hs.Runtime(), *BUNDLE_RUNTIME)
    args = parser.parse_args(argv)

    if args.model.is_file():
        return _evaluate_file(args)
    if args.data is None:
        raise SpecError("A model is judged on labelled images: name DATA after it.")
    from headstart.cli.judging import judged_by  # loads NumPy, which help needs not
    from headstart.runs.folder import read_record

    runtime = made(hs.Runtime(), args)
    bundle = hs.load(bundle_of(args.model))
    read, store, watch = hs.read(args.data), hs.Store(args.store), watching("checks")
    threads = runtime.resolved().decode_threads
    with kept_if_stopped(FEATURES_KEPT):
        seen = hs.survey(read, store=store, threads=threads, progress=watch.progress)
        record, source = read_record(args.model), _source(args.data)
        judged = judged_by(hs.with_contents(read, seen), record, source, args.part)
        data = judged.data
        table = hs.extract(
            bundle.model.backbone, data, store=store, runtime=runtime, watch=watching("features")
        )
    said = bundle.model.predict_table(table)
    strangers = _strangers(said, data)
    if not said.known.any():
        raise DataError(f"There is nothing to judge by: none of {len(data):,} images can be read.")
    _print_judged(hs.evaluate(said, majority=bundle.model.majority), args)
    return tell_left_out((*data.left_out, *judged.left_out, *table.left_out, *strangers))


def _evaluate_file(args: argparse.Namespace) -> int:
    if args.data is not None:
        raise SpecError(f"{args.model} knows its labels: evaluate it without DATA.")
    said = hs.read_predictions(args.model)
    if not said.known.any():
        raise DataError(f"There is nothing to judge by: no row of {args.model} has a label.")
    _print_judged(hs.evaluate(said), args)
    return DONE


def _print_judged(result: "hs.Evaluation", args: argparse.Namespace) -> None:
    if args.json:
        print_json(result.to_plain())
    else:
        print_evaluation("evaluated", result)


def predict(argv: list[str]) -> int:
    """the class of images, by a trained model"""
    parser = Parser("predict", predict)
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help=MODEL_HELP)
    add_files_flags(parser, *BUNDLE_RUNTIME)
    args = parser.parse_args(argv)

    runtime = made(hs.Runtime(), args)
    bundle = hs.load(bundle_of(args.model))
    files, left_out = hs.find(named_files(args.files))
    table = hs.extract(bundle.model.backbone, files, runtime=runtime, watch=watching("predict"))
    said = bundle.model.predict_table(table)
    told = Told(said, bundle.model.doubts(said, table), bundle.model.limits.sets(said.scores))
    return print_predictions(told, args, (*left_out, *table.left_out))


def classify(argv: list[str]) -> int:
    """the pretrained network as it is: the class of images among its source classes"""
    parser = Parser("classify", classify)
    parser.add_argument("--backbone", default=hs.DEFAULT_BACKBONE, help="source:id (%(default)s)")
    add_weights_flag(parser)
    add_files_flags(parser, "device", *BUNDLE_RUNTIME)
    args = parser.parse_args(argv)

    runtime = made(hs.Runtime(), args)
    backbone = hs.load_backbone(args.backbone, weights=args.weights)
    files, left_out = hs.find(named_files(args.files))
    said, more = hs.classify(backbone, files, runtime=runtime)
    return print_predictions(Told(said), args, (*left_out, *more))


def backbones(argv: list[str]) -> int:
    """what pretrained networks there are: name, input, licence, where their weights are"""
    parser = Parser("backbones", backbones)
    parser.add_argument("pattern", nargs="?", default="", help='as "timm:*vit*" (quote the stars)')
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    args = parser.parse_args(argv)

    listed = list(hs.list_backbones(args.pattern))
    columns = [f.name for f in fields(hs.Listing)]
    if args.json:
        print_json([{c: getattr(b, c) for c in columns} for b in listed])
    else:
        print_table([tuple(columns), *(tuple(getattr(b, c) for c in columns) for b in listed)])
    if not listed:
        raise DataError(
            f"No backbone matches {args.pattern!r}. Try `headstart backbones` alone, or a pattern "
            f"of timm's, as 'timm:*resnet*'."
        )
    return DONE


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "train": train,
    "check": check,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "predict": predict,
    "classify": classify,
    "backbones": backbones,
    "recipes": recipes,
    "views": views,
    "track": track,
    "explain": explain,
    "attack": attack,
    "ideal": ideal,
    "robustness": robustness,
}
DATA_HELP = "a folder a class; a folder of train, val, test; or a CSV or Parquet of path,label"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. No error of ours, or of the data, is a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    with lasting_streams(), stoppable():
        try:
            return _dispatched(argv)
        except KeyboardInterrupt as error:
            next_signal_ends()
            say("stopped", str(error) or "nothing is kept but what is printed already")
            return INTERRUPTED
        except Exception as error:
            wrong = _code_of(error)
            if wrong is None:
                raise
            next_signal_ends()
            say("error", sentence_of(error))
            return wrong
        finally:
            stop_bars()


def _dispatched(argv: list[str]) -> int:
    """Run a command, and be done only when what it printed is written."""
    try:
        code = _dispatch(argv)
    except SystemExit:  # of --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _code_of(error: Exception) -> int | None:
    """The exit code of an error that is of the command, the data or the machine; else None."""
    if isinstance(error, (SpecError, UnknownName, MissingPackage)):
        return WRONG
    if isinstance(error, (HeadstartError, OSError, MemoryError)) or is_of_the_machine(error):
        return FAILED
    return None


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return DONE if argv else WRONG
    if argv[0] == "--version":
        print(hs.__version__)
        return DONE
    if argv[0] not in COMMANDS:
        raise UnknownName("command", argv[0], COMMANDS)
    return COMMANDS[argv[0]](argv[1:])


def _overview() -> str:
    lines = "\n".join(f"  {name:11}{run.__doc__}" for name, run in COMMANDS.items())
    return (
        f"usage: headstart COMMAND …\n\n{lines}\n\nheadstart COMMAND --help tells each one's flags."
    )


def _refuse_idle(job: "hs.Job", args: argparse.Namespace) -> None:
    """Raises SpecError for a flag that was given and that nothing would read."""
    idle = [f"--{name.replace('_', '-')}" for name in job.idle() if name in args]
    if idle:
        raise SpecError(
            f"{' and '.join(idle)} would change nothing, with --strategy {job.strategy} and "
            f"--head {job.recipe.head}: leave out what you don't need, or name the --head or "
            f"--strategy that it belongs to."
        )
    if "views" in args and not job.augment.active:
        raise SpecError(
            "--views would change nothing: it counts augmented views, and no augmentation is asked "
            "for. Add one, such as --flip horizontal, or leave it out."
        )


def _source(data: Path) -> str:
    """Where data is read from, as a run records it: the same folder by any name."""
    return os.fsencode(data.resolve()).decode("utf-8", "backslashreplace")


def _strangers(said: "hs.Predictions", data: "hs.Dataset") -> "list[hs.LeftOut]":
    """Classes of the data that the model can't name: their rows are not judged.

    Raises Mismatch if there are no others.
    """
    unknown = {name: n for name, n in data.counts.items() if n and name not in said.classes}
    if unknown and not said.known.any():
        raise Mismatch(
            f"The model tells {', '.join(said.classes)} apart; the data holds none of these but "
            f"{', '.join(unknown)}. Is it the right model?"
        )
    reason = "not a class of this model; {:,} rows are not judged"
    return [hs.LeftOut(name, reason.format(n)) for name, n in unknown.items()]


def _free(path: Path) -> Path:
    """`path`, or path-2, path-3, … if there is something there already."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())
