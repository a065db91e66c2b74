"""The frozen part runs once for every example, whatever happens on the way."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from listening import Calls, progress_of
from PIL import Image

import headstart as hs
from headstart.backbones.graph import freeze
from headstart.base.errors import Mismatch, SpecError, StoreError
from headstart.base.runtime import ON_CPU, Runtime
from headstart.features import extract as features
from headstart.features.engine_table import usual_engine
from headstart.features.engines import Checked, OnnxEngine, TorchEngine, compare
from headstart.features.extract import extract
from headstart.modalities.images import decoding
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.reading import survey
from headstart.models.wording import extracted
from headstart.specs import FeatureExtraction


@pytest.fixture
def data(tmp_path: Path) -> hs.Dataset:
    """Forty small pictures, each another."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "pictures" / f"{i:02}.png" for i in range(40)]
    paths[0].parent.mkdir()
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    labels = tuple(i % 2 for i in range(40))
    return hs.Dataset(tuple(p.name for p in paths), tuple(paths), labels, ("even", "odd"))


@pytest.fixture
def store(tmp_path: Path) -> hs.Store:
    return hs.Store(tmp_path / "store")


def test_features_are_those_of_the_plain_module(data: hs.Dataset) -> None:
    backbone = hs.load_backbone("tiny:32")
    eats = of_pictures(backbone.card.input)
    squares = np.stack([eats(np.asarray(Image.open(p))) for p in data.sources])
    x = torch.from_numpy(squares).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(eats.mean)[:, None, None]) / torch.tensor(eats.std)[:, None, None]
    with torch.inference_mode():
        expected = backbone.module(x).numpy()
    found = extract(backbone, data, runtime=ON_CPU)
    np.testing.assert_allclose(found.x, expected, atol=1e-5)


def test_features_follow_their_rows(data: hs.Dataset) -> None:
    backbone = hs.load_backbone("tiny:32")
    forward, reverse = extract(backbone, data), extract(backbone, data[::-1])
    assert np.array_equal(reverse.x, forward.x[::-1])
    assert reverse.ids == forward.ids[::-1]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(data: hs.Dataset, threads: int) -> None:
    backbone = hs.load_backbone("tiny:32")
    expected = extract(backbone, data).x
    runtime = Runtime(decode_threads=threads)
    assert np.array_equal(extract(backbone, data, runtime=runtime).x, expected)


def test_a_second_run_computes_nothing(data: hs.Dataset, store: hs.Store) -> None:
    backbone = hs.load_backbone("tiny:32")
    first, second = (extract(backbone, data, store=store) for _ in range(2))
    assert (first.forwards, first.hits) == (40, 0)
    assert (second.forwards, second.hits) == (0, 40)
    assert np.array_equal(first.x, second.x)


