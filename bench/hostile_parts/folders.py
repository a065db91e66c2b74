"""Hostile changes of a bundle's folder: its JSON, its weights, its files."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from headstart.models.bundle_files import FILES, MANIFEST, WEIGHTS, digest_of, manifest_of

Change = Callable[[Path], object]
HUGE = 3 * 2**30
# What each leaf of JSON is altered to, as text of JSON.
BAD = (
    "null", "true", "-1", "0", "2", "0.5", '""', "[]", "{}", "NaN", "-Infinity", "1e999",
    "1" + "0" * 30, "9223372036854775808", '"x"', '"\\u0000"', '"\\ud800"', "[[1]]",
    '{"kind": "x"}', '"' + "y" * 100_000 + '"',
)  # fmt: skip
MARK = "@@here@@"


def reseal(folder: Path) -> None:
    """Make the manifest agree with what the files are, as a forger does."""
    digests = {name: digest_of(folder / name) for name in FILES}
    (folder / MANIFEST).write_text(manifest_of(digests))


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every leaf, and of every object and list."""
    yield at
    if isinstance(value, dict):
        for key, own in value.items():
            yield from leaves(own, (*at, key))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1} if value else ()):
            yield from leaves(value[i], (*at, i))


def json_change(name: str, path: tuple[Any, ...], text: str) -> Change:
    """Replace what is at a path by a text of JSON; "-" removes it, "+" adds a key beside it, "="
    doubles its key."""

    def change(folder: Path) -> None:
        plain = json.loads((folder / name).read_text())
        written = json.dumps(_at(plain, path, text)).replace(f'"{MARK}"', text)
        if text == "=":
            key = json.dumps(path[-1])
            written = written.replace(f"{key}:", f"{key}: 0, {key}:", 1)
        (folder / name).write_text(written)
        reseal(folder)

    return change


def _at(plain: Any, path: tuple[Any, ...], text: str) -> Any:
    if not path:
        return plain if text in "+-=" else MARK
    *inner, last = path
    holder = plain
    for step in inner:
        holder = holder[step]
    if text == "-":
        del holder[last]
    elif text == "+":
        holder.update({"hook": "os.system"}) if isinstance(holder, dict) else holder.append("x")
    elif text != "=":
        holder[last] = MARK
    return plain


def json_changes(bundle: Path) -> Iterator[tuple[str, Change]]:
    """Yield every leaf of every JSON file altered to every bad value."""
    for name in ("model.json", "card.json", "golden.json"):
        plain = json.loads((bundle / name).read_text())
        for path in leaves(plain):
            where = "/".join(map(str, path)) or "all"
            for text in BAD:
                yield f"{name} {where} = {text[:20]}", json_change(name, path, text)
            if path and isinstance(path[-1], str):
                for text in "+-=":
                    yield f"{name} {where} {text}", json_change(name, path, text)


# ------------------------------------------------------------ weights
def weights_change(alter: Callable[[dict[str, Any], np.random.Generator], object]) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        alter(tensors, np.random.default_rng(0))
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / WEIGHTS)
        reseal(folder)

    return change


def _cell(name: str, value: float) -> Change:
    def alter(tensors: dict[str, Any], rng: np.random.Generator) -> None:
        own = tensors[name].copy()
        own.reshape(-1)[rng.integers(own.size)] = value
        tensors[name] = own

    return weights_change(alter)


def _made(name: str, function: Callable[[Any], Any]) -> Change:
    def alter(tensors: dict[str, Any], rng: np.random.Generator) -> None:
        tensors[name] = function(tensors[name])

    return weights_change(alter)


MADE: dict[str, Callable[[Any], Any]] = {
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "int64": lambda a: a.astype(np.int64),
    "int8": lambda a: a.astype(np.int8),
    "bool": lambda a: a.astype(bool),
    "longer": lambda a: np.concatenate([a, a]) if a.ndim else np.stack([a, a]),
    "empty": lambda a: a[:0] if a.ndim else np.zeros((0,), a.dtype),
    "flat": lambda a: a.reshape(-1),
    "turned": lambda a: a.T,
    "deeper": lambda a: a[None],
    "huge numbers": lambda a: np.full_like(a, 1e38) if a.dtype == np.float32 else a * 0 - 1,
}


def _added(name: str) -> Change:
    return weights_change(lambda tensors, _: tensors.update({name: np.zeros(4, np.float32)}))


def _removed(name: str) -> Change:
    return weights_change(lambda tensors, _: tensors.pop(name))


