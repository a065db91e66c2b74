"""Fit a head without epochs, and choose its L2 strength or number of neighbours."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, Mismatch
from headstart.heads.head import (
    FeatureRows,
    Fitted,
    Floats,
    LabelledRows,
    Trial,
    blocks,
    check_finite,
    counted,
    loss_weights,
    some_of,
    view_of,
)
from headstart.heads.logistic import logistic_trials
from headstart.heads.nearest import nearest_trials
from headstart.heads.ridge import ridge_folds, ridge_trials
from headstart.heads.specs import HeadSpec, NearestSpec
from headstart.targets.target import Labels, Outputs, Target

Trials = Callable[[Any, FeatureRows, Floats], Iterator[Trial]]
TRIALS: dict[str, Trials] = {
    "logistic": logistic_trials,
    "ridge": ridge_trials,
    "nearest": nearest_trials,
}
# (spec, rows, parts left out, rows to answer) -> the trials of all folds from one pass, or None
Folded = Callable[
    [Any, FeatureRows, Sequence[NDArray[np.bool_]], Sequence[Floats]], list[Iterator[Trial]] | None
]
FOLDED: dict[str, Folded] = {"ridge": ridge_folds}
FOLDS = 5
PATIENCE_OF_FOLDS = 4  # the same, where a share of right answers chooses, which is less smooth
PATIENCE = 2  # settings tried after the best one before the search stops
FEWEST = 10  # rows needed for cross-validation


def fit_head(spec: HeadSpec, train: FeatureRows, val: FeatureRows) -> Fitted:
    """Fit every setting on `train`, the strongest regularisation first; keep the best on `val`.

    Best means the least mean of the target's losses of rows, weighted by the class weights of
    `train` and by the case weights; ties go to the stronger setting. Rows of weight 0 are left out.
    Without validation rows, cross-validation on `train` chooses; with too few rows, the middle
    setting is used. Folds keep the groups of `train` together, and the shares of the target's
    strata. Decisions of the target, such as a threshold per label, are chosen on out-of-fold
    answers of `train`. Raises Mismatch for tables that don't
    match or non-finite features, DataError if all rows of `train` have the same label.
    """
    train = counted(train)
    check_pair(train, val)
    folds = folds_of(train.target.strata(train.y), train.groups)
    if len(val.y):
        found = _fit_by_validation(spec, train, val)
    elif _enough(folds >= 0):
        found = _fit_by_folds(spec, train, folds)
    else:
        found = _fit_by_default(spec, train)
    return replace(found, target=_decided(spec, found, train, folds))


def _enough(judged: NDArray[np.bool_]) -> bool:
    return bool(judged.sum() >= FEWEST)


def folds_of(
    strata: NDArray[np.int64],
    groups: Sequence[str] = (),
    folds: int = FOLDS,
    learned: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return each row's held-out fold, (N,); -1 for a group with a stratum that no other group has.

    strata: integers whose proportions the folds keep, such as classes. groups: rows with the same
    name stay in one fold; a row with an empty or no name is its own group. learned: (N,) which rows
    are learned from, None for all; those of a stratum are never all held out at once. Groups are
    drawn at random, as a split draws them, so that held-out rows are as new as test rows are.

    >>> folds_of(np.array([0, 0, 0, 1, 1, 2]), folds=2).tolist()
    [0, 1, 0, 1, 0, -1]
    >>> folds_of(np.array([0, 0, 0, 1, 1]), ("a", "b", "a", "b", "c"), folds=2).tolist()
    [0, 1, 0, 1, 0]
    """
    owner = _group_of(len(strata), groups)  # groups are numbered as they first appear
    rows = np.stack([owner, strata])
    pairs, counts = np.unique(rows, axis=1, return_counts=True)
    group, stratum = pairs
    by_size = np.lexsort((stratum, -counts, group))
    main = stratum[by_size][np.unique(group, return_index=True)[1]]  # a group's commonest stratum
    fold, rng = np.zeros(len(main), np.int64), np.random.default_rng(0)
    for c in np.unique(main):
        own = rng.permutation(np.flatnonzero(main == c))
        fold[own] = np.arange(len(own)) * min(folds, len(own)) // len(own)
    _train_each_stratum(fold, group, stratum)
    if learned is not None:
        _train_each_stratum(fold, *rows[:, learned])
    used = np.unique(fold[fold >= 0])
    return np.where(fold < 0, -1, np.searchsorted(used, fold))[owner]


def folds_of_rows(rows: LabelledRows, folds: int = FOLDS) -> NDArray[np.int64]:
    """Return the folds of `folds_of` for labelled rows; those of weight 0 are not learned from."""
    learned = rows.supervision.learned
    return folds_of(rows.target.strata(rows.y), rows.groups, folds, learned)


