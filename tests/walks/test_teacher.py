"""A teacher with a class's drawings of six shapes: trains in Russian, looks into the answers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from walk import Person

SIDES = {"круг": 0, "треугольник": 3, "квадрат": 4, "пятиугольник": 5, "линия": 2, "точка": 1}


def drawing(sides: int, rng: np.random.Generator) -> Image.Image:
    """A shape drawn by hand: somewhere, of some size, with a thick pencil."""
    image = Image.new("RGB", (64, 64), "white")
    pencil, (x, y) = ImageDraw.Draw(image), rng.integers(26, 38, 2)
    r = 3 if sides == 1 else int(rng.integers(14, 22))
    if sides in (0, 1):
        pencil.ellipse((x - r, y - r, x + r, y + r), outline="black", width=3)
    elif sides == 2:
        pencil.line((x - r, y - r, x + r, y + r), fill="black", width=3)
    else:
        pencil.regular_polygon((int(x), int(y), r), sides, outline="black", width=3)
    return image


def test_a_teacher_gets_from_drawings_to_pictures_for_slides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, rng = Person(tmp_path, monkeypatch, capsys), np.random.default_rng(0)
    for name, sides in SIDES.items():
        Path("рисунки", name).mkdir(parents=True)
        for i in range(10):
            drawing(sides, rng).save(Path("рисунки", name, f"{i}.png"))

    teacher.types("headstart check рисунки --backbone none")
    assert "in 6 classes" in teacher.screen
    teacher.types("headstart train рисунки --out класс --language ru --strategy extract")
    page = Path("класс/report.html").read_text()
    assert 'lang="ru"' in page
    assert "оля верных ответов" in page
    assert all(name in page for name in SIDES)
    assert teacher.types("headstart predict класс рисунки/круг/0.png").count("\t") >= 2
    teacher.types("headstart explain класс рисунки/круг/0.png --out почему --method gradcam")
    assert list(Path("почему").glob("*.png"))
    teacher.is_told("headstart report нет-такого", "There is no run", code=1)
    teacher.types("headstart report класс --language en")
    assert 'lang="en"' in Path("класс/report.html").read_text()
