"""Find a fitted model's limits on validation rows."""

from dataclasses import replace

import numpy as np

from headstart.base.runtime import Runtime
from headstart.base.store import USUAL, Store
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.features.extract import FeatureTable, extract
from headstart.models.distance import Seen
from headstart.models.limits import Judged, Limits, TrustPlan, find_limits
from headstart.models.model import Model

ROWS = 1000  # stored training rows: 2.5 MB for 1,280 features


def with_limits(
    model: Model,
    data: Splits,
    plan: TrustPlan | None = None,
    *,
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
) -> Model:
    """Return the model with the limits of `plan`, found on `data.val`; `data.test` is not used."""
    plan, backbone = plan or TrustPlan(), model.backbone
    val = extract(backbone, data.val, store=store, runtime=runtime)
    few = remembered(data.train)
    seen = extract(backbone, few, store=store, runtime=runtime) if plan.false_alarms else None
    return limited(model, plan, val, seen)


def limited(model: Model, plan: TrustPlan, val: FeatureTable, seen: FeatureTable | None) -> Model:
    """Return `model` with the limits of `plan`, found on `val`. seen: training rows to store."""
    predictions = replace(model, limits=Limits()).predict_table(val)
    known = predictions.take(np.flatnonzero(predictions.known))
    judged = Judged(model.target, known.outputs, known.labels, val.x[predictions.known])
    rows = None if seen is None else Seen.of(seen.x)
    return replace(model, limits=find_limits(plan, judged, rows))


def remembered(train: Dataset, seed: int = 0) -> Dataset:
    """Return the training rows stored with a model: at most 1,000, drawn at random."""
    if len(train) <= ROWS:
        return train
    return train.take(np.sort(np.random.default_rng(seed).permutation(len(train))[:ROWS]))
