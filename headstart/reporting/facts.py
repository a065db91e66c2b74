"""What a finished run left in its folder, read once into one frozen value."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from headstart.base.cells import restored
from headstart.base.errors import DataError, Mismatch
from headstart.data.dataset import CheckedFile
from headstart.evaluation.evaluation import Estimate
from headstart.targets.predictions import Predictions, read_predictions
from headstart.training.history import Epoch, read_history

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """A line of splits.csv."""

    path: str
    label: str
    part: str


@dataclass(frozen=True, eq=False)
class Facts:
    """All that the page knows. The files of JSON are kept as the plain values they hold.

    rows: every row with its part. test: what was said of the test rows. card: the backbone's, {} if
    it is not there. insights, explained, robustness: {} for a run that has none. sources: the
    picture of each row's path.
    Text holds no lone surrogates: they are spelt as \\udcXX, as the tables of a run spell them.
    """

    recipe: dict[str, Any]
    rows: tuple[Row, ...]
    checks: dict[str, Any]
    history: tuple[Epoch, ...]
    test: Predictions
    evaluation: dict[str, Any]
    timings: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict)
    insights: dict[str, Any] = field(default_factory=dict)
    explained: dict[str, Any] = field(default_factory=dict)
    robustness: dict[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Path | CheckedFile] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.test.classes

    @property
    def kept(self) -> str:
        return str(self.evaluation["kept"])

    def part(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.part == name]


def read_facts(run: Path, sources: Mapping[str, Path | CheckedFile]) -> Facts:
    """Read the folder of a finished run. Raises DataError for anything else, in one sentence."""
    if not (run / "timings.json").is_file():
        raise DataError(
            f"A report is made of a finished run, and {run} has no timings.json, which a run "
            f"writes last: name the folder that `headstart train --out` made."
        )
    return Facts(
        recipe=_object(run / "recipe.json", "phases", "versions"),
        rows=_read(run / "splits.csv", _rows),
        checks=_object(run / "checks.json", "counts", "near_duplicates", "two_labels"),
        history=_read(run / "history.csv", read_history),
        test=_read(run / "predictions.csv", read_predictions),
        evaluation=_object(run / "evaluation.json", "test", "kept", "candidates_on_val"),
        timings=_object(run / "timings.json", "seconds"),
        card=_optional(run / "model" / "card.json"),
        insights=_optional(run / "insights.json"),
        explained=_optional(run / "explained.json"),
        robustness=_optional(run / "robustness.json"),
        sources={spelt(name): path for name, path in sources.items()},
    )


def spelt(text: str) -> str:
    """The text with lone surrogates (names of files that are not UTF-8) written as \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def estimate(plain: Any) -> Estimate | None:
    """A value with its interval, from its plain form; None from None."""
    if not plain:
        return None
    return Estimate(plain["value"], plain["low"], plain["high"], int(plain.get("n") or 0))


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except OSError as error:
        raise _unfinished(path, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, Mismatch) as error:
        raise _unfinished(path, f"is not what a run writes ({error})") from error


def _unfinished(path: Path, what: str) -> DataError:
    return DataError(
        f"A report is made of the files of a finished run, and {path} {what}: "
        f"run `headstart train` again, into a new folder."
    )


def _object(path: Path, *keys: str) -> dict[str, Any]:
    """A file of JSON that holds an object with at least these keys."""
    plain = _read(path, _json)
    if not isinstance(plain, dict) or (missing := [k for k in keys if k not in plain]):
        lacks = "is no object" if not isinstance(plain, dict) else f"has no {missing[0]!r}"
        raise _unfinished(path, lacks)
    return plain


def _optional(path: Path) -> dict[str, Any]:
    return _object(path) if path.is_file() else {}


def _json(path: Path) -> Any:
    return _spelt_all(json.loads(path.read_text(encoding="utf-8")))


def _spelt_all(value: Any) -> Any:
    if isinstance(value, str):
        return spelt(value)
    if isinstance(value, list):
        return [_spelt_all(v) for v in value]
    if isinstance(value, dict):
        return {spelt(k): _spelt_all(v) for k, v in value.items()}
    return value


def _rows(path: Path) -> tuple[Row, ...]:
    """Those of the three parts: rows that were left out are no part of what a run tells."""
    lines = _table(path, "path", "label", "part")
    return tuple(
        Row(restored(r["path"]), restored(r["label"]), r["part"]) for r in lines if r["part"]
    )


def _table(path: Path, *columns: str) -> list[dict[str, str]]:
    """The lines of a table that has at least these columns."""
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        if missing := set(columns) - set(reader.fieldnames or ()):
            raise ValueError(f"it has no column {min(missing)!r}")
        return list(reader)
