"""The explanations of a run, as explained.json holds them. No PyTorch: the report reads them."""

from dataclasses import dataclass, field

from headstart.base.values import Record, as_key


@dataclass(frozen=True)
class Curves(Record):
    """Scores of a class as ever more of a picture is hidden: first what the map names (ours), at
    random, and from the centre outwards."""

    ours: tuple[float, ...]
    random: tuple[float, ...]
    centre: tuple[float, ...] = ()


@dataclass(frozen=True)
class Areas(Record):
    """Under each of the curves, 0 to 1."""

    ours: float
    random: float
    centre: float | None = None


@dataclass(frozen=True)
class DeletionCurves(Record):
    """hidden: the share of the picture that is hidden at each point of the curves."""

    area: Areas
    hidden: tuple[float, ...] = ()
    curve: Curves | None = None


@dataclass(frozen=True)
class NearestExample(Record):
    path: str
    label: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class ExplainedPicture(Record):
    """All but the pixels of an explanation. name: of the class that is explained. method, layer:
    of its map."""

    path: str
    name: str = field(metadata=as_key("class"))
    score: float
    method: str = ""
    layer: str = ""
    deletion: DeletionCurves
    nearest: tuple[NearestExample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExplainedRow(ExplainedPicture):
    """A test row of a run, with the class that was predicted. map: whole numbers, row by row."""

    label: str
    map: tuple[tuple[int, ...], ...]

    @property
    def right(self) -> bool:
        return self.label == self.name


@dataclass(frozen=True)
class ExplainedRows(Record):
    """grid: side of the maps. levels: the largest number in one, either side of 0."""

    grid: int = 28
    levels: int = 127
    rows: tuple[ExplainedRow, ...] = ()
