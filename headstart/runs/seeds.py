"""Train the same job with several seeds and measure the spread of its metrics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.atomic import make_folder, write_json
from headstart.base.errors import MissingPackage, SpecError
from headstart.base.listener import Listener
from headstart.base.values import Record, Settings, fingerprint, read_value
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.findings import Findings
from headstart.evaluation.evaluation import Evaluation, decimals, evaluate
from headstart.heads.specs import LogisticSpec
from headstart.reporting.run_files import RunEvaluation, RunRecipe
from headstart.runs.folder import changed_files, first_few, is_finished, recorded_digests
from headstart.runs.job import AUTO, Job
from headstart.runs.run import train
from headstart.targets.predictions import predictions_file, read_predictions

SEEDS = "seeds.json"  # the settings, written first; runs and spread are added at the end
SEEDED = ("recipe", "finetune", "split")  # specs of a job with a seed
# Fields of a job that do not change its results.
BESIDE = {
    *("runtime", "store", "checkpoint_s", "resume", "language", "insights", "budget"),
    *("given", "parent"),
}
LATER = {"folds", "shots", "draws", "members"}  # that earlier folders lack; left out if usual
MEASURES = {"accuracy": (0.0, 1.0), "balanced_accuracy": (0.0, 1.0), "log_loss": (0.0, np.inf)}


@dataclass(frozen=True)
class Moments(Record):
    """A metric over n runs. sd: with n - 1. low, high: the 95 % interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float
    least: float
    most: float
    n: int


@dataclass(frozen=True)
class Spread(Record):
    """The spread of test metrics over runs; None if a run lacks the metric."""

    accuracy: Moments | None
    balanced_accuracy: Moments | None
    log_loss: Moments | None


@dataclass(frozen=True)
class MetricSpread(Record):
    """The spread of a target's test metrics over runs; None if a run lacks the metric."""

    metrics: dict[str, Moments | None]


@dataclass(frozen=True, eq=False, repr=False)
class SeedRun:
    """A finished run of one seed. trained: False for a run that was finished before."""

    seed: int
    folder: Path
    test: Evaluation
    trained: bool
    left_out: tuple[LeftOut, ...]

    def __repr__(self) -> str:
        return f"SeedRun({str(self.folder)!r}: {self.test.main} on test)"


@dataclass(frozen=True)
class SeedEvaluation(Record):
    seed: int
    folder: str
    test: Evaluation


@dataclass(frozen=True)
class SeedRuns(Record):
    """The content of seeds.json. `asked` holds all settings that affect results, except seeds."""

    asked: Settings
    runs: tuple[SeedEvaluation, ...] = ()
    spread: Spread | MetricSpread | None = None


def spread_of(evaluations: Sequence[Evaluation]) -> Spread | MetricSpread:
    """Return the `spread` of classes, or that of another target's metrics."""
    if evaluations[0].classes:
        return spread(evaluations)
    names = evaluations[0].target.shown or tuple(evaluations[0].metrics)
    return MetricSpread({name: _moments(evaluations, name) for name in names})


def spread(evaluations: Sequence[Evaluation]) -> Spread:
    """Return mean, standard deviation and range over the runs of several seeds.

    The interval is Student's, for the mean over all seeds on this data. It is not an interval of
    the accuracy on new data, since runs share training and test rows; for that, see the interval
    of a single run. Raises SpecError for fewer than two runs.
    """
    if len(evaluations) < 2:
        raise SpecError(f"A spread is of two runs or more; got {len(evaluations)}.")
    return Spread(*(_moments(evaluations, name) for name in MEASURES))


def spread_rows(spread: Spread | MetricSpread) -> list[tuple[str, ...]]:
    """Return a table to print: a header, then one row per metric."""
    rows: list[tuple[str, ...]] = [
        ("on test", "runs", "mean", "deviation", "95 % of the mean", "least", "most")
    ]
    several = isinstance(spread, MetricSpread)
    if isinstance(spread, MetricSpread):
        found = spread.metrics
    else:
        found = {name: getattr(spread, name) for name in MEASURES}
    for name, m in found.items():
        shown = ("", *["n/a"] * 5)
        if m is not None:
            d = decimals([m.least, m.most]) if several else 3
            known = f"[{m.low:.{d}f}, {m.high:.{d}f}]" if m.sd else "n/a"  # equal values by chance
            shown = (str(m.n), f"{m.mean:.{d}f}", f"{m.sd:.{d}f}", known)
            shown += (f"{m.least:.{d}f}", f"{m.most:.{d}f}")
        rows.append((name.replace("_", " "), *shown))
    return rows


