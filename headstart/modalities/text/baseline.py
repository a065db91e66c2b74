"""The baseline of texts: TF-IDF of words and pairs of words under a linear model.

It is fitted as our heads are: on training rows, by the target's own loss, the case weights and
probabilities of classes, its strength (and the thresholds of several labels) chosen on validation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, fetched
from headstart.base.errors import MissingPackage
from headstart.heads.logistic import minimised
from headstart.targets.residuals import ResidualLoss
from headstart.targets.target import Target

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset

STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)  # C of the logistic; its inverse in the ridge
FEATURES = 200_000  # the commonest words and pairs of words
ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class TextBaseline:
    """A fitted baseline. models: one per output, or one for all of them (softmax, identity).
    target: makes answers of its raw outputs."""

    name: str
    vectorizer: Any
    models: Sequence[Any]
    target: Target
    input: Input[str]

    def raw(self, data: "Dataset") -> NDArray[np.float64]:
        """Return raw outputs (N, K), which the target's `activate` makes answers of."""
        x = self.vectorizer.transform(_texts(self.input, data))
        return _raw(self.models, str(self.target.link), x)


def fit_baseline(input: Input[str], train: "Dataset", val: "Dataset") -> TextBaseline | None:
    """Fit the baseline; None for a target that no linear model answers.

    Without validation rows the middle strength is used. Raises MissingPackage without scikit-learn.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingPackage("scikit-learn", purpose="The baseline", extra="text") from None
    if train.target.link is None or not len(train):
        return None
    train = train.counted()
    target = train.target.fitted(train.y)
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), max_features=FEATURES, token_pattern=r"(?u)\w+|[!?]"
    )
    counting, x = train.supervision, vectorizer.fit_transform(_texts(input, train))
    y = target.regression(train.y) if counting.soft is None else counting.soft
    fitted = partial(_fitted, target, x, y, counting.relative)
    judged_by = np.array(val.weights) if any(val.weights) else None
    made = TextBaseline(f"TF-IDF + {_name(target)}", vectorizer, (), target, input)
    if not len(val):
        return replace(made, models=fitted(STRENGTHS[len(STRENGTHS) // 2]))
    seen, tried = vectorizer.transform(_texts(input, val)), list[tuple[float, TextBaseline]]()
    for strength in STRENGTHS:
        models = fitted(strength)
        answers = target.activate(_raw(models, str(target.link), seen))
        own = target.decided(answers, val.y) if target.decides else target
        loss = float(np.average(target.row_losses(answers, val.y), weights=judged_by))
        tried.append((loss, replace(made, models=models, target=own)))
    return min(tried, key=lambda pair: pair[0])[1]


def _name(target: Target) -> str:
    """Return the name of the linear model."""
    if target.link != "identity":
        return "logistic"
    return "ridge" if target.residual_loss is None else "linear"


def _texts(input: Input[str], data: "Dataset") -> Iterator[str]:
    return (input.read(fetched(input, source)) for source in data.sources)


def _fitted(
    target: Target, x: Any, y: NDArray[Any], weights: NDArray[np.float64] | None, strength: float
) -> Sequence[Any]:
    """Return the models of a strength.

    y: (N, K) what is learned: of classes, their probabilities or 0 and 1. weights: (N,) of mean 1;
    None for 1 each.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    link = target.link
    if link == "identity" and (loss := target.residual_loss) is not None:
        problem = _Residuals(x, y, loss, np.ones(len(y)) if weights is None else weights)
        return (_Linear(minimised(problem, 10 / strength / len(y), problem.start())),)
    if link == "identity":
        return (Ridge(alpha=10 / strength, solver="lsqr").fit(x, y, weights),)

    def logistic(x: Any, labels: NDArray[np.int64], weights: NDArray[np.float64] | None) -> Any:
        if len(np.unique(labels)) < 2:
            return _Constant(float(labels[0]))
        return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(x, labels, weights)

    if link == "softmax":
        rows, classes = np.nonzero(y)  # a row of each class that a row may be of
        if weights is not None or len(rows) > len(y):
            weights = y[rows, classes] * (1.0 if weights is None else weights[rows])
        model = logistic(x[rows], classes, weights)
        return (_Softmax(y.shape[1], model, np.unique(classes)),)
    return tuple(logistic(x, column.astype(np.int64), weights) for column in y.T)


@dataclass(frozen=True, eq=False)
class _Residuals:
    """A linear regression with K outputs by a loss of residuals; w: (F + 1, K), biases last.

    Minimises the weighted mean loss + l2 / 2 · |weight|², as `heads.residuals` does, on sparse x
    (N, F).
    """

    x: Any
    y: NDArray[np.float64]
    residual_loss: ResidualLoss
    weights: NDArray[np.float64]  # (N,) of mean 1

    def start(self) -> NDArray[np.float64]:
        bias = self.y.mean(axis=0)
        bias = bias + self.residual_loss.centre(self.y - bias, self.weights)
        return np.vstack([np.zeros((self.x.shape[1], len(bias))), bias])

    def scale(self, l2: float, w: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ones((len(w), 1))

    def loss(self, l2: float, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, r = w[:-1], self.y - _Linear(w).predict(self.x)
        own = self.weights[:, None]
        down = -own * self.residual_loss.slopes(r) / len(r)
        slope = np.vstack([self.x.T @ down + l2 * weight, down.sum(axis=0)])
        value = (own * self.residual_loss.losses(r)).sum() / len(r) + l2 / 2 * (weight**2).sum()
        return float(value), slope


@dataclass(frozen=True, eq=False)
class _Linear:
    """w: (F + 1, K), biases in the last row."""

    w: NDArray[np.float64]

    def predict(self, x: Any) -> NDArray[np.float64]:
        return np.asarray(x @ self.w[:-1] + self.w[-1])


@dataclass(frozen=True)
class _Constant:
    """A label that all training rows have, or none: certain."""

    value: float

    def decision_function(self, x: Any) -> NDArray[np.float64]:
        return np.full(x.shape[0], 10.0 if self.value > 0 else -10.0)


@dataclass(frozen=True)
class _Softmax:
    """One logistic model over K classes, of which training rows have `there`."""

    classes: int
    model: Any
    there: NDArray[np.int64]

    def decision_function(self, x: Any) -> NDArray[np.float64]:
        raw = np.full((x.shape[0], self.classes), -30.0)
        known = self.model.decision_function(x)
        if known.ndim == 1:  # of two classes, or one
            known = np.stack([-known / 2, known / 2], axis=1)[:, -len(self.there) :]
        raw[:, self.there] = known
        return raw


def _raw(models: Sequence[Any], link: str, x: Any) -> NDArray[np.float64]:
    if link == "identity":
        return np.asarray(models[0].predict(x)).reshape(x.shape[0], -1)
    if link == "softmax":
        return np.asarray(models[0].decision_function(x))
    raw = np.stack([model.decision_function(x) for model in models], axis=1)
    return np.minimum.accumulate(raw, axis=1) if link == "cumulative" else raw
