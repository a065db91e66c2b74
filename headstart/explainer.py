"""What explainers share, whatever a model's examples are: nearest examples, files, results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import Input
from headstart.base.atomic import check_folder
from headstart.base.errors import DataError, HeadstartError, SpecError, sentence_of
from headstart.base.listener import Listener
from headstart.base.notebook import html_table
from headstart.base.runtime import Device
from headstart.base.store import Store
from headstart.data.dataset import Dataset, LeftOut
from headstart.explaining.naming import named_after, refuse_taken
from headstart.explaining.neighbours import Neighbour, nearest
from headstart.features.extract import FeatureTable, extract
from headstart.heads.head import Floats
from headstart.models.model import Model
from headstart.models.results import FitResult
from headstart.runs.recorded import known_rows, recorded_data, recorded_files
from headstart.runs.run import Run

T = TypeVar("T")
AnyModel = str | Path | Model | FitResult | Run | Backbone
AnyFiles = Any  # as for `Model.predict`: paths, folders, examples in memory, a Dataset

NAMED = 20  # unreadable training examples reported, at most
BEST = "best"


@dataclass(frozen=True, eq=False)
class Asked:
    """The settings of a call of `explain`, which documents them."""

    class_name: str | None = None
    method: str = BEST
    data: Path | None = None
    store: Store | None = None
    device: Device = "auto"


@dataclass(frozen=True, eq=False)
class FileWork(Generic[T]):
    """Work on `count` examples. results: an iterator that computes one result per step, and gives
    it with the file that was written, or None."""

    count: int
    results: Iterator[tuple[T | LeftOut, Path | None]]


class Results(list[T]):
    """A result per example. left_out: examples without one, with `path` and `reason`."""

    left_out: tuple[LeftOut, ...] = ()

    def _repr_html_(self) -> str:
        shown = [each._repr_html_() for each in self]  # type: ignore[attr-defined]
        lost = [(item.path, "left out", item.reason) for item in self.left_out]
        return "".join(shown) + (html_table(lost) if lost else "")


@dataclass(frozen=True, eq=False)
class Explainer(Generic[T]):
    """Explains answers of one model. model: None for a pretrained backbone. run: the folder of its
    run, or None. name: for messages."""

    model: Model | None
    run: Path | None
    name: str
    asked: Asked
    listener: Listener
    suffix: ClassVar[str]  # of the file of an explanation
    noun: ClassVar[str]  # of the examples

    @classmethod
    def open(cls, given: AnyModel, asked: Asked, listener: Listener, name: str = "") -> Self:
        """Open a model; raises SpecError for one that can't be explained."""
        raise NotImplementedError

    @property
    def input(self) -> Input[Any]:
        raise NotImplementedError

    def check(self) -> None:
        """Raise SpecError or UnknownName for wrong settings, before any work."""
        raise NotImplementedError

    def explained(self, rows: Dataset) -> Iterator[T | LeftOut]:
        """Yield the explanation of each row."""
        raise NotImplementedError

    def rows_explained(
        self, run: Path, model: Model, sources: Mapping[str, Any]
    ) -> tuple[int, Iterator[T | LeftOut]]:
        """Return how many test rows of a run are explained, and their explanations."""
        raise NotImplementedError

    def features(self, explanation: T) -> Floats:
        """Return the features (1, D) of an explained example."""
        raise NotImplementedError

    def files(self, file: Path) -> tuple[Path, ...]:
        """Return all files that are written for an explanation in `file`, which is the first."""
        return (file,)

    def of_files(self, rows: Dataset, out: Path | None) -> FileWork[T]:
        """Explain these examples; with `out`, write a file for each, named after it."""
        self.check()
        if self.run is None and self.asked.data is not None:
            raise SpecError("--data goes with a run folder: only that names training examples.")
        files = files_for(rows, out, self.suffix, self.files)
        return FileWork(len(rows), self._saved(self.explained(rows), files))

    def of_run(self, out: Path | None, *, own: bool = False) -> FileWork[T]:
        """Explain the worst mistakes of the run and a few right answers.

        own: whether existing files in `out`, written before, may be replaced.
        """
        if self.run is None or self.model is None:
            raise SpecError(
                f"Name {self.noun} to explain after {self.name}: only of a run folder, which "
                f"this is not, are the mistakes explained without any."
            )
        if self.asked.class_name is not None or self.asked.method != BEST:
            raise SpecError(
                f"--class and --method go with {self.noun} that are named; of a run, what it "
                f"answered is explained."
            )
        sources = recorded_files(self.run, self.asked.data, self.listener)
        count, results = self.rows_explained(self.run, self.model, sources)
        named = [out / f"{n:02}{self.suffix}" if out else None for n in range(1, count + 1)]
        if out is not None:
            refuse_taken(each for file in named if file and not own for each in self.files(file))
            check_folder(out)
        return FileWork(count, self._saved(results, named))

    def _saved(
        self, results: Iterator[T | LeftOut], files: Sequence[Path | None]
    ) -> Iterator[tuple[T | LeftOut, Path | None]]:
        """Add the most similar training examples to each explanation, and write it."""
        similar = self._similar()
        for result, file in zip(results, files, strict=True):
            if not isinstance(result, LeftOut):
                found: Any = result
                result = replace(found, nearest=similar(result))
                try:
                    if file is not None:
                        result.save(file)
                except OSError as error:
                    why = f"its explanation can't be written: {sentence_of(error)}"
                    result = LeftOut(found.path, why)
            yield result, file

    def _similar(self) -> Callable[[T], tuple[Neighbour, ...]]:
        """Return a function that finds the training examples most similar to an explained one.

        If there are none, the reason is reported, and the function returns (). Features of training
        examples come from the store if they are there.
        """
        if self.run is None or self.model is None:
            self._leave_out_nearest("only a run folder names its training examples")
            return lambda explanation: ()
        try:
            rows = known_rows(self.run, recorded_data(self.run, self.asked.data), self.listener)
        except HeadstartError as error:
            if self.asked.data is not None:
                raise
            self._leave_out_nearest(str(error))
            return lambda explanation: ()
        backbone = self.model.backbone
        sources = dict(zip(rows.ids, rows.sources, strict=True))

        @cache
        def known() -> FeatureTable | None:  # called when the first example is explained
            store, listener = self.asked.store, self.listener
            try:
                table = extract(backbone, rows, store=store, listener=listener, stage="nearest")
            except HeadstartError as error:  # e.g. a full store
                self._leave_out_nearest(str(error))
                return None
            for item in table.left_out[:NAMED]:
                self._leave_out_nearest(f"{item.path}: {item.reason}")
            return table

        def similar(explanation: T) -> tuple[Neighbour, ...]:
            if (table := known()) is None:
                return ()
            return nearest(table, sources, self.features(explanation))[0]

        return similar

    def _leave_out_nearest(self, why: str) -> None:
        self.listener.stage("nearest", f"left out: {why}")


