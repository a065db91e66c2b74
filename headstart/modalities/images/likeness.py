"""Find near-duplicates: hashes give candidate pairs, registered thumbnails confirm them.

Hashes alone give too many pairs where all pictures look alike (solar cells, X-rays, scanned forms).
So one thumbnail is registered to the other before the two are compared, and where many pictures are
alike, a pair must also be clearly nearer than other pictures are. Features can only veto a pair
(`grouping.confirmed`). The defaults were chosen with bench/duplicates.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.base.grouping import Pair, groups
from headstart.base.threads import ordered_map
from headstart.modalities.images.decoding import Pixels
from headstart.modalities.images.hashes import BITS, Hash, Hashes, Rows, packed

VERSION = 1  # raise it when the same pixels would give another thumbnail
SIDE = 64  # pixels, of a thumbnail
CROP = 0.03  # share of a side; the second hash is of the picture without this margin
MARGIN = 3  # pixels at the edges of a thumbnail that are ignored: cropping changes them
TRIMMED = 0.12  # share of a thumbnail's blocks, the worst, that is ignored: maybe a watermark
FLOOR = 0.9  # correlation of registered thumbnails below which two pictures differ
SURE = 0.998  # correlation from which two pictures are the same, whatever the others
APART = 1.25  # below SURE, rows outside a group must be this many times as far as inside
BLOCK = 1024  # thumbnails looked at together
MIN_CONTRAST = 2.0  # grey levels (standard deviation); a flatter picture has nothing to compare

Floats = NDArray[np.float32]


def thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to (SIDE, SIDE) grey levels, ignoring the proportions."""
    small = Image.fromarray(pixels).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    return np.asarray(small.convert("L"))


def hashes(thumbs: NDArray[np.uint8], crop: float = 0.0) -> Hash:
    """Return difference hashes of 64 bits, (N,): whether each of 8x8 cells is brighter than its
    left neighbour (N. Krawetz, "Kind of Like That", 2013).

    thumbs: (N, SIDE, SIDE). crop: share of each side that is cut off before. A local watermark
    changes few bits of these hashes, but all bits of hashes of a cosine transform.
    """
    rows, columns = _cells(8, crop), _cells(9, crop).T
    out = np.empty((len(thumbs), BITS), bool)
    for start in range(0, len(thumbs), BLOCK):
        block = rows @ thumbs[start : start + BLOCK].astype(np.float32) @ columns  # (B, 8, 9)
        out[start : start + BLOCK] = (np.diff(block, axis=2) > 0).reshape(-1, BITS)
    return packed(out)


def near_duplicates(thumbs: "Thumbs", *, threads: int = 1) -> tuple[Pair, ...]:
    """Return pairs of rows that show the same picture: rescaled, recompressed, cropped, ….

    thumbs: (N, SIDE, SIDE), an array or what gives one for a slice or numbers of rows. Neither time
    nor memory grows with N² (see `Hashes`). If there are so many candidates that registering all
    would take hours, only the nearest are registered.
    """
    whole, inside, contrast = (
        np.concatenate(part) for part in zip(*_looked_at(thumbs), strict=True)
    )
    distinct = np.flatnonzero(contrast >= MIN_CONTRAST)
    shown = _Shown(thumbs, distinct)
    hashed = Hashes(whole[distinct], inside[distinct])
    candidates = hashed.candidates(budget=max(50_000, 4 * len(distinct)))
    pairs = _alike(shown, batches(hashed, *candidates), threads)
    pairs += _alike(shown, batches(hashed, *_untried(pairs)), threads)
    return tuple(
        Pair(int(distinct[p.a]), int(distinct[p.b]), p.likeness)
        for p in outstanding(pairs, len(distinct))
    )


def _looked_at(thumbs: "Thumbs") -> Iterator[tuple[Hash, Hash, Floats]]:
    """Yield both hashes and the contrast of a block of thumbnails after the other."""
    for start in range(0, max(len(thumbs), 1), BLOCK):
        block = thumbs[start : start + BLOCK]
        yield hashes(block), hashes(block, CROP), _contrast(block)


