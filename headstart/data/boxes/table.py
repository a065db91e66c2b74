"""Read a table of boxes: the columns path, label, xmin, ymin, xmax, ymax, a row for each box."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.tables import Cells, Columns, column_names
from headstart.data.boxes.annotated import AnnotatedPicture, Annotations, BoxForm, RawBox, number
from headstart.data.boxes.places import ABSENT, PictureIndex
from headstart.data.dataset import LeftOut
from headstart.data.readers import (
    MANIFESTS,
    PART_COLUMNS,
    part_cell,
    part_columns,
    records_of,
    spelled,
    text_cell,
)

CORNERS = ("xmin", "ymin", "xmax", "ymax")
NEEDED = ("path", "label", *CORNERS)
FLAGS = ("crowd", "difficult")
OPTIONAL = (*PART_COLUMNS, "group", *FLAGS)


def is_box_table(path: Path) -> bool:
    """Return whether a file is a table with the columns of boxes."""
    return path.suffix.lower() in MANIFESTS and set(NEEDED) <= column_names(path, NEEDED)


@dataclass
class BoxTable:
    """A table while it is read. first: the facts of each picture, from its first row."""

    path: Path
    index: PictureIndex
    parts: list[str] = field(default_factory=list)
    first: dict[str, AnnotatedPicture] = field(default_factory=dict)
    boxes: dict[str, list[RawBox]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, number: int, cells: Cells) -> None:
        where = f"{display(self.path)}, row {number}"
        own = self.picture(cells, where)
        if own.id not in self.boxes:
            return
        try:
            if box := _box(cells, f"row {number}"):
                self.boxes[own.id].append(box)
        except DataError as error:
            self.left_out.append(LeftOut(f"{own.id}, row {number}", str(error)))

    def picture(self, cells: Cells, where: str) -> AnnotatedPicture:
        """Return the picture of a row; a missing one is left out, once."""
        folder = self.path.parent.resolve()
        relative = spelled(folder, text_cell(cells, "path", where))
        file, id = folder / relative, display(relative)
        part, group = part_cell(cells, self.parts, where), text_cell(cells, "group", where)
        new = AnnotatedPicture(file, id, (), part=part, group=group)
        old = self.first.setdefault(id, new)
        if old != new:
            raise DataError(
                f"{where}: the rows of a picture name one part and one group; an earlier row of "
                f"{id} has others. Make them equal."
            )
        if old is new and not file.is_file():
            self.left_out.append(LeftOut(id, ABSENT))
        elif old is new:
            self.boxes[id] = []
            if file.is_relative_to(self.index.root):
                self.index.annotated.add(file.relative_to(self.index.root))
        return old


def read_box_table(path: Path, index: PictureIndex) -> Annotations:
    """Return the annotations of a table; a row without label and numbers is a picture without.

    Paths are relative to the table's folder, or absolute. Optional columns: part (as in other
    manifests), group, crowd and difficult (0 or 1).
    """
    records = records_of(path, Columns(NEEDED, OPTIONAL))
    used, unused = part_columns([cells for _, cells in records])
    table = BoxTable(path, index, used)
    for row, cells in records:
        table.add(row, cells)
    why = "the column {!r} names no parts (train, val, test): not used"
    not_used = [LeftOut(display(path), why.format(name), expected=True) for name in unused]
    pictures = tuple(replace(table.first[id], boxes=tuple(own)) for id, own in table.boxes.items())
    left_out = (*not_used, *table.left_out)
    return Annotations("a table of boxes", BoxForm("xyxy"), pictures, (), left_out)


def _box(cells: Cells, where: str) -> RawBox | None:
    """Return the box of a row, None if the row has no label and no numbers."""
    numbers = [_cell(cells, name) for name in CORNERS]
    label = _cell(cells, "label")
    if not label and not any(numbers):
        return None
    if not label:
        raise DataError("it has no label")
    a, b, c, d = map(number, numbers)
    crowd, difficult = (_cell(cells, name).lower() in ("1", "true", "yes") for name in FLAGS)
    return RawBox(as_label(label), (a, b, c, d), where, crowd, difficult)


def _cell(cells: Cells, name: str) -> str:
    return text_cell(cells, name, name, blank=True) if cells.get(name) is not None else ""
