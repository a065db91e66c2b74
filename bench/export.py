"""Exports of a model of solar cells (ELPV): whether they answer alike, their size and speed.

    python bench/export.py [--cells 2624] [--photos 8] [--threads 2]

A head on EfficientNet-Lite0 is trained on the cells and exported in three precisions. The graph of
fp32 is given the decoded pixels of the test cells and of photographs of 2,000 pixels, and compared
with the model. fp16 and int8 are given prepared squares of the test cells; they and fp32 are timed
by turns on the same squares.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from harness import Bench
from numpy.typing import NDArray
from PIL import Image
from tables import Row

import headstart as hs
from headstart.backbones.session import open_session
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.examples import solar_cells

PRECISIONS = ("fp32", "fp16", "int8")
LONG = 2000  # pixels of the longer side of a photograph
BATCH, ROUNDS = 8, 5
Scores = NDArray[np.float32]
Session = Any


def photographs(folder: Path, count: int) -> list[Path]:
    """Write photographs that packages ship, enlarged to LONG pixels, upright and lying."""
    import skimage.data as shipped
    from sklearn.datasets import load_sample_images

    pictures = [*load_sample_images().images, shipped.astronaut(), shipped.chelsea()]
    pictures += [shipped.coffee(), shipped.rocket()]
    files = []
    for number in range(count):
        image = Image.fromarray(pictures[number % len(pictures)])
        image = image.transpose(Image.Transpose.ROTATE_90) if number % 2 else image
        scale = LONG / max(image.size)
        size = round(scale * image.width), round(scale * image.height)
        files.append(folder / f"{number}.png")
        image.resize(size, Image.Resampling.BICUBIC).save(files[-1], compress_level=1)
    return files


def session(folder: Path, threads: int) -> Session:
    return open_session((folder / "model.onnx").read_bytes(), {}, threads, folder.name)


def scored(own: Session, pixels: NDArray[np.uint8]) -> Scores:
    (scores,) = own.run(["scores"], {"pixels": pixels[None]})
    return np.asarray(scores[0])


def of_squares(own: Session, squares: NDArray[np.uint8]) -> Scores:
    none = np.zeros((0, 1, 1, 3), np.uint8)
    starts = range(0, len(squares), BATCH)
    given = ({"pixels": none, "prepared": squares[i : i + BATCH]} for i in starts)
    return np.concatenate([own.run(["scores"], each)[0] for each in given])


def squares_of(model: hs.Model, files: list[Path]) -> NDArray[np.uint8]:
    input: Any = model.backbone.card.input
    return np.stack([input(input.read(file.read_bytes())) for file in files])


def compared(name: str, one: Scores, other: Scores) -> Row:
    return {
        "pictures": name,
        "n": len(one),
        "largest difference of a score": float(np.abs(one - other).max()),
        "changed answers": int((one.argmax(1) != other.argmax(1)).sum()),
    }


def rates(sessions: Mapping[str, Session], squares: NDArray[np.uint8]) -> dict[str, float]:
    """Images per second of each, by turns on the same squares; the median round."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, own in sessions.items():
            began = time.perf_counter()
            of_squares(own, squares)
            seconds[name].append(time.perf_counter() - began)
    return {name: len(squares) / median(each) for name, each in seconds.items()}


def given(files: list[Path], model: hs.Model) -> Iterator[NDArray[np.uint8]]:
    input: Any = model.backbone.card.input
    return (decode(file, short_side=input.short_side) for file in files)


def trained(folder: Path, cells: int) -> hs.Run:
    data = solar_cells()
    rows = data.take(list(range(0, len(data), max(1, len(data) // cells))))
    how: dict[str, Any] = {"strategy": "extract", "fit": "squash", "insights": "none"}
    return hs.train(rows, folder / "run", store=folder / "store", **how)


def main() -> None:
    bench = Bench("export", __doc__)
    bench.flag("--cells", type=int, default=2624, quick=200)
    bench.flag("--photos", type=int, default=8, quick=2)
    bench.flag("--threads", type=int, default=2)
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = trained(folder, args.cells)
        model, splits = run.model, run.splits
        files = [Path(str(source)) for source in splits.test.sources]
        made: dict[str, Any] = {}
        for precision in PRECISIONS:
            how: dict[str, Any] = {"precision": precision, "max_changed": 1.0}
            place = folder / precision
            made[precision] = hs.export(run, place, **how)
            print(made[precision], flush=True)
            print(hs.verify(place), flush=True)
        sessions = {name: session(folder / name, args.threads) for name in PRECISIONS}
        photos = photographs(folder, args.photos)
        same = [
            compared(name, own.predict(some, store=None).scores, graph(sessions["fp32"], some, own))
            for name, some, own in (("test cells", files, model), ("photographs", photos, model))
        ]
        squares, y = squares_of(model, files), splits.test.y
        scores = {name: of_squares(own, squares) for name, own in sessions.items()}
        speeds = rates(sessions, squares[: 32 * BATCH])
    rows: list[Row] = [
        {
            "precision": name,
            "MB": made[name].size / 1e6,
            "images/s": speeds[name],
            "times fp32": speeds[name] / speeds["fp32"],
            "changed, validation %": 100 * (made[name].changed or 0.0),
            "changed, test %": 100 * changed(scores["fp32"], scores[name]),
            "accuracy on test": float((scores[name].argmax(1) == y).mean()),
        }
        for name in PRECISIONS
    ]
    worst = max(float(str(row["largest difference of a score"])) for row in same)
    bench.report(
        rows,
        {
            "fp32: at most 1e-4 from the model": worst <= 1e-4,
            "fp32: no changed answer": all(not row["changed answers"] for row in same),
            "int8: at least 1.5 times as fast": speeds["int8"] >= 1.5 * speeds["fp32"],
            "int8: at most 1 % changed on test": changed(scores["fp32"], scores["int8"]) <= 0.01,
        },
        more={"fp32 on decoded pixels": same},
    )


def changed(one: Scores, other: Scores) -> float:
    return float((one.argmax(1) != other.argmax(1)).mean())


def graph(own: Session, files: list[Path], model: hs.Model) -> Scores:
    return np.stack([scored(own, pixels) for pixels in given(files, model)])


if __name__ == "__main__":
    main()
