"""What is remarkable in the boxes of a data set, and in the names of its classes."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from headstart.targets.box_values import BoxLabels, ExampleBoxes, overlaps
from headstart.targets.target import Noticed

Facts = tuple[tuple[str, str | float], ...]
TRAINED_SIDE = 512  # pixels to which the longer side is brought for training
TINY = 3.0  # pixels of a side at that size; a head at stride 8 has nothing left of such a box
SAME_PLACE = 0.95  # overlap of two boxes around one thing
SHORTEST = 4  # letters of a name in which one wrong letter shows


def box_remarks(y: BoxLabels, names: Sequence[str]) -> Iterator[Noticed]:
    """Yield tiny boxes, boxes of two classes in one place, and classes of nearly the same name.

    >>> y = BoxLabels.of([ExampleBoxes([[0, 0, 1, 9]], [0], size=(640, 480))])
    >>> [(row, kind) for row, kind, *_ in box_remarks(y, ("cell",))]
    [(0, 'tiny boxes')]
    """
    for row in range(len(y)):
        boxes = y[row]
        for found in (*_tiny(boxes, names), *_two_labels(boxes, names)):
            yield found._replace(row=row)
    for a, b in combinations(names, 2):
        if how := alike(a, b):
            why = f"{a!r} and {b!r} differ {how}: are they one class?"
            text = "alike_case" if "case" in how else "alike_letter"
            yield Noticed(None, "alike names", why, text, (("a", a), ("b", b)))


def _tiny(boxes: ExampleBoxes, names: Sequence[str]) -> Iterator[Noticed]:
    scale = min(1.0, TRAINED_SIDE / max(*boxes.size, 1))
    sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
    for i in np.flatnonzero((sides * scale < TINY).any(axis=1) & ~boxes.ignored).tolist():
        wide, high = sides[i].tolist()
        a, b = boxes.corners[i, :2].tolist()
        why = (
            f"a box of {names[boxes.labels[i]]} of {wide:.3g} x {high:.3g} px at ({a:.6g}, {b:.6g})"
            + (f", {wide * scale:.2g} x {high * scale:.2g} in training" if scale < 1 else "")
        )
        facts: Facts = (
            *(("name", names[boxes.labels[i]]), ("wide", wide), ("high", high)),
            *(("x", a), ("y", b), ("less_wide", wide * scale), ("less_high", high * scale)),
        )
        yield Noticed(None, "tiny boxes", why, "tiny_scaled" if scale < 1 else "tiny", facts)


def _two_labels(boxes: ExampleBoxes, names: Sequence[str]) -> Iterator[Noticed]:
    shares = overlaps(boxes.corners, boxes.corners)
    other = boxes.labels[:, None] != boxes.labels[None]
    for i, j in zip(*np.nonzero(np.triu(shares >= SAME_PLACE, 1) & other), strict=True):
        x, y, *_ = boxes.corners[i].tolist()
        a, b = names[boxes.labels[i]], names[boxes.labels[j]]
        why = f"{a} and {b} are in the same place, at ({x:.6g}, {y:.6g})"
        facts: Facts = (("a", a), ("b", b), ("x", x), ("y", y))
        yield Noticed(None, "two classes", why, "two_classes", facts)


def alike(a: str, b: str) -> str:
    """Return how two names differ if by case or by one letter alone, or "".

    Digits tell names apart ("type 1", "type 2"), and short names do by each letter.

    >>> alike("RBC", "rbc"), alike("platelet", "platelets"), alike("cat", "bat"), alike("a1", "a2")
    ('by case alone', 'by one letter', '', '')
    """
    if a.casefold() == b.casefold():
        return "by case alone"
    short, long = sorted((a, b), key=len)
    if len(short) < SHORTEST or len(long) > len(short) + 1:
        return ""
    start = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), None)
    at = len(short) if start is None else start
    if len(short) < len(long):
        one = short[at:] == long[at + 1 :] and long[at].isalpha()
        return "by one letter" if one else ""
    one = short[at + 1 :] == long[at + 1 :] and short[at].isalpha() and long[at].isalpha()
    return "by one letter" if one else ""