def _train_each_stratum(
    fold: NDArray[np.int64], group: NDArray[np.int64], stratum: NDArray[np.int64]
) -> None:
    """Set the folds of groups to -1 where holding them out would leave a stratum without rows.

    fold: of each group. group, stratum: of rows to learn from.
    """
    for c in np.unique(stratum):
        own = group[stratum == c]
        if len(np.unique(fold[own])) == 1:
            fold[own] = -1


def _group_of(rows: int, groups: Sequence[str]) -> NDArray[np.int64]:
    """Return the group number of each row, (N,)."""
    numbers: dict[str | int, int] = {}
    names = [name or row for row, name in enumerate(groups)] if len(groups) else range(rows)
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def out_of_fold(spec: HeadSpec, table: FeatureRows, rng: np.random.Generator) -> Floats:
    """Return the probabilities of each row's classes by a head fitted without it, (N, C); NaN for
    rows without an answer.

    spec: with a single setting. Folds are random, because a wrong label shows best among similar
    rows. The only row of a class has no scores.
    """
    answers = answers_out_of_fold(spec, table, rng)
    if answers is None:
        return np.full((len(table.y), table.target.outputs), np.nan)
    scores: Floats = answers["scores"]
    return scores


def answers_out_of_fold(
    spec: HeadSpec, table: FeatureRows, rng: np.random.Generator
) -> Outputs | None:
    """Return the answers to each row by a head fitted without it, NaN for rows without one; None
    for too few rows. The arguments are those of `out_of_fold`."""
    order, folds = rng.permutation(len(table.y)), np.empty(len(table.y), np.int64)
    learned = table.supervision.learned
    own = None if learned is None else learned[order]
    folds[order] = folds_of(table.target.strata(table.y)[order], learned=own)
    judged = _judged_rows(table, folds)
    if not judged.any() or not _differ(table, judged):
        return None
    return _answers_without(spec, table, folds)


