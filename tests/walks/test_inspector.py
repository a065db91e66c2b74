"""An inspector with phone photographs: check, train, report, predictions in a table."""

import csv
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from walk import Person, noisy, saved


def test_an_inspector_gets_from_photographs_to_a_table_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inspector, rng = Person(tmp_path, monkeypatch, capsys), np.random.default_rng(0)
    for i in range(24):
        part = noisy(rng, 150)
        saved(part, f"parts/sound/IMG_{i:04}.JPG")
        part[12:28, 5:35] = noisy(rng, 20)[12:28, 5:35]  # a dent
        saved(part, f"parts/dented/IMG_{i:04}.JPG")
    phone = pillow_heif.from_pillow(Image.fromarray(noisy(rng, 150)))  # the second phone's files
    phone.save("parts/sound/IMG_5000.HEIC")
    Path("parts/sound/copy of IMG_0000.JPG").write_bytes(
        Path("parts/sound/IMG_0000.JPG").read_bytes()
    )
    Path("parts/dented/IMG_9999.JPG").write_bytes(b"the transfer was cut off")
    Path("new").mkdir()
    saved(noisy(rng, 150), "new/a.jpg")

    inspector.is_told("headstart parts", "type `headstart train parts --out RUN`")
    inspector.is_told("headstart train parts", "--out")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        without.setitem(sys.modules, "pi_heif", None)
        inspector.types("headstart check parts --backbone none", code=3)
    assert "pip install 'headstart[heif]'" in inspector.screen
    inspector.types("headstart check parts --backbone none", code=3)
    assert "sound 26" in inspector.screen
    assert "IMG_9999.JPG" in inspector.screen
    assert "copy of IMG_0000.JPG" in inspector.screen
    inspector.types("headstart train parts --out runs/first --strategy extract", code=3)
    assert "accuracy" in inspector.screen
    assert "report runs/first/report.html" in inspector.screen
    assert "<html" in Path("runs/first/report.html").read_text()
    inspector.is_told("headstart train parts --out runs/first", "finished run", "--out")
    inspector.is_told("headstart predict new/a.jpg", "RUN")
    inspector.types("headstart predict runs/first new --csv answers.csv")
    (row,) = csv.DictReader(Path("answers.csv").read_text().splitlines())
    assert row["path"] == "new/a.jpg"
    assert row["predicted"] in ("sound", "dented", "unknown")
    inspector.is_told("headstart predict runs/first new --csv answers.csv", "is there already")
