"""Translate commands and flags of Keras, fastai, timm and Ultralytics to Headstart's."""

import re
from argparse import Action
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from os.path import exists
from shlex import quote
from typing import NoReturn, Protocol

from headstart.base.errors import MissingPackage, SpecError
from headstart.base.synonyms import SETTINGS, table


class Flags(Protocol):
    """The flags of a command, such as a Parser. see: a sentence that refers to its help."""

    prog: str

    @property
    def flags(self) -> Sequence[str]: ...
    @property
    def see(self) -> str: ...
    def option(self, flag: str) -> Action | None: ...
    def takes(self, *names: str) -> bool: ...


COMMANDS = table(
    train="fit learn fine-tune finetune fit-one-cycle",
    evaluate="val valid validate test eval score",
    predict="infer inference",
    backbones="list models",
    check="checks verify-images",
    explain="interpret",
)
COMMAND_ANSWERS = {
    "lr-find": "Type `headstart train DATA --lr-find`, or leave --lr out.",
    "resume": "Type the same `headstart train` again: it goes on where it stopped.",
    "summary": "Type `headstart report RUN`, or look at RUN/report.html.",
}
_THAW = "Name what may learn: --thaw 2 (blocks), --thaw all or --thaw none."
_CHANGES = "Name changes, as --flip horizontal, or type --augment auto."
_FLIP = "Type --flip horizontal, vertical or both."
_CLASSES = "Classes are counted in DATA: leave it out."
_OTHER_OUT = "A finished run is never written over: name another --out."
_PRECISION = "Half precision is used where it is faster: leave it out."
_DOUBT = "Set it in training: --precision 0.95 or --coverage 0.9."
_DEVICE = "Type --device cuda, or leave it out: an accelerator is found."
_PARTS = "Name the folder that holds train/, val/ and test/ as DATA."
_WEIGHTS = "Type --weights pretrained, which is usual, or --weights random."
FLAG_ANSWERS = {
    **dict.fromkeys(("freeze", "unfreeze", "trainable"), _THAW),
    "augmentation": _CHANGES,
    **dict.fromkeys(("fliplr", "flipud", "hflip", "vflip", "horizontal-flip"), _FLIP),
    **dict.fromkeys(("num-classes", "nc"), _CLASSES),
    **dict.fromkeys(("exist-ok", "overwrite", "force"), _OTHER_OUT),
    **dict.fromkeys(("amp", "fp16", "half"), _PRECISION),
    **dict.fromkeys(("conf", "threshold"), _DOUBT),
    **dict.fromkeys(("gpu", "gpus", "cuda"), _DEVICE),
    **dict.fromkeys(("train-dir", "val-dir", "test-dir"), _PARTS),
    **dict.fromkeys(("pretrained", "no-pretrained", "include-top"), _WEIGHTS),
    "loss": "It is cross-entropy; see --output and --label-smoothing.",
    "metrics": "Every metric is measured: leave it out.",
    "verbose": "Progress is shown unless --quiet is given: leave it out.",
    "cache": "Features are always kept: leave it out, or name a --store.",
    "cpu": "Type --device cpu.",
    "from-scratch": "Type --strategy scratch.",
}
VALUES = {
    "--weights": table(
        pretrained="imagenet imagenet1k_v1 imagenet1k_v2 default true", random="none false"
    ),
    "--device": table(cuda="gpu 0 cuda:0"),
    "--class-weights": table(balanced="auto true"),
}
SHOWN = 40  # characters quoted of a wrong word
TASKS = ("classify", "detect", "segment", "pose")  # Ultralytics names the task before the command
MODES = ("train", "val", "predict", "export")
RUNS = {"model", "weights", "run", "checkpoint"}  # in commands that open a run
DATA = set("data source input image images img path dataset file files data-dir root".split())
SHORT = {"-b": "--batch-size", "-e": "--epochs", "-j": "--workers", "-m": "--model", "-o": "--out"}
DASHED = re.compile(r"-[A-Za-z][A-Za-z_-]*(=.*)?", re.DOTALL)
PAIR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.+")


