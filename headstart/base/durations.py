"""Durations as people write them: 90s, 10m, 1h, 1h30m, or a number of seconds."""

import math
import re

from headstart.base.errors import SpecError

UNITS = {"h": 3600, "m": 60, "s": 1}
_PARTS = re.compile(r"(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s?)?", re.I)


def seconds_of(given: float | str, name: str = "a duration") -> float:
    """Return a duration in seconds; raises SpecError, which names it, for anything else.

    >>> seconds_of("1h30m"), seconds_of("90s"), seconds_of("2.5m"), seconds_of(60)
    (5400.0, 90.0, 150.0, 60.0)
    """
    seconds = -1.0
    if isinstance(given, str):
        found = _PARTS.fullmatch(given.strip())
        if found and any(found.groups()):
            try:
                numbers = [float(part or 0) for part in found.groups()]
                seconds = sum(n * u for n, u in zip(numbers, UNITS.values(), strict=True))
            except ValueError:  # 1.2.3
                pass
    elif isinstance(given, int | float) and not isinstance(given, bool):
        seconds = float(given)
    if not 0 <= seconds < math.inf:
        raise SpecError(f"{name} is a time such as 90s, 10m or 1h30m; got {given!r}.")
    return seconds


def spoken(seconds: float) -> str:
    """Return a duration for a person, the inverse of `seconds_of` to two units.

    >>> spoken(8.4), spoken(90), spoken(150), spoken(600), spoken(5400)
    ('8 s', '90 s', '2 min 30 s', '10 min', '1 h 30 min')
    """
    whole = round(seconds)
    if whole <= 90:
        return f"{whole} s"
    (large, unit), (small, rest) = (whole // 60, "min"), (whole % 60, "s")
    if whole >= 3600:
        (large, unit), (small, rest) = (whole // 3600, "h"), (whole % 3600 // 60, "min")
    return f"{large} {unit} {small} {rest}" if small else f"{large} {unit}"
