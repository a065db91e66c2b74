"""Hostile weights and cards given to the sources of backbones, which build PyTorch networks."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hostile_parts.folders import HEADERS, MADE, header, large_header, pickled, weights_change

Prepare = Callable[[Path], object]
Load = Callable[[Path], Any]
GIANTS = (
    "timm:vit_giant_patch14_clip_224",
    "timm:eva_giant_patch14_224",
    "timm:convnext_xxlarge",
    "timm:regnety_1280",
    "keras:NASNetLarge@331",
    "packaged:efficientnet_lite2",
)
FILED = ("tiny:16", "scratch:cnn", "tiny-text:16", "packaged:efficientnet_lite0", "timm:resnet18")
CONFIG = {"hidden_size": 8192, "num_hidden_layers": 96, "intermediate_size": 32768}


def warm() -> None:
    """Import what the sources need, before the first fork."""
    import timm  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import headstart.modalities.from_transformers
    import headstart.modalities.images.from_timm  # noqa: F401
    from headstart.modalities.images.from_keras import opened_keras

    opened_keras()
    torch.set_num_threads(1)


def cases(bundle: Path) -> Iterator[tuple[str, Prepare, Load]]:
    """Yield what is hostile, a function that writes it to a copy of the bundle, and one that loads
    it."""
    for name in GIANTS:
        yield f"a card that names {name}", _architecture(name, ""), _folder
    config = json.dumps({"model_type": "bert", **CONFIG})
    yield "a card of 96 wide layers", _architecture("hf:bert@mean", config), _folder
    many = json.dumps({"model_type": "bert", "num_hidden_layers": 10**6, "hidden_size": 12})
    yield "a card of a million layers", _architecture("hf:bert@mean", many), _folder
    for what in ("a pickle", "89 MB of header", *HEADERS):
        for source in FILED if what == "a pickle" else FILED[:1]:
            yield f"{what} as weights of {source}", _file(what), _given(source)
    yield "a pickle as weights of hf:", _transformer, lambda folder: _load(f"hf:{folder}")
    yield "a .h5 with a hole of 10 GB", _hole, _keras
    yield "a .h5 with a link to a file", _link, _keras
    yield "a pickle named .h5", _h5_pickle, _keras
    for what, function in MADE.items():
        own = weights_change(lambda t, _, f=function: t.update({FIRST: f(t[FIRST])}))  # type: ignore[misc]
        yield f"a folder whose weights are {what}", own, _folder


FIRST = "backbone.stem.0.weight"


def _load(name: str, **weights: Any) -> Any:
    import headstart as hs

    return hs.load_backbone(name, **weights)


def _folder(folder: Path) -> Any:
    return _load(f"file:{folder}")


def _given(source: str) -> Load:
    return lambda folder: _load(source, weights=folder / "weights.safetensors")


def _keras(folder: Path) -> Any:
    return _load("keras:MobileNet@32", weights=folder / "weights.h5")


def _architecture(name: str, config: str) -> Prepare:
    def prepare(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        card |= {"architecture": name} | ({"config": config} if config else {})
        (folder / "card.json").write_text(json.dumps(card))

    return prepare


def _file(what: str) -> Prepare:
    def prepare(folder: Path) -> None:
        if what == "a pickle":
            data = pickled(folder)
        elif what in HEADERS:
            data = header(HEADERS[what], bytes(4))(folder)
        else:
            data = large_header(folder)
        (folder / "weights.safetensors").write_bytes(data)

    return prepare


def _transformer(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "model.safetensors").write_bytes(pickled(folder))


def _h5_pickle(folder: Path) -> None:
    (folder / "weights.h5").write_bytes(pickled(folder))


def _hole(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "weights.h5", "w") as file:
        shape, chunk = (2_500_000_000,), (2**20,)
        file.create_dataset("a", shape, np.float32, chunks=chunk, compression="gzip")


def _link(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "weights.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(folder.parent / "other.h5"), "/a")
