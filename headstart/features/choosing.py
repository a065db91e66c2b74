"""Choose the engine that runs a frozen backbone, by timing engines on a few of the user's examples.

The usual engine, ONNX Runtime in float32, is timed first. Another one is opened only if the work
that is left is so long that opening it can pay (PAYS_FROM_S), and is taken only if it is clearly
faster (MARGIN). A reduced precision must also keep, on the data itself, the features' directions
(LEAST_COSINE) and the score of a head in cross-validation (MOST_LOST); otherwise the next best
engine is taken. A run chooses once for each backbone; a store remembers what was measured.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.inputs import Batch
from headstart.base.context import RunContext
from headstart.base.engine_choice import EngineChoice, EngineChoices
from headstart.base.errors import Mismatch, install_command
from headstart.base.listener import Listener
from headstart.base.runtime import Runtime, bfloat16_processor
from headstart.base.store import Store
from headstart.base.threads import ordered_map
from headstart.base.values import fingerprint
from headstart.data.content import prepared
from headstart.data.dataset import CheckedFile, Dataset
from headstart.features.batches import batches, features_by
from headstart.features.engine_records import record, record_path, recorded
from headstart.features.engine_table import ENGINES, FrozenPart, candidates, open_engine
from headstart.features.engines import Engine, Features, cosines
from headstart.features.parts import evenly

FEW = 100  # rows below which nothing is measured: any engine is done at once
TIMED = 16  # examples in a pass that is timed
PASSES = 3  # the fastest of them counts; the first of all warms up and does not
ENOUGH_S = 0.5  # seconds of timing an engine after which no further pass begins
SAMPLED = 64  # files looked up in the store
STORED = 0.5  # share of them from which on an engine's stored features decide for it
CHECKED = 256  # examples on which a reduced precision is compared with float32, at most,
CHECKED_S = 5.0  # but as many as the exact engine computes in this time,
CHECKED_LEAST = 32  # and at least so many
# The smallest cosine of any of them. Measured with OpenVINO in bfloat16: ResNet50 and ViT-S 0.9999;
# pretrained EfficientNet-Lite0 on solar cells 0.978 (0.997 on average), where the mean accuracy of
# a head stays, but 7 % of its answers change: that is no rounding, and has to be asked for.
LEAST_COSINE = 0.999
MOST_LOST = 0.01  # share of the head's score; 1 of 100 right answers
MARGIN = 0.9  # of the usual engine's time: a smaller gain is within the noise of timing

# Seconds of work from which on opening an engine pays. Compiling takes OpenVINO 1 to 15 s. In
# bfloat16 it is 2 to 5 times as fast as the usual engine; in float32 1.5 times, and mostly no
# faster.
PAYS_FROM_S = {"openvino-bfloat16": 8.0, "torch-bfloat16": 8.0, "openvino-float32": 60.0}
NAMED_FROM_S = 30.0  # seconds of work from which on an engine that is not installed is named


@dataclass(frozen=True, eq=False)
class EngineRequest:
    """One extraction, as the choice of its engine needs it.

    rows: examples and views to be computed if nothing is stored. identity: the fingerprint of the
    backbone's weights and preparation. stored: (choice, files) -> share of the files whose features
    by that engine are stored. made: the choices of this run.
    """

    network: FrozenPart
    data: Dataset
    rows: int
    identity: str
    store: Store | None
    stored: Callable[[EngineChoice, Sequence[Path | CheckedFile]], float]
    listener: Listener
    made: EngineChoices


@dataclass(frozen=True, eq=False)
class Chosen:
    """The chosen engine; `engine` if choosing has opened it already."""

    choice: EngineChoice
    engine: Engine | None = None


@dataclass(frozen=True, eq=False)
class TimedEngine:
    """An engine that was timed. seconds: per example."""

    choice: EngineChoice
    engine: Engine
    seconds: float


@dataclass(frozen=True)
class Difference:
    """What a reduced precision changes; the fields are those of EngineChoice."""

    cosine: float
    difference: float
    score_lost: float | None
    examples: int

    @property
    def small(self) -> bool:
        lost = self.score_lost is not None and self.score_lost > MOST_LOST
        return self.cosine >= LEAST_COSINE and not lost

    def __str__(self) -> str:
        head = ""
        if self.score_lost is not None:
            worse = f"{abs(self.score_lost):.1%} {'lower' if self.score_lost >= 0 else 'higher'}"
            head = f", and a head on them scores {worse} in cross-validation"
        return (
            f"the features of {self.examples:,} examples have a cosine of {self.cosine:.4f} or "
            f"more to those of float32{head}"
        )


def chosen_engine(request: EngineRequest) -> Chosen:
    """Return the engine of one extraction: that of the run so far, or else a new choice."""
    network = request.network
    key = _key_in_run(request.identity, network.runtime)
    if key in request.made:
        return Chosen(request.made[key])
    options = candidates(network.backbone, network.runtime)
    options = options[:1] if network.backbone.card.input.answers else options
    chosen = Chosen(options[0]) if len(options) == 1 else _among(options, request)
    request.made[key] = chosen.choice
    return chosen


def choice_so_far(backbone: Backbone | Frozen, context: RunContext) -> EngineChoice | None:
    """Return the engine that a run has chosen for a backbone; None if it has not chosen yet."""
    return context.engines.get(_key_in_run(identity_of(backbone), context.runtime.resolved()))


def identity_of(backbone: Backbone | Frozen) -> str:
    """Return the fingerprint of a backbone's weights and of how its examples are prepared."""
    return fingerprint(backbone.fingerprint(), backbone.card.input.fingerprint())


