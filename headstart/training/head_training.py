"""Train a head by epochs on the features of a frozen backbone."""

from dataclasses import dataclass, replace

from torch import nn

from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.runtime import ON_CPU
from headstart.heads.mlp import MlpHead
from headstart.heads.specs import TrainedSpec
from headstart.training.feeds import Feed
from headstart.training.loop import Trained, train
from headstart.training.network import Network, dense_head, new_head
from headstart.training.plan import Plan


@dataclass(frozen=True, eq=False)
class TrainedHead:
    head: MlpHead
    trained: Trained
    tensors: int


def head_plan(spec: TrainedSpec, seed: int) -> Plan:
    return Plan(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        optimizer=spec.optimizer,
        lr=spec.lr,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        keep=spec.keep,
        class_weights=spec.class_weights,
        seed=seed,
    )


def train_head(
    spec: TrainedSpec,
    seed: int,
    rows: Feed,
    val: Feed,
    features: int,
    context: RunContext = IN_MEMORY,
) -> TrainedHead:
    """Train a new head of `spec` on feeds of features (N, D); on the CPU, because it is small."""
    module = new_head(spec, features, rows.target.outputs, seed)
    network = Network(nn.Identity(), module, ())
    plan = head_plan(spec, seed)
    context = replace(context, runtime=ON_CPU)
    trained = train(network, plan, rows, val, phase="head", context=context)
    return TrainedHead(dense_head(module), trained, len(network.learned()))
