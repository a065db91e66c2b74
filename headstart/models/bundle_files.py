"""The files of a bundle, read as what a stranger may have written.

Nothing is opened but regular files of the folder; each is of a size that is known before it is
read; its bytes are read once, and those that are checked are those that are used.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from headstart.backbones.backbone import ASSET, under
from headstart.base.atomic import read_bytes
from headstart.base.errors import BundleError, SpecError
from headstart.base.strict_json import read_strictly
from headstart.base.tensor_files import (
    FIRST,
    LENGTH,
    TensorPlace,
    arrays_of,
    check_tensor_file,
    header_size,
    read_places,
)

FORMAT = 2  # format 1 had no limits
WEIGHTS = "weights.safetensors"
FILES = ("card.json", "golden.json", "graph.onnx", "model.json", WEIGHTS)
MANIFEST = "manifest.json"
MIB = 2**20
MOST = {  # bytes of a file; the header of the weights says how many they have
    MANIFEST: MIB // 64,
    "card.json": 4 * MIB,
    "golden.json": 4 * MIB,
    "graph.onnx": 64 * MIB,
    "model.json": 4 * MIB,
}
MOST_ASSETS = 64 * MIB  # bytes of an input's files, such as a tokenizer


@dataclass(frozen=True, eq=False)
class BundleFiles:
    """The verified files of a bundle. digest: of the bundle, which the manifest holds."""

    folder: Path
    data: Mapping[str, bytes]
    digest: str
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def plain(self, name: str) -> Any:
        """Return the value in a JSON file; raises BundleError."""
        return _plain(self.folder / name, self.data[name])

    def tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the tensors whose names begin so, without the beginning."""
        return under(prefix, self.arrays)


def check_bundle(folder: Path, sha256: str) -> None:
    """Raise BundleError unless the bundle's manifest has this digest; "" is any."""
    if sha256:
        _check_digest(folder, bundle_digest(folder), sha256)


def bundle_digest(folder: Path) -> str:
    """Return the digest of a bundle, which its manifest holds; raises BundleError."""
    return _listed(folder, _read(folder, MANIFEST))[1]


def _check_digest(folder: Path, digest: str, wanted: str) -> None:
    if wanted and wanted.strip().lower() != digest:
        raise BundleError(
            f"{folder} must be the bundle whose SHA-256 is {wanted[:80]}, and is another one: its "
            f"own is {digest}."
        )


def read_files(folder: Path, sha256: str = "") -> BundleFiles:
    """Read and verify the files of a bundle; raises BundleError.

    sha256: the digest that the bundle must have; "" for any.
    """
    if not folder.exists():
        raise BundleError(f"There is no folder {folder}. Check the path.")
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"{folder} is not a bundle: a bundle is a folder with {MANIFEST} in it, as "
            f"`headstart train` writes to RUN/model."
        )
    files, digest = _listed(folder, _read(folder, MANIFEST))
    _check_digest(folder, digest, sha256)
    _check_names(folder, files)
    data = {name: _verified(folder, name, files[name]) for name in FILES}
    return BundleFiles(folder, data, digest, _arrays(folder / WEIGHTS, data[WEIGHTS]))


def _check_names(folder: Path, files: Mapping[str, str]) -> None:
    there = {path.name for path in folder.iterdir()}
    for name in sorted(files.keys() - there):
        raise BundleError(f"{folder} is incomplete: {name} is missing.")
    for name in sorted(there - files.keys() - {MANIFEST}):
        raise BundleError(f"{folder} holds {name}, which is not part of the bundle: remove it.")


def _read(folder: Path, name: str) -> bytes:
    """Return the bytes of a file of the folder: of a regular one that is not too large."""
    path = folder / name
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(
                f"{path} must be a file of its own, and is a link or no file: copy the file itself "
                f"to its place."
            )
        if name == WEIGHTS:
            check_tensor_file(path)
        elif found.st_size > MOST[name]:
            raise SpecError(f"it has {found.st_size:,} bytes, and at most {MOST[name]:,} are read")
        return read_bytes(path)
    except (OSError, SpecError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path} cannot be read: {error}. Get the bundle again.") from error


def _verified(folder: Path, name: str, promised: str) -> bytes:
    data = _read(folder, name)
    if hashlib.sha256(data).hexdigest() != promised:
        raise BundleError(
            f"{folder / name} is not the file this bundle was saved with (its SHA-256 differs): "
            f"get the bundle again."
        )
    return data


def _arrays(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        length = header_size(data[:FIRST], len(data))
        places = read_places(data[LENGTH : LENGTH + length], len(data) - LENGTH - length)
        _check_assets(places)
        return arrays_of(data, places)
    except SpecError as error:
        raise BundleError(f"{path} cannot be read: {error}. Get the bundle again.") from error


def _check_assets(places: Mapping[str, TensorPlace]) -> None:
    size = sum(p.end - p.start for name, p in places.items() if name.startswith(ASSET))
    if size > MOST_ASSETS:
        raise SpecError(f"its input has files of {size:,} bytes, and at most {MOST_ASSETS:,}")


def _plain(path: Path, data: bytes) -> Any:
    try:
        return read_strictly(data)
    except SpecError as error:
        raise BundleError(f"{path} cannot be read: {error}. Get the bundle again.") from error


def _listed(folder: Path, text: bytes) -> tuple[dict[str, str], str]:
    """Return the SHA-256 of each file that a manifest lists, and that of all; BundleError if `text`
    was altered."""
    try:
        manifest = read_strictly(text)
        number, files, digest = manifest["format"], dict(manifest["files"]), manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read: it was altered.") from error
    if number != FORMAT:
        raise BundleError(f"{folder} is bundle format {number!r:.40}; this version reads {FORMAT}.")
    if tuple(sorted(files)) != FILES or manifest_of(files).encode() != text:
        raise BundleError(f"{folder / MANIFEST} is not what this bundle was saved with.")
    return files, digest


def manifest_of(files: Mapping[str, str]) -> str:
    """Return the manifest of files, whose SHA-256 are given by name, with their own."""
    listed = dict(sorted(files.items()))
    seal = hashlib.sha256(json.dumps([FORMAT, listed]).encode()).hexdigest()
    return json.dumps({"format": FORMAT, "files": listed, "sha256": seal}, indent=2) + "\n"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
