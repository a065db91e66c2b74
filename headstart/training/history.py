"""The lines of history.csv, one per epoch, and the number of parameters that a phase trains.

Imports no PyTorch, because reports read history.csv too.
"""

import csv
from collections import Counter
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from headstart.base.notebook import data_frame, html_curves
from headstart.base.values import Record

Figures = tuple[float | None, float | None]  # loss and accuracy
NOTHING: Figures = (None, None)


@dataclass(frozen=True)
class Epoch:
    """A line of history.csv. epoch 0 is before training; None means not measured."""

    phase: str
    epoch: int
    lr: float | None
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float = 0.0

    @property
    def merit(self) -> tuple[float, float]:
        """The sort key on validation: accuracy, then the smaller loss."""
        return self.val_accuracy or 0.0, -(self.val_loss or 0.0)

    def figures(self) -> dict[str, float]:
        """Return the measured values by name."""
        named = {name: getattr(self, name) for name in (*MEASURED, "seconds")}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class ParameterCount(Record):
    parameters: int
    tensors: int = 0


@dataclass(frozen=True)
class Count(Record):
    """The parameters that a phase leaves frozen and those that it trains.

    Statistics of normalisation layers count as frozen, as in Keras.
    """

    frozen: ParameterCount
    trainable: ParameterCount


class History(tuple[Epoch, ...]):
    """The epochs of all phases in turn; a notebook shows their curves."""

    def __repr__(self) -> str:
        count = Counter(line.phase for line in self)
        return f"History({', '.join(f'{phase} {n}' for phase, n in count.items())})"

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with the columns of history.csv."""
        return data_frame({name: [getattr(line, name) for line in self] for name in HISTORY})

    def _repr_html_(self) -> str:
        charts = list[str]()
        for phase, figure in product(dict.fromkeys(line.phase for line in self), SHOWN):
            lines = [line for line in self if line.phase == phase]
            curves = {
                name: values
                for name in (f"train_{figure}", f"val_{figure}")
                if (values := [v for line in lines if (v := getattr(line, name)) is not None])
            }
            charts.append(html_curves(f"{phase}, {figure}", curves))
        return "".join(charts)


SHOWN = ("loss", "accuracy")  # charts of each phase
HISTORY = tuple(f.name for f in fields(Epoch))
MEASURED = HISTORY[2:-1]  # columns that may be empty


def read_history(path: Path) -> tuple[Epoch, ...]:
    """Read the lines of all phases; raises OSError, ValueError or TypeError for other files."""
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        if missing := set(HISTORY) - set(reader.fieldnames or ()):
            raise ValueError(f"{path.name} has no column {min(missing)!r}")
        return tuple(map(_line, reader))


def _line(row: dict[str, str]) -> Epoch:
    """Parse a line; raises TypeError if it is incomplete."""
    measured = {name: None if row[name] == "" else float(row[name]) for name in MEASURED}
    seconds = float(row["seconds"])
    return Epoch(phase=row["phase"], epoch=int(row["epoch"]), seconds=seconds, **measured)
