"""Which changed versions of an example there are: numbered, and the same for a number ever."""

from dataclasses import dataclass
from typing import Protocol

from headstart.backbones.inputs import Batch
from headstart.base.store import digest
from headstart.base.values import fingerprint


class ViewSpec(Protocol):
    """Random changes to a prepared example that leave its answer as it is; each input has its own.

    active: whether a view can differ from its example at all. views: how many of them are made
    once and stored; 0 draws new ones every epoch.
    """

    @property
    def active(self) -> bool: ...
    @property
    def views(self) -> int: ...
    def fingerprint(self) -> str: ...
    def change(self, example: Batch, seed: int) -> Batch: ...  # N = 1; the same for the same seed


@dataclass(frozen=True)
class NoChange:
    """Every view is the example itself."""

    active: bool = False
    views: int = 0

    def fingerprint(self) -> str:
        return ""

    def change(self, example: Batch, seed: int) -> Batch:
        return example


@dataclass(frozen=True)
class Views:
    """Every example's views 0, 1, 2, …: each decided by the file's bytes, its number and the seed.

    So a view does not depend on the order of the rows, on threads, or on what else is trained.
    """

    spec: ViewSpec = NoChange()
    seed: int = 0

    @property
    def count(self) -> int:
        """How many views of an example are stored; 0 for new ones every epoch."""
        return self.spec.views if self.spec.active else 1

    def fingerprint(self) -> str:
        """Nothing for views that change nothing, so that they share what plain examples have."""
        return fingerprint(self.spec.fingerprint(), self.seed) if self.spec.active else ""

    def name(self, file: bytes, number: int) -> bytes:
        """Names view `number` of the file with this digest."""
        return digest(file, number.to_bytes(4, "little")) if self.spec.active else file

    def view(self, plain: Batch, file: bytes, number: int) -> Batch:
        """View `number` of a prepared example, which is of the file with this digest."""
        if not self.spec.active:
            return plain
        seed = (self.seed % 2**64).to_bytes(8, "little")
        named = digest(file, number.to_bytes(4, "little"), seed)
        return self.spec.change(plain, int.from_bytes(named[:4], "little"))


PLAIN = Views()
