"""Compare pretrained backbones on a sample of the data, by a head that takes no epochs.

Each backbone gives features of the same rows. A solved head is cross-validated on them, and LogME
(`evaluation.logme`) is computed. Nothing is fine-tuned, and no test part is read.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.context import RunContext
from headstart.base.errors import DataError, HeadstartError, SpecError, sentence_of
from headstart.base.notebook import html_table, text_table
from headstart.base.runtime import Runtime
from headstart.base.values import Record, check_seed, later
from headstart.data.content import prepared
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.sampling import sample
from headstart.evaluation.evaluation import Estimate, compare, decimals, merit_of
from headstart.evaluation.logme import logme_of
from headstart.features.choosing import timed
from headstart.features.engine_table import FrozenPart
from headstart.features.extract import FeatureTable, all_there, extract
from headstart.features.loading import load_for_features
from headstart.heads.families import head_for
from headstart.heads.fit import FEWEST as FEWEST
from headstart.heads.fit import cross_validate
from headstart.heads.head import Rows, check_counts, counted
from headstart.heads.specs import HeadSpec, UsualSpec
from headstart.models.specs import FeatureExtraction
from headstart.targets.predictions import Predictions
from headstart.targets.target import Target

TIMED = 16  # examples on which a network is timed
STAGE = "search"


@dataclass(frozen=True)
class SearchPlan:
    """What `headstart search` compares."""

    backbones: Annotated[
        tuple[str, ...],
        "networks to compare, as source:id; without it the packaged ones that are installed",
    ] = ()
    rows: Annotated[int, "examples to compare by, drawn with the shares of the labels"] = 500
    seed: Annotated[int, "another seed draws other examples"] = 0

    def __post_init__(self) -> None:
        check_counts(rows=self.rows)
        check_seed(self.seed)
        if self.rows < FEWEST:
            raise SpecError(f"rows is {FEWEST} or more, to cross-validate on; got {self.rows}.")


@dataclass(frozen=True)
class SearchLimit:
    """What a search may take. seconds: of the search; a backbone is not begun where the one before
    it shows that it would end later. ms: of a network for an example, to be chosen."""

    seconds: float = np.inf
    ms: float = np.inf


NO_LIMIT = SearchLimit()


@dataclass(frozen=True)
class TriedBackbone(Record):
    """A backbone and what was measured of it on the sample.

    merit: the target's merit in cross-validation. rank: its sort key, higher is better. gain: mean
    score of a row minus that of the best backbone, paired, with its interval; 0 for the best.
    logme: evidence of a row in nats; None if undefined. ms: milliseconds of the network for an
    example, without decoding. megabytes: of the weights. chosen: the head and its strength.
    """

    name: str
    merit: Estimate
    rank: tuple[float, ...]
    gain: Estimate
    logme: float | None
    ms: float
    megabytes: float
    licence: str
    chosen: dict[str, Any]
    fingerprint: str = ""


@dataclass(frozen=True, repr=False)
class BackboneSearch(Record):
    """Backbones compared on the same rows, the best first.

    merit_name: of the merit, such as "accuracy". rows: of the sample. chosen: what `--backbone
    auto` takes: the best, or a faster one that is not worse by more than the interval of their
    difference. left_out: backbones that could not be tried, with the reason. most_ms: what the
    chosen one was to take at most, if a faster one was tried; 0 for no limit. unread: files of the
    data that were not used, with the reason.

    >>> hs.search("photos").tried[0].name  # doctest: +SKIP
    'packaged:efficientnet_lite2'
    """

    merit_name: str
    rows: int
    seed: int
    chosen: str
    tried: tuple[TriedBackbone, ...]
    left_out: tuple[LeftOut, ...] = ()
    most_ms: float = field(default=0.0, metadata=later())
    unread: tuple[LeftOut, ...] = field(default=(), metadata=later())

    def __repr__(self) -> str:
        return text_table([*self.table(), *self._others()])

    def _repr_html_(self) -> str:
        header, *rows = self.table()
        return html_table([*rows, *self._others()], header)

    def table(self) -> list[tuple[str, ...]]:
        """Return rows to print, in 80 columns for names of up to 27 characters."""
        header = ("backbone", self.merit_name.replace("_", " "), "LogME", "ms", "MB", "licence")
        return [header, *map(_line, self.tried)]

    @property
    def why(self) -> str:
        """The reason for `chosen`, as a sentence."""
        best = self.tried[0]
        if self.chosen == best.name:
            return f"{best.name} is the best of those tried."
        own = next(tried for tried in self.tried if tried.name == self.chosen)
        if 0 < self.most_ms < best.ms:
            return (
                f"{own.name} takes {own.ms:.3g} ms, and {best.name}, the best, {best.ms:.3g} ms: "
                f"more than the {self.most_ms:.3g} ms that the budget has for an example."
            )
        return (
            f"{own.name} takes {own.ms:.3g} ms in place of {best.ms:.3g} ms, and {best.name} is "
            f"not better by more than chance on {self.rows:,} rows."
        )

    def _others(self) -> list[tuple[str, ...]]:
        lost = [(str(item.path), f"left out: {item.reason}") for item in self.left_out]
        return [*lost, ("chosen", self.chosen)]


@dataclass(frozen=True, eq=False)
class HeadResult:
    """A solved head's answers to each row by folds that did not have it. chosen: its settings."""

    predictions: Predictions
    chosen: dict[str, Any]

    @property
    def rank(self) -> tuple[float, ...]:
        own = self.predictions
        return tuple(map(float, own.target.merit(own.outputs, own.labels)))

    @property
    def merit(self) -> Estimate:
        return merit_of(self.predictions)


