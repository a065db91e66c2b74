"""The tutorial's two phases by Headstart: what is frozen runs once, the loop begins at the cut.

    python bench/references/headstart_two_phase.py DATA_DIR [--epochs 10] [--augment]

The recipe mobilenetv2-two-phase (resnet50-last5 with --network resnet50), with random weights, on
the parts as they lie there. Phase 1
holds reading, the export of the graph, the frozen layers of every picture (and of 4 views of each
training picture with --augment) and the head's epochs; phase 2 the loop from the cut. Nothing is in
a store before.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import simplejpeg  # noqa: F401  # the seconds of every competitor begin after its imports

import headstart as hs
import headstart.backbones.graph  # what the first forward pass would import is imported here,
from headstart.backbones.session import import_onnxruntime
from headstart.base.context import RunContext
from headstart.base.runtime import Runtime, keep_memory
from headstart.heads.families import spec_named
from headstart.modalities.images.augment import Augment
from headstart.models.finetuning import thaw
from headstart.models.fitting import fit_tables
from headstart.models.training_data import Start, TrainingData, table_of
from headstart.models.tuning import fine_tune
from headstart.runs import recipes
from headstart.training.feeds import Stored
from headstart.training.history import Count
from references.protocol import Counts, Phase, show, task


def counts(count: Count) -> Counts:
    return Counts(count.frozen.parameters, count.trainable.parameters)


class Laps(hs.Listener):
    """Stops the time of each epoch of a phase."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase

    def stage(self, name: str, message: str) -> None:
        print(f"  {name:10}{message}", file=sys.stderr, flush=True)

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> None:
        if "lr" in figures:
            self.phase.lap()


def main() -> None:
    wanted = task(__doc__)
    import_onnxruntime()  # before the clock starts, as the imports of every competitor
    named = {"mobilenetv2": "mobilenetv2-two-phase", "resnet50": "resnet50-last5"}
    job = recipes.get_recipe(named[wanted.network]).job
    recipe = job.recipe
    layer = spec_named("linear", recipe.head, epochs=wanted.epochs, batch_size=wanted.batch)
    recipe = replace(recipe, head=layer)
    settings = replace(job.finetune, epochs=wanted.fine_epochs, batch_size=wanted.batch)
    augment = job.augment if wanted.augment else Augment()
    backbone = recipe.prepared(hs.load_backbone(job.backbone, weights="random"))
    settings = settings.resolved(backbone, recipe.head_lr)
    opened = thaw(backbone, settings.thaw, settings.thaw_from)
    keep_memory()

    with tempfile.TemporaryDirectory() as folder:
        first = Phase(Counts(0, 0))
        context = RunContext(hs.Store(Path(folder)), Runtime(device="cpu").resolved(), Laps(first))
        data = hs.read(wanted.data_dir)
        rows = {p: [i for i, n in enumerate(data.parts) if n == p] for p in ("train", "val")}
        train, val = (data.take(rows[part]) for part in ("train", "val"))
        tap = opened.tap(len(data), "float32")
        plain = table_of(backbone, data, context, tap)
        start = Start(backbone, tap=tap, table=plain)
        views = TrainingData(start, hs.Splits(train, val, val), augment, context).train(0, cut=True)
        judged = plain.of(val)
        head = fit_tables(recipe, backbone, views, judged, context=context)
        first.stop()
        second = Phase(Counts(0, 0))
        feeds = Stored(views, cut=True), Stored((judged,), cut=True)
        context = replace(context, listener=Laps(second))
        tuned = fine_tune(settings, opened, head.model, feeds, context)
        second.stop()
    first.counts, second.counts = counts(head.count), counts(tuned.count)
    show("headstart_two_phase", first, second, ("headstart", "torch", "onnxruntime"))


if __name__ == "__main__":
    main()
