"""Views of a picture: random by seed alone, and made of the changes that were asked for."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.base.errors import Mismatch, MissingPackage, SpecError
from headstart.base.values import field_help
from headstart.modalities.images import augment as augmenting
from headstart.modalities.images.augment import ERASED, GAP, Augment, Square, view_grid
from headstart.modalities.images.encoding import png

KINDS = {
    "flip": Augment(flip="both"),
    "quarter_turns": Augment(quarter_turns=True),
    "rotation": Augment(rotation=0.1),
    "resized_crop": Augment(resized_crop=0.3),
    "colour_jitter": Augment(colour_jitter=0.4),
    "trivial_augment": Augment(trivial_augment=True),
    "random_erasing": Augment(random_erasing=0.5),
    "all": Augment("both", True, 0.5, 0.3, 1.0, True, 1.0),
}
seeds = st.integers(0, 2**63)
augments = st.builds(
    Augment,
    flip=st.sampled_from(["none", "horizontal", "vertical", "both"]),
    quarter_turns=st.booleans(),
    rotation=st.floats(0, 0.5),
    resized_crop=st.floats(0.05, 1),
    colour_jitter=st.floats(0, 1),
    trivial_augment=st.booleans(),
    random_erasing=st.floats(0, 1),
)


def noise(size: int) -> Square:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)


def views(augment: Augment, square: Square, n: int) -> set[bytes]:
    return {augment(square, seed).tobytes() for seed in range(n)}


@settings(max_examples=60, deadline=None)
@given(augments, st.integers(1, 40), seeds)
def test_a_view_is_a_square_of_the_same_size_and_the_same_for_its_seed(
    augment: Augment, size: int, seed: int
) -> None:
    square = noise(size)
    view = augment(square, seed)
    assert view.shape == square.shape
    assert view.dtype == np.uint8
    np.testing.assert_array_equal(augment(square, seed), view)
    np.testing.assert_array_equal(square, noise(size))  # and the square itself is left alone


@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_give_other_views(kind: str) -> None:
    assert len(views(KINDS[kind], noise(32), 20)) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_the_same_from_any_thread(kind: str) -> None:
    square, augment = noise(32), KINDS[kind]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda seed: augment(square, seed), range(40)))
    np.testing.assert_array_equal(threaded, [augment(square, seed) for seed in range(40)])


def test_threads_take_turns_at_the_generator() -> None:
    augment, square = KINDS["flip"], noise(8)
    thread = threading.Thread(target=augment, args=(square, 0))
    with augmenting._generator:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generator_is_neither_read_nor_moved(kind: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = KINDS[kind](noise(32), 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(KINDS[kind](noise(32), 7), first)


@given(seeds)
def test_without_any_change_the_square_itself_comes_back(seed: int) -> None:
    square = noise(9)
    assert not Augment().active
    assert Augment()(square, seed) is square
    assert all(augment.active for augment in KINDS.values())


@pytest.mark.parametrize(
    ("flip", "axes"), [("horizontal", (1,)), ("vertical", (0,)), ("both", (0, 1))]
)
def test_flips_mirror_and_do_nothing_else(flip: str, axes: tuple[int, ...]) -> None:
    square = noise(15)
    expected = {square.tobytes(), *(np.flip(square, axis).tobytes() for axis in axes)}
    expected.add(np.flip(square, axes).tobytes())
    assert views(Augment(flip=flip), square, 40) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 15, 64])
def test_quarter_turns_are_whole_quarters(size: int) -> None:
    expected = {np.rot90(noise(size), k).tobytes() for k in range(4)}
    assert views(Augment(quarter_turns=True), noise(size), 40) == expected


def test_half_of_the_views_are_flipped() -> None:
    square = noise(8)
    same = [np.array_equal(KINDS["quarter_turns"](square, s), square) for s in range(400)]
    kept = [np.array_equal(Augment("horizontal")(square, s), square) for s in range(400)]
    assert abs(np.mean(kept) - 1 / 2) < 0.1  # four standard deviations
    assert abs(np.mean(same) - 1 / 4) < 0.09


@settings(max_examples=60, deadline=None)
@given(st.floats(0.001, 0.5), st.integers(1, 60), st.integers(1, 255), seeds)
def test_a_constant_picture_stays_so_however_it_is_turned(
    rotation: float, size: int, level: int, seed: int
) -> None:
    flat = np.full((size, size, 3), level, np.uint8)
    np.testing.assert_array_equal(Augment(rotation=rotation)(flat, seed), flat)


def test_a_rotation_turns_by_no_more_than_its_fraction() -> None:
    """Measured on a ramp from left to right: its slope down the picture is the angle's sine."""
    ramp = np.repeat(np.arange(0, 202, 2, dtype=np.uint8)[None, :, None], 101, 0).repeat(3, 2)
    turned = [Augment(rotation=0.05)(ramp, seed)[30:71, 30:71, 0] for seed in range(60)]
    slopes = np.array([np.diff(view.astype(float), axis=0).mean() / 2 for view in turned])
    degrees = np.degrees(np.arcsin(slopes))
    assert 15 < degrees.max() < 18.5
    assert -18.5 < degrees.min() < -15