def search_backbones(
    data: Dataset,
    names: Sequence[str],
    plan: SearchPlan,
    context: RunContext,
    spec: FeatureExtraction | None = None,
    limit: SearchLimit = NO_LIMIT,
) -> BackboneSearch:
    """Compare backbones on a sample of checked rows, whose groups hold copies together.

    spec: how examples are prepared; its head is not used. limit: of the time, for which the first
    is tried in any case. A backbone that cannot be loaded or used
    is left out and named; raises its error if no backbone is left, DataError for too few rows.
    """
    rows = sample(data, plan.rows, plan.seed)
    tried, errors = list[tuple[TriedBackbone, Predictions]](), dict[str, Exception]()
    began, longest = time.monotonic(), 0.0
    for name in dict.fromkeys(names):
        begun = time.monotonic() - began
        if tried and begun + longest > limit.seconds:
            errors[name] = SpecError("the budget has no time to try it")
            context.listener.stage(STAGE, f"{name} left out: {errors[name]}")
            continue
        try:
            tried.append(try_backbone(name, rows, context, spec or FeatureExtraction()))
        except (HeadstartError, OSError, ImportError, RuntimeError) as error:
            errors[name] = error
            context.listener.stage(STAGE, f"{name} left out: {sentence_of(error)}")
            continue
        context.listener.stage(STAGE, _told(tried[-1][0], rows.target))
        longest = max(longest, time.monotonic() - began - begun)
    if not tried:
        raise next(iter(errors.values()))
    left_out = tuple(LeftOut(name, sentence_of(error)) for name, error in errors.items())
    ranked = _ranked(tried)
    merit, chosen = rows.target.merit_name, _choice(ranked, limit.ms)
    most = limit.ms if np.isfinite(limit.ms) else 0.0
    return BackboneSearch(merit, len(rows), plan.seed, chosen, ranked, left_out, most)


def try_backbone(
    name: str, rows: Dataset, context: RunContext, spec: FeatureExtraction
) -> tuple[TriedBackbone, Predictions]:
    """Measure one backbone on all rows; its `gain` is not known yet."""
    network = load_for_features(name, "pretrained", context.runtime, spec.size)
    network = spec.prepared(network)
    table = features_of(network, rows, context)
    result = cross_validated_head(table)
    logme = logme_of(Rows(table.x, table.y, result.predictions.target))
    seconds = seconds_each(network, table, rows, context.runtime)
    tried = TriedBackbone(
        name=name,
        merit=result.merit,
        rank=result.rank,
        gain=Estimate(0.0, 0.0, 0.0, len(result.predictions)),
        logme=round(logme, 6) if np.isfinite(logme) else None,
        ms=float(f"{1000 * seconds:.3g}"),
        megabytes=round(weight_bytes(network) / 1e6, 1),
        licence=network.card.licence,
        chosen=result.chosen,
        fingerprint=network.fingerprint(),
    )
    return tried, result.predictions


def features_of(
    network: Backbone | Frozen, rows: Dataset, context: RunContext, stage: str = STAGE
) -> FeatureTable:
    """Return the features of all rows; raises DataError if a file has changed meanwhile."""
    table = extract(
        network,
        rows,
        store=context.store,
        runtime=context.runtime,
        listener=context.listener,
        stage=stage,
        engines=context.engines,
    )
    return all_there(table)


