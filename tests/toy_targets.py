"""The smallest targets of several labels, grades and a number, for tests of what learns them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.targets.metrics import ClassWeights
from headstart.targets.target import Labels, Link, Mean, Metric, Outputs, Row, Target

Array = NDArray[Any]


def log_odds(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))


class Toy(Target):
    decides: ClassVar[bool] = False

    def encode(self, row: Row) -> Any:
        return row[self.reads[0]]

    def labels(self, values: Sequence[Any]) -> Array:
        return np.array(values, np.float64)

    def unknown(self, n: int) -> Array:
        return np.full(n, np.nan)

    def row_scores(self, answers: Outputs, y: Array) -> Array:
        return -self.row_losses(answers, y)

    def metrics(self, answers: Outputs, y: Labels) -> Mapping[str, Metric | None]:
        return {"loss": Mean(self.row_losses(answers, y)) if len(y) else None}


@dataclass(frozen=True)
class ToyLabels(Toy):
    """Labels (N, L) of 0 and 1; answered where the probability is above `threshold`."""

    count: int = 3
    threshold: float = 0.5
    kind: ClassVar[str] = "toy-labels"
    reads: ClassVar[tuple[str, ...]] = ("toys",)
    link: ClassVar[Link | None] = "sigmoid"
    decides: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return self.count

    def strata(self, y: Array) -> NDArray[np.int64]:
        return (y @ (2 ** np.arange(self.count))).astype(np.int64)

    def regression(self, y: Array) -> NDArray[np.float64]:
        return y.astype(np.float64)

    def loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        each = nn.functional.binary_cross_entropy_with_logits(raw, soft, reduction="none")
        return each.mean(dim=1)

    def activate(self, raw: Array) -> Outputs:
        return {"p": log_odds(raw)}

    def row_losses(self, answers: Outputs, y: Array) -> Array:
        p = np.clip(answers["p"], 1e-9, 1 - 1e-9)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1)

    def row_weights(
        self, how: ClassWeights, y: Array, train: Array | None = None, case: Array | None = None
    ) -> Array:
        return np.where(y[:, 0] > 0, 2.0, 1.0) if how == "balanced" else np.ones(len(y))

    def decided(self, answers: Outputs, y: Labels) -> "ToyLabels":
        return replace(self, threshold=float(np.mean(answers["p"][y > 0])))


@dataclass(frozen=True)
class ToyGrades(Toy):
    """Grades 0 … `count` - 1, by proportional odds."""

    count: int = 4
    kind: ClassVar[str] = "toy-grades"
    reads: ClassVar[tuple[str, ...]] = ("toy",)
    link: ClassVar[Link | None] = "cumulative"

    @property
    def outputs(self) -> int:
        return self.count - 1

    def settings(self) -> dict[str, Any]:
        return {"count": self.count}

    def labels(self, values: Sequence[Any]) -> Array:
        return np.array(values, np.int64)

    def strata(self, y: Array) -> NDArray[np.int64]:
        return y

    def regression(self, y: Array) -> NDArray[np.float64]:
        return (y[:, None] > np.arange(self.outputs)).astype(np.float64)

    def soft(self, y: Array, smoothing: float = 0.0) -> Tensor:
        import torch

        return torch.as_tensor(self.regression(y)).float()

    def loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        each = nn.functional.binary_cross_entropy_with_logits(raw, soft, reduction="none")
        return each.sum(dim=1)

    def activate(self, raw: Array) -> Outputs:
        return {"above": log_odds(raw)}

    def row_losses(self, answers: Outputs, y: Array) -> Array:
        edges = np.hstack([np.ones((len(y), 1)), answers["above"], np.zeros((len(y), 1))])
        p = (edges[:, :-1] - edges[:, 1:])[np.arange(len(y)), y]
        return -np.log(np.maximum(p, 1e-9))

    def tie(self, last: nn.Linear) -> None:
        import torch

        with torch.no_grad():
            last.weight.copy_(last.weight.mean(dim=0, keepdim=True).expand_as(last.weight))
            last.bias.copy_(torch.sort(last.bias, descending=True).values)
        last.weight.register_hook(lambda g: g.mean(dim=0, keepdim=True).expand_as(g).contiguous())


@dataclass(frozen=True)
class ToyNumber(Toy):
    """A number, standardised inside."""

    mean: float = 0.0
    std: float = 1.0
    kind: ClassVar[str] = "toy-number"
    reads: ClassVar[tuple[str, ...]] = ("toy-value",)
    link: ClassVar[Link | None] = "identity"

    def fitted(self, y: Array) -> "ToyNumber":
        return ToyNumber(float(y.mean()), float(y.std()))

    def regression(self, y: Array) -> NDArray[np.float64]:
        return ((y - self.mean) / self.std)[:, None]

    def loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        return (raw[:, 0] - (soft - self.mean) / self.std) ** 2

    def activate(self, raw: Array) -> Outputs:
        return {"value": raw[:, 0] * self.std + self.mean}

    def row_losses(self, answers: Outputs, y: Array) -> Array:
        return (answers["value"] - y) ** 2
