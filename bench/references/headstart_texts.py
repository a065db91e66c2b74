"""Texts classified by Headstart: what is frozen runs once, and the loop begins at the cut.

    python bench/references/headstart_texts.py TASK.json

MiniLM with a head of logistic regression; then its upper layers, from the cut. The seconds hold the
export of the graph and the frozen layers of every text; nothing is in a store before. With 0 layers
there is only the head.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import headstart as hs
import headstart.backbones.graph  # what the first forward pass would import is imported here,
from headstart.backbones.session import import_onnxruntime
from headstart.base.runtime import keep_memory
from headstart.modalities.examples import labelled
from references.texts import Stopwatch, TextTask, show, task


class Laps(hs.Listener):
    """Stops the time of each epoch of fine-tuning, which begins when its start was judged."""

    def __init__(self) -> None:
        self.clock = Stopwatch()

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> None:
        if phase == "finetune" and "lr" in figures:
            self.clock.lap()
        elif phase == "finetune":
            self.clock = Stopwatch()


def rows(part: Sequence[tuple[str, int]], name: str, input: Any) -> hs.Dataset:
    texts, labels = zip(*part, strict=True) if part else ((), ())
    ids = [f"{name}{number}" for number in range(len(part))]
    return labelled([f"class {label}" for label in labels], "class", ids, texts, input=input)


def fitted(wanted: TextTask, parts: hs.Splits, backbone: Any, laps: Laps, folder: str) -> Any:
    settings: dict[str, Any] = {"strategy": "extract"}
    if wanted.layers:
        settings = {
            "strategy": "finetune",
            "thaw": str(wanted.layers),
            "epochs": wanted.epochs,
            "batch_size": wanted.batch,
            "lr": wanted.lr,
        }
    store = hs.Store(Path(folder))
    return hs.fit(
        parts, backbone=backbone, store=store, seed=wanted.seed, listener=laps, **settings
    )


def main() -> None:
    wanted = task()
    import_onnxruntime()  # before the clock starts, as the imports of every competitor
    backbone, laps = hs.load_backbone("packaged:minilm"), Laps()
    train, val, test = (
        rows(part, name, backbone.card.input)
        for name, part in (("train", wanted.train), ("val", wanted.val), ("test", wanted.test))
    )
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        whole = Stopwatch()
        found = fitted(wanted, hs.Splits(train, val, test), backbone, laps, folder)
        whole.stop()
        said = found.predict(test, store=None)
    whole.epochs = laps.clock.epochs
    right = said.target.row_scores(said.outputs, said.labels) > 0
    show("headstart_texts", whole, list(right), ("headstart", "torch", "onnxruntime"))


if __name__ == "__main__":
    main()
