"""The files of JSON that a run leaves in its folder, as values.

A field with a default is one that a run of an earlier version may lack.
"""

from dataclasses import dataclass, field

from headstart.base.values import Record, Settings, as_key
from headstart.evaluation.evaluation import Estimate, Evaluation


@dataclass(frozen=True)
class WeightsOrigin(Record):
    """asked: for which weights. described: where they came from, by a run of an earlier release."""

    asked: str = ""
    origin: str = ""
    fingerprint: str = ""
    described: str = field(default="", metadata=as_key("from", written=False))


@dataclass(frozen=True)
class KeptStrategy(Record):
    """gain_on_val: of the candidate that was kept over the other."""

    asked: str = ""
    kept: str = ""
    gain_on_val: Estimate | None = None


@dataclass(frozen=True)
class ParameterCount(Record):
    parameters: int
    tensors: int = 0


@dataclass(frozen=True)
class PhaseSize(Record):
    """What a phase of training left as it was, and what it trained."""

    frozen: ParameterCount
    trainable: ParameterCount


@dataclass(frozen=True, kw_only=True)
class RunRecipe(Record):
    """recipe.json: every choice of a run, "auto" resolved.

    recipe, finetune, augment, trust, split, checks: its specs. chosen, tried: what was chosen for
    each candidate, and from what. phases, versions: by name of candidate and of package.
    """

    data: str = ""
    data_licence: str = ""
    backbone: str
    weights: WeightsOrigin = WeightsOrigin()
    strategy: KeptStrategy = KeptStrategy()
    recipe: Settings = field(default_factory=Settings)
    finetune: Settings | None = None
    augment: Settings = field(default_factory=Settings)
    trust: Settings = field(default_factory=Settings)
    baseline: str = "none"
    chosen: dict[str, Settings] = field(default_factory=dict)
    tried: tuple[Settings, ...] = ()
    split: Settings = field(default_factory=Settings)
    checks: Settings = field(default_factory=Settings)
    seed: int = 0
    language: str = "en"
    device: str = ""
    phases: dict[str, PhaseSize]
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunEvaluation(Record):
    """evaluation.json: the model that was kept, on test and on validation, every candidate on
    validation, and what was trained to compare with on test."""

    test: Evaluation
    val: Evaluation | None = None
    kept: str
    candidates_on_val: dict[str, Evaluation]
    baselines_on_test: dict[str, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings(Record):
    """timings.json: seconds by stage, and what they were spent on. examples_per_second: of the
    backbone; None where all features came from the store."""

    seconds: dict[str, float]
    total_seconds: float = 0.0
    examples_per_second: float | None = None
    backbone_forwards: int = 0
    store_hits: int = 0
    peak_rss_bytes: int = 0
    machine: str = ""
