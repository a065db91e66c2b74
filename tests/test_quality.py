"""Pictures that are blurred, dark, overexposed or nearly empty, beside others of their data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import photo
from PIL import Image, ImageFilter

from headstart.data.checks import check
from headstart.data.dataset import Remark
from headstart.modalities.images import likeness, quality
from headstart.modalities.reading import read, survey
from headstart.reporting.words import Words

Spoil = Callable[[Image.Image], Image.Image]
NOBODY = np.zeros(40, np.intp)  # the strata of 40 pictures without classes


def levels(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Spoil:
    def spoil(image: Image.Image) -> Image.Image:
        values = change(np.asarray(image, np.float64))
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))

    return spoil


SPOILT: dict[str, Spoil] = {
    "dark": levels(lambda values: values * 0.08),
    "overexposed": levels(lambda values: values * 4 + 60),
    "nearly empty": levels(lambda values: values.mean() + (values - values.mean()) * 0.02),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(5)),
}


def made(n: int = 40) -> list[Image.Image]:
    return [photo(np.random.default_rng(i), 120, 90) for i in range(n)]


def thumbs(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([likeness.thumbnail(np.asarray(image)) for image in images])


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_picture_is_found_and_no_other(kind: str) -> None:
    images = made()
    assert list(quality.spoilt(thumbs(images), NOBODY)) == []
    images[7] = SPOILT[kind](images[7])
    (found,) = quality.spoilt(thumbs(images), NOBODY)
    assert (found.row, found.kind) == (7, kind)


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_usual_in_a_data_set_or_a_class_is_not_named(kind: str) -> None:
    images = made()
    spoilt = [SPOILT[kind](image) for image in images]
    assert kind not in {found.kind for found in quality.spoilt(thumbs(spoilt), NOBODY)}
    night = [*images[:37], *spoilt[37:]]
    assert len(list(quality.spoilt(thumbs(night), NOBODY))) == 3
    strata = np.array([0] * 37 + [1] * 3)
    assert list(quality.spoilt(thumbs(night), strata)) == []
    assert list(quality.spoilt(thumbs(night)[22:41], NOBODY[22:])) == []  # too few to compare


def test_the_checks_name_it_with_the_measure(tmp_path: Path) -> None:
    for i, image in enumerate(made(24)):
        folder = tmp_path / ("cat" if i % 2 else "dog")
        folder.mkdir(exist_ok=True)
        (SPOILT["dark"](image) if i == 5 else image).save(folder / f"{i}.png")
    data = read(tmp_path)
    table = check(data, survey(data)).findings.table()
    assert ("dark", "1", "cat/5.png: mean level 7 of 255; usual here is 122") in table


def test_each_kind_has_words_in_both_languages() -> None:
    for kind in SPOILT:
        found = quality.Spoilt(0, kind, 0.05, 0.5)
        text = f"remark.{kind.replace(' ', '_')}"
        facts = {name: str(value) for name, value in found.facts}
        assert str(Words("en")(text, **facts)) == str(found)
        assert text in Words("ru")
        assert str(Words("ru").named("found", kind)) != kind
        assert str(Remark("a.png", kind, str(found))).startswith("a.png: ")
