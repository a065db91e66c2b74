"""Read Pascal VOC: an XML file for each picture, in Annotations/, and lists in ImageSets/Main."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.boxes.annotated import (
    AnnotatedPicture,
    Annotations,
    BoxForm,
    RawBox,
    number,
    size_of,
)
from headstart.data.boxes.parsing import each, read_text, read_xml
from headstart.data.boxes.places import PictureIndex
from headstart.data.dataset import LeftOut, Remark

CORNERS = ("xmin", "ymin", "xmax", "ymax")
LISTS = {"train": "train", "val": "val", "test": "test"}


def read_voc(files: Iterable[Path], index: PictureIndex, base: int = 1) -> Annotations:
    """Return the annotations of VOC's XML files, relative to the index.

    base: where pixels count from. With 1, VOC's own, xmin and ymin are moved by one pixel; with 0
    the numbers are the edges as they stand.
    """
    parts, found, left_out = _parts(index), list[AnnotatedPicture](), list[LeftOut]()
    for file in files:
        try:
            picture, faults = _picture(file, index, base, parts)
        except DataError as error:
            left_out.append(LeftOut(display(file), str(error)))
        else:
            left_out += faults
            found.append(picture)
    remarks = tuple(_about_base(found)) if base == 1 else ()
    form = BoxForm("xyxy")
    return Annotations("Pascal VOC", form, tuple(found), (), tuple(left_out), remarks)


def _picture(
    file: Path, index: PictureIndex, base: int, parts: dict[str, str]
) -> tuple[AnnotatedPicture, list[LeftOut]]:
    root = read_xml(index.root / file)
    if root.tag != "annotation":
        raise DataError(f"an XML file whose first element is <{display(root.tag)[:40]}>")
    own = _picture_of(file, root.findtext("filename", "").strip(), index)
    boxes, items = list[RawBox](), list(enumerate(root.findall("object"), 1))
    faults = each(
        items,
        lambda i: f"{display(file)}, object {i + 1}",
        lambda pair: boxes.append(_box(pair[0], pair[1], base)),
    )
    size = size_of(root.findtext("size/width"), root.findtext("size/height"))
    part = parts.get(file.stem, "")
    return AnnotatedPicture(own, display(own), tuple(boxes), size, part), list(faults)


def _picture_of(file: Path, name: str, index: PictureIndex) -> Path:
    """Return the picture with the stem of an XML file, or else the one that the file names."""
    try:
        return index.find(file.stem, file.parent)
    except DataError as error:
        if not name:
            raise
        try:
            return index.find(name, file.parent)
        except DataError:
            raise error from None


def _box(place: int, item: Element, base: int) -> RawBox:
    box = item.find("bndbox")
    if item.find("robndbox") is not None:
        raise DataError("a rotated box (robndbox); rotated boxes are not read")
    if box is None:
        mask = item.find("polygon") is not None
        raise DataError("an outline (polygon) without a bndbox" if mask else "it has no bndbox")
    a, b, c, d = (number((box.findtext(name) or "").strip()) for name in CORNERS)
    label = as_label(item.findtext("name"))
    difficult = (item.findtext("difficult") or "0").strip() not in ("", "0")
    return RawBox(label, (a - base, b - base, c, d), f"object {place}", difficult=difficult)


def _about_base(found: Iterable[AnnotatedPicture]) -> Iterator[Remark]:
    low = sum(min(box.numbers[:2]) == -1 for picture in found for box in picture.boxes)
    if low:
        yield Remark(
            "",
            "VOC base",
            f"{low:,} boxes begin at 0, where Pascal VOC counts pixels from 1; if these were "
            f"written from 0 on, say --voc-base 0",
            "voc_base",
            (("n", low), ("flag", "--voc-base 0")),
        )


def _parts(index: PictureIndex) -> dict[str, str]:
    """Return the part of each picture, by its stem, from lists in ImageSets/Main."""
    named = dict[str, str]()
    for text in index.texts:
        if text.parent.parts[-2:] == ("ImageSets", "Main") and text.stem in LISTS:
            for line in _lines(index.root / text):
                named.setdefault(
                    Path(line[0]).stem if "/" in line[0] else line[0], LISTS[text.stem]
                )
    return named


def _lines(path: Path) -> Iterator[list[Any]]:
    try:
        lines = read_text(path).splitlines()
    except DataError:
        return
    yield from (cells for line in lines if (cells := line.split()))
