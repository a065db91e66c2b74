"""Examples of several parts and of varying length, from features to a bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sequences
import torch
from sequences import DIM, Sequences

import headstart as hs
from headstart.backbones.cutting import cut_before, thawed_by
from headstart.backbones.entry import tensors
from headstart.backbones.graph import freeze
from headstart.backbones.inputs import pooled
from headstart.backbones.saved import save_backbone
from headstart.features.engines import OnnxEngine
from headstart.heads.linear import LinearHead
from headstart.modalities.reading import read
from headstart.models.bundle import load_bundle, save
from headstart.models.model import Model
from headstart.targets.classes import ClassTarget

sequences.register()


@pytest.fixture(scope="module")
def backbone() -> hs.Backbone:
    return hs.load_backbone("sequences:0")


def sequence(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng([seed, length]).integers(1, 50, length).tolist()


def test_parts_of_different_lengths_are_padded_with_zeros() -> None:
    short, long = (Sequences().prepare(sequence(n)) for n in (3, 30))
    batch = Sequences().collate([short, long])
    assert batch["ids"].shape == (4, 12)
    assert batch["mask"].sum(axis=1).tolist() == [3, 12, 12, 6]
    assert np.array_equal(batch["ids"][:1, :3], short["ids"])


def test_an_example_of_one_part_has_exactly_the_features_of_that_part() -> None:
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert np.array_equal(pooled(x[:1], np.array([0.3])), x[0])
    mean = pooled(x, np.array([1.0, 2, 1]))
    assert np.allclose(mean, (x[0] + 2 * x[1] + x[2]) / 4, atol=1e-6)


@pytest.mark.parametrize(("parts", "length"), [(1, 3), (3, 12), (7, 9)])
def test_the_graph_equals_the_network_at_other_batch_sizes_and_lengths(
    backbone: hs.Backbone, parts: int, length: int
) -> None:
    batch = padded(parts, length)
    x, *_ = OnnxEngine(freeze(backbone), 1)(batch)
    with torch.inference_mode():
        expected = backbone.module(*tensors(batch))
    assert np.abs(x - expected.numpy()).max() < 1e-6


def padded(parts: int, length: int) -> dict[str, Any]:
    """A batch of random sequences, the first as long as the batch."""
    rng = np.random.default_rng([parts, length])
    ids, lengths = rng.integers(1, 50, (parts, length)), rng.integers(1, length + 1, parts)
    lengths[0] = length
    return {"ids": ids, "mask": (np.arange(length) < lengths[:, None]).astype(np.int64)}


@pytest.mark.parametrize("thaw", ["last", "1", "2", "layers.1", "4"])
def test_a_network_that_cuts_itself_computes_the_same(backbone: hs.Backbone, thaw: str) -> None:
    names = thawed_by(backbone, thaw)
    cut = cut_before(backbone, names)
    assert cut is not None
    assert {cut.in_tail(backbone.module)[name] for name in names} <= set(cut.tail.state_dict())
    given = tensors(padded(3, 7))
    with torch.inference_mode():
        expected = backbone.module(*given)
        features, *crossing = cut.both(*given)
        assert torch.equal(features, expected)
        assert torch.equal(cut.tail(*cut.trunk(*given)), expected)
        assert torch.equal(crossing[0], cut.trunk(*given)[0])
    frozen = freeze(backbone, cut.both)
    assert set(frozen.inputs) == set(backbone.weights())  # none is written into the graph
    for parts, length in ((1, 3), (5, 12)):
        batch = padded(parts, length)
        exact = cut.both(*tensors(batch))
        for ours, theirs in zip(OnnxEngine(frozen, 1)(batch), exact, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < 1e-6


def test_nothing_is_cut_below_an_embedding_that_learns(backbone: hs.Backbone) -> None:
    assert cut_before(backbone, thawed_by(backbone, "all")) is None


def test_a_bundle_carries_the_files_of_its_input(backbone: hs.Backbone, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(DIM, 2))
    model = Model(
        backbone,
        LinearHead(weight.astype(np.float32), np.zeros(2, np.float32)),
        ClassTarget(("a", "b")),
    )
    save(model, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle").model
    assert loaded.backbone.card.input == backbone.card.input
    assert backbone.card.input.assets() == {"shift.bin": b"\3"}
    rows = [" ".join(map(str, sequence(n))) for n in (5, 40)]
    data = read([(row, "a") for row in rows], input=Sequences())
    expected, given = (m.predict(data, store=None).scores for m in (model, loaded))
    assert np.allclose(given, expected, atol=1e-6)


def test_a_saved_backbone_keeps_the_files_of_its_input(
    backbone: hs.Backbone, tmp_path: Path
) -> None:
    save_backbone(backbone, tmp_path / "net")
    again = hs.load_backbone(f"file:{tmp_path / 'net'}")
    assert again.card.input == backbone.card.input
    assert again.fingerprint() == backbone.fingerprint()
