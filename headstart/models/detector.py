"""A network that finds boxes by itself: trunk, head and decoding as one graph."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.errors import Mismatch
from headstart.modalities.images.letterbox import LetterboxInput
from headstart.targets.boxes import ROW

if TYPE_CHECKING:
    from headstart.backbones.strides import Levels
    from headstart.training.box_head import BoxHead


def detector(backbone: Backbone, levels: "Levels", head: "BoxHead") -> Frozen:
    """Return trunk, head and decoding as one graph, compared with PyTorch on a known picture."""
    import torch

    from headstart.backbones.entry import WholeNetwork, tensors
    from headstart.backbones.graph import freeze, named_columns
    from headstart.features.engines import OnnxEngine
    from headstart.training.box_head import Detector

    module = Detector(levels.trunk, head).eval()
    input = backbone.card.input
    assert isinstance(input, LetterboxInput)
    card = replace(
        backbone.card,
        architecture=f"detector:{backbone.card.architecture}",
        dim=module.found * ROW,
        input=replace(input, answers=True),
        origin="fine-tuned",
        source_task="",
        source_classes=(),
    )
    own = Backbone(card, module, ())
    columns: Mapping[str, tuple[int, int]] = {"boxes": (0, 4), "scores": (4, 5), "classes": (5, 6)}
    frozen = named_columns(freeze(own), ROW, columns)
    known = card.input.golden()
    with torch.inference_mode():
        theirs = WholeNetwork(module, card.input)(*tensors(known)).numpy()
    check_same(OnnxEngine(frozen, 1)(known)[0], theirs)
    return frozen


def check_same(ours: Any, theirs: Any, least: float = 0.01, far: float = 0.01) -> None:
    """Raise Mismatch unless detections (N, K * 6) are the same, above a score of `least`.

    Those near `least` may be on either side of it. far: pixels.
    """
    for a, b in zip(ours, theirs, strict=True):
        for x, y in ((a, b), (b, a)):
            own, other = x.reshape(-1, ROW), y.reshape(-1, ROW)
            for row in own[(own[:, 5] >= 0) & (own[:, 4] > least)]:
                alike = other[(other[:, 5] == row[5]) & (abs(other[:, 4] - row[4]) < 1e-3)]
                if not len(alike) or abs(alike[:, :4] - row[:4]).max(axis=1).min() > far:
                    raise Mismatch(
                        f"The exported graph must find the boxes that PyTorch finds; of one at "
                        f"{row[:4].round(2).tolist()} there is no other. Please report it."
                    )
