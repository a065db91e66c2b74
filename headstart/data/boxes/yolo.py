"""Read YOLO folders: data.yaml, pictures in images/ and a text file for each in labels/."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.boxes.annotated import AnnotatedPicture, Annotations, BoxForm, RawBox, number
from headstart.data.boxes.parsing import each, read_text, read_yaml
from headstart.data.boxes.places import UNANNOTATED, PictureIndex
from headstart.data.dataset import LeftOut

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LISTS = {"classes", "obj", "notes", "readme", "license", "train", "val", "valid", "test"}
FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def is_yolo(plain: Mapping[str, Any]) -> bool:
    """Return whether the keys of a YAML file are those of YOLO's data.yaml."""
    return bool(plain.get("names")) and any(part in plain for part in ("path", *PARTS))


def read_yolo(path: Path, index: PictureIndex) -> Annotations:
    """Return the annotations of a data.yaml; classes are the names that it gives to numbers."""
    plain = read_yaml(path)
    names, found = _names(plain.get("names"), path), list[AnnotatedPicture]()
    left_out = list[LeftOut]()
    texts = {text.as_posix() for text in index.texts}
    for file, part in _pictures(plain, path, index, left_out):
        label = _label_file(file)
        index.annotated.add(file)
        if label.as_posix() not in texts:
            left_out.append(LeftOut(display(file), UNANNOTATED))
            continue
        boxes, faults = _boxes(index.root / label, display(label), names)
        left_out += faults
        found.append(AnnotatedPicture(file, display(file), boxes, part=part))
    left_out += _orphans(index, {_label_file(file) for file in index.files})
    return Annotations(
        "YOLO", BoxForm("centre", "shares"), tuple(found), tuple(names.values()), tuple(left_out)
    )


def _names(plain: Any, path: Path) -> dict[str, str]:
    """Return the name of each class by its number as text."""
    pairs = plain.items() if isinstance(plain, dict) else enumerate(plain or [])
    if not isinstance(plain, dict | list):
        raise DataError(f"{display(path)} must name its classes under `names:`, and does not.")
    return {str(key).strip(): as_label(name) for key, name in pairs}


def _pictures(
    plain: Mapping[str, Any], path: Path, index: PictureIndex, left_out: list[LeftOut]
) -> Iterator[tuple[Path, str]]:
    """Yield the pictures of each part, the first one that names a picture keeping it."""
    base, seen = path.parent.relative_to(index.root), set[Path]()
    places = {key: plain[key] for key in PARTS if plain.get(key)} or {"": ["."]}
    for key, values in places.items():
        for text in values if isinstance(values, list) else [values]:
            place = _place(str(text), base, str(plain.get("path") or ""), index)
            for file in _inside(place, index, left_out):
                if file not in seen:
                    seen.add(file)
                    yield file, PARTS.get(key, "")


def _place(text: str, base: Path, root: str, index: PictureIndex) -> Path:
    """Return the folder or list, relative to the index, that a data.yaml names.

    A path that leads out of the data is read without its "..", an absolute one, which is usually of
    another machine, from the first of its ends that is there.
    """
    parts, before = _parts(text), _parts(root)
    ways = [before + parts, parts]
    if text.startswith(("/", "\\")) or root.startswith(("/", "\\")) or ":" in text[:3]:
        ways += [(before + parts)[i:] for i in range(1, len(before + parts))]
    places = [base.joinpath(*names) for names in ways]
    there = {*index.texts, *(folder for file in index.files for folder in file.parents)}
    return next((place for place in places if place in there), places[0])


def _parts(text: str) -> list[str]:
    return [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _inside(place: Path, index: PictureIndex, left_out: list[LeftOut]) -> list[Path]:
    """Return the pictures in a folder, or those that a text file lists."""
    if place not in index.texts:
        return [file for file in index.files if file.is_relative_to(place)]
    lines = [line.strip() for line in read_text(index.root / place).splitlines()]
    found, shown = list[Path](), display(place)
    named = [line for line in lines if line]
    left_out += each(
        named,
        lambda i: f"{shown}, {display(named[i])}",
        lambda name: found.append(index.find(name, place.parent)),
    )
    return found


def _label_file(picture: Path) -> Path:
    """Return where the boxes of a picture are: labels/ in place of the last images/."""
    parts = list(picture.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _orphans(index: PictureIndex, wanted: set[Path]) -> Iterator[LeftOut]:
    """Yield text files in folders of boxes that belong to no picture."""
    places = {label.parent for label in wanted} - {Path()}
    for text in index.texts:
        other = text.suffix != ".txt" or text.stem.lower() in LISTS
        if text.parent in places and text not in wanted and not other:
            yield LeftOut(display(text), "boxes of a picture that is not there")


def _boxes(
    path: Path, shown: str, names: Mapping[str, str]
) -> tuple[tuple[RawBox, ...], list[LeftOut]]:
    found = list[RawBox]()
    try:
        lines = [line.split() for line in read_text(path).splitlines()]
    except DataError as error:
        return (), [LeftOut(shown, str(error))]
    numbered = [(i, cells) for i, cells in enumerate(lines, 1) if cells]
    faults = each(
        numbered,
        lambda i: f"{shown}, line {numbered[i][0]}",
        lambda item: found.append(_box(item[0], item[1], names)),
    )
    return tuple(found), list(faults)


def _box(line: int, cells: list[str], names: Mapping[str, str]) -> RawBox:
    if len(cells) == 9:
        raise DataError("four corners of a rotated box; rotated boxes are not read")
    if len(cells) > 6 and len(cells) % 2:
        raise DataError(f"an outline of {len(cells) // 2} points; outlines are not turned to boxes")
    if len(cells) == 6:
        raise DataError("six numbers: with a score, a detection and no label")
    if len(cells) != 5:
        raise DataError(f"a line is a class and four numbers; it has {len(cells)}")
    key = cells[0].removesuffix(".0")
    if key not in names:
        raise DataError(f"its class {key} has no name in data.yaml")
    a, b, c, d = map(number, cells[1:])
    return RawBox(names[key], (a, b, c, d), f"line {line}")
