"""Which engine runs a frozen backbone, in which precision, and what was measured of it."""

from dataclasses import dataclass, field

from headstart.base.values import Record


@dataclass(frozen=True)
class EngineChoice(Record):
    """An engine and its precision; the rest is what was measured when it was chosen, if anything.

    rates: examples per second of each engine that was timed, by name. cosine: the smallest of a
    reduced precision's features to those of float32. difference: the largest, relative to the
    largest feature. score_lost: of the cross-validated score of a head on the features, as a share;
    negative if it got better. examples: how many the three were measured on.
    """

    engine: str
    precision: str
    rates: dict[str, float] = field(default_factory=dict)
    cosine: float | None = None
    difference: float | None = None
    score_lost: float | None = None
    examples: int = 0

    @property
    def name(self) -> str:
        """Engine and precision, as a part of the cache key of features: "onnxruntime-float32"."""
        return f"{self.engine}-{self.precision}"

    @property
    def rate(self) -> float | None:
        """Examples per second, if measured."""
        return self.rates.get(self.name)


# The engines chosen in one run, by the fingerprint of the backbone: a run never mixes two.
EngineChoices = dict[str, EngineChoice]
