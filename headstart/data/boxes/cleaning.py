"""Turn annotations into a data set: boxes in pixels of the upright pictures, each one checked.

A box with a fault is left out alone, never its picture, and is listed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.data.boxes.annotated import (
    AnnotatedPicture,
    Annotations,
    BoxForm,
    Doubles,
    Frame,
    FrameOf,
    RawBox,
)
from headstart.data.boxes.places import PictureIndex
from headstart.data.boxes.readings import better_reading
from headstart.data.dataset import Dataset, LeftOut, Remark
from headstart.targets.box_values import ExampleBoxes
from headstart.targets.boxes import BoxesTarget

CLIPPED = 2.0  # pixels that a box may reach beyond the picture: rounding, or inclusive edges


@dataclass
class Cleaner:
    """Collects what is found while the boxes of all pictures are converted."""

    form: BoxForm
    numbers: Mapping[str, int]
    left_out: list[LeftOut] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    raw: list[Doubles] = field(default_factory=list)
    sizes: list[Doubles] = field(default_factory=list)

    def boxes(self, picture: AnnotatedPicture, frame: Frame | None) -> ExampleBoxes:
        """Return the sound boxes of one picture in pixels of its upright frame."""
        size = frame.size if frame else picture.size or (0, 0)
        if not picture.boxes or not all(size):
            return ExampleBoxes([], [], size=size)
        raw = np.array([box.numbers for box in picture.boxes], np.float64)
        every = np.tile(np.array(size, np.float64), (len(raw), 1))
        self.raw.append(raw)
        self.sizes.append(every)
        corners = self.form.corners(raw, every)
        self._frame(picture, frame, corners)
        corners, kept = self._clipped(picture, corners, size), list[int]()
        seen = dict[tuple[Any, ...], str]()
        for i, box in enumerate(picture.boxes):
            if why := _fault(corners[i], size) or _again(box, corners[i], seen):
                self.left_out.append(LeftOut(f"{picture.id}, {box.where}", why))
            else:
                kept.append(i)
        own = [picture.boxes[i] for i in kept]
        return ExampleBoxes(
            corners[kept],
            [self.numbers[box.label] for box in own],
            [box.crowd for box in own],
            [box.difficult for box in own],
            size,
            [box.area for box in own],
        )

    def _clipped(
        self, picture: AnnotatedPicture, corners: Doubles, size: tuple[int, int]
    ) -> Doubles:
        """Cut off up to CLIPPED pixels beyond the picture; a box further out stays as it is."""
        low, high = np.zeros(4), np.array([*size, *size], np.float64)
        with np.errstate(invalid="ignore"):
            beyond = np.maximum(low - corners, corners - high).max(axis=1)
        near = (beyond > 0) & (beyond <= CLIPPED)
        for i in np.flatnonzero(near & (beyond > 1e-3)).tolist():
            why = f"reaches {beyond[i]:.3g} px beyond the picture; cut off"
            where = f"{picture.id}, {picture.boxes[i].where}"
            self.remarks.append(
                Remark(where, "clipped boxes", why, "clipped", (("beyond", float(beyond[i])),))
            )
        return np.where(near[:, None], np.clip(corners, low, high), corners)

    def _frame(self, picture: AnnotatedPicture, frame: Frame | None, corners: Doubles) -> None:
        """Remark on a size that the annotations give and the upright picture does not have."""
        if frame is None or picture.size in (None, frame.size):
            return
        assert picture.size is not None
        given = f"{picture.size[0]}x{picture.size[1]}"
        upright = f"{frame.width}x{frame.height}"
        facts = (("given", given), ("upright", upright))
        if picture.size == frame.stored:
            fits = _outside(corners, frame.stored) < _outside(corners, frame.size)
            more = "; its boxes fit that frame alone" if fits else ""
            why = (
                f"annotated as {given}, the picture before it is turned upright by its EXIF "
                f"orientation ({upright}){more}: check where its boxes lie"
            )
            text = "unrotated_fits" if fits else "unrotated"
            self.remarks.append(Remark(picture.id, "unrotated frames", why, text, facts))
        else:
            why = f"annotated as {given}, but has {upright} pixels: was it resized?"
            self.remarks.append(Remark(picture.id, "other sizes", why, "resized", facts))


def dataset_of(annotations: Annotations, index: PictureIndex, frame_of: FrameOf) -> Dataset:
    """Return the data set of annotations; `frame_of` gives the sizes of pictures.

    An unreadable picture stays, for the check of the data to name it. Raises DataError if there is
    no picture.
    """
    pictures, repeated = _each_once(annotations.pictures)
    if not pictures:
        raise DataError(
            f"The annotations ({annotations.format}) must name pictures in the folder of the data; "
            f"none is usable.{_first(annotations.left_out)}"
        )
    labels = (box.label for picture in pictures for box in picture.boxes)
    names = tuple(sorted({*annotations.names, *labels}))
    cleaner = Cleaner(annotations.form, {name: c for c, name in enumerate(names)})
    own = tuple(cleaner.boxes(p, _frame_or_none(index, p, frame_of)) for p in pictures)
    absent = index.unannotated()
    left_out = (*annotations.left_out, *repeated, *cleaner.left_out, *absent)
    about_form = better_reading(annotations.form, cleaner.raw, cleaner.sizes)
    return Dataset(
        tuple(p.id for p in pictures),
        tuple(index.root / p.file for p in pictures),
        own,
        BoxesTarget(names),
        parts=_column([p.part for p in pictures]),
        groups=_column([p.group for p in pictures]),
        left_out=left_out,
        choice=f"read as {annotations.format}",
        remarks=(*about_form, *annotations.remarks, *cleaner.remarks),
    )


def _each_once(
    pictures: Sequence[AnnotatedPicture],
) -> tuple[list[AnnotatedPicture], list[LeftOut]]:
    """Return the first annotation of each picture, and the others as left out."""
    first = dict[str, AnnotatedPicture]()
    others = [p for p in pictures if first.setdefault(p.id, p) is not p]
    why = "annotated a second time; the first annotation counts"
    return list(first.values()), [LeftOut(p.id, why) for p in others]


def _frame_or_none(
    index: PictureIndex, picture: AnnotatedPicture, frame_of: FrameOf
) -> Frame | None:
    try:
        return frame_of(index.root / picture.file)
    except (DataError, OSError):
        return None


def _fault(corners: NDArray[np.float64], size: tuple[int, int]) -> str:
    """Return why a box can't be used, or ""."""
    if not np.isfinite(corners).all():
        return "a box with a number that is not finite"
    a, b, c, d = corners.tolist()
    if c <= a or d <= b:
        return f"an empty box ({c - a:.4g} x {d - b:.4g} px)"
    beyond = max(-a, -b, c - size[0], d - size[1])
    if beyond > 0:
        return f"reaches {beyond:.4g} px beyond the picture ({size[0]} x {size[1]})"
    return ""


def _again(box: RawBox, corners: NDArray[np.float64], seen: dict[tuple[Any, ...], str]) -> str:
    """Return that the same box of the same class is there already, or ""."""
    key = box.label, *corners.astype(np.float32).tolist()
    first = seen.setdefault(key, box.where)
    return f"the same box as {first}" if first != box.where else ""


def _outside(corners: Doubles, size: tuple[int, int]) -> float:
    with np.errstate(invalid="ignore"):
        return float((corners[:, 2:] > np.array(size) + CLIPPED).any(axis=1).mean())


def _column(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values) if any(values) else ()


def _first(left_out: Sequence[LeftOut]) -> str:
    named: Iterator[str] = (f" The first: {o.path}: {o.reason}." for o in left_out)
    return next(named, "")
