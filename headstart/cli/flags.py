"""Flags made from the fields of specs, so that the command line cannot drift from the library."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from headstart.base.errors import SpecError
from headstart.base.runtime import Runtime
from headstart.base.values import field_help

if TYPE_CHECKING:  # slow to import, and --help of most commands does not need it
    from headstart.base.store import Store
    from headstart.heads.specs import HeadSpec

T = TypeVar("T")
METAVARS: dict[type, str] = {int: "N", float: "X"}
MOST = 1_000_000  # largest value of a count
SHOWN = 40  # characters quoted of a wrong value
MODEL_HELP = "a run folder, or the bundle in it"
DATA_HELP = (
    "a folder per class, or train/, val/ and test/; or a CSV, Parquet or JSON Lines of path,label "
    "or text,label (labels for several, value for a number)"
)
BUNDLE_RUNTIME = ("threads", "decode_threads")  # a bundle always runs on the CPU


def add_flags(parser: argparse._ActionsContainer, spec: Any, *only: str) -> None:
    """Add a flag for each field of `spec`, or only for the fields in `only`.

    parser: a parser or a group of one. spec: its values are the defaults. Fields in SHARED, such
    as seed, share one flag; a head's flag begins with --head- if another spec has its name. Raises
    SpecError if two other settings have the same flag.
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
        added.setting = text  # type: ignore[attr-defined]  # identifies the setting


def _add_flag(
    parser: argparse._ActionsContainer, flag: str, hint: Any, shown: Any, text: str
) -> argparse.Action:
    """Add a flag of type `hint`; its help text ends with the default `shown`."""
    kind, choices = _kind(hint)
    text = (text + _usual(shown)).replace("%", "%%")
    default = argparse.SUPPRESS  # only given flags replace a spec's values
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
    """Add --head, and a flag for each setting of its family and of the built-in families."""
    from headstart.heads.families import HEADS, spec_named
    from headstart.models.specs import FeatureExtraction

    head: Any = parser.add_argument(
        "--head",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help=f"{field_help(FeatureExtraction, 'head')} (default: {spec.family})",
    )
    head.completions = HEADS.built_in  # any registered name is accepted, so these are no choices
    for name in dict.fromkeys([spec.family, *HEADS.built_in]):
        add_flags(parser, spec if name == spec.family else spec_named(name, spec))


def _is_of_head(spec: Any) -> bool:
    return hasattr(spec, "by_epochs")  # only the specs of heads have this attribute


def _setting_of_head(name: str) -> str:
    from headstart.runs.job import setting_of_head

    return setting_of_head(name)


def flag_of(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _check_shared(action: argparse.Action, name: str, text: str, *, of_head: bool) -> None:
    """Raise SpecError unless two settings may share this flag.

    Head families share settings with equal help texts; a command's own flag may replace a spec's.
    """
    from headstart.runs.job import SHARED

    there = getattr(action, "setting", None)
    if there is None or name in SHARED or (of_head and there == text):
        return
    raise SpecError(f"Two settings would be {action.option_strings[0]}: rename one of them.")


def made(spec: T, args: argparse.Namespace) -> T:
    """Return `spec` with the values of the flags given."""
    from headstart.runs.settings import with_settings

    return with_settings(spec, vars(args))


def word_after(argv: Sequence[str], flag: str) -> str:
    """Return the value of a flag in `argv` before parsing; "" without it."""
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return ""


def _kind(hint: Any) -> tuple[type, tuple[str, ...]]:
    """Return the type of a flag's values, and the choices if they are literals."""
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
    """Return the help text of a default; "" for None, False, the empty string and no values."""
    if default is None or default is False or default in ("", ()):
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


def add_store_flag(parser: argparse.ArgumentParser, *, reread: bool = True) -> None:
    """Add --store and, for commands that may be given an index, --reread."""
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="folder where features are kept (default: $HEADSTART_STORE, or the user's cache)",
    )
    if not reread:
        return
    parser.add_argument(
        "--reread",
        action="store_true",
        help="of an index: read all examples again, also where size and ETag have not changed",
    )


def store_of(args: argparse.Namespace) -> "Store":
    """Return the store that the flags of `add_store_flag` name."""
    from headstart.base.store import Store  # NumPy, which --help does not need

    return Store(args.store, args.reread)


def add_language_flag(parser: argparse.ArgumentParser) -> None:
    """Add --language, for commands that rewrite a report."""
    from headstart.runs.job import Job

    _, choices = _kind(get_type_hints(Job)["language"])
    parser.add_argument(
        "--language",
        choices=choices,
        help=f"{field_help(Job, 'language')} (default: the run's own)",
    )


def add_files_flags(parser: argparse.ArgumentParser, *runtime: str, needed: bool = True) -> None:
    """Add the examples, the output formats, and the given settings of Runtime.

    needed: whether a file must be named.
    """
    parser.add_argument(
        "files",
        nargs="+" if needed else "*",
        metavar="FILE",
        help="images, folders of images, text files, tables of texts, or - for paths on stdin",
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
    add_flags(parser, Runtime(), *runtime)


def named_files(files: list[str]) -> list[Path]:
    """Return the paths; `-` stands for paths on stdin, one per line."""
    lines = os.fsdecode(sys.stdin.buffer.read()).split("\n") if "-" in files else []
    given = [name for name in files if name != "-"] + [line for line in lines if line.strip()]
    return [Path(name.rstrip("\r")) for name in given]


def add_sha256_flag(parser: argparse.ArgumentParser) -> None:
    """Add --sha256, which demands one bundle."""
    parser.add_argument(
        "--sha256",
        metavar="DIGEST",
        default="",
        help="refuse another bundle than the one with this digest, which training prints",
    )


def demanded(args: argparse.Namespace, path: Path) -> Path:
    """Return the bundle in a run folder, or `path` itself; BundleError if --sha256 is another's."""
    from headstart.models.bundle_files import check_bundle

    check_bundle(bundle_of(path), args.sha256)
    return bundle_of(path)


def bundle_of(path: Path) -> Path:
    """Return the bundle in a run folder, else `path` itself."""
    return path / "model" if (path / "model").is_dir() else path


def count(most: int = MOST) -> Callable[[str], int]:
    """Return a parser of whole numbers from 1 to `most`.

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
    """Parse a number or a fraction, such as 4/255 of the pixels' range.

    >>> fraction("4/255") == 4 / 255 and fraction("0.5") == 0.5
    True
    """
    above, slash, below = text.partition("/")
    if slash and float(below) == 0:
        raise ValueError(f"the denominator of a fraction must not be 0; got {text!r}")
    return float(above) / float(below) if slash else float(above)
