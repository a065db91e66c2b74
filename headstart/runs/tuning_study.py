"""The trials of a search in a folder, drawn by Optuna, shared by processes and resumable.

    OUT/trials.jsonl        Optuna's journal of the trials, only ever appended to
    OUT/.lock, .journal     locks of a process that takes a trial, or writes
    OUT/.worker-*           a lock for each process at work; it goes when the process does

Each draw has its own seed and depends on the finished trials alone, so that one process that is
killed and starts again draws what it would have drawn.
"""

import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from headstart.base.atomic import alone, is_locked, lock
from headstart.base.errors import SpecError
from headstart.evaluation.tuning_search import USUAL, TriedSettings
from headstart.evaluation.tuning_space import Dimension, Setting
from headstart.evaluation.tuning_trial import TrialResult
from headstart.runs.search import JOURNAL

LOCK, WORKER = ".lock", ".worker-"
ASKED = "asked"  # the study's attribute of what it is a search over
FIRST = 8  # trials that are drawn at random, before the others inform the draws
WARM = 5  # finished trials before any is pruned
PATIENT = 2  # passes before which no trial is pruned
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
NAME = "fine-tuning"


@dataclass(frozen=True, eq=False)
class Taken:
    """A trial that this process runs. number: in the search; a trial of a killed process is taken
    again under its number. drawn: the settings, by name."""

    number: int
    drawn: dict[str, Setting]
    trial: optuna.Trial

    def prune(self, epoch: int, loss: float) -> bool:
        """Record an epoch's loss on validation; return whether most trials had less by then."""
        self.trial.report(loss, epoch)
        return self.trial.should_prune()


