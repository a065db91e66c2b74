"""Finding what a fitted model should doubt, on rows that trained nothing."""

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

ROWS = 1000  # training rows that are remembered: 2.5 MB for 1,280 features


def with_limits(
    model: Model,
    data: Splits,
    plan: TrustPlan | None = None,
    *,
    store: Store | None = USUAL,
    runtime: Runtime | None = None,
) -> Model:
    """The same model with what `plan` asks for found on `data.val`; `data.test` is not touched."""
    plan, backbone = plan or TrustPlan(), model.backbone
    val = extract(backbone, data.val, store=store, runtime=runtime)
    few = remembered(data.train)
    seen = extract(backbone, few, store=store, runtime=runtime) if plan.false_alarms else None
    return limited(model, plan, val, seen)


def limited(model: Model, plan: TrustPlan, val: FeatureTable, seen: FeatureTable | None) -> Model:
    """As `with_limits`, from features. seen: of the training rows that are to be remembered."""
    said = replace(model, limits=Limits()).predict_table(val)
    told = said.take(np.flatnonzero(said.known))
    judged = Judged(model.target, told.outputs, told.labels, val.x[said.known])
    known = None if seen is None else Seen.of(seen.x)
    return replace(model, limits=find_limits(plan, judged, known))


def remembered(train: Dataset, seed: int = 0) -> Dataset:
    """The training rows whose features travel with a model: at most a thousand, drawn at random."""
    if len(train) <= ROWS:
        return train
    return train.take(np.sort(np.random.default_rng(seed).permutation(len(train))[:ROWS]))