def as_ensemble(job: Job, seeds: int) -> Job:
    """Return the job that averages fine-tunings of so many seeds, in one run.

    seeds: 1 for the number that the job has. Raises SpecError for a job that cannot average.
    """
    if seeds == job.members == 1:
        raise SpecError(
            "--ensemble averages fine-tunings with several seeds: say how many, as in --seeds 3."
        )
    return replace(job, members=seeds if seeds > 1 else job.members)


def train_seeds(
    data: Dataset,
    out: Path,
    job: Job | None = None,
    seeds: int = 5,
    listener: Listener | None = None,
) -> tuple[SeedRun, ...]:
    """Train `job` several times, all its seeds incremented each time, into folders out/seed-S.

    S is the seed of the split. A repeated call trains only unfinished runs. Raises SpecError
    unless `out` is new or was made by this function for the same job (except seeds) and data, and
    the errors of `train`.
    """
    if seeds < 2:
        raise SpecError(f"A spread is of two seeds or more; got {seeds}.")
    if job is not None and job.backbone == AUTO:
        raise SpecError(
            "Runs of several seeds differ in nothing else, and --backbone auto might choose "
            "another network for each: name one. `headstart search DATA` compares them."
        )
    if job is not None and job.budget_s:
        raise SpecError(
            "Runs of several seeds differ in nothing else, and a budget may plan other epochs for "
            "each: name --epochs, and leave --budget out."
        )
    if job is not None and job.resume and not (out / SEEDS).is_file():
        raise SpecError(
            f"--resume goes on with runs of several seeds; there are none in {out}. Leave the flag "
            f"out to begin them there."
        )
    job, listener = job or Job(), listener or Listener()
    jobs = {out / f"seed-{j.split.seed}": j for j in _moved(job, seeds)}
    _check_folder(out, job, data)
    finished = {folder for folder, own in jobs.items() if _is_finished(folder, own)}
    _check_agree(sorted(finished))
    make_folder(out)
    asked = _asked(job, data)
    write_json(out / SEEDS, SeedRuns(asked).to_plain())
    runs = []
    for i, (folder, own) in enumerate(jobs.items(), start=1):
        there = ", finished already" if folder in finished else ""
        listener.stage("seed", f"{own.split.seed} ({i} of {seeds}){there}")
        left_out = _left_out(folder) if there else train(data, folder, own, listener).left_out
        _check_examples(next(iter(jobs)), folder)
        runs.append(SeedRun(own.split.seed, folder, _test(folder), not there, left_out))
    _check_agree(list(jobs))
    judged = tuple(SeedEvaluation(r.seed, r.folder.name, r.test) for r in runs)
    whole = SeedRuns(asked, judged, spread_of([run.test for run in runs]))
    write_json(out / SEEDS, whole.to_plain())
    return tuple(runs)


def _moments(evaluations: Sequence[Evaluation], name: str) -> Moments | None:
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingPackage(
            "scipy", purpose="A spread over seeds", command="pip install scipy"
        ) from error
    estimates = [getattr(e, name) for e in evaluations]
    if None in estimates:
        return None
    values, n = np.array([e.value for e in estimates]), len(estimates)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * sd / n**0.5
    ends = MEASURES.get(name, (-np.inf, np.inf))
    low, high = (float(v) for v in np.clip([mean - half, mean + half], *ends))
    return Moments(mean, sd, low, high, float(values.min()), float(values.max()), n)


def _moved(job: Job, seeds: int) -> Iterator[Job]:
    for i in range(seeds):
        specs = {name: getattr(job, name) for name in SEEDED}
        moved = {name: replace(spec, seed=spec.seed + i) for name, spec in specs.items()}
        yield replace(job, **moved, resume=False)  # an unfinished run resumes; a new one is allowed


def _asked(job: Job, data: Dataset) -> Settings:
    """Return all settings that decide the results, except the seeds."""
    labels = data.target.plain(data.labels)
    rows = data.ids, labels, data.classes, data.parts, data.groups, data.strata
    named = fingerprint(*rows, *data.counting)
    asked = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in BESIDE}
    usual = {name: getattr(Job(), name) for name in LATER}
    asked = {name: value for name, value in asked.items() if usual.get(name, ...) != value}
    if job.shots and "head" in job.given and job.recipe.head.family == LogisticSpec.family:
        asked["head_named"] = True  # else other heads are tried beside it
    if job.tta == "none":  # earlier versions, whose folders are gone on with, had no such setting
        del asked["tta"]
    return Settings(_seedless(Settings.of(asked | {"rows": named}).values))


