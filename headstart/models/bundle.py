"""A bundle: a folder that predicts without the training stack.

    manifest.json        format, SHA-256 of every other file, and of that list
    model.json           classes, the head's kind and settings, the model's limits, the graph's
                         inputs, versions
    card.json            the backbone's card: its input, feature length and origin
    graph.onnx           its layers; the weights are in the next file
    weights.safetensors  backbone.* (the module's state dict), head.*, limits.*, input.* (files
                         that the input needs, as bytes)
    golden.json          the scores of a fixed example, checked at every load

Loading reads JSON, safetensors and ONNX, never a pickle, and refuses a folder if any byte, file
or setting differs from what was saved.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from headstart.backbones.backbone import (
    Backbone,
    asset_tensors,
    card_from_plain,
    card_to_plain,
    under,
    with_assets,
)
from headstart.backbones.freezing import as_frozen
from headstart.backbones.frozen import Frozen
from headstart.base.atomic import new_folder, write_bytes, write_json, write_text
from headstart.base.errors import BundleError, HeadstartError, Mismatch
from headstart.base.runtime import cores
from headstart.features.engines import OnnxEngine, TorchEngine, compare, features_of
from headstart.heads.families import load_head
from headstart.modalities import inputs as inputs  # registers the inputs that a card may name
from headstart.models.limits import load_limits
from headstart.models.model import Model
from headstart.targets.registry import target_from_plain, target_to_plain

FORMAT = 2  # format 1 had no limits
FILES = ("card.json", "golden.json", "graph.onnx", "model.json", "weights.safetensors")
MANIFEST = "manifest.json"
GOLDEN_TOLERANCE = 1e-3  # of a probability; measured between processors: 1e-5
UNREADABLE = (HeadstartError, SafetensorError, KeyError, TypeError, ValueError)
STEPS = 4  # of saving: export, comparison with PyTorch, writing, reading it back
PACKAGES = ("headstart", "numpy", "onnxruntime", "pillow", "timm", "torch")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A saved model after verification; `facts`: the content of model.json."""

    folder: Path
    model: Model
    facts: Mapping[str, Any]


