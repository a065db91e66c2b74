"""Advice on training: freeze or tune, how much to thaw, and how long it takes.

The rule of thumb is that of the lessons (little or much data, near or far from the source task:
Yosinski et al. 2014, How transferable are features in deep neural networks?). It is printed, and
the answer is measured: what is slower must be better by more than the interval of the gain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from headstart.base.errors import SpecError
from headstart.base.notebook import html_table
from headstart.base.values import Record, check_seed, later
from headstart.data.dataset import Dataset
from headstart.evaluation.backbone_search import (
    FEWEST,
    BackboneSearch,
    TriedBackbone,
    cross_validated_head,
)
from headstart.evaluation.commands import train_command
from headstart.evaluation.evaluation import Estimate, compare
from headstart.evaluation.tuning_probe import ProbeAnswers, TuningProbe
from headstart.features.extract import FeatureTable
from headstart.heads.head import check_counts, check_word
from headstart.models.specs import FineTune
from headstart.targets.predictions import Predictions

LITTLE = 1000  # rows below which data is little,
LITTLE_GROUP = 100  # or rows of the smallest class, or of the rarest label
NONE = "none"  # nothing is thawed
TRAINED = 0.7  # share of the rows that a run trains on
Place = Literal["", "near", "far", "very far"]


@dataclass(frozen=True)
class AdvicePlan:
    """What `headstart advise` measures."""

    backbones: Annotated[
        tuple[str, ...],
        "networks to compare, as source:id; without it the packaged ones that are installed",
    ] = ()
    rows: Annotated[int, "examples to measure on, drawn with the shares of the labels"] = 400
    probe_epochs: Annotated[
        int, "passes of each short fine-tuning that is measured; 0 measures none"
    ] = 5
    seed: Annotated[int, "another seed draws other examples"] = 0
    language: Annotated[Literal["en", "ru"], "language of the advice"] = "en"

    def __post_init__(self) -> None:
        check_counts(rows=self.rows, probe_epochs=self.probe_epochs or 1)
        check_word("language", self.language, ("en", "ru"))
        check_seed(self.seed)
        if self.rows < FEWEST:
            raise SpecError(f"rows is {FEWEST} or more, to cross-validate on; got {self.rows}.")


@dataclass(frozen=True)
class Measured(Record):
    """What was measured for an advice.

    place: of the data, from the source task; "" if unknown. more: mean score of a row by heads
    that had twice the rows, minus that by heads with half of the sample; None for too few. probes:
    short fine-tunings, the fastest first. why_not: the reason if there are none. seconds: to decode
    an example and run the frozen network on it.
    """

    place: str = ""
    distance: Estimate | None = None
    more: Estimate | None = None
    probes: tuple[TuningProbe, ...] = ()
    why_not: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, repr=False)
class Advice(Record):
    """What to do with a data set, and why.

    kind: of the examples, such as "image". rows: all readable ones. smallest: rows of the smallest
    class or rarest label; 0 for other targets. shares: whether the merit is a share of right
    answers. search: the backbones compared. thaw: "none" for a head alone, else the layers. words:
    the advice and its reasons, as paragraphs. flags: with which `headstart train` reads the data as
    it was read here.

    >>> advice = hs.advise("photos")  # doctest: +SKIP
    >>> print(advice)  # in words  # doctest: +SKIP
    >>> advice.thaw, advice.search.chosen, advice.measured.probes  # doctest: +SKIP
    """

    kind: str
    rows: int
    smallest: int
    shares: bool
    search: BackboneSearch
    measured: Measured
    thaw: str = NONE
    words: tuple[str, ...] = ()
    flags: tuple[str, ...] = field(default=(), metadata=later())

    @property
    def backbone(self) -> TriedBackbone:
        return next(tried for tried in self.search.tried if tried.name == self.search.chosen)

    @property
    def little(self) -> bool:
        return self.rows < LITTLE or 0 < self.smallest < LITTLE_GROUP

    @property
    def rule(self) -> str:
        """The cell of the lessons' table: "little.near", …; "" where the place is unknown."""
        place = {"": "", "near": "near"}.get(self.measured.place, "far")
        return f"{'little' if self.little else 'much'}.{place}" if place else ""

    @property
    def strategy(self) -> str:
        return "extract" if self.thaw == NONE else "auto"

    @property
    def probe(self) -> TuningProbe | None:
        """The measurement that the advice rests on: of what it thaws, or else the fastest one."""
        own = [probe for probe in self.measured.probes if probe.thaw == self.thaw]
        return next(iter([*own, *self.measured.probes]), None)

    @property
    def head_seconds(self) -> float:
        """The seconds of the frozen network on all rows, which a head alone takes."""
        return self.rows * self.measured.seconds

    @property
    def tuned_seconds(self) -> float | None:
        """The seconds with fine-tuning for the usual number of passes; None if not measured."""
        if self.probe is None:
            return None
        passes = FineTune().epochs * TRAINED * self.rows
        return self.head_seconds + passes * self.probe.seconds

    def command(self, data: str) -> str:
        """Return the command that follows the advice."""
        how = ("--strategy", "extract") if self.thaw == NONE else ("--thaw", self.thaw)
        return train_command(data, *self.flags, "--backbone", self.search.chosen, *how)

    def __repr__(self) -> str:
        return "\n\n".join([*self.words, self.command("DATA")])

    def _repr_html_(self) -> str:
        return html_table((text,) for text in [*self.words, self.command("DATA")])


def chosen_thaw(probes: Sequence[ProbeAnswers]) -> str:
    """Return what to thaw: of ways from fast to slow, the last that is better beyond its interval.

    Each is compared with the fastest way that was good enough so far, first of all the head.
    """
    chosen, kept = NONE, probes[0].head if probes else None
    for one in probes:
        assert kept is not None
        if compare(one.tuned, kept).low > 0:
            chosen, kept = one.probe.thaw, one.tuned
    return chosen


def gain_of_more(table: FeatureTable, seed: int) -> Estimate | None:
    """Return what a head gains by twice the rows: of half the rows, and of all.

    table: features of a sample. The mean gain in the score of a row, paired over the rows of the
    half; None if half of the rows are too few to cross-validate on.
    """
    half = np.sort(np.random.default_rng(seed).permutation(len(table))[: len(table) // 2])
    groups = tuple(table.groups[i] for i in half) if table.groups else ()
    ids = tuple(table.ids[i] for i in half)
    x, y = table.x[half], table.y[half]
    own = table.supervision[half]
    few = FeatureTable(ids, x, y, table.target, table.made_by, groups=groups, supervision=own)
    try:
        by_half = cross_validated_head(few).predictions
        by_all = cross_validated_head(table).predictions
    except ValueError:  # too few rows of a label
        return None
    return compare(_only(by_all, by_half.ids), _only(by_half, by_all.ids))


def smallest_group(rows: Dataset) -> int:
    """Return the rows of the smallest class or rarest label; 0 for targets without."""
    target, y = rows.target, rows.y
    if target.stratum_names:
        counts = np.bincount(target.strata(y))
    else:
        names, members = target.census(y)
        counts = members.sum(axis=0) if names and not target.ordered else np.zeros(1, np.int64)
    return int(min(counts[counts > 0], default=0))


def _only(predictions: Predictions, ids: Sequence[str]) -> Predictions:
    """Return the predictions of rows that are among `ids`."""
    wanted = set(ids)
    return predictions.take([row for row, id in enumerate(predictions.ids) if id in wanted])
