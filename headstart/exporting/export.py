"""Export a model: narrow it if asked to, assemble its graph, compare, and write the folder."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.freezing import as_frozen
from headstart.backbones.inputs import Batch, fetched, has_parts
from headstart.base.context import RunContext
from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.data.dataset import Dataset
from headstart.exporting.assembling import answers_of, assembled, facts_of
from headstart.exporting.narrowing import in_half, in_int8
from headstart.exporting.plan import Exported, ExportPlan
from headstart.exporting.refitting import refitted_for
from headstart.exporting.rows import ExportRows
from headstart.exporting.running import onnx_run
from headstart.exporting.writing import Folder, check_near, write_export
from headstart.features.engines import OnnxEngine, features_of
from headstart.features.extract import FeatureTable, extract
from headstart.models.bundle import versions
from headstart.models.golden import Arrays, difference
from headstart.models.model import Model

LOOSE = {"fp32": 1e-4, "fp16": 1e-4, "int8": 0.1}  # on another processor, as `verify` allows it
COMPARED = 32  # validation rows that the whole graph runs on, decoding to answers


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A model to be exported. changed: the share of validation answers that it changes, None
    without rows. table: its features of the validation rows."""

    model: Model
    changed: float | None = None
    rows: int = 0
    refitted: bool = False


def export_model(
    model: Model, plan: ExportPlan, out: Path, rows: ExportRows | None, context: RunContext
) -> Exported:
    """Write `model` to the new folder `out` as one graph, with golden examples and predict.py.

    rows: of its data; int8 and fp16 need them. Raises SpecError for what can't be exported,
    Mismatch if the export answers otherwise than the model, FileExistsError if `out` exists.
    """
    check_plan(model, plan, rows)
    if out.exists():
        raise FileExistsError(f"{out} is there already")
    model = replace(model, backbone=as_frozen(model.backbone))
    exact = replace(context.runtime, engine="onnxruntime", compute_precision="float32")
    context = replace(context, runtime=exact)
    narrow = narrowed(model, plan, rows, context)
    own, facts = narrow.model, facts_of(narrow.model, versions())
    graph = assembled(own, facts)
    apart, examples = compared(own, graph, rows, context)
    exported = Exported(
        out, plan.precision, apart, examples, narrow.changed, narrow.rows, narrow.refitted, 0
    )
    if plan.to == "openvino":
        graph = assembled(own, facts, prepares=False)
    folder = Folder(own, plan, graph, facts, exported, LOOSE[plan.precision])
    return write_export(folder, out, context.runtime.threads)


def check_plan(model: Model, plan: ExportPlan, rows: ExportRows | None) -> None:
    """Raise SpecError for a precision that a kind of model is not exported in."""
    input = model.backbone.card.input
    if plan.narrow and has_parts(input):
        raise SpecError(
            f"Models of {input.noun} are exported in fp32; got {plan.precision}. Leave --precision "
            f"out."
        )
    if plan.precision == "int8" and model.target.listing:
        raise SpecError(
            "Models of boxes are exported in fp32 or fp16: in int8 their corners would move. Leave "
            "--precision int8 out."
        )
    if plan.narrow and rows is None:
        raise SpecError(
            f"What {plan.precision} changes is measured on labelled {input.noun}: export a run, or "
            f"name them with --data."
        )
    if plan.to == "openvino":
        input.standalone(plan.to)


def narrowed(
    model: Model, plan: ExportPlan, rows: ExportRows | None, context: RunContext
) -> Narrowed:
    """Return the model in a precision; raises Mismatch if it changes too many answers."""
    if rows is None or not plan.narrow:
        return Narrowed(model)
    frozen = as_frozen(model.backbone)
    before = extract(frozen, rows.val, store=context.store, runtime=context.runtime)
    if plan.precision == "fp16":
        found = replace(model, backbone=in_half(frozen))
        refit = False
    else:
        context.listener.stage("int8", f"calibrated on {rows.train.noun} of the training part")
        small = replace(model, backbone=in_int8(frozen, rows.train))
        found, refit = refitted_for(model, small, rows, before, context)
    after = extract(found.backbone, rows.val, store=None, runtime=context.runtime)
    changed = changed_share(model, found, before, after)
    message = f"{changed:.2%} of {len(before):,} validation answers changed"
    context.listener.stage(plan.precision, message)
    if not changed <= plan.max_changed:
        raise Mismatch(
            f"{plan.precision} may change {plan.max_changed:.1%} of the validation answers, and "
            f"changes {changed:.1%} of {len(before):,}. Export it in "
            f"{'fp16 or ' if plan.precision == 'int8' else ''}fp32, or allow it with --max-changed."
        )
    return Narrowed(found, changed, len(before), refit)


def changed_share(model: Model, other: Model, x: FeatureTable, y: FeatureTable) -> float:
    """Return the share of rows that another model answers otherwise, by features of each; a row
    that one of them alone leaves unknown counts too."""
    if not len(x) or x.ids != y.ids:
        raise DataError("Answers are compared on validation rows, and none can be read.")
    before, after = model.answers(x.x), other.answers(y.x)
    own = model.target.answers_changed(before, after)
    doubts = model.limits.doubts(model.target, before, x.x)
    others = other.limits.doubts(other.target, after, y.x)
    pairs = zip(doubts, others, strict=True)
    return float((own | np.array([bool(a) != bool(b) for a, b in pairs])).mean())


def compared(
    model: Model, graph: bytes, rows: ExportRows | None, context: RunContext
) -> tuple[float, int]:
    """Return the largest difference between a model's answers and its graph's, on the same decoded
    examples, and their number; raises the errors of `check_near`."""
    threads, input = context.runtime.threads, model.backbone.card.input
    run = onnx_run(graph, threads, model.backbone.card.name)
    engine, worst, count = OnnxEngine(as_frozen(model.backbone), threads), 0.0, 0
    some = rows.val[: len(rows.val) : max(1, len(rows.val) // COMPARED)] if rows else None
    for given in (*input.known_inputs(), *_inputs_of(model, some)):
        found = answers_of(model.target, run(given))
        worst = max(worst, difference(_answers(model, engine, given), found))
        count += 1
    check_near(worst)
    return worst, count


def _inputs_of(model: Model, rows: Dataset | None) -> Iterator[Arrays]:
    """Yield what the graph is given for the rows that can be read."""
    input = model.backbone.card.input
    for source in rows.sources if rows is not None else ():
        try:
            yield input.graph_inputs(input.read(fetched(input, source)))
        except (OSError, DataError):
            continue


def _answers(model: Model, engine: OnnxEngine, given: Arrays) -> Arrays:
    """Return the model's own answers to what a graph is given."""
    input = model.backbone.card.input

    def features(example: Batch) -> Any:
        return input.settled(features_of(engine, input, example), example)

    x = np.concatenate([features(example) for example in input.examples_in(given)])
    return model.target.comparable(model.answers(x))