def test_corners_are_filled_by_reflection() -> None:
    """White above black: with any other filling some white or grey would be at the bottom."""
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:32] = 255
    for seed in range(20):
        view = Augment(rotation=0.02)(halves, seed)
        assert (view[:8] == 255).all()
        assert (view[-8:] == 0).all()


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_erasing_paints_one_rectangle_of_the_mean_colour(seed: int) -> None:
    square = np.full((40, 40, 3), 255, np.uint8)
    painted = (Augment(random_erasing=1.0)(square, seed) != square).any(axis=2)
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    assert painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert 0.01 < painted.mean() < 0.35
    assert (Augment(random_erasing=1.0)(square, seed)[painted] == ERASED).all()


def test_a_crop_keeps_at_least_its_share() -> None:
    """Of a picture whose pixels tell where they were: each view spans most of its columns."""
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    spans = [int(np.ptp(Augment(resized_crop=0.9)(ramp, seed))) for seed in range(40)]
    assert min(spans) > 75
    assert max(spans) > min(spans)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("flip", "sideways", "flip is one of none, horizontal, vertical, both; got 'sideways'"),
        ("rotation", -0.1, "from 0 to 0.5; got -0.1"),
        ("rotation", 30.0, "For 30 degrees say 0.083"),
        ("rotation", float("nan"), "got nan"),
        ("resized_crop", 0.0, "above 0 and up to 1"),
        ("resized_crop", 1.1, "got 1.1"),
        ("colour_jitter", 2.0, "share from 0 to 1; got 2.0"),
        ("random_erasing", 1.5, "probability from 0 to 1; got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        replace(Augment(), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)],
)
def test_only_squares_are_read(array: Square) -> None:
    with pytest.raises(Mismatch, match=r"squares \(S, S, 3\) uint8"):
        Augment()(array, 0)


def test_fingerprints_follow_the_settings_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {augment.fingerprint() for augment in [Augment(), *KINDS.values()]}
    assert len(names) == 1 + len(KINDS)
    monkeypatch.setattr(augmenting, "VERSION", 99)
    assert Augment().fingerprint() not in names


def test_help_can_be_made_of_every_field() -> None:
    told = {f.name: field_help(Augment, f.name) for f in fields(Augment)}
    assert all(len(text.split()) > 5 for text in told.values())
    assert told["quarter_turns"] == "turn by 0, 90, 180 or 270 degrees"
    assert told["random_erasing"].endswith("(Zhong et al. 2017)")


def test_without_torchvision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms", None)
    with pytest.raises(MissingPackage, match=r"headstart\[train\]"):
        Augment(rotation=0.123)(noise(4), 0)  # a value that was not built before


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), seeds)
def test_a_grid_shows_the_picture_and_then_its_views(columns: int, rows: int, seed: int) -> None:
    square, augment = noise(10), KINDS["colour_jitter"]
    grid = view_grid(square, augment, columns=columns, rows=rows, seed=seed)
    assert grid.shape == (rows * (10 + GAP) - GAP, columns * (10 + GAP) - GAP, 3)
    np.testing.assert_array_equal(grid[:10, :10], square)
    if columns * rows > 1:
        last = augment(square, seed + columns * rows - 2)
        np.testing.assert_array_equal(grid[-10:, -10:], last)


def test_a_grid_without_cells_is_refused() -> None:
    with pytest.raises(SpecError, match="got columns=4, rows=0"):
        view_grid(noise(4), Augment(), rows=0)


def test_a_grid_is_a_png_that_pillow_reads() -> None:
    grid = view_grid(noise(10), KINDS["all"])
    with Image.open(io.BytesIO(png(grid))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), grid)
