"""Detections made elsewhere, as COCO's results, are judged by boxes data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_data import Drawn, coco, drawn, save, table

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main
from headstart.data.boxes.results import coco_results
from headstart.targets.box_matching import Detections
from headstart.targets.boxes import BoxesTarget, answers_of


def results(path: Path, shift: float = 0.0, by_name: bool = False) -> list[dict[str, Any]]:
    """The boxes of a COCO file as detections, every second one moved."""
    plain = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in plain["categories"]}
    files = {one["id"]: one["file_name"] for one in plain["images"]}
    return [
        dict(
            image_id=Path(files[one["image_id"]]).stem if by_name else one["image_id"],
            category_id=names[one["category_id"]] if by_name else one["category_id"],
            bbox=[one["bbox"][0] + (i % 2) * shift, *one["bbox"][1:]],
            score=0.9 - i / 1000,
        )
        for i, one in enumerate(plain["annotations"])
    ]


@pytest.mark.parametrize("by_name", [True, False])
def test_detections_are_judged_by_boxes(by_name: bool, tmp_path: Path) -> None:
    """Their pictures and classes are known by COCO's ids, or by names, which other data has too."""
    path = coco(tmp_path / "coco", drawn())
    data = table(tmp_path / "table", drawn()) if by_name else path
    (tmp_path / "right.json").write_text(json.dumps(results(path, by_name=by_name)))
    (tmp_path / "half.json").write_text(json.dumps(results(path, 300.0, by_name)))
    right = hs.evaluate(tmp_path / "right.json", data)
    assert float(right.AP) == pytest.approx(1.0)
    assert float(right.recall) == 1.0
    half = hs.evaluate(str(tmp_path / "half.json"), str(data))
    assert 0.2 < half.AP50.low < half.AP50.value < half.AP50.high < 0.8
    assert set(half.by_class) == {"car", "traffic sign"}


def test_the_command_prints_the_metrics_and_names_what_fits_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco(tmp_path / "coco", drawn())
    odd: list[Any] = [
        dict(image_id=999, category_id=3, bbox=[1, 2, 3, 4], score=0.5),
        dict(image_id=10, category_id=77, bbox=[1, 2, 3, 4], score=0.5),
        dict(image_id=10, category_id=3, bbox=[1, 2, 3, 4], score=float("nan")),
        dict(image_id=10, category_id=3, bbox=[1, 2, 3, 4]),
        3,
    ]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(results(path) + odd))
    assert main(["evaluate", str(file), str(path)]) == 3
    out, err = capsys.readouterr()
    assert "AP50" in out
    assert "traffic sign" in out
    assert err.count("left out") == len(odd)
    assert main(["evaluate", str(file), str(path), "--json"]) == 3
    plain = json.loads(capsys.readouterr().out)
    assert plain["AP"]["value"] == pytest.approx(1.0)
    assert plain["target"] == {"kind": "boxes", "names": ["car", "traffic sign"]}
    assert "COCO small" in plain["by_size"]


def test_sizes_are_those_of_outlines_where_coco_gives_their_areas(tmp_path: Path) -> None:
    path, file = coco(tmp_path / "coco", drawn()), tmp_path / "found.json"
    plain = json.loads(path.read_text())
    file.write_text(json.dumps(results(path)))
    for one in plain["annotations"]:
        one["area"] = 1500.0 if one["category_id"] == 3 else one["bbox"][2] * one["bbox"][3]
    path.write_text(json.dumps(plain))
    sizes = hs.evaluate(file, path).by_size
    cars = sum(one["category_id"] == 3 for one in plain["annotations"])
    assert sizes["COCO medium"].boxes == cars > 0
    assert sizes["COCO small"].boxes == len(plain["annotations"]) - cars > 0
    assert float(sizes["COCO medium"].AP) == pytest.approx(1.0)
    y = hs.read(path).y
    assert y.boxes.areas[y.boxes.labels == 0].tolist() == [1500.0] * cars


# ------------------------------------------------------------ pictures of the same name
NAMES = ("p1.jpg", "clip1/p1.jpg", "clip2/p1.jpg")


