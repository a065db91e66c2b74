"""What exists for models of pictures alone: ideal, attack, robustness and views; and their maps.

Each function does what the command of its name does, with the same settings and defaults. Files are
written only where one is named.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import (
    DataError,
    HeadstartError,
    Mismatch,
    MissingPackage,
    SpecError,
    sentence_of,
)

try:
    import torch  # noqa: F401  # every file below needs it
except ModuleNotFoundError as error:
    raise MissingPackage("torch", purpose="Looking into a network", extra="train") from error

from headstart.backbones.backbone import Backbone
from headstart.backbones.inputs import fetched
from headstart.base.atomic import check_folder, write_bytes, write_json
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.base.runtime import Device, Runtime
from headstart.base.store import USUAL, Store
from headstart.data.dataset import Dataset, LeftOut
from headstart.explainer import (
    AnyFiles,
    AnyModel,
    Asked,
    Explainer,
    FileWork,
    Results,
    all_of,
    files_for,
)
from headstart.explaining.devices import device_of
from headstart.explaining.naming import refuse_taken
from headstart.explaining.pixels.attacking import fool
from headstart.explaining.pixels.explaining import (
    Effort,
    explain_run,
    rows_to_explain,
    try_explain,
)
from headstart.explaining.pixels.explanation import Explanation
from headstart.explaining.pixels.fooling import Fooling, triptych_path
from headstart.explaining.pixels.forward import Forward
from headstart.explaining.pixels.grad_model import (
    DOES,
    GradModel,
    grad_model_of,
    source_grad_model,
)
from headstart.explaining.pixels.ideal import Ideal, ascend, surest
from headstart.explaining.pixels.ideal_plan import IdealPlan
from headstart.explaining.pixels.method import METHODS, Method
from headstart.explaining.pixels.probed_model import probed_model_of
from headstart.explaining.pixels.robust import trials
from headstart.explaining.pixels.robust_plan import RobustnessPlan
from headstart.explaining.pixels.robustness import Robustness
from headstart.explaining.pixels.squares import InputSquares, input_squares, stratified_rows
from headstart.features.extract import FeatureTable, extract
from headstart.heads.head import Floats, check_word
from headstart.in_python import as_listener, as_store, run_folder, speaks_python, tell_left_out
from headstart.modalities.images.augment import Augment
from headstart.modalities.images.decoding import Pixels, decode
from headstart.modalities.images.encoding import png
from headstart.modalities.images.film import check_film, write_film
from headstart.modalities.images.inputs import ImageInput
from headstart.modalities.images.views import cells_of, picture_grid
from headstart.modalities.reading import find
from headstart.modalities.sources import load_backbone
from headstart.models.bundle import load_bundle
from headstart.models.model import Model
from headstart.models.predictor import Answerer, answerer
from headstart.models.results import FitResult
from headstart.reporting.page import write_report
from headstart.runs.folder import recorded_contents
from headstart.runs.recorded import known_rows, part_of, recorded_data
from headstart.runs.run import Run
from headstart.runs.settings import check_known, with_settings
from headstart.training.attack import EPSILONS, RESTARTS, Attack, starts_of

T = TypeVar("T")
FULL_VIEW = 224  # pixels a side
TELLS = 8  # times that the score is reported during an ascent
ATTACKED = "attack"  # a run's folder of attacked pictures
RESULTS = "robustness.json"


@speaks_python
def ideal(
    model: AnyModel,
    class_name: str,
    *,
    start: str | Path | None = None,
    out: str | Path | None = None,
    film: str | Path | None = None,
    device: Device = "auto",
    listener: Listener | None = None,
    **settings: Any,
) -> Ideal:
    """Draw the picture that gets a model's highest score for a class, by gradient ascent.

    model: as for `explain`. start: a picture to begin with instead of noise. out: a PNG file. film:
    a .gif or .webp of the ascent. device: as for `explain`. settings: fields of `IdealPlan`, such
    as steps=640.

    Returns the best `Ideal` of the ascent: `picture` (S, S, 3) uint8, `score`, `step`. Raises
    UnknownName for an unknown class or setting, SpecError for files that exist, DataError if
    `start` can't be read, Diverged if the log odds are not finite.

    >>> ideal("packaged:efficientnet_lite0", "tabby", out="cat.png")  # doctest: +SKIP
    """
    plan = _with(IdealPlan(), settings)
    grad_model = open_model(model, "headstart ideal draws", device=device).grad_model
    number = grad_model.number(class_name)
    still, moving = _path(out), _path(film)
    check_ideal_names(still, moving)
    check_new_files([path for path in (still, moving) if path])
    begin = None if start is None else decoded(user_path(start))
    seen = list(ascent(grad_model, number, class_name, plan, begin, as_listener(listener)))
    best = surest(seen)
    if still:
        best.save(still)
    if moving:
        write_film(moving, [*(each.picture for each in seen), best.picture])
    return best


@speaks_python
def attack(
    model: AnyModel,
    files: AnyFiles,
    *,
    target: str | None = None,
    out: str | Path | None = None,
    restarts: int | None = None,
    device: Device = "auto",
    listener: Listener | None = None,
    **settings: Any,
) -> "Results[Fooling]":
    """Change pictures so little that people see no change, but the model predicts another class.

    model, files, device: as for `explain`. target: the class to be predicted; None for any other.
    out: a folder for NAME.png and NAME-triptych.png of each picture. restarts: random starts, until
    one fools the model; None for the usual number. settings: fields of `Attack`; epsilon is 4/255
    for norm="linf", 1 for "l2".

    Returns a `Fooling` per picture: `path`, `changed` (H, W, 3) uint8, `before`, `after`,
    `outcome`. Pictures that can't be read, or have the target class already, are reported to
    `listener.stage("left out", …)`. Raises DataError if none can be read, UnknownName for an
    unknown class or setting, SpecError for files that exist.

    >>> (fooling,) = attack("runs/flowers", "photo.jpg", epsilon=2 / 255)  # doctest: +SKIP
    >>> fooling.outcome, fooling.after.name  # doctest: +SKIP
    ('flipped', 'tulip')
    """
    listener = as_listener(listener)
    usual = EPSILONS.get(settings.get("norm", Attack().norm), 1.0)
    how = _with(Attack(usual), settings)
    starts = starts_of(how, restarts)
    opened = open_model(model, "headstart attack changes", device=device)
    pictures = found_files(files, listener)
    number = None if target is None else opened.grad_model.number(target)
    attacker = Attacker(opened, how, number, starts)
    return all_of(attacker.of_files(pictures, _path(out)), "attack", listener, pictures.left_out)


@speaks_python
def robustness(
    run: str | Path | Run,
    *,
    data: str | Path | None = None,
    store: Store | str | Path | None = USUAL,
    language: str | None = None,
    device: Device = "auto",
    listener: Listener | None = None,
    **settings: Any,
) -> Robustness:
    """Measure the accuracy of a run on attacked and on corrupted test pictures.

    run: the folder of a finished run; RUN/robustness.json and its report are written. data: where
    its pictures are now. store: for features of training examples. language: of the report; None
    for the run's own. device: as for `explain`. settings: fields of `RobustnessPlan`, such as
    rows=100.

    Returns a `Robustness`: `attacked` by epsilon, `corrupted` by corruption and strength, each with
    `accuracy` (value, low, high, n). Raises SpecError if `run` is no finished run, UnknownName for
    an unknown setting, DataError if the pictures are gone.

    >>> robustness("runs/flowers", rows=50, corruptions=["fog"])  # doctest: +SKIP
    """
    plan, runtime = _with(RobustnessPlan(), settings), Runtime(device=device_of(device)).resolved()
    test = RobustnessTest.of(run_folder(run), _path(data), plan, runtime, as_listener(listener))
    test = test.compared(as_store(store))
    *_, results = test.trials()
    test.save(results, language)
    return results


@speaks_python
def views(
    file: Any,
    *,
    out: str | Path | None = None,
    size: int = FULL_VIEW,
    seed: int = 0,
    **settings: Any,
) -> NDArray[np.uint8]:
    """Draw random changes of a picture, to check an augmentation by eye.

    file: a path, a PIL image or an array. size: side of a view, in pixels. settings: fields of
    `Augment`, such as flip="horizontal". out: a PNG file for a grid of the views.

    Returns (16, size, size, 3) uint8: the picture, squashed, then 15 views of it. Raises SpecError
    if no setting changes the picture or if `out` exists, UnknownName for an unknown setting,
    DataError or OSError if the picture can't be read.

    >>> views("photo.jpg", flip="horizontal", rotation=0.1).shape  # doctest: +SKIP
    (16, 224, 224, 3)
    """
    augment = _with(Augment(), settings, without="views")  # 15 are drawn
    return draw_views(file, augment, _path(out), size, seed)


def draw_views(
    file: Any, augment: Augment, out: Path | None, size: int, seed: int
) -> NDArray[np.uint8]:
    """Do the work of `views` for an `Augment`."""
    if not augment.active:
        raise SpecError("No change was asked for: add --flip horizontal, --rotation 0.1, ….")
    if out:
        refuse_taken([out])
        check_folder(out.parent)
    grid = picture_grid(_encoded(file), augment, size=size, seed=seed)
    if out:
        write_bytes(out, png(grid))
    return cells_of(grid)


# ---- shared with the commands ----


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model opened for one of these functions. name: for messages. model: None for a pretrained
    backbone. run: the folder of its run, or None."""

    grad_model: GradModel
    name: str
    model: Model | None = None
    run: Path | None = None


