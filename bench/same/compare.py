"""Two folders of outputs, file by file: what is the same, to the byte or in its numbers alone.

What differs from one run to the next by its nature (seconds, dates, the folder itself) is taken out
first, by the list MASKS; nothing else is.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load as unpack

SAME, WORDS, NUMBERS = "same", "same numbers, other words", "numbers differ"
OLD, NEW = "only old", "only new"
GOOD = (SAME, WORDS)
TEXTS = (".json", ".csv", ".html", ".txt", ".out", ".err", ".code", ".md", ".yaml", "")
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?")
ELSEWHERE = ("data/", "home/cache/matplotlib/")  # what is given, and what a library remembers
SHOWN = 100  # characters of a line that differs


@dataclass(frozen=True)
class Mask:
    """Text that is taken out of files before they are compared, and why."""

    files: str
    text: str
    why: str
    put: str = "<>"


@dataclass(frozen=True)
class Intended:
    """A difference that a step makes on purpose.

    files: a pattern of paths. since: the commit or step. drop: a regular expression; what it
    matches is taken out on both sides, and the rest must still agree. moved: a regular expression
    of old paths, and `to` what becomes of them (as in re.sub); the contents must still agree.
    Without either, the files may differ in any way.
    """

    reason: str
    since: str
    files: str = ""
    drop: str = ""
    moved: str = ""
    to: str = ""


@dataclass(frozen=True)
class Compared:
    """What came of one file. note: where it first differs. reason: why that is as it should be."""

    path: str
    verdict: str
    note: str = ""
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.verdict in GOOD or bool(self.reason)


TIME = r"\d[\d.,]*[^\w<>\"]{1,6}(?:ms|s|min|h|мс|с|мин|ч)\b"
SECONDS = r"[\d.,]+(?:e-\d+)?"
BAR = r'(</td><td class="left"><div class="bar"><i class="b1" style="width:)[\d.]+'
MASKS = (
    Mask("*.html", f"{TIME}{BAR}", "how long a stage took, and the bar of it", r"<>\1"),
    Mask("*.html", TIME, "how long something took"),
    Mask("*.html", rf'(peak memory</td><td class="left">){SECONDS}', "of the run", r"\1"),
    Mask("*/history.csv", f",{SECONDS}$", "seconds of an epoch"),
    Mask("*/timings.json", rf'^(    "[\w-]+": ){SECONDS}', "seconds of a stage", r"\1"),
    Mask(
        "*/timings.json",
        rf'("(?:total_seconds|examples_per_second|peak_rss_bytes)": ){SECONDS}',
        "of the run",
        r"\1",
    ),
    Mask("*/timings.json", r'("began": )"[^"]*"', "when the run began", r'\1""'),
    Mask("*.html", r"<time datetime='[^']*'>[^<]*</time>", "when the run began"),
    Mask("store/.verified/*/*", r"\d+ \d+$", "time and number of a file"),
    Mask("*.html", rf"{SECONDS}[^\w<>\"]{{1,6}}(?:GB|MB|ГБ|МБ)(?=</td></tr></tbody>)", "memory"),
    Mask("mlruns/*/metrics/*/seconds", r" \S+ ", "seconds of an epoch"),
    Mask("mlruns/*/mlflow.source.name", r"^\S+/(?=headstart/)", "the folder of the code"),
    Mask("mlruns/*", r"\b(?:\d{13}|\d{18}|[0-9a-f]{32})\b", "dates and random names"),
    Mask("said/*.err", r"\b[0-9a-f]{32}\b", "the random name of a run in MLflow"),
    Mask("said/*.out", rf'("seconds": ){SECONDS}', "how long it took", r"\1"),
    Mask("said/*.out", r"(seconds by stage\n)(?:  .*\n)+", "seconds of the stages", r"\1"),
    Mask("said/*.out", rf"^total {SECONDS} s;", "of the run"),
    Mask("said/*.out", rf"{SECONDS} images/s", "of the run"),
    Mask("said/*.out", rf"peak memory {SECONDS} GB", "of the run"),
    Mask("said/*.err", rf"about {SECONDS} (?:s|min|h) for", "a guess from the first batch"),
    Mask("said/*.err", rf"\({SECONDS}(?: images)?(?:/s| s each)\)", "so many a second"),
    Mask("said/*.err", rf" {SECONDS} s(?= <>|$)", "how long something took"),
)

NAMES = (  # of files that are called otherwise each time
    (r"^mlruns/\d{6,}/[0-9a-f]{32}/", "mlruns/experiment/run/"),
    (r"^mlruns/\d{6,}/", "mlruns/experiment/"),
    (r"(events\.out\.tfevents)\..*$", r"\1"),
)


def intended_of(path: Path) -> tuple[Intended, ...]:
    """The table of intended differences; raises TypeError for an entry with an unknown field."""
    return tuple(Intended(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def compare(old: Path, new: Path, intended: Sequence[Intended] = ()) -> list[Compared]:
    """Every file that either side has, in the order of their names."""
    olds, news = _named(old), _named(new)
    moved = {_moved(name, intended): path for name, path in olds.items()}
    found = []
    for name in sorted({*moved, *news}):
        found.append(_compared(name, moved.get(name), news.get(name), (old, new), intended))
    return found


def _compared(
    name: str,
    old: Path | None,
    new: Path | None,
    folders: tuple[Path, Path],
    intended: Sequence[Intended],
) -> Compared:
    own = [i for i in intended if i.files and fnmatchcase(name, i.files)]
    whole = next((f"{i.reason} ({i.since})" for i in own if not i.drop), "")
    if old is None or new is None:
        return Compared(name, NEW if old is None else OLD, reason=whole)
    one, other = (
        _plain(name, path.read_bytes(), folder)
        for path, folder in zip((old, new), folders, strict=True)
    )
    verdict, note = judged(name, one, other)
    if verdict in GOOD:
        return Compared(name, verdict, note)
    if drops := [i for i in own if i.drop]:
        rest = [_dropped(data, drops) for data in (one, other)]
        if judged(name, *rest)[0] in GOOD:
            whole = "; ".join(f"{i.reason} ({i.since})" for i in drops)
    return Compared(name, verdict, note, whole)


def judged(name: str, one: bytes, other: bytes) -> tuple[str, str]:
    """The verdict on two files of one name, and where they first differ."""
    if one == other:
        return SAME, ""
    try:
        numbers = _numbers(name, one) == _numbers(name, other)
    except (ValueError, OSError, KeyError) as error:
        return NUMBERS, f"cannot be compared by its numbers: {error}"
    return (WORDS if numbers else NUMBERS), _first_difference(name, one, other)


def _named(folder: Path) -> dict[str, Path]:
    paths = {_called(p.relative_to(folder).as_posix()): p for p in sorted(folder.rglob("*"))}
    return {n: p for n, p in paths.items() if p.is_file() and not n.startswith(ELSEWHERE)}


def _called(name: str) -> str:
    for pattern, put in NAMES:
        name = re.sub(pattern, put, name)
    return name


def _moved(name: str, intended: Iterable[Intended]) -> str:
    for entry in intended:
        if entry.moved:
            name = re.sub(entry.moved, entry.to, name)
    return name


def _plain(name: str, data: bytes, folder: Path) -> bytes:
    """Without what differs by its nature."""
    if name.endswith(".tfevents"):
        data = _events(data)
    data = data.replace(str(folder).encode(), b"<folder>")
    if not _is_text(name):
        return data
    text = data.decode("utf-8", "surrogateescape")
    for mask in MASKS:
        if fnmatchcase(name, mask.files):
            text = re.sub(mask.text, mask.put, text, flags=re.MULTILINE)
    return text.encode("utf-8", "surrogateescape")


def _is_text(name: str) -> bool:
    return Path(name).suffix in TEXTS or name.startswith("mlruns/")


def _events(data: bytes) -> bytes:
    """What TensorBoard's records say, a line each, without their dates and measured seconds."""
    from tensorboardX.proto.event_pb2 import Event

    lines, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        for value in event.summary.value:
            told = "" if value.tag.endswith("/seconds") else str(value)
            lines.append(f"{event.step} {value.tag} {told}")
        at += 16 + size
    return "\n".join(lines).encode()


