"""Read the JSON that Label Studio exports, in full or as "JSON-MIN"."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

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
from headstart.data.boxes.places import ABSENT, PREFIX, PictureIndex
from headstart.data.dataset import LeftOut

SIDES = ("x", "y", "width", "height")
KEPT = "rectanglelabels"
OUTLINES = ("polygonlabels", "brushlabels", "ellipselabels", "keypointlabels", "vectorlabels")


def is_label_studio(plain: Any) -> bool:
    """Return whether a JSON value is a list of Label Studio's tasks."""
    first = plain[0] if isinstance(plain, list) and plain else None
    if not isinstance(first, Mapping):
        return False
    full = isinstance(first.get("data"), Mapping) and "annotations" in first
    return full or ("annotation_id" in first and "image" in first)


def read_label_studio(path: Path, plain: Any, index: PictureIndex) -> Annotations:
    """Return the annotations of tasks; of several of one task, the first that was not cancelled."""
    found, left_out = dict[Path, AnnotatedPicture](), list[LeftOut]()

    def task(item: Any) -> None:
        file = picture_of(item, index, path.parent.relative_to(index.root))
        results, boxes, sizes = _results(item), list[RawBox](), list[Any]()
        if file in found:
            raise DataError(f"a second task of the picture {display(file)}; the first one counts")
        numbered = list(enumerate(results, 1))
        left_out.extend(
            each(
                numbered,
                lambda i: f"{display(file)}, region {i + 1}",
                lambda pair: boxes.extend(_boxes(*pair)),
            )
        )
        for one in results:
            sizes.append(size_of(one.get("original_width"), one.get("original_height")))
        size = next(filter(None, sizes), None)
        found[file] = AnnotatedPicture(file, display(file), tuple(boxes), size)

    shown = display(path.relative_to(index.root))
    left_out += each(plain, lambda i: f"{shown}, task {_id(plain[i], i)}", task)
    form = BoxForm("xywh", "percent")
    return Annotations("Label Studio", form, tuple(found.values()), (), tuple(left_out))


def _id(item: Any, place: int) -> str:
    return str(item.get("id", place + 1)) if isinstance(item, Mapping) else str(place + 1)


def _results(item: Mapping[str, Any]) -> list[Any]:
    """Return the regions of a task; DataError if nobody has annotated it."""
    if "annotations" not in item:  # JSON-MIN has the regions under the name of the tag
        lists = [value for value in item.values() if isinstance(value, list)]
        return [one for value in lists for one in value if isinstance(one, Mapping)]
    done = [one for one in item["annotations"] if not one.get("was_cancelled")]
    if not done:
        raise DataError("a task without a finished annotation")
    return [one for one in done[0]["result"] if one.get("type") not in ("choices", "rating")]


def _boxes(place: int, item: Mapping[str, Any]) -> Iterator[RawBox]:
    """Yield a box for each label of a region."""
    value = item.get("value", item)
    if outline := next((name for name in OUTLINES if name in value), None):
        kind = outline.removesuffix("labels")
        raise DataError(f"a region of the kind {kind}; outlines are not turned into boxes")
    if KEPT not in value:
        return
    if number(value.get("rotation") or 0):
        raise DataError(f"a box rotated by {value['rotation']:g} degrees; those are not read")
    a, b, c, d = (number(value[name]) for name in SIDES)
    if not value[KEPT]:
        raise DataError("a box without a label")
    for label in value[KEPT]:
        yield RawBox(as_label(label), (a, b, c, d), f"region {place}")


def picture_of(item: Mapping[str, Any], index: PictureIndex, near: Path) -> Path:
    """Return the picture of a task: its file, or the one that was uploaded under another name."""
    data = item.get("data", item)
    texts = [v for v in data.values() if isinstance(v, str)]
    for text in texts:
        for name in _spellings(text):
            try:
                return index.find(name, near)
            except DataError as error:
                if str(error) != ABSENT:
                    raise
    raise DataError(f"{display(texts[0])[:80] if texts else 'a task'}: {ABSENT}")


def _spellings(text: str) -> Iterator[str]:
    url = urlsplit(text)
    inner = parse_qs(url.query).get("d", [])
    for name in (*inner, url.path, text):
        yield name
        folder, _, last = name.rpartition("/")
        if PREFIX.match(last):
            yield PREFIX.sub("", last)
