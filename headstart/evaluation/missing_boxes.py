"""Objects without a label: confident detections where an example has no box."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels, ExampleBoxes, areas, overlaps

LISTED = 50  # detections at most
APART = 0.3  # overlap with a labelled box up to which a detection may be of another object
PART = 0.7  # share of the smaller of two boxes of a class from which on it is a part of the other


@dataclass(frozen=True)
class MissingBox:
    """A detection where no box is labelled.

    row: the number of the example. label: the number of the class. corners: xmin, ymin, xmax, ymax
    in pixels of the upright example.
    """

    row: int
    label: int
    score: float
    corners: tuple[float, float, float, float]


def likely_missing(
    found: Sequence[Detections], labels: BoxLabels, most: int = LISTED
) -> tuple[MissingBox, ...]:
    """Return the likeliest objects that nobody labelled, by falling score of their detection.

    found, labels: of the same N examples; examples of unknown boxes are passed over. A model must
    not have learned from these labels, or it has learned that nothing is there. A detection on a
    box of another class is an error of the class, and one in a crowd is of the crowd. An object
    that was detected twice is named once.

    >>> y = BoxLabels.of([ExampleBoxes([[0, 0, 10, 10]], [0])])
    >>> corners = np.array([[0, 0, 10, 9], [40, 40, 50, 50]], np.float32)
    >>> likely_missing([Detections(corners, np.array([0.9, 0.8]), np.array([0, 0]))], y)
    (MissingBox(row=0, label=0, score=0.8, corners=(40.0, 40.0, 50.0, 50.0)),)
    """
    missing = [
        MissingBox(row, int(own.labels[d]), float(own.scores[d]), _four(own.corners[d]))
        for row, own in enumerate(found)
        if labels.known[row]
        for d in _without_label(own, labels[row])
    ]
    return tuple(sorted(missing, key=lambda one: (-one.score, one.row, one.corners))[:most])


def _four(corners: NDArray[np.floating]) -> tuple[float, float, float, float]:
    a, b, c, d = corners.tolist()
    return a, b, c, d


def _without_label(found: Detections, boxes: ExampleBoxes) -> list[int]:
    """Return the detections of other objects than the labelled ones, each object once."""
    order = np.argsort(-found.scores, kind="stable")
    own = Detections(found.corners[order], found.scores[order], found.labels[order])
    free = ~_taken(own, boxes.corners, boxes.labels, boxes.crowd)
    kept = list[int]()
    for d in np.flatnonzero(free).tolist():
        one = Detections(own.corners[[d]], own.scores[[d]], own.labels[[d]])
        if not _taken(one, own.corners[kept], own.labels[kept])[0]:
            kept.append(d)
    return order[kept].tolist() if kept else []


def _taken(
    found: Detections,
    corners: NDArray[np.floating],
    labels: NDArray[np.integer],
    crowd: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return (D,) whether each detection is of one of these boxes (B, 4), or a part of one."""
    if not len(corners) or not len(found):
        return np.zeros(len(found), bool)
    shares = overlaps(found.corners, corners, crowd)
    sizes, others = areas(found.corners)[:, None], areas(corners)[None]
    whole = overlaps(found.corners, corners)
    inter = whole * (sizes + others) / (1 + whole)
    part = inter >= PART * np.minimum(sizes, others)
    alike = found.labels[:, None] == labels[None]
    return np.asarray(((shares >= APART) | (part & alike)).any(axis=1))