def _judged_rows(rows: FeatureRows, folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (N,) which rows are held out and have a weight above 0."""
    learned = rows.supervision.learned
    return folds >= 0 if learned is None else (folds >= 0) & learned


def _answers_without(spec: HeadSpec, table: FeatureRows, folds: NDArray[np.int64]) -> Outputs:
    """Return out-of-fold answers with the single setting of `spec`; NaN for rows in no fold."""
    held_out = list(_held_out(spec, table, table, folds))
    answers = dict(held_out[0][1])
    for _, more in held_out[1:]:  # small folds may offer fewer neighbours
        for name, values in more.items():
            answers[name] = np.where(np.isnan(answers[name]), values, answers[name])
    return answers


def _decided(spec: HeadSpec, found: Fitted, train: FeatureRows, folds: NDArray[np.int64]) -> Target:
    """Return the target with its decisions chosen on out-of-fold answers of the training rows."""
    target, out = train.target, folds >= 0
    if not target.decides or not _enough(out):
        return target
    tried = tried_of(spec)
    setting: dict[str, Any] = {tried: (found.chosen[tried],)}
    only = replace(spec, **setting)
    answers = _answers_without(only, train, folds)
    return target.decided(_taken(answers, out), train.y[out])


def _fit_by_validation(spec: HeadSpec, train: FeatureRows, val: FeatureRows) -> Fitted:
    path: list[dict[str, float]] = []
    best, since, loss = 0, 0, train.target.loss_name
    chosen: Trial | None = None
    weights = loss_weights(val, spec.class_weights, train)
    for trial in TRIALS[spec.family](spec, train, val.x):
        path.append(_judged(trial.settings, train.target, trial.answers, val.y, weights))
        if chosen is None or path[-1][loss] < path[best][loss]:
            chosen, best, since = trial, len(path) - 1, 0
        elif (since := since + 1) >= PATIENCE:
            break
    assert chosen is not None  # a spec has at least one setting
    return _fitted(spec, chosen, path, f"{_spoken(loss)} on validation")


def _fit_by_folds(spec: HeadSpec, train: FeatureRows, folds: NDArray[np.int64]) -> Fitted:
    found = _cross_validated(spec, train, train, folds)
    setting = getattr(found.spec, tried_of(spec))[0]
    return _fitted(spec, _trial_at(setting, spec, train), list(found.path), found.by)


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """The setting of a head that was best in cross-validation.

    spec: with that setting alone. answers: to each row by a head fitted without it. held_out: (N,)
    the rows that have such an answer. path: an entry per setting tried. by: the reason, in words.
    """

    spec: HeadSpec
    answers: Outputs
    held_out: NDArray[np.bool_]
    path: tuple[dict[str, float], ...]
    by: str

    @property
    def best(self) -> dict[str, float]:
        """The entry of `path` of the chosen setting."""
        tried = tried_of(self.spec)
        (setting,) = getattr(self.spec, tried)
        return next(entry for entry in self.path if entry[tried] == setting)

    def answers_of(self, target: Target) -> Outputs:
        """Return the answers to the held-out rows alone, in the types of the target's answers."""
        kinds = target.activate(np.zeros((1, target.outputs)))
        taken = _taken(self.answers, self.held_out)
        return {name: values.astype(kinds[name].dtype) for name, values in taken.items()}


def fit_at(spec: HeadSpec, rows: FeatureRows) -> Fitted:
    """Fit a head with the single setting of `spec`; the decisions of the target stay."""
    (setting,) = getattr(spec, tried_of(spec))
    return _fitted(spec, _trial_at(setting, spec, rows), [], "")


def cross_validate(spec: HeadSpec, train: FeatureRows, plain: FeatureRows) -> CrossValidated | None:
    """Choose the setting of a head by its out-of-fold answers; None with too few rows for folds.

    By the share of right answers, then by the loss; by the loss alone where answers can be partly
    right. The loss of a weakly regularised head is high because it is too sure, which temperature
    scaling mends afterwards; so the loss would choose too strong a regularisation
    (bench/small_data.py).

    plain: N rows that are held out in turn, stratified, the rows of a group together. train: the
    same rows to fit on, or V views of each, one view after the other. The strongest regularisation
    is tried first; the search ends when four settings in turn are no better. Rows of weight 0 are
    answered, but neither learned from nor counted.
    """
    folds = folds_of_rows(plain)
    judged = _judged_rows(plain, folds)
    if not _enough(judged) or not _differ(plain, judged):
        return None
    return _cross_validated(spec, train, plain, folds)


def within_folds(spec: HeadSpec, train: FeatureRows, folds: NDArray[np.int64]) -> HeadSpec:
    """Return the spec to try in folds, with numbers of neighbours that each fold can ask.

    If even the fewest neighbours are more than the training rows that the largest fold leaves, all
    folds try as many as these rows. train, folds: of `cross_validate`.
    """
    if not isinstance(spec, NearestSpec):
        return spec
    learned, fold = train.supervision.learned, np.tile(folds, len(train.y) // len(folds))
    fold = fold if learned is None else fold[learned]
    least = len(fold) - int(np.bincount(fold[fold >= 0]).max())
    return spec if min(spec.neighbours) <= least else replace(spec, neighbours=(least,))


def _cross_validated(
    spec: HeadSpec, train: FeatureRows, plain: FeatureRows, folds: NDArray[np.int64]
) -> CrossValidated:
    spec = within_folds(spec, train, folds)
    asked, target, y = folds >= 0, plain.target, plain.y
    weights = loss_weights(plain, spec.class_weights)[asked]
    path: list[dict[str, float]] = []
    best, merit = 0, (-math.inf, -math.inf)
    chosen: Outputs = {}
    for settings, answers in _held_out(spec, train, plain, folds):
        if path and not _complete(answers, asked):
            continue
        own = _taken(answers, asked)
        path.append(_judged(settings, target, own, y[asked], weights))
        found = _merit(target, own, y[asked], weights), -path[-1][target.loss_name]
        if found > merit:
            best, merit, chosen = len(path) - 1, found, answers
        elif len(path) - 1 - best >= PATIENCE_OF_FOLDS:
            break
    setting: dict[str, Any] = {tried_of(spec): (path[best][tried_of(spec)],)}
    name = target.merit_name if target.counts_right else target.loss_name
    by = f"{_spoken(name)} in {folds.max() + 1}-fold cross-validation"
    return CrossValidated(replace(spec, **setting), chosen, asked, tuple(path), by)


def _merit(target: Target, answers: Outputs, y: Labels, weights: Floats) -> float:
    """Return the weighted share of right answers; 0 for a target whose answers are partly right."""
    if not target.counts_right:
        return 0.0
    return float(np.average(target.row_scores(answers, y), weights=weights))


def _held_out(
    spec: HeadSpec, train: FeatureRows, plain: FeatureRows, folds: NDArray[np.int64]
) -> Iterator[tuple[dict[str, float], Outputs]]:
    """Yield, per setting, the out-of-fold answers of the plain rows; NaN for rows never held out.

    train: the rows of `plain`, or several views of them, one view after the other. A setting that
    some folds did not offer comes last: a small fold has fewer neighbours.
    """
    paths: dict[float, tuple[dict[str, float], dict[str, NDArray[Any]]]] = {}
    parts = [folds == fold for fold in range(int(folds.max()) + 1)]
    views = len(train.y) // len(plain.y)
    trials = _trials_of_folds(spec, train, [np.tile(out, views) for out in parts], plain, parts)
    given: dict[float, int] = {}
    for of_folds in zip_longest(*trials):
        for out, trial in zip(parts, of_folds, strict=True):
            if trial is None:
                continue
            empty = {k: np.full((len(out), *a.shape[1:]), np.nan) for k, a in trial.answers.items()}
            path = paths.setdefault(trial.tried, ({tried_of(spec): trial.tried}, empty))
            for name, values in trial.answers.items():
                path[1][name][out] = values
            given[trial.tried] = given.get(trial.tried, 0) + 1
            if given[trial.tried] == len(parts):
                yield paths.pop(trial.tried)
    yield from paths.values()


def _trials_of_folds(
    spec: HeadSpec,
    train: FeatureRows,
    left_out: Sequence[NDArray[np.bool_]],
    plain: FeatureRows,
    parts: Sequence[NDArray[np.bool_]],
) -> list[Iterator[Trial]]:
    """Return, for each fold, the trials of heads on the other rows of `train`, and their answers to
    the fold's rows of `plain`. left_out, parts: masks of the fold's rows in each."""
    views = [view_of(plain, part).x for part in parts]
    if (folds := FOLDED.get(spec.family)) and (made := folds(spec, train, left_out, views)):
        return made
    kept = (some_of(train, ~out) for out in left_out)
    fit = TRIALS[spec.family]
    return [fit(spec, k, plain.x[part]) for k, part in zip(kept, parts, strict=True)]


def _taken(answers: Outputs, rows: NDArray[np.bool_]) -> Outputs:
    return {name: values[rows] for name, values in answers.items()}


def _complete(answers: Outputs, rows: NDArray[np.bool_]) -> bool:
    return not any(np.isnan(values[rows]).any() for values in answers.values())


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _fit_by_default(spec: HeadSpec, train: FeatureRows) -> Fitted:
    settings = sorted(getattr(spec, tried_of(spec)))
    middle = settings[len(settings) // 2]
    return _fitted(spec, _trial_at(middle, spec, train), [], "middle of the list: too few rows")


def _trial_at(setting: float, spec: HeadSpec, train: FeatureRows) -> Trial:
    """Return the head of one setting; the settings before it in the list are fitted first."""
    for trial in TRIALS[spec.family](spec, train, train.x[:0]):
        if trial.tried <= setting:  # can be fewer neighbours, if there are too few rows
            return trial
    return trial


def _fitted(spec: HeadSpec, trial: Trial, path: list[dict[str, float]], by: str) -> Fitted:
    return Fitted(trial.head, {"head": spec.family, **trial.settings, "by": by}, tuple(path))


def _judged(
    settings: dict[str, float], target: Target, answers: Outputs, y: Labels, weights: Floats
) -> dict[str, float]:
    """Return the settings, their weighted mean loss, and the share of right answers if defined."""
    loss = float(np.average(target.row_losses(answers, y), weights=weights))
    right = {target.merit_name: target.merit(answers, y)[0]} if target.counts_right else {}
    return {**settings, target.loss_name: loss, **right}


def tried_of(spec: HeadSpec) -> str:
    """Return the name of the setting of a solved head of which several are tried."""
    return "neighbours" if spec.family == "nearest" else "l2"


def check_pair(train: FeatureRows, val: FeatureRows) -> None:
    """Raise Mismatch or DataError as `fit_head` documents."""
    agree = train.target.agrees(val.target)
    if not agree or train.x.shape[1:] != val.x.shape[1:] or train.x.ndim != 2:
        raise Mismatch(
            f"Training and validation rows need the same columns and labels; got {train.x.shape} "
            f"with {train.target.described} and {val.x.shape} with {val.target.described}. Were "
            f"they extracted with the same backbone?"
        )
    check_finite(train.x, "Training features")
    check_finite(val.x, "Validation features")
    if not _differ(train):
        raise DataError(
            f"A head learns to tell labels apart, so at least two need training rows; got "
            f"{len(train.y)} rows of {min(len(train.y), 1)}. Add examples with another label."
        )


def _differ(rows: FeatureRows, among: NDArray[np.bool_] | None = None) -> bool:
    """Return whether any of the rows' labels differ."""
    y = rows.y if among is None else rows.y[among]
    first = rows.target.regression(y[:1])
    return any((rows.target.regression(y[some]) != first).any() for some in blocks(len(y)))
