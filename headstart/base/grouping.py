"""Join pairs of rows into groups."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_COSINE = 0.5  # of a pair's features: copies with noise or JPEG artefacts came down to 0.59


@dataclass(frozen=True)
class Pair:
    """Near duplicates: rows `a` < `b`, and their likeness from 0 to 1."""

    a: int
    b: int
    likeness: float


def groups(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the groups connected by pairs (or longer runs) of rows, each sorted, by union-find.

    >>> groups([(0, 3), (5, 6), (3, 4)])
    ((0, 3, 4), (5, 6))
    """
    parent = {row: row for run in pairs for row in run}

    def root_of(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # halves the path
            row = parent[row]
        return row

    for first, *others in pairs:
        for other in others:
            low, high = sorted((root_of(first), root_of(other)))
            parent[high] = low
    members = defaultdict[int, list[int]](list)
    for row in sorted(parent):
        members[root_of(row)].append(row)
    return tuple(tuple(m) for m in members.values() if len(m) > 1)


def names_of_groups(ids: Sequence[str], together: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return a name for each row, the same for rows that belong together: the id of the first.

    together: the ids of each group.

    >>> names_of_groups(("a", "b", "c"), [("a", "c")])
    ('a', 'b', 'a')
    """
    first = {id: group[0] for group in together for id in group}
    return tuple(first.get(id, id) for id in ids)


def confirmed(pairs: Sequence[Pair], features: NDArray[np.floating[Any]]) -> tuple[Pair, ...]:
    """Return the pairs whose features, rows of (N, D), have a cosine of at least MIN_COSINE."""
    if not pairs:
        return ()
    a, b = (features[[getattr(p, end) for p in pairs]].astype(np.float32) for end in "ab")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return tuple(pair for pair, c in zip(pairs, cosine, strict=True) if c >= MIN_COSINE)