def test_a_second_run_opens_no_engine_and_decodes_nothing(
    data: hs.Dataset, store: hs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = hs.load_backbone("tiny:32")
    extract(backbone, data, store=store)
    for module, name in ((features, "open_engine"), (decoding, "decode")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("should not be called"))
    extract(backbone, data, store=store)


def test_only_new_pictures_are_computed(data: hs.Dataset, store: hs.Store) -> None:
    backbone = hs.load_backbone("tiny:32")
    extract(backbone, data.take(range(30)), store=store)
    table = extract(backbone, data, store=store)
    assert (table.forwards, table.hits) == (10, 30)
    assert np.array_equal(table.x, extract(backbone, data).x)


def test_the_same_picture_in_another_file_is_computed_once(
    data: hs.Dataset, store: hs.Store, tmp_path: Path
) -> None:
    Image.open(data.sources[0]).save(tmp_path / "same.bmp")
    ids, sources = (*data.ids, "same.bmp"), (*data.sources, tmp_path / "same.bmp")
    more = hs.Dataset(ids, sources, (*data.labels, 0), data.classes)
    backbone = hs.load_backbone("tiny:32")
    together = extract(backbone, more)
    assert together.forwards == 40
    assert np.array_equal(together.x[0], together.x[-1])
    extract(backbone, data, store=store)
    assert extract(backbone, more, store=store).forwards == 0


def test_a_changed_weight_never_reads_its_parents_features(
    data: hs.Dataset, store: hs.Store
) -> None:
    backbone = hs.load_backbone("tiny:32")
    before = extract(backbone, data, store=store).x
    with torch.no_grad():
        next(backbone.module.parameters()).mul_(2)
    after = extract(backbone, data, store=store)
    assert after.forwards == 40
    assert not np.array_equal(after.x, before)


def test_another_way_to_fit_the_picture_is_another_table(data: hs.Dataset, store: hs.Store) -> None:
    backbone = hs.load_backbone("tiny:32")
    extract(backbone, data, store=store)
    assert extract(backbone.changed(fit="squash"), data, store=store).forwards == 40


def test_a_touched_pixel_is_computed_again(data: hs.Dataset, store: hs.Store) -> None:
    backbone = hs.load_backbone("tiny:32")
    extract(backbone, data, store=store)
    pixels = np.asarray(Image.open(data.sources[3])).copy()
    pixels[:] = 255 - pixels
    Image.fromarray(pixels).save(data.sources[3])
    assert extract(backbone, data, store=store).forwards == 1


def test_what_was_stored_of_pixels_that_came_wrong_is_computed_again(
    data: hs.Dataset, store: hs.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = np.linspace(-9, 9, 40 * 40).reshape(40, 40)
    tifffile.imwrite(tmp_path / "deep.tif", deep, byteorder=">", photometric="miniswhite")
    one = replace(data.take([0]), sources=(tmp_path / "deep.tif",))
    backbone = hs.load_backbone("tiny:32")
    with monkeypatch.context() as earlier:
        earlier.setattr(decoding, "store_key", lambda data, file: file)
        earlier.setattr(decoding, "decode", lambda *_, **__: np.zeros((40, 40, 3), np.uint8))
        wrong = extract(backbone, one, store=store).x
        survey(one, store=store)
    right = extract(backbone, one, store=store).x
    assert np.array_equal(right, extract(backbone, one).x)
    assert not np.array_equal(right, wrong)
    again, fresh = (survey(one, store=kept).facts["thumbs"] for kept in (store, None))
    np.testing.assert_array_equal(again, fresh)


def test_a_damaged_shard_is_computed_again(data: hs.Dataset, store: hs.Store) -> None:
    backbone = hs.load_backbone("tiny:32")
    first = extract(backbone, data, store=store)
    (shard,) = store.folder.glob("features-*/*.safetensors")
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    again = extract(backbone, data, store=store)
    assert again.forwards == 40
    assert np.array_equal(again.x, first.x)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("table", ["features", "squares"])
@pytest.mark.parametrize("harm", ["pipe", "folder", "of another backbone"])
def test_something_else_in_the_place_of_a_shard_is_computed_again(
    data: hs.Dataset, store: hs.Store, table: str, harm: str
) -> None:
    """A shard of another backbone's table has the same rows, of the same type and shape."""
    backbone = hs.load_backbone("tiny:32")
    first = extract(backbone, data, store=store)
    (shard,) = store.folder.glob(f"{table}-*/*.safetensors")
    shard.unlink()
    if harm == "pipe":
        os.mkfifo(shard)
    elif harm == "folder":
        shard.mkdir()
    else:
        other = hs.Store(store.folder / "other")
        spec = FeatureExtraction(fit="card" if table == "features" else "squash")
        strange_one = spec.prepared(hs.load_backbone("tiny:32"))
        next(strange_one.module.parameters()).data.add_(1)
        extract(strange_one, data, store=other)
        (strange,) = other.folder.glob(f"{table}-*/*.safetensors")
        shutil.copy(strange, shard.parent)
    again = extract(backbone, data, store=store)
    assert np.array_equal(again.x, first.x)
    assert len(again.damaged) == 1
    assert "1 damaged files in the store were passed over" in extracted(again)
    assert np.array_equal(extract(backbone, data, store=store).x, first.x)


def test_an_interrupted_run_goes_on_where_it_was(
    data: hs.Dataset, store: hs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = hs.load_backbone("tiny:32")

    def stop(done: int, total: int) -> None:
        if done == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(backbone, data, store=store, runtime=ON_CPU, listener=progress_of("features", stop))
    table = extract(backbone, data, store=store, runtime=ON_CPU)
    assert 0 < table.hits < 40
    assert table.forwards == 40 - table.hits
    assert np.array_equal(table.x, extract(backbone, data, runtime=ON_CPU).x)


def test_a_full_disk_says_so_and_keeps_what_was_there(
    data: hs.Dataset, store: hs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = hs.load_backbone("tiny:32")
    extract(backbone, data.take(range(20)), store=store)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.base.store.write_bytes", full)
        with pytest.raises(StoreError, match=r"No space left on device.*--store"):
            extract(backbone, data, store=store)
    assert extract(backbone, data, store=store).hits == 20


def test_unreadable_files_are_left_out_and_named(data: hs.Dataset) -> None:
    data.sources[5].write_bytes(b"not a picture")
    data.sources[7].unlink()
    table = extract(hs.load_backbone("tiny:32"), data)
    assert [item.path for item in table.left_out] == ["05.png", "07.png"]
    assert len(table) == 38
    assert "05.png" not in table.ids
    assert np.array_equal(table.y, [i % 2 for i in range(40) if i not in (5, 7)])


def test_the_time_to_expect_is_told_once(data: hs.Dataset) -> None:
    told: list[tuple[int, float]] = []
    watch = Calls(expect=lambda stage, rows, seconds: told.append((rows, seconds)))
    extract(hs.load_backbone("tiny:32"), data, runtime=ON_CPU, listener=watch)
    ((rows, seconds),) = told
    assert rows == 40
    assert seconds > 0


def test_a_shipped_graph_reads_the_same_store(data: hs.Dataset, store: hs.Store) -> None:
    backbone = hs.load_backbone("tiny:32")
    extract(backbone, data, store=store, runtime=ON_CPU)
    assert extract(freeze(backbone), data, store=store).forwards == 0


def test_rows_are_found_by_name_and_a_missing_one_is_named(data: hs.Dataset) -> None:
    table = extract(hs.load_backbone("tiny:32"), data.take(range(10)))
    assert np.array_equal(table.of(data.take([7, 2])).x, table.x[[7, 2]])
    with pytest.raises(Mismatch, match=r"'10\.png'"):
        table.of(data.take([10]))


def test_an_empty_table_keeps_its_width(data: hs.Dataset) -> None:
    table = extract(hs.load_backbone("tiny:32"), data.take([]))
    assert table.x.shape == (0, 32)


def test_an_engine_that_disagrees_with_pytorch_is_refused(data: hs.Dataset) -> None:
    backbone = hs.load_backbone("tiny:32")
    other = hs.load_backbone("tiny:32")
    with torch.no_grad():
        next(other.module.parameters()).add_(0.01)
    engine = Checked(OnnxEngine(freeze(backbone), 1), TorchEngine(other, "cpu"))
    with pytest.raises(Mismatch, match="must give PyTorch's features"):
        engine({"pixels": np.zeros((2, 32, 32, 3), np.uint8)})


def test_features_that_are_not_numbers_never_agree() -> None:
    nan = np.full((1, 3), np.nan, np.float32)
    with pytest.raises(Mismatch):
        compare(nan, nan)


def test_what_float16_cannot_hold_is_computed_in_float32() -> None:
    """As it is for a ResNet50 of random weights: infinite features would stop training."""
    backbone = hs.load_backbone("tiny:8")
    with torch.no_grad():  # of bright pictures only, its first layer gives values beyond 65,504
        next(backbone.module.parameters()).mul_(1e5)
    dark, bright = slice(0, 3), slice(3, 6)
    squares = np.full((6, 8, 8, 3), 128, np.uint8)
    squares[bright] = 255
    engine = TorchEngine(backbone, "cpu")
    (exact,) = engine({"pixels": squares})
    engine.half = True  # as on an accelerator
    (narrow,) = engine({"pixels": squares})
    assert np.array_equal(narrow[bright], exact[bright])
    assert not np.array_equal(narrow[dark], exact[dark])  # as these were computed in float16
    np.testing.assert_allclose(narrow[dark], exact[dark], atol=0.01 * np.abs(exact[dark]).max())


def test_what_engine_made_a_row_is_part_of_its_name() -> None:
    backbone = hs.load_backbone("tiny:8")
    on_cpu = usual_engine(backbone, Runtime("cpu")).name
    assert on_cpu != usual_engine(backbone, Runtime("cuda")).name
    # a shipped graph runs in ONNX Runtime wherever it is
    assert usual_engine(freeze(backbone), Runtime("cuda")).name == on_cpu


def test_a_device_that_is_not_there_is_one_sentence(data: hs.Dataset) -> None:
    absent = Runtime("mps" if torch.cuda.is_available() else "cuda")
    with pytest.raises(SpecError, match=f"no {absent.device} device on this machine"):
        extract(hs.load_backbone("tiny:8"), data, runtime=absent)
