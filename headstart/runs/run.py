"""The main job, from data to bundle: a head first, then fine-tuning, the better one kept.

Each file is written as soon as what it holds is known, and whole. A run that was cut off goes on
in its folder: features are in the store, and training is in its checkpoints.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headstart.base.atomic import write_json, write_text
from headstart.base.errors import Diverged, SpecError
from headstart.base.listener import Listener
from headstart.base.runtime import keep_memory, machine, peak_rss_bytes
from headstart.base.values import Settings
from headstart.data.checks import Checks, check, good_rows, survey
from headstart.data.dataset import CheckedFile, Dataset, LeftOut
from headstart.data.splits import Splits, split
from headstart.evaluation.embedding_map import embedding_map
from headstart.evaluation.evaluation import Estimate, Evaluation, compare, evaluate_predictions
from headstart.evaluation.insights import Insights
from headstart.evaluation.judged import doubts, gains, temperature_scaling
from headstart.evaluation.learning_curve import learning_curve
from headstart.evaluation.mistakes import mistakes, outliers
from headstart.explaining.explanation import QUICK, explain_run
from headstart.features.extract import FeatureTable
from headstart.models.bundle import save, versions
from headstart.models.fitting import Fitted
from headstart.models.fitting_limits import limited, remembered
from headstart.models.model import Model
from headstart.reporting.page import write_report
from headstart.reporting.run_files import (
    KeptStrategy,
    ParameterCount,
    PhaseSize,
    RunEvaluation,
    RunRecipe,
    Timings,
    WeightsOrigin,
)
from headstart.runs.folder import (
    CHECKPOINTS,
    LAST,
    changed_files,
    claimed,
    first_few,
    history_csv,
    recorded_digests,
    splits_csv,
)
from headstart.runs.job import Job
from headstart.runs.stages import (
    Candidate,
    Ready,
    Workshop,
    prepare,
    tap_of,
    train_baseline,
    train_scratch,
    train_transfer,
)
from headstart.runs.wording import counted, counts, limits_said
from headstart.targets.predictions import Predictions, write_csv
from headstart.training.network import Count

Pictures = Mapping[str, Path | CheckedFile]  # of rows, by their ids

USUAL_L2 = 0.03  # for looking at features, where no strength of a head was chosen


@dataclass(frozen=True, eq=False)
class Run:
    """kept: the candidate that was saved: head, finetune or scratch. candidates: each of them on
    validation, and `counts` the numbers that it trained. gain: how much more accurate the kept one
    is there than the other. baselines: what was trained to compare with, on test.
    """

    folder: Path
    splits: Splits
    checks: Checks
    fitted: Fitted
    kept: str
    candidates: dict[str, Evaluation]
    counts: dict[str, Count]
    gain: Estimate | None
    evaluations: dict[str, Evaluation]  # by part: "test" and "val"
    baselines: dict[str, Evaluation]
    timings: Timings
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, eq=False)
class _Learned:
    """What came of training. table: plain features of all rows, of the backbone as it began."""

    ready: Ready
    splits: Splits
    checks: Checks
    candidates: dict[str, Candidate]
    table: FeatureTable | None

    @property
    def best(self) -> str:
        """The candidate that is best on validation; of equals the simpler one, which is first."""
        return max(self.candidates, key=lambda name: self.candidates[name].merit)


def train(
    data: Dataset, out: Path, job: Job | None = None, listener: Listener | None = None
) -> Run:
    """Check, split, train, judge, save: the whole of `headstart train` into folder `out`.

    Raises SpecError if `out` holds a finished run or anything else, DataError when the data will
    not do, Diverged when training does. What was computed until then is kept, and gone on with.
    """
    job = job or Job()
    with claimed(out, resume=job.resume) as finish:
        keep_memory()
        shop = Workshop(out, job, listener or Listener())
        learned = _learn(shop, data)
        rows = learned.checks.dataset
        pictures: Pictures = dict(zip(data.ids, data.sources, strict=True))
        checked = dict(zip(rows.ids, rows.files, strict=True))
        return _finish(shop, learned, {**pictures, **checked}, finish)


def _learn(shop: Workshop, data: Dataset) -> _Learned:
    """From files to trained candidates."""
    with shop.clock("backbone"):
        ready = prepare(shop)
    with shop.clock("checks"):
        rows, checks = _checked(shop, data)
    if shop.job.strategy == "scratch":
        splits = _split(shop, rows, checks)
        with shop.clock("training"):
            fitted = train_scratch(shop, ready.backbone, splits, ready.settings)
        only = Candidate(fitted, shop.features(fitted, splits.val))
        return _Learned(ready, splits, checks, {"scratch": only}, None)
    with shop.clock("features"):
        tap, ready = tap_of(shop, ready, len(rows))
        table = shop.extracted(ready.backbone, rows, tap)
    checks = checks.confirmed(table.x)
    splits = _split(shop, rows, checks)
    candidates = train_transfer(shop, ready, splits, table, tap)
    return _Learned(ready, splits, checks, candidates, table)


def _finish(
    shop: Workshop,
    learned: _Learned,
    pictures: Pictures,
    finish: Callable[[], None],
) -> Run:
    """Keep one, judge it on the test rows, which are read here once, save it and tell of it.

    finish: called as soon as the model and its figures are written, so that whatever happens to
    the insights, the explanations and the page (even a crash of the process), the run is there.
    """
    splits, kept = learned.splits, _kept(shop, learned)
    gain = _gain(learned.candidates, kept)
    history = [line for c in learned.candidates.values() for line in c.fitted.history]
    write_text(shop.out / "history.csv", history_csv(history))
    on_val = {name: evaluate_predictions(c.val) for name, c in learned.candidates.items()}
    with shop.clock("trust"):
        learned = _doubting(shop, learned, kept)
    candidates, fitted = learned.candidates, learned.candidates[kept].fitted
    with shop.clock("evaluation"):
        table = _of_kept(shop, learned, kept, splits.test)
        test = fitted.model.predict_table(table)
    baseline = _baseline(shop, learned)
    evaluations, baselines = _judged(shop, test, candidates[kept], baseline)
    _write_evaluation(shop, kept, evaluations, on_val, baselines)
    write_csv(test, shop.out / "predictions.csv")
    recipe = _recipe(shop.job, learned, kept, gain)
    write_json(shop.out / "recipe.json", recipe.to_plain())
    with shop.clock("save"):
        shipped = save(fitted.model, shop.out / "model", told=recipe.strategy.to_plain()).model
    write_json(shop.out / LAST, _timings(shop).to_plain())
    finish()
    with shop.clock("insights"), _optional(shop, "insights"):
        seen = _looked(shop, learned, kept, test, table, baseline)
        write_json(shop.out / "insights.json", seen.to_plain())
    with shop.clock("explained"), _optional(shop, "explained"):
        _explain(shop, shipped, pictures)
    timings = _timings(shop)
    with _optional(shop, "timings"):
        write_json(shop.out / LAST, timings.to_plain())
    with _optional(shop, "report", "not written", " `headstart report` makes it later."):
        write_report(shop.out, pictures, shop.job.language)
    return Run(
        folder=shop.out,
        splits=splits,
        checks=learned.checks,
        fitted=fitted,
        kept=kept,
        candidates=on_val,
        counts={name: c.fitted.count for name, c in candidates.items()},
        gain=gain,
        evaluations=evaluations,
        baselines=baselines,
        timings=timings,
        left_out=(*learned.checks.left_out, *splits.left_out),
    )


def _explain(shop: Workshop, model: Model, pictures: Pictures) -> None:
    """Where the model saw what it answered, for the page."""
    for found in explain_run(shop.out, model, pictures, QUICK):
        if isinstance(found, LeftOut):
            shop.listener.stage("explained", f"left out: {found.path}: {found.reason}")


@contextmanager
def _optional(
    shop: Workshop, stage: str, lost: str = "left out", remedy: str = ""
) -> Iterator[None]:
    """Print that a stage failed, whatever the error: the model is saved, and its run finished."""
    try:
        yield
    except Exception as error:
        shop.listener.stage(stage, f"{lost}: {str(error) or type(error).__name__}{remedy}")
    except KeyboardInterrupt as error:
        done = f"the run is finished, and `headstart report {shop.out}` makes its page"
        error.args = error.args or (done,)
        raise


def _baseline(shop: Workshop, learned: _Learned) -> tuple[str, Predictions] | None:
    """What the kept model is compared with; it is not lost for want of that."""
    try:
        return train_baseline(shop, learned.ready.baseline, learned.splits)
    except Diverged as error:
        shop.listener.stage("baseline", f"left out: {error}")
        return None


def _looked(shop: Workshop, *run: Any) -> Insights:
    """What `_insights` finds; nothing, if that fails."""
    with _optional(shop, "insights"):
        return _insights(shop, *run)
    return Insights()


def _of_kept(shop: Workshop, learned: _Learned, kept: str, data: Dataset) -> FeatureTable:
    """What the kept model's backbone makes of rows; a head's are there already."""
    if kept == "head" and learned.table is not None:
        return learned.table.of(data)
    return shop.features(learned.candidates[kept].fitted, data)


def _doubting(shop: Workshop, learned: _Learned, kept: str) -> _Learned:
    """The same with the kept model's limits, found on validation."""
    plan, own = shop.job.trust, learned.candidates[kept]
    few = remembered(learned.splits.train)
    seen = _of_kept(shop, learned, kept, few) if plan.false_alarms else None
    model = limited(own.fitted.model, plan, own.table, seen)
    shop.listener.stage("trust", limits_said(plan, model.limits))
    doubting = replace(own, fitted=replace(own.fitted, model=model))
    return replace(learned, candidates=learned.candidates | {kept: doubting})