def save(
    model: Model,
    folder: Path | str,
    *,
    told: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bundle:
    """Write `model` to a new folder, which exists only once the loader has read the bundle.

    told: a description of how the model was made, kept in `facts`. progress: hears how many of the
    STEPS are done. Raises FileExistsError if
    `folder` exists, DataError for class names that training refuses, and BundleError if the
    bundle could not be loaded.
    """
    folder = Path(folder)
    model.target.check_names()
    progress(0, STEPS)
    frozen = as_frozen(model.backbone)
    progress(1, STEPS)
    if isinstance(model.backbone, Backbone):
        _check_export(frozen, model.backbone)
    progress(2, STEPS)
    with new_folder(folder) as part:
        try:
            _write(replace(model, backbone=frozen), part, dict(told or {}))
            progress(3, STEPS)
            bundle = _loaded(part)
            _check_kept(bundle.model, model)
            progress(4, STEPS)
        except UNREADABLE as error:
            raise BundleError(
                f"{folder} was not written, since this model could not be loaded again: {error}"
            ) from error
    return replace(bundle, folder=folder)


def load_bundle(folder: Path | str, *, module: Any = None) -> Bundle:
    """Load a bundle and verify its files and its golden scores; raises BundleError.

    module: the module passed to `wrap` (its weights do not matter); makes the model a PyTorch model
    again, which can be explained or fine-tuned. Raises Mismatch if it is a different module.
    """
    folder = Path(folder)
    try:
        bundle = _loaded(folder)
    except BundleError:
        raise
    except UNREADABLE as error:
        raise BundleError(f"{folder} is not a bundle that this version reads: {error}") from error
    return bundle if module is None else replace(bundle, model=_rejoined(bundle.model, module))


def _rejoined(model: Model, module: Any) -> Model:
    from headstart.modalities.images.wrapping import rejoined

    assert isinstance(model.backbone, Frozen)
    backbone = rejoined(model.backbone, module)
    try:
        _check_export(model.backbone, backbone)
    except Mismatch as error:
        raise Mismatch(
            f"The module must compute what {backbone.card.name} computed when the bundle was "
            f"saved; with the bundle's weights it gives a known picture other features."
        ) from error
    return replace(model, backbone=backbone)


def versions() -> dict[str, str]:
    """Return the installed versions of packages that can affect a result."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _write(model: Model, part: Path, told: dict[str, Any]) -> None:
    """Write every file of the bundle of a model with a frozen backbone."""
    frozen = model.backbone
    assert isinstance(frozen, Frozen)
    facts = {
        **target_to_plain(model.target),
        "head": {"kind": model.head.kind, "settings": model.head.settings()},
        "limits": model.limits.settings(),
        "inputs": list(frozen.inputs),
        "versions": versions(),
        **({"told": told} if told else {}),
    }
    tensors = {f"backbone.{k}": np.asarray(v, order="C") for k, v in frozen.weights.items()}
    tensors |= {f"head.{k}": np.asarray(v, order="C") for k, v in model.head.tensors().items()}
    tensors |= {f"limits.{k}": v for k, v in model.limits.tensors().items()}
    tensors |= asset_tensors(frozen.card.input)
    write_json(part / "card.json", card_to_plain(frozen.card))
    write_json(part / "model.json", facts)
    write_json(part / "golden.json", _golden_answers(model))
    write_bytes(part / "graph.onnx", frozen.graph)
    write_bytes(part / "weights.safetensors", pack(tensors))
    write_text(part / MANIFEST, _manifest({n: _sha256(part / n) for n in FILES}))


def _loaded(folder: Path) -> Bundle:
    """Load and verify a bundle; raises one of UNREADABLE."""
    _verify(folder)
    bundle = _read(folder)
    _check_golden(bundle)
    return bundle


def _check_kept(loaded: Model, model: Model) -> None:
    """Raise Mismatch unless target and limits were reloaded unchanged."""
    if loaded.target != model.target:
        raise Mismatch(f"{model.target} came back as {loaded.target}.")
    if loaded.limits.settings() != model.limits.settings():
        raise Mismatch(
            f"limits are numbers; {model.limits.settings()} came back as "
            f"{loaded.limits.settings()}."
        )


def _check_export(frozen: Frozen, backbone: Backbone) -> None:
    """Raise Mismatch unless the graph reproduces PyTorch's features of the golden example."""
    known = backbone.card.input.golden()
    compare(OnnxEngine(frozen, cores())(known)[0], TorchEngine(backbone, "cpu")(known)[0])


def _read(folder: Path) -> Bundle:
    facts = _json(folder / "model.json")
    tensors = unpack((folder / "weights.safetensors").read_bytes())
    card = with_assets(card_from_plain(_json(folder / "card.json")), tensors)
    weights, head = under("backbone.", tensors), under("head.", tensors)
    frozen = Frozen(card, (folder / "graph.onnx").read_bytes(), weights, tuple(facts["inputs"]))
    kind, settings = facts["head"]["kind"], facts["head"]["settings"]
    model = Model(
        frozen,
        load_head(kind, head, settings),
        target_from_plain(facts),
        load_limits(facts["limits"], under("limits.", tensors)),
    )
    return Bundle(folder, model, facts)


def _verify(folder: Path) -> None:
    """Raise BundleError unless the folder's files are exactly those in its manifest."""
    if not folder.exists():
        raise BundleError(f"There is no folder {folder}. Check the path.")
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"{folder} is not a bundle: a bundle is a folder with {MANIFEST} in it, as "
            f"`headstart train` writes to RUN/model."
        )
    text = (folder / MANIFEST).read_bytes()
    files = _listed(folder, text)
    there = {p.name: p for p in folder.iterdir()}
    for name in sorted(files.keys() - there.keys()):
        raise BundleError(f"{folder} is incomplete: {name} is missing.")
    for name in sorted(there.keys() - files.keys() - {MANIFEST}):
        raise BundleError(f"{folder} holds {name}, which is not part of the bundle: remove it.")
    for name, promised in files.items():
        if not there[name].is_file() or _sha256(there[name]) != promised:
            raise BundleError(
                f"{there[name]} is not the file this bundle was saved with (its SHA-256 differs): "
                f"get the bundle again."
            )


def _listed(folder: Path, text: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file that a manifest lists; BundleError if `text` was altered."""
    try:
        manifest = json.loads(text)
        number, files = manifest["format"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read: it was altered.") from error
    if number != FORMAT:
        raise BundleError(f"{folder} is bundle format {number}; this version reads {FORMAT}.")
    if tuple(sorted(files)) != FILES or _manifest(files).encode() != text:
        raise BundleError(f"{folder / MANIFEST} is not what this bundle was saved with.")
    return files


def _manifest(files: Mapping[str, str]) -> str:
    listed = dict(sorted(files.items()))
    seal = hashlib.sha256(json.dumps([FORMAT, listed]).encode()).hexdigest()
    return json.dumps({"format": FORMAT, "files": listed, "sha256": seal}, indent=2) + "\n"


def _golden_answers(model: Model) -> dict[str, Any]:
    """Return the model's outputs for the golden example, by name."""
    assert isinstance(model.backbone, Frozen)
    input = model.backbone.card.input
    x = features_of(OnnxEngine(model.backbone, cores()), input, input.golden())
    answers = model.target.summary(model.target.activate(model.head.raw(x)))
    return {name: values[0].tolist() for name, values in answers.items()}


def _check_golden(bundle: Bundle) -> None:
    promised, given = _json(bundle.folder / "golden.json"), _golden_answers(bundle.model)
    alike = promised.keys() == given.keys() and all(
        _near(np.array(values), np.array(given[name])) for name, values in promised.items()
    )
    if not alike:
        raise BundleError(
            f"{bundle.folder} must give a known example the answers it gave when it was saved, to "
            f"{GOLDEN_TOLERANCE}; here they differ. Is this build of ONNX Runtime to be trusted?"
        )


def _near(promised: NDArray[Any], given: NDArray[Any]) -> bool:
    return promised.shape == given.shape and np.allclose(given, promised, atol=GOLDEN_TOLERANCE)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