def _dropped(data: bytes, drops: Iterable[Intended]) -> bytes:
    for entry in drops:
        data = re.sub(entry.drop.encode(), b"", data)
    return data


def _numbers(name: str, data: bytes) -> Any:
    """Of a text its numbers in their order; of JSON those of its leaves, in whatever structure;
    of tensors and pictures their values, whatever they are called."""
    kind = Path(name).suffix
    if kind == ".json":
        return Counter(_leaves(json.loads(data)))
    if kind == ".safetensors":
        return sorted(_array(a) for a in unpack(data).values())
    if kind == ".npz":
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return sorted(_array(arrays[name]) for name in arrays)
    if kind in (".png", ".gif", ".webp", ".jpg"):
        return _frames(data)
    if not _is_text(name):
        return data
    text = data.decode("utf-8", "surrogateescape")
    if kind == ".html":
        text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return NUMBER.findall(text)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str):
        yield from NUMBER.findall(value)
    elif value is not None:
        yield repr(value)


def _array(array: Any) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


def _frames(data: bytes) -> list[Any]:
    with Image.open(io.BytesIO(data)) as image:
        frames = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append((image.mode, image.size, image.convert("RGBA").tobytes()))
    return frames


def _first_difference(name: str, one: bytes, other: bytes) -> str:
    if not _is_text(name):
        return f"{len(one):,} and {len(other):,} bytes"
    texts = (data.decode("utf-8", "replace").splitlines() for data in (one, other))
    for number, (a, b) in enumerate(zip_longest(*texts, fillvalue=""), start=1):
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
            start = max(0, at - SHOWN // 2)
            return f"line {number}: {a[start:][:SHOWN]!r} | {b[start:][:SHOWN]!r}"
    return "ends of lines"