class Thumbs(Protocol):
    """N thumbnails, which may be read from a store where they are indexed."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class _Shown:
    """Some of the thumbnails, by their numbers."""

    thumbs: Thumbs
    numbers: Rows

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        return self.thumbs[self.numbers[rows]]


def _alike(thumbs: Thumbs, batches: Iterable["_Batch"], threads: int) -> list[Pair]:
    """Return the pairs of these batches with a likeness of at least FLOOR."""

    def fit(batch: "_Batch") -> list[Pair]:
        alike = _likeness(thumbs[batch.a], thumbs[batch.b], batch.scale)
        return [
            Pair(int(min(a, b)), int(max(a, b)), round(float(likeness), 4))
            for a, b, likeness in zip(batch.a, batch.b, alike, strict=True)
            if likeness >= FLOOR
        ]

    kept = ordered_map(fit, batches, threads=threads, ahead=2 * threads)
    return [pair for pairs in kept for pair in pairs]


def _contrast(thumbs: NDArray[np.uint8]) -> Floats:
    """Return the standard deviation of each thumbnail, grey levels: (N,)."""
    out = np.empty(len(thumbs), np.float32)
    for start in range(0, len(thumbs), 1024):
        out[start : start + 1024] = thumbs[start : start + 1024].std((1, 2), dtype=np.float32)
    return out


def _untried(pairs: Sequence[Pair], most: int = 32) -> Rows:
    """Return pairs (2, P) within groups of up to `most` rows that are not in `pairs` yet."""
    known = {(p.a, p.b) for p in pairs}
    small = (group for group in groups(sorted(known)) if 2 < len(group) <= most)
    missed = [ab for group in small for ab in combinations(group, 2) if ab not in known]
    return np.array(missed, np.intp).reshape(-1, 2).T


def outstanding(pairs: Sequence[Pair], rows: int) -> tuple[Pair, ...]:
    """Return the pairs that are SURE or in an isolated group; rows: size of the data set.

    Where all pictures look alike, no fixed likeness separates copies from similar pictures. So rows
    are joined in order of distance, 1 - likeness, and a group is isolated if the nearest row
    outside is at least APART times as far as the two most distant rows inside.
    """
    room, crowded = _room(pairs, rows)
    apart = _groups_apart(pairs, room, widen=not crowded)
    kept = (p for p in pairs if p.likeness >= SURE or apart.get(p.a, -1) == apart.get(p.b))
    return tuple(sorted(kept, key=lambda p: (p.a, p.b)))


def _room(pairs: Sequence[Pair], rows: int) -> tuple[float, bool]:
    """Return the distance of a neighbour that every row is assumed to have; whether rows are dense.

    Rows are dense if most pairs, and at least rows / 10 of them, are in no `_tight` group. Hashes
    then miss neighbours, so the distance is the median distance of the nearest known neighbours;
    otherwise it is 1 - FLOOR, since all nearer ones are known.
    """
    loose = len(pairs) - sum(map(len, _tight(pairs)))
    if 2 * loose <= len(pairs) or 10 * loose < rows:
        return 1 - FLOOR, False
    nearest = dict[int, float]()
    for pair in pairs:
        for row in (pair.a, pair.b):
            nearest[row] = min(1 - pair.likeness, nearest.get(row, 1.0))
    return float(np.median(list(nearest.values()))), True


def _tight(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Return pairs of each group whose rows are all within (1 - FLOOR) / APART of each other."""
    connected = groups([(p.a, p.b) for p in pairs])
    group_of = {row: n for n, group in enumerate(connected) for row in group}
    links = defaultdict[int, list[Pair]](list)
    for pair in pairs:
        links[group_of[pair.a]].append(pair)
    return [
        known
        for n, known in links.items()
        if len(known) == comb(len(connected[n]), 2)
        and APART * (1 - min(p.likeness for p in known)) <= 1 - FLOOR
    ]


@dataclass(eq=False)
class _Group:
    """Rows joined so far. width: the largest distance of two; infinite if it can't be isolated."""

    rows: list[int]
    width: float = 0.0

    def take(self, other: "_Group", distance: Mapping[tuple[int, int], float]) -> None:
        self.width = max(self.width, other.width)
        if self.width * APART > 1 - FLOOR:
            self.width = inf
        else:
            across = ((min(a, b), max(a, b)) for a in self.rows for b in other.rows)
            self.width = max(self.width, *(distance.get(ab, inf) for ab in across))
        self.rows += other.rows


