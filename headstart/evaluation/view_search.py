"""Choose the changes of training pictures by their effect on heads that are cross-validated.

A change is taken if a head that learns from changed pictures too answers pictures as they are with
a lower loss, by more than noise. Changes that alter the class, such as flips of digits, raise it.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.views import ViewSpec
from headstart.base.values import Record
from headstart.evaluation.backbone_search import solved_head
from headstart.features.extract import FeatureTable
from headstart.heads.fit import (
    TRIALS,
    CrossValidated,
    cross_validate,
    folds_of_rows,
    tried_of,
    within_folds,
)
from headstart.heads.head import FeatureRows, Head, loss_weights, some_of
from headstart.heads.specs import HeadSpec
from headstart.modalities.images.augment import AutoViews
from headstart.models.training_data import stacked
from headstart.targets.target import Target

ROWS = 400  # examples that the changes are judged on, at most
VIEWS = 2  # changed pictures of each example that a head learns from, beside the picture itself
BEYOND = 1.0  # standard errors by which the loss must fall,
LEAST = 1e-4  # and at least: what is smaller is rounding of the solver
Floats = NDArray[np.float64]
ViewsOf = Callable[[ViewSpec], Sequence[FeatureTable]]


@dataclass(frozen=True)
class MeanGain(Record):
    """The mean of paired differences of rows, higher is better, and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class TriedChange(Record):
    """A head that learned from changed pictures too, against the head that did not.

    change: names of changes, joined by " + "; of several, the gains are those of the last one.
    loss, score: what it gained on pictures as they are.
    averaged: the loss saved where it answers by the mean features of a picture and its changed
    versions, as test-time views do. on_changed: the mean score, for classes the accuracy, of the
    head that did not learn from them on changed pictures; None if none differs from its picture.
    """

    change: str
    loss: MeanGain
    score: MeanGain
    averaged: MeanGain
    on_changed: float | None
    taken: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.change.split(" + "))

    @property
    def helps(self) -> bool:
        """Whether the loss falls by more than noise and no more answers are wrong."""
        return self.loss.value > max(LEAST, BEYOND * self.loss.error) and self.score.value >= 0


@dataclass(frozen=True, repr=False)
class ViewSearch(Record):
    """Changes of pictures, judged on `rows` examples outside the test part.

    loss, taken_loss: mean out-of-fold loss of the head without changes, and with those chosen.
    loss_name, score_name: what is saved and gained.
    """

    rows: int
    head: str
    loss_name: str
    loss: float
    taken_loss: float
    score_name: str
    tried: tuple[TriedChange, ...]

    def __repr__(self) -> str:
        return f"ViewSearch({self.message})"

    @property
    def taken(self) -> TriedChange | None:
        """What the run takes: a change, or several together; None for nothing."""
        return next((tried for tried in self.tried if tried.taken), None)

    @property
    def judged_by(self) -> str:
        """What judged the changes, as a phrase."""
        return f"{self.head} heads, cross-validated on {self.rows:,} rows"

    @property
    def message(self) -> str:
        """The choice in one line."""
        on = self.judged_by
        if self.taken is None:
            return f"none: no change helps beyond noise, by {on}"
        name, change = self.loss_name.replace("_", " "), spoken(self.taken.change)
        return f"{change}: {name} {self.taken_loss:.3f} in place of {self.loss:.3f}, by {on}"

    def table(self) -> list[tuple[str, ...]]:
        """Return rows to print: a header, then one row for each change."""
        saved = f"{self.loss_name.replace('_', ' ')} saved"
        return [("change", saved, self.score_name, "on changed", ""), *map(_line, self.tried)]


def spoken(change: str) -> str:
    """Return the name of a change in words.

    >>> spoken("flip_horizontal + quarter_turns")
    'flip horizontal + quarter turns'
    """
    return change.replace("_", " ")


