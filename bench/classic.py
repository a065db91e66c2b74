"""A head on stored features, compared with the tutorial's loop on the same images and split.

    python bench/classic.py [--images 600] [--epochs 10] [--channels-last]

The tutorial's way: the frozen network runs again for every image of every epoch (PyTorch eager in
its default layout, DataLoader with 2 workers, Adam 1e-3, batch 32, a linear head, frozen layers in
inference mode, the last epoch kept). --channels-last is the same by someone who knows that trick.
Headstart's: features once, then the path of logistic regressions. Both times start with the
pretrained network loaded and end with the test scores.
"""

import time
from typing import Any

import numpy as np
import torch
from extract import Pictures
from harness import Bench
from torch import nn

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.base.runtime import cores
from headstart.data.splits import split
from headstart.evaluation.evaluation import compare, evaluate
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.images.inputs import of_pictures
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.fitting import fit
from headstart.specs import FeatureExtraction, SplitPlan

Layout = torch.memory_format


def tutorial(backbone: Backbone, parts: hs.Splits, epochs: int, layout: Layout) -> hs.Predictions:
    """A linear head by Adam on the frozen network, as the tutorials train it."""
    module = backbone.module.eval().to(memory_format=layout)
    torch.manual_seed(0)
    head = nn.Linear(backbone.card.dim, len(parts.train.classes))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    labels = torch.tensor(parts.train.labels)
    for _ in range(epochs):
        order = torch.randperm(len(parts.train))
        for rows, x in zip(
            order.split(32), loader(backbone, parts.train.take(order.numpy())), strict=True
        ):
            with torch.no_grad():
                features = module(x.to(memory_format=layout))
            loss = nn.functional.cross_entropy(head(features), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scored(
            backbone, head, parts.val, layout
        )  # the tutorials watch validation after every epoch
    scores = scored(backbone, head, parts.test, layout)
    return hs.Predictions(parts.test.ids, scores, parts.test.y, parts.test.classes)


def loader(backbone: Backbone, data: hs.Dataset) -> Any:
    pictures = Pictures(data, of_pictures(backbone.card.input))
    return torch.utils.data.DataLoader(pictures, batch_size=32, num_workers=2)


@torch.inference_mode()
def scored(backbone: Backbone, head: nn.Linear, data: hs.Dataset, layout: Layout) -> Any:
    module = backbone.module
    logits = [head(module(x.to(memory_format=layout))) for x in loader(backbone, data)]
    return torch.cat(logits).softmax(1).numpy()


def headstart_way(backbone: Backbone, parts: hs.Splits) -> hs.Predictions:
    model = fit(FeatureExtraction(fit="squash"), backbone, parts, store=None).model
    return model.predict(parts.test, store=None)


def main() -> None:
    bench = Bench("classic", __doc__)
    bench.flag("--images", type=int, default=600, quick=60)
    bench.flag("--epochs", type=int, default=10, quick=1)
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    bench.flag("--channels-last", action="store_true")
    args = bench.arguments()
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    torch.set_num_threads(cores())
    cells = solar_cells()
    rng = np.random.default_rng(0)
    data = cells.take(np.sort(rng.permutation(len(cells))[: args.images]))
    parts = split(data, SplitPlan(val=0.15, test=0.25))
    backbone = hs.load_backbone(args.backbone).changed(fit="squash")
    rows: list[dict[str, object]] = []
    predictions: list[hs.Predictions] = []
    for name, way in (
        ("headstart", lambda: headstart_way(backbone, parts)),
        (f"tutorial, {args.epochs} epochs", lambda: tutorial(backbone, parts, args.epochs, layout)),
    ):
        began = time.perf_counter()
        said = way()
        seconds = time.perf_counter() - began
        accuracy = str(evaluate(said).accuracy)
        rows.append({"way": name, "seconds": seconds, "test accuracy": accuracy})
        predictions.append(said)
        print(name, f"{seconds:.1f} s", flush=True)
    ours, theirs = rows
    gap = compare(*predictions)
    ratio = float(str(theirs["seconds"])) / float(str(ours["seconds"]))
    bench.report(
        rows,
        {
            "times faster": ratio,
            "at least 20 times": ratio >= 20,
            "accuracy, headstart less tutorial": str(gap),
            "not lower": gap.value >= 0,
        },
    )


if __name__ == "__main__":
    main()
