"""The kinds of target by name: built-in, from installed packages, and registered by a script."""

from collections.abc import Mapping
from typing import Any

from headstart.base.errors import SpecError
from headstart.base.extensions import Extensions
from headstart.targets import saved
from headstart.targets.classes import ClassTarget
from headstart.targets.target import Target

TARGETS: Extensions[type[Target]] = Extensions("kind of target", "targets", classes=True)
TARGETS.add(ClassTarget.kind, ClassTarget)
TARGETS.add("labels", "headstart.targets.labels:LabelsTarget")
TARGETS.add("number", "headstart.targets.numbers:NumberTarget")
TARGETS.add("grades", "headstart.targets.grades:GradesTarget")
TARGETS.add("boxes", "headstart.targets.boxes:BoxesTarget")


def register(target: type[Target]) -> type[Target]:
    """Register a target class (also as its decorator); SpecError if another has its `kind`."""
    if target.kind in TARGETS.names() and (other := TARGETS[target.kind]) is not target:
        raise SpecError(
            f"Kinds of target have names of their own; {target.kind!r} is "
            f"{other.__qualname__}. Give {target.__qualname__} another `kind`."
        )
    TARGETS.register(target.kind, target)
    return target


def target_to_plain(target: Target) -> dict[str, Any]:
    """Return a target for JSON: class names and most frequent class, or kind and settings."""
    if isinstance(target, ClassTarget):
        return {"classes": list(target.names), "majority": target.majority}
    return {"target": {"kind": target.kind, **target.settings()}}


def target_from_plain(plain: Mapping[str, Any]) -> Target:
    """Return the target saved in the file of a model or of an evaluation."""
    if "target" in plain:
        settings = dict(plain["target"])
        return TARGETS[saved.text(settings.pop("kind"), "kind")].load(settings)
    names, base = saved.names(plain.get("classes", ())), plain.get("baseline") or plain
    return ClassTarget(names, saved.text(base.get("majority", ""), "majority") if names else "")