@dataclass(frozen=True, eq=False)
class Study:
    """The trials of a folder. seed: of the draws."""

    folder: Path
    dimensions: Sequence[Dimension]
    seed: int
    worker: Path

    @cached_property
    def _study(self) -> optuna.Study:
        path = self.folder / JOURNAL
        backend = JournalFileBackend(str(path), lock_obj=_Lock(path))
        return optuna.create_study(
            storage=JournalStorage(backend),
            study_name=NAME,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM, n_warmup_steps=PATIENT),
            load_if_exists=True,
        )

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Begin the study, or go on with it; SpecError if it is over anything else."""
        with self._alone():
            known = self._study.user_attrs.get(ASKED)
            if known is None:
                self._study.set_user_attr(ASKED, dict(asked))
                return
        if differing := [name for name in asked if known.get(name) != asked[name]]:
            raise SpecError(
                f"{self.folder} holds a search with {_listed(differing)} other than this one's: "
                f"repeat its command to go on with it, or name another --out."
            )

    def take(self, total: int, usual: Mapping[str, Setting]) -> Taken | None:
        """Take the first trial of `total` that is neither finished nor in work; None if all are.

        usual: the settings of the first trial, which are moved into the space.
        """
        with self._alone(), _quiet():
            taken = {_number(trial) for trial in self._alive()}
            number = next((n for n in range(total) if n not in taken), None)
            if number is None:
                return None
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if number == USUAL and not waiting:
                own = {d.name: d.nearest(usual[d.name]) for d in self.dimensions}
                self._study.enqueue_trial(own)
            self._study.sampler = _sampler(self.seed, number)
            trial = self._study.ask()
            trial.set_user_attr("number", number)
            trial.set_user_attr("worker", self.worker.name)
            drawn = {d.name: d.rounded(_drawn(trial, d)) for d in self.dimensions}
            return Taken(number, drawn, trial)

    def finish(self, taken: Taken, settings: Mapping[str, Setting], result: TrialResult) -> None:
        """Record the result of a trial. settings: drawn ones and fixed ones."""
        told = TriedSettings(
            number=taken.number,
            state=result.state,
            settings=dict(settings),
            seconds=result.seconds,
            merit=result.merit,
            rank=result.rank,
            loss=result.loss,
            epoch=result.epoch,
            epochs=result.epochs,
        )
        with _quiet():
            taken.trial.set_user_attr("precision", result.precision)
            taken.trial.set_user_attr("told", told.to_plain())
            if result.value is None:  # diverged, too: the sampler learns that it was bad
                self._study.tell(taken.trial, state=TrialState.PRUNED)
            else:
                self._study.tell(taken.trial, result.value)

    def tried(self) -> tuple[TriedSettings, ...]:
        """Return the finished trials, by number."""
        own = self._study.get_trials(deepcopy=False, states=FINISHED)
        found = [TriedSettings.read(trial.user_attrs["told"]) for trial in own]
        return tuple(sorted(found, key=lambda trial: trial.number))

    def running(self) -> int:
        """Return how many trials are in work."""
        with self._alone():
            return sum(trial.state == TrialState.RUNNING for trial in self._alive())

    def precision(self) -> str | None:
        """Return the precision in which the first trial computed; None if it is not finished."""
        for trial in self._study.get_trials(deepcopy=False, states=FINISHED):
            if _number(trial) == USUAL and trial.state == TrialState.COMPLETE:
                return str(trial.user_attrs["precision"])
        return None

    def remembered(self, name: str, measure: Callable[[], float]) -> float:
        """Return a figure of the study, measured once."""
        if (known := self._study.user_attrs.get(name)) is None:
            known = measure()
            self._study.set_user_attr(name, known)
        return float(known)

    def _alive(self) -> list[FrozenTrial]:
        """Return the finished trials and those in work; give up those of processes that ended.

        Called with the folder's lock held.
        """
        states = (*FINISHED, TrialState.RUNNING)
        found = list[FrozenTrial]()
        for trial in self._study.get_trials(deepcopy=False, states=states):
            if trial.state == TrialState.RUNNING and not self._at_work(trial):
                self._study.tell(trial.number, state=TrialState.FAIL)
            else:
                found.append(trial)
        return found

    def _at_work(self, trial: FrozenTrial) -> bool:
        """Return whether the process of a trial still runs."""
        name = str(trial.user_attrs.get("worker", ""))
        if not name or name == self.worker.name:  # a process is at one trial at a time
            return False
        with suppress(OSError):
            return is_locked(self.folder / name)
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with alone(self.folder / LOCK), _quiet():
            yield


@contextmanager
def at_work(folder: Path) -> Iterator[Path]:
    """Yield a locked file that stands for this process in the folder; it is removed at the end.

    Those of processes that were killed are removed, too.
    """
    with ExitStack() as held:
        with alone(folder / LOCK):
            for path in folder.glob(f"{WORKER}*"):
                with suppress(OSError):
                    if not is_locked(path):
                        path.unlink()
            path = folder / f"{WORKER}{os.getpid()}-{secrets.token_hex(4)}"
            lock(held.enter_context(open(path, "xb")).fileno())
        held.callback(path.unlink, missing_ok=True)
        yield path


class _Lock(JournalFileOpenLock):
    """A lock of the kernel on the journal, which a killed process gives back at once.

    An entry that a killed process wrote in part is cut off before the next one is written.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held: Any = None

    def acquire(self) -> bool:
        self._held = alone(self._journal.with_name(".journal"))
        self._held.__enter__()
        _cut_torn(self._journal)
        return True

    def release(self) -> None:
        self._held.__exit__(None, None, None)


def _cut_torn(journal: Path) -> None:
    """Cut off what follows the last line's end."""
    with open(journal, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return a sampler (TPE: Bergstra et al. 2011) whose draws depend on nothing but the finished
    trials, the seed and the trial's number."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return optuna.samplers.TPESampler(
        n_startup_trials=FIRST, multivariate=True, constant_liar=True, seed=own
    )


def _drawn(trial: optuna.Trial, own: Dimension) -> Setting:
    values: list[Any] = list(own.values)
    if own.scale == "choice":
        chosen: Setting = trial.suggest_categorical(own.name, values)
        return chosen
    if own.scale == "whole":
        return trial.suggest_int(own.name, *values)
    return trial.suggest_float(own.name, *values, log=own.scale == "log")


def _number(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get("number", -1))


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna say nothing but errors; some versions call parts of it experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
