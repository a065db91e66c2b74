"""Detections in files: COCO's results, read and written, and YOLO's text."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.data.boxes.annotated import BoxForm, four, number
from headstart.data.boxes.coco import CocoFile
from headstart.data.boxes.layouts import BoxLayout
from headstart.data.boxes.parsing import each, read_json
from headstart.data.boxes.places import PictureIndex
from headstart.data.dataset import Dataset, LeftOut
from headstart.targets.box_matching import Detections
from headstart.targets.boxes import BoxesTarget, answers_of, detections
from headstart.targets.target import Outputs

FORM = BoxForm("xywh")


@dataclass
class ResultsFile:
    """The detections of a file while they are read.

    rows: the row of each picture, by its COCO id, its id here, and its file's name or stem if no
    other picture has it. labels: the number of each class, by its COCO id and by its name. alike:
    the rows of the pictures with a name or stem.
    """

    data: Dataset
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    found: dict[int, list[tuple[float, ...]]] = field(default_factory=dict)
    alike: dict[str, list[int]] = field(default_factory=dict)
    _endings: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # by name

    def __post_init__(self) -> None:
        names: Sequence[str] = self.data.target.settings()["names"]
        self.labels |= {name: c for c, name in enumerate(names)}
        self.found |= {row: [] for row in range(len(self.data))}
        for row, id in enumerate(self.data.ids):
            place = PurePosixPath(id)
            for name in {place.name, place.stem}:
                self.alike.setdefault(name, []).append(row)
        self.rows |= {name: rows[0] for name, rows in self.alike.items() if len(rows) == 1}
        self.rows |= {id: row for row, id in enumerate(self.data.ids)}

    def with_ids(self, files: Mapping[Path, Any], index: PictureIndex) -> None:
        """Add the ids that COCO files give to pictures and to classes."""
        rows = {str(source): row for row, source in enumerate(self.data.sources)}
        for path, plain in files.items():
            own = CocoFile(path, index)
            each(plain["categories"], str, own.category)
            each(plain["images"], str, own.image)
            named = {id: rows.get(str(index.root / file)) for id, (file, _) in own.images.items()}
            self.rows |= {id: row for id, row in named.items() if row is not None}
            self.labels |= {
                id: self.labels[name] for id, name in own.categories.items() if name in self.labels
            }

    def with_paths(self, image_ids: Iterable[str]) -> None:
        """Add the ids that are paths: each is that of the picture whose own path has the longest
        ending in common. Of several ids that come to one picture, the one with the longest counts,
        and a known id before all.
        """
        asked, claims = dict.fromkeys(image_ids), dict[int, list[tuple[int, str]]]()
        known = {self.rows[id] for id in asked if id in self.rows}
        for id in asked:
            if id not in self.rows and (found := self._nearest(id)) and found[1] not in known:
                claims.setdefault(found[1], []).append((found[0], id))
        for row, own in claims.items():
            longest = max(own)[0]
            nearest = [id for length, id in own if length == longest]
            if len(nearest) == 1:
                self.rows[nearest[0]] = row

    def _nearest(self, id: str) -> tuple[int, int] | None:
        """Return how many names at the end of a path are those of a picture, and its row.

        Of several such pictures it is the one whose whole id is there. None without one, and for a
        name without a folder.
        """
        parts = _parts(id)
        if len(parts) < 2:
            return None
        endings = self._endings_of(parts[-1])
        ends = ((n, "/".join(parts[-n:])) for n in range(len(parts), 0, -1))
        n, ending = next(((n, end) for n, end in ends if end in endings), (0, ""))
        rows = endings.get(ending, [])
        if len(rows) > 1:
            rows = [row for row in rows if len(_parts(self.data.ids[row])) <= n]
        return (n, rows[0]) if len(rows) == 1 else None

    def _endings_of(self, name: str) -> dict[str, list[int]]:
        """Return the rows of the pictures of a name by each ending of their paths."""
        if name not in self._endings:
            found = defaultdict[str, list[int]](list)
            for row in self.alike.get(name, ()):
                parts = [*_parts(display(Path(self.data.sources[row])))[:-1], name]
                for n in range(1, len(parts) + 1):
                    found["/".join(parts[-n:])].append(row)
            self._endings[name] = dict(found)
        return self._endings[name]

    def add(self, item: Any) -> None:
        id, label = str(item["image_id"]), str(item.get("category_name", item["category_id"]))
        if id not in self.rows:
            name = next(iter(_parts(id)[-1:]), id)
            which = "several pictures" if len(self.alike.get(name, ())) > 1 else "no picture"
            raise DataError(f"its image_id {id} is that of {which} of the data")
        if label not in self.labels:
            raise DataError(f"its category_id {label} is that of no class of the data")
        values = (*four(item["bbox"]), number(item["score"]))
        if not np.isfinite(values).all():
            raise DataError("a number of it is not finite")
        self.found[self.rows[id]].append((*values, self.labels[label]))

    def detections(self) -> list[Detections]:
        """Return the detections of each row."""
        return [_detections(np.array(rows).reshape(-1, 6)) for rows in self.found.values()]


def read_results(path: Path, data: Dataset, source: Path) -> tuple[Outputs, tuple[LeftOut, ...]]:
    """Return the detections of a COCO results file as answers for the rows of boxes data.

    A result has an image_id (COCO's id, or the picture's path, name or stem), a category_id
    (COCO's id, or the name of the class; or category_name), a bbox (xmin, ymin, width, height in
    pixels of the upright picture) and a score. source: where `data` was read from.
    Results that fit no row are left out, each by itself. Raises DataError for another file.
    """
    plain = read_json(path)
    if not isinstance(plain, list):
        raise DataError(
            f"{display(path)} must be COCO's results, a list of objects with image_id, "
            f"category_id, bbox and score; it holds another value."
        )
    assert isinstance(data.target, BoxesTarget)
    assert data.input is not None
    own, layout = ResultsFile(data), BoxLayout(source, asked=True)
    if files := layout.coco_files():
        own.with_ids(files, PictureIndex.of(layout.root, data.input))
    own.with_paths(str(item["image_id"]) for item in plain if _names_picture(item))
    left_out = each(plain, lambda i: f"{display(path)}, result {i + 1}", own.add)
    return answers_of(own.detections()), tuple(left_out)


def coco_results(ids: Sequence[str], answers: Outputs, target: BoxesTarget) -> list[dict[str, Any]]:
    """Return answers as COCO's results, which `read_results` reads.

    An image_id is the id of the picture, its path: data may have its name several times.
    """
    found = list[dict[str, Any]]()
    for image, one in zip(ids, detections(answers), strict=True):
        for box, score, label in zip(one.corners, one.scores, one.labels, strict=True):
            a, b, c, d = (round(float(side), 3) for side in box)
            found.append(
                {
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "category_name": target.names[label],
                    "bbox": [a, b, round(c - a, 3), round(d - b, 3)],
                    "score": round(float(score), 6),
                }
            )
    return found


def yolo_text(found: Detections, size: tuple[int, int]) -> str:
    """Return detections of one picture as YOLO's text, a line for each: the number of its class,
    its middle and sides as shares of the upright picture, and its score.

    size: width and height of the upright picture, pixels.

    >>> one = Detections(np.array([[10, 10, 30, 20]]), np.array([0.5]), np.array([1]))
    >>> yolo_text(one, (100, 50))
    '1 0.20000000 0.30000000 0.20000000 0.20000000 0.500000\\n'
    """
    width, height = size
    lines = list[str]()
    for box, score, label in zip(found.corners, found.scores, found.labels, strict=True):
        a, b, c, d = (float(side) for side in box)
        shares = (a + c) / 2 / width, (b + d) / 2 / height, (c - a) / width, (d - b) / height
        lines.append(" ".join([str(int(label)), *(f"{v:.8f}" for v in shares), f"{score:.6f}"]))
    return "".join(f"{line}\n" for line in lines)


def _names_picture(item: object) -> bool:
    return isinstance(item, Mapping) and "image_id" in item


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def _detections(rows: Any) -> Detections:
    corners = FORM.corners(rows[:, :4], np.ones((len(rows), 2)))
    return Detections(corners, rows[:, 4], rows[:, 5].astype(np.int64))
