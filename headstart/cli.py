"""The command line: our own first user. It goes through the front door like everyone else.

stdout is for results, stderr for talk and progress. Exit codes: 0 done; 1 the data or the run
failed; 2 the command was wrong; 3 done, but some inputs were left out; 130 interrupted.
"""

import argparse
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import headstart as hs
from headstart.errors import (
    DataError,
    HeadstartError,
    Mismatch,
    MissingPackage,
    SpecError,
    UnknownName,
)
from headstart.spec import to_plain

T = TypeVar("T")
JOB_FLAGS = ("backbone", "weights", "strategy", "baseline", "checkpoint_s", "resume")
JOB_SPECS = ("recipe", "finetune", "augment", "split", "checks", "runtime")
DONE, FAILED, WRONG, LEFT_OUT, INTERRUPTED = 0, 1, 2, 3, 130


def demo(argv: list[str]) -> int:
    """the main job, on the built-in example (2,624 photographs of solar cells)"""
    parser = _Parser("demo", demo)
    parser.add_argument(
        "--out", type=Path, help="folder for the run (default: runs/demo, or -2, …)"
    )
    _store_flag(parser)
    args = parser.parse_args(argv)

    out = args.out or _free(Path("runs/demo"))
    _say("demo", "solar cells, defective or not (ELPV data set, CC BY-NC-SA 4.0, not shipped)")
    job = hs.Job(
        recipe=hs.FeatureExtraction(fit="squash"),
        finetune=hs.FineTune(epochs=5, lr=2e-4),
        augment=hs.Augment(flip="both", quarter_turns=True, views=4),  # a cell has no upside
        store=hs.Store(args.store),
    )
    data = hs.solar_cells()
    run = hs.train(data, out, job, _talk())
    _print_run(run)
    few = run.splits.test.take(range(0, len(run.splits.test), max(1, len(run.splits.test) // 5)))
    said = hs.load(run.folder / "model").model.predict(few, store=None)
    print("\na few test cells, by the saved bundle")
    _print_table([("cell", "truth", "predicted", "score"), *_predicted(said)])
    print(f"\nnext: headstart predict {run.folder} FILE…")
    return _left_out(run.left_out)


def train(argv: list[str]) -> int:
    """a folder of labelled images becomes a tested model"""
    parser = _Parser("train", train)
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run")
    parser.add_argument(
        "--recipe",
        default="default",
        help="a recipe by name, which sets what follows (%(default)s)",
    )
    job = hs.recipe(_given(argv, "--recipe") or "default").job  # its settings are the defaults
    _flags(parser, job, *JOB_FLAGS)
    _store_flag(parser)
    for name in JOB_SPECS:
        _flags(parser, getattr(job, name))
    args = parser.parse_args(argv)

    job = replace(
        job,
        source=_source(args.data),
        store=hs.Store(args.store),
        **{name: _made(getattr(job, name), args) for name in JOB_SPECS},
        **{name: getattr(args, name) for name in JOB_FLAGS if name in args},
    )
    run = hs.train(hs.read(args.data), args.out, job, _talk())
    _print_run(run)
    return _left_out(run.left_out)


def recipes(argv: list[str]) -> int:
    """the tutorials' recipes by name, and what each does"""
    parser = _Parser("recipes", recipes)
    parser.add_argument("--json", action="store_true", help="print one JSON value, every setting")
    args = parser.parse_args(argv)

    if args.json:
        _print_json({name: to_plain(named.job) for name, named in hs.RECIPES.items()})
        return DONE
    for name, named in hs.RECIPES.items():
        print(
            f"{name}\n{textwrap.fill(named.does, 96, initial_indent='  ', subsequent_indent='  ')}"
        )
    print("\nheadstart train DATA --out RUN --recipe NAME; any setting can be changed by its flag.")
    return DONE


def views(argv: list[str]) -> int:
    """what augmentation makes of a picture: a grid of its views, as a PNG"""
    parser = _Parser("views", views)
    parser.add_argument("file", type=Path, metavar="FILE", help="one image")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="where to write it")
    parser.add_argument("--size", type=int, default=224, help="pixels of a view (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws others")
    _flags(parser, hs.Augment())
    args = parser.parse_args(argv)

    augment = _made(hs.Augment(), args)
    if not augment.active:
        raise SpecError("No change was asked for: add --flip horizontal, --rotation 0.1, ….")
    if args.out.exists():
        raise SpecError(f"{args.out} is there already: name another --out.")
    hs.draw_views(args.file, args.out, augment, size=args.size, seed=args.seed)
    _say("views", f"the picture, top left, and 15 views of it: {args.out}")
    return DONE


def check(argv: list[str]) -> int:
    """what is wrong with the data, before any training"""
    parser = _Parser("check", check)
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--json", action="store_true", help="print everything found, as JSON")
    _store_flag(parser)
    for spec in (hs.CheckPlan(), hs.Runtime()):
        _flags(parser, spec)
    args = parser.parse_args(argv)

    data, runtime = hs.read(args.data), _made(hs.Runtime(), args).resolved()
    watch = _watch("checks")
    seen = hs.survey(
        data,
        store=hs.Store(args.store),
        threads=runtime.decode_threads,
        progress=watch.progress,
    )
    found = hs.check(data, seen, threads=runtime.decode_threads)
    if args.json:
        _print_json(found.to_plain())
    else:
        _print_table(found.table())
    hs.good_rows(data, seen, _made(hs.CheckPlan(), args))  # refuses what training would refuse
    return _left_out(found.left_out)


def evaluate(argv: list[str]) -> int:
    """how good a model is on labelled images"""
    parser = _Parser("evaluate", evaluate)
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help=MODEL_HELP)
    parser.add_argument("data", type=Path, metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--part",
        choices=("auto", "train", "val", "test", "all"),
        default="auto",
        help="rows to judge by; auto: the test rows, of the run's own data or of data in parts",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    _store_flag(parser)
    _flags(parser, hs.Runtime())
    args = parser.parse_args(argv)

    bundle = hs.load(_bundle(args.model))
    data = _part_of(hs.read(args.data), args)
    table = hs.extract(
        bundle.model.backbone,
        data,
        store=hs.Store(args.store),
        runtime=_made(hs.Runtime(), args),
        watch=_watch("features"),
    )
    said = bundle.model.predict_table(table)
    strangers = _strangers(said, data)
    if not said.known.any():
        raise DataError(f"There is nothing to judge by: none of {len(data):,} images can be read.")
    result = hs.evaluate(said, majority=bundle.model.majority)
    if args.json:
        _print_json(result.to_plain())
    else:
        _print_evaluation("evaluated", result)
    return _left_out((*data.left_out, *table.left_out, *strangers))


def predict(argv: list[str]) -> int:
    """the class of images, by a trained model"""
    parser = _Parser("predict", predict)
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help=MODEL_HELP)
    _files_flags(parser)
    args = parser.parse_args(argv)

    bundle = hs.load(_bundle(args.model))
    files, left_out = hs.find(_named(args.files))
    runtime = _made(hs.Runtime(), args)
    table = hs.extract(bundle.model.backbone, files, runtime=runtime, watch=_watch("predict"))
    said = bundle.model.predict_table(table)
    return _print_predictions(said, args, (*left_out, *table.left_out))


def classify(argv: list[str]) -> int:
    """the pretrained network as it is: the class of images among its source classes"""
    parser = _Parser("classify", classify)
    parser.add_argument("--backbone", default=hs.DEFAULT_BACKBONE, help="source:id (%(default)s)")
    _weights_flag(parser)
    _files_flags(parser)
    args = parser.parse_args(argv)

    backbone = hs.load_backbone(args.backbone, weights=args.weights)
    files, left_out = hs.find(_named(args.files))
    said, more = hs.classify(backbone, files, runtime=_made(hs.Runtime(), args))
    return _print_predictions(said, args, (*left_out, *more))


def backbones(argv: list[str]) -> int:
    """what pretrained networks there are: name, input, licence, where their weights are"""
    parser = _Parser("backbones", backbones)
    parser.add_argument("pattern", nargs="?", default="", help='as "timm:*vit*" (quote the stars)')
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    args = parser.parse_args(argv)

    listed = list(hs.list_backbones(args.pattern))
    columns = [f.name for f in fields(hs.Listing)]
    if args.json:
        _print_json([{c: getattr(b, c) for c in columns} for b in listed])
    else:
        _print_table([tuple(columns), *(tuple(getattr(b, c) for c in columns) for b in listed)])
    if not listed:
        raise DataError(
            f"No backbone matches {args.pattern!r}. Try `headstart backbones` alone, or a pattern "
            f"of timm's, as 'timm:*resnet*'."
        )
    return DONE


_BARS: list[Any] = []  # progress bars begun, to be stopped whatever happens
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "train": train,
    "check": check,
    "evaluate": evaluate,
    "predict": predict,
    "classify": classify,
    "backbones": backbones,
    "recipes": recipes,
    "views": views,
}
DATA_HELP = "a folder a class; a folder of train, val, test; or a CSV or Parquet of path,label"
MODEL_HELP = "a run folder, or the bundle in it"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. No error of ours, or of the data, is a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except (SpecError, UnknownName, MissingPackage) as error:
        _say("error", str(error))
        return WRONG
    except (HeadstartError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # `headstart … | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        _say("error", str(error) or type(error).__name__)
        return FAILED
    except KeyboardInterrupt:
        _say(
            "stopped",
            "the features computed so far are kept in the store; the same command goes on",
        )
        return INTERRUPTED
    finally:
        for bar in _BARS:
            bar.stop()  # or the terminal is left without its cursor


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


class _Parser(argparse.ArgumentParser):
    """argparse, with our errors: one sentence, the nearest flag, exit code 2."""

    def __init__(self, name: str, command: Callable[[list[str]], int]) -> None:
        super().__init__(f"headstart {name}", description=command.__doc__, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise SpecError(f"{message}. See `{self.prog} --help`.")

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        args, extra = self.parse_known_args(argv)
        for name in extra:
            if name.startswith("--"):
                flags = [o for o in self._option_string_actions if o.startswith("--")]
                raise UnknownName(f"flag of `{self.prog}`", name.partition("=")[0], flags)
            self.error(f"{name!r} is one argument too many")
        return args


def _flags(parser: argparse.ArgumentParser, spec: Any, *only: str) -> None:
    """One flag a field (or of `only` these), so the command line can't drift from the library.

    What `spec` holds are the defaults. Specs share a flag if they share a name, as all do a seed.
    """
    hints = get_type_hints(type(spec))
    for name in only or [f.name for f in fields(spec)]:
        flag, shown = f"--{name.replace('_', '-')}", getattr(spec, name)
        if flag in parser._option_string_actions:
            continue
        kind, choices = _kind(hints[name])
        text = f"{_field_help(type(spec), name)} (default: {_shown(shown)})".replace("%", "%%")
        default = argparse.SUPPRESS  # only what was given is in the way of a spec's own values
        if kind is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=default, help=text
            )
            continue
        parser.add_argument(
            flag,
            type=kind,
            choices=choices or None,
            default=default,
            nargs="+" if isinstance(shown, tuple) else None,
            help=text,
            metavar=None if choices else name.upper(),
        )


def _made(spec: T, args: argparse.Namespace) -> T:
    """The same spec with what the flags say."""
    names = {f.name for f in fields(spec)}  # type: ignore[arg-type]
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(args).items() if k in names}
    if ("thaw" in given) != ("thaw_from" in given):  # what is thawed is said in one of two ways
        given = {"thaw": "auto", "thaw_from": None} | given
    return replace(spec, **given)  # type: ignore[type-var]


