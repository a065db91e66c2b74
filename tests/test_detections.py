"""Detections made elsewhere, as COCO's results, are judged by boxes data."""

import json
from pathlib import Path
from typing import Any

import pytest
from box_data import coco, drawn, table

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main


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
