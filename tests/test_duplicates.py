"""The same picture twice is found; pictures that only look alike are not."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import photo
from PIL import Image, ImageEnhance

from headstart.base.grouping import Pair, confirmed, groups
from headstart.data.dataset import Dataset
from headstart.data.survey import Facts
from headstart.modalities.images import hashes as search
from headstart.modalities.images import likeness as module
from headstart.modalities.images.hashes import Hashes
from headstart.modalities.images.likeness import (
    SIDE,
    hashes,
    near_duplicates,
    outstanding,
    thumbnail,
)
from headstart.modalities.images.survey import PictureSurveyor


def thumbs(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([thumbnail(np.asarray(image.convert("RGB"))) for image in images])


def photos(n: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [photo(rng, 200, 150) for _ in range(n)]


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 8, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def marked(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.paste("white", (10, 10, 34, 18))
    return copy


CHANGES = {
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2)),
    "larger": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2)),
    "recompressed": recompressed,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    "cropped": lambda image: image.crop((8, 5, image.width - 5, image.height - 6)),
    "noisy": noisy,
    "marked": marked,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change: str) -> None:
    originals = photos(20)
    found = near_duplicates(thumbs([*originals, CHANGES[change](originals[7])]))
    assert [(pair.a, pair.b) for pair in found] == [(7, 20)]


def test_a_copy_cropped_at_one_corner_is_found() -> None:
    """Which neither hash foresees: the thumbnails have to be fitted."""
    originals = photos(20)
    found = near_duplicates(thumbs([*originals, originals[7].crop((8, 6, 200, 150))]))
    assert [(pair.a, pair.b) for pair in found] == [(7, 20)]


@pytest.mark.parametrize("most", [3, 6])
def test_all_copies_of_one_picture_are_one_group(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose hashes are too far apart, if both are near to a third."""
    monkeypatch.setattr(search, "MAX_DISTANCE", most)
    monkeypatch.setattr(module, "SURE", 1.1)
    originals = photos(12)
    copies = [change(originals[3]) for change in CHANGES.values()]
    found = near_duplicates(thumbs([*originals, *copies]))
    assert groups([(p.a, p.b) for p in found]) == ((3, *range(12, 12 + len(copies))),)


def test_a_copy_in_a_crowd_of_sisters_is_told_from_them() -> None:
    """One scene, a hundred times with a little of its own: all alike, only one pair the same."""
    rng = np.random.default_rng(1)
    scene, own = photo(rng, 200, 150), photos(100, seed=2)
    sisters = [Image.blend(scene, other, 0.2) for other in own]
    found = near_duplicates(thumbs([*sisters, recompressed(sisters[42])]))
    assert (42, 100) in [(p.a, p.b) for p in found]
    assert len(found) <= 2


def test_flat_pictures_are_never_near_duplicates() -> None:
    flat = [Image.new("RGB", (64, 64), (level, level, level)) for level in (0, 1, 200, 255)]
    assert near_duplicates(thumbs(flat)) == ()


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_a_single_picture_have_no_duplicates(n: int) -> None:
    assert near_duplicates(np.zeros((n, SIDE, SIDE), np.uint8)) == ()


def test_features_have_the_last_word() -> None:
    pairs = (Pair(0, 1, 0.99), Pair(1, 2, 0.99))
    features = np.array([[1, 0], [2, 0.1], [0, 3]], np.float32)
    assert confirmed(pairs, features) == (pairs[0],)
    assert confirmed((), features) == ()


def test_the_result_does_not_depend_on_threads_or_the_way_of_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    originals = photos(30)
    pictures = thumbs([*originals, *map(recompressed, originals)])
    expected = near_duplicates(pictures)
    assert len(expected) == 30
    for work in (0, 10**9):  # of sorting: none, so that it is chosen; or more than all pairs are
        monkeypatch.setattr(search, "_sorted_work", lambda hashed, work=work: work)
        assert near_duplicates(pictures, threads=3) == expected


