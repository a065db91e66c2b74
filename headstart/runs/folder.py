"""The folder of a run: its lock, and the writing and reading of its tables."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from headstart.base.atomic import TEMPORARY, lock, make_folder, write_text
from headstart.base.cells import defused
from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.base.values import entries, entry, from_plain, read_json
from headstart.data.dataset import Content, Dataset
from headstart.data.splits import Splits
from headstart.reporting.run_files import RecordedRow, read_rows
from headstart.targets.plan import TargetPlan
from headstart.training.history import HISTORY, Epoch

LAST = "timings.json"
MARKER = ".unfinished"  # in a folder made by `claimed` whose run has not ended
LOCK = ".lock"  # held by the process that writes into the folder
CHECKPOINTS = "checkpoint-*"  # of unfinished phases; removed when the run ends


@contextmanager
def claimed(out: Path, *, resume: bool = False) -> Iterator[Callable[[], None]]:
    """Lock `out` for one run: a new folder, or the folder of an interrupted run.

    Only a folder with this function's marker is written into. Yields a function that finishes the
    run: it removes the marker and the checkpoints, so that later errors cannot lose the run. The
    function is also called when the block ends without an error. Raises SpecError for any other
    folder, for a folder in use by another process and, with `resume`, if there is no run to resume.
    """
    check_free(out, resume)  # before anything is written
    make_folder(out)
    with _locked(out):
        check_free(out, resume)  # another process may have finished a run here meanwhile
        write_text(
            out / MARKER, "A run was begun here and did not end; the same command goes on.\n"
        )
        _remove_temporary(out)
        shutil.rmtree(out / "model", ignore_errors=True)
        yield lambda: _finish(out)
        _finish(out)


def _remove_temporary(out: Path) -> None:
    """Remove temporary files of a killed process; the lock excludes other writers."""
    for path in out.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _finish(out: Path) -> None:
    (out / MARKER).unlink(missing_ok=True)
    _remove_temporary(out)
    for checkpoint in out.glob(CHECKPOINTS):
        with suppress(OSError):  # e.g. a folder of that name, which nothing reads
            checkpoint.unlink()


def is_finished(run: Path) -> bool:
    """Return whether a folder holds a run that has ended."""
    return (run / LAST).is_file() and not (run / MARKER).exists()


def check_free(out: Path, resume: bool) -> None:
    """Raise SpecError unless a run may start, or with `resume` continue, in folder `out`."""
    if out.exists() and not out.is_dir():
        raise SpecError(f"--out names a folder for the run; {out} is a file.")
    there = {p.name for p in out.iterdir()} - {LOCK} if out.exists() else set[str]()
    if LAST in there and MARKER not in there:
        raise SpecError(
            f"{out} holds a finished run, which is never written over: name another --out."
        )
    if there and MARKER not in there:
        raise SpecError(
            f"--out names a new folder, or one whose run was interrupted; {out} holds "
            f"{min(there)!r}. Nothing was changed: name another folder."
        )
    if resume and not there:
        raise SpecError(
            f"--resume goes on with a run that was cut off; there is none in {out}. Leave the flag "
            f"out to begin one there."
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a file lock, which the kernel releases when the process dies.

    A file system without locks locks nothing: as files are written atomically, two runs in one
    folder waste work but corrupt nothing.
    """
    fd = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not lock(fd) or not _same_file(fd, out / LOCK):
            raise SpecError(
                f"Another process is working on {out}: wait for it, or name another --out."
            )
        yield
        with suppress(OSError):
            (out / LOCK).unlink()
    finally:
        os.close(fd)


def _same_file(fd: int, path: Path) -> bool:
    """Whether `path` is still the open file: the last holder of the lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def recorded_rows(folder: Path) -> dict[str, RecordedRow]:
    """Read the rows of a run by path from its splits.csv; empty without a readable file."""
    try:
        return {row.path: row for row in read_rows(folder / "splits.csv")}
    except (OSError, ValueError):
        return {}


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The data of a run. source: where it was read from. rows: by path."""

    source: str
    rows: dict[str, RecordedRow]

    @property
    def has_contents(self) -> bool:
        """False for a run of an earlier version, which recorded no digests."""
        return any(row.content.file for row in self.rows.values())

    def matched(self, data: Dataset) -> tuple[RecordedRow | None, ...]:
        """Find the recorded row with the same content for each row of `data`, or None.

        Content is matched by decoded pixels, else (another decoder gives other pixels) by file
        bytes, whatever the name. Of several matches, train comes before val, test and no part;
        within a part, the row of the same name is preferred.
        """
        order = ("", "test", "val", "train")
        by_content = dict[str, RecordedRow]()
        for row in sorted(self.rows.values(), key=lambda row: order.index(row.part)):
            by_content[row.content.decoded] = by_content[row.content.file] = row
        by_content.pop("", None)
        found = (by_content.get(c.decoded) or by_content.get(c.file) for c in data.contents)
        return tuple(map(self._by_own_name, data.ids, found))

    def _by_own_name(self, id: str, row: RecordedRow | None) -> RecordedRow | None:
        own = self.rows.get(id)
        if own is None or row is None or own.content.differs(row.content):
            return row
        return own if own.part == row.part else row