def _insights(
    shop: Workshop,
    learned: _Learned,
    kept: str,
    test: Predictions,
    table: FeatureTable,
    baseline: tuple[str, Predictions] | None,
) -> Insights:
    """What the report tells beside the figures."""
    model, plain = learned.candidates[kept].fitted.model, learned.table
    parts = {"train": learned.splits.train, "val": learned.splits.val, "test": learned.splits.test}
    on_val = {name: c.val for name, c in learned.candidates.items()}
    on_test = {kept: test} | dict([baseline] if baseline else [])
    scaled = model.limits.temperature != 1.0
    found = Insights(
        temperature_scaling(
            test, model.limits.temperature, len(learned.splits.val) if scaled else 0
        ),
        doubts(model, shop.job.trust, test, table.x),
        gains(kept, on_val, "val") + gains(kept, on_test, "test"),
    )
    if plain is None:  # a network from scratch has no features that were computed once
        return found
    chosen = learned.candidates["head"].fitted.chosen
    l2 = float(chosen["l2"]) if chosen["head"] == "logistic" else USUAL_L2  # ridge's is another
    where = {id: name for name, part in parts.items() for id in part.ids}
    return replace(
        found,
        learning_curve=learning_curve(
            l2, plain.of(learned.splits.train), plain.of(learned.splits.val)
        ),
        mistakes=mistakes(l2, plain),
        outliers=outliers(plain),
        map=embedding_map(plain, where),
    )


