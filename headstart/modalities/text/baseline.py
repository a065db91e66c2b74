"""The baseline of texts: TF-IDF of words and pairs of words under a linear model.

It is fitted as our heads are: on training rows, its strength chosen on validation by the target's
own loss of rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, fetched
from headstart.base.errors import MissingPackage

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset

STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)  # C of the logistic; its inverse in the ridge
FEATURES = 200_000  # the commonest words and pairs of words
ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class TextBaseline:
    """A fitted baseline. models: one per output, or one for all of them (softmax, identity)."""

    name: str
    vectorizer: Any
    models: Sequence[Any]
    link: str
    input: Input[str]

    def raw(self, data: "Dataset") -> NDArray[np.float64]:
        """Return raw outputs (N, K), which the target's `activate` makes answers of."""
        return _raw(self.models, self.link, self.vectorizer.transform(_texts(self.input, data)))


def fit_baseline(input: Input[str], train: "Dataset", val: "Dataset") -> TextBaseline | None:
    """Fit the baseline; None for a target that no linear model answers.

    Without validation rows the middle strength is used. Raises MissingPackage without scikit-learn.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingPackage("scikit-learn", purpose="The baseline", extra="text") from None
    target = train.target
    if target.link is None or not len(train):
        return None
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), max_features=FEATURES, token_pattern=r"(?u)\w+|[!?]"
    )
    x, y = vectorizer.fit_transform(_texts(input, train)), target.regression(train.y)
    weights = target.row_weights("none", train.y)
    kind = "ridge" if target.link == "identity" else "logistic"
    made = TextBaseline(f"TF-IDF + {kind}", vectorizer, (), target.link, input)
    if not len(val):
        return _with(made, _fitted(target.link, x, y, weights, STRENGTHS[len(STRENGTHS) // 2]))
    seen, tried = vectorizer.transform(_texts(input, val)), list[tuple[float, Sequence[Any]]]()
    for strength in STRENGTHS:
        models = _fitted(target.link, x, y, weights, strength)
        answers = target.activate(_raw(models, target.link, seen))
        tried.append((float(target.row_losses(answers, val.y).mean()), models))
    return _with(made, min(tried, key=lambda pair: pair[0])[1])


def _with(made: TextBaseline, models: Sequence[Any]) -> TextBaseline:
    return TextBaseline(made.name, made.vectorizer, models, made.link, made.input)


def _texts(input: Input[str], data: "Dataset") -> Iterator[str]:
    return (input.read(fetched(input, source)) for source in data.sources)


def _fitted(link: str, x: Any, y: NDArray[Any], weights: Any, strength: float) -> Sequence[Any]:
    from sklearn.linear_model import LogisticRegression, Ridge

    if link == "identity":
        return (Ridge(alpha=10 / strength, solver="lsqr").fit(x, y, sample_weight=weights),)

    def logistic(labels: NDArray[np.int64]) -> Any:
        if len(np.unique(labels)) < 2:
            return _Constant(float(labels[0]))
        return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(x, labels, weights)

    if link == "softmax":
        return (_Softmax(y.shape[1], logistic(y.argmax(axis=1)), np.unique(y.argmax(axis=1))),)
    return tuple(logistic(column.astype(np.int64)) for column in y.T)


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