def _key_in_run(identity: str, runtime: Runtime) -> str:
    return fingerprint(identity, runtime.device, runtime.engine, runtime.compute_precision)


def _among(options: Sequence[EngineChoice], request: EngineRequest) -> Chosen:
    """Return what was recorded or stored earlier, otherwise the result of measuring."""
    path = record_path(request.identity, request.network.runtime, request.store)
    if (earlier := recorded(path, options)) is not None:
        return Chosen(earlier)
    if request.rows < FEW:
        return Chosen(options[0])
    few = request.data.take(evenly(len(request.data), SAMPLED)).files
    shares = [request.stored(option, few) for option in options]
    if (most := max(shares)) >= STORED:
        return Chosen(options[shares.index(most)])
    chosen = measured(options, request, round(request.rows * (1 - most)))
    if path is not None and len(chosen.choice.rates) > 1:
        record(path, chosen.choice)
    return chosen


def measured(options: Sequence[EngineChoice], request: EngineRequest, rows: int) -> Chosen:
    """Time the engines that can pay for `rows` examples, and return the best acceptable one."""
    network, listener = request.network, request.listener
    forced = network.runtime.compute_precision != "auto"
    if isinstance(network.backbone, Frozen) and not forced:  # it answers as it was tested
        options = [option for option in options if option.precision == "float32"]
    examples, _ = sample(request, TIMED)
    if not examples:
        return Chosen(options[0])
    trials = [timed(options[0], network, examples)]
    for option in options[1:]:
        work = rows * min(trial.seconds for trial in trials)
        if work < PAYS_FROM_S.get(option.name, 0.0):
            continue
        try:
            trials.append(timed(option, network, examples))
        except (Mismatch, RuntimeError) as error:  # one that fails here is no reason to stop
            listener.stage("engine", f"{titled(option)} is not used: {error}")
    rates = {trial.choice.name: float(f"{1 / trial.seconds:.4g}") for trial in trials}
    best, found = acceptable(trials, request)
    choice = replace(best.choice, rates=rates)
    if found is not None:
        choice = replace(choice, **vars(found))
    if len(trials) > 1:
        listener.stage("engine", described(choice, request.data.noun, found))
    _name_missing(request, rows * best.seconds)
    return Chosen(choice, best.engine)


def timed(option: EngineChoice, network: FrozenPart, examples: Sequence[Batch]) -> TimedEngine:
    """Open an engine, check it and time it on prepared examples."""
    engine = open_engine(network, option)
    return TimedEngine(option, engine, seconds_each(engine, network, examples))


def seconds_each(engine: Engine, network: FrozenPart, examples: Sequence[Batch]) -> float:
    """Return an engine's seconds per example: the fastest pass over the examples after a first."""
    input = network.backbone.card.input
    ready = [batch for _, batch in batches(input, examples, engine)]
    best, spent = np.inf, 0.0
    for number in range(PASSES + 1):
        began = time.perf_counter()
        for batch in ready:
            engine(batch)
        took = time.perf_counter() - began
        if number:  # the first pass warms up
            best, spent = min(best, took), spent + took
        if spent >= ENOUGH_S:
            break
    return float(best) / len(examples)


def acceptable(
    trials: Sequence[TimedEngine], request: EngineRequest
) -> tuple[TimedEngine, Difference | None]:
    """Return the fastest trial that keeps the features, and its difference if it was measured."""
    usual = trials[0]
    forced = request.network.runtime.compute_precision != "auto"
    for trial in sorted(trials, key=lambda trial: trial.seconds):
        if trial is usual or trial.seconds > MARGIN * usual.seconds:
            break
        if trial.choice.precision == "float32" or forced:
            return trial, None
        found = difference(trial.engine, usual, request)
        if found.small:
            return trial, found
        listener, rate = request.listener, 1 / trial.seconds
        listener.stage(
            "engine",
            f"{titled(trial.choice)} ({rate:,.0f} {request.data.noun}/s) is not used, since it "
            f"changes too much: {found}; allowed are {LEAST_COSINE} and {MOST_LOST:.0%}",
        )
    return usual, None