def _groups_apart(pairs: Sequence[Pair], room: float, *, widen: bool) -> dict[int, int]:
    """Return, by row, a number for the widest isolated group that contains the row.

    Pairs are joined to groups, the nearest first. room: distance of a neighbour that each row is
    assumed to have. widen: whether a group may contain a smaller isolated group.
    """
    distance = {(p.a, p.b): 1 - p.likeness for p in pairs}
    group = {row: _Group([row]) for p in pairs for row in (p.a, p.b)}
    apart = dict[int, int]()

    def settle(grown: _Group, nearest: float) -> None:
        """Record the group if it is isolated; nearest: distance of the nearest row outside."""
        if len(grown.rows) > 1 and min(nearest, room) >= APART * grown.width:
            if widen or apart.keys().isdisjoint(grown.rows):
                apart.update(dict.fromkeys(grown.rows, grown.rows[0]))

    for pair in sorted(pairs, key=lambda p: (-p.likeness, p.a, p.b)):
        small, large = sorted((group[pair.a], group[pair.b]), key=lambda g: len(g.rows))
        if small is not large:
            settle(small, 1 - pair.likeness)
            settle(large, 1 - pair.likeness)
            large.take(small, distance)
            group.update(dict.fromkeys(small.rows, large))
    for grown in set(group.values()):
        settle(grown, room)
    return apart


@dataclass(frozen=True)
class _Batch:
    """Pairs to register. scale: the likely scale of each `a` on its `b`, at most 1."""

    a: Rows
    b: Rows
    scale: Floats


def batches(hashed: Hashes, a: Rows, b: Rows, size: int = 64) -> Iterator[_Batch]:
    """Yield these pairs, `size` at a time, each with the wider view first."""
    for start in range(0, len(a), size):
        i, j = a[start : start + size], b[start : start + size]
        best = hashed.distances(i, j).argmin(axis=0)
        i, j = np.where(best == 1, j, i), np.where(best == 1, i, j)
        yield _Batch(i, j, np.where(best == 0, 1, 1 - 2 * CROP).astype(np.float32))


def _likeness(a: NDArray[np.uint8], b: NDArray[np.uint8], scale: Floats) -> Floats:
    """Return the correlations of P pairs of thumbnails, each `a` registered to its `b`: (P,).

    scale: initial scale. Pairs that differ clearly at half the size are not tried at full size.
    """
    smooth = _gauss(SIDE, 1.0)
    x, y = (smooth @ t.astype(np.float32) @ smooth.T for t in (a, b))
    scales, shifts = np.stack([scale, scale], axis=1), np.zeros((len(a), 2), np.float32)
    scales, shifts = _fitted(_halved(x), _halved(y), scales, shifts, steps=3)
    alike = _correlation(_warped(_halved(x), scales, shifts), _halved(y))
    close = np.flatnonzero(alike >= FLOOR - 0.1)
    if len(close):
        x, y = x[close], y[close]
        fit = _fitted(x, y, scales[close], shifts[close], steps=2)
        alike[close] = _correlation(_warped(x, *fit), y)
    return alike


def _fitted(
    x: Floats, y: Floats, scale: Floats, shift: Floats, *, steps: int
) -> tuple[Floats, Floats]:
    """Improve scale and shift (P, 2), of rows and columns, that map each `x` to `y` (P, n, n).

    Gauss-Newton least squares over two scales, two shifts, gain and offset (B. Lucas and T. Kanade,
    "An Iterative Image Registration Technique", 1981).
    """
    for _ in range(steps):
        warped = _warped(x, scale, shift)
        more_scale, more_shift = _step(warped, y, _agreeing(warped, y))
        scale = (scale + more_scale).clip(0.88, 1.14)
        shift = (shift + more_shift).clip(-0.08, 0.08)
    return scale, shift


