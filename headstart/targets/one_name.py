"""What targets with one name per row have in common: a class, or a grade."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, UnknownName
from headstart.targets.metrics import ClassWeights, log_losses, weight_of_classes
from headstart.targets.target import Array, Labels, Outputs, Row, Share, Target

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = -1  # the label of a row whose name is unknown or not in `names`


class OneName(Target):
    """One of `names` per row; labels are (N,) int64 indices into `names`, -1 if unknown.

    Answers hold {"scores": (N, C)}, and a region {"not_ruled_out": (N, C) bool}. name_noun: of a
    name, for messages.
    """

    names: tuple[str, ...]
    name_noun: ClassVar[str]

    # ------------------------------------------------------------ labels
    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: c for c, name in enumerate(self.names)}

    def encode(self, row: Row) -> int:
        if (place := self._places.get(row["label"])) is None:
            raise DataError(str(UnknownName(self.name_noun, row["label"], self.names)))
        return place

    def decode(self, y: Labels) -> list[str]:
        names = [*self.names, ""]  # -1 indexes the last
        return [names[label] for label in y]

    def known(self, y: Labels) -> NDArray[np.bool_]:
        return np.asarray(y != UNKNOWN)

    def unknown(self, n: int) -> NDArray[np.int64]:
        return np.full(n, UNKNOWN, dtype=np.int64)

    def strata(self, y: Labels) -> NDArray[np.int64]:
        return np.asarray(y, np.int64)

    @property
    def stratum_names(self) -> tuple[str, ...]:
        return self.names

    def most_frequent(self, y: Labels) -> str:
        """Return the name with the most rows."""
        return self.names[int(np.bincount(y).argmax())]

    def share_of(self, name: str, y: Labels) -> Share | None:
        """Return the share of the rows with this name, None without rows."""
        right = int((y == self.names.index(name)).sum())
        return Share(right / len(y), len(y)) if len(y) else None

    # ------------------------------------------------------------ learning
    def soft(self, y: Labels, smoothing: float = 0.0) -> "Tensor":
        """Return (N, C) probabilities with label smoothing (Szegedy et al. 2016)."""
        import torch
        from torch.nn.functional import one_hot

        return self.smoothed(one_hot(torch.as_tensor(y), len(self.names)).float(), smoothing)

    def smoothed(self, soft: "Tensor", smoothing: float) -> "Tensor":
        return soft * (1 - smoothing) + smoothing / len(self.names)

    def balance(
        self, how: ClassWeights, y: Labels, case: Array | None = None
    ) -> NDArray[np.float64]:
        return weight_of_classes(how, y, self.names, case)

    def weights(self, soft: "Tensor", balance: "Tensor") -> "Tensor":
        return soft @ balance

    def row_weights(
        self,
        how: ClassWeights,
        y: Labels,
        train: Labels | None = None,
        case: Array | None = None,
    ) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = self.balance(how, y if train is None else train, case)[y]
        return weights

    def row_losses(self, answers: Outputs, y: Labels) -> NDArray[np.float64]:
        """Return (N,) -log of the probability of the true name, at most -log(LEAST)."""
        return log_losses(answers["scores"], y)

    # ------------------------------------------------------------ uncertainty
    def covered(self, region: Mapping[str, Array], y: Labels) -> NDArray[np.float64]:
        return region["not_ruled_out"][np.arange(len(y)), y].astype(np.float64)

    def region_size(self, region: Mapping[str, Array]) -> NDArray[np.float64]:
        return region["not_ruled_out"].sum(axis=1).astype(np.float64)