def _checked(shop: Workshop, data: Dataset) -> tuple[Dataset, Checks]:
    """The rows to work with and what was found, written down before anything is refused."""
    shop.listener.stage("checks", f"looking at {len(data):,} files")
    threads = shop.context.runtime.decode_threads
    progress = partial(shop.listener.progress, "checks")
    seen = survey(data, store=shop.job.store, threads=threads, progress=progress)
    checks = check(data, seen, threads=threads)
    write_json(shop.out / "checks.json", checks.to_plain())
    if checks.warning:
        shop.listener.stage("warning", checks.warning)
    rows = good_rows(data, seen, shop.job.checks)
    shop.job.recipe.check_classes(len(rows.classes))
    split(rows, shop.job.split, together=checks.exact)  # refuses before any feature is computed
    said = f"{len(rows):,} images, {len(rows.classes)} classes: {counts(rows)}"
    shop.listener.stage("data", said)
    return rows, checks


def _split(shop: Workshop, rows: Dataset, checks: Checks) -> Splits:
    with shop.clock("split"):
        _refuse_changed(shop, rows)
        splits = split(rows, shop.job.split, together=checks.together)
        write_json(shop.out / "checks.json", checks.to_plain())
        write_text(shop.out / "splits.csv", splits_csv(rows, splits))
    shop.listener.stage("split", counted(splits))
    return splits


def _refuse_changed(shop: Workshop, rows: Dataset) -> None:
    """Raises SpecError if the run goes on with training that began with other pictures.

    Without a checkpoint everything is computed anew, so unless --resume is given, nothing is lost.
    """
    out = shop.out
    if not (shop.job.resume or any(out.glob(CHECKPOINTS + ".safetensors"))):
        return
    now = dict(zip(rows.ids, (content.file for content in rows.contents), strict=True))
    if changed := changed_files(recorded_digests(out), now):
        raise SpecError(
            f"A run goes on with the pictures that it began with, but {len(changed):,} are not "
            f"what they were when {out} was begun: {first_few(changed)}. Put them back as they "
            f"were, or name another --out."
        )