def command_of(argv: Sequence[str], known: Iterable[str]) -> tuple[str, list[str], str]:
    """Return the command in `argv`, its arguments, and a hint if the name was translated.

    Raises SpecError with a suggestion for an unknown command.
    """
    word, *rest = argv
    if word in TASKS and rest and rest[0] in MODES and any(map(PAIR.fullmatch, rest)):
        if word != "classify":
            raise SpecError(f"Headstart classifies images; it has no task {word}.")
        word, *rest = rest
    if word in known:
        return word, rest, ""
    meant = word.lower().replace("_", "-")
    if meant in COMMANDS:
        return COMMANDS[meant], rest, f"{word} is `headstart {COMMANDS[meant]}`"
    if meant in COMMAND_ANSWERS:
        raise SpecError(COMMAND_ANSWERS[meant])
    if word.startswith("-"):
        raise SpecError(f"A command comes first: `headstart train … {word[:SHOWN]} …`.")
    if exists(word):
        command = f"headstart train {quote(word)} --out RUN"
        raise SpecError(f"{word} is no command: type `{command}`.")
    near = get_close_matches(meant, known, n=2)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See `headstart --help`."
    raise SpecError(f"There is no command {word[:SHOWN]!r}. {hint}")


@dataclass(frozen=True)
class CommandWords:
    """The translated arguments of a command. hints: one per translation."""

    kept: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)  # given by a flag; placed before pictures
    data: list[str] = field(default_factory=list)  # given by a flag
    hints: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        return [*self.runs, *self.kept, *self.data]


def in_our_words(parser: Flags, argv: Sequence[str]) -> CommandWords:
    """Translate flags of other tools, such as `--model NAME` or `epochs=5`."""
    found, words = CommandWords(), iter(argv)
    for word in words:
        if word == "--":
            found.kept.extend((word, *words))
        elif PAIR.fullmatch(word) and not exists(word):
            key, _, value = word.partition("=")
            _take(parser, found, f"--{key}", value, word)
        elif word.startswith("--") or _single_dashed(parser, word):
            flag, joined, value = word.partition("=")
            flag = SHORT.get(flag, flag if flag.startswith("--") else f"-{flag}")
            separate = not joined and _takes_value(parser, flag)
            _take(parser, found, flag, next(words, None) if separate else value or None, word)
        else:
            found.kept.append(word)
    return found


def _single_dashed(parser: Flags, word: str) -> bool:
    """Whether `word` is an unknown flag with one dash, such as -epochs or -b."""
    return bool(DASHED.fullmatch(word)) and parser.option(word) is None


def _normal(flag: str) -> str:
    """Return the name of a flag in lower case with dashes.

    >>> _normal("--Batch_Size")
    'batch-size'
    """
    return flag.lstrip("-").lower().replace("_", "-")


def _takes_value(parser: Flags, flag: str) -> bool:
    """Whether the next word is the value of this flag, and the flag or its value may change."""
    own = parser.option(flag)
    if own:
        return flag in VALUES or flag == "--backbone"
    name = _normal(flag)
    ours = parser.option(_ours(name))
    return name in RUNS | DATA or (ours is not None and ours.nargs != 0)


def _ours(name: str) -> str:
    return "--" + SETTINGS.get(name, name).replace("_", "-")


def _take(parser: Flags, found: CommandWords, flag: str, value: str | None, word: str) -> None:
    """Add a flag and its value, translated, to `found`; `word` is the text typed."""
    name, given = _normal(flag), [value] if value is not None else []
    if not parser.option(flag):
        if name in RUNS and parser.takes("RUN"):
            found.runs.extend(given)
            found.hints.append(f"{flag.strip('-')} is named without a flag here")
            return
        if name in DATA and parser.takes("DATA", "FILE"):
            found.data.extend(given)
            found.hints.append(f"{flag.strip('-')} is named without a flag here")
            return
    ours = flag if parser.option(flag) else _ours(name)
    option = parser.option(ours)
    if option is None and word.startswith("-"):
        refuse_flag(parser, flag)
    if option is None:
        found.kept.append(word)
        return
    if value is not None and option.nargs == 0:
        ours, value = _switched(parser, ours, value), None
    words, more = _replaced(ours, value, joined="=" in word)
    found.kept.extend(words)
    if more or words != ([word] if "=" in word or value is None else [word, value]):
        found.hints.append(f"{word} is {' '.join(words)}{more}")


