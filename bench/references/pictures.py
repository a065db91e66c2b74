"""Two classes of photograph-like JPEG files, for time and not for accuracy.

python bench/references/pictures.py FOLDER [--images 600] [--seed 0]
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PHOTOS = Path(__file__).parents[2] / "tests" / "pictures.py"
WIDTH, HEIGHT = 500, 375
CLASSES = ("cat", "dog")


def make_pictures(folder: Path, images: int = 600, seed: int = 0) -> Path:
    """FOLDER/train/CLASS/*.jpg, four fifths of the images, and FOLDER/val/CLASS/*.jpg, the rest.

    500 x 375 pixels, JPEG of quality 90; the classes take turns. Returns the folder.
    """
    photo, rng = _photo(), np.random.default_rng(seed)
    train = images * 4 // 5
    for i in range(images):
        file = folder / ("train" if i < train else "val") / CLASSES[i % 2] / f"{i:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        photo(rng, WIDTH, HEIGHT).save(file, quality=90)
    return folder


def _photo() -> Callable[..., Any]:
    """The tests' `photo`, by path: tests is not a package and not on this script's path."""
    spec = importlib.util.spec_from_file_location("tests_pictures", PHOTOS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    photo: Callable[..., Any] = module.photo
    return photo


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(make_pictures(args.folder, args.images, args.seed))


if __name__ == "__main__":
    main()
