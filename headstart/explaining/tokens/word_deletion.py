"""Deletion curves of texts: how an answer falls as the most important words are hidden.

Petsiuk, Das, Saenko 2018, RISE, section 4.3 ('deletion'), with words in place of pixels. The
tokens of a hidden word are replaced as in the explanation, so that the text keeps its length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.explaining.saved import Areas, Curves, DeletionCurves
from headstart.explaining.tokens.text_model import TextGradModel, TextPlaces
from headstart.explaining.tokens.words import Span, tokens_of

MOST_STEPS = 20  # of a curve; each hides about the same number of words
ORDERS = 5  # random orders, whose curves are averaged

WordOrder = NDArray[np.intp]  # (W,): the first word is hidden first


@dataclass(frozen=True, eq=False)
class WordDeletion:
    """What is answered at growing shares of hidden words, (steps + 1,) each.

    ours: the words that add most are hidden first. random: the mean over random orders.
    """

    fractions: NDArray[np.float64]
    ours: NDArray[np.float64]
    random: NDArray[np.float64]

    def area(self, name: str) -> float:
        """Return the area under a curve: the mean answer while words are hidden."""
        scores: NDArray[np.float64] = getattr(self, name)
        widths = np.diff(self.fractions)
        return float(((scores[1:] + scores[:-1]) / 2 * widths).sum())

    def saved(self) -> DeletionCurves:
        """Return the areas and the curves, rounded to 4 digits."""
        areas = Areas(round(self.area("ours"), 4), round(self.area("random"), 4))
        return DeletionCurves(
            areas, _rounded(self.fractions), Curves(_rounded(self.ours), _rounded(self.random))
        )


@dataclass(frozen=True, eq=False)
class HidableWords:
    """A text whose words can be hidden. topic: the number of what is answered about it."""

    model: TextGradModel
    places: TextPlaces
    words: tuple[Span, ...]
    topic: int

    def curves(
        self, values: NDArray[np.float64], *, steps: int = MOST_STEPS, orders: int = ORDERS
    ) -> WordDeletion:
        """Return the curves for what each word adds, values (W,). orders: of random ones."""
        count = len(self.words)
        steps = max(1, min(steps, count))
        ends = np.linspace(0, count, steps + 1).round().astype(int)
        rng = np.random.default_rng(0)
        ours = self.curve(np.argsort(-values, kind="stable"), ends)
        others = [self.curve(rng.permutation(count), ends) for _ in range(orders)]
        return WordDeletion(ends / max(1, count), ours, np.mean(others, axis=0))

    def curve(self, order: WordOrder, ends: NDArray[np.int_]) -> NDArray[np.float64]:
        """Return the answer when the first `ends` (S,) words of an order are hidden, (S,)."""
        flat = self.places.spans.reshape(-1, 2)
        tokens = tokens_of(self.words, flat)
        gone = np.zeros((len(ends), len(flat)), bool)
        for version, end in zip(gone, ends, strict=True):
            for word in order[:end]:
                version[tokens[word]] = True
        versions = gone.reshape(-1, *self.places.ids.shape)
        return self.model.degrees(self.model.features_without(self.places, versions), self.topic)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
