"""The same picture twice: hashes name candidates, registered thumbnails confirm them.

A hash alone floods where all pictures look alike (solar cells, X-rays, scanned forms), so a pair
has to stand two more tests: one thumbnail is fitted onto the other, and what is left must be next
to nothing; and, once there are features, they must point the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.decoding import Pixels

VERSION = 1  # raise it when the same pixels would give another thumbnail
SIDE = 64  # of a thumbnail, pixels
CROP = 0.03  # of a side: the second hash is of the picture without this margin
BITS = 64
MAX_DISTANCE = 6  # bits in which the hashes of a pair may differ
MIN_LIKENESS = 0.985  # correlation of a pair's thumbnails, fitted onto each other
MIN_COSINE = 0.9  # of a pair's features
TRIMMED = 0.1  # of the thumbnail's blocks: the worst are not judged, a watermark may be there
MIN_CONTRAST = 2.0  # grey levels (standard deviation); a flatter picture has nothing to compare

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Rows `a` < `b` show the same picture, with this correlation of their thumbnails."""

    a: int
    b: int
    likeness: float


def thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    """(H, W, 3) -> (SIDE, SIDE) grey levels, whatever the proportions were."""
    small = Image.fromarray(pixels).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    return np.asarray(small.convert("L"))


def hashes(thumbs: NDArray[np.uint8], crop: float = 0.0) -> NDArray[np.int8]:
    """Difference hash: is each of 8x8 cells brighter than its left neighbour? (N, 64) of -1 and 1.

    thumbs: (N, SIDE, SIDE). crop: the share of each side that is cut off before. N. Krawetz, "Kind
    of Like That" (2013). A mark in one place changes the few bits there, and not, as in hashes of
    a cosine transform, all of them.
    """
    rows, columns = _cells(8, crop), _cells(9, crop)
    out = np.empty((len(thumbs), BITS), np.int8)
    for start in range(0, len(thumbs), 4096):
        block = rows @ thumbs[start : start + 4096].astype(np.float32) @ columns.T  # (B, 8, 9)
        brighter = np.diff(block, axis=2) > 0
        out[start : start + 4096] = np.where(brighter, 1, -1).reshape(-1, BITS)
    return out


def near_duplicates(
    thumbs: NDArray[np.uint8],
    *,
    features: Floats | None = None,
    likeness: float = MIN_LIKENESS,
) -> tuple[Pair, ...]:
    """Pairs of rows that show the same picture, rescaled, recompressed, cropped, marked or so.

    thumbs: (N, SIDE, SIDE). features: (N, D); if given, a pair's must have a cosine of at least
    MIN_COSINE. All pairs of hashes are compared, block by block, so memory does not grow with N².
    """
    distinct = np.flatnonzero(thumbs.std(axis=(1, 2)) >= MIN_CONTRAST)
    pairs = list[Pair]()
    for a, b in _candidates(thumbs[distinct]):
        a, b = distinct[a], distinct[b]
        alike = _likeness(thumbs[a], thumbs[b])
        pairs += [
            Pair(int(i), int(j), round(float(s), 4))
            for i, j, s in zip(a, b, alike, strict=True)
            if s >= likeness
        ]
    found = tuple(sorted(pairs, key=lambda pair: (pair.a, pair.b)))
    return found if features is None else confirmed(found, features)


def confirmed(pairs: Sequence[Pair], features: Floats) -> tuple[Pair, ...]:
    """The pairs whose features, rows of (N, D), have a cosine of at least MIN_COSINE."""
    if not pairs:
        return ()
    a, b = (features[[getattr(p, end) for p in pairs]].astype(np.float32) for end in "ab")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return tuple(pair for pair, c in zip(pairs, cosine, strict=True) if c >= MIN_COSINE)


