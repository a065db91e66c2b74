"""The functions of `headstart`: one for each command, with the command's name.

Every flag of a command is a keyword of its function, with the same default. A function returns a
value, and writes files only where a folder is named. `explain` is in `headstart.explanations`;
functions for pictures alone (`ideal`, `attack`, `robustness`, `views`) are in `headstart.pixels`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import has_parts, input_class
from headstart.backbones.views import UserViews
from headstart.base.context import RunContext
from headstart.base.errors import DataError, MissingPackage, PlaceError, SpecError
from headstart.base.listener import Listener, Listeners
from headstart.base.notebook import html_table, text_table
from headstart.base.paths import user_path
from headstart.base.runtime import Runtime
from headstart.base.store import USUAL, Store
from headstart.data.checks import CheckPlan, Checks, good_rows, parts_of, with_parts
from headstart.data.checks import check as check_rows
from headstart.data.dataset import PARTS, Dataset, LeftOut
from headstart.data.splits import SplitPlan, Splits
from headstart.data.splits import split as split_rows
from headstart.evaluation.advice import Advice, AdvicePlan
from headstart.evaluation.backbone_search import BackboneSearch, SearchPlan
from headstart.evaluation.comparison import Comparisons
from headstart.evaluation.evaluation import Evaluation, OwnMetric, own_metric
from headstart.evaluation.evaluation import evaluate as evaluate_predictions
from headstart.evaluation.source_distance import SourceDistance, has_distance, source_distance
from headstart.evaluation.tuning_search import TrialPlan, TuningSearch
from headstart.evaluation.tuning_space import TuningSpace
from headstart.features.extract import FeatureTable
from headstart.features.extract import extract as extract_rows
from headstart.features.loading import load_for_features
from headstart.in_python import (
    as_listener,
    as_store,
    in_python,
    run_folder,
    speaks_python,
    tell_left_out,
)
from headstart.modalities.images.augment import Augment, AutoViews
from headstart.modalities.indexing import Indexed, IndexRequest, write_index
from headstart.modalities.reading import find, read, read_as, read_for, survey
from headstart.modalities.sources import (
    DEFAULT_BACKBONE,
    UsualName,
    load_backbone,
    usual_backbone,
)
from headstart.models import fitting
from headstart.models.bundle import load_bundle
from headstart.models.bundle import save as save_bundle
from headstart.models.fitting_limits import limited_result
from headstart.models.model import Model
from headstart.models.model import classify as classify_rows
from headstart.models.results import FitResult
from headstart.models.specs import FeatureExtraction
from headstart.reporting.page import write_report
from headstart.reporting.run_files import RecordedRow
from headstart.runs import tracking
from headstart.runs.advise import advise as advise_on
from headstart.runs.comparison import (
    compare_runs,
    finished_runs,
    judge_file,
    judged_by_folds,
)
from headstart.runs.config import read_config
from headstart.runs.demos import get_demo
from headstart.runs.detections import judge_detections
from headstart.runs.folder import RunRecord, free_folder, read_record
from headstart.runs.forecast import Forecast, forecast
from headstart.runs.job import AUTO, Job
from headstart.runs.judging import JudgedModel, judge
from headstart.runs.rates import check_alone, find_rate
from headstart.runs.recipes import get_recipe
from headstart.runs.recorded import data_from, recorded_files
from headstart.runs.run import Run
from headstart.runs.run import train as train_job
from headstart.runs.search import compare_outside_test
from headstart.runs.search import search as search_rows
from headstart.runs.seeds import SeedRun, as_ensemble, train_seeds
from headstart.runs.settings import check_known, job_with, known_settings, with_settings
from headstart.runs.tuning_search import search_settings
from headstart.serving.entry import prediction_server
from headstart.serving.settings import ServeSpec
from headstart.targets.plan import TargetPlan
from headstart.targets.predictions import Predictions

if TYPE_CHECKING:
    from headstart.models.rate_test import RateTest

Where = str | Path  # a path
Trained = Where | Model | FitResult | Run  # a path is of a run folder, or of a bundle
Part = Literal["auto", "train", "val", "test", "all"]
_OF_RUNS = {
    "baseline",
    "checkpoint_s",
    "resume",
    "language",
    "insights",
    "data_licence",
    "folds",
    "shots",
    "draws",
    "budget",
}  # settings of a run, which `fit` does not take
# Fields of Runtime for a saved model, which always runs on the CPU.
_ON_CPU = {"threads", "decode_threads", "engine", "compute_precision"}
_OF_MODELS = {"store", *_ON_CPU}  # arguments of `evaluate` that only a model reads


# ------------------------------------------------------------ data
@dataclass(frozen=True, eq=False, repr=False)
class DataCheck:
    """The result of `check`: problems of the data, and its distance from the source task.

    rows: the readable rows, with the digests of their contents. error: the message of the error
    that training would raise; "" if there is none. few: a warning if a test part with the usual
    share would have too few rows or boxes to measure something; "" if not.
    """

    checks: Checks
    distance: SourceDistance | None = None
    error: str = ""
    few: str = ""

    @property
    def rows(self) -> Dataset:
        return self.checks.dataset

    @property
    def warning(self) -> str:
        """A sentence on problems that mislead training or its test; "" if there are none."""
        return " ".join(filter(None, (self.checks.warning, self.few)))

    def __repr__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())

    def _rows(self) -> list[tuple[str, str, str]]:
        notes = [("error", "", self.error), ("warning", "", self.warning)]
        notes = [note for note in notes if note[2]]
        return [*self.checks.findings.table(self.checks.dataset.noun), *self._distance(), *notes]

    def _distance(self) -> list[tuple[str, str, str]]:
        if self.distance is None:
            return []
        return [("source task", self.distance.sentence, ""), *self.distance.table()]


@speaks_python
def index(
    data: Where,
    out: Where,
    *,
    input: str | None = None,
    column: str = "",
    label: str = "",
    unlabelled: bool = False,
) -> Indexed:
    """List where the examples of a data set lie, in a Parquet file that every function takes.

    data: a folder with one folder per class, tar shards, Parquet or Arrow tables with the bytes of
    pictures or with texts, a folder that `datasets` saved, the address of a folder of s3:// or
    gs://, or a text file of addresses. No example is decoded. input: the kind of the examples, None
    for what the data shows. column, label: of tables, "" for the usual ones. unlabelled: whether
    examples without a label are listed too, to predict them.

    Raises DataError if there are no examples, SpecError if `out` is no .parquet file or holds
    something else than an index, MissingPackage without pyarrow.

    >>> hs.index("shards", "shards.parquet").rows  # doctest: +SKIP
    1281167
    >>> hs.train("shards.parquet", "runs/shards")  # doctest: +SKIP
    """
    own = input_class(input)() if input else None
    request = IndexRequest(str(data), own, column, label, labelled=not unlabelled)
    return write_index(request, user_path(out))


@speaks_python
def check(
    data: Any,
    *,
    backbone: str | Backbone | None = None,
    weights: Where = "pretrained",
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> DataCheck:
    """Find problems of the data before any training: damage, copies, imbalance, odd sizes.

    data: as for `read`. backbone: compare the data with this network's pretraining data; "none" for
    no comparison, None for the default backbone, if it is installed. settings: `target`, `ordered`,
    `voc_base` and fields of CheckPlan and Runtime, such as `max_bad`. Training would raise `error`,
    if it is not "".

    >>> print(hs.check("photos"))  # doctest: +SKIP
    """
    check_known(settings, {"target", "ordered", "voc_base"} | _names(CheckPlan, Runtime))
    plan = with_settings(CheckPlan(), settings)
    rows = read_as(data, with_settings(TargetPlan(), settings))
    context = _context(store, listener, settings)
    compared = _compared(backbone, weights, rows)
    seen, checks = _checked(rows, context)
    far = None
    if compared and len(checks.dataset):
        runtime = context.runtime
        threads = runtime.decode_threads
        checks = with_parts(checks, compared.card.input, store=context.store, threads=threads)
        if isinstance(compared, Backbone) and has_distance(compared):
            by = context.listener
            far = source_distance(compared, checks.dataset, runtime=runtime, listener=by)
    tell_left_out(checks.left_out, context.listener)
    try:
        good_rows(rows, seen, plan)
        test = split_rows(checks.dataset, together=checks.exact).test
    except DataError as error:
        return DataCheck(checks, far, in_python(str(error)))
    return DataCheck(checks, far, few=in_python(test.target.about_test(test.y)))


def _compared(
    backbone: str | Backbone | None, weights: Where, rows: Dataset
) -> Backbone | Frozen | None:
    if backbone == "none":
        return None
    try:
        return _network(backbone or usual_backbone(DEFAULT_BACKBONE, rows)[0], weights)
    except MissingPackage:
        if backbone:
            raise
        return None


@speaks_python
def split(
    data: Any,
    *,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> Splits:
    """Split data into train, val and test, with no row, copy or group in two of them.

    data: as for `read`. Unreadable rows are left out. settings: `target`, `ordered` and those of
    SplitPlan, CheckPlan and Runtime, such as `val=0.2` and `seed=1`. Raises DataError for too few
    rows of a class.

    >>> parts = hs.split("photos", test=0.25)  # doctest: +SKIP
    >>> len(parts.train), len(parts.test)  # doctest: +SKIP
    """
    job = Job()
    known = {"target", "ordered"} | _names(job.split, job.checks, job.runtime)
    check_known(settings, known)
    return _split(data, job_with(job, settings), _context(store, listener, settings))


def _split(data: Any, job: Job, context: RunContext) -> Splits:
    if isinstance(data, Splits):
        return data
    rows = read_as(data, job.target)
    seen, checks = _checked(rows, context)
    parts = split_rows(good_rows(rows, seen, job.checks), job.split, together=checks.together)
    parts = replace(parts, left_out=(*checks.left_out, *parts.left_out))
    tell_left_out(parts.left_out, context.listener)
    return parts


def _checked(rows: Dataset, context: RunContext) -> tuple[Any, Checks]:
    threads, progress = context.runtime.decode_threads, partial(context.listener.progress, "checks")
    seen = survey(rows, store=context.store, threads=threads, progress=progress)
    return seen, check_rows(rows, seen, threads=threads)


@overload
def search(
    data: Any,
    *,
    trials: int,
    out: Where,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> TuningSearch: ...
@overload
def search(
    data: Any,
    *,
    out: Where | None = None,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> BackboneSearch: ...
@speaks_python
def search(
    data: Any,
    *,
    trials: int | None = None,
    out: Where | None = None,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> BackboneSearch | TuningSearch:
    """Compare pretrained networks on a sample of the data, by a cross-validated head and LogME.

    data: as for `read`. out: a new folder for search.json. settings: `backbones`, `rows` and `seed`
    of SearchPlan, `target` and `ordered`, `max_bad`, and those of Runtime. Networks that cannot be
    loaded are in `left_out`. Raises PlaceError if a search is in `out` already, DataError for data
    that is too small or unusable, the error of the first network if none can be tried.

    trials: instead, try settings of fine-tuning until folder `out` holds so many trials; the same
    call goes on with a stopped search. settings: then `backbone`, `seed` and the ranges of
    TuningSpace, such as `lr=(1e-5, 1e-3)`, in place of those of SearchPlan. Raises MissingPackage
    without Optuna, SpecError if `out` holds a search over other data or settings.

    >>> found = hs.search("photos", backbones=["timm:resnet18", "timm:vit_tiny"])  # doctest: +SKIP
    >>> found.chosen, found.tried[0].merit  # doctest: +SKIP
    >>> found = hs.search("photos", trials=20, out="found")  # doctest: +SKIP
    >>> found.best.settings, found.command("photos")  # doctest: +SKIP
    """
    kinds = (SearchPlan,) if trials is None else (TrialPlan, TuningSpace)
    check_known(settings, {"target", "ordered"} | _names(*kinds, CheckPlan, Runtime))
    limits = with_settings(CheckPlan(), settings)
    rows = read_as(data, with_settings(TargetPlan(), settings))
    context = _context(store, listener, settings)
    if trials is not None:
        if out is None:
            raise SpecError("--trials keeps its trials in a folder: name one with --out.")
        asked = with_settings(TrialPlan(), {**settings, "trials": trials})
        job = Job(
            source=rows.origin,
            target=with_settings(TargetPlan(), settings),
            checks=limits,
        )
        space = with_settings(TuningSpace(), settings)
        tried = search_settings(rows, asked, space, job, user_path(out), context)
        tell_left_out(tried.left_out, context.listener)
        return tried
    place, plan = None if out is None else user_path(out), with_settings(SearchPlan(), settings)
    found = search_rows(rows, plan, context, checks=limits, out=place)
    tell_left_out((*found.unread, *found.left_out), context.listener)
    return found


@speaks_python
def advise(
    data: Any,
    *,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> Advice:
    """Measure on a sample whether to fine-tune, how much to thaw, on which network, how long.

    data: as for `read`. settings: `backbones`, `rows`, `probe_epochs`, `seed` and `language`
    of AdvicePlan, `target` and `ordered`, `max_bad`, and those of Runtime. Printed, the result is
    the advice in words. Raises DataError for data that is too small or unusable.

    >>> advice = hs.advise("photos", language="ru")  # doctest: +SKIP
    >>> print(advice)  # doctest: +SKIP
    >>> advice.strategy, advice.thaw, advice.search.chosen  # doctest: +SKIP
    ('extract', 'none', 'packaged:efficientnet_lite0')
    """
    known = {"target", "ordered"} | _names(AdvicePlan, CheckPlan, Runtime)
    check_known(settings, known)
    target, limits = with_settings(TargetPlan(), settings), with_settings(CheckPlan(), settings)
    rows, plan = read_as(data, target), with_settings(AdvicePlan(), settings)
    found = advise_on(rows, plan, _context(store, listener, settings), limits, target)
    tell_left_out((*found.search.unread, *found.search.left_out), as_listener(listener))
    return found


# ------------------------------------------------------------ training
@overload
def train(
    data: Any,
    out: Where,
    job: Job | None = None,
    listener: Listener | None = None,
    *,
    recipe: str | None = None,
    config: Where | None = None,
    track: str | None = None,
    **settings: Any,
) -> Run: ...
@overload
def train(
    data: Any, out: Where, *, seeds: int, ensemble: Literal[True], **settings: Any
) -> Run: ...
@overload
def train(data: Any, out: Where, *, seeds: int, **settings: Any) -> tuple[SeedRun, ...]: ...
@overload
def train(data: Any, out: Where, *, dry_run: Literal[True], **settings: Any) -> Forecast: ...
@overload
def train(
    data: Any, out: Where | None = None, *, lr_find: Literal[True], **settings: Any
) -> "RateTest": ...
@speaks_python
def train(
    data: Any,
    out: Where | None = None,
    job: Job | None = None,
    listener: Listener | None = None,
    *,
    recipe: str | None = None,
    config: Where | None = None,
    track: str | None = None,
    seeds: int = 1,
    ensemble: bool = False,
    dry_run: bool = False,
    lr_find: bool = False,
    **settings: Any,
) -> Any:
    """Train a model on labelled examples, test it, and write a run with its report into `out`.

    data: as for `read`; None is the data of `config`. job: all settings as one value; recipe: a
    name of `list_recipes`; config: a run's recipe.json. settings: flags of `headstart train`, such
    as `epochs=5`; each replaces one setting of the job. track: "tensorboard" or "mlflow".

    Returns a Run; with `seeds=N` N runs, each in its own folder, or with `ensemble=True` one whose
    model averages N fine-tunings; with `dry_run=True` a Forecast of the cost, and with
    `lr_find=True` a RateTest of learning rates: both write nothing, and the second needs no `out`.
    Raises SpecError if `out` holds a finished run or a setting is wrong,
    UnknownName for an unknown setting, DataError for unusable data.

    >>> run = hs.train("photos", "runs/flowers", epochs=5)  # doctest: +SKIP
    >>> run.evaluation.accuracy  # doctest: +SKIP
    Estimate(0.931 [0.896, 0.955] n=290)
    """
    listener = as_listener(listener)
    if isinstance(settings.get("backbone"), Backbone):
        raise SpecError("A run names its backbone, to be repeated; fit takes a network in memory.")
    if isinstance(data, Splits):
        raise SpecError("A run splits its data itself: give it the data, or give fit the parts.")
    own = _job(settings, recipe, config, job)
    if ensemble:
        own, seeds = as_ensemble(own, seeds), 1
    if data is None and not own.source:
        raise SpecError("Name the data to train on: a folder, a manifest, a data frame or pairs.")
    if lr_find:
        check_alone(own, {"seeds": seeds != 1, "dry-run": dry_run, "track": bool(track)})
    if track and not dry_run:
        tracking.check_tracker(track)
    rows = data_from(own.source, own.target) if data is None else read_as(data, own.target)
    if data is not None and rows.origin:
        own = replace(own, source=rows.origin)
    if lr_find:
        tested = find_rate(rows, own, listener)
        tell_left_out(tested.left_out, listener)
        return tested
    if out is None:
        raise SpecError("Name the folder for the run: train(data, out).")
    out = user_path(out)
    if dry_run:
        return forecast(rows, out, own, listener)
    if seeds != 1:
        return train_seeds(rows, out, own, seeds, listener)
    live = tracking.live_tracker(track, out)
    run = train_job(rows, out, own, Listeners(listener, live) if live else listener)
    tell_left_out(run.left_out, listener)
    if track:
        listener.stage("tracked", tracking.track(run.folder, track, live))
    return run


@speaks_python
def fit(
    data: Any,
    *,
    backbone: str | Backbone = DEFAULT_BACKBONE,
    model: Model | FitResult | None = None,
    recipe: str | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> FitResult:
    """Fit a model in memory, and write nothing: a head, then fine-tuning; the better one is kept.

    data: as for `read`, to be checked and split here, or the result of `split`. The test rows,
    `fitted.splits.test`, are not used. backbone: a name, or a network such as `wrap` returns.
    model: a fitted model to fine-tune further, in place of a backbone. settings: the flags of
    `headstart train`, such as `strategy="extract"` or `thaw="2"`.

    The limits of the model, by which it answers "unknown", are found on validation. Raises
    SpecError for a wrong setting, UnknownName for an unknown one, DataError for unusable data.

    >>> fitted = hs.fit("photos", backbone="timm:resnet50", epochs=3)  # doctest: +SKIP
    >>> fitted.model, fitted.history, fitted.chosen  # doctest: +SKIP
    >>> hs.evaluate(fitted)  # on the test rows  # doctest: +SKIP
    """
    _check_start(model, backbone)
    _check_settings_of_fit(settings, data)
    listener = as_listener(listener)
    if isinstance(backbone, str) and not isinstance(backbone, UsualName):
        settings["backbone"] = backbone
    if model is not None:
        settings.setdefault("strategy", "finetune")
    job = _job(settings, recipe)
    context = RunContext(job.store, job.runtime.resolved(), listener)
    splits = _split(data, job, context)
    if model is not None and job.members > 1:
        raise SpecError(
            "An ensemble starts from a head fitted with it: leave model or members out."
        )
    if model is not None:
        result = fitting.fit(job.finetune, model, splits, **_how(job, context))
    else:
        job = _with_backbone(job.for_data(splits.train, listener), splits, context)
        network = _start(backbone, job)
        _tell_parts(network, splits, context)
        if job.strategy == "scratch":
            from headstart.models.tuning import from_scratch

            assert isinstance(network, Backbone)
            result = from_scratch(job.spec, job.recipe.prepared(network), splits, context)
        else:
            result = fitting.fit(job.spec, network, splits, **_how(job, context))

    def features(model: Model, rows: Dataset) -> FeatureTable:
        return extract_rows(model.backbone, rows, store=job.store, runtime=job.runtime)

    limited = limited_result(result, job.trust, splits, None, features)
    return replace(limited, splits=splits)


def _with_backbone(job: Job, splits: Splits, context: RunContext) -> Job:
    """Return the job with the backbone that `auto` comes to on training and validation rows."""
    if job.backbone != AUTO:
        return job
    rows = splits.train_val
    rows = replace(rows, groups=splits.groups_of(rows.ids))
    found = compare_outside_test(job, rows, context)
    context.listener.stage("backbone", f"{found.chosen}: {found.why}")
    return replace(job, backbone=found.chosen)


def _tell_parts(network: Backbone | Frozen, splits: Splits, context: RunContext) -> None:
    """Report how many examples are longer than the network reads at once, as a run's checks do."""
    input, own = network.card.input, splits.train.input
    if not has_parts(input) or own is None or own.kind != input.kind:
        return
    threads = context.runtime.decode_threads
    parts = (splits.train, splits.val, splits.test)
    counts = [parts_of(rows, input, store=context.store, threads=threads) for rows in parts]
    if why := input.about_parts(np.concatenate(counts)):
        context.listener.stage("windows", why)


