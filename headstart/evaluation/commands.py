"""Commands that results suggest, to be typed into a shell."""

import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from headstart.data.checks import CheckPlan
from headstart.targets.plan import TargetPlan


def train_command(data: str, *words: str) -> str:
    """Return the command that trains on `data`. words: its flags, and their values.

    >>> train_command("my photos", "--thaw", "2")
    "headstart train 'my photos' --out RUN --thaw 2"
    """
    return shlex.join(("headstart", "train", data, "--out", "RUN", *words))


def data_flags(target: TargetPlan, checks: CheckPlan) -> tuple[str, ...]:
    """Return the flags with which a command reads and checks data by these plans.

    >>> data_flags(TargetPlan("grades"), CheckPlan(max_bad=0.2))
    ('--target', 'grades', '--max-bad', '0.2')
    """
    return (*_flags_of(target, TargetPlan()), *_flags_of(checks, CheckPlan()))


def _flags_of(spec: Any, usual: Any) -> Iterator[str]:
    """Yield the flags of the settings that are not the usual ones, and their values."""
    for name in (field.name for field in fields(spec)):
        if (value := getattr(spec, name)) != getattr(usual, name):
            flag, text = f"--{name.replace('_', '-')}", str(value)
            yield from (f"{flag}={text}",) if text.startswith("-") else (flag, text)