def search_views(
    plain: FeatureTable, views_of: ViewsOf, head: HeadSpec, auto: AutoViews
) -> ViewSearch | None:
    """Judge each change of `auto`, then add to the best one what helps further.

    The additions are tried in the order of their gains. Returns None for too few rows.

    plain: features of rows outside the test part, those of a group named alike. views_of: returns
    features of changed versions of these rows, one table per version. head: the head of the run;
    for one trained by epochs, the target's usual solved head takes its place. auto: the
    changes to choose from.
    """
    target = plain.target.fitted(plain.y)
    spec = head
    if head.by_epochs:
        spec, target = solved_head(target)
    begun = _Trial.begin(spec, replace(plain, target=target))
    if begun is None:
        return None
    alone = [begun.of(name, views_of(auto.together([name])))[0] for name in auto.changes]
    tried, taken, trial = list(alone), None, begun
    for own in sorted((t for t in alone if t.helps), key=lambda t: -t.loss.value):
        names = (*(taken.names if taken else ()), own.change)
        found, learned = trial.of(" + ".join(names), views_of(auto.together(names)))
        tried += [found] if taken else []
        if found.helps:
            taken, trial = found, learned
    tried = [replace(own, taken=taken is not None and own.change == taken.change) for own in tried]
    return ViewSearch(
        rows=len(begun.weights),
        head=spec.family,
        loss_name=target.loss_name,
        loss=float(np.average(begun.now.losses, weights=begun.weights)),
        taken_loss=float(np.average(trial.now.losses, weights=trial.weights)),
        score_name=target.gain_name,
        tried=tuple(tried),
    )