def _check_start(model: Any, backbone: Any) -> None:
    """Raise SpecError unless `fit` starts from either a fitted model or a backbone."""
    if model is None:
        return
    if not isinstance(model, Model | FitResult):
        raise SpecError(
            f"model is a fitted model, to fine-tune it further; got {model!r}. A pretrained "
            f"network is given as backbone, by its name."
        )
    if backbone != DEFAULT_BACKBONE:
        raise SpecError("A model has a backbone: give fit either model or backbone.")


def _check_settings_of_fit(settings: dict[str, Any], data: Any) -> None:
    """Raise SpecError for settings that `fit` would not read."""
    if settings.get("augment") == "auto" or isinstance(settings.get("augment"), AutoViews):
        raise SpecError("augment='auto' is chosen by a run, which fit does not make: use train.")
    if of_runs := sorted(settings.keys() & _OF_RUNS):
        raise SpecError(f"{of_runs[0]} is a setting of a run, which fit does not make: use train.")
    of_data = sorted(settings.keys() & (_names(SplitPlan, CheckPlan) - {"seed"}))
    if isinstance(data, Splits) and of_data:
        raise SpecError(f"{of_data[0]} would change nothing: this data is split already.")


def _start(backbone: str | Backbone, job: Job) -> Backbone | Frozen:
    """Return the network to start from; an untrained one to train from scratch."""
    name = job.backbone if isinstance(backbone, str) else backbone
    untrained = job.strategy == "scratch" and job.weights == "pretrained"
    return _network(name, "random" if untrained else job.weights)


