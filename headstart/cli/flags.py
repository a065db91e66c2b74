"""Flags made from the fields of specs, so that the command line can't drift from the library."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import headstart as hs
from headstart.base.errors import SpecError
from headstart.base.values import field_help

if TYPE_CHECKING:  # help on most commands needs none of what these load
    from headstart.heads.specs import HeadSpec

T = TypeVar("T")
METAVARS: dict[type, str] = {int: "N", float: "X"}
MOST = 1_000_000  # of anything that is counted
SHOWN = 40  # characters of a wrong value that are repeated
MODEL_HELP = "a run folder, or the bundle in it"
DATA_HELP = "a folder per class, or train/, val/ and test/; or a CSV or Parquet of path,label"
BUNDLE_RUNTIME = ("threads", "decode_threads")  # a bundle runs on the CPU, whatever there is


def add_flags(parser: argparse._ActionsContainer, spec: Any, *only: str) -> None:
    """One flag a field (or of `only` these), so the command line can't drift from the library.

    parser: a parser, or a group of one. What `spec` holds are the defaults. Specs share a flag if
    they share one of SHARED, as all do a seed; a head's flags begin with --head- where another's
    has the name. Raises SpecError for two settings of one flag.
    """
    hints, of_head = get_type_hints(type(spec)), _is_of_head(spec)
    for name in only or [f.name for f in fields(spec)]:
        if _is_of_head(shown := getattr(spec, name)):
            add_head_flags(parser, shown)
            continue
        flag = flag_of(_setting_of_head(name) if of_head else name)
        text = field_help(type(spec), name)
        if there := parser._option_string_actions.get(flag):
            _check_shared(there, name, text, of_head=of_head)
            continue
        added = _add_flag(parser, flag, hints[name], shown, text)
        added.setting = text  # type: ignore[attr-defined]  # known again by what it says of itself


def _add_flag(
    parser: argparse._ActionsContainer, flag: str, hint: Any, shown: Any, text: str
) -> argparse.Action:
    """A flag for a setting of this type, whose default is shown in the help text."""
    kind, choices = _kind(hint)
    text = (text + _usual(shown)).replace("%", "%%")
    default = argparse.SUPPRESS  # only what was given is in the way of a spec's own values
    if kind is bool:
        yes_or_no = argparse.BooleanOptionalAction
        return parser.add_argument(flag, action=yes_or_no, default=default, help=text)
    return parser.add_argument(
        flag,
        type=fraction if kind is float else kind,
        choices=choices or None,
        default=default,
        nargs="+" if isinstance(shown, tuple) else None,
        help=text,
        metavar=None if choices else METAVARS.get(kind, flag.strip("-").replace("-", "_").upper()),
    )


def add_head_flags(parser: argparse._ActionsContainer, spec: "HeadSpec") -> None:
    """--head, and a flag for each setting of its own family and of the built-in ones."""
    from headstart.heads.families import HEADS, spec_named
    from headstart.models.specs import FeatureExtraction

    parser.add_argument(
        "--head",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help=f"{field_help(FeatureExtraction, 'head')} (default: {spec.family})",
    )
    for name in dict.fromkeys([spec.family, *HEADS.built_in]):
        add_flags(parser, spec if name == spec.family else spec_named(name, spec))


def _is_of_head(spec: Any) -> bool:
    return hasattr(spec, "by_epochs")  # which the specs of heads have, and no other


def _setting_of_head(name: str) -> str:
    from headstart.runs.job import setting_of_head

    return setting_of_head(name)


def flag_of(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _check_shared(action: argparse.Action, name: str, text: str, *, of_head: bool) -> None:
    """Raises SpecError unless two specs may have this flag together.

    Families of heads share a setting that says the same of itself; a command may have a flag of
    its own in place of a spec's.
    """
    from headstart.runs.job import SHARED

    there = getattr(action, "setting", None)
    if there is None or name in SHARED or (of_head and there == text):
        return
    raise SpecError(f"Two settings would be {action.option_strings[0]}: rename one of them.")


def made(spec: T, args: argparse.Namespace) -> T:
    """The same spec with what the flags say."""
    given: dict[str, Any] = {}
    for field in fields(spec):  # type: ignore[arg-type]
        if _is_of_head(head := getattr(spec, field.name)):
            given[field.name] = made_head(head, args)
        elif field.name in args:
            given[field.name] = _value(args, field.name)
    if ("thaw" in given) != ("thaw_from" in given):  # what is thawed is said in one of two ways
        given = {"thaw": "auto", "thaw_from": None} | given
    return replace(spec, **given)  # type: ignore[type-var]


def made_head(spec: "HeadSpec", args: argparse.Namespace) -> "HeadSpec":
    """The same with what the flags say; of another family if --head says so."""
    from headstart.heads.families import spec_named

    family = getattr(args, "head", spec.family)
    own = spec if family == spec.family else spec_named(family, spec)
    settings = {f.name: _setting_of_head(f.name) for f in fields(own)}
    return replace(own, **{n: _value(args, s) for n, s in settings.items() if s in args})


def _value(args: argparse.Namespace, name: str) -> Any:
    value = getattr(args, name)
    return tuple(value) if isinstance(value, list) else value


def word_after(argv: Sequence[str], flag: str) -> str:
    """The value that a flag has among the words of a command, before they are parsed."""
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
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


def _usual(default: object) -> str:
    """What help says of a default; nothing where the flag itself says enough."""
    if default is None or default is False or default == "":
        return ""
    return f" (default: {_shown(default)})"


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return " ".join(_shown(item) for item in default)
    if default is True:
        return "on"
    return f"{default:.3g}" if isinstance(default, float) else str(default)


def add_weights_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        default="pretrained",
        help="pretrained, random or a file: .safetensors, or .h5 for keras (default: %(default)s)",
    )


def add_store_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="folder where features are kept (default: $HEADSTART_STORE, or the user's cache)",
    )


def add_language_flag(parser: argparse.ArgumentParser) -> None:
    """Of a report that is written again."""
    _, choices = _kind(get_type_hints(hs.Job)["language"])
    parser.add_argument(
        "--language",
        choices=choices,
        help=f"{field_help(hs.Job, 'language')} (default: the run's own)",
    )


def add_files_flags(parser: argparse.ArgumentParser, *runtime: str) -> None:
    """Which images, how to print what is said of them, and these settings of Runtime."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="images, folders of images, or - for paths on stdin",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON value, all scores")
    form.add_argument("--jsonl", action="store_true", help="print a JSON object per file")
    form.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a row per file, with all scores; - for stdout",
    )
    parser.add_argument(
        "--top",
        type=count(),
        default=1,
        metavar="N",
        help="classes to print for each file; JSON has all (default: %(default)s)",
    )
    add_flags(parser, hs.Runtime(), *runtime)


def named_files(files: list[str]) -> list[Path]:
    """The paths meant: `-` stands for those on stdin, a line each."""
    lines = os.fsdecode(sys.stdin.buffer.read()).split("\n") if "-" in files else []
    given = [name for name in files if name != "-"] + [line for line in lines if line.strip()]
    return [Path(name.rstrip("\r")) for name in given]


def bundle_of(path: Path) -> Path:
    """The bundle of a run folder, or the path itself if it is one."""
    return path / "model" if (path / "model").is_dir() else path


def count(most: int = MOST) -> Callable[[str], int]:
    """What reads a whole number from 1 to `most`.

    >>> count(most=10)("7")
    7
    """

    def read(text: str) -> int:
        with suppress(ValueError):
            if 1 <= (number := int(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(
            f"it is a whole number from 1 to {most:,}; got {text[:SHOWN]!r}"
        )

    return read


def fraction(text: str) -> float:
    """A number, or one over another as people write shares of the pixels' range.

    >>> fraction("4/255") == 4 / 255 and fraction("0.5") == 0.5
    True
    """
    above, slash, below = text.partition("/")
    if slash and float(below) == 0:
        raise ValueError(f"nothing is so many parts of none: {text!r}")
    return float(above) / float(below) if slash else float(above)
