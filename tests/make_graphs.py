"""Write the graphs that Headstart ships: `make graphs`, after a change of the export.

    python tests/make_graphs.py [ID…]

Each is the export of a packaged network, without its weights, into headstart/backbones/graphs.
`tests/test_shipped.py` compares them with the export of today.
"""

import sys
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.graph import freeze
from headstart.backbones.shipped import FOLDER, write_shipped
from headstart.features.engines import TorchEngine, features_of
from headstart.modalities.packaged import HOMES
from headstart.modalities.sources import load_backbone

IDS = tuple(id for home in HOMES for id in home.PACKAGED)
EXPORTERS = ("torch", "timm", "onnx")


def made(id: str) -> Frozen:
    """Export a packaged network."""
    return freeze(load_backbone(f"packaged:{id}"))


def golden(backbone: Backbone) -> NDArray[np.float32]:
    """Return PyTorch's features of the golden example, (1, D)."""
    input = backbone.card.input
    return features_of(TorchEngine(backbone, "cpu"), input, input.golden())


def main(ids: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for id in ids or IDS:
        path = FOLDER / f"{id}.zip"
        features = golden(load_backbone(f"packaged:{id}"))
        write_shipped(made(id), features, path, {name: version(name) for name in EXPORTERS})
        print(f"{path.stat().st_size / 1000:6.1f} kB  {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
