"""How many planted duplicates are found, and how many of the pairs found were not planted.

    python bench/duplicates.py [--planted 350] [--images 1000] [--seed 0]

On photographs of solar cells (ELPV), which all look alike, and on generated pictures: a share of
the images gets an exact copy (in another file format) or a near one: rescaled 0.5 to 1.5 times,
JPEG of quality 30 to 95, brightness and contrast within 10 %, 2 to 4 % of each side cropped, noise
of up to 8 grey levels, or a small mark. Recall: planted pairs found. Precision: of the pairs found
that touch a planted copy, those that were planted. Pairs among the originals are counted apart,
since nobody knows the truth about them: ELPV holds wafers sawn one after the other from one block.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Bench
from PIL import Image, ImageEnhance

import headstart as hs
from headstart.base.runtime import cores
from headstart.data.checks import Checks, check, good_rows
from headstart.data.dataset import PARTS
from headstart.data.splits import split
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.reading import survey

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from pictures import photo  # noqa: E402

NEAR = ("rescaled", "recompressed", "relit", "cropped", "noisy", "marked")
KINDS = ("exact", *NEAR)


def changed(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """A near duplicate of an RGB picture."""
    width, height = image.size
    if kind == "rescaled":
        factor, how = rng.uniform(0.5, 1.5), Image.Resampling(int(rng.integers(1, 4)))
        return image.resize((round(width * factor), round(height * factor)), how)
    if kind == "recompressed":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(30, 96)))
        return Image.open(buffer).convert("RGB")
    if kind == "relit":
        brighter = ImageEnhance.Brightness(image).enhance(rng.uniform(0.9, 1.1))
        return ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.9, 1.1))
    if kind == "cropped":
        left, top, right, bottom = rng.uniform(0.02, 0.04, 4) * (width, height, width, height)
        return image.crop((round(left), round(top), round(width - right), round(height - bottom)))
    if kind == "noisy":
        noise = rng.normal(0, rng.uniform(2, 8), (height, width, 3))
        return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return _marked(image, rng)


def _marked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A half-transparent white bar, 18 % of the width and 6 % of the height, anywhere."""
    width, height = round(image.width * 0.18), round(image.height * 0.06)
    left = int(rng.integers(0, image.width - width))
    top = int(rng.integers(0, image.height - height))
    mark = Image.new("L", (width, height), 160)
    copy = image.copy()
    copy.paste("white", (left, top), mark)
    return copy


def plant(
    originals: Iterator[Image.Image], folder: Path, planted: int, n: int, seed: int
) -> dict[tuple[str, str], str]:
    """Write all pictures and the copies of some; returns (original, copy) -> kind, by id."""
    rng = np.random.default_rng(seed)
    picked = set(rng.choice(n, min(planted, n), replace=False).tolist())
    truth = dict[tuple[str, str], str]()
    for label in ("odd", "even"):
        (folder / label).mkdir(parents=True)
    for i, image in enumerate(originals):
        name = f"{('even', 'odd')[i % 2]}/{i:05}"
        image.save(folder / f"{name}.png", compress_level=1)
        if i in picked:
            kind = KINDS[len(truth) % len(KINDS)]
            copy = image if kind == "exact" else changed(image.convert("RGB"), kind, rng)
            copy.save(folder / f"{name}-copy.bmp")
            truth[f"{name}-copy.bmp", f"{name}.png"] = kind
    return truth


def judge(name: str, folder: Path, truth: dict[tuple[str, str], str]) -> dict[str, object]:
    """One line of the table."""
    data = hs.read(folder)
    began = time.perf_counter()
    seen = survey(data, threads=cores())
    surveyed = time.perf_counter()
    found = check(data, seen, threads=cores())
    ended = time.perf_counter()
    pairs = pairs_found(found)
    by_kind = {kind: [pair in pairs for pair, k in truth.items() if k == kind] for kind in KINDS}
    near = [hit for kind in NEAR for hit in by_kind[kind]]
    touching = [pair for pair in pairs if any("-copy" in id for id in pair)]
    rows = good_rows(data, seen)
    return {
        "data": name,
        "images": len(data),
        "planted": len(truth),
        "exact_recall": np.mean(by_kind["exact"]),
        "near_recall": np.mean(near),
        "precision": sum(pair in truth for pair in touching) / len(touching),
        **{kind: np.mean(by_kind[kind]) for kind in NEAR},
        "largest_group": max(map(len, found.together)),
        "pairs_among_originals": len(pairs) - len(touching),
        "across_parts": across_parts(rows, found, truth),
        "survey_s": surveyed - began,
        "compare_s": ended - surveyed,
    }


def pairs_found(found: Checks) -> set[tuple[str, str]]:
    """Pairs of ids, in order; "-copy" comes before "." and so a copy before its original."""
    ids = found.dataset.ids
    rows = [(p.a, p.b) for p in found.near]
    rows += [(group[i], row) for group in found.exact for i, row in enumerate(group[1:])]
    return {(min(ids[a], ids[b]), max(ids[a], ids[b])) for a, b in rows}


def across_parts(rows: hs.Dataset, found: Checks, truth: dict[tuple[str, str], str]) -> int:
    """Pairs that were found, planted or not, and lie in two parts after the split.

    Of copies in a validation or test part only the first is in a part.
    """
    splits = split(rows, together=found.together)
    part = {id: name for name in PARTS for id in getattr(splits, name).ids}
    pairs = [(part[a], part[b]) for a, b in pairs_found(found) if a in part and b in part]
    return sum(a != b for a, b in pairs)


def main() -> None:
    bench = Bench("duplicates", __doc__)
    bench.flag("--planted", type=int, default=350, quick=35)
    bench.flag("--images", type=int, default=1000, quick=100, help="generated ones")
    bench.flag("--cells", type=int, default=10**6, quick=200, help="solar cells, at most")
    bench.flag("--seed", type=int, default=0, help="of what is planted where")
    args = bench.arguments()
    cells = solar_cells().sources[: args.cells]
    rng = np.random.default_rng(1)
    sources = {
        "solar cells": (len(cells), (Image.open(path) for path in cells)),
        "generated": (args.images, (photo(rng, 320, 240) for _ in range(args.images))),
    }
    lines = list[dict[str, object]]()
    for name, (n, originals) in sources.items():
        with tempfile.TemporaryDirectory() as folder:
            truth = plant(originals, Path(folder) / "data", args.planted, n, args.seed)
            lines.append(judge(name, Path(folder) / "data", truth))
    bench.report(lines, {"wanted": "exact 1.0, near >= 0.97, precision >= 0.95, across 0"})


if __name__ == "__main__":
    main()
