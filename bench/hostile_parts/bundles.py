"""Honest bundles of every kind of input, target and head, to be altered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import headstart as hs

HEADS = ("logistic", "ridge", "nearest", "mean", "mlp")
TARGETS = {  # kind: the column that holds the label, settings
    "number": ("value", {"head": "ridge"}),
    "number-nearest": ("value", {"head": "nearest"}),
    "number-quantile": ("value", {"head": "ridge", "loss": "quantile"}),
    "grades": ("label", {"head": "logistic", "ordered": "low,middle,high"}),
    "grades-nearest": ("label", {"head": "nearest", "ordered": "low,middle,high"}),
    "labels": ("labels", {"head": "logistic"}),
    "labels-nearest": ("labels", {"head": "nearest"}),
}
QUICK = {"image-logistic", "image-nearest", "labels", "number", "text"}
WORDS = "a fine good film and poor bad plot was very dull".split()


def make_bundles(folder: Path, *, quick: bool) -> None:
    """Write a bundle of each kind to FOLDER/NAME."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    rows = []
    for i in range(60):
        level = rng.uniform(30, 220)
        pixels = rng.normal(level, 30, (24, 24, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "data" / f"{i}.png")
        grade = ("low", "middle", "high")[int((level - 30) // 64)]
        labels = "|".join(n for n in ("bright", "odd") if (level > 120 if n == "bright" else i % 2))
        rows.append((f"{i}.png", f"{level:.1f}", grade, labels))
    for head in HEADS:
        _fit(folder, f"image-{head}", "label", [r[2] for r in rows], quick, head=head)
    cells = {"value": 1, "label": 2, "labels": 3}
    for name, (column, settings) in TARGETS.items():
        _fit(folder, name, column, [r[cells[column]] for r in rows], quick, **settings)
    _texts(folder, rng)
    if not quick:
        _module(folder)
        _fit(
            folder,
            "lite0",
            "label",
            [r[2] for r in rows],
            quick,
            backbone="packaged:efficientnet_lite0",
        )
        _boxes(folder)


def _fit(
    folder: Path, name: str, column: str, cells: list[str], quick: bool, **settings: object
) -> None:
    if quick and name not in QUICK:
        return
    table = folder / "data" / f"{name}.csv"
    lines = [f"path,{column}", *(f"{i}.png,{cell}" for i, cell in enumerate(cells))]
    table.write_text("\n".join(lines) + "\n")
    asked: dict[str, Any] = {"backbone": "tiny:16", "strategy": "extract", "store": None}
    hs.save(hs.fit(table, **(asked | settings)), folder / name)


def _texts(folder: Path, rng: np.random.Generator) -> None:
    lines = ["text,label"]
    for i in range(60):
        words = [*rng.choice(WORDS, 12), "good" if i % 2 else "bad"]
        lines.append(f"{' '.join(words)} {i},{'yes' if i % 2 else 'no'}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    fitted = hs.fit(folder / "texts.csv", backbone="tiny-text:16", strategy="extract", store=None)
    hs.save(fitted, folder / "text")


def _module(folder: Path) -> None:
    from torch import nn

    head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 3))
    table = folder / "data" / "image-logistic.csv"
    asked: dict[str, Any] = {"backbone": "tiny:16", "strategy": "extract", "store": None}
    hs.save(hs.fit(table, head=head, **asked), folder / "image-module")


def _boxes(folder: Path) -> None:
    from headstart.backbones.strides import levels_of
    from headstart.heads.given import GivenHead
    from headstart.models.bundle import save
    from headstart.models.detector import detector
    from headstart.models.model import Model
    from headstart.targets.boxes import BoxesTarget
    from headstart.training.box_head import BoxHead

    backbone = hs.load_backbone("packaged:efficientnet_lite0")
    input = backbone.card.input.finding(np.array([[64, 64]]), 64)
    own = replace(backbone, card=replace(backbone.card, input=input))
    levels = levels_of(own)
    frozen = detector(own, levels, BoxHead(levels.shapes, 2, 0).eval())
    target = BoxesTarget(("car", "sign"), (64, 64), 2.0, (0.3, 0.4))
    save(Model(frozen, GivenHead(frozen.card.dim), target), folder / "boxes")
