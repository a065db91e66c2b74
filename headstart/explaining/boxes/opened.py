"""A model that finds boxes, opened to look into one detection. It runs without PyTorch."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.frozen import Frozen
from headstart.base.errors import MissingPackage, SpecError
from headstart.base.runtime import ON_CPU
from headstart.features.engines import OnnxEngine
from headstart.modalities.images.letterbox import ROW, LetterboxInput
from headstart.models.model import Model
from headstart.targets.box_matching import Detections
from headstart.targets.boxes import BoxesTarget, detections

BATCH = 8  # rectangles at once
LAST = "head.heat.weight"  # weight of the layer that reads the map of features


@dataclass(frozen=True, eq=False)
class OpenedDetector:
    """A model that finds boxes, with the map of features that its last layers read.

    engine: gives detections in pixels of the input's rectangle, and the map last. mapped: whether
    there is a map.
    """

    input: LetterboxInput
    target: BoxesTarget
    engine: OnnxEngine
    mapped: bool = False

    @classmethod
    def of(cls, model: Model) -> "OpenedDetector":
        """Open a model of boxes; raises SpecError for another model."""
        frozen, input = model.backbone, model.backbone.card.input
        if not (
            isinstance(frozen, Frozen)
            and isinstance(input, LetterboxInput)
            and isinstance(model.target, BoxesTarget)
        ):
            raise SpecError(
                f"Detections are explained of a model that finds boxes; this one predicts "
                f"{model.target.noun}."
            )
        found = with_map(frozen)
        engine = OnnxEngine(found or frozen, ON_CPU.resolved().threads)
        return cls(input, model.target, engine, mapped=found is not None)

    def detections(self, pixels: NDArray[np.uint8]) -> list[Detections]:
        """Return the detections in rectangles (N, H, W, 3), in pixels of these."""
        found = list[Detections]()
        for begin in range(0, len(pixels), BATCH):
            raw = self.engine({"pixels": pixels[begin : begin + BATCH]})[0]
            found += detections(self.target.activate(raw))
        return found

    def features(self, pixels: NDArray[np.uint8], corners: NDArray[Any]) -> NDArray[np.float32]:
        """Return for each box (M, 4) of a rectangle (H, W, 3) the mean of the map in it, (M, D).

        Raises SpecError for a model without a map.
        """
        if not self.mapped:
            raise SpecError("this model's graph has no map of features")
        map = self.engine({"pixels": pixels[None]})[-1][0]
        return pooled_boxes(map, corners, pixels.shape[1] / map.shape[2])


def pooled_boxes(
    map: NDArray[np.floating], corners: NDArray[Any], stride: float
) -> NDArray[np.float32]:
    """Return (M, D) the means of a map (D, h, w) over the cells that boxes (M, 4) touch.

    stride: pixels of a cell's side.

    >>> pooled_boxes(np.array([[[1.0, 3.0], [5.0, 7.0]]]), np.array([[0, 0, 16, 8]]), 8).tolist()
    [[2.0]]
    """
    height, width = map.shape[1:]
    found = np.empty((len(corners), len(map)), np.float32)
    for row, (a, b, c, d) in enumerate(np.asarray(corners, np.float64) / stride):
        left, top = int(np.clip(a, 0, width - 1)), int(np.clip(b, 0, height - 1))
        right, bottom = max(left + 1, int(np.ceil(c))), max(top + 1, int(np.ceil(d)))
        found[row] = map[:, top:bottom, left:right].mean(axis=(1, 2))
    return found


def with_map(frozen: Frozen) -> Frozen | None:
    """Return the graph with the map that the heatmap's layer reads as its last output, or None.

    rows of detections stay the first output; see `ROW`.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingPackage("onnx", purpose="Explaining boxes", extra="train") from error
    model = onnx.load_from_string(frozen.graph)
    reads = [n.input[0] for n in model.graph.node if len(n.input) > 1 and n.input[1] == LAST]
    if len(reads) != 1 or frozen.card.dim % ROW:
        return None
    value = onnx.helper.make_tensor_value_info(reads[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(value)
    return replace(frozen, graph=model.SerializeToString())
