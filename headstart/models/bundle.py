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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as pack

from headstart.backbones.backbone import (
    ASSET,
    Backbone,
    asset_tensors,
    card_from_plain,
    card_to_plain,
    newer_card,
    under,
    with_assets,
)
from headstart.backbones.freezing import as_frozen
from headstart.backbones.frozen import Frozen
from headstart.backbones.graph_check import check_graph
from headstart.backbones.inputs import example_of
from headstart.base.atomic import new_folder, write_bytes, write_json, write_text
from headstart.base.errors import BundleError, HeadstartError, Mismatch
from headstart.base.runtime import cores
from headstart.features.engines import OnnxEngine, TorchEngine, compare, features_of
from headstart.heads.families import load_head
from headstart.modalities import inputs as inputs  # registers the inputs that a card may name
from headstart.models.bundle_facts import (
    check_assets,
    check_restored,
    check_weights,
    facts_of,
    golden_of,
)
from headstart.models.bundle_files import FILES, WEIGHTS, digest_of, manifest_of, read_files
from headstart.models.bundle_files import MANIFEST as MANIFEST
from headstart.models.limits import load_limits
from headstart.models.model import Model
from headstart.targets.registry import target_from_plain, target_to_plain

GOLDEN_TOLERANCE = 1e-3  # of a probability; measured between processors: 1e-5
UNREADABLE = (HeadstartError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
STEPS = 4  # of saving: export, comparison with PyTorch, writing, reading it back
PACKAGES = ("headstart", "numpy", "onnxruntime", "pillow", "timm", "torch")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A saved model after verification; `facts`: the content of model.json.

    digest: the SHA-256 of its manifest's list, by which someone who sends a bundle names it.
    """

    folder: Path
    model: Model
    facts: Mapping[str, Any]
    digest: str = ""


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


def load_bundle(folder: Path | str, *, module: Any = None, sha256: str = "") -> Bundle:
    """Load a bundle and verify its files and its golden scores; raises BundleError.

    A manifest shows damage, not forgery: `sha256` demands the digest of the bundle that was sent.

    module: the module passed to `wrap` (its weights do not matter); makes the model a PyTorch model
    again, which can be explained or fine-tuned. Raises Mismatch if it is a different module.
    """
    folder = Path(folder)
    try:
        bundle = _loaded(folder, sha256)
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
    facts = {**_facts(model), "versions": versions(), **({"told": told} if told else {})}
    tensors = {f"backbone.{k}": np.asarray(v, order="C") for k, v in frozen.weights.items()}
    tensors |= {f"head.{k}": np.asarray(v, order="C") for k, v in model.head.tensors().items()}
    tensors |= {f"limits.{k}": v for k, v in model.limits.tensors().items()}
    tensors |= asset_tensors(frozen.card.input)
    write_json(part / "card.json", card_to_plain(frozen.card))
    write_json(part / "model.json", facts)
    write_json(part / "golden.json", _golden_answers(model))
    write_bytes(part / "graph.onnx", frozen.graph)
    write_bytes(part / WEIGHTS, pack(tensors))
    write_text(part / MANIFEST, manifest_of({n: digest_of(part / n) for n in FILES}))


def _facts(model: Model) -> dict[str, Any]:
    """Return the content of model.json but for how the model was made."""
    assert isinstance(model.backbone, Frozen)
    return {
        **target_to_plain(model.target),
        "head": {"kind": model.head.kind, "settings": model.head.settings()},
        "limits": model.limits.settings(),
        "inputs": list(model.backbone.inputs),
    }


def _loaded(folder: Path, sha256: str = "") -> Bundle:
    """Load and verify a bundle; raises one of UNREADABLE."""
    bundle, golden = _read(folder, sha256)
    _check_golden(bundle, golden)
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


def _read(folder: Path, sha256: str) -> tuple[Bundle, Any]:
    """Return a bundle and the content of its golden.json; raises one of UNREADABLE."""
    files = read_files(folder, sha256)
    facts, plain = facts_of(files.plain("model.json")), files.plain("card.json")
    card = with_assets(card_from_plain(plain), files.arrays)
    check_restored(newer_card(plain), card_to_plain(card), "card.json")
    weights, head = files.tensors("backbone."), files.tensors("head.")
    frozen = Frozen(card, files.data["graph.onnx"], weights, tuple(facts["inputs"]))
    others = {n: a for n, a in files.arrays.items() if not n.startswith("backbone.")}
    check_assets(under(ASSET, others), card.input.assets())
    check_weights(weights, frozen.inputs, others)
    taken = {name: weights[name] for name in frozen.inputs}
    check_graph(frozen.graph, taken, example_of(card.input))
    kind, settings = facts["head"]["kind"], facts["head"]["settings"]
    model = Model(
        frozen,
        load_head(kind, head, settings),
        target_from_plain(facts),
        load_limits(facts["limits"], files.tensors("limits.")),
    )
    model.target.check_names()
    told = {name: facts[name] for name in ("versions", "told") if name in facts}
    check_restored(facts, _facts(model) | told)
    return Bundle(folder, model, facts, files.digest), files.plain("golden.json")


def _golden_answers(model: Model) -> dict[str, Any]:
    """Return the model's outputs for the golden example, by name."""
    assert isinstance(model.backbone, Frozen)
    input = model.backbone.card.input
    x = features_of(OnnxEngine(model.backbone, cores()), input, input.golden())
    answers = model.target.summary(model.target.activate(model.head.raw(x)))
    return {name: values[0].tolist() for name, values in answers.items()}


def _check_golden(bundle: Bundle, plain: Any) -> None:
    promised, given = golden_of(plain), _golden_answers(bundle.model)
    alike = promised.keys() == given.keys() and all(
        _near(values, np.array(given[name])) for name, values in promised.items()
    )
    if not alike:
        raise BundleError(
            f"{bundle.folder} must give a known example the answers it gave when it was saved, to "
            f"{GOLDEN_TOLERANCE}; here they differ. Is this build of ONNX Runtime to be trusted?"
        )


def _near(promised: NDArray[Any], given: NDArray[Any]) -> bool:
    return promised.shape == given.shape and np.allclose(given, promised, atol=GOLDEN_TOLERANCE)