def _given(argv: list[str], flag: str) -> str:
    """The value that a flag has among the words of a command, before they are parsed."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return ""


def _kind(hint: Any) -> tuple[type, tuple[str, ...]]:
    """What a flag's words are turned into, and the words it takes if they are listed."""
    if get_origin(hint) is Literal:
        return str, get_args(hint)
    if get_origin(hint) is tuple:
        return get_args(hint)[0], ()
    options = [_kind(h) for h in get_args(hint) if h is not type(None)]
    if len(options) == 1:
        return options[0]
    if options:  # a union of literals
        return str, tuple(word for _, words in options for word in words)
    return hint, ()


def _field_help(spec: type, name: str) -> str:
    """What the docstrings of a spec and its bases say after `name:`."""
    for base in spec.__mro__:
        text = base.__dict__.get("__doc__") or ""
        found = re.search(
            rf"^\s*{name}: (.+?)(?=^\s*\w+: |^\s*$|\Z)", text, re.DOTALL | re.MULTILINE
        )
        if found:
            return " ".join(found.group(1).split()).rstrip(".")
    return name.replace("_", " ")


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return " ".join(_shown(item) for item in default)
    return f"{default:.3g}" if isinstance(default, float) else str(default)


def _weights_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        default="pretrained",
        help="pretrained, random, or a local .safetensors file (keras: .h5 too)",
    )


