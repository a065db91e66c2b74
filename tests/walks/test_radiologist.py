"""A radiologist: pictures of patients become a judged model that abstains."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom
from numpy.typing import NDArray
from PIL import Image
from walk import Person


def x_ray(rng: np.random.Generator, ill: bool) -> NDArray[np.uint16]:
    """12 bits of grey: two dark lungs, and a bright spot if ill."""
    pixels = rng.normal(1_800, 150, (48, 48))
    pixels[8:40, 6:20] -= 900
    pixels[8:40, 28:42] -= 900
    if ill:
        pixels[14:30, 30:40] += 1_300
    return pixels.clip(0, 4_095).astype(np.uint16)


def test_a_radiologist_gets_a_judged_model_that_abstains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    radiologist, rng = Person(tmp_path, monkeypatch, capsys), np.random.default_rng(0)
    Path("images").mkdir()
    lines = ["path,label,group"]
    for patient in range(40):
        for view in range(2):
            name, ill = f"images/p{patient:02}_{view}.dcm", patient % 2 == 0
            Path(name).write_bytes(dicom(x_ray(rng, ill), bits=12))
            lines.append(f"{name},{'pneumonia' if ill else 'normal'},p{patient:02}")
    Path("studies.csv").write_text("\n".join(lines) + "\n")

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pydicom", None)
        radiologist.types("headstart check studies.csv --backbone none", code=1)
    assert "pip install 'headstart[dicom]'" in radiologist.screen
    radiologist.types("headstart check studies.csv --backbone none")
    assert "80" in radiologist.screen
    radiologist.types(
        "headstart train studies.csv --out runs/lungs --strategy extract --class-weights balanced "
        "--precision 0.95"
    )
    rows = list(csv.DictReader(Path("runs/lungs/splits.csv").read_text().splitlines()))
    parts = dict[str, set[str]]()
    for row in rows:
        parts.setdefault(row["path"][7:10], set()).add(row["part"])
    assert all(len(found) == 1 for found in parts.values())  # no patient on both sides
    radiologist.types("headstart evaluate runs/lungs studies.csv")
    assert "recall" in radiologist.screen
    Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save("a hand.png")
    out = radiologist.types("headstart predict runs/lungs 'a hand.png'")
    assert "\tunknown\t" in out