def planted(rows: int, seed: int = 0) -> Hashes:
    """Hashes, a third of which is within 9 bits of an earlier one."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 2**64, rows, dtype=np.uint64)
    inside = whole ^ flipped(rng, rows, 3)
    copies = rows // 3
    whole[-copies:] = inside[:copies] ^ flipped(rng, copies, 9)
    inside[-copies:] = whole[-copies:] ^ flipped(rng, copies, 3)
    return Hashes(whole, inside)


def flipped(rng: np.random.Generator, rows: int, most: int) -> NDArray[np.uint64]:
    """Up to `most` bits a row."""
    bits = rng.random((rows, 64)).argsort(axis=1) < rng.integers(0, most + 1, (rows, 1))
    return search.packed(bits)


@pytest.mark.parametrize("way", ["sorts", "products"])
def test_candidates_are_all_pairs_within_the_distance(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = planted(1200)
    a, b = np.triu_indices(1200, 1)
    distance = hashed.distances(a, b).min(axis=0)
    expected = {(x, y) for x, y, d in zip(a, b, distance, strict=True) if d <= search.MAX_DISTANCE}
    work = 0 if way == "sorts" else 10**9
    monkeypatch.setattr(search, "_sorted_work", lambda hashed: work)
    found = hashed.candidates(budget=10**6)
    assert len(expected) > 200
    assert len(found[0]) == len(expected)
    assert set(zip(*found, strict=True)) == expected


def test_of_very_many_pictures_crowds_are_searched_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CROWDED", 500)
    monkeypatch.setattr(search, "REACH", 3)
    crowd = np.repeat(planted(3).whole[:1], 600) ^ flipped(np.random.default_rng(0), 600, 4)
    found = Hashes(crowd, crowd).candidates(budget=10**6)
    assert 600 < len(found[0]) < 600 * 599 / 2
    ids = tuple(map(str, range(501)))
    data = Dataset(ids, ids, (0,) * 501, ("a",))
    facts: Facts = {"thumbs": np.zeros((501, SIDE, SIDE), np.uint8), "frames": np.ones(501, int)}
    (said,) = PictureSurveyor().remarks(data, facts)
    assert str(said).startswith("501 pictures: of very many that look alike, each is compared with")
    few = {name: column[:500] for name, column in facts.items()}
    assert not list(PictureSurveyor().remarks(data[:500], few))


@pytest.mark.parametrize("way", ["sorts", "products"])
def test_where_everything_is_a_candidate_only_the_nearest_are_fitted(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_sorted_work", lambda hashed: 0 if way == "sorts" else 10**9)
    near = np.repeat(hashes(thumbs(photos(1))), 20)
    near[10:] ^= np.uint64(0b10110)  # ten and ten equal ones, three bits apart
    hashed = Hashes(near, near)
    assert len(hashed.candidates(budget=190)[0]) == 190  # all 20 * 19 / 2
    assert len(hashed.candidates(budget=189)[0]) == 90  # only those inside the tens
    assert len(hashed.candidates(budget=1)[0]) == 90  # which are not less than equal


def test_a_group_is_taken_if_it_stands_apart() -> None:
    apart = [Pair(0, 1, 0.97), Pair(2, 3, 0.97), Pair(1, 2, 0.94)]
    assert outstanding(apart, rows=100) == (apart[0], apart[1])
    beside = [Pair(0, 1, 0.97), Pair(2, 3, 0.97), Pair(1, 2, 0.965)]
    assert outstanding(beside, rows=100) == ()
    sure = [Pair(0, 1, 0.9995), Pair(0, 2, 0.999), Pair(1, 2, 0.9985)]
    assert outstanding([*sure, Pair(2, 3, 0.998 - 1e-4)], rows=100) == tuple(sure)


def test_in_a_crowd_a_pair_must_be_much_nearer_than_neighbours_are() -> None:
    """Fifty chains of sisters say how near neighbours are here; two more pairs are alone."""
    sisters = [Pair(10 * c + i, 10 * c + i + 1, 0.98) for c in range(50) for i in range(8)]
    alone = [Pair(600, 601, 0.975), Pair(700, 701, 0.99)]
    assert outstanding([*sisters, *alone], rows=800) == (alone[1],)
    assert outstanding(alone, rows=800) == tuple(alone)


def test_a_chain_is_no_group() -> None:
    """Each is like the next, the ends are not alike: nothing says where to stop."""
    assert outstanding([Pair(i, i + 1, 0.95) for i in range(50)], rows=1000) == ()


def test_union_find_joins_runs_and_drops_single_rows() -> None:
    assert groups([(4, 2), (7,), (2, 9), (5, 6)]) == ((2, 4, 9), (5, 6))
    assert groups([(i, i + 1) for i in range(100_000)]) == (tuple(range(100_001)),)
