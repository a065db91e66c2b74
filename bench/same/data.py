"""Small pictures from a fixed seed, as a folder, as parts, as a table, and with faults."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEVELS = {"bright": 150, "dark": 100, "mid": 125}  # grey levels close enough to be mixed up
SIDE = 40
MODIFIED = 1_700_000_000  # seconds; the same for every file


def make_data(root: Path) -> None:
    """Write every data set of the commands below `root`."""
    rng = np.random.default_rng(20)
    for name in LEVELS:
        for i in range(16):
            kind = "jpg" if i % 4 == 3 else "png"
            _save(picture(rng, name), root / "shapes" / name / f"{i:02}.{kind}")
    _add_copies(root / "shapes")
    for part, count in {"train": 12, "val": 6, "test": 6}.items():
        for name in ("bright", "dark"):
            for i in range(count):
                _save(picture(rng, name), root / "parts" / part / name / f"{i:02}.png")
    _make_faulty(rng, root / "faulty")
    for i, name in enumerate(LEVELS):
        _save(picture(rng, name), root / "new" / f"{i}.png")
    _save(rng.integers(0, 256, (SIDE, 2 * SIDE, 3)).astype(np.uint8), root / "new" / "noise.png")
    _make_table(root)
    for path in sorted(root.rglob("*")):
        os.utime(path, (MODIFIED, MODIFIED))


def picture(rng: np.random.Generator, name: str) -> NDArray[np.uint8]:  # (SIDE, SIDE, 3)
    """Noise around the grey level of a class, which varies too."""
    level = LEVELS[name] + rng.normal(0, 10)
    return rng.normal(level, 35, size=(SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _add_copies(shapes: Path) -> None:
    """A copy of a file, a picture that is nearly another, one under two labels, and a text."""
    (shapes / "dark" / "copy.png").write_bytes((shapes / "dark" / "00.png").read_bytes())
    (shapes / "mid" / "both.png").write_bytes((shapes / "bright" / "00.png").read_bytes())
    nearly = np.asarray(Image.open(shapes / "mid" / "01.png")).copy()
    nearly[0, 0] = 0
    _save(nearly, shapes / "mid" / "nearly.png")
    (shapes / "notes.txt").write_text("not a picture\n")


def _make_faulty(rng: np.random.Generator, folder: Path) -> None:
    """Two classes with an unreadable file, 16 bits, grey, a palette and transparency."""
    for name in ("bright", "dark"):
        for i in range(14):
            _save(picture(rng, name), folder / name / f"{i:02}.png")
    (folder / "dark" / "cut.png").write_bytes((folder / "dark" / "00.png").read_bytes()[:300])
    pixels = picture(rng, "dark")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "dark" / "wide.png")
    Image.fromarray(pixels[..., 1]).save(folder / "dark" / "grey.png")
    Image.fromarray(picture(rng, "bright")).quantize(64).save(folder / "bright" / "palette.gif")
    Image.fromarray(np.dstack([pixels, pixels[..., :1]])).save(folder / "bright" / "clear.webp")


def _make_table(root: Path) -> None:
    lines = ["path,label,group"]
    for name in ("bright", "dark"):
        files = sorted((root / "shapes" / name).iterdir())
        lines += [f"shapes/{name}/{f.name},{name},{name}-{i // 3}" for i, f in enumerate(files)]
    (root / "two.csv").write_text("\n".join(lines) + "\n")
