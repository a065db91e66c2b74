"""Augmented versions (views) of an example, numbered and reproducible."""

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Protocol

import numpy as np

from headstart.backbones.inputs import Batch, only_array
from headstart.base.errors import Mismatch, SpecError
from headstart.base.store import digest
from headstart.base.values import as_key, fingerprint


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


class FollowedViews(ViewSpec, Protocol):
    """Changes that places in an example follow."""

    def moved(self, places: Any, seed: int, width: int, height: int) -> Any:
        """Return the places, as a value of the target, in the view of this seed.

        width, height: of the prepared example.
        """


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
class UserViews:
    """Views made by a user's function, drawn anew in every epoch and never stored.

    A recipe cannot hold a function, so a run with such views cannot be repeated from its recipe;
    the recipe records this.

    function: takes one prepared array without its batch axis, such as (S, S, 3) uint8, and, if it
    has a second parameter, a NumPy Generator; returns an array of the same shape and dtype.
    """

    name: str = ""
    function: Callable[..., Any] | None = field(default=None, metadata=as_key("", written=False))
    repeatable: bool = False
    views: int = field(default=0, metadata=as_key("", written=False))
    active: bool = field(default=True, metadata=as_key("", written=False))

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise SpecError(
                f"These views were made by a function of a script, {self.name or 'unnamed'}: give "
                f"the function again, or leave augment out."
            )
        if not self.name:
            name = getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "name", name)

    def fingerprint(self) -> str:
        return f"{self.name} {id(self.function)}"  # of this process; nothing is stored under it

    def change(self, example: Batch, seed: int) -> Batch:
        """Return the changed example; raises Mismatch if `function` changed its shape or dtype."""
        (name, before), function = next(iter(example.items())), self.function
        only_array(example)
        assert function is not None
        random = (np.random.default_rng(seed),) if len(signature(function).parameters) > 1 else ()
        after = np.asarray(function(before[0].copy(), *random))
        if (after.shape, after.dtype) != (before[0].shape, before.dtype):
            raise Mismatch(
                f"{self.name} must return an array like the one it is given, {before[0].shape} of "
                f"{before.dtype}; got {after.shape} of {after.dtype}."
            )
        return {name: after[None]}


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
        return self.spec.change(plain, self.seed_of(file, number))

    def seed_of(self, file: bytes, number: int) -> int:
        """Return the seed of the changes of view `number` of the file with digest `file`."""
        seed = (self.seed % 2**64).to_bytes(8, "little")
        named = digest(file, number.to_bytes(4, "little"), seed)
        return int.from_bytes(named[:4], "little")


PLAIN = Views()