def open_model(
    given: AnyModel, does: str = DOES, *, of_classes: bool = True, device: Device = "cpu"
) -> OpenedModel:
    """Open the model of a run or bundle, or a pretrained backbone by name ("source:id").

    does: start of the error if the model takes no pictures, such as "headstart ideal draws".
    of_classes: whether to refuse a model without classes. device: where its gradients are computed.
    """
    place = device_of(device)
    of = partial(grad_model_of, does=does, of_classes=of_classes, device=place)
    if isinstance(given, FitResult):
        given = given.model
    if isinstance(given, Model):
        return OpenedModel(of(given), "the model", given)
    if isinstance(given, str) and ":" in given and not user_path(given).exists():
        given = load_backbone(given)
    if isinstance(given, Backbone):
        return OpenedModel(source_grad_model(given, does, place), given.card.name)
    folder = run_folder(given)
    run = folder if (folder / "model").is_dir() else None
    model = load_bundle(folder / "model" if run else folder).model
    return OpenedModel(of(model), str(folder), model, run)


@dataclass(frozen=True, eq=False)
class PictureExplainer(Explainer[Explanation]):
    """grad_model: of the model, or of a pretrained network."""

    grad_model: GradModel
    suffix: ClassVar[str] = ".png"
    noun: ClassVar[str] = "pictures"

    @classmethod
    def open(cls, given: AnyModel, asked: Asked, listener: Listener, name: str = "") -> Self:
        device = asked.device
        opened = open_model(given, "headstart explain takes", of_classes=False, device=device)
        name = name or opened.name
        return cls(opened.model, opened.run, name, asked, listener, opened.grad_model)

    @property
    def input(self) -> ImageInput:
        return self.grad_model.input

    @property
    def method(self) -> Method:
        method: Any = self.asked.method
        checked: Method = method
        return checked

    @cached_property
    def forward(self) -> Forward:
        return Forward(self.grad_model)

    def check(self) -> None:
        check_word("method", self.method, METHODS)
        if self.asked.class_name is not None:
            self.grad_model.number(self.asked.class_name)

    def explained(self, rows: Dataset) -> Iterator[Explanation | LeftOut]:
        probed, effort = probed_model_of(self.grad_model), Effort(method=self.method)
        for id, source in zip(rows.ids, rows.sources, strict=True):
            yield try_explain(probed, id, source, self.asked.class_name, effort)

    def rows_explained(
        self, run: Path, model: Model, sources: Mapping[str, Any]
    ) -> tuple[int, Iterator[Explanation | LeftOut]]:
        count = len(rows_to_explain(run, model.target, sources))
        return count, explain_run(run, model, sources, opened=self.grad_model)

    def features(self, explanation: Explanation) -> Floats:
        return self.forward.features([explanation.square])


