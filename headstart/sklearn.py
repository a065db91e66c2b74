"""Estimators of scikit-learn on features of a pretrained network, which are computed once.

Needs scikit-learn (`pip install 'headstart[train]'`). Features of examples are kept in the store,
so that cross-validation and searches over a head's settings run the network once an example.

>>> from sklearn.model_selection import cross_val_score  # doctest: +SKIP
>>> cross_val_score(HeadstartClassifier(), paths, labels, cv=5)  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.base.errors import DataError, MissingPackage
from headstart.base.store import USUAL
from headstart.features.extract import extract
from headstart.features.loading import load_for_features
from headstart.heads.families import head_for, solve_head, spec_named
from headstart.heads.head import Rows
from headstart.heads.specs import UsualSpec
from headstart.in_python import as_store
from headstart.modalities.reading import find
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.specs import FeatureExtraction
from headstart.runs.settings import with_settings
from headstart.targets.classes import ClassTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.supervision import Supervision
from headstart.targets.target import Target

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
    from sklearn.utils import assert_all_finite
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ModuleNotFoundError as error:
    raise MissingPackage("scikit-learn", purpose="headstart.sklearn", extra="train") from error

USUAL_STORE = "usual"
DEFAULT = str(DEFAULT_BACKBONE)  # a plain str, as parameters of estimators are


class HeadstartFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn examples into features of a pretrained network, (N, D) float32.

    backbone: a name or a network, as of `hs.extract`. size: of the prepared pictures in pixels, 0
    for the network's own. store: a folder or a Store where features are kept, "usual" for the
    user's cache, None for none.

    >>> make_pipeline(HeadstartFeatures(), LogisticRegression())  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str | Backbone | Frozen = DEFAULT,
        *,
        size: int = 0,
        store: Any = USUAL_STORE,
    ) -> None:
        self.backbone = backbone
        self.size = size
        self.store = store

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Do nothing: the network is not trained. X: examples, as for `transform`."""
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return the features of a list of N paths, PIL images, texts, or arrays (H, W, 3).

        Raises DataError, with the first reason, if an example can't be read.
        """
        spec = with_settings(FeatureExtraction(), {"size": self.size})
        network = self.backbone
        if isinstance(network, str):
            network = load_for_features(network, size=self.size)
        network = spec.prepared(network)
        examples = list(X)
        rows, left_out = find(examples, input=network.card.input, repeated=True)
        store = USUAL if self.store == USUAL_STORE else as_store(self.store)
        table = extract(network, rows, store=store)
        if lost := [*left_out, *table.left_out]:
            raise DataError(
                f"Every example must be readable; {len(lost)} of {len(examples)} are not: "
                f"{lost[0].path}: {lost[0].reason}. Leave them out."
            )
        if len(table.x) != len(examples):
            raise DataError(
                f"Each item must be one example; {len(examples)} items hold {len(table.x)}. Name "
                f"files, not folders."
            )
        return table.x

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        return _of_examples(super().__sklearn_tags__(), True)


class _HeadEstimator(BaseEstimator):  # type: ignore[misc]
    """A head on features of a network, or on given features.

    backbone: as of HeadstartFeatures; None if X holds features, (N, D) numbers. head: "" for the
    usual one of the target, or its name, such as "ridge". settings: of the head, such as
    {"l2": (0.1, 1.0)}; of several strengths cross-validation chooses one. size, store: as of
    HeadstartFeatures.
    """

    _epochs_refused: ClassVar[str] = "Name a head that is solved: logistic, ridge, nearest or mean."

    def __init__(
        self,
        backbone: str | Backbone | Frozen | None = DEFAULT,
        *,
        head: str = "",
        settings: Mapping[str, Any] | None = None,
        size: int = 0,
        store: Any = USUAL_STORE,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.settings = settings
        self.size = size
        self.store = store

    def _features(self, X: Any, *, reset: bool) -> NDArray[np.float32]:  # noqa: N803
        if self.backbone is None:
            x = validate_data(self, X, reset=reset, dtype=np.float64)
            return np.asarray(x, np.float32)
        return HeadstartFeatures(self.backbone, size=self.size, store=self.store).transform(X)

    def _fitted(self, x: NDArray[np.float32], y: Any, target: Target, weights: Any) -> Self:
        if len(x) < 2:
            raise DataError("A head learns from two examples or more; got n_samples = 1.")
        rows = Rows(x, y, target, supervision=Supervision(weights=weights))
        asked = spec_named(self.head) if self.head else UsualSpec()
        spec, _ = head_for(with_settings(asked, self.settings or {}), target)
        if spec.by_epochs:
            raise DataError(self._epochs_refused)
        found = solve_head(spec, rows, Rows(x[:0], y[:0], target))
        self.head_, self.target_, self.chosen_ = (
            found.head,
            found.target or target,
            dict(found.chosen),
        )
        return self

    def _answers(self, X: Any) -> Mapping[str, NDArray[Any]]:  # noqa: N803
        check_is_fitted(self)
        x = self._features(X, reset=False)
        return self.target_.activate(self.head_.raw(x))

    def __sklearn_tags__(self) -> Any:
        return _of_examples(super().__sklearn_tags__(), self.backbone is not None)


class HeadstartClassifier(ClassifierMixin, _HeadEstimator):  # type: ignore[misc]
    """Classes by a head on features of a pretrained network.

    The arguments are those of HeadstartFeatures, and: head: "" for logistic regression, or its
    name, such as "ridge". settings: of the head, such as {"l2": (0.1, 1.0)}; cross-validation
    chooses among several strengths. backbone=None: X holds features, (N, D) numbers.

    After `fit`: classes_ (C,), head_, and chosen_, the head's settings.

    >>> HeadstartClassifier().fit(paths, labels).predict_proba(new_paths)  # doctest: +SKIP
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit the head. X: N examples. y: (N,) labels. sample_weight: (N,) case weights."""
        x = self._features(X, reset=True)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y)
        check_consistent_length(x, y)
        check_classification_targets(y)
        weights = _weights(sample_weight, x)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        learned = numbers if weights is None else numbers[weights > 0]
        if len(np.unique(learned)) < 2:
            raise DataError("A classifier needs two classes or more; the labels are of one class.")
        target = ClassTarget(tuple(map(str, range(len(self.classes_)))))
        return self._fitted(x, numbers.astype(np.int64), target, weights)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return (N, C) probabilities, in the order of `classes_`."""
        return self._answers(X)["scores"]

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return (N,) the class of the highest probability."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class HeadstartRegressor(RegressorMixin, _HeadEstimator):  # type: ignore[misc]
    """Numbers by a head on features of a pretrained network: ridge regression if none is named.

    The arguments are those of HeadstartClassifier.

    >>> HeadstartRegressor().fit(paths, prices).predict(new_paths)  # doctest: +SKIP
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit the head. X: N examples. y: (N,) numbers. sample_weight: (N,) case weights."""
        x = self._features(X, reset=True)
        y = check_array(column_or_1d(y, warn=True), ensure_2d=False, dtype=np.float64)
        check_consistent_length(x, y)
        target = NumberTarget()
        y = target.labels(y)
        return self._fitted(x, y, target.fitted(y), _weights(sample_weight, x))

    def predict(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return (N,) numbers."""
        (values,) = self._answers(X).values()
        return np.asarray(values, np.float64).reshape(len(values))


def _weights(given: Any, x: NDArray[np.float32]) -> NDArray[np.float64] | None:
    return None if given is None else _check_sample_weight(given, x, dtype=np.float64)


def _of_examples(tags: Any, examples: bool) -> Any:
    """Return tags that say whether the input is a list of examples, not an array (N, D)."""
    if examples:
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
    tags.requires_fit = True
    return tags


__all__: Sequence[str] = ("HeadstartClassifier", "HeadstartFeatures", "HeadstartRegressor")
