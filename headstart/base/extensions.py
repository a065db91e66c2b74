"""Tables of what packages and scripts may add: entry points of a group, or a call."""

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from headstart.base.errors import HeadstartError, SpecError, UnknownName

T = TypeVar("T")


class Extensions(Generic[T]):
    """Members by name. A member is an object, or where it stands: "module" or "module:name".

    What stands elsewhere is imported when it is first asked for. Entry points are looked up only
    for a name that is not here, since that takes longer than a command may. group: of entry
    points, without the `headstart.` that it begins with.
    """

    def __init__(self, what: str, group: str) -> None:
        self.what, self.group = what, ".".join(("headstart", group))
        self._built_in: dict[str, T | str] = {}
        self._registered: dict[str, T] = {}

    def add(self, name: str, member: T | str) -> None:
        """Add one of Headstart's own, which nothing may replace."""
        self._built_in[name] = member

    def register(self, name: str, member: T) -> None:
        """Add a user's own; a second one of the same name takes the place of the first.

        Raises SpecError for the name of a built-in one, or for what is no name.
        """
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
        """Of all members: the built-in, the registered, those of installed packages."""
        return tuple(dict.fromkeys([*self._built_in, *self._registered, *self._installed()]))

    def __getitem__(self, name: str) -> T:
        """Raises UnknownName with the nearest, SpecError for an entry point that doesn't load."""
        if name in self._registered:
            return self._registered[name]
        if name in self._built_in:
            member = self._built_in[name]
            return _imported(member) if isinstance(member, str) else member
        installed = self._installed()
        if name not in installed:
            raise UnknownName(self.what, name, self.names())
        return self._loaded(installed[name])

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _loaded(self, point: EntryPoint) -> T:
        try:
            loaded = point.load()
        except (HeadstartError, KeyboardInterrupt):
            raise
        except Exception as error:  # a package's own fault, of any kind
            raise SpecError(
                f"The {self.what} {point.name!r} of an installed package cannot be loaded from "
                f"{point.value}: {error}. Update or uninstall the package."
            ) from error
        return cast(Callable[[], T], loaded)() if isinstance(loaded, type) else loaded


def _imported(where: str) -> Any:
    module, _, name = where.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found
