"""The kinds of target by name: built-in, from installed packages, and registered by a script."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from headstart.base.errors import SpecError, UnknownName
from headstart.targets.classes import ClassTarget
from headstart.targets.target import Target

GROUP = "headstart.targets"  # entry points, each a class that implements `Target`
_KINDS: dict[str, type[Target]] = {ClassTarget.kind: ClassTarget}


def register(target: type[Target]) -> type[Target]:
    """Register a target class (also as its decorator); SpecError if another has its `kind`."""
    if _KINDS.setdefault(target.kind, target) is not target:
        raise SpecError(
            f"Kinds of target have names of their own; {target.kind!r} is "
            f"{_KINDS[target.kind].__qualname__}. Give {target.__qualname__} another `kind`."
        )
    return target


def kinds() -> dict[str, type[Target]]:
    """Return every kind by its name, the built-in ones first."""
    for point in entry_points(group=GROUP):
        if point.name not in _KINDS:
            register(point.load())
    return _KINDS


def target_kind(name: str) -> type[Target]:
    """Return the kind of this name; raises UnknownName with the nearest one."""
    if name not in _KINDS and name not in kinds():
        raise UnknownName("kind of target", name, _KINDS)
    return _KINDS[name]


def target_to_plain(target: Target) -> dict[str, Any]:
    """Return a target as saved: class names and majority, or its kind and settings."""
    if isinstance(target, ClassTarget):
        return {"classes": list(target.names), "majority": target.majority}
    return {"target": {"kind": target.kind, **target.settings()}}


def target_from_plain(plain: Mapping[str, Any]) -> Target:
    """Return the target saved in the file of a model or of an evaluation."""
    if "target" in plain:
        settings = dict(plain["target"])
        return target_kind(str(settings.pop("kind"))).load(settings)
    names, base = tuple(plain.get("classes", ())), plain.get("baseline") or plain
    return ClassTarget(names, base.get("majority", "") if names else "")