def ascent(
    model: GradModel,
    number: int,
    name: str,
    plan: IdealPlan,
    start: Pixels | None,
    listener: Listener,
) -> Iterator[Ideal]:
    """Yield the pictures of `ascend`, the start first, and report their scores now and then."""
    reports = 0
    for now in ascend(model, number, plan, start):
        yield now
        if now.step:
            listener.progress("ideal", now.step, plan.steps)
        if now.step * TELLS >= reports * plan.steps:
            listener.stage("ideal", f"{name}, step {now.step} of {plan.steps}: {now.described}")
            reports += 1


def check_ideal_names(out: Path | None, film: Path | None) -> None:
    """Raise SpecError for a picture that is no .png, or a film that is no .gif or .webp."""
    if out is not None and out.suffix.lower() != ".png":
        raise SpecError(f"--out is a .png, which keeps pixels as they were judged; got {out}.")
    if film is not None:
        check_film(film)


def check_new_files(files: Sequence[Path]) -> None:
    """Raise SpecError for files that exist or coincide, PlaceError if they can't be written."""
    alike = Counter(str(file).casefold() for file in files)  # some systems ignore case
    for file in files:
        if alike[str(file).casefold()] > 1:
            raise SpecError(f"Two files would be called {file}: make the classes one at a time.")
        refuse_taken([file], "--out or --film")
    for folder in {file.parent for file in files}:
        check_folder(folder)