def _seedless(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    return {k: _seedless(v) for k, v in plain.items() if k != "seed"}


def _check_folder(out: Path, job: Job, data: Dataset) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        there = read_value(out / SEEDS, SeedRuns).asked
    except (OSError, ValueError) as error:
        raise SpecError(
            f"--out names a new folder, or one that runs of several seeds were begun in; {out} is "
            f"neither. Nothing was changed: name another folder."
        ) from error
    now = dict(_asked(job, data).values)
    if there.values.get("source") == "":  # earlier versions did not know where rows were read from
        now["source"] = ""
    if odd := _differing(there.values, now):
        raise SpecError(
            f"Runs of several seeds differ in nothing else, but {out} was begun otherwise: in "
            f"{odd}. Ask for the same as then, or name another --out."
        )


def _is_finished(folder: Path, job: Job) -> bool:
    """Whether the folder holds a finished run; raises SpecError if its seeds are not the job's."""
    if not is_finished(folder):
        return False
    recipe = _recipe(folder)
    for name in SEEDED:
        asked: Settings | None = getattr(recipe, name)
        wanted, there = getattr(job, name).seed, asked.values.get("seed") if asked else None
        if there not in (wanted, None):
            raise SpecError(
                f"{folder} was trained with {name} seed {there}, where {wanted} is wanted. Ask for "
                f"the same seeds as then, or name another --out."
            )
    return True


def _check_agree(folders: Sequence[Path]) -> None:
    """Raise SpecError unless the recipes of these finished runs differ only in seeds."""
    settings = [_settings(_recipe(folder)) for folder in folders]
    for folder, own in zip(folders, settings, strict=True):
        if odd := _differing(settings[0], own):
            raise SpecError(
                f"Runs of several seeds differ in nothing else, but {folder} differs from "
                f"{folders[0].name} in {odd}. Move one of them away, and run it again."
            )


def _check_examples(first: Path, folder: Path) -> None:
    """Raise SpecError if two runs recorded different pictures."""
    if not (now := recorded_digests(folder)):
        return
    if changed := changed_files(recorded_digests(first), now):
        raise SpecError(
            f"Runs of several seeds differ in nothing else, but the examples of {folder} are not "
            f"those of {first.name}: {first_few(changed)}. Move one of them away, and run it again."
        )


def _settings(recipe: RunRecipe) -> Any:
    """Return the requested settings of a recipe without results, which may depend on the seed."""
    asked = {f.name for f in fields(Job)} | {"data", "head_named"}
    plain = {k: v for k, v in recipe.to_plain().items() if k in asked}
    tuned = dict(plain["finetune"] or {})
    tuned.pop("cut_precision", None)  # "auto" is resolved by the free disk space
    if recipe.view_search is not None:  # `--augment auto` chose it from the rows of this split
        plain["augment"] = "auto"
    return _seedless(plain | {"finetune": tuned, "strategy": recipe.strategy.asked})


def _differing(one: Any, other: Any, name: str = "") -> str:
    """Return the dotted name of the first setting that differs; "" if none does."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return "" if one == other else name or "job"
    for key in sorted({*one, *other}):
        if odd := _differing(one.get(key), other.get(key), f"{name}.{key}".lstrip(".")):
            return odd
    return ""


def _recipe(folder: Path) -> RunRecipe:
    with _read(folder):
        return read_value(folder / "recipe.json", RunRecipe)


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    """Turn errors of reading a finished run's file into SpecError."""
    try:
        yield
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise SpecError(
            f"{folder} should hold a finished run, but a file of it can't be read ({error}). Move "
            f"the folder away, and run the same command again."
        ) from error


def _test(folder: Path) -> Evaluation:
    """Evaluate a run from its predictions.csv, which restores its scores exactly.

    Of boxes the recorded figures are taken: their intervals draw groups, which that file lacks.
    """
    with _read(folder):
        there = read_value(folder / "evaluation.json", RunEvaluation)
        if there.test.target.listing:
            return there.test
        predictions = read_predictions(predictions_file(folder), there.test.target)
        return evaluate(predictions, fitted=there.test.target, folds=bool(there.folds))


def _left_out(folder: Path) -> tuple[LeftOut, ...]:
    with _read(folder):
        checks = read_value(folder / "checks.json", Findings)
        return (*checks.unreadable, *checks.left_out)
