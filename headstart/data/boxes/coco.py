"""Read COCO's JSON: lists of images, annotations and categories."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.boxes.annotated import (
    AnnotatedPicture,
    Annotations,
    BoxForm,
    RawBox,
    four,
    number,
    size_of,
)
from headstart.data.boxes.parsing import each
from headstart.data.boxes.places import PictureIndex, part_named
from headstart.data.dataset import LeftOut

NOUNS = {"images": "image", "annotations": "annotation", "categories": "category"}


def is_coco(plain: Any) -> bool:
    """Return whether a JSON value has the lists of COCO's format."""
    return isinstance(plain, Mapping) and all(isinstance(plain.get(key), list) for key in NOUNS)


@dataclass
class CocoFile:
    """One file while it is read. ids are kept as texts, since some tools quote them.

    categories: names by id. images: entries by id. boxes: by the id of their image.
    """

    path: Path
    index: PictureIndex
    categories: dict[str, str] = field(default_factory=dict)
    images: dict[str, tuple[Path, tuple[int, int] | None]] = field(default_factory=dict)
    boxes: dict[str, list[RawBox]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def category(self, item: Any) -> None:
        id, name = str(item["id"]), as_label(item["name"])
        if self.categories.setdefault(id, name) != name:
            raise DataError(f"id {id} is {self.categories[id]!r} already, and {name!r} here")

    def image(self, item: Any) -> None:
        id, name = str(item["id"]), str(item["file_name"])
        if id in self.images:
            raise DataError(f"id {id} is that of another picture already")
        try:
            file = self.index.find(name, self.near)
        except DataError as error:
            self.lost.add(id)
            raise DataError(f"{name}: {error}") from error
        self.images[id] = file, size_of(item.get("width"), item.get("height"))
        self.boxes[id] = []

    def annotation(self, item: Any) -> None:
        image, category = str(item["image_id"]), str(item["category_id"])
        if image in self.lost:
            return  # with its picture
        if image not in self.images:
            raise DataError(f"its image_id {image} is that of no picture")
        if category not in self.categories:
            raise DataError(f"its category_id {category} is that of no category")
        if not item.get("bbox"):
            mask = bool(item.get("segmentation"))
            raise DataError(
                "an outline (mask) without a bbox; outlines are not turned into boxes"
                if mask
                else "it has no bbox"
            )
        numbers, flags = four(item["bbox"]), (item.get("iscrowd"), item.get("ignore"))
        label, where = self.categories[category], f"annotation {item.get('id', '?')}"
        area = _area(item.get("area"), numbers[2] * numbers[3])
        own = RawBox(label, numbers, where, bool(flags[0]), bool(flags[1]), area)
        self.boxes[image].append(own)

    def places(self, key: str, items: Sequence[Any]) -> Callable[[int], str]:
        """Return what names an item in messages."""
        shown, noun = display(self.path.relative_to(self.index.root)), NOUNS[key]
        return lambda i: f"{shown}, {noun} {_id(items[i])}"

    @property
    def near(self) -> Path:
        return self.path.parent.relative_to(self.index.root)


def read_coco(files: Mapping[Path, Any], index: PictureIndex) -> Annotations:
    """Return the annotations of COCO files, by path; a file's name may name the part."""
    pictures, left_out, names = dict[Path, AnnotatedPicture](), list[LeftOut](), list[str]()
    for path, plain in files.items():
        own = CocoFile(path, index)
        for key, use in (
            ("categories", own.category),
            ("images", own.image),
            ("annotations", own.annotation),
        ):
            left_out += each(plain[key], own.places(key, plain[key]), use)
        names += own.categories.values()
        for id, (file, size) in own.images.items():
            left_out += _join(pictures, own, id, AnnotatedPicture(
                file, display(file), tuple(own.boxes[id]), size, _part(path, file)
            ))  # fmt: skip
    return Annotations(
        "COCO", BoxForm("xywh"), tuple(pictures.values()), tuple(names), tuple(left_out)
    )


def _join(
    pictures: dict[Path, AnnotatedPicture], own: CocoFile, id: str, new: AnnotatedPicture
) -> list[LeftOut]:
    """Add a picture; one that is there already gets the boxes of both entries."""
    old = pictures.setdefault(new.file, new)
    if old is new:
        return []
    pictures[new.file] = AnnotatedPicture(
        old.file, old.id, (*old.boxes, *new.boxes), old.size or new.size, old.part
    )
    why = f"the picture {new.id} is listed before; its boxes are joined to those there"
    return [LeftOut(f"{display(own.path.name)}, image {id}", why, expected=True)]


def _area(given: object, of_box: float) -> float:
    """Return the area of an object's outline; NaN where none is given, or that of the box."""
    try:
        area = number(given)
    except DataError:
        return math.nan
    known = 0 < area < math.inf and not math.isclose(area, of_box, rel_tol=1e-6)
    return area if known else math.nan


def _part(path: Path, file: Path) -> str:
    return part_named(path.name) or next(filter(None, map(part_named, file.parts[:-1][::-1])), "")


def _id(item: Any) -> str:
    return str(item.get("id", "?")) if isinstance(item, Mapping) else "?"