def files_for(
    rows: Dataset,
    out: Path | None,
    suffix: str,
    with_others: Callable[[Path], tuple[Path, ...]],
    *,
    keep: bool = False,
) -> list[Path | None]:
    """Choose a file in `out` for each example; all None if `out` is None.

    with_others: returns all files that are written for it. keep: add a number to the name of an
    existing file, instead of raising SpecError.
    """
    if out is None:
        return [None] * len(rows)
    named = named_after(rows.sources, lambda n: with_others(out / f"{n}{suffix}"), keep=keep)
    check_folder(out)
    return [first for first, *_ in named]


def all_of(
    work: FileWork[T],
    stage: str,
    listener: Listener,
    before: Sequence[LeftOut] = (),
    noun: str = "pictures",
) -> Results[T]:
    """Do the work and return its results; raises DataError if no example could be read.

    before: examples that were left out before the work. noun: of the examples.
    """
    done, unreadable = Results[T](), list[LeftOut]()
    done.left_out = tuple(before)
    for number, (result, _) in enumerate(work.results, 1):
        if not isinstance(result, LeftOut):
            done.append(result)
        else:
            unreadable += [] if result.expected else [result]
            done.left_out += (result,)
            listener.stage("left out", f"{result.path}: {result.reason}")
        listener.progress(stage, number, work.count)
    if unreadable and not done:
        first = f"{unreadable[0].path}: {unreadable[0].reason}"
        raise DataError(
            f"There must be {noun} that can be read; of {work.count:,} none can ({first})."
        )
    return done