def _for_features(
    backbone: str | Backbone, weights: Where, runtime: Runtime, size: int = 0
) -> Backbone | Frozen:
    """Return a network whose features alone are needed; see `load_for_features`."""
    if isinstance(backbone, str):
        return load_for_features(backbone, str(weights), runtime, size)
    return _network(backbone, weights)


def _network(backbone: str | Backbone, weights: Where = "pretrained") -> Backbone | Frozen:
    if isinstance(backbone, Backbone | Frozen):
        return backbone
    if isinstance(backbone, str):
        return load_backbone(backbone, weights=weights)
    raise SpecError(
        f"backbone is a name, such as {DEFAULT_BACKBONE!r}, or what wrap(module, size=…) makes of "
        f"a network; got a {type(backbone).__name__}."
    )


def _how(job: Job, context: RunContext) -> dict[str, Any]:
    listener, views = context.listener, job.spec.views
    return {
        "views": views,
        "tta": job.tta,
        "store": job.store,
        "runtime": job.runtime,
        "listener": listener,
    }


def _job(
    settings: dict[str, Any],
    recipe: str | None = None,
    config: Where | None = None,
    job: Job | None = None,
) -> Job:
    """Return the job of a recipe, a file or a value, with the given settings."""
    if sum(given is not None for given in (recipe, config, job)) > 1:
        raise SpecError(
            "recipe, config and job all say what to start from: give one of them, and settings."
        )
    if config is not None:
        job = read_config(user_path(config))
    job = job or get_recipe(recipe or "default").job
    settings = dict(settings)
    if "augment" in settings and not isinstance(settings["augment"], str):
        job = replace(job, augment=_views_of(settings.pop("augment")))
    if "head" in settings:  # its own settings are known then
        job = replace(job, recipe=with_settings(job.recipe, {"head": settings["head"]}))
    check_known(settings, known_settings(job))
    if "store" in settings:
        settings = settings | {"store": as_store(settings["store"])}
    job = job_with(job, settings)
    if isinstance(job.augment, UserViews) and not job.trains and (not job.shots or job.idle_views):
        how = "Leave it out" if job.shots else "Name head='linear' or 'mlp', or fine-tune"
        raise SpecError(
            f"augment would change nothing: a {job.recipe.head.family} head is solved on plain "
            f"examples. {how}."
        )
    return job