def _kept(shop: Workshop, learned: _Learned) -> str:
    """The candidate that is saved: the best, unless one was asked for."""
    candidates = learned.candidates
    forced = shop.job.strategy == "finetune" and "finetune" in candidates
    kept = "finetune" if forced else learned.best
    if len(candidates) > 1:
        shown = ", ".join(f"{name} {c.merit[0]:.3f}" for name, c in candidates.items())
        why = _why_kept(shop.job, kept, learned.best)
        shop.listener.stage("kept", f"{kept} (accuracy on validation: {shown}){why}")
    return kept


def _why_kept(job: Job, kept: str, best: str) -> str:
    """A word on a candidate that is kept although another was better."""
    if kept == best:
        return ""
    why = f"; the {best} was better, but strategy {job.strategy} was asked for, by flag or recipe"
    if job.finetune.adversarial:
        return why
    return f"{why}: --strategy auto keeps the better one"


def _gain(candidates: dict[str, Candidate], kept: str) -> Estimate | None:
    """How much more accurate the kept one is on validation than the other, if there is another."""
    others = [c.val for name, c in candidates.items() if name != kept]
    if not others or not len(others[0]):
        return None
    return compare(candidates[kept].val, others[0])


def _judged(
    shop: Workshop,
    test: Predictions,
    kept: Candidate,
    baseline: tuple[str, Predictions] | None,
) -> tuple[dict[str, Evaluation], dict[str, Evaluation]]:
    """What was kept, on test and on validation; and what it is compared with, on test."""
    majority = kept.fitted.model.majority
    said = {"test": test, "val": kept.val}
    evaluations = {part: evaluate_predictions(p, majority=majority) for part, p in said.items()}
    beside = dict([baseline]) if baseline else {}
    return evaluations, {n: evaluate_predictions(p, majority=majority) for n, p in beside.items()}


def _write_evaluation(
    shop: Workshop,
    kept: str,
    evaluations: dict[str, Evaluation],
    on_val: dict[str, Evaluation],
    baselines: dict[str, Evaluation],
) -> None:
    found = RunEvaluation(
        test=evaluations["test"],
        val=evaluations["val"],
        kept=kept,
        candidates_on_val=on_val,
        baselines_on_test=baselines,
    )
    write_json(shop.out / "evaluation.json", found.to_plain())


def _recipe(job: Job, learned: _Learned, kept: str, gain: Estimate | None) -> RunRecipe:
    """Every choice, "auto" resolved, and what made it; nothing that differs by the hour."""
    backbone, candidates = learned.ready.backbone, learned.candidates
    return RunRecipe(
        data=job.source,
        data_licence=job.data_licence,
        backbone=job.backbone,
        weights=WeightsOrigin(job.weights, backbone.card.origin, backbone.fingerprint()),
        strategy=KeptStrategy(job.strategy, kept, gain),
        recipe=Settings.of(job.recipe.resolved(backbone)),
        finetune=Settings.of(learned.ready.settings) if job.strategy != "extract" else None,
        augment=Settings.of(job.augment),
        trust=Settings.of(job.trust),
        baseline=job.baseline,
        chosen={name: Settings.of(c.fitted.chosen) for name, c in candidates.items()},
        tried=tuple(Settings.of(trial) for c in candidates.values() for trial in c.fitted.path),
        split=Settings.of(job.split),
        checks=Settings.of(job.checks),
        seed=job.split.seed,
        language=job.language,
        device=job.runtime.resolved().device,
        phases={name: _phase(c.fitted.count) for name, c in candidates.items()},
        versions={"python": sys.version.split()[0], **versions()},
    )


def _phase(count: Count) -> PhaseSize:
    return PhaseSize(
        frozen=ParameterCount(count.frozen, count.frozen_tensors),
        trainable=ParameterCount(count.trainable, count.trainable_tensors),
    )


def _timings(shop: Workshop) -> Timings:
    seconds, tables = shop.clock.seconds, shop.tables
    fresh = [t for t in tables if t.forwards >= len(t) > 0 and t.seconds]  # none from the store
    largest = max(fresh, key=len, default=None)
    return Timings(
        seconds=dict(seconds),
        total_seconds=round(sum(seconds.values()), 3),
        examples_per_second=round(len(largest) / largest.seconds, 1) if largest else None,
        backbone_forwards=sum(t.forwards for t in tables),
        store_hits=sum(t.hits for t in tables),
        peak_rss_bytes=peak_rss_bytes(),
        machine=machine(),
    )
