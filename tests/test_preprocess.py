from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from headstart.base.errors import SpecError
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.inputs import ImageInput

SMALL = ImageInput(size=28, resize=32)
HOW = transforms.InterpolationMode

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


def noise(height: int, width: int) -> Pixels:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@settings(max_examples=40, deadline=None)
@given(sizes.filter(lambda s: max(s) <= 16 * min(s)), st.integers(1, 40), st.integers(0, 9))
def test_crop_is_bitwise_what_torchvision_does(
    interpolation: str, shape: tuple[int, int], size: int, more: int
) -> None:
    usual = transforms.Compose(
        [
            transforms.Resize(size + more, HOW(interpolation)),
            transforms.CenterCrop(size),
        ]
    )
    ours = ImageInput(size=size, resize=size + more, interpolation=interpolation)  # type: ignore[arg-type]
    expected = np.asarray(usual(Image.fromarray(noise(*shape))))
    np.testing.assert_array_equal(ours(noise(*shape)), expected)


@given(sizes)
def test_squash_shows_the_whole_picture_in_the_square(shape: tuple[int, int]) -> None:
    expected = Image.fromarray(noise(*shape)).resize((28, 28), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(SMALL.changed(fit="squash")(noise(*shape)), np.asarray(expected))


@given(sizes)
def test_pad_keeps_proportions_and_fills_with_the_mean(shape: tuple[int, int]) -> None:
    pad = replace(SMALL.changed(fit="pad"), mean=(0.0, 0.5, 1.0))
    height, width = (max(1, round(28 * side / max(shape))) for side in shape)
    inner = Image.fromarray(noise(*shape)).resize((width, height), Image.Resampling.BICUBIC)
    expected = Image.new("RGB", (28, 28), (0, 128, 255))
    expected.paste(inner, ((28 - width) // 2, (28 - height) // 2))
    np.testing.assert_array_equal(pad(noise(*shape)), np.asarray(expected))


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (2, 50_000), (1, 10_000_000)])
def test_tiny_and_extreme_pictures_become_squares(fit: str, shape: tuple[int, int]) -> None:
    square = ImageInput(fit=fit)(np.full((*shape, 3), 200, np.uint8))  # type: ignore[arg-type]
    assert square.shape == (224, 224, 3)
    assert (square == 200).all(axis=2).any()


def test_a_strip_is_cut_to_its_middle() -> None:
    strip = np.zeros((2, 1000, 3), np.uint8)
    strip[:, 490:510] = 255
    assert (SMALL(strip) == 255).all()


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    pixels = noise(224, 224)
    for fit in ("crop", "squash", "pad"):
        same = ImageInput(resize=224, fit=fit)(pixels)
        np.testing.assert_array_equal(same, pixels)


OTHERS = [
    replace(SMALL, size=27),
    replace(SMALL, resize=33),
    replace(SMALL, interpolation="bilinear"),
    replace(SMALL, fit="squash"),
    replace(SMALL, fit="pad"),
    replace(SMALL, fit="pad", mean=(0.5, 0.5, 0.5)),
    replace(SMALL, draft=False),
]


def test_fingerprints_differ_where_squares_do() -> None:
    assert len({p.fingerprint() for p in (SMALL, *OTHERS)}) == len(OTHERS) + 1


def test_fingerprints_leave_out_what_the_network_does() -> None:
    other = replace(SMALL, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert other.fingerprint() == SMALL.fingerprint()
    assert other.changed(fit="squash").fingerprint() == SMALL.changed(fit="squash").fingerprint()


@pytest.mark.parametrize("module", ["decoding", "inputs"])
def test_fingerprints_follow_the_version_of_the_code(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SMALL.fingerprint()
    monkeypatch.setattr(f"headstart.modalities.images.{module}.VERSION", 99)
    assert SMALL.fingerprint() != before


def test_a_jpeg_is_never_asked_for_smaller_than_it_is_resized_to() -> None:
    assert [SMALL.changed(fit=f).short_side for f in ("crop", "squash", "pad")] == [32, 28, 28]
    assert replace(SMALL, draft=False).short_side is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fit": "stretch"}, "fit is one of crop, squash, pad; got 'stretch'"),
        ({"interpolation": "cubic"}, "interpolation is one of nearest, bilinear"),
        ({"size": 0}, "got resize=256, size=0"),
        ({"resize": 200}, "got resize=200, size=224"),
        ({"mean": (0.5,)}, "mean and std are three numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "std positive"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        replace(SMALL, **({"size": 224, "resize": 256} | settings))  # type: ignore[arg-type]