def _store_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        help="folder where features are kept (default: $HEADSTART_STORE, or the user's cache)",
    )


def _files_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="images, folders of images, or - for paths on stdin",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value, all scores")
    parser.add_argument(
        "--top", type=int, default=1, help="classes to print for each (%(default)s); JSON has all"
    )
    _flags(parser, hs.Runtime())


def _named(files: list[str]) -> list[Path]:
    """The paths meant: `-` stands for those on stdin, a line each."""
    lines = os.fsdecode(sys.stdin.buffer.read()).split("\n") if "-" in files else []
    given = [name for name in files if name != "-"] + [line for line in lines if line.strip()]
    return [Path(name.rstrip("\r")) for name in given]


def _source(data: Path) -> str:
    """Where data is read from, as a run records it: the same folder by any name."""
    return os.fsencode(data.resolve()).decode("utf-8", "backslashreplace")


def _bundle(path: Path) -> Path:
    """The bundle of a run folder, or the path itself if it is one."""
    return path / "model" if (path / "model").is_dir() else path


def _part_of(data: "hs.Dataset", args: argparse.Namespace) -> "hs.Dataset":
    """The rows to judge by: never, unasked, those that the model was fitted on.

    Of the run's own data, "auto" takes the test rows and those that came since.
    """
    recorded = hs.recorded_parts(args.model, _source(args.data), data)
    parts = recorded or data.parts
    wanted = {args.part}
    if args.part == "auto":
        wanted = {"test", ""} if recorded else {"test"} if "test" in parts else {"all"}
    if wanted == {"all"}:
        rows = list(range(len(data)))
    else:
        rows = [i for i, name in enumerate(parts) if name in wanted]
    if not rows:
        raise DataError(
            f"There must be rows to judge by; of {len(data):,} none is in part "
            f"{' or '.join(sorted(wanted - {''}))}. Name other data, or another --part."
        )
    which = "all rows" if len(rows) == len(data) else f"{len(rows):,} of {len(data):,} rows"
    since = ", new ones among them" if any(parts[i] == "" for i in rows if parts) else ""
    _say("judged by", which + (f" ({', '.join(sorted(wanted - {''}))}{since})" if parts else ""))
    return data.take(rows)


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


