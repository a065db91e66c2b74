"""The files of a run's folder as values.

A field with a default may be missing in a run of an earlier version.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.base.cells import restored
from headstart.base.engine_choice import EngineChoice
from headstart.base.tables import LONGEST_TEXT
from headstart.base.values import Record, Settings, as_key, later
from headstart.data.dataset import PARTS, Content
from headstart.evaluation.backbone_search import BackboneSearch
from headstart.evaluation.budget import BudgetPlan
from headstart.evaluation.evaluation import Estimate, Evaluation
from headstart.evaluation.few_shots import FewShots
from headstart.evaluation.view_search import ViewSearch
from headstart.training.history import Count


@dataclass(frozen=True)
class RecordedRow:
    """A row of splits.csv. part: "" for a row in none of the three parts. content: empty digests
    in a run of an earlier version. fold: in which the row was held out, from 1; 0 without folds."""

    path: str
    part: str
    content: Content = Content()
    label: str = ""
    fold: int = 0


def read_rows(path: Path) -> list[RecordedRow]:
    """Read splits.csv; raises OSError, or ValueError if it is another table."""
    csv.field_size_limit(LONGEST_TEXT)  # a label may be thousands of boxes
    try:
        with open(path, encoding="utf-8", newline="") as f:
            lines = csv.DictReader(f, restval="")
            if missing := {"path", "label", "part"} - set(lines.fieldnames or ()):
                raise ValueError(f"it has no column {min(missing)!r}")
            return [_recorded(line) for line in lines]
    except csv.Error as error:
        raise ValueError(f"it is not a CSV file that can be read: {error}") from error


def _recorded(line: dict[str, str]) -> RecordedRow:
    return RecordedRow(
        path=restored(line["path"]),
        part=line["part"] if line["part"] in PARTS else "",
        content=Content(line.get("bytes", ""), line.get("pixels", "")),
        label=restored(line["label"]),
        fold=int(line.get("fold") or 0),
    )


@dataclass(frozen=True)
class WeightsOrigin(Record):
    """asked: the requested weights. described: their origin as text, by an earlier release."""

    asked: str = ""
    origin: str = ""
    fingerprint: str = ""
    described: str = field(default="", metadata=as_key("from", written=False))


@dataclass(frozen=True)
class KeptStrategy(Record):
    """gain_on_val: accuracy of the kept candidate minus that of the other. refitted: whether the
    saved model is the kept one fitted again on training and validation rows together."""

    asked: str = ""
    kept: str = ""
    gain_on_val: Estimate | None = None
    refitted: bool = False


@dataclass(frozen=True, kw_only=True)
class RunRecipe(Record):
    """recipe.json: every choice of a run, "auto" resolved.

    target, recipe, finetune, augment, trust, split, checks: its specs; target only if the user set
    any of it. chosen: the settings chosen for each candidate. tried: all settings tried. phases:
    by candidate. versions: by package.
    backbone_search, view_search: the tables by which `--backbone auto` and `--augment auto`
    chose. budget: seconds of the run, by which what was not asked for was planned; 0 for no limit.
    head_named: of a run with `shots`, whether its logistic head was named, so that no other was
    tried.
    """

    data: str = ""
    data_licence: str = ""
    backbone: str
    weights: WeightsOrigin = WeightsOrigin()
    strategy: KeptStrategy = KeptStrategy()
    target: Settings | None = None
    recipe: Settings = field(default_factory=Settings)
    finetune: Settings | None = None
    augment: Settings = field(default_factory=Settings)
    trust: Settings = field(default_factory=Settings)
    tta: str = field(default="none", metadata=later())
    baseline: str = "none"
    chosen: dict[str, Settings] = field(default_factory=dict)
    tried: tuple[Settings, ...] = ()
    split: Settings = field(default_factory=Settings)
    checks: Settings = field(default_factory=Settings)
    seed: int = 0
    folds: int = field(default=0, metadata=later())
    shots: int = field(default=0, metadata=later())
    draws: int = field(default=10, metadata=later())
    head_named: bool = field(default=False, metadata=later())
    members: int = field(default=1, metadata=later())
    language: str = "en"
    insights: str = field(default="quick", metadata=later())
    refit: bool = False
    device: str = ""
    phases: dict[str, Count]
    versions: dict[str, str]
    backbone_search: BackboneSearch | None = field(default=None, metadata=later())
    view_search: ViewSearch | None = field(default=None, metadata=later())
    budget: float = field(default=0.0, metadata=later())

    def to_plain(self) -> dict[str, Any]:
        plain = super().to_plain()
        return plain if self.target else {k: v for k, v in plain.items() if k != "target"}


@dataclass(frozen=True)
class FoldEvaluation(Record):
    """The model of one fold on the fold's n rows. kept: the candidate. metrics: those shown."""

    fold: int
    kept: str
    n: int
    metrics: dict[str, Estimate | None]


@dataclass(frozen=True, kw_only=True)
class RunEvaluation(Record):
    """evaluation.json: the kept model on test and validation, every candidate on validation, and
    the baselines on test.

    folds: of a cross-validated run, whose `test` and baselines are the answers of the folds' models
    to all rows, while `val` and the candidates are of the saved model. few_shots: of a run with a
    few examples of each class, the heads that were compared, on rows outside the test part.
    """

    test: Evaluation
    val: Evaluation | None = None
    kept: str
    candidates_on_val: dict[str, Evaluation]
    baselines_on_test: dict[str, Evaluation] = field(default_factory=dict)
    folds: tuple[FoldEvaluation, ...] = field(default=(), metadata=later())
    few_shots: FewShots | None = field(default=None, metadata=later())

    @property
    def parts(self) -> dict[str, Evaluation]:
        """The kept model's evaluations by part."""
        return {"test": self.test} | ({"val": self.val} if self.val else {})


@dataclass(frozen=True)
class Provenance(Record):
    """Where a run comes from; "" and 0 for what is not known, as of a run of an earlier version.

    began: date and time in UTC, ISO 8601. command: as it was typed; "" from Python. commit: that
    was checked out in the working folder. rows, data_sha256: of the data, see
    `provenance.data_digest`. parent: the run whose settings this one started from.
    """

    began: str = ""
    command: str = ""
    commit: str = ""
    rows: int = 0
    data_sha256: str = ""
    parent: str = ""

    def lasting(self) -> dict[str, Any]:
        """Return what is the same when the run is repeated, for the bundle.

        A bundle is given to others, so that its parent is named without the folders around it.
        """
        kept = {name: getattr(self, name) for name in ("rows", "data_sha256", "commit")}
        kept["parent"] = Path(self.parent).name
        return {name: value for name, value in kept.items() if value}


@dataclass(frozen=True)
class Timings(Record):
    """timings.json: seconds by stage, counts and machine. examples_per_second: of the backbone;
    None if all features came from the store. engine: what computed the features. plan: of a run
    with a time budget. made: when and from what the run was made."""

    seconds: dict[str, float]
    total_seconds: float = 0.0
    examples_per_second: float | None = None
    backbone_forwards: int = 0
    store_hits: int = 0
    peak_rss_bytes: int = 0
    machine: str = ""
    engine: EngineChoice | None = None
    plan: BudgetPlan | None = field(default=None, metadata=later())
    made: Provenance = field(default=Provenance(), metadata=later())