def clips(folder: Path) -> hs.Dataset:
    """Three pictures of one name, each with a box at another place."""
    rows = ["path,label,xmin,ymin,xmax,ymax"]
    for i, name in enumerate(NAMES):
        save(Drawn("p1.jpg", 80, 60, 1, ()), folder / name)
        rows.append(f"{name},car,{20 * i},5,{20 * i + 15},20")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return hs.read(folder / "boxes.csv")


def write_found(file: Path, ids: Sequence[str], data: hs.Dataset, rows: Sequence[int]) -> Path:
    """Write the true boxes of these rows, under other ids, as COCO's results."""
    assert isinstance(data.target, BoxesTarget)
    own = [Detections(b.corners, np.ones(1), b.labels) for b in (data.y[i] for i in rows)]
    file.write_text(json.dumps(coco_results(ids, answers_of(own), data.target)))
    return file


@pytest.mark.parametrize("before", ["", "/data/cells/", "cells/", "../moved/"])
def test_detections_in_pictures_of_one_name_come_back(before: str, tmp_path: Path) -> None:
    """However the pictures were named when they were predicted: all of them, or one folder."""
    data, file = clips(tmp_path / "cells"), tmp_path / "found.json"
    assert data.ids == NAMES
    write_found(file, [before + name for name in NAMES], data, range(3))
    every = hs.evaluate(file, tmp_path / "cells/boxes.csv")
    assert float(every.AP) == pytest.approx(1.0)
    assert every.left_out == ()
    write_found(file, [f"{before}clip2/p1.jpg"], data, [2])
    some = hs.evaluate(file, tmp_path / "cells/boxes.csv")
    assert float(some.recall) == pytest.approx(1 / 3)
    assert some.left_out == ()


def test_detections_in_other_pictures_of_one_name_are_left_out(tmp_path: Path) -> None:
    data, file = clips(tmp_path / "cells"), tmp_path / "found.json"
    part = tmp_path / "cells/clip1/boxes.csv"
    part.write_text("path,label,xmin,ymin,xmax,ymax\np1.jpg,car,20,5,35,20\n")
    write_found(file, [f"cells/{name}" for name in NAMES], data, range(3))
    own = hs.evaluate(file, part)
    assert float(own.AP) == pytest.approx(1.0)
    assert len(own.left_out) == 2
    rows = (tmp_path / "cells/boxes.csv").read_text().splitlines()
    (tmp_path / "cells/boxes.csv").write_text("\n".join([rows[0], *rows[2:]]))
    file.write_text(file.read_text().replace("cells/p1.jpg", "p1.jpg"))
    (why,) = hs.evaluate(file, tmp_path / "cells/boxes.csv").left_out
    assert why.reason == "its image_id p1.jpg is that of several pictures of the data"


def test_only_the_test_part_judges(tmp_path: Path) -> None:
    path = coco(tmp_path / "coco", drawn(4))
    data = table(tmp_path / "table", drawn(4))
    rows = data.read_text().splitlines()
    parts = [f"{row},{'test' if 'p3' in row else 'train'}" for row in rows[1:]]
    data.write_text("\n".join([f"{rows[0]},part", *parts]) + "\n")
    found = [one for one in results(path, by_name=True) if one["image_id"] == "p3"]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found))
    assert hs.evaluate(file, data).n == 1
    assert float(hs.evaluate(file, data).AP) == pytest.approx(1.0)
    assert float(hs.evaluate(file, data, part="all").AP) < 1.0


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = coco(tmp_path / "coco", drawn(2))
    with pytest.raises(DataError, match="must be COCO's results"):
        hs.evaluate(path, path)
    file = tmp_path / "found.json"
    file.write_text("[]")
    with pytest.raises(SpecError, match="name the DATA"):
        hs.evaluate(file)
    assert hs.evaluate(file, path).AP.value == 0.0
    assert hs.evaluate(file.rename(tmp_path / "found.JSON"), path).AP.value == 0.0