def _encoded(file: Any) -> Path | bytes:
    """Return a path, or the file of a picture in memory."""
    return user_path(file) if isinstance(file, str | Path) else ImageInput().encode(file)


def decoded(path: Path) -> Pixels:
    """Decode a picture; raises DataError with its path and the reason if it is unreadable."""
    try:
        return decode(path)
    except (OSError, DataError) as error:
        raise DataError(f"{path} must be a picture that can be read: {error}") from error


@dataclass(frozen=True, eq=False)
class Attacker:
    """Attacks pictures of one model. target: number of a class; None for any other class."""

    opened: OpenedModel
    attack: Attack
    target: int | None = None
    restarts: int = RESTARTS

    def of_files(self, pictures: Dataset, out: Path | None) -> FileWork[Fooling]:
        """Attack these pictures; with `out`, write two PNGs per picture, named after it."""
        own = self.opened.run is not None and out == self.opened.run / ATTACKED
        files = files_for(pictures, out, ".png", lambda file: (file, triptych_path(file)), keep=own)
        return FileWork(len(pictures), self._saved(pictures, files))

    def _saved(
        self, pictures: Dataset, files: Sequence[Path | None]
    ) -> Iterator[tuple[Fooling | LeftOut, Path | None]]:
        answering = answerer(self.opened.model or self.opened.grad_model.backbone)
        result: Fooling | LeftOut
        for id, source, file in zip(pictures.ids, pictures.sources, files, strict=True):
            try:
                result = self._attacked(answering, id, source)
                if isinstance(result, Fooling) and file is not None:
                    result.save(file)
            except (HeadstartError, OSError, MemoryError) as error:
                result = LeftOut(id, sentence_of(error))
            yield result, file

    def _attacked(self, answering: Answerer, id: str, source: Path) -> Fooling | LeftOut:
        """Attack a picture; return LeftOut if the model already predicts the target class."""
        model = self.opened.grad_model
        picture = decode(fetched(model.input, source))
        if self.target is not None and answering.of_example(picture).label == self.target:
            name = model.classes[self.target]
            return LeftOut(id, f"called {name!r} already", expected=True)
        goal, restarts = self.target, self.restarts
        result = fool(model, answering, picture, self.attack, target=goal, restarts=restarts)
        return replace(result, path=id)