def cross_validated_head(table: FeatureTable) -> HeadResult:
    """Return the out-of-fold answers of a solved head, its strength chosen by the same folds.

    Rows of a group are held out together. Raises DataError for too few rows.
    """
    spec, target = solved_head(table.target.fitted(table.y))
    rows = replace(table, target=target)
    found = cross_validate(spec, rows, rows)
    if found is None:
        weighed = counted(table)
        some = " with a weight above 0" if weighed is not table else ""
        raise DataError(
            f"A head is cross-validated on {FEWEST} rows or more, of two labels or more, each in "
            f"two groups; there are {len(weighed.y)} rows{some}. Add examples."
        )
    out, answers = np.flatnonzero(found.held_out), found.answers_of(target)
    predictions = Predictions(tuple(table.ids[i] for i in out), answers, table.y[out], target)
    return HeadResult(predictions, {"head": spec.family, **found.best})


def solved_head(target: Target) -> tuple[HeadSpec, Target]:
    """Return the first family of solved heads for a target, and the target with a loss it solves.

    A loss that only training by epochs minimises, such as the focal one, is replaced by the usual
    one. Raises SpecError for a target that no solved head can predict.
    """
    for own in (target, type(target).load(target.settings())):
        head, _ = head_for(UsualSpec(), own)
        if not head.by_epochs:
            return head, own
    raise SpecError(
        f"Backbones are compared by a head that takes no epochs, and there is none for "
        f"{target.noun}: train with one backbone after the other, and `headstart compare` the runs."
    )


def seconds_each(
    network: Backbone | Frozen, table: FeatureTable, rows: Dataset, runtime: Runtime
) -> float:
    """Return the seconds of the network for an example, by the engine that made `table`."""
    files = rows.take(range(min(TIMED, len(rows)))).files
    examples = [prepared(network.card.input, file) for file in files]
    own = replace(runtime, device="cpu") if isinstance(network, Frozen) else runtime
    assert table.engine is not None  # it was extracted
    return timed(table.engine, FrozenPart(network, own), examples).seconds


def weight_bytes(network: Backbone | Frozen) -> int:
    """Return the bytes of a network's weights and statistics."""
    if isinstance(network, Frozen):
        return sum(array.nbytes for array in network.weights.values())
    return sum(int(tensor.nbytes) for tensor in network.module.state_dict().values())


def _ranked(tried: Sequence[tuple[TriedBackbone, Predictions]]) -> tuple[TriedBackbone, ...]:
    """Return the backbones, the best first, each compared with the best; ties go to LogME."""

    def rank(item: tuple[TriedBackbone, Predictions]) -> tuple[float, ...]:
        own = item[0]
        return (*own.rank[:1], -np.inf if own.logme is None else own.logme, -own.ms)

    (best, best_answers), *others = sorted(tried, key=rank, reverse=True)
    compared = [replace(own, gain=compare(p, best_answers)) for own, p in others]
    return (best, *compared)


def _choice(ranked: Sequence[TriedBackbone], most_ms: float = np.inf) -> str:
    """Return the fastest of the backbones that are not worse than the best beyond chance.

    If the best takes more than `most_ms`, the best that does not; the fastest if all do.
    """
    allowed = [tried for tried in ranked if tried.ms <= most_ms]
    if not allowed:
        return min(ranked, key=lambda tried: tried.ms).name
    if allowed[0] is not ranked[0]:  # their gains are over another one
        return allowed[0].name
    tied = [tried for tried in allowed if tried.gain.high >= 0]
    return min(tied, key=lambda tried: tried.ms).name


def _line(tried: TriedBackbone) -> tuple[str, ...]:
    evidence = "n/a" if tried.logme is None else f"{tried.logme:.3f}"
    speed, size = f"{tried.ms:.3g}", f"{tried.megabytes:.0f}"
    return (tried.name, _short(tried.merit), evidence, speed, size, tried.licence)


def _short(estimate: Estimate) -> str:
    """Format an estimate, its interval with one decimal less: 0.853 [0.70, 0.94]."""
    ends = [v for v in (estimate.value, estimate.low, estimate.high) if np.isfinite(v)]
    digits = decimals(ends)
    value = f"{estimate.value:.{digits}f}"
    if np.isnan(estimate.low):
        return value
    low, high = (f"{end:.{max(0, digits - 1)}f}" for end in (estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _told(tried: TriedBackbone, target: Target) -> str:
    merit = target.merit_name.replace("_", " ")
    return f"{tried.name}: {merit} {_short(tried.merit)}, {tried.ms:.3g} ms an example"