@dataclass(frozen=True, eq=False)
class _HeldOutHeads:
    """A head for each fold of `plain`, fitted without its rows, and its answers to them.

    losses, scores: (N,) of the rows in folds.
    """

    heads: tuple[Head, ...]
    plain: FeatureTable
    folds: NDArray[np.int64]
    losses: Floats
    scores: Floats

    @classmethod
    def of(
        cls, heads: Sequence[Head], plain: FeatureTable, folds: NDArray[np.int64]
    ) -> "_HeldOutHeads":
        judged = _judged(heads, plain, plain.x, folds)
        return cls(tuple(heads), plain, folds, *judged)

    def judged(self, x: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Return the losses and scores of the answers to other features of the rows."""
        return _judged(self.heads, self.plain, x, self.folds)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Heads with which others are compared. spec: with the strengths that they are tried with.
    plain: those without changes. now: those with the changes taken so far. weights: (N,) of the
    rows in folds. group: (N,) numbers of their groups."""

    spec: HeadSpec
    plain: _HeldOutHeads
    now: _HeldOutHeads
    weights: Floats
    group: NDArray[np.intp]

    @classmethod
    def begin(cls, spec: HeadSpec, plain: FeatureTable) -> "_Trial | None":
        """Fit the heads without changes; None for too few rows."""
        found = cross_validate(spec, plain, plain)
        if found is None:
            return None
        near, out = _near_least_loss(spec, found, plain.target), found.held_out
        base = _of_least_loss(near, plain, plain)
        weights = loss_weights(plain, spec.class_weights)[out]
        names = [name or id for name, id in zip(plain.groups or plain.ids, plain.ids, strict=True)]
        group = np.unique(np.array(names)[out], return_inverse=True)[1]
        return cls(near, base, base, weights, group)

    def of(self, change: str, views: Sequence[FeatureTable]) -> "tuple[TriedChange, _Trial]":
        """Compare heads that learn from `views` of the rows too; return them as a trial as well."""
        plain = self.plain.plain
        rows = stacked([plain, *(replace(v, target=plain.target) for v in views)])
        found = _of_least_loss(self.spec, rows, plain)
        mean = np.stack([plain.x, *(v.x for v in views)]).mean(axis=0)
        of_mean, _ = found.judged(mean)
        tried = TriedChange(
            change=change,
            loss=self._saved(found.losses),
            score=self._gain(found.scores - self.now.scores),
            averaged=self._saved(of_mean),
            on_changed=self._on_changed(views),
        )
        return tried, replace(self, now=found)

    def _on_changed(self, views: Sequence[FeatureTable]) -> float | None:
        """Return the mean score of the heads without changes on the pictures that changed."""
        plain, out = self.plain.plain, self.plain.folds >= 0
        scores = np.concatenate([self.plain.judged(view.x)[1] for view in views])
        differ = np.concatenate([(view.x != plain.x).any(axis=1)[out] for view in views])
        weights = np.tile(self.weights, len(views)) * differ
        return float(np.average(scores, weights=weights)) if weights.any() else None

    def _saved(self, losses: Floats) -> MeanGain:
        """Return the loss saved, where no row counts more than the worst one of those compared.

        Else one mirrored copy under another label would outweigh all other rows.
        """
        return self._gain(self.now.losses - np.minimum(losses, self.now.losses.max()))

    def _gain(self, gained: Floats) -> MeanGain:
        """Return the mean gain of the rows; its error is of the groups, which rows share."""
        mean = float(np.average(gained, weights=self.weights))
        off = np.bincount(self.group, self.weights * (gained - mean))
        many = len(off) / max(1, len(off) - 1)
        return MeanGain(mean, float(np.sqrt(many * (off @ off)) / self.weights.sum()))


def _near_least_loss(spec: HeadSpec, found: CrossValidated, target: Target) -> HeadSpec:
    """Return the spec with the strength of the least loss and the next ones alone.

    A run chooses by right answers, and calibrates afterwards. But the losses of heads chosen so
    differ by their strengths, more than by what changed pictures teach.
    """
    tried = tried_of(spec)
    least = min(found.path, key=lambda entry: entry[target.loss_name])[tried]
    every = sorted(getattr(spec, tried))
    place = bisect_left(every, least)  # more neighbours than a fold has rows are tried as fewer
    near: dict[str, Any] = {tried: tuple(every[max(0, place - 1) : place + 2])}
    return replace(spec, **near)


def _of_least_loss(spec: HeadSpec, train: FeatureRows, plain: FeatureTable) -> _HeldOutHeads:
    """Fit heads at each strength of `spec`; return those of the least mean loss.

    train: the rows of `plain`, or several views of them, one view after the other. A strength that
    some folds do not offer, such as too many neighbours, is left out.
    """
    folds = folds_of_rows(plain)
    spec = within_folds(spec, train, folds)
    heads: dict[float, list[Head]] = {}
    for fold in range(int(folds.max()) + 1):
        kept = some_of(train, np.tile(folds != fold, len(train.y) // len(plain.y)))
        for trial in TRIALS[spec.family](spec, kept, plain.x[:0]):
            heads.setdefault(trial.tried, []).append(trial.head)
    whole = [own for own in heads.values() if len(own) > folds.max()]
    every = [_HeldOutHeads.of(own, plain, folds) for own in whole]
    weights = loss_weights(plain, spec.class_weights)[folds >= 0]
    return min(every, key=lambda own: np.average(own.losses, weights=weights))


def _judged(
    heads: Sequence[Head], rows: FeatureTable, x: NDArray[np.float32], folds: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the losses and scores of the answers to each row by the head of its fold."""
    raw = np.zeros((len(x), rows.target.outputs))
    for fold, head in enumerate(heads):
        raw[folds == fold] = head.raw(x[folds == fold])
    answers, y = rows.target.activate(raw[folds >= 0]), rows.y[folds >= 0]
    return rows.target.row_losses(answers, y), rows.target.row_scores(answers, y)


def _line(tried: TriedChange) -> tuple[str, ...]:
    changed = "n/a" if tried.on_changed is None else f"{tried.on_changed:.3f}"
    mark = "taken" if tried.taken else ""
    return (spoken(tried.change), str(tried.loss), str(tried.score), changed, mark)
