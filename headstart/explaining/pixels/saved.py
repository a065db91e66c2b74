"""The content of explained.json of pictures. No PyTorch: the report reads it."""

from dataclasses import dataclass, field

from headstart.base.values import Record, as_key, later
from headstart.explaining.saved import DeletionCurves, NearestExample


@dataclass(frozen=True, kw_only=True)
class ExplainedPicture(Record):
    """An explanation without its pixels. name: of the explained class, label or quantity. method,
    layer: of the map. answer: the value or the grade, "" if `score` is all."""

    path: str
    name: str = field(metadata=as_key("class"))
    score: float
    method: str = ""
    layer: str = ""
    deletion: DeletionCurves
    nearest: tuple[NearestExample, ...] = ()
    answer: str = field(default="", metadata=later())


@dataclass(frozen=True, kw_only=True)
class ExplainedRow(ExplainedPicture):
    """A test row of a run. name: the predicted class. label: the true class, or the other truth.
    map: integers. group: of answers that are not just right or wrong: "worst", "middle", "best"."""

    label: str
    map: tuple[tuple[int, ...], ...]
    group: str = field(default="", metadata=later())

    @property
    def right(self) -> bool:
        return self.label == self.name


@dataclass(frozen=True)
class ExplainedRows(Record):
    """grid: side of the maps. levels: their largest magnitude."""

    grid: int = 28
    levels: int = 127
    rows: tuple[ExplainedRow, ...] = ()