def _views_of(given: Any) -> Augment | UserViews | AutoViews:
    if given is None or isinstance(given, Augment | AutoViews):
        return given or Augment()
    if callable(given):
        return UserViews(function=given)
    raise SpecError(
        f"augment is auto, a function of one example, or specs.Augment(…); got {given!r}. Single "
        f"changes are settings, such as flip='horizontal'."
    )


@speaks_python
def demo(
    out: Where | None = None,
    *,
    example: str = "images",
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
) -> Run:
    """Train on a built-in example in a few minutes.

    out: the run's folder; None is runs/demo, or the first free of runs/demo-2, …. example: "images"
    (2,624 photographs of solar cells, defective or not), "text" (2,500 sentences of film reviews,
    negative or positive) or "number" (the cells' probability of a defect). Raises MissingPackage or
    DataError, with the command to type, if the data is not on this machine.

    >>> hs.demo().evaluation.accuracy  # doctest: +SKIP
    """
    folder = free_folder(Path("runs/demo")) if out is None else user_path(out)
    chosen = get_demo(example)
    job = replace(chosen.job, store=as_store(store))
    return train_job(chosen.read(), folder, job, listener)


# ------------------------------------------------------------ models and their answers
@speaks_python
def load(path: Where | Run, *, module: Any = None, sha256: str = "") -> Model:
    """Load the model of a run folder or of a bundle; predicting with it needs no PyTorch.

    module: the network passed to `wrap`, to explain or fine-tune the model; its weights do not
    matter. sha256: the digest that the bundle must have, as training prints it; "" for any. Raises
    BundleError for a folder that is incomplete or was altered, or is another bundle.

    >>> hs.load("runs/flowers").predict("new/").to_frame()  # doctest: +SKIP
    """
    folder = run_folder(path)
    bundle = folder / "model" if (folder / "model").is_dir() else folder
    return load_bundle(bundle, module=module, sha256=sha256).model


