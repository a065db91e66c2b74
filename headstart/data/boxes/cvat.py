"""Read the XML of "CVAT for images"."""

from collections.abc import Iterator, Sequence
from pathlib import Path
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
from headstart.data.boxes.parsing import each
from headstart.data.boxes.places import PictureIndex, part_named
from headstart.data.dataset import LeftOut

CORNERS = ("xtl", "ytl", "xbr", "ybr")
OUTLINES = ("polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton")


def is_cvat(root: Element) -> bool:
    """Return whether an XML file is one of CVAT's."""
    return (
        root.tag == "annotations" and root.find("meta") is not None or bool(root.findall("image"))
    )


def read_cvat(path: Path, root: Element, index: PictureIndex) -> Annotations:
    """Return the annotations of a CVAT file; raises DataError for tracks of a video."""
    if root.findall("track"):
        raise DataError(
            f"{display(path)} holds tracks of a video, and boxes of pictures are read. Export the "
            f'task as "CVAT for images".'
        )
    found, left_out = list[AnnotatedPicture](), list[LeftOut]()
    near = path.parent.relative_to(index.root)
    for image in root.findall("image"):
        name = image.get("name", "")
        try:
            file = index.find(name, near)
        except DataError as error:
            left_out.append(LeftOut(f"{display(path.name)}, {display(name)}", str(error)))
            continue
        boxes, faults = _boxes(image, display(file))
        left_out += faults
        size = size_of(image.get("width"), image.get("height"))
        part = part_named(image.get("subset", ""))
        found.append(AnnotatedPicture(file, display(file), tuple(boxes), size, part))
    names = tuple(_names(root))
    return Annotations("CVAT", BoxForm("xyxy"), tuple(found), names, tuple(left_out))


def _names(root: Element) -> Iterator[str]:
    for label in root.iterfind("meta//labels/label"):
        if label.findtext("name", "").strip() and label.findtext("type", "any") in (
            "any",
            "rectangle",
        ):
            yield as_label(label.findtext("name"))


def _boxes(image: Element, shown: str) -> tuple[list[RawBox], Sequence[LeftOut]]:
    shapes, boxes = [item for item in image if item.tag != "tag"], list[RawBox]()
    faults = each(
        list(enumerate(shapes, 1)),
        lambda i: f"{shown}, shape {i + 1}",
        lambda pair: boxes.append(_box(pair[0], pair[1])),
    )
    return boxes, faults


def _box(place: int, item: Element) -> RawBox:
    if item.tag in OUTLINES:
        raise DataError(f"a {item.tag}; only boxes are read, and outlines are not turned into them")
    if item.tag != "box":
        raise DataError(f"a shape <{display(item.tag)[:40]}>, which is no box")
    if number(item.get("rotation", "0")):
        raise DataError(f"a box rotated by {item.get('rotation')} degrees; those are not read")
    a, b, c, d = (number(item.get(name)) for name in CORNERS)
    return RawBox(as_label(item.get("label")), (a, b, c, d), f"shape {place}")
