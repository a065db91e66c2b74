"""Explain one detection of a picture, and find the training boxes whose features are nearest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import FRAME
from headstart.base.errors import DataError, HeadstartError, UnknownName
from headstart.data.content import read_checked
from headstart.data.dataset import CheckedFile, Dataset, LeftOut
from headstart.explaining.boxes.explanation import BoxExplanation, NearBox
from headstart.explaining.boxes.occlusion import occlusion
from headstart.explaining.boxes.opened import OpenedDetector
from headstart.explaining.neighbours import COUNT
from headstart.heads.nearest import unit
from headstart.modalities.images.letterbox import out_of
from headstart.targets.box_matching import Detections
from headstart.targets.box_values import BoxLabels
from headstart.targets.boxes import answers_of


def try_explain(
    opened: OpenedDetector, id: str, source: Path | CheckedFile, name: str | None = None
) -> BoxExplanation | LeftOut:
    """Explain the surest detection in a picture, of the class `name` if that is given.

    Returns a LeftOut for a picture that can't be read, or in which nothing reaches its threshold.
    Raises UnknownName for an unknown class.
    """
    try:
        return explain(opened, id, source, name)
    except UnknownName:
        raise
    except (HeadstartError, OSError, MemoryError) as error:
        why = str(error).removeprefix(f"{CheckedFile.of(source).path} ")
        return LeftOut(id, why or type(error).__name__)


def explain(
    opened: OpenedDetector, id: str, source: Path | CheckedFile, name: str | None = None
) -> BoxExplanation:
    """Do the work of `try_explain`; raises DataError where it returns a LeftOut."""
    label = None if name is None else class_number(opened, name)
    batch = opened.input.prepare(opened.input.read(read_checked(opened.input, source)[0]))
    pixels, frame = batch["pixels"][0], batch[FRAME]
    (found,) = opened.detections(pixels[None])
    best = _surest(opened, found, label)
    corners, own = found.corners[best], int(found.labels[best])
    score = float(found.scores[best])
    map = occlusion(opened, pixels, np.asarray(corners, np.float64), own, score)
    placing = opened.input.placing(*(int(side) for side in frame[0, 4:6]))
    x, y = placing.left, placing.top
    inside = slice(y, y + placing.height), slice(x, x + placing.width)
    features = opened.features(pixels, corners[None])[0] if opened.mapped else None
    return BoxExplanation(
        id,
        pixels[inside],
        _plain(corners - [x, y, x, y]),
        _plain(out_of(corners[None, None], frame)[0, 0]),
        opened.target.names[own],
        score,
        own,
        replace(map, values=map.values[inside]),
        scale=float(frame[0, 2]),
        features=features,
    )


def class_number(opened: OpenedDetector, name: str) -> int:
    """Return the number of a class; raises UnknownName with the nearest names."""
    names = opened.target.names
    if name not in names:
        raise UnknownName("class of this model", name, names)
    return names.index(name)


def _surest(opened: OpenedDetector, found: Detections, label: int | None) -> int:
    answers = answers_of([found])  # by falling score
    taken = opened.target.taken(answers)[0]
    if label is not None:
        taken = taken & (answers["labels"][0] == label)
    if not taken.any():
        what = "" if label is None else f" of {opened.target.names[label]}"
        raise DataError(f"no detection{what} reaches its threshold, so there is none to explain")
    return int(np.argsort(-found.scores, kind="stable")[np.flatnonzero(taken)[0]])


def _plain(corners: Any) -> tuple[float, float, float, float]:
    a, b, c, d = (float(side) for side in corners)
    return a, b, c, d


@dataclass(frozen=True, eq=False)
class KnownBoxes:
    """The boxes of training pictures. x: (M, D) features of unit length. near: M values without
    their distance."""

    x: NDArray[np.float32]
    near: tuple[NearBox, ...]

    @classmethod
    def of(
        cls, opened: OpenedDetector, rows: Dataset, progress: Callable[[int, int], None]
    ) -> "KnownBoxes":
        """Compute the features of the boxes that count, in all pictures that can be read."""
        target, y = rows.target, rows.y
        assert isinstance(y, BoxLabels)
        names: Sequence[str] = target.settings()["names"]
        parts, near = list[NDArray[np.float32]](), list[NearBox]()
        for row, (id, file) in enumerate(zip(rows.ids, rows.files, strict=True)):
            own = y[row].take(~y[row].ignored)
            progress(row, len(rows))
            pixels = _pixels(opened, file) if len(own) else None
            if pixels is None:
                continue
            corners = opened.input.placing(*own.size).into(own.corners)
            parts.append(opened.features(pixels, corners))
            source = CheckedFile.of(file).path
            near += [
                NearBox(id, names[c], 0.0, source, _plain(box))
                for c, box in zip(own.labels, own.corners, strict=True)
            ]
        if not parts:
            raise DataError("no training picture with boxes can be read")
        return cls(unit(np.concatenate(parts)), tuple(near))

    def nearest(self, features: NDArray[np.float32], count: int = COUNT) -> tuple[NearBox, ...]:
        """Return the boxes nearest to features (D,), at most one of each picture."""
        away = np.linalg.norm(self.x - unit(features[None]), axis=1)
        found = dict[str, NearBox]()
        for i in np.argsort(away, kind="stable"):
            near = self.near[i]
            found.setdefault(near.id, replace(near, distance=float(away[i])))
            if len(found) == count:
                break
        return tuple(found.values())


def _pixels(opened: OpenedDetector, file: CheckedFile) -> NDArray[np.uint8] | None:
    try:
        raw = opened.input.read(read_checked(opened.input, file)[0])
    except (HeadstartError, OSError):
        return None
    pixels: NDArray[np.uint8] = opened.input.prepare(raw)["pixels"][0]
    return pixels