def difference(reduced: Engine, exact: TimedEngine, request: EngineRequest) -> Difference:
    """Compare the features of a sample by an engine in a reduced precision with the exact ones."""
    count = min(CHECKED, max(CHECKED_LEAST, int(CHECKED_S / exact.seconds)))
    examples, rows = sample(request, count)
    input = request.network.backbone.card.input
    ours, theirs = (features_by(e, input, examples) for e in (reduced, exact.engine))
    off = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))
    lost = score_lost(ours, theirs, request.data.take(rows))
    least = float(cosines(ours, theirs).min())
    return Difference(least if np.isfinite(least) else -1.0, off, lost, len(examples))


def score_lost(reduced: Features, exact: Features, rows: Dataset) -> float | None:
    """Return how much lower a ridge head scores in cross-validation on reduced features.

    As a share of the score on exact features (accuracy for classes), with the same folds; None if
    there are too few labels, or no such head for the target.
    """
    from headstart.heads.families import HEADS
    from headstart.heads.fit import answers_out_of_fold
    from headstart.heads.head import Rows
    from headstart.heads.specs import RidgeSpec

    known = np.flatnonzero(rows.target.known(rows.y))
    y = rows.y[known]
    if not len(known) or not HEADS["ridge"].supports(rows.target):
        return None
    target, spec = rows.target.fitted(y), RidgeSpec(l2=(0.1,))
    scores: list[NDArray[np.float64]] = []
    for x in (exact, reduced):
        table = Rows(x[known], y, target)
        answers = answers_out_of_fold(spec, table, np.random.default_rng(0))
        if answers is None:
            return None
        missing = [np.isnan(a).reshape(len(a), -1).any(axis=1) for a in answers.values()]
        answered = ~np.any(missing, axis=0)
        taken = {name: values[answered] for name, values in answers.items()}
        scores.append(target.row_scores(taken, y[answered]))
    usual = float(np.abs(scores[0]).mean()) if len(scores[0]) else 0.0
    return float(scores[0].mean() - scores[1].mean()) / usual if usual else None


def sample(request: EngineRequest, count: int) -> tuple[list[Batch], list[int]]:
    """Return up to `count` prepared examples, evenly spread over the data, and their rows.

    Unreadable ones are left out.
    """
    rows = evenly(len(request.data), count)
    input = request.network.backbone.card.input

    def prepare(file: CheckedFile) -> Batch | None:
        try:
            return prepared(input, file)
        except (OSError, ValueError, MemoryError):  # named when the row is extracted
            return None

    threads = request.network.runtime.decode_threads
    files = request.data.take(rows).files
    made = ordered_map(prepare, files, threads=threads, ahead=count)
    both = zip(made, rows.tolist(), strict=True)
    kept = [(example, row) for example, row in both if example is not None]
    return [example for example, _ in kept], [row for _, row in kept]


def titled(choice: EngineChoice) -> str:
    """Return engine and precision for a person: "OpenVINO in bfloat16"."""
    return f"{ENGINES[choice.engine].title} in {choice.precision}"


def choice_named(name: str) -> EngineChoice:
    """Return the choice of a name such as "openvino-bfloat16"."""
    engine, _, precision = name.partition("-")
    return EngineChoice(engine, precision)


def described(choice: EngineChoice, noun: str, found: Difference | None) -> str:
    """Return the choice, its speed, that of the others and its difference, as one line."""
    others = [
        f"{titled(choice_named(name))} {rate:,.0f}"
        for name, rate in choice.rates.items()
        if name != choice.name
    ]
    line = f"{titled(choice)}, {choice.rate:,.0f} {noun}/s ({', '.join(others)})"
    return f"{line}; {found}" if found else line


def _name_missing(request: EngineRequest, work: float) -> None:
    """Name the extra `openvino` if it is not installed and would pay for `work` seconds."""
    runtime, kind = request.network.runtime, ENGINES["openvino"]
    free = (runtime.engine, runtime.compute_precision) == ("auto", "auto")
    if free and bfloat16_processor() and not kind.installed and work >= NAMED_FROM_S:
        request.listener.stage(
            "engine",
            f"this processor computes bfloat16, in which OpenVINO can be several times faster: "
            f"{install_command(kind.extra)}",
        )
