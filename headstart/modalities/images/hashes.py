"""Hashes of pictures, and the pairs of rows whose hashes are nearly equal, without all pairs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

BITS = 64
BYTES = BITS // 8
MAX_DISTANCE = 6  # bits in which the hashes of a pair may differ: at least two bytes are the same
CROWDED = 100_000  # pictures; of more, each is compared with at most REACH others in an order
REACH = 256

Hash = NDArray[np.uint64]  # (N,)
Rows = NDArray[np.intp]
Bits = NDArray[np.int8]


def packed(bits: NDArray[np.bool_]) -> Hash:  # (N, 64) -> (N,)
    """Return 64 bits a row as one number."""
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


@dataclass(frozen=True, eq=False)
class Hashes:
    """Hashes of whole pictures and of pictures without their margin.

    A pair's distance is the smallest of three: whole to whole, and each whole to the inside of the
    other.
    """

    whole: Hash
    inside: Hash

    def distances(self, a: Rows, b: Rows) -> NDArray[np.uint8]:
        """Return the three distances of P pairs in bits, (3, P)."""
        ways = (self.whole, self.whole), (self.whole, self.inside), (self.inside, self.whole)
        return np.stack([np.bitwise_count(x[a] ^ y[b]) for x, y in ways])

    def candidates(self, budget: int) -> tuple[Rows, Rows]:
        """Return rows a and b > a of all pairs within MAX_DISTANCE, or within a smaller distance
        (at least 0) if there are more than `budget` pairs.

        Of more than CROWDED rows, some pairs among crowds of nearly equal hashes are left out.
        """
        nearest = _Nearest(self, budget)
        count = len(self.whole)
        if count <= CROWDED and 2 * _sorted_work(self) > count * (count - 1):
            for pairs in self._all_pairs():
                nearest.take(*pairs)
        else:
            for pairs in self._by_sorting(REACH if count > CROWDED else 2 * count, nearest):
                nearest.take(*pairs)
        return nearest.rows()

    def _by_sorting(self, reach: int, nearest: "_Nearest") -> Iterator[tuple[Rows, Rows]]:
        """Yield pairs of rows, some of them several times, by 28 sorts, one for every two bytes.

        Hashes that differ in MAX_DISTANCE bits share two of their eight bytes, and stand together
        where hashes are in the order of these bytes. reach: hashes after each that are looked at.
        """
        count = len(self.whole)
        both = np.concatenate([self.whole, self.inside])
        for turned in _turned(both):
            order = np.argsort(turned, kind="stable").astype(np.int32)
            for first, second in _neighbours(turned[order], reach, nearest):
                a, b = order[first], order[second]
                own = ((a < count) | (b < count)) & (a % count != b % count)
                yield a[own] % count, b[own] % count

    def _all_pairs(self, size: int = 1024) -> Iterator[tuple[Rows, Rows]]:
        """Yield the pairs up to MAX_DISTANCE, block by block, by products of all hashes."""
        whole, inside = _signs(self.whole), _signs(self.inside)
        agree = BITS - 2 * MAX_DISTANCE  # the dot product of two hashes at that distance
        for i in range(0, len(whole), size):
            x, inner = whole[i : i + size], inside[i : i + size]
            for j in range(i, len(whole), size):
                y = whole[j : j + size]
                near = x @ y.T >= agree
                near |= x @ inside[j : j + size].T >= agree
                near |= inner @ y.T >= agree
                a, b = np.nonzero(np.triu(near, 1) if i == j else near)
                yield a + i, b + j


@dataclass(eq=False)
class _Nearest:
    """The pairs kept so far. most: the distance up to which pairs are kept."""

    hashes: Hashes
    budget: int
    most: int = field(default_factory=lambda: MAX_DISTANCE)
    keys: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    distance: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    waiting: list[NDArray[np.int64]] = field(default_factory=list)
    held: int = 0  # pairs that wait

    def take(self, a: Rows, b: Rows) -> None:
        """Add pairs, in any order, also some that are there already."""
        if len(a):
            first, second = np.minimum(a, b).astype(np.int64), np.maximum(a, b)
            self.waiting.append(first * len(self.hashes.whole) + second)
            self.held += len(a)
        if self.held > max(self.budget, 1_000_000):
            self._merge()

    def rows(self) -> tuple[Rows, Rows]:
        self._merge()
        a, b = np.divmod(self.keys, max(len(self.hashes.whole), 1))
        return a.astype(np.intp), b.astype(np.intp)

    def _merge(self) -> None:
        self.keys = np.unique(np.concatenate([self.keys, *self.waiting]))
        self.waiting, self.held = [], 0
        pairs = np.divmod(self.keys, max(len(self.hashes.whole), 1))
        self.distance = self.hashes.distances(*pairs).min(axis=0)
        self._keep()
        while len(self.keys) > self.budget and self.most > 0:
            self.most -= 1
            self._keep()

    def _keep(self) -> None:
        kept = self.distance <= self.most
        self.keys, self.distance = self.keys[kept], self.distance[kept]


def _neighbours(ordered: Hash, reach: int, nearest: _Nearest) -> Iterator[tuple[Rows, Rows]]:
    """Yield the places of pairs within the distance of `nearest`: at least those that agree in
    their first two bytes and are at most `reach` places apart."""
    key = (ordered >> np.uint64(BITS - 16)).astype(np.uint16)
    at = np.arange(len(key), dtype=np.int32)
    after = np.searchsorted(key, key, side="right").astype(np.int32) - at - 1  # of the same key
    for step in range(1, reach + 1):
        crowd = at[after[at] >= step]
        if not len(crowd):
            return
        if 4 * len(crowd) > len(key):  # of most: all neighbours, which spares gathering
            apart = ordered[:-step] ^ ordered[step:]
            first = np.flatnonzero(np.bitwise_count(apart) <= nearest.most)
        else:
            at = crowd
            apart = ordered[at] ^ ordered[at + step]
            first = at[np.bitwise_count(apart) <= nearest.most]
        yield first, first + step


def _turned(hashes: Hash) -> Iterator[Hash]:
    """Yield the hashes with two of their bytes first, for each of the 28 pairs of bytes."""
    octets = hashes.astype(">u8")[:, None].view(np.uint8)
    for first in combinations(range(BYTES), 2):
        others = [byte for byte in range(BYTES) if byte not in first]
        turned = np.ascontiguousarray(octets[:, [*first, *others]])
        yield turned.view(">u8")[:, 0].astype(np.uint64)


def _sorted_work(hashes: Hashes) -> int:
    """Return how many pairs of rows `_by_sorting` compares without a limit, about."""
    both = np.concatenate([hashes.whole, hashes.inside])
    work = 0
    for turned in _turned(both):
        sizes = np.bincount((turned >> np.uint64(BITS - 16)).astype(np.intp), minlength=1)
        work += int((sizes * (sizes - 1) // 2).sum())
    return work


def _signs(hashes: Hash) -> NDArray[np.float32]:  # (N,) -> (N, 64) of -1 and 1
    bits = np.unpackbits(hashes.astype(">u8")[:, None].view(np.uint8), axis=1)
    return bits.astype(np.float32) * 2 - 1
