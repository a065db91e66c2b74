"""Verify an export: its files, and its golden examples run again on this machine."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.base.errors import BundleError, HeadstartError
from headstart.exporting.assembling import answers_of
from headstart.exporting.plan import Verified
from headstart.exporting.running import ONNX_FILE, OPENVINO_FILE, onnx_run, openvino_run
from headstart.exporting.writing import CARD, FORMAT, GOLDEN, digests
from headstart.models.golden import Run, difference, unpack_known
from headstart.targets.registry import target_from_plain

FILES = {"onnx": ONNX_FILE, "openvino": OPENVINO_FILE}
LARGEST = 10_000_000  # bytes of a card


def verify_export(folder: Path, threads: int) -> Verified:
    """Run the golden examples of an export; raises BundleError if a file or an answer differs."""
    card = read_card(folder)
    promised, given = card["sha256"], digests(folder)
    for name in sorted(promised.keys() | given.keys()):
        if promised.get(name) != given.get(name):
            what = "is missing" if name not in given else "is not the file it was made with"
            raise BundleError(f"{folder / name} {what}: get the export again.")
    try:
        known, target = unpack_known((folder / GOLDEN).read_bytes()), target_from_plain(card)
        run, worst = run_of(folder, card, threads), 0.0
        for example in known:
            one, other = (
                answers_of(target, each) for each in (example.answers, run(example.inputs))
            )
            worst = max(worst, difference(one, other))
    except (HeadstartError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder} can't be verified: {error}") from error
    if not worst <= card["tolerance"]:
        raise BundleError(
            f"{folder} must answer its golden examples as when it was made, to "
            f"{card['tolerance']:g}; here they differ by {worst:.1e}. Is this build of the engine "
            f"to be trusted?"
        )
    return Verified(folder, len(known), worst, card["tolerance"])


def run_of(folder: Path, card: Mapping[str, Any], threads: int) -> Run:
    """Return what runs the network of an export."""
    if card["engine"] == "openvino":
        return openvino_run(folder / OPENVINO_FILE, threads)
    return onnx_run((folder / ONNX_FILE).read_bytes(), threads, str(folder / ONNX_FILE))


def read_card(folder: Path) -> dict[str, Any]:
    """Read export.json; raises BundleError for anything else."""
    path = folder / CARD
    if not path.is_file():
        raise BundleError(
            f"{folder} is not an export: an export is a folder with {CARD} in it, as `headstart "
            f"export` writes."
        )
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        card = json.loads(path.read_text(encoding="utf-8"))
        fits = card["format"] == FORMAT and FILES[card["engine"]] == card["file"]
        if not fits or not isinstance(card["tolerance"], float) or not 0 < card["tolerance"] <= 1:
            raise ValueError("it is of another version")
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in card["sha256"].values()):
            raise ValueError("its digests are none")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path} is not a card that this version reads: {error}.") from error
    return dict(card)