def _switched(parser: Flags, flag: str, value: str) -> str:
    """Return --flag or --no-flag for flag=True or flag=False."""
    off = f"--no-{flag[2:]}"
    return off if value.lower() in ("false", "0", "no") and parser.option(off) else flag


def _replaced(flag: str, value: str | None, *, joined: bool) -> tuple[list[str], str]:
    """Return a flag with its value translated, and a note on another meaning of the value."""
    if value is None:
        return [flag], ""
    more = ""
    if flag == "--backbone":
        first, *others = backbones_of(value)
        value, more = first, f" ({others[0]} is there, too)" if others else ""
    value = VALUES.get(flag, {}).get(value.lower(), value)
    return ([f"{flag}={value}"] if joined else [flag, value]), more


def backbones_of(name: str) -> list[str]:
    """Return the backbones that a name without a source may mean, as `source:id`, likeliest first.

    Raises SpecError for a file of weights, and, with the nearest name, for an unknown name.
    """
    if ":" in name or name in ("", "none"):
        return [name]
    if name.endswith((".pt", ".pth", ".h5", ".keras", ".onnx", ".safetensors")):
        raise SpecError("--backbone names a network; a file of its weights goes with --weights.")
    known = list(dict.fromkeys(_backbones()))
    alike = [own for own in known if _bare(own) == _bare(name)]
    if alike:
        return sorted(alike, key=lambda own: own.partition(":")[2] != name)
    bare = {_bare(own): own for own in reversed(known)}
    near = [bare[own] for own in get_close_matches(_bare(name), bare, n=2, cutoff=0.8)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `headstart backbones`."
    raise SpecError(f"A backbone is named source:id; there is no {name[:SHOWN]!r}. {hint}")


def _backbones() -> Iterator[str]:
    """Yield the names of all backbones of the installed sources, without tags."""
    from headstart.modalities.sources import list_backbones

    for source in ("packaged", "timm", "keras"):
        with suppress(MissingPackage):
            for line in list_backbones(f"{source}:*"):
                yield line.name.partition(".")[0]


def _bare(name: str) -> str:
    return re.sub("[-_]", "", name.rpartition(":")[2].casefold())


def refuse_flag(parser: Flags, flag: str) -> NoReturn:
    """Raise SpecError for an unknown flag, with a suggestion."""
    answer = FLAG_ANSWERS.get(_normal(flag))
    if not answer:
        near = nearest_flags(flag, parser.flags)
        answer = f"Did you mean {' or '.join(map(repr, near))}?" if near else parser.see
    raise SpecError(f"`{parser.prog}` has no flag '{flag[:SHOWN]}'. {answer}")


def nearest_of(word: str, known: Iterable[str]) -> str:
    """Return the known word with the most similar spelling; "" if none is close."""
    return next(iter(get_close_matches(word.lower(), known, n=1)), "")


def nearest_flags(flag: str, known: Iterable[str]) -> list[str]:
    """Return up to 3 flags that begin with `flag`, else are spelled like it, else contain it.

    >>> nearest_flags("--drop", ["--draft", "--dropout", "--help"])
    ['--dropout']
    """
    meant, names = _normal(flag), [own[2:] for own in known if own.startswith("--")]
    begun = [name for name in names if len(meant) > 2 and name.startswith(meant)]
    close = get_close_matches(meant, names, n=2, cutoff=0.7)
    parts = [name for name in names if meant in name.split("-")]
    return [f"--{name}" for name in (begun or close or parts)[:3]]