def _step(x: Floats, y: Floats, where: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the Gauss-Newton step of scale and shift from `x` to `y`, by the pixels `where`."""
    n, at = x.shape[1], _coordinates(x.shape[1])
    down, right = np.gradient(x, axis=1) * (n / 2), np.gradient(x, axis=2) * (n / 2)
    slopes = [down * at[:, None], right * at, down, right, x, np.ones_like(x)]
    j = np.stack([(s * where).reshape(len(x), -1) for s in slopes], axis=1)  # (P, 6, n * n)
    damping = np.diag(np.full(6, 1e-2, np.float32))
    normal = j @ j.transpose(0, 2, 1) + damping
    move = np.linalg.solve(normal, j @ y.reshape(len(y), -1, 1))[:, :, 0]
    gain = move[:, 4:5].clip(0.3, 3.0)
    moved = (move[:, :4] / gain).clip(-0.06, 0.06)
    return moved[:, :2], moved[:, 2:]


def _warped(x: Floats, scale: Floats, shift: Floats) -> Floats:
    """Sample `x` (P, n, n) at scale * position + shift, by linear interpolation."""
    n = x.shape[1]
    at = _coordinates(n)[None, None] * scale[:, :, None] + shift[:, :, None]  # (P, 2, n)
    at = ((at + 1) * (n / 2) - 0.5).clip(0, n - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, :, :, None] - np.arange(n, dtype=np.float32)))
    return weights[:, 0] @ x @ weights[:, 1].transpose(0, 2, 1)


def _correlation(x: Floats, y: Floats) -> Floats:
    """Return the correlations of P pairs (P, n, n) without the TRIMMED worst blocks: (P,)."""
    where = _agreeing(x, y)
    x, y = _standardised(x, where), _standardised(y, where)
    correlation: Floats = (x * y).sum((1, 2)) / where.sum((1, 2), dtype=np.float32)
    return correlation


def _agreeing(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Return the pixels (P, n, n) to compare: no margin, and not the TRIMMED worst of 49 blocks."""
    n = x.shape[1]
    side = (n - 2 * MARGIN) // 7
    inner = slice(MARGIN, MARGIN + 7 * side)
    x, y = (t - t.mean((1, 2), keepdims=True) for t in (x[:, inner, inner], y[:, inner, inner]))
    gain = (x * y).sum((1, 2)) / np.maximum((x * x).sum((1, 2)), 1e-6)
    residual = (y - gain[:, None, None] * x) ** 2
    blocks = residual.reshape(len(x), 7, side, 7, side).sum((2, 4))
    most = np.quantile(blocks, 1 - TRIMMED, axis=(1, 2), keepdims=True)
    where = np.zeros((len(x), n, n), bool)
    where[:, inner, inner] = (blocks <= most).repeat(side, axis=1).repeat(side, axis=2)
    return where


def _standardised(x: Floats, where: NDArray[np.bool_]) -> Floats:
    """Standardise `x` over the pixels `where`; 0 elsewhere, and everywhere if `x` is flat."""
    n = where.sum((1, 2), keepdims=True, dtype=np.float32)
    x = (x - (x * where).sum((1, 2), keepdims=True) / n) * where
    return x / np.maximum(np.sqrt((x * x).sum((1, 2), keepdims=True) / n), 1e-3)


def _halved(x: Floats) -> Floats:
    four = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return four * np.float32(0.25)


def _coordinates(n: int) -> Floats:
    """Return the centres of n pixels on the scale -1..1."""
    return ((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1).astype(np.float32)


def _cells(count: int, crop: float) -> Floats:
    """Return weights (count, SIDE) that average equal cells of the side without its margins."""
    edges = np.linspace(crop * SIDE, (1 - crop) * SIDE, count + 1)
    pixel = np.arange(SIDE)
    shared = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.maximum(shared, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _gauss(n: int, sigma: float) -> Floats:
    """Return the matrix (n, n) of a Gaussian blur with repeated edges; sigma: pixels."""
    distance = np.arange(n)[:, None] - np.arange(-3 * n, 4 * n)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    weights[weights < 1e-6] = 0  # float32 denormals would slow every product
    blur = np.stack([weights[:, 3 * n + k] for k in range(n)], axis=1)
    blur[:, 0] += weights[:, : 3 * n].sum(axis=1)
    blur[:, -1] += weights[:, 4 * n :].sum(axis=1)
    return (blur / blur.sum(axis=1, keepdims=True)).astype(np.float32)
