"""Registries that packages extend by entry points and scripts by a call."""

import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headstart.base.errors import HeadstartError, SpecError, UnknownName

if TYPE_CHECKING:  # slow to import, and only names that are not built in need it
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Extensions(Generic[T]):
    """A registry of members by name.

    A member is an object, or its import path ("module" or "module:name"), imported on use. Entry
    points are searched only for an unregistered name: the search is slow for a command.

    what: the noun for error messages. group: the entry point group, without `headstart.`.
    """

    def __init__(self, what: str, group: str, *, classes: bool = False) -> None:
        self.classes = classes  # whether members are classes, which are not called
        self.what, self.group = what, ".".join(("headstart", group))
        self._built_in: dict[str, T | str] = {}
        self._registered: dict[str, T] = {}

    def add(self, name: str, member: T | str) -> None:
        """Add a built-in member, which cannot be replaced."""
        self._built_in[name] = member

    def register(self, name: str, member: T) -> None:
        """Add or replace a user's member; SpecError for a built-in or malformed name."""
        if name in self._built_in or not re.fullmatch(r"[A-Za-z][\w-]*", name):
            raise SpecError(
                f"A new {self.what} needs a name of letters, digits, - and _ that no built-in one "
                f"has; got {name!r}."
            )
        self._registered[name] = member

    @property
    def built_in(self) -> tuple[str, ...]:
        return tuple(self._built_in)

    def names(self) -> tuple[str, ...]:
        """Return all names: built-in, registered, then those of installed packages."""
        return tuple(dict.fromkeys([*self._built_in, *self._registered, *self._installed()]))

    def __getitem__(self, name: str) -> T:
        """Return a member; raises UnknownName, or SpecError if an entry point doesn't load."""
        if name in self._registered:
            return self._registered[name]
        if name in self._built_in:
            member = self._built_in[name]
            return _imported(member) if isinstance(member, str) else member
        installed = self._installed()
        if name not in installed:
            raise UnknownName(self.what, name, self.names())
        return self._loaded(installed[name])

    def _installed(self) -> "dict[str, EntryPoint]":
        return _entry_points(self.group, tuple(sys.path))

    def _loaded(self, point: "EntryPoint") -> T:
        try:
            loaded = point.load()
        except (HeadstartError, KeyboardInterrupt):
            raise
        except Exception as error:  # a package's own fault, of any kind
            raise SpecError(
                f"The {self.what} {point.name!r} of an installed package cannot be loaded from "
                f"{point.value}: {error}. Update or uninstall the package."
            ) from error
        return (
            cast(Callable[[], T], loaded)()
            if isinstance(loaded, type) and not self.classes
            else loaded
        )


@cache
def _entry_points(group: str, _path: tuple[str, ...]) -> "dict[str, EntryPoint]":
    """Return the entry points of a group by name. _path: where packages are looked for."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}


def _imported(where: str) -> Any:
    module, _, name = where.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found