@dataclass(frozen=True, eq=False)
class RobustnessTest:
    """The inputs of a robustness test. rows: all rows of the run. squares: the network's input for
    the sampled test pictures. known: features of training rows to compare with, or None."""

    run: Path
    model: Model
    grad_model: GradModel
    rows: Dataset
    squares: InputSquares
    plan: RobustnessPlan
    runtime: Runtime
    listener: Listener
    known: FeatureTable | None = None

    @classmethod
    def of(
        cls,
        run: Path,
        data: Path | None,
        plan: RobustnessPlan,
        runtime: Runtime,
        listener: Listener,
    ) -> "RobustnessTest":
        """Open the run; raises SpecError if it is no run, DataError if its pictures are gone."""
        if not (run / "model").is_dir():
            raise SpecError(
                f"A model is tried on the test rows of its run; {run} is no finished run. Name "
                f"the folder that `headstart train --out` made."
            )
        model, rows = load_bundle(run / "model").model, recorded_data(run, data)
        grad_model = grad_model_of(model, "headstart robustness changes", device=runtime.device)
        test, input = part_of(run, rows, "test"), grad_model.input
        few = test.take(stratified_rows(test.y, plan.rows, plan.seed))
        squares = input_squares(input, few, threads=runtime.decode_threads)
        listener.stage(
            "tried",
            f"{len(squares.data):,} of {len(test):,} test pictures, changed as the network sees "
            f"them: {input.size} x {input.size} pixels, {input.fit}",
        )
        return cls(run, model, grad_model, rows, squares, plan, runtime, listener)

    def compared(self, store: Store | None) -> "RobustnessTest":
        """Return the test with features of training rows; if none can be had, report the reason."""
        try:
            train = known_rows(self.run, self.rows, self.listener)
        except DataError as error:
            self.listener.stage("known", f"how neighbours move is left out: {error}")
            return self
        known = extract(
            self.model.backbone, train, store=store, runtime=self.runtime, listener=self.listener
        )
        return replace(self, known=known)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return (*self.squares.left_out, *(self.known.left_out if self.known else ()))

    def trials(self) -> Iterator[Robustness]:
        """Yield the results so far after each condition."""
        return trials(
            self.grad_model,
            self.squares.squares,
            self._labels(),
            self.plan,
            known=self.known,
            runtime=self.runtime,
            listener=self.listener,
        )

    def save(self, results: Robustness, language: str | None = None) -> Path:
        """Write RUN/robustness.json and the report of the run; returns the report's file."""
        write_json(self.run / RESULTS, results.to_plain())
        files = recorded_contents(self.run, self.rows).files
        return write_report(self.run, dict(zip(self.rows.ids, files, strict=True)), language)

    def _labels(self) -> NDArray[np.int64]:
        """Return labels in the model's numbering; raises Mismatch for an unknown class."""
        data, classes = self.squares.data, self.grad_model.classes
        if strange := [name for name, n in data.counts.items() if n and name not in classes]:
            raise Mismatch(
                f"The run's classes are {', '.join(classes)}; its test pictures are now labelled "
                f"{strange[0]!r}. Is it the right --data?"
            )
        return self.grad_model.renumbered(data.classes, data.y)


def found_files(files: AnyFiles, listener: Listener) -> Dataset:
    """Return pictures, and those in folders, as rows; report what is left out.

    The result holds it in `left_out`.
    """
    pictures, left_out = (files, ()) if isinstance(files, Dataset) else find(files)
    tell_left_out(left_out, listener)
    return replace(pictures, left_out=tuple(left_out))


def _with(spec: T, settings: Mapping[str, Any], *, without: str = "") -> T:
    """Return `spec` with these settings; raises UnknownName for a setting that it lacks."""
    names = {field.name for field in fields(spec)} - {without}  # type: ignore[arg-type]
    check_known(settings, names)
    return with_settings(spec, settings)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else user_path(given)
