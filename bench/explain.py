"""Are explanation maps right? Shuffled heads, pasted patches and deletion curves.

    python bench/explain.py [--run RUN] [--count 50] [--starts 3]

Maps by each method; of them `best`, the default, picks the map of a picture by its own deletion
curve. First, on every kind of backbone, taught that a pasted patch (1/16 of the square, anywhere)
decides the class: the share of pictures whose map has its mass-centre on the patch. Each network
is taught from several starts, and the least share is told: one that happens to be easy to look
into proves little. Then the deletion curve (Petsiuk et al. 2018) against random order and
centre-first: the share of pictures on which ours has the smaller area, of scikit-image's
photographs and crops of them, by the pretrained network, and with --run of the test cells that the
demo's run calls defective, by its model. Of patches and photographs also the rank correlation with
the maps that one gets when the head's weights are shuffled (Adebayo et al. 2018), the mean of many
orders, as of one a map may be alike or opposite, at -1; and its size.
"""

import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Bench
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn
from unknowns import photographs

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.backbones.saved import save_backbone
from headstart.explaining.pixels.attributing import attribute
from headstart.explaining.pixels.attribution import Attribution
from headstart.explaining.pixels.deletion import deletion
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of, source_grad_model
from headstart.explaining.pixels.method import METHODS, Method
from headstart.explaining.pixels.probed_model import probed_model_of
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.reading import find
from headstart.models.bundle import load_bundle
from headstart.targets.predictions import read_predictions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from patches import grad_model_on, on_the_patch, patched, shuffled, taught  # noqa: E402

Row = dict[str, Any]
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny:32": lambda: hs.load_backbone("tiny:32"),
    "packaged:efficientnet_lite0": lambda: hs.load_backbone("packaged:efficientnet_lite0"),
    "timm:test_efficientnet": lambda: hs.load_backbone("timm:test_efficientnet", weights="random"),
    "timm:test_vit": lambda: hs.load_backbone("timm:test_vit", weights="random"),
    "keras:MobileNet@32": lambda: hs.load_backbone("keras:MobileNet@32", weights="random"),
    "file: of timm:test_resnet": lambda: _from_file(),
}
STEPS = {"tiny:32": 100, "keras:MobileNet@32": 1000, "timm:test_vit": 200}  # of teaching
RANK = "shuffled head, rank r"
SHUFFLED = 2  # pictures of each shuffled head, one of a class


def main() -> None:
    bench = Bench("explain", __doc__)
    bench.flag("--run", type=Path, help="a run of the demo, for its test cells")
    bench.flag("--count", type=int, default=50, quick=2, help="pictures for the deletion curves")
    bench.flag("--patched", type=int, default=50, quick=4, help="pictures with a patch")
    bench.flag("--shuffles", type=int, default=24, quick=2, help="of the head")
    bench.flag("--starts", type=int, default=3, quick=1, help="how often each network is taught")
    bench.flag("--backbones", nargs="*", default=list(BACKBONES), quick=["tiny:32"])
    bench.flag("--methods", nargs="+", default=list(METHODS), choices=METHODS, quick=["places"])
    args = bench.arguments()
    squares = photographs_of(args.count)
    rows = list[Row]()
    for name in args.backbones:
        own = [row for start in range(args.starts) for row in on_patches(name, start, args)]
        rows += [*own, *(of_all(own, method) for method in args.methods if own)]
    rows += list(hidden("photographs", pretrained(), squares, args.methods, args.shuffles))
    if args.run:
        grad_model = grad_model_of(load_bundle(args.run / "model").model)
        rows += list(
            hidden(
                "defective cells",
                grad_model,
                cells_of(grad_model, args.run, args.count),
                args.methods,
            )
        )
    bench.report(rows)


def on_patches(name: str, start: int, args: Namespace) -> Iterator[Row]:
    """Shows that maps follow the head, and find what decides."""
    grad_model = taught_model(name, start)
    side = grad_model.input.size
    squares, labels, places = patched(args.patched, side, seed=2)
    said = grad_model.scores(squares).argmax(axis=1)
    probed = probed_model_of(grad_model)
    for method in args.methods:
        maps = attribute(probed, squares, said, method)
        found = [on_the_patch(m.over(side), place) for m, place in zip(maps, places, strict=True)]
        yield {
            "of": name,
            "start": start,
            "method": method,
            "told by": told_by(maps),
            "accuracy": round(float((said == labels).mean()), 3),
            "on the patch": float(np.mean(found)),
            **shuffling(grad_model, squares, method, maps, args.shuffles),
        }


def of_all(rows: Sequence[Row], method: Method) -> Row:
    """The least share on the patch of all starts, and the mean r."""
    own = [row for row in rows if row["method"] == method]
    return {
        "of": own[0]["of"],
        "start": "all",
        "method": method,
        "on the patch": min(row["on the patch"] for row in own),
        RANK: round(float(np.mean([row[RANK] for row in own])), 3),
    }


