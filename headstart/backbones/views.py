"""Augmented versions (views) of an example, numbered and reproducible."""

from dataclasses import dataclass
from typing import Protocol

from headstart.backbones.inputs import Batch
from headstart.base.store import digest
from headstart.base.values import fingerprint


class ViewSpec(Protocol):
    """Random changes to a prepared example that keep its label; each input has its own.

    active: whether a view can differ from its example. views: number of stored views per example; 0
    draws new views every epoch.
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
    """Views 0, 1, 2, … of every example, each a function of file bytes, number and seed.

    A view does not depend on row order, threads or other training data.
    """

    spec: ViewSpec = NoChange()
    seed: int = 0

    @property
    def count(self) -> int:
        """The number of stored views per example; 0 means new views every epoch."""
        return self.spec.views if self.spec.active else 1

    def fingerprint(self) -> str:
        """Return "" if views change nothing, so that they share the plain examples' cache."""
        return fingerprint(self.spec.fingerprint(), self.seed) if self.spec.active else ""

    def name(self, file: bytes, number: int) -> bytes:
        """Return the cache key of view `number` of the file with digest `file`."""
        return digest(file, number.to_bytes(4, "little")) if self.spec.active else file

    def view(self, plain: Batch, file: bytes, number: int) -> Batch:
        """Return view `number` of the prepared example `plain`; `file`: the digest of its file."""
        if not self.spec.active:
            return plain
        seed = (self.seed % 2**64).to_bytes(8, "little")
        named = digest(file, number.to_bytes(4, "little"), seed)
        return self.spec.change(plain, int.from_bytes(named[:4], "little"))


PLAIN = Views()