@speaks_python
def save(model: Trained, folder: Where) -> Path:
    """Save a model as a bundle, a new folder that predicts without PyTorch; returns the folder.

    Raises PlaceError if `folder` exists, BundleError if the bundle could not be loaded again.

    >>> hs.save(fitted, "bundle")  # doctest: +SKIP
    """
    try:
        return save_bundle(loaded(model), user_path(folder)).folder
    except FileExistsError as error:
        raise PlaceError(
            f"{folder} is there already: name another folder, or remove it."
        ) from error


@speaks_python
def predict(
    model: Trained,
    examples: Any,
    *,
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> Predictions:
    """Predict examples: a path, a folder, a picture in memory, a Dataset, or a list of them.

    `left_out` lists unreadable examples; `doubts` gives the reason if a row is unknown. settings:
    `threads` and `decode_threads`. Raises DataError if there is nothing to predict.

    >>> hs.predict("runs/flowers", "new/").to_frame()  # doctest: +SKIP
    """
    check_known(settings, _ON_CPU)
    context = _context(store, listener, settings)
    own, runtime = loaded(model), context.runtime
    return own.predict(examples, store=context.store, runtime=runtime, listener=context.listener)


@speaks_python
def serve(
    *models: Where | Run,
    names: Sequence[str] = (),
    listener: Listener | None = None,
    **settings: Any,
) -> None:
    """Answer requests for predictions over HTTP until Ctrl-C or SIGTERM.

    models: runs or bundles. names: of the models in addresses; by default those of their folders.
    settings: fields of `hs.specs.ServeSpec`, such as port. Raises SpecError for wrong ones,
    BundleError for a model that can't be loaded, PlaceError for an address that can't be listened
    on, MissingPackage without the extra `serve`.

    >>> hs.serve("runs/flowers", port=8080)  # doctest: +SKIP
    """
    if not models:
        raise SpecError("Name at least one model to serve.")
    check_known(settings, _names(ServeSpec))
    plain = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
    spec = with_settings(ServeSpec(), plain)
    folders = [run_folder(model) for model in models]
    prediction_server(folders, names, spec, as_listener(listener)).run()


@speaks_python
def classify(
    examples: Any,
    *,
    backbone: str | Backbone = DEFAULT_BACKBONE,
    weights: Where = "pretrained",
    **settings: Any,
) -> Predictions:
    """Predict examples with a pretrained network as it is, in the classes that it learned.

    examples: as for `predict`. settings: of Runtime, such as `threads`. Raises SpecError for a
    network without its own head.

    >>> hs.classify("photo.jpg").names  # doctest: +SKIP
    ('tabby, tabby cat',)
    """
    check_known(settings, _names(Runtime))
    runtime = with_settings(Runtime(), settings)
    network = _for_features(backbone, weights, runtime)
    rows, left_out = _unlabelled(examples, network)
    predictions, unreadable = classify_rows(network, rows, runtime=runtime)
    return replace(predictions, left_out=(*left_out, *unreadable))


@speaks_python
def extract(
    data: Any,
    *,
    backbone: str | Backbone = DEFAULT_BACKBONE,
    weights: Where = "pretrained",
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> FeatureTable:
    """Return the features of examples by a pretrained network: `ids`, `x` (N, D) float32, `y`.

    data: as for `read`, or examples without labels, as for `predict`. backbone: the usual one of
    labelled texts is that of their language; without labels they need its name. Features are kept
    in the store, so that each is computed once. settings: `size`, `fit` and `draft` of
    FeatureExtraction, and those of Runtime.

    >>> x = hs.extract("photos", backbone=hs.wrap(net, size=128)).x  # doctest: +SKIP
    """
    check_known(settings, {"size", "fit", "draft"} | _names(Runtime))
    context = _context(store, listener, settings)
    rows = _labelled(data)
    if rows and isinstance(backbone, str):
        backbone, why = usual_backbone(backbone, rows)
        if why:
            context.listener.stage("backbone", why)
    spec, runtime = with_settings(FeatureExtraction(), settings), context.runtime
    network = spec.prepared(_for_features(backbone, weights, runtime, spec.size))
    table = extract_rows(
        network,
        rows or _unlabelled_rows(data, network),
        store=context.store,
        runtime=runtime,
        listener=context.listener,
    )
    tell_left_out(table.left_out, context.listener)
    return table


def _labelled(data: Any) -> Dataset | None:
    """Read labelled data; None if it can't be read as such."""
    try:
        return read(data)
    except DataError:
        return None


def _unlabelled_rows(data: Any, network: Backbone | Frozen) -> Dataset:
    """Return data without labels as rows of one class, or raise why it is no labelled data."""
    try:
        return find(data, input=network.card.input)[0]
    except DataError:
        return read(data)


def _unlabelled(examples: Any, network: Backbone | Frozen) -> tuple[Dataset, tuple[LeftOut, ...]]:
    if isinstance(examples, Dataset):
        return examples, ()
    return find(examples, input=network.card.input)


# ------------------------------------------------------------ judging
@speaks_python
def evaluate(
    model: Trained | Predictions,
    data: Any = None,
    *,
    part: Part = "auto",
    metrics: Sequence[OwnMetric] | Mapping[str, OwnMetric] = (),
    store: Store | Where | None = USUAL,
    listener: Listener | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure a model on labelled data, or predictions: each metric with its 95 % interval.

    model: a path of a run or bundle, a model, or predictions (Predictions, or a CSV file), which
    contain the labels, so that `data` must be None. part: "auto" means the test rows, and never a
    row that the run was trained on. metrics: functions of labels and predictions, each (N,), as in
    `sklearn.metrics`, or a dict of them; labels of classes are texts. Their values are attributes
    with the functions' names. settings: `threads` and `decode_threads`, and for a file of
    predictions `target`, the kind of target if it is not classes and no run is beside it, with
    `ordered`, the grades from the lowest on. For boxes, model may be a file of detections (COCO's
    results, .json); data then has the true boxes. Raises DataError if no row is left to evaluate
    on, SpecError for a setting that nothing would read.

    >>> hs.evaluate("runs/flowers", "photos").accuracy  # doctest: +SKIP
    Estimate(0.931 [0.896, 0.955] n=290)
    """
    check_known(settings, {"target", "ordered", "voc_base"} | _ON_CPU)
    plan, file = with_settings(TargetPlan(), settings), _file_of(model)
    usual = {field.name: getattr(TargetPlan(), field.name) for field in fields(TargetPlan)}
    given = {
        *(name for name, value in settings.items() if usual.get(name, ...) != value),
        *(["part"] if part != "auto" else []),
        *(["store"] if store != USUAL else []),
    }
    if file is not None and file.suffix.lower() == ".json":
        _refuse_idle(given & _OF_MODELS, "a model, and detections were made before")
        return _of_detections(file, data, part, metrics, plan)
    _refuse_idle(given & {"voc_base"}, "detections in a .json file")
    if file is None:
        _refuse_idle(given & {"target", "ordered"}, "a file of predictions; others know it")
    if file is not None or isinstance(model, Predictions):
        _refuse_idle(given & (_OF_MODELS | {"part"}), "a model, and predictions were made before")
        judged = _judged_before(file or model, data, plan, as_listener(listener))
    else:
        judged = _judged_now(model, data, part, _context(store, listener, settings))
    named, folds = _named_metrics(metrics, judged.evaluation), file and judged_by_folds(file)
    own = {n: own_metric(m, judged.predictions, folds=bool(folds)) for n, m in named.items()}
    return replace(judged.evaluation, own=own, left_out=judged.left_out)


def _file_of(model: Trained | Predictions) -> Path | None:
    """Return the file of answers that a model is given as; None for a model, or other answers."""
    path = user_path(model) if isinstance(model, str | Path) else None
    return path if path is not None and path.is_file() else None


def _refuse_idle(settings: set[str], what: str) -> None:
    """Raise SpecError for a setting that is given and is for something else."""
    if settings:
        raise SpecError(f"{min(settings)} is for {what}: leave it out.")


def _judged_before(answers: Any, data: Any, plan: TargetPlan, listener: Listener) -> JudgedModel:
    """Return the evaluation of predictions, or of a file of them."""
    if data is not None:
        raise SpecError("Predictions know their labels: evaluate them without data.")
    if isinstance(answers, Path):
        predictions, evaluation = judge_file(answers, plan, listener)
        return JudgedModel(evaluation, predictions, ())
    if not answers.known.any():
        raise DataError("There is nothing to judge by: no row of the predictions has a label.")
    return JudgedModel(evaluate_predictions(answers), answers, ())


def _judged_now(model: Trained, data: Any, part: Part, context: RunContext) -> JudgedModel:
    """Return the evaluation of a model on labelled data, by default the test rows of `fit`."""
    if data is None and not (isinstance(model, FitResult) and model.splits):
        raise SpecError("A model is judged on labelled data: evaluate(model, data).")
    own_test = isinstance(model, FitResult) and model.splits and data is None
    rows = model.splits.test if own_test else read_for(data, loaded(model).target)  # type: ignore[union-attr]
    judged = judge(loaded(model), _record(model), rows, part, rows.origin, context)
    tell_left_out(judged.left_out, context.listener)
    return judged


def _of_detections(
    results: Path, data: Any, part: Part, metrics: Any, plan: TargetPlan
) -> Evaluation:
    if metrics:
        raise SpecError("Own metrics are of one answer per row, and boxes have many: name none.")
    return judge_detections(results, None if data is None else user_path(data), part, plan)


def _named_metrics(
    metrics: Sequence[OwnMetric] | Mapping[str, OwnMetric], evaluation: Evaluation
) -> dict[str, OwnMetric]:
    """Return the user's metrics by name; raises SpecError for a name that is taken."""
    if callable(metrics):
        metrics = [metrics]
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    else:
        pairs = [(getattr(m, "__name__", type(m).__name__), m) for m in metrics]
    for place, (name, metric) in enumerate(pairs):
        if not callable(metric):
            raise SpecError(f"A metric is a function of labels and answers; got {metric!r}.")
        if name in evaluation.metrics or name in [other for other, _ in pairs[:place]]:
            raise SpecError(
                f"There is a metric {name!r} already: give metrics={{'name': function}}."
            )
    return dict(pairs)


def _record(model: Trained) -> RunRecord | None:
    """Return which rows a model learned from; None if that is not known."""
    if isinstance(model, Run):
        return read_record(model.folder)
    if isinstance(model, str | Path):
        return read_record(run_folder(model))
    if not isinstance(model, FitResult) or model.splits is None:
        return None
    parts = {part: getattr(model.splits, part) for part in PARTS}
    rows = {
        id: RecordedRow(id, part, content)
        for part, data in parts.items()
        for id, content in zip(data.ids, data.contents, strict=False)
    }
    return RunRecord("", rows) if rows else None


@speaks_python
def compare(
    *runs: Where | Run,
    target: str = "",
    ordered: str | Sequence[str] = "",
    listener: Listener | None = None,
) -> Comparisons:
    """Compare finished runs, or files of predictions, with the first, on the same test rows.

    target: what the files predict, such as "number"; "" leaves it to their columns. ordered: of
    grades, the lowest first. Folders without a finished run are left out, and reported to the
    listener. Raises SpecError for fewer than two runs, Mismatch if their rows, labels or classes
    differ.

    >>> hs.compare("runs/a", "runs/b")  # doctest: +SKIP
    """
    given = runs[0] if len(runs) == 1 and isinstance(runs[0], list | tuple) else runs
    kept, left_out = finished_runs([run_folder(run) for run in given])
    tell_left_out(left_out, as_listener(listener))
    names = ordered if isinstance(ordered, str) else ",".join(ordered)
    return compare_runs(kept, target, names)


@speaks_python
def report(
    run: Where | Run,
    *,
    data: Where | None = None,
    language: str | None = None,
    listener: Listener | None = None,
) -> Path:
    """Write RUN/report.html again, the page that shows all of a run; returns its path.

    data: where the run's examples are now. language: "en" or "ru"; None is the run's language.
    Raises DataError if there is no such run.

    >>> hs.report("runs/flowers", language="ru")  # doctest: +SKIP
    """
    folder = run_folder(run)
    if not folder.exists():
        raise DataError(f"There is no run {folder}. Check the path.")
    files = recorded_files(folder, None if data is None else user_path(data), listener)
    return write_report(folder, files, language)


@speaks_python
def track(run: Where | Run, where: str) -> str:
    """Write a finished run's curves, metrics, settings and pictures to a tracker; returns where.

    where: "tensorboard" (a new folder RUN/tensorboard) or "mlflow", which also gets the report and
    the model, and is configured by environment variables such as MLFLOW_TRACKING_URI. Raises
    UnknownName for an unknown tracker, DataError if the run is not finished.

    >>> hs.track("runs/flowers", "tensorboard")  # doctest: +SKIP
    """
    return tracking.track(run_folder(run), where)


# ------------------------------------------------------------ helpers
def loaded(model: Trained) -> Model:
    """Return the model of what may be given as one."""
    if isinstance(model, str | Path):
        return load(model)
    if not isinstance(model, Model | FitResult | Run):
        raise SpecError(
            f"A model is the folder of a run or bundle, or what fit, train and load return; got a "
            f"{type(model).__name__}."
        )
    return model if isinstance(model, Model) else model.model


def _context(
    store: Store | Where | None, listener: Listener | None, settings: dict[str, Any]
) -> RunContext:
    """Return the context with the settings of Runtime among `settings`."""
    runtime = with_settings(Runtime(), settings).resolved()
    return RunContext(as_store(store), runtime, as_listener(listener))


def _names(*specs: Any) -> set[str]:
    return {f.name for spec in specs for f in fields(spec)}