def shuffling(
    grad_model: GradModel,
    squares: NDArray[np.uint8],
    method: Method,
    maps: Sequence[Attribution],
    shuffles: int,
) -> dict[str, object]:
    """How much of the maps is left with the weights of the head in another order."""
    side, few = grad_model.input.size, squares[:SHUFFLED]
    said = np.array([grad_model.scores(s[None])[0].argmax() for s in few])
    alike = np.array(
        [
            spearmanr(own.over(side), other.over(side), axis=None).statistic
            for seed in range(shuffles)
            for own, other in zip(
                maps[:SHUFFLED],
                attribute(probed_model_of(shuffled(grad_model, seed)), few, said, method),
                strict=True,
            )
        ]
    )
    return {
        RANK: round(float(alike.mean()), 3),
        "its size": round(float(np.abs(alike).mean()), 3),
    }


def taught_model(name: str, start: int) -> GradModel:
    """The pretrained network with a head on its frozen features; the others taught as a whole."""
    backbone = BACKBONES[name]()
    if not name.startswith("packaged"):
        return taught(backbone, STEPS.get(name, 40), start=start)
    from sklearn.linear_model import LogisticRegression

    squares, labels, _ = patched(
        256, of_pictures(backbone.card.input).size, seed=100 + start, classes=3
    )
    bare = grad_model_on(backbone, nn.Linear(backbone.card.dim, 2))
    with torch.inference_mode():
        parts = np.split(squares, len(squares) // 16)
        x = np.concatenate([bare.network(torch.from_numpy(part)).numpy() for part in parts])
    fitted = LogisticRegression(C=0.1, max_iter=5000).fit(x, labels)
    head = nn.Linear(backbone.card.dim, 3)
    weight, bias = torch.tensor(fitted.coef_).float(), torch.tensor(fitted.intercept_).float()
    head.load_state_dict({"weight": weight, "bias": bias})
    return grad_model_on(backbone, head, ("blue", "orange", "none"))


def hidden(
    what: str,
    grad_model: GradModel,
    squares: NDArray[np.uint8],
    methods: Sequence[Method],
    shuffles: int = 0,
) -> Iterator[Row]:
    """How often hiding by the map has the smaller area under its curve."""
    said, probed = (
        np.array([grad_model.scores(s[None])[0].argmax() for s in squares]),
        probed_model_of(grad_model),
    )
    for method in methods:
        maps = attribute(probed, squares, said, method)
        told = [deletion(probed, s, m) for s, m in zip(squares, maps, strict=True)]
        ours, random, centre = (
            np.array([t.area(name) for t in told]) for name in ("ours", "random", "centre")
        )
        yield {
            "of": what,
            "method": method,
            "told by": told_by(maps),
            "pictures": len(told),
            "beats random": float((ours < random).mean()),
            "beats centre": float((ours < centre).mean()),
            "area": round(float(ours.mean()), 3),
            "random": round(float(random.mean()), 3),
            "centre": round(float(centre.mean()), 3),
            **(shuffling(grad_model, squares, method, maps, shuffles) if shuffles else {}),
        }


def told_by(maps: Sequence[Attribution]) -> str:
    """How many maps came from which method."""
    ways = Counter(m.method for m in maps)
    return ", ".join(f"{count} {way}" for way, count in ways.most_common())


def pretrained() -> GradModel:
    return source_grad_model(hs.load_backbone("packaged:efficientnet_lite0"))


def photographs_of(count: int) -> NDArray[np.uint8]:
    """Whole photographs and crops, evenly taken of all, as the pretrained network is given them."""
    eats = pretrained().input
    with tempfile.TemporaryDirectory() as folder:
        files, _ = find([photographs(Path(folder))])
        picked = [files.sources[n * len(files) // count] for n in range(count)]
        return np.stack([eats(decode(path)) for path in picked])


def cells_of(grad_model: GradModel, run: Path, count: int) -> NDArray[np.uint8]:
    """Test cells that are called defective: what is hidden of a sound one leaves a sound one."""
    said, cells = read_predictions(run / "predictions.csv"), solar_cells()
    there = dict(zip(cells.ids, cells.sources, strict=True))
    wanted = said.classes.index("defective")
    picked = [there[id] for id, c in zip(said.ids, said.predicted, strict=True) if c == wanted]
    return np.stack([grad_model.input(decode(path)) for path in picked[:count]])


def _from_file() -> Backbone:
    with tempfile.TemporaryDirectory() as folder:
        saved = save_backbone(
            hs.load_backbone("timm:test_resnet", weights="random"), Path(folder) / "saved"
        )
        return hs.load_backbone(f"file:{saved}")


if __name__ == "__main__":
    main()
