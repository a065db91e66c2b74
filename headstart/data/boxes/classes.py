"""Read the classes of whole pictures from annotations without boxes: COCO's and Label Studio's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.tables import Cells
from headstart.data.boxes.annotated import Annotations
from headstart.data.boxes.coco import is_coco
from headstart.data.boxes.label_studio import is_label_studio, picture_of
from headstart.data.boxes.layouts import BoxLayout
from headstart.data.boxes.places import PictureIndex
from headstart.data.dataset import LeftOut

UNANSWERED = "a picture without a class in the annotations"
Classes = dict[str, list[str]]  # the classes of each picture, by its path relative to the folder


def class_rows(
    layout: BoxLayout, annotations: Annotations, index: PictureIndex
) -> tuple[list[Cells], list[LeftOut]] | None:
    """Return rows with `path`, and `label` or `labels`, and what is left out.

    None if there is a box, or no picture with a class: then the annotations are of boxes.
    """
    if any(picture.boxes for picture in annotations.pictures):
        return None
    try:
        return _rows(layout, index)
    except (AttributeError, KeyError, IndexError, TypeError):  # the reader of boxes names the fault
        return None


def _rows(layout: BoxLayout, index: PictureIndex) -> tuple[list[Cells], list[LeftOut]] | None:
    found, left_out = Classes(), list[LeftOut]()
    for path, plain in layout.values or ():
        near = path.parent.relative_to(layout.root)
        named = _of_tasks if is_label_studio(plain) else _of_coco if is_coco(plain) else None
        for name, labels in named(plain, index, near) if named else ():
            if isinstance(name, DataError):
                left_out.append(LeftOut(display(path.relative_to(layout.root)), str(name)))
            else:
                found.setdefault(name, []).extend(labels)
    if not any(found.values()):
        return None
    if max(map(len, found.values())) > 1:
        return [{"path": name, "labels": "|".join(all)} for name, all in found.items()], left_out
    left_out += [LeftOut(name, UNANSWERED) for name, labels in found.items() if not labels]
    return [{"path": n, "label": labels[0]} for n, labels in found.items() if labels], left_out


def _of_coco(
    plain: Mapping[str, Any], index: PictureIndex, near: Path
) -> Iterator[tuple[str | DataError, list[str]]]:
    names = {kind.get("id"): kind.get("name") for kind in plain.get("categories", ())}
    labels = dict[Any, list[str]]()
    for number, note in enumerate(plain.get("annotations", ()), 1):
        try:
            label = as_label(names.get(note.get("category_id")))
        except DataError as error:
            yield DataError(f"annotation {number}: the name of its category {error}"), []
            continue
        if label not in labels.setdefault(note.get("image_id"), []):
            labels[note.get("image_id")].append(label)
    for image in plain.get("images", ()):
        try:
            file = index.find(str(image.get("file_name", "")), near)
            yield file.as_posix(), labels.get(image.get("id"), [])
        except DataError as error:
            yield DataError(f"{display(str(image.get('file_name')))[:80]}: {error}"), []


def _of_tasks(
    plain: list[Any], index: PictureIndex, near: Path
) -> Iterator[tuple[str | DataError, list[str]]]:
    for task in plain:
        try:
            yield picture_of(task, index, near).as_posix(), list(dict.fromkeys(_choices(task)))
        except DataError as error:
            yield error, []


def _choices(task: Mapping[str, Any]) -> Iterator[str]:
    """Yield the choices of a task: of its first finished annotation, or of JSON-MIN's columns."""
    if "annotations" in task:
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        results = done[0]["result"] if done else []
        for one in results:
            if one.get("type") == "choices":
                yield from map(as_label, one["value"]["choices"])
        return
    for name, value in task.items():
        if name in ("choice", "choices", "label", "class", "sentiment"):
            several = value.get("choices", []) if isinstance(value, Mapping) else value
            yield from map(as_label, several if isinstance(several, list) else [several])
