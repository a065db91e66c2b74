"""fastai's `fine_tune` with as many frozen as thawed epochs as the tutorial's schedule has.

    python bench/references/fastai_finetune.py DATA_DIR [--epochs 10] [--fine-epochs 10] [--augment]

Its own recipe otherwise, so it does more work than the others: BatchNorm is trained even while
the base is frozen, its gradients run through the whole base; then all of the network thaws. Its
head has two linear layers and 2 logits. timm's mobilenetv2_100, random weights.
"""

import contextlib
import sys
from importlib import import_module  # mypy need not find what only its environment has
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from references.protocol import Counts, Phase, Task, show, task


def main() -> None:
    asked = task(__doc__)
    fv = import_module("fastai.vision.all")
    fv.set_seed(0)
    watch = stopwatch(fv)
    learner = fv.vision_learner(
        pictures(fv, asked), "mobilenetv2_100", pretrained=False, metrics=fv.accuracy, cbs=[watch]
    )
    with contextlib.ExitStack() as quiet:
        if asked.json:
            quiet.enter_context(learner.no_bar())
            quiet.enter_context(learner.no_logging())
        learner.fine_tune(asked.fine_epochs, freeze_epochs=asked.epochs)
    frozen, thawed = watch.phases
    show("fastai_finetune", frozen, thawed, ("fastai", "torch", "timm", "pillow"))


def pictures(fv: Any, asked: Task) -> Any:
    change = fv.aug_transforms() if asked.augment else []
    return fv.ImageDataLoaders.from_folder(
        asked.data_dir,
        train="train",
        valid="val",
        bs=asked.batch,
        item_tfms=fv.Resize(asked.size, method=fv.ResizeMethod.Squish),
        # given by hand, as fastai normalises only for pretrained weights
        batch_tfms=[*change, fv.Normalize.from_stats(*fv.imagenet_stats)],
    )


def stopwatch(fv: Any) -> Any:
    """A callback whose `phases` grow by one with every fit: `fine_tune` does two."""

    class Stopwatch(fv.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.phases: list[Phase] = []

        def before_fit(self) -> None:
            self.phases.append(Phase(counts(self.learn.model)))

        def after_epoch(self) -> None:
            self.phases[-1].lap()

        def after_fit(self) -> None:
            self.phases[-1].stop()

    return Stopwatch()


def counts(module: Any) -> Counts:
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    moments = [b for b in module.buffers() if b.ndim]  # not the batches that BatchNorm has seen
    every = sum(t.numel() for t in [*module.parameters(), *moments])
    return Counts(every - trainable, trainable)


if __name__ == "__main__":
    main()
