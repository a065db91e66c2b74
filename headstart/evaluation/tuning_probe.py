"""Measure what fine-tuning gains over the head, by short fine-tuning in folds of a sample.

The frozen part runs once for each row, so that a probe takes seconds to a minute.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import NoChange
from headstart.base.context import RunContext
from headstart.base.listener import Listener
from headstart.base.runtime import torch_threads
from headstart.base.values import Record
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.evaluation.evaluation import Estimate, compare, merit_of
from headstart.features.extract import FeatureTable
from headstart.heads.fit import folds_of_rows
from headstart.models.fitting import fit_phase
from headstart.models.model import Model
from headstart.models.results import FitResult
from headstart.models.specs import FineTune, TwoPhaseSpec
from headstart.models.training_data import (
    Start,
    Tables,
    TrainingData,
    prepare,
    table_of,
    with_tap,
)
from headstart.targets.predictions import Predictions
from headstart.targets.target import Outputs

FOLDS = 3
INNER = 6  # one part of so many of a fold's training rows is for validation


@dataclass(frozen=True)
class TuningProbe(Record):
    """A head and a fine-tuned network, judged on the same rows, which neither learned from.

    thaw: what was thawed, such as "3" blocks of `blocks`, or "all". rows: judged. epochs: passes of
    fine-tuning, fewer than a run's. head, tuned: the target's merit. gain: mean score of a row by
    the fine-tuned network minus that by the head, with its paired interval. seconds: of
    fine-tuning, for a row and pass.
    """

    thaw: str
    blocks: int
    rows: int
    epochs: int
    head: Estimate
    tuned: Estimate
    gain: Estimate
    seconds: float


@dataclass(frozen=True, eq=False)
class ProbeAnswers:
    """A probe, and the answers to all rows by the heads and by the fine-tuned networks."""

    probe: TuningProbe
    head: Predictions
    tuned: Predictions


def tuning_probe(
    backbone: Backbone, rows: Dataset, thaw: str, epochs: int, context: RunContext
) -> ProbeAnswers:
    """Fine-tune on two thirds of the rows three times, and judge the last third each time.

    rows: checked; groups are held out together. Raises the errors of fine-tuning.
    """
    spec = TwoPhaseSpec(finetune=FineTune(thaw=thaw, epochs=epochs))
    spec = replace(spec, head=spec.head.for_target(rows.target, Listener()))
    quiet = replace(context, listener=Listener())
    start = _begun(spec, backbone, rows, context)
    fold_answers = list[tuple[NDArray[np.int64], Outputs, Outputs]]()
    paces = list[float]()
    folds = list(_folds(rows))
    for number, (out, splits) in enumerate(folds, start=1):
        own = replace(prepare(spec, backbone), tap=start.tap, table=start.table)
        fold = _Fold(spec, own, splits, quiet)
        head = fold.head()
        tuned = fold.tuned(head)
        learned = [line for line in tuned.history if line.lr is not None]
        paces += [line.seconds / len(splits.train) for line in learned]
        fold_answers.append((out, head.answers(fold.features.x), fold.answers(tuned)))
        context.listener.progress("probe", number, len(folds))
    by_head, by_tuned = (_together(rows, fold_answers, which) for which in (1, 2))
    settings = own.settings
    assert settings is not None
    probe = TuningProbe(
        settings.thaw,
        len(backbone.blocks),
        len(by_head),
        epochs,
        merit_of(by_head),
        merit_of(by_tuned),
        compare(by_tuned, by_head),
        float(f"{np.median(paces):.4g}"),  # without the start, which a longer run makes once
    )
    return ProbeAnswers(probe, by_head, by_tuned)


def _begun(spec: TwoPhaseSpec, backbone: Backbone, rows: Dataset, context: RunContext) -> Start:
    """Return the start of fine-tuning with features, and activations at the cut, of all rows."""
    empty = rows.take([])
    start = with_tap(prepare(spec, backbone), Splits(rows, empty, empty), NoChange(), context)
    return replace(start, table=table_of(start.backbone, rows, context, start.tap))


@dataclass(frozen=True, eq=False)
class _Fold:
    """A fold: `splits.test` is what its models are judged on."""

    spec: TwoPhaseSpec
    start: Start
    splits: Splits
    context: RunContext

    @property
    def data(self) -> TrainingData:
        return TrainingData(self.start, self.splits, NoChange(), self.context)

    @property
    def features(self) -> FeatureTable:
        return self.data.plain(self.splits.test)

    def tables(self) -> Tables:
        data = self.data
        return data.train(self.spec.head.seed, cut=True), data.plain(data.splits.val)

    def head(self) -> Model:
        return fit_phase(self.spec.head, self.data, self.tables()).model

    def tuned(self, head: Model) -> FitResult:
        from headstart.models.tuning import fine_tune

        settings, thawed = self.start.settings, self.start.thawed
        assert settings is not None
        assert thawed is not None
        with torch_threads(self.context.runtime.threads):
            feeds = self.data.for_tuning(self.tables())
            return fine_tune(settings, thawed, head, feeds, self.context)

    def answers(self, tuned: FitResult) -> Outputs:
        """Return a fine-tuned model's answers to the test rows, from stored activations."""
        from headstart.models.tuning import tuned_answers

        judged = replace(self.splits, val=self.splits.test)
        data = TrainingData(self.start, judged, NoChange(), self.context)
        _, rows = data.for_tuning((self.tables()[0], data.plain(data.splits.val)))
        return tuned_answers(self.start, tuned, rows, self.context)


def _folds(rows: Dataset) -> Iterator[tuple[NDArray[np.int64], Splits]]:
    """Yield the rows of each fold, and their splits: a fold is the test part."""
    folds = folds_of_rows(rows, FOLDS)
    for fold in range(int(folds.max(initial=-1)) + 1):
        out, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        rest = rows.take(kept)
        inner = folds_of_rows(rest, INNER)
        train, val = rest.take(np.flatnonzero(inner != 0)), rest.take(np.flatnonzero(inner == 0))
        yield out, Splits(train, val, rows.take(out))


def _together(
    rows: Dataset, fold_answers: list[tuple[NDArray[np.int64], Outputs, Outputs]], which: int
) -> Predictions:
    """Return the answers of all folds; which: 1 for the heads', 2 for the fine-tuned networks'."""
    judged = rows.take(np.concatenate([item[0] for item in fold_answers]))
    parts = [item[1] if which == 1 else item[2] for item in fold_answers]
    answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Predictions(judged.ids, answers, judged.y, judged.target.fitted(judged.y))