def weights_changes(bundle: Path) -> Iterator[tuple[str, Change]]:
    """Yield tensors altered, one at a time, and tensors added and removed."""
    for name, array in load_file(bundle / WEIGHTS).items():
        if array.dtype.kind == "f":
            for value in (np.nan, np.inf, -np.inf):
                yield f"{name} holds {value}", _cell(name, value)
        for what, function in MADE.items():
            yield f"{name} is {what}", _made(name, function)
        yield f"{name} is missing", _removed(name)
    for name in ("backbone.more", "head.more", "limits.more", "input.more", "more"):
        yield f"{name} is added", _added(name)


# ------------------------------------------------------------ files
class Evil:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def pickled(folder: Path) -> bytes:
    return pickle.dumps(Evil(folder.parent / "ran"))


def _written(name: str, data: Callable[[Path], bytes], seal: bool = True) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data(folder))
        if seal:
            reseal(folder)

    return change


def _linked(name: str, hard: bool = False) -> Change:
    def change(folder: Path) -> None:
        other = folder.parent / f"elsewhere-{name}"
        (folder / name).rename(other)
        (os.link if hard else os.symlink)(other, folder / name)

    return change


def _sparse(name: str, size: int) -> Change:
    def change(folder: Path) -> None:
        os.truncate(folder / name, size)

    return change


def _kind(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def header(text: bytes, numbers: bytes = b"") -> Callable[[Path], bytes]:
    return lambda folder: struct.pack("<Q", len(text)) + text + numbers


def large_header(folder: Path) -> bytes:
    one = b'"%07d":{"dtype":"F32","shape":[],"data_offsets":[%d,%d]}'
    parts = b",".join(one % (i, 4 * i, 4 * i + 4) for i in range(1_200_000))
    return struct.pack("<Q", len(parts) + 2) + b"{" + parts + b"}" + bytes(4_800_000)


def _tensor(dtype: str, shape: list[Any], ends: list[Any]) -> bytes:
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": ends}}).encode()


HEADERS = {
    "a huge shape": _tensor("F32", [2**40, 2**40], [0, 4]),
    "a negative shape": _tensor("F32", [-1], [0, 4]),
    "offsets reversed": _tensor("F32", [1], [4, 0]),
    "offsets beyond": _tensor("F32", [1], [0, 2**40]),
    "a text as shape": _tensor("F32", ["1"], [0, 4]),
    "another type": _tensor("F77", [1], [0, 4]),
    "a key twice": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":0}',
    "a list": b"[]",
    "depth": b"[" * 100_000,
    "no JSON": b"{'a'}",
}


def _card(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, **changes}))
        reseal(folder)

    return change


def _input(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        card["input"] |= changes
        (folder / "card.json").write_text(json.dumps(card))
        reseal(folder)

    return change


def _million(folder: Path) -> None:
    facts = json.loads((folder / "model.json").read_text())
    facts["inputs"] = [f"name{i}" for i in range(1_000_000)]
    (folder / "model.json").write_text(json.dumps(facts))
    reseal(folder)


def file_changes(bundle: Path) -> Iterator[tuple[str, Change]]:
    """Yield links, pickles, holes, and files of other kinds and sizes."""
    for name in (*FILES, MANIFEST):
        yield f"{name} is a link", _linked(name)
        yield f"{name} is a folder", _kind(name, Path.mkdir)
        yield f"{name} is a pipe", _kind(name, os.mkfifo)
        yield f"{name} is missing", lambda folder, n=name: (folder / n).unlink()  # type: ignore[misc]
        yield f"{name} is a pickle", _written(name, pickled, seal=name != MANIFEST)
        yield f"{name} is empty", _written(name, lambda _: b"", seal=name != MANIFEST)
        yield f"{name} of 3 GB, a hole", _sparse(name, HUGE)
        yield f"{name} is deep", _written(name, lambda _: b"[" * 10**6, seal=name != MANIFEST)
        yield (
            f"{name} is UTF-16",
            _written(name, lambda _: '{"a": 1}'.encode("utf-16"), name != MANIFEST),
        )
    for what, text in HEADERS.items():
        yield f"a header with {what}", _written(WEIGHTS, header(text, bytes(4)))
    yield "a header of 89 MB", _written(WEIGHTS, large_header)
    yield "a header longer than its file", _written(WEIGHTS, lambda _: struct.pack("<Q", 2**62))
    yield "a million inputs", _million
    yield "more files", lambda folder: (folder / "hook.py").write_text("raise SystemExit")
    if json.loads((bundle / "card.json").read_text())["input"]["kind"] == "image":
        yield "pictures of 20000 pixels", _input(size=20_000, resize=20_000)
        yield "pictures of 4096 pixels", _input(size=4096, resize=4096)
        yield "a mean beyond black and white", _input(mean=[1e9, 0.5, 0.5])
    yield "a card of 30 MB", _card(source_classes=["a class of some length"] * 1_200_000)
    yield "a card with another head", _card(dim=2**40)
