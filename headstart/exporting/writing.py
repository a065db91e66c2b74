"""Write the folder of an export: the network, its card, golden examples and predict.py."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import Input
from headstart.base.atomic import new_folder, write_bytes, write_json, write_text
from headstart.base.errors import Mismatch
from headstart.exporting.assembling import answers_of
from headstart.exporting.plan import Exported, ExportPlan
from headstart.exporting.running import ONNX_FILE, OPENVINO_FILE, onnx_run, openvino_run
from headstart.features.openvino_engine import import_openvino
from headstart.models.golden import KnownAnswer, Run, difference, known_answers, pack_known
from headstart.models.model import Model

FORMAT = 1
ALLOWED = 1e-4  # difference of an answer between a model and its export
CARD, GOLDEN, PREDICT = "export.json", "golden.safetensors", "predict.py"
BESIDE = Path(OPENVINO_FILE).with_suffix(".bin").name  # OpenVINO's weights


@dataclass(frozen=True, eq=False)
class Folder:
    """What is written. facts: of the model. tolerance: of its answers on another machine."""

    model: Model
    plan: ExportPlan
    graph: bytes
    facts: Mapping[str, Any]
    exported: Exported
    tolerance: float


def write_export(what: Folder, out: Path, threads: int) -> Exported:
    """Write the new folder `out`, which exists only once it is complete."""
    input = what.model.backbone.card.input
    with new_folder(out) as part:
        run = _write_network(what, part, threads)
        for name, data in input.assets().items():
            write_bytes(part / name, data)
        write_text(part / PREDICT, input.standalone(what.plan.to))
        known = known_answers(run, _given(what, input))
        apart = what.exported.difference
        if what.plan.to == "openvino":
            apart = max(apart, _apart_from_onnx(what, known, threads))
        write_bytes(part / GOLDEN, pack_known(known))
        size = sum((part / name).stat().st_size for name in _network_files(what.plan))
        exported = replace(what.exported, size=size, difference=apart)
        write_json(part / CARD, card_of(what, exported, input) | {"sha256": digests(part)})
    return exported


def check_near(apart: float, allowed: float = ALLOWED) -> float:
    """Return a difference between answers; raises Mismatch if it is too large."""
    if not apart <= allowed:
        raise Mismatch(
            f"An export must give its model's answers to {allowed:g}; they differ by "
            f"{apart:.1e}. Nothing was written: please report it."
        )
    return apart


def _apart_from_onnx(what: Folder, known: Sequence[KnownAnswer], threads: int) -> float:
    """Return the largest difference of OpenVINO's answers from those of the ONNX graph."""
    run, target = onnx_run(what.graph, threads, ONNX_FILE), what.model.target
    pairs = ((run(each.inputs), each.answers) for each in known)
    both = ((answers_of(target, one), answers_of(target, other)) for one, other in pairs)
    return check_near(max(difference(*pair) for pair in both), what.tolerance)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the card."""
    files = sorted(path for path in folder.iterdir() if path.name != CARD)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def card_of(what: Folder, exported: Exported, input: Input[Any]) -> dict[str, Any]:
    """Return the card of an export, as JSON values."""
    return {
        "format": FORMAT,
        "engine": what.plan.to,
        "file": _network_files(what.plan)[0],
        "precision": exported.precision,
        "prepare": dict(input.export_facts()),
        **what.facts,
        "tolerance": what.tolerance,
        "measured": {
            "largest_difference": exported.difference,
            "examples": exported.examples,
            "changed_answers": exported.changed,
            "validation_rows": exported.rows,
            "head_refitted": exported.refitted,
        },
    }


def _given(what: Folder, input: Input[Any]) -> list[Mapping[str, Any]]:
    """Return the inputs of the golden examples; OpenVINO's files take prepared ones alone."""
    known = list(input.known_inputs())
    if what.plan.to == "onnx":
        return known
    alone = [{"prepared": each["prepared"]} for each in known if "prepared" in each]
    made = (example for each in known for example in input.examples_in(each))
    prepared = [{"prepared": example["pixels"][:1]} for example in made]
    return [*alone, *prepared[: len(known) - 1]]


def _write_network(what: Folder, part: Path, threads: int) -> Run:
    """Write the network's files; return what runs them."""
    if what.plan.to == "onnx":
        write_bytes(part / ONNX_FILE, what.graph)
        return onnx_run(what.graph, threads, ONNX_FILE)
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / ONNX_FILE
        source.write_bytes(what.graph)
        model = openvino.Core().read_model(str(source))
        model.set_rt_info(json.dumps(dict(what.facts)), ["headstart"])
        made = Path(temporary) / OPENVINO_FILE
        openvino.save_model(model, str(made), compress_to_fp16=what.plan.precision == "fp16")
        for name in (OPENVINO_FILE, BESIDE):
            shutil.move(Path(temporary) / name, part / name)
    return openvino_run(part / OPENVINO_FILE, threads)


def _network_files(plan: ExportPlan) -> tuple[str, ...]:
    return (ONNX_FILE,) if plan.to == "onnx" else (OPENVINO_FILE, BESIDE)
