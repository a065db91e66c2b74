"""Output of `predict` and `classify`: lines, one JSON value, CSV or JSON Lines."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from headstart.base.atomic import check_folder
from headstart.base.display import displayed, escaped_json
from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.cli.flags import named_files
from headstart.cli.printing import FAILED, print_json, print_line, tell_left_out
from headstart.cli.progress import Terminal, kept_if_stopped, say
from headstart.models.plain_answers import SCORE, UNKNOWN, answer_columns, plain_answer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.backbones.inputs import Input
    from headstart.data.dataset import Dataset, LeftOut
    from headstart.targets.predictions import Predictions

COLUMNS = ("path", "predicted", "score", "reason", "error")  # of --csv; then all scores


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions for N pictures. left_out: unreadable pictures. doubts: the reason to abstain for
    each picture, "" for none. sets: (N, C), the classes that are not ruled out. doubts and sets
    are empty and None for a model without limits."""

    predictions: "Predictions"
    left_out: "Sequence[LeftOut]"
    doubts: tuple[str, ...] = ()
    sets: "NDArray[np.bool_] | None" = None

    def lines(self, top: int) -> Iterator[list[str]]:
        """Yield the fields of one line per file: path, then the top classes with scores, or
        "unknown", its score and the reason."""
        predictions = self.predictions
        if predictions.target.listing:
            yield from self._listed_lines()
            return
        if not predictions.classes:
            yield from self._column_lines(top)
            return
        for row, (id, scores) in enumerate(zip(predictions.ids, predictions.scores, strict=True)):
            best = [
                t for c in _best(scores)[:top] for t in (predictions.classes[c], f"{scores[c]:.4f}")
            ]
            doubt = self.doubts[row] if self.doubts else ""
            yield [id, UNKNOWN, f"{scores.max():.4f}", doubt] if doubt else [id, *best]

    def _listed_lines(self) -> Iterator[list[str]]:
        """Yield a line for each thing that an answer consists of: path, label, score, numbers."""
        for row, id in enumerate(self.predictions.ids):
            found = self.listed(row)
            for thing in found:
                label, score, *numbers = _flat(thing)
                yield [id, label, f"{score:.4f}", *(f"{number:.1f}" for number in numbers)]
            if not found:
                yield [id, "nothing found"]

    def listed(self, row: int) -> list[dict[str, Any]]:
        """Return the things that the answer to one picture consists of."""
        return self.predictions.target.listed(self.predictions.outputs, row)

    def things(self, plain: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the cells of each row of CSV that `plain` of a picture becomes: one for each thing
        that the answer consists of, none for none."""
        listing = self.predictions.target.listing
        if not listing or "found" not in plain:
            return [plain]
        return [dict(zip(listing, _flat(thing), strict=True)) for thing in plain["found"]]

    def _column_lines(self, top: int) -> Iterator[list[str]]:
        """Yield the lines of a target without classes: path, the answer, then NAME=VALUE for other
        columns; of scores only the `top` highest."""
        columns = answer_columns(self.predictions)
        first, scores = next(iter(columns)), [name for name in columns if name.startswith(SCORE)]
        others = [name for name in columns if name != first and name not in scores]
        for row, id in enumerate(self.predictions.ids):
            best = sorted(scores, key=lambda name: -columns[name][row])[:top]
            more = [f"{name.removeprefix(SCORE)}={_shown(columns[name][row])}" for name in best]
            more += [f"{name}={_shown(columns[name][row])}" for name in others]
            doubt = self.doubts[row] if self.doubts else ""
            answer = [UNKNOWN, doubt] if doubt else [_shown(columns[first][row])]
            yield [id, *answer, *more]

    def header(self) -> tuple[str, ...]:
        """Return the columns of --csv."""
        if self.predictions.classes:
            return (*COLUMNS, *(SCORE + name for name in self.predictions.classes))
        if listing := self.predictions.target.listing:
            return ("path", *listing, "error")
        return ("path", *answer_columns(self.predictions), *COLUMNS[-2:])

    def plain(self, row: int) -> dict[str, Any]:
        """Return the answer for one picture as a dict of JSON values."""
        doubt = self.doubts[row] if self.doubts else ""
        held = None if self.sets is None else self.sets[row]
        return plain_answer(self.predictions, row, doubt, held)


Answering = Callable[["Dataset", Listener], Answers]


def given_texts(args: argparse.Namespace, input: "Input[Any]") -> list[Any]:
    """Return the examples of --text; raises SpecError for a model that takes none."""
    from headstart.backbones.inputs import PATH, Encoded

    texts: list[str] = getattr(args, "text", [])
    if texts and input.column == PATH:
        raise SpecError(f"--text is for a model of texts; this one takes {input.noun}: name files.")
    return [Encoded(str(n), input.encode(text)) for n, text in enumerate(texts, 1)]


def print_answers(
    answering: Answering, args: argparse.Namespace, input: "Input[Any]", at_once: int = 0
) -> int:
    """Predict the files in `args`, print the answers and return the exit code.

    input: the kind of examples that the model takes. at_once: files per output of --csv and
    --jsonl; 0 for all.
    """
    check_table(args)
    return print_of_files(answering, args, *asked_files(args, input), at_once)


def check_table(args: argparse.Namespace) -> None:
    """Raise SpecError or PlaceError for a --csv that can't be written."""
    if args.csv and str(args.csv) != "-":
        if args.csv.exists():
            raise SpecError(f"{args.csv} is there already: name another --csv.")
        check_folder(args.csv.parent)


def print_of_files(
    answering: Answering,
    args: argparse.Namespace,
    files: "Dataset",
    left_out: "Sequence[LeftOut]",
    at_once: int = 0,
) -> int:
    """Do the work of `print_answers` for the files that `asked_files` found."""
    if args.csv or args.jsonl:
        return _streamed(answering, files, left_out, args, at_once or len(files))
    answers = answering(files, Terminal())
    if args.json:
        print_json([answers.plain(row) for row in range(len(answers.predictions))])
    else:
        for fields in answers.lines(args.top):
            print_line(*fields)
    return _named((*left_out, *answers.left_out), bool(answers.predictions.ids))


def asked_files(
    args: argparse.Namespace, input: "Input[Any]"
) -> "tuple[Dataset, tuple[LeftOut, ...]]":
    """Return the examples that `args` name, and files that are none."""
    from headstart.modalities.reading import find

    return find([*named_files(args.files), *given_texts(args, input)], input=input)


def _named(left_out: "Sequence[LeftOut]", any_done: bool) -> int:
    code = tell_left_out(left_out, most=len(left_out))  # list all: no other output does
    return code if any_done else FAILED


def _streamed(
    answering: Answering,
    files: "Dataset",
    left_out: "Sequence[LeftOut]",
    args: argparse.Namespace,
    at_once: int,
) -> int:
    """Write one row per file in order, unreadable files included, as soon as it is predicted."""
    bad, done, terminal = list(left_out), 0, Terminal()
    with _opened(args.csv) as stream:
        out = _Rows(stream, as_csv=bool(args.csv))
        for begin in range(0, len(files), at_once):
            part = files.take(range(begin, min(begin + at_once, len(files))))
            answers = answering(part, Listener())
            out.write(part.ids, answers)
            bad += answers.left_out
            done += len(answers.predictions)
            terminal.progress("predict", begin + len(part), len(files))
        out.write_errors(item for item in left_out if not item.expected)
    return _named(bad, done > 0)


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    """Open the file for the rows, or yield stdout."""
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    with kept_if_stopped(f"the rows written so far are kept in {path}"):
        with open(path, "x", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
        say("written", str(path))


class _Rows:
    """Writes one row per file in order: its answer, or the reason why it is unreadable."""

    def __init__(self, stream: IO[str], *, as_csv: bool) -> None:
        self._stream, self._as_csv, self._begun = stream, as_csv, False
        self._of_classes, self._header = True, tuple[str, ...]()
        self._table = csv.writer(stream, lineterminator="\n")

    def _write_cells(self, cells: "Iterable[str]") -> None:
        from headstart.base.cells import defused  # loads NumPy, which --help does not need

        self._table.writerow(map(defused, cells))

    def write(self, ids: Sequence[str], answers: Answers) -> None:
        if self._as_csv and not self._begun:
            self._header = answers.header()
            self._write_cells(self._header)
        self._begun, self._of_classes = True, bool(answers.predictions.classes)
        place = {id: row for row, id in enumerate(answers.predictions.ids)}
        errors = {item.path: item.reason for item in answers.left_out}
        for id in ids:
            plain = answers.plain(place[id]) if id in place else {"error": errors[id]}
            for one in answers.things(plain) if self._as_csv else (plain,):
                self._row(id, one)
        self._stream.flush()

    def write_errors(self, left_out: "Iterable[LeftOut]") -> None:
        for item in left_out:
            self._row(item.path, {"error": item.reason})
        self._stream.flush()

    def _row(self, id: str, plain: dict[str, Any]) -> None:
        if self._as_csv:
            of_classes = self._of_classes
            self._write_cells(_cells(id, plain) if of_classes else self._named_cells(id, plain))
        else:
            self._stream.write(_json_line({"path": displayed(id)} | plain) + "\n")

    def _named_cells(self, id: str, plain: dict[str, Any]) -> list[str]:
        """Return a row of CSV of a target without classes; "" for what an unreadable file lacks."""
        scores = {SCORE + name: score for name, score in plain.get("scores", {}).items()}
        flat = plain | scores
        return [id, *(_cell(flat.get(name, "")) for name in self._header[1:])]


def _flat(thing: dict[str, Any]) -> list[Any]:
    """Return the values of one item of `Target.listed`, in the order of `Target.listing`."""
    values = (value if isinstance(value, list) else [value] for value in thing.values())
    return [value for own in values for value in own]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(value)
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    """Return a value of a column for a line of output."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, tuple):
        return "|".join(plain)
    return f"{plain:.4g}" if isinstance(plain, float) else str(plain)


def _json_line(plain: dict[str, Any]) -> str:
    return escaped_json(json.dumps(plain, ensure_ascii=False, allow_nan=False))


def _cells(id: str, plain: dict[str, Any]) -> list[str]:
    """Return a row of CSV, without scores for an unreadable file."""
    scores = [f"{score:.9g}" for score in plain.get("scores", {}).values()]
    score = f"{plain['score']:.9g}" if "score" in plain else ""
    own = (plain.get("predicted", ""), score, plain.get("reason", ""), plain.get("error", ""))
    return [id, *own, *scores]


def _best(scores: "NDArray[np.float32]") -> "NDArray[np.intp]":
    return (-scores).argsort(kind="stable")
