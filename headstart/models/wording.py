"""The messages of a run: one line for each step."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.data.dataset import Dataset
from headstart.data.findings import counts_text
from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable
from headstart.models.limits import Limits, TrustPlan
from headstart.models.results import Candidate, FitResult
from headstart.targets.temperature import at_bound

ALL_ALIKE = (
    "the same for every row, so a head can learn nothing from them: the backbone's weights are "
    "damaged or 0, or all {} are the same to the network"
)


def described(backbone: Backbone | Frozen) -> str:
    card = backbone.card
    return (
        f"{card.name}, {backbone.parameters / 1e6:.1f} M parameters, "
        f"{card.input.describe()}, {card.licence}"
    )


def extracted(table: FeatureTable, views: int = 1, noun: str = "images") -> str:
    rows = len(table) * views
    rate = rows / table.seconds if table.seconds else 0
    message = (
        f"{rows:,} x {table.x.shape[1]} in {table.seconds:.1f} s ({rate:,.0f} {noun}/s): "
        f"{table.forwards:,} backbone forwards, {table.hits:,} from the store"
    )
    if table.damaged:
        message += (
            f"; {len(table.damaged)} damaged files in the store were passed over, and their rows "
            f"computed again: {table.damaged[0]} and so on can be deleted"
        )
    return message


def counted(splits: Splits) -> str:
    parts = (("train", splits.train), ("val", splits.val), ("test", splits.test))
    copies = sum(item.expected for item in splits.left_out)
    again = f"; {copies:,} exact copies in val and test do not count" if copies else ""
    return ", ".join(f"{name} {len(part):,}" for name, part in parts) + again


def result_message(result: FitResult) -> str:
    """Return what was chosen, and how many parameters were trained."""
    settings = dict(result.chosen)
    name, by = settings.pop("head", ""), settings.pop("by")
    stopped = settings.pop("stopped_after", None)
    who = settings.pop("stopped_by", "the listener")
    settings.pop("arithmetic", None)  # reported before training
    first = result.history[0].epoch if result.history else 0  # of this phase: before training
    if "epoch" in settings:
        settings["epoch"] -= first
    shown = ", ".join(f"{k} = {v:.3g}" for k, v in settings.items())
    end = ""
    if stopped is not None:
        end = f"; stopped after epoch {stopped - first}, as {who} asked"
    trained, frozen = result.count.trainable, result.count.frozen
    return (
        f"{name}{', ' if name else ''}{shown} (by {by}){end}; {trained.parameters:,} trainable "
        f"parameters in {trained.tensors} tensors, {frozen.parameters:,} frozen in {frozen.tensors}"
    )


def ensemble_message(members: Sequence[Candidate], name: str, average: Candidate) -> str:
    """Return a line on the average of the members, with the metric of each on validation."""
    of = len(average.fitted.members)
    line = f"{name} of {of} of {len(members)} fine-tunings"
    if name == "ensemble":
        line += f", whose thawed layers all run: a prediction takes up to {of} times as long"
    if not len(average.table):
        return line
    metric = average.val.target.merit_name.replace("_", " ")
    each = ", ".join(merit_text(member) for member in members)
    return f"{line} ({metric} on validation: {merit_text(average)}; single {each})"


def merit_text(candidate: Candidate) -> str:
    """Return the metric on validation by which candidates are chosen."""
    val = candidate.val
    if not len(val):
        return "unknown"
    metric = val.target.metrics(val.outputs, val.labels).get(val.target.merit_name)
    return f"{candidate.merit[0] if metric is None else metric.value:.4g}"


def refit_message(kept: str, train: int, val: int, noun: str) -> str:
    """Return on which rows what was kept has been fitted again."""
    return (
        f"the {kept} again, with all that was chosen, on {train + val:,} {noun}: the {train:,} of "
        f"training and the {val:,} of validation (--no-refit leaves it as it was)"
    )


def attack_message(result: FitResult) -> str:
    """Return the accuracy under attack before and after adversarial training, from the history."""
    before, kept = result.history[0], result.chosen["epoch"]
    after = next(line for line in result.history if line.epoch == kept)
    averaged = result.chosen.get("wise", 1.0) < 1
    return (
        f"accuracy under attack on validation: {before.val_accuracy:.3f} before, "
        f"{after.val_accuracy:.3f} after epoch {kept - before.epoch}"
        f"{', before its weights were averaged with those at the start' if averaged else ''}"
    )


def epoch_message(phase: str, number: int, figures: Mapping[str, float]) -> str:
    """Return an epoch as one line; figures: as reported to a listener. A refit's has no validation.

    >>> figures = {"train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.01, "seconds": 1.2}
    >>> epoch_message("refit", 3, figures)
    'epoch 3   loss 0.5000   accuracy 0.750   no validation rows are left   1.2 s'
    """
    refitting = phase.startswith("refit")  # refit, refit-2, refit-head: from validation rows too

    def shown(name: str, digits: int) -> str:
        values = (figures.get(f"{part}_{name}") for part in ("train", "val"))
        train, val = ("-" if value is None else f"{value:.{digits}f}" for value in values)
        return f"{name} {train}" + ("" if refitting else f", val {val}")

    when = f"epoch {number:<3}" if "lr" in figures else "before   "
    attacked = "attacked: " if "adversarial" in figures else ""
    seconds = f"{figures['seconds']:.1f} s"
    counted = any(name.endswith("_accuracy") for name, v in figures.items() if v is not None)
    unjudged = not any(name.endswith("_loss") for name in figures)
    right = f"   {shown('accuracy', 3)}" if counted or unjudged else ""
    none_left = "   no validation rows are left" if refitting else ""
    return f"{when} {attacked}{shown('loss', 4)}{right}{none_left}   {seconds}"


def data_message(rows: Dataset) -> str:
    if not rows.classes:
        return f"{len(rows):,} rows: {rows.target.described}"
    return f"{len(rows):,} {rows.noun}, {len(rows.classes)} classes: {counts_text(rows.counts)}"


def limits_message(plan: TrustPlan, limits: Limits, noun: str = "images", rows: int = 0) -> str:
    """Return the limits found, and those that could not be found.

    noun: of the examples. rows: on which they were found.
    """
    scaled = limits.temperature != 1 or not limits.alpha
    parts = [f"temperature {limits.temperature:.2f}"] if scaled else []
    if scaled and at_bound(limits.temperature):
        parts[0] += (
            ", the last one tried: the scores still say too much or too little of how often "
            "answers are right, so don't read them as probabilities"
        )
    if limits.alpha and np.isfinite(limits.miss).all():
        parts.append(f"intervals or sets that hold {1 - limits.alpha:.0%} of the true labels")
    elif limits.alpha:
        parts.append(f"validation is too small for a coverage of {1 - limits.alpha:.0%}")
    if math.isfinite(limits.far):
        share = plan.false_alarms_of(rows) if rows else plan.false_alarms
        least = ", the lowest share that so few rows allow" if share > plan.false_alarms else ""
        parts.append(
            f"unlike the training {noun} from distance {limits.far:.2f} on "
            f"(as {share:.1%} of ordinary ones are{least})"
        )
    elif plan.false_alarms:
        parts.append(f"there are no rows to tell what is unlike the training {noun}")
    if limits.confidence:
        parts.append(f"unknown below a score of {limits.confidence:.2f}")
    elif plan.precision or plan.coverage:
        wanted = f"precision of {plan.precision:g}" if plan.precision else "coverage"
        parts.append(f"validation can't warrant any threshold for the {wanted}: none was set")
    return "; ".join(parts)


def more_parts(count: int, of: int, noun: str, most: int) -> str:
    """Return how many examples have more parts than a training step learns from."""
    return (
        f"{count:,} of {of:,} {noun} have more than {most} parts: a step learns from {most} of "
        f"them, evenly spread; all are read where results are measured"
    )
