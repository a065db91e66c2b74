"""Load a backbone for its features alone: without PyTorch, where that is not needed."""

from pathlib import Path

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.errors import MissingPackage
from headstart.base.runtime import Runtime, cores, installed, may_have_accelerator
from headstart.features.engines import OnnxEngine, compare, features_of
from headstart.modalities.sources import load_backbone, load_shipped


def load_for_features(
    name: str, weights: str | Path = "pretrained", runtime: Runtime | None = None, size: int = 0
) -> Backbone | Frozen:
    """Load a backbone whose features alone are needed.

    On a CPU that is its shipped graph, if there is one for examples of this size: it gives the same
    features without PyTorch, which takes seconds to load and to export the graph again. Raises
    Mismatch if ONNX Runtime does not compute with it what PyTorch did.
    """
    device = (runtime or Runtime()).device
    if device not in ("auto", "cpu") and not installed("torch"):
        raise MissingPackage("torch", purpose=f"Computing on {device}", extra="train")
    on_cpu = device == "cpu" or (device == "auto" and not may_have_accelerator())
    if on_cpu and (frozen := load_shipped(name, weights)) is not None:
        own = getattr(frozen.card.input, "size", 0)
        if size in (0, own) or not installed("torch", "timm"):
            check_golden(frozen)
            return frozen
    return load_backbone(name, weights=weights)


def check_golden(frozen: Frozen) -> None:
    """Raise Mismatch unless ONNX Runtime gives PyTorch's features of a known example."""
    if frozen.golden is not None:
        input = frozen.card.input
        compare(features_of(OnnxEngine(frozen, cores()), input, input.golden()), frozen.golden)
