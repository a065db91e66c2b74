"""Rows joined into groups by pairs of them."""

from collections.abc import Sequence


def groups(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Rows joined by pairs (or longer runs) of rows, each group sorted, by union-find.

    >>> groups([(0, 3), (5, 6), (3, 4)])
    ((0, 3, 4), (5, 6))
    """
    parent = dict[int, int]()
    for first, *others in pairs:
        for other in others:
            low, high = sorted((root_of(parent, first), root_of(parent, other)))
            parent[high] = low
    members = dict[int, list[int]]()
    for row in sorted({row for run in pairs for row in run}):
        members.setdefault(root_of(parent, row), []).append(row)
    return tuple(tuple(m) for m in members.values() if len(m) > 1)


def root_of(parent: dict[int, int], row: int) -> int:
    root = row
    while parent.get(root, root) != root:
        root = parent[root]
    while parent.get(row, row) != root:  # shorten the way for whoever comes next
        parent[row], row = root, parent.get(row, row)
    return root
