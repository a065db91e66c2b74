"""Boxes hidden from training: how many of the likeliest missing boxes are they?"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from headstart.data.dataset import Dataset
from headstart.evaluation.missing_boxes import LISTED, MissingBox, likely_missing
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels, ExampleBoxes, overlaps
from headstart.targets.boxes import BoxesTarget, detections

SHARE, SAME = 0.1, 0.5  # of the training boxes; overlap from which on a box is the hidden one
EARLY_EPOCHS = 6  # a quarter of the usual ones
EVERY = 10**9


@dataclass(frozen=True, eq=False)
class Hidden:
    """Data whose training rows lack some boxes. boxes: the hidden ones, by the id of the row."""

    data: Dataset
    boxes: Mapping[str, ExampleBoxes]

    @classmethod
    def of(cls, data: Dataset, share: float = SHARE) -> "Hidden":
        rng, labels, taken = np.random.default_rng(0), list[ExampleBoxes](), {}
        for id, part, own in zip(data.ids, data.parts, data.labels, strict=True):
            gone: NDArray[np.bool_] = (rng.random(len(own)) < share) & ~own.ignored
            gone &= part == "train"
            labels.append(own.take(~gone))
            taken[id] = own.take(gone)
        return cls(replace(data, labels=tuple(labels)), taken)

    def __len__(self) -> int:
        return sum(map(len, self.boxes.values()))

    def right(self, ids: tuple[str, ...], listed: tuple[MissingBox, ...]) -> NDArray[np.bool_]:
        """Return whether each is a hidden box of its class, which counts once."""
        found, taken = np.zeros(len(listed), bool), set[tuple[int, int]]()
        for i, one in enumerate(listed):
            own = self.boxes[ids[one.row]]
            shares = overlaps(np.array([one.corners]), own.corners)[0]
            free = [b for b in range(len(own)) if own.labels[b] == one.label]
            free = [b for b in free if shares[b] >= SAME and (one.row, b) not in taken]
            if free:
                taken.add((one.row, max(free, key=lambda b: float(shares[b]))))
                found[i] = True
        return found


@dataclass(frozen=True, eq=False)
class Judged:
    """Detections in training pictures by a model. limits: its threshold for each class."""

    ids: tuple[str, ...]
    labels: BoxLabels
    found: list[Detections]
    limits: NDArray[np.float64]


def by_itself(data: Dataset, out: Path, settings: Mapping[str, Any]) -> list[Judged]:
    """Judge the training pictures by the model that learned from them."""
    run = hs.train(data, out, **settings)
    answers = run.model.predict(_of(data, "train"), store=None)
    assert isinstance(answers.target, BoxesTarget)
    found = detections(answers.outputs)
    return [Judged(answers.ids, answers.labels, found, np.array(answers.target.thresholds))]


def early(data: Dataset, out: Path, settings: Mapping[str, Any]) -> list[Judged]:
    return by_itself(data, out, {"head": "pyramid", "head_epochs": EARLY_EPOCHS, **settings})


def crosswise(data: Dataset, out: Path, settings: Mapping[str, Any]) -> list[Judged]:
    """Judge each half of the training pictures by a model of the other half."""
    half = np.random.default_rng(1).permutation(len(data)) % 2
    judged = []
    for own in (0, 1):
        asked = [p == "train" and h == own for p, h in zip(data.parts, half, strict=True)]
        parts = ["test" if a else p for a, p in zip(asked, data.parts, strict=True)]
        kept = [i for i, p in enumerate(data.parts) if p != "test"]
        run = hs.train(replace(data, parts=tuple(parts)).take(kept), out / str(own), **settings)
        answers = run.model.predict(data.take(np.flatnonzero(asked)), store=None)
        found, limits = detections(answers.outputs), run.model.target.thresholds
        judged.append(Judged(answers.ids, answers.labels, found, np.array(limits)))
    return judged


WAYS: Mapping[str, Callable[[Dataset, Path, Mapping[str, Any]], list[Judged]]] = {
    "the model itself": by_itself,
    "a model of a quarter of the epochs": early,
    "crosswise, by halves": crosswise,
}


def judged_by(way: str, data: Dataset, out: Path, settings: Mapping[str, Any]) -> dict[str, object]:
    """Return how many of the LISTED likeliest missing boxes are hidden ones, and by chance."""
    hidden, began = Hidden.of(data), time.perf_counter()
    parts = WAYS[way](hidden.data, out, settings)
    ids = tuple(id for part in parts for id in part.ids)
    found = [own for part in parts for own in part.found]
    labels = BoxLabels.of([part.labels[i] for part in parts for i in range(len(part.ids))])
    seconds = time.perf_counter() - began
    every = likely_missing(found, labels, EVERY)
    right = hidden.right(ids, every)
    limits = np.concatenate([np.tile(p.limits, (len(p.ids), 1)) for p in parts])
    sure = np.array([one.score >= limits[one.row, one.label] for one in every])
    return {
        "judged by": way,
        "hidden boxes": len(hidden),
        "listed": min(LISTED, len(every)),
        "of them hidden": int(right[:LISTED].sum()),
        "by chance, of all": round(LISTED * float(right.mean()), 1) if len(every) else 0.0,
        "by chance, above the threshold": round(LISTED * float(right[sure].mean()), 1)
        if sure.any()
        else 0.0,
        "above the threshold": int(sure.sum()),
        "seconds": round(seconds, 1),
    }


def _of(data: Dataset, part: str) -> Dataset:
    return data.take([i for i, own in enumerate(data.parts) if own == part])