def read_record(run: Path) -> RunRecord | None:
    """Read the record of a run (a run folder, or the bundle in it); None if there is none."""
    folder = _folder_of(run)
    try:
        source, rows = recorded_source(folder), recorded_rows(folder)
    except DataError:
        return None
    return RunRecord(source, rows) if rows else None


def recorded_digests(folder: Path) -> dict[str, str]:
    """Read the digests of a run's files by path; empty for a run of an earlier version."""
    rows = recorded_rows(folder).values()
    return {row.path: row.content.file for row in rows if row.content.file}


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List changed, missing and new files, each as "ID (changed)", "ID (gone)" or "ID (new)".

    Empty if `before` is empty, as for a run of an earlier version.
    """
    if not before:
        return []
    return [
        *(f"{id} (changed)" for id in before if id in now and now[id] != before[id]),
        *(f"{id} (gone)" for id in before if id not in now),
        *(f"{id} (new)" for id in now if id not in before),
    ]


def first_few(names: Sequence[str], most: int = 20) -> str:
    """Join the first `most` names, and count the rest."""
    more = f", and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def recorded_parts(run: Path, source: str, data: Dataset) -> tuple[str, ...]:
    """Return the run's part of each row of `data`, matched by id; "" for a row in no part.

    run: a run folder, or the bundle in it. Returns () if the run read data from another `source`.
    """
    record = read_record(run)
    if record is None or record.source != source:
        return ()
    return tuple(record.rows[id].part if id in record.rows else "" for id in data.ids)


def recorded_contents(run: Path, data: Dataset) -> Dataset:
    """Return `data` with the contents recorded by the run, which are verified on reading."""
    rows, unknown = recorded_rows(_folder_of(run)), Content()
    contents = (rows[id].content if id in rows else unknown for id in data.ids)
    return replace(data, contents=tuple(contents))


def _folder_of(run: Path) -> Path:
    """Return the run folder: `run` itself, or the parent of a bundle."""
    return run if (run / "splits.csv").is_file() else run.resolve().parent


def recorded_source(run: Path) -> str:
    """Return the source of a run's data; raises DataError if `run` is no run folder."""
    try:
        return str(entry(entries(read_json(run / "recipe.json")), "data", str))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{run} holds no run: there must be a recipe.json in it that says what was trained."
        ) from error


def recorded_plan(run: Path) -> TargetPlan:
    """Return the target's settings that a run recorded; the usual plan if it recorded none."""
    plain = entries(read_json(run / "recipe.json")).get("target")
    return from_plain(plain, TargetPlan) if plain else TargetPlan()


def splits_csv(rows: Dataset, splits: Splits, folds: Mapping[str, int] | None = None) -> str:
    """Write one line per row: train, val, test, then rows in no part (empty part).

    The columns bytes and pixels are digests, by which a file is recognised. folds: in which each
    row was held out, by id; a last column of a cross-validated run.
    """
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    placed = {id for part in parts.values() for id in part.ids}
    parts[""] = rows.take([row for row, id in enumerate(rows.ids) if id not in placed])
    lines = (
        (id, label, name, content.file, content.decoded, *([folds[id]] if folds else []))
        for name, part in parts.items()
        for id, label, content in zip(
            part.ids,
            part.target.decode(part.y),
            part.contents or (Content(),) * len(part),
            strict=True,
        )
    )
    header = ("path", "label", "part", "bytes", "pixels", *(["fold"] if folds else []))
    return _csv(header, lines)


def history_csv(history: Iterable[Epoch]) -> str:
    """Write one line per epoch of all phases; a cell is empty if nothing was measured."""
    lines = ([getattr(line, name) for name in HISTORY] for line in history)
    return _csv(HISTORY, (["" if v is None else v for v in line] for line in lines))


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Write a table with defused texts (no spreadsheet formulas); `cells.restored` undoes it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([defused(v) if isinstance(v, str) else v for v in row] for row in rows)
    return text.getvalue()


def refuse_other_examples(one: Path, other: Path) -> None:
    """Raise Mismatch if two runs recorded different test pictures under the same name."""
    here, there = recorded_rows(one), recorded_rows(other)
    judged = (id for id, row in here.items() if row.part == "test" or row.fold)
    shared = [id for id in judged if id in there]
    differ = [id for id in shared if here[id].content.differs(there[id].content)]
    if differ:
        more = f" and {len(differ) - 1:,} more" if len(differ) > 1 else ""
        raise Mismatch(
            f"Runs are compared on the same examples, but {one} and {other} had different ones "
            f"called {differ[0]!r}{more}. Train them with the same data."
        )


def free_folder(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, … that does not exist."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in count(1))
    return next(name for name in names if not name.exists())
