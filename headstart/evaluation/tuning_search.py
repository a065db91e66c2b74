"""Settings of fine-tuning that were tried on one backbone, and the best of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from headstart.base.errors import SpecError
from headstart.base.notebook import text_table
from headstart.base.values import Record, Settings, check_seed, kind_of, later
from headstart.data.checks import CheckPlan
from headstart.data.dataset import LeftOut
from headstart.evaluation.commands import data_flags, train_command
from headstart.evaluation.tuning_space import Setting
from headstart.heads.head import check_counts
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.targets.plan import TargetPlan

MOST = 10_000  # trials
SHOWN = 20  # lines of the table
USUAL = 0  # the number of the trial with the usual settings
SHORT = {
    "weight_decay": "decay",
    "label_smoothing": "smooth",
    "layer_decay": "layers",
    "dropout": "drop",
}
TrialState = Literal["done", "pruned", "diverged"]
Spec = TypeVar("Spec")


@dataclass(frozen=True)
class TrialPlan:
    """How settings of fine-tuning are searched."""

    trials: Annotated[
        int,
        "instead, try settings of fine-tuning until there are N trials in --out; several processes "
        "may share a folder",
    ] = 0
    backbone: Annotated[str, "network whose fine-tuning --trials tries"] = DEFAULT_BACKBONE
    seed: Annotated[int, "another seed gives another split and other draws"] = 0

    def __post_init__(self) -> None:
        check_counts(trials=self.trials or 1)
        check_seed(self.seed)
        if self.trials > MOST:
            raise SpecError(f"trials is a number up to {MOST:,}; got {self.trials}.")


@dataclass(frozen=True)
class TriedSettings(Record):
    """A trial. settings: of fine-tuning, by name; `thaw` counts blocks. state: pruned after
    `epochs` of its passes, as it was worse than most at the same pass, or diverged. merit: the
    target's on validation. rank: its sort key, higher is better; () unless done. loss: on
    validation, of the last pass if it was pruned. epoch: that was kept, counted from the first pass
    of fine-tuning; 0 is the head alone."""

    number: int
    state: TrialState
    settings: dict[str, Setting]
    seconds: float
    merit: float | None = None
    rank: tuple[float, ...] = ()
    loss: float | None = None
    epoch: int | None = None
    epochs: int = 0


@dataclass(frozen=True, repr=False)
class TuningSearch(Record):
    """Settings of fine-tuning, tried on the same training and validation rows.

    train, val: the rows. head: the merit of the head alone on validation. seed: of split, training
    and draws. tried: the finished trials, by number. searched: the names of the settings that were
    searched. running: trials that other processes are at.

    >>> found = hs.search("photos", trials=20, out="found")  # doctest: +SKIP
    >>> found.best.settings, found.best.merit  # doctest: +SKIP
    """

    backbone: str
    merit_name: str
    train: int
    val: int
    seed: int
    head: float
    searched: tuple[str, ...]
    tried: tuple[TriedSettings, ...] = ()
    running: int = 0
    others: dict[str, Any] = field(default_factory=dict)  # keys of `train --config` for this data
    left_out: tuple[LeftOut, ...] = field(default=(), metadata=later())

    @property
    def ranked(self) -> tuple[TriedSettings, ...]:
        """The trials, the best first; of equal ones the earlier, and last those without a merit."""
        done = [trial for trial in self.tried if trial.rank]
        rest = [trial for trial in self.tried if not trial.rank]
        return (*sorted(done, key=lambda trial: trial.rank, reverse=True), *rest)

    @property
    def best(self) -> TriedSettings | None:
        """The best trial on validation; None if none was finished."""
        return next((trial for trial in self.ranked if trial.rank), None)

    def table(self) -> list[tuple[str, ...]]:
        """Return rows to print: a header, then the best trials."""
        names = [SHORT.get(name, name) for name in self.searched]
        header = ("trial", self.merit_name.replace("_", " "), "loss", *names, "s")
        return [header, *(self._line(trial) for trial in self.ranked[:SHOWN])]

    def _line(self, trial: TriedSettings) -> tuple[str, ...]:
        shown = _number(trial.merit) if trial.merit is not None else trial.state
        if trial.state == "pruned":
            shown = f"pruned at {trial.epochs}"
        values = (f"{trial.settings[name]:.3g}" for name in self.searched)
        return (str(trial.number), shown, _number(trial.loss), *values, f"{trial.seconds:.0f}")

    @property
    def why(self) -> str:
        """A summary of the trials in sentences."""
        name, count = self.merit_name.replace("_", " "), len(self.tried)
        waits = f" {self.running} more are running." if self.running else ""
        if (best := self.best) is None or best.merit is None:
            return f"None of {count} trials was finished.{waits}"
        usual = next((trial for trial in self.tried if trial.number == USUAL), None)
        before = f"; the head alone has {_number(self.head)}"
        if usual and usual.merit is not None and best.number != USUAL:
            before += f", the usual settings {_number(usual.merit)}"
        return (
            f"Trial {best.number} is the best of {count} on {self.val:,} rows of validation: "
            f"{name} {_number(best.merit)}{before}.{waits} The best of many figures is partly "
            f"luck: only the test part of a run shows how good the model is."
        )

    def command(self, data: str) -> str:
        """Return the command that trains with the best settings; "" without any."""
        if (best := self.best) is None:
            return ""
        given: Mapping[str, Any] = {"backbone": self.backbone, **best.settings}
        given = {**given, **({"seed": self.seed} if self.seed else {})}
        flags = [word for n, v in given.items() for word in (f"--{n.replace('_', '-')}", _exact(v))]
        target, checks = self._plan("target", TargetPlan), self._plan("checks", CheckPlan)
        return train_command(data, *data_flags(target, checks), *flags)

    def config(self) -> dict[str, Any]:
        """Return the best settings as a file for `headstart train --config`."""
        assert self.best is not None
        tuned: dict[str, Any] = {**self.best.settings, "seed": self.seed}
        if "thaw" in tuned:
            tuned["thaw"] = str(tuned["thaw"])
        return {**self.others, "backbone": self.backbone, "finetune": tuned}

    def _plan(self, name: str, kind: type[Spec]) -> Spec:
        """Return a spec of `others`, the usual one if it is not there."""
        return Settings(self.others.get(name, {}), kind_of(kind)).spec(kind)

    def __repr__(self) -> str:
        return f"{text_table(self.table())}\n{self.why}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
