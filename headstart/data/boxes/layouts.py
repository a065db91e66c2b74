"""Find the annotations of boxes in a folder or file, by its layout, and read them."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import Input
from headstart.base.display import display
from headstart.base.errors import DataError, HeadstartError
from headstart.data.boxes import coco, cvat, label_studio, yolo
from headstart.data.boxes.annotated import Annotations
from headstart.data.boxes.parsing import read_bytes, read_json, read_xml, read_yaml
from headstart.data.boxes.places import PictureIndex
from headstart.data.boxes.table import is_box_table, read_box_table
from headstart.data.boxes.voc import read_voc
from headstart.data.readers import MANIFESTS
from headstart.data.walking import walk

Reader = Callable[[PictureIndex], Annotations]
LAYOUTS = (
    "COCO's JSON, a YOLO data.yaml, Pascal VOC (Annotations/*.xml), Label Studio's JSON, CVAT's "
    "XML, or a CSV with the columns path, label, xmin, ymin, xmax, ymax"
)
MOST_JSON = 50  # files of a folder that are looked into
VOC = re.compile(rb"<annotation[\s>]")


@dataclass
class BoxLayout:
    """Looks for annotations below a path.

    asked: whether boxes were asked for; else files that only look like annotations are passed
    over, and so is their damage. base: where VOC's pixels count from. faults: of those files.
    values: of JSON files, once they are read.
    """

    path: Path
    asked: bool = False
    base: int = 1
    faults: list[str] = field(default_factory=list)
    values: list[tuple[Path, Any]] | None = None

    @property
    def root(self) -> Path:
        """The folder of the data; annotations may be in a folder of that name in it."""
        if self.path.is_dir():
            return self.path.resolve()
        folder = self.path.resolve().parent
        return folder.parent if folder.name.lower() == "annotations" else folder

    def reader(self) -> Reader | None:
        """Return what reads the annotations, None if there are none."""
        ways = (self.yolo, self.voc, self.json, self.xml, self.table)
        return next((reader for way in ways if (reader := way()) is not None), None)

    def yolo(self) -> Reader | None:
        for path in self._files(yolo.FILES):
            plain = self._tried(read_yaml, path)
            if plain is not None and yolo.is_yolo(plain):
                return partial(yolo.read_yolo, path)
        return None

    def voc(self) -> Reader | None:
        if self.path.is_file():
            return None
        root = self.root
        places = [p for p in (root, *_folders(root)) if (p / "Annotations").is_dir()]
        named = [p for p in places if self.asked or (p / "JPEGImages").is_dir()]
        files = [file for p in named for file in sorted((p / "Annotations").rglob("*.xml"))]
        if not files and self.asked:
            files = [root / file for file in walk(root).files if file.suffix.lower() == ".xml"]
        files = [file for file in files if VOC.search(_head(file))]
        relative = [file.relative_to(root) for file in files]
        return (lambda index: read_voc(relative, index, self.base)) if relative else None

    def json(self) -> Reader | None:
        for path, plain in self._values():
            if label_studio.is_label_studio(plain):
                return partial(label_studio.read_label_studio, path, plain)
        files = self.coco_files()
        return partial(coco.read_coco, files) if files else None

    def coco_files(self) -> dict[Path, Any]:
        """Return the values of COCO's JSON files by path; of many, those named instances_…"""
        found = {path: plain for path, plain in self._values() if coco.is_coco(plain)}
        own = {path: plain for path, plain in found.items() if path.name.startswith("instances")}
        return own or found

    def _values(self) -> list[tuple[Path, Any]]:
        if self.values is None:
            paths = list(self._named(".json"))[:MOST_JSON]
            own = [path for path in paths if self.asked or _speaks_of_boxes(path)]
            self.values = [(path, self._tried(read_json, path)) for path in own]
        return self.values

    def xml(self) -> Reader | None:
        for path in self._named(".xml"):
            if b"<annotations" in _head(path):
                root = self._tried(read_xml, path)
                if root is not None and cvat.is_cvat(root):
                    return partial(cvat.read_cvat, path, root)
        return None

    def table(self) -> Reader | None:
        for path in (p for suffix in MANIFESTS for p in self._named(suffix)):
            if self._tried(is_box_table, path):
                return partial(read_box_table, path)
        return None

    def _tried(self, read: Callable[[Path], Any], path: Path) -> Any:
        try:
            return read(path)
        except (HeadstartError, OSError) as error:
            if self.path.is_file() and self.asked:
                raise
            self.faults.append(str(error))
            return None

    def _files(self, names: tuple[str, ...]) -> Iterator[Path]:
        if self.path.is_file():
            if self.path.suffix.lower() in (".yaml", ".yml"):
                yield self.path.resolve()
            return
        yield from (self.root / name for name in names if (self.root / name).is_file())

    def _named(self, suffix: str) -> Iterator[Path]:
        """Yield the path itself, or files at the top of the folder and of those in it."""
        if self.path.is_file():
            if self.path.suffix.lower() == suffix:
                yield self.path.resolve()
            return
        inner = [p for p in _folders(self.root) if p.name.lower() == "annotations"]
        for folder in (self.root, *inner):
            named = (folder / n for n in _names(folder) if n.lower().endswith(suffix))
            yield from sorted(p for p in named if p.is_file())
        if suffix == ".json":
            yield from sorted(self.root.glob("*/_annotations.coco.json"))


def annotations_of(layout: BoxLayout, input: Input[Any]) -> tuple[Annotations, PictureIndex] | None:
    """Return the annotations that a layout has, and the pictures of its folder; None without any.

    Raises DataError if boxes were asked for and there are none.
    """
    reader = layout.reader()
    if reader is not None:
        index = PictureIndex.of(layout.root, input)
        return reader(index), index
    if not layout.asked:
        return None
    why = f" {layout.faults[0]}" if layout.faults else ""
    raise DataError(
        f"Boxes are read from {LAYOUTS}; {display(layout.path)} holds none of them.{why}"
    )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _folders(root: Path) -> list[Path]:
    inner = (root / name for name in _names(root) if not name.startswith("."))
    return sorted(path for path in inner if path.is_dir())


def _speaks_of_boxes(path: Path) -> bool:
    """Return whether a JSON file may be annotations: others, however large, are not parsed."""
    try:
        data = read_bytes(path)
    except DataError:
        return False
    return b'"annotation' in data and (b'"categor' in data or b'"data"' in data or b"image" in data)


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(4096)
    except OSError:
        return b""
