"""Examples of several parts and of varying length, from features to a bundle."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sequences
import torch
from numpy.typing import NDArray
from sequences import DIM, Sequences

import headstart as hs
from headstart.backbones.cutting import cut_before, thawed_by
from headstart.backbones.entry import tensors
from headstart.backbones.graph import freeze
from headstart.backbones.inputs import pooled
from headstart.backbones.saved import save_backbone
from headstart.base.context import Precision
from headstart.base.errors import Mismatch
from headstart.data.content import prepared
from headstart.features import batches, parts
from headstart.features import extract as features
from headstart.features.engines import Checked, OnnxEngine
from headstart.features.extract import extract
from headstart.features.parts import PartActivations, chunks
from headstart.heads.linear import LinearHead
from headstart.modalities.reading import read
from headstart.models.bundle import load_bundle, save
from headstart.models.finetuning import thaw
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
    for shape in ((1, 3), (5, 12)):
        batch = padded(*shape)
        expected = cut.both(*tensors(batch))
        for ours, theirs in zip(OnnxEngine(frozen, 1)(batch), expected, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < 1e-6


def test_nothing_is_cut_below_an_embedding_that_learns(backbone: hs.Backbone) -> None:
    assert cut_before(backbone, thawed_by(backbone, "all")) is None


LENGTHS = [3, 12, 1, 30, 7, 61, 24, 5, 12, 18]


def exact(backbone: hs.Backbone, data: hs.Dataset) -> NDArray[np.float64]:
    """Every example's features, part by part, by PyTorch without any padding."""
    rows, input = [], backbone.card.input
    for file in data.files:
        example = prepared(input, file)
        lengths = example["mask"].sum(axis=1)
        parts = [
            tensors({k: v[i : i + 1, :n] for k, v in example.items()})
            for i, n in enumerate(lengths)
        ]
        with torch.inference_mode():
            x = np.concatenate([backbone.module(*part).numpy() for part in parts])
        rows.append(np.average(x.astype(np.float64), axis=0, weights=lengths))
    return np.array(rows)


@pytest.mark.parametrize("rows", [1, 3, 32])
def test_features_do_not_depend_on_the_batch_or_its_padding(
    backbone: hs.Backbone, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sequences.labelled(LENGTHS)
    monkeypatch.setattr(batches, "PARTS", rows)
    monkeypatch.setattr(features, "PARTS_AT_ONCE", 4 * rows)
    monkeypatch.setattr(OnnxEngine, "batch", 1)
    assert np.abs(extract(backbone, data).x - exact(backbone, data)).max() < 1e-6


class Fixed:
    """An engine that gives these outputs for any batch."""

    batch = 8

    def __init__(self, *outputs: NDArray[Any]) -> None:
        self.outputs = outputs

    def __call__(self, batch: Any) -> tuple[NDArray[Any], ...]:
        return self.outputs


@pytest.mark.parametrize(("where", "agree"), [(1, True), (0, False)])
def test_engines_are_compared_where_sequences_are_not_padded(where: int, agree: bool) -> None:
    x, hidden, mask = np.zeros((1, 4)), np.zeros((1, 2, 3)), np.array([[1, 0]])
    other = hidden.copy()
    other[0, where] = np.nan
    engine = Checked(Fixed(x, other, mask), Fixed(x, hidden, mask))
    with nullcontext() if agree else pytest.raises(Mismatch):
        engine({"ids": mask})


def test_batches_hold_parts_of_similar_length_and_a_bounded_number_of_positions() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 200)
    made = list(chunks(lengths, 16, 400))
    assert sorted(np.concatenate(made)) == list(range(200))
    assert all(len(own) * lengths[own].max() <= 400 and len(own) <= 16 for own in made)
    assert sum(len(own) * lengths[own].max() for own in made) < 1.1 * lengths.sum()
    assert [len(own) for own in chunks(np.array([900, 3]), 16, 400)] == [1, 1]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("stored", [True, False])
