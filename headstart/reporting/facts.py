"""The files of a finished run's folder, read into one frozen value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from headstart.backbones.backbone import Card, card_from_plain
from headstart.backbones.inputs import has_parts
from headstart.base.errors import DataError, Mismatch, UnknownName
from headstart.base.values import Settings, read_json, read_value
from headstart.data.dataset import CheckedFile
from headstart.data.findings import Findings
from headstart.evaluation.insights import Insights
from headstart.explaining.kinds import saved_as
from headstart.explaining.pixels.robustness import Robustness
from headstart.explaining.saved import EXPLAINED
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.run_files import (
    RecordedRow,
    RunEvaluation,
    RunRecipe,
    Timings,
    read_rows,
)
from headstart.targets.predictions import Predictions, predictions_file, read_predictions
from headstart.training.history import Epoch, read_history

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Facts:
    """All data of the page.

    name: of the run, which is that of its folder. rows: of the three parts. test: predictions of
    the test rows. card: of the backbone; None if missing. explained: what `kinds.saved_as` names
    for the input, None if missing. robustness: None if it was not measured. Lone surrogates in
    texts are escaped as \\udcXX, as in the tables of a run.
    """

    recipe: RunRecipe
    rows: tuple[RecordedRow, ...]
    checks: Findings
    history: tuple[Epoch, ...]
    test: Predictions
    evaluation: RunEvaluation
    timings: Timings
    album: Album
    card: Card | None = None
    insights: Insights = Insights()
    explained: Any = None
    robustness: Robustness | None = None
    name: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.test.classes

    @property
    def of_classes(self) -> bool:
        """Whether each answer is one class, right or wrong."""
        return bool(self.classes)

    @property
    def in_parts(self) -> bool:
        """Whether the examples are of a kind with several parts, such as texts."""
        return self.card is not None and has_parts(self.card.input)

    @property
    def averaged(self) -> int:
        """How many fine-tunings the kept model averages; 1 for a model of one."""
        chosen = self.recipe.chosen.get(self.evaluation.kept, Settings())
        return len(chosen.values.get("seeds", ())) or 1

    def caption(self, label: str) -> str:
        """Return a label as it stands below an example."""
        return self.evaluation.test.target.caption(label)

    def part(self, name: str) -> list[RecordedRow]:
        return [row for row in self.rows if row.part == name]


def read_facts(run: Path, sources: Mapping[str, Path | CheckedFile]) -> Facts:
    """Read the folder of a finished run; raises DataError for any other folder."""
    if not (run / "timings.json").is_file():
        raise DataError(
            f"A report is made of a finished run, and {run} has no timings.json, which a run "
            f"writes last: name the folder that `headstart train --out` made."
        )
    evaluation = _read(run / "evaluation.json", _record(RunEvaluation))
    card = _optional(run / "model" / "card.json", _card)
    files = {spelt(name): path for name, path in sources.items()}
    return Facts(
        recipe=_read(run / "recipe.json", _record(RunRecipe)),
        rows=tuple(row for row in _read(run / "splits.csv", read_rows) if row.part),
        checks=_read(run / "checks.json", _record(Findings)),
        history=_read(run / "history.csv", read_history),
        test=_read(
            predictions_file(run), lambda path: read_predictions(path, evaluation.test.target)
        ),
        evaluation=evaluation,
        timings=_read(run / "timings.json", _record(Timings)),
        album=Album(files, card.input if card else None),
        card=card,
        insights=_optional(run / "insights.json", _record(Insights)) or Insights(),
        explained=_optional(run / EXPLAINED, _record(saved_as(card.input if card else None))),
        robustness=_optional(run / "robustness.json", _record(Robustness)),
        name=spelt(run.resolve().name),
    )


def spread(rows: Sequence[T], n: int) -> Sequence[T]:
    """Return at most n rows at even steps."""
    return [rows[i * len(rows) // n] for i in range(n)] if len(rows) > n else rows


def spelt(text: str) -> str:
    """Escape lone surrogates (from file names that are not UTF-8) as \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except (OSError, ValueError, KeyError, TypeError, Mismatch) as error:
        what = f"is not what a run writes ({error})"
        if isinstance(error, OSError):
            what = f"cannot be read ({error.strerror or error})"
        raise DataError(
            f"A report is made of the files of a finished run, and {path} {what}: "
            f"run `headstart train` again, into a new folder."
        ) from error


def _optional(path: Path, reader: Callable[[Path], T]) -> T | None:
    return _read(path, reader) if path.is_file() else None


def _record(kind: type[T]) -> Callable[[Path], T]:
    return lambda path: read_value(path, kind, spelt)


def _card(path: Path) -> Card | None:
    """Read a card; None if its kind of input is not installed."""
    try:
        return card_from_plain(read_json(path, spelt))
    except UnknownName:
        return None
