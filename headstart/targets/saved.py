"""Read the settings of a target from a file that a stranger may have written."""

import math
from collections.abc import Mapping
from typing import Any

from headstart.base.errors import SpecError

SHOWN = 40  # characters of a foreign value in a message


def check_keys(settings: Mapping[str, Any], needed: set[str], others: set[str]) -> None:
    """Raise SpecError unless the keys are those of a target."""
    if wrong := sorted((settings.keys() - needed - others) | (needed - settings.keys())):
        raise SpecError(
            f"The settings of this target are {', '.join(sorted(needed | others))}; "
            f"{wrong[0][:SHOWN]!r} is missing, or is none of them."
        )


def text(value: Any, what: str) -> str:
    """Return a text; raises SpecError for anything else."""
    if type(value) is not str:
        raise SpecError(f"{what} must be a text; got {value!r:.{SHOWN}}.")
    return value


def names(value: Any, what: str = "class") -> tuple[str, ...]:
    """Return names; raises SpecError unless all are texts with something in them.

    >>> names(["cat", "dog"])
    ('cat', 'dog')
    """
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"Names must be a list; got {value!r:.{SHOWN}}.")
    for name in value:
        if not text(name, f"The name of a {what}").strip():
            raise SpecError(f"The name of a {what} must not be empty.")
    return tuple(value)


def number(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number from `low` to `high`; raises SpecError for anything else."""
    fits = type(value) in (int, float) and math.isfinite(value) and low <= value <= high
    if not fits:
        ends = "" if (low, high) == (-math.inf, math.inf) else f" from {low:g} to {high:g}"
        raise SpecError(f"{what} must be a finite number{ends}; got {value!r:.{SHOWN}}.")
    return float(value)


def numbers(value: Any, what: str, low: float, high: float) -> tuple[float, ...]:
    """Return a list of such numbers."""
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"{what} must be a list of numbers; got {value!r:.{SHOWN}}.")
    return tuple(number(each, what, low, high) for each in value)