def test_activations_at_the_cut_are_kept_without_padding(
    backbone: hs.Backbone, tmp_path: Path, stored: bool, precision: Precision
) -> None:
    store = hs.Store(tmp_path) if stored else None
    data, thawed = sequences.labelled(LENGTHS), thaw(backbone, "1")
    tap = thawed.tap(sum(LENGTHS), precision)
    table = extract(backbone, data, store=store, tap=tap)
    assert thawed.cut is not None
    for again in (table, *([extract(backbone, data, store=store, tap=tap)] if stored else [])):
        assert again.forwards == (len(data) if again is table else 0)
        assert isinstance(again.cut, PartActivations)
        assert again.cut.sizes.total.tolist() == LENGTHS
        assert again.cut.sizes.parts.tolist() == [-(-n // 12) for n in LENGTHS]
        given = again.cut.take([5, 2]).batch(np.array([1, 0]))
        assert given.owner.tolist() == [0] + 6 * [1]
        assert given.weights.tolist() == [1, 12, 12, 12, 12, 12, 1]
        hidden, mask = map(torch.from_numpy, given.arrays)
        assert mask.sum(1).tolist() == given.weights.tolist()
        x = thawed.cut.tail(hidden, mask).numpy().astype(np.float64)
        mean = np.average(x[1:], axis=0, weights=given.weights[1:])
        close = 1e-6 if precision == "float32" else 1e-3
        assert np.abs(mean - table.x[5]).max() < close
        assert np.abs(x[0] - table.x[2]).max() < close


def test_a_part_that_is_missing_in_the_store_is_computed_again(
    backbone: hs.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 2)
    data, tap = sequences.labelled([30, 40, 5]), thaw(backbone, "1").tap(1, "float32")
    once = extract(backbone, data, store=hs.Store(tmp_path), tap=tap)
    (folder,) = tmp_path.glob("cut-*")
    sorted(folder.glob("*.safetensors"))[1].unlink()
    again = extract(backbone, data, store=hs.Store(tmp_path), tap=tap)
    assert 0 < again.forwards < 3
    assert np.array_equal(once.x, again.x)
    assert isinstance(once.cut, PartActivations)
    assert isinstance(again.cut, PartActivations)
    assert again.cut.sizes.total.tolist() == [30, 40, 5]


@pytest.mark.parametrize("stored", [True, False])
def test_a_very_long_example_runs_in_chunks(
    backbone: hs.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """300 windows: no batch, and nothing that waits for the store, grows with their number."""
    given, run = list[tuple[int, ...]](), OnnxEngine.__call__

    def counted(self: OnnxEngine, batch: Any) -> Any:
        given.append(batch["ids"].shape)
        return run(self, batch)

    monkeypatch.setattr(OnnxEngine, "__call__", counted)
    monkeypatch.setattr(parts, "WAITING", 40_000)
    data, tap = sequences.labelled([5, 3600, 7]), thaw(backbone, "1").tap(1, "float32")
    table = extract(backbone, data, store=hs.Store(tmp_path) if stored else None, tap=tap)
    assert len(given) == 10
    assert max(given) == (32, 12)
    assert np.abs(table.x - exact(backbone, data)).max() < 1e-6
    sizes = [path.stat().st_size for path in tmp_path.glob("cut-*/*.safetensors")]
    assert (len(sizes) >= 5 and max(sizes) < 80_000) == stored
    assert isinstance(table.cut, PartActivations)
    assert table.cut.batch(np.array([1]), most=8).arrays[0].shape == (8, 12, 16)


def test_every_nth_part_is_chosen_evenly() -> None:
    assert parts.evenly(300, 8)[[0, -1]].tolist() == [0, 299]
    assert set(np.diff(parts.evenly(300, 8))) <= {42, 43}
    assert parts.evenly(3, 8).tolist() == [0, 1, 2]
    assert len(parts.evenly(300, 0)) == 300


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