def _talk() -> "hs.Talk":
    return hs.Talk(_say, _watch)


def _say(stage: str, text: str) -> None:
    print(f"{stage:10}{text}", file=sys.stderr, flush=True)


def _watch(stage: str) -> "hs.Watch":
    def expect(rows: int, seconds: float) -> None:
        _say(stage, f"about {_duration(seconds)} for {rows:,} images ({rows / seconds:,.0f}/s)")

    return hs.Watch(expect, _bar(stage))


def _bar(stage: str) -> Callable[[int, int], None]:
    """A progress bar with rate and time left, where someone is there to see it move."""
    if not sys.stderr.isatty():
        return lambda done, total: None
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:  # only `train` brings it
        return lambda done, total: None
    columns = (
        TextColumn(f"{stage:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    _BARS.append(bar)
    task = bar.add_task(stage, total=None, rate="")

    def move(done: int, total: int) -> None:
        if done == 1:
            bar.start()
        speed = bar.tasks[0].speed
        bar.update(task, completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")
        if done == total:
            bar.stop()

    return move


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_run(run: "hs.Run") -> None:
    print("\nchecks")
    _print_table(run.checks.table())
    _print_candidates(run)
    _print_evaluation("test", run.evaluations["test"])
    seconds = run.timings["seconds"]
    print("\nseconds by stage")
    _print_table([tuple(seconds), tuple(f"{s:.1f}" for s in seconds.values())])
    t = run.timings
    print(
        f"total {t['total_seconds']:.1f} s; features {t['examples_per_second']:,} images/s, "
        f"{t['backbone_forwards']:,} backbone forwards, {t['store_hits']:,} from the store; "
        f"peak memory {t['peak_rss_bytes'] / 1e9:.2f} GB"
    )
    print(f"\nsaved {run.folder}  (the model: {run.folder / 'model'})")


def _print_candidates(run: "hs.Run") -> None:
    """What was trained, how many numbers learned, and which of them was kept."""
    rows = [("model", "trainable", "frozen", "accuracy on validation", "")]
    for name, on_val in run.candidates.items():
        count = run.counts[name]
        mark = "kept" if name == run.kept else ""
        accuracy = str(on_val.accuracy or "n/a")
        rows.append((name, f"{count.trainable:,}", f"{count.frozen:,}", accuracy, mark))
    print("\ntrained")
    _print_table(rows)
    if run.gain is not None:
        print(f"  {run.kept} against the other, accuracy on validation: {_signed(run.gain)}")
    for name, on_test in run.baselines.items():
        print(f"  to compare with, on test: {name} {on_test.accuracy or 'n/a'}")


def _signed(gain: "hs.Estimate") -> str:
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] n={gain.n}"


def _print_evaluation(title: str, result: "hs.Evaluation") -> None:
    headline, per_class = hs.evaluation_rows(result)
    print(f"\n{title}")
    _print_table(headline)
    print()
    _print_table(per_class)


def _predicted(said: "hs.Predictions") -> list[tuple[str, ...]]:
    rows = zip(said.ids, said.labels, said.predicted, said.scores, strict=True)
    return [
        (id, said.classes[label] if label >= 0 else "?", said.classes[best], f"{scores[best]:.3f}")
        for id, label, best, scores in rows
    ]


def _print_predictions(
    said: "hs.Predictions", args: argparse.Namespace, left_out: "Sequence[hs.LeftOut]"
) -> int:
    """A line a file: path, then its best classes and scores, separated by tabs."""
    if args.top < 1:
        raise SpecError(f"--top is a number of classes, 1 or more; got {args.top}.")
    if args.json:
        _print_json(
            [
                {
                    "path": id,
                    "predicted": said.classes[best],
                    "score": float(scores[best]),
                    "scores": {c: float(s) for c, s in zip(said.classes, scores, strict=True)},
                }
                for id, best, scores in zip(said.ids, said.predicted, said.scores, strict=True)
            ]
        )
    else:
        for id, scores in zip(said.ids, said.scores, strict=True):
            best = (-scores).argsort(kind="stable")[: args.top]
            print("\t".join([id, *(f"{said.classes[c]}\t{scores[c]:.4f}" for c in best)]))
    code = _left_out(left_out)
    return code if said.ids else FAILED


def _left_out(left_out: "Iterable[hs.LeftOut]", most: int = 20) -> int:
    """Name what was left out, on stderr; the exit code that says so, or 0."""
    bad = [item for item in left_out if not item.expected]
    for item in bad[:most]:
        _say("left out", f"{item.path}: {item.reason}")
    if len(bad) > most:
        _say("left out", f"and {len(bad) - most} more")
    return LEFT_OUT if bad else DONE


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned, two spaces apart."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    for row in rows:
        line = "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=False))
        print(textwrap.indent(line.rstrip(), "  "))


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
