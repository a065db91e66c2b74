"""A radiologist: pictures of patients become a judged model that abstains."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from walk import Person


def x_ray(rng: np.random.Generator, ill: bool) -> Image.Image:
    """16 bits of grey: two dark lungs, and a bright spot if ill."""
    pixels = rng.normal(30_000, 2_500, (48, 48))
    pixels[8:40, 6:20] -= 15_000
    pixels[8:40, 28:42] -= 15_000
    if ill:
        pixels[14:30, 30:40] += 22_000
    return Image.fromarray(pixels.clip(0, 65_535).astype(np.uint16))


def test_a_radiologist_gets_a_judged_model_that_abstains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    radiologist, rng = Person(tmp_path, monkeypatch, capsys), np.random.default_rng(0)
    Path("images").mkdir()
    lines = ["path,label,group"]
    for patient in range(40):
        for view in range(2):
            name, ill = f"images/p{patient:02}_{view}.png", patient % 2 == 0
            x_ray(rng, ill).save(name)
            lines.append(f"{name},{'pneumonia' if ill else 'normal'},p{patient:02}")
    Path("studies.csv").write_text("\n".join(lines) + "\n")

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
