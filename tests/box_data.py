"""The same pictures and boxes, written in every format that is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("car", "traffic sign")
Box = tuple[str, float, float, float, float]


@dataclass(frozen=True)
class Drawn:
    """One picture: its name, its upright size, its EXIF orientation and its boxes."""

    name: str
    width: int
    height: int
    orientation: int
    boxes: tuple[Box, ...]


def drawn(n: int = 9, seed: int = 0, most: int = 5) -> list[Drawn]:
    """n pictures, of all eight orientations and one without boxes, each with `most` others."""
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        width, height = int(rng.integers(60, 90)), int(rng.integers(40, 58))
        boxes = []
        for _ in range(most if i else 0):
            a, b = rng.integers(0, width - 21), rng.integers(0, height - 21)
            w, h = rng.integers(12, 20, 2) + rng.integers(0, 4, 2) / 4
            name = NAMES[int(rng.integers(len(NAMES)))]
            boxes.append((name, float(a), float(b), float(a + w), float(b + h)))
        boxes = list({box[1:3]: box for box in boxes}.values())
        found.append(Drawn(f"p{i}.jpg", width, height, i % 8 + 1, tuple(boxes)))
    return found


def save(one: Drawn, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (one.height, one.width) if one.orientation > 4 else (one.width, one.height)
    number = int("".join(filter(str.isdigit, one.name)))
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = one.orientation
    Image.fromarray(pixels).resize(size).save(path, exif=exif.tobytes())


def coco(folder: Path, pictures: list[Drawn]) -> Path:
    for one in pictures:
        save(one, folder / "images" / one.name)
    categories = [{"id": 7, "name": NAMES[1]}, {"id": 3, "name": NAMES[0]}]
    images = [
        dict(id=10 + i, file_name=p.name, width=p.width, height=p.height)
        for i, p in enumerate(pictures)
    ]
    boxes = [(10 + i, box) for i, p in enumerate(pictures) for box in p.boxes]
    annotations = [
        dict(id=k, image_id=i, category_id={"car": 3}.get(name, 7), iscrowd=0,
             bbox=[a, b, c - a, d - b])
        for k, (i, (name, a, b, c, d)) in enumerate(boxes, 1)
    ]  # fmt: skip
    plain = dict(images=images, annotations=annotations, categories=categories)
    (folder / "instances.json").write_text(json.dumps(plain))
    return folder / "instances.json"


def yolo(folder: Path, pictures: list[Drawn]) -> Path:
    for one in pictures:
        save(one, folder / "images" / one.name)
        lines = [
            f"{NAMES.index(name)} {(a + c) / 2 / one.width:.9f} {(b + d) / 2 / one.height:.9f} "
            f"{(c - a) / one.width:.9f} {(d - b) / one.height:.9f}"
            for name, a, b, c, d in one.boxes
        ]
        text = folder / "labels" / f"{Path(one.name).stem}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("\n".join(lines))
    names = "\n".join(f"  {i}: {name}  # a class" for i, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(f"path: .\ntrain: images\nnc: 2\nnames:\n{names}\n")
    return folder / "data.yaml"


def voc(folder: Path, pictures: list[Drawn], base: int = 1) -> Path:
    for one in pictures:
        save(one, folder / "JPEGImages" / one.name)
        objects = "".join(
            f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{a + base}</xmin>"
            f"<ymin>{b + base}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for name, a, b, c, d in one.boxes
        )
        text = folder / "Annotations" / f"{Path(one.name).stem}.xml"
        text.parent.mkdir(exist_ok=True)
        text.write_text(
            f"<annotation><filename>{one.name}</filename><size><width>{one.width}</width>"
            f"<height>{one.height}</height></size>{objects}</annotation>"
        )
    return folder


def label_studio(folder: Path, pictures: list[Drawn]) -> Path:
    tasks: list[Any] = []
    for number, one in enumerate(pictures, 1):
        save(one, folder / "images" / one.name)
        results = [
            {
                "type": "rectanglelabels",
                "original_width": one.width,
                "original_height": one.height,
                "value": {
                    "x": 100 * a / one.width,
                    "y": 100 * b / one.height,
                    "width": 100 * (c - a) / one.width,
                    "height": 100 * (d - b) / one.height,
                    "rotation": 0,
                    "rectanglelabels": [name],
                },
            }
            for name, a, b, c, d in one.boxes
        ]
        data = {"image": f"/data/upload/1/0123abcd-{one.name}"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results}]})
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


def cvat(folder: Path, pictures: list[Drawn]) -> Path:
    parts = []
    for number, one in enumerate(pictures):
        save(one, folder / "images" / one.name)
        boxes = "".join(
            f'<box label="{name}" occluded="0" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>'
            for name, a, b, c, d in one.boxes
        )
        parts.append(
            f'<image id="{number}" name="images/{one.name}" width="{one.width}" '
            f'height="{one.height}">{boxes}</image>'
        )
    (folder / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta/>{''.join(parts)}</annotations>"
    )
    return folder / "annotations.xml"


def table(folder: Path, pictures: list[Drawn]) -> Path:
    rows = ["path,label,xmin,ymin,xmax,ymax"]
    for one in pictures:
        save(one, folder / "images" / one.name)
        rows += [f"images/{one.name},{','.join(map(str, box))}" for box in one.boxes]
        rows += [] if one.boxes else [f"images/{one.name},,,,,"]
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return folder / "boxes.csv"


FORMATS: dict[str, Callable[[Path, list[Drawn]], Path]] = {
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "label_studio": label_studio,
    "cvat": cvat,
    "table": table,
}
