"""fastai's `fine_tune` with its defaults, on a folder that `labelled_sets.py` wrote.

    python bench/references/fastai_accuracy.py FOLDER WEIGHTS RESULT [--epochs 5] [--augment]

WEIGHTS: a file of torch.save, the state of timm's tf_efficientnet_lite0. The head, the rates and
the schedule are fastai's: one epoch with the base frozen, then all of it for `epochs`. --augment
adds `aug_transforms()`. RESULT: a JSON file with the predicted class of each test row, by path, and
the seconds of fitting and predicting.
"""

import argparse
import csv
import json
import time
from importlib import import_module  # mypy need not find what only its environment has
from pathlib import Path
from typing import Any

ARCHITECTURE, SIZE, MEAN = "tf_efficientnet_lite0", 224, ([0.5] * 3, [0.5] * 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--augment", action="store_true")
    args = parser.parse_args()
    fv = import_module("fastai.vision.all")
    fv.set_seed(args.seed)
    with open(args.folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    begun = time.perf_counter()
    learner = fv.vision_learner(
        data_of(fv, args.folder, rows, augment=args.augment),
        ARCHITECTURE,
        pretrained=False,
        metrics=fv.accuracy,
    )
    load(learner, args.weights)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(args.epochs)
        tested = [row["path"] for row in rows if row["part"] == "test"]
        test = learner.dls.test_dl([args.folder / path for path in tested])
        scores, _ = learner.get_preds(dl=test)
    names = [learner.dls.vocab[i] for i in scores.argmax(dim=1).tolist()]
    seconds = round(time.perf_counter() - begun, 1)
    answers = dict(zip(tested, names, strict=True))
    args.result.write_text(json.dumps({"answers": answers, "seconds": seconds}))


def data_of(fv: Any, folder: Path, rows: list[dict[str, str]], *, augment: bool) -> Any:
    known = [row for row in rows if row["part"] != "test"]
    label = {row["path"]: row["label"] for row in known}
    judged = {row["path"] for row in known if row["part"] == "val"}
    block = fv.DataBlock(
        blocks=(fv.ImageBlock, fv.CategoryBlock),
        get_items=lambda _: [folder / row["path"] for row in known],
        get_y=lambda path: label[path.name],
        splitter=fv.FuncSplitter(lambda path: path.name in judged),
        item_tfms=fv.Resize(SIZE),
        batch_tfms=[
            *(fv.aug_transforms() if augment else []),
            fv.Normalize.from_stats(*MEAN),  # by hand: fastai knows those of its own downloads
        ],
    )
    return block.dataloaders(folder, bs=min(64, len(known) - len(judged)))


def load(learner: Any, weights: Path) -> None:
    """Load the body's pretrained weights; fails if one of the body's own is missing."""
    torch = import_module("torch")
    state = torch.load(weights, weights_only=True)
    body = learner.model[0].model
    missing, _ = body.load_state_dict(state, strict=False)
    if missing:
        raise SystemExit(f"weights for the body are missing: {missing[:3]}")


if __name__ == "__main__":
    main()