def groups(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Rows joined by pairs (or longer runs) of rows, each group sorted, by union-find.

    >>> groups([(0, 3), (5, 6), (3, 4)])
    ((0, 3, 4), (5, 6))
    """
    parent = dict[int, int]()
    for first, *others in pairs:
        for other in others:
            low, high = sorted((_root(parent, first), _root(parent, other)))
            parent[high] = low
    members = dict[int, list[int]]()
    for row in sorted({row for run in pairs for row in run}):
        members.setdefault(_root(parent, row), []).append(row)
    return tuple(tuple(m) for m in members.values() if len(m) > 1)


def _root(parent: dict[int, int], row: int) -> int:
    root = row
    while parent.get(root, root) != root:
        root = parent[root]
    while parent.get(row, row) != root:  # shorten the way for whoever comes next
        parent[row], row = root, parent.get(row, row)
    return root


def _candidates(
    thumbs: NDArray[np.uint8], block: int = 2048, most: int = 1024
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs a < b whose hashes differ in at most MAX_DISTANCE bits, at most `most` at a time.

    Compared are the whole pictures, and each whole one with the inside of the other.
    """
    whole, inside = (hashes(thumbs, crop).astype(np.float32) for crop in (0.0, CROP))
    agree = BITS - 2 * MAX_DISTANCE  # the dot product of such hashes
    for i in range(0, len(thumbs), block):
        for j in range(i, len(thumbs), block):
            left, right = slice(i, i + block), slice(j, j + block)
            near = whole[left] @ whole[right].T >= agree
            near |= whole[left] @ inside[right].T >= agree
            near |= inside[left] @ whole[right].T >= agree
            a, b = np.nonzero(np.triu(near, 1) if i == j else near)
            for start in range(0, len(a), most):
                yield a[start : start + most] + i, b[start : start + most] + j


def _likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Correlation of the thumbnails of P pairs, after fitting one onto the other: (P,)."""
    smooth = _gauss(SIDE, 0.7)
    x, y = (smooth @ t.astype(np.float32) @ smooth.T for t in (a, b))
    scale, shift = _registered(_halved(x), _halved(y))
    return _correlation(_warped(x, scale, shift), y)


def _registered(x: Floats, y: Floats, steps: int = 4) -> tuple[Floats, Floats]:
    """Scale and shift (P, 2) of the rows and columns that lay each `x` onto its `y`, (P, n, n).

    Least squares by Gauss-Newton over two scales, two shifts, gain and offset: B. Lucas and T.
    Kanade, "An Iterative Image Registration Technique" (1981). Started unscaled and from either
    picture being the inside of the other; the best of the three is taken.
    """
    best = np.full(len(x), -1, np.float32)
    scale, shift = np.ones((len(x), 2), np.float32), np.zeros((len(x), 2), np.float32)
    for start in (1.0, 1 - 2 * CROP, 1 / (1 - 2 * CROP)):
        s, t = np.full_like(scale, start), np.zeros_like(shift)
        for _ in range(steps):
            ds, dt = _step(_warped(x, s, t), y)
            s, t = (s + ds).clip(0.88, 1.14), (t + dt).clip(-0.08, 0.08)
        score = _correlation(_warped(x, s, t), y)
        better = score > best
        best[better], scale[better], shift[better] = score[better], s[better], t[better]
    return scale, shift


def _step(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """One Gauss-Newton step: what to add to scale and shift so that `x` comes nearer to `y`."""
    n, at = x.shape[1], _coordinates(x.shape[1])
    down, right = np.gradient(x, axis=1) * (n / 2), np.gradient(x, axis=2) * (n / 2)
    slopes = [down * at[:, None], right * at, down, right, x, np.ones_like(x)]
    j = np.stack([s[:, 2:-2, 2:-2].reshape(len(x), -1) for s in slopes], axis=1)  # (P, 6, n')
    target = y[:, 2:-2, 2:-2].reshape(len(x), -1, 1)
    normal = j @ j.transpose(0, 2, 1) + np.float32(1e-2) * np.eye(6, dtype=np.float32)
    move = np.linalg.solve(normal, j @ target)[:, :, 0]
    gain = move[:, 4:5].clip(0.3, 3.0)
    moved = (move[:, :4] / gain).clip(-0.06, 0.06)
    return moved[:, :2], moved[:, 2:]


def _warped(x: Floats, scale: Floats, shift: Floats) -> Floats:
    """`x` (P, n, n) sampled, linearly between its pixels, at `scale` * position + `shift`."""
    n = x.shape[1]
    at = _coordinates(n)[None, None] * scale[:, :, None] + shift[:, :, None]  # (P, 2, n)
    at = ((at + 1) * (n / 2) - 0.5).clip(0, n - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, :, :, None] - np.arange(n, dtype=np.float32)))
    return weights[:, 0] @ x @ weights[:, 1].transpose(0, 2, 1)


def _correlation(x: Floats, y: Floats) -> Floats:
    """Of the details of P pairs (P, n, n) in all but the TRIMMED blocks where they differ most."""
    n = x.shape[1]
    detail = np.eye(n, dtype=np.float32) - _gauss(n, n * 6 / 64)
    x, y = (_blocks((detail @ t @ detail.T)[:, 3:-3, 3:-3]) for t in (x, y))  # (P, blocks, m)
    gain = (x * y).sum((1, 2)) / np.maximum((x * x).sum((1, 2)), 1e-6)
    residual = ((y - gain[:, None, None] * x) ** 2).sum(2)
    kept = np.argsort(residual, axis=1)[:, : round(residual.shape[1] * (1 - TRIMMED)), None]
    x, y = (np.take_along_axis(t, kept, axis=1) for t in (x, y))
    x, y = (t - t.mean((1, 2), keepdims=True) for t in (x, y))
    power = np.sqrt((x * x).sum((1, 2)) * (y * y).sum((1, 2)))
    return (x * y).sum((1, 2)) / np.maximum(power, 1e-6)


def _blocks(x: Floats) -> Floats:
    """(P, n, n) -> (P, 49, m): seven by seven blocks, what is over at the edges cut off."""
    side = x.shape[1] // 7
    x = x[:, : 7 * side, : 7 * side].reshape(len(x), 7, side, 7, side)
    return x.transpose(0, 1, 3, 2, 4).reshape(len(x), 49, side * side)


def _halved(x: Floats) -> Floats:
    n = x.shape[1] // 2
    return x.reshape(len(x), n, 2, n, 2).mean((2, 4))


def _coordinates(n: int) -> Floats:
    """Centres of n pixels on the scale -1..1."""
    return ((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1).astype(np.float32)


def _cells(count: int, crop: float) -> Floats:
    """(count, SIDE): averages over equal cells of the side without its margins."""
    edges = np.linspace(crop * SIDE, (1 - crop) * SIDE, count + 1)
    pixel = np.arange(SIDE)
    shared = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.maximum(shared, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _gauss(n: int, sigma: float) -> Floats:
    """(n, n): a blur, `sigma` in pixels, by which edge pixels stand for what lies beyond."""
    distance = np.arange(n)[:, None] - np.arange(-3 * n, 4 * n)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    blur = np.stack([weights[:, 3 * n + k] for k in range(n)], axis=1)
    blur[:, 0] += weights[:, : 3 * n].sum(axis=1)
    blur[:, -1] += weights[:, 4 * n :].sum(axis=1)
    return (blur / blur.sum(axis=1, keepdims=True)).astype(np.float32)
