"""`headstart train` on several processes, which torchrun starts: fine-tuning is divided among them.

The first process does everything else, as without the others. These wait for it, then read the data
and the stored features again, come to the same network, and take their part of every batch.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from headstart.base.errors import SpecError
from headstart.base.listener import Listener
from headstart.base.ranks import ALONE, Ended, Group, Ranks, several_asked, threads_each
from headstart.base.runtime import keep_memory
from headstart.data.dataset import Dataset
from headstart.runs.job import AUTO, Job
from headstart.runs.run import learn
from headstart.runs.stages import CUT, RunState
from headstart.training.loop import check_plan_together


def check_together(job: Job, alone: Mapping[str, bool]) -> None:
    """Raise SpecError for what is not divided among processes. alone: further flags that were
    given, by name."""
    asked = {
        **alone,
        "budget": bool(job.budget_s),
        "folds": bool(job.folds),
        "shots": bool(job.shots),
        "ensemble": job.members > 1,
        "augment auto": job.chooses_changes,
        f"backbone {AUTO}": job.backbone == AUTO,
        f"strategy {job.strategy}": not job.tunes,
    }
    if wrong := next((name for name, given in asked.items() if given), None):
        raise SpecError(
            f"torchrun divides the fine-tuning of one run among processes; --{wrong} does not go "
            f"with it: leave it out, or type headstart train without torchrun."
        )
    check_plan_together(job.finetune)


def joined(job: Job) -> tuple[Ranks, Job]:
    """Join the processes that torchrun started; return them, and the job with this one's threads.

    Raises SpecError for a device that they cannot share.
    """
    if not several_asked():
        return ALONE, job
    own = job.runtime
    threads = own.threads or threads_each(), own.decode_threads or threads_each()
    runtime = replace(own, threads=threads[0], decode_threads=threads[1]).resolved()
    if runtime.device not in ("cpu", "cuda"):
        raise SpecError(
            f"Several processes compute on CPUs or on CUDA GPUs, not on {runtime.device}: type "
            f"--device cpu, or headstart train without torchrun."
        )
    return Group(runtime.device), replace(job, runtime=runtime)


def follow(read: Callable[[], Dataset], out: Path, job: Job, ranks: Ranks) -> None:
    """Take part in the trainings of the first process, whose run is in `out`, until their end.

    read: reads the data, once the first process has stored its features.
    """
    with TemporaryDirectory() as folder, suppress(Ended):
        ranks.wait()
        if (out / CUT).exists():  # what the first process decided to keep
            shutil.copy(out / CUT, folder)
        keep_memory()
        data = read()
        state = RunState.begin(Path(folder), job.for_data(data, Listener()), Listener())
        state.context = replace(state.context, ranks=ranks)
        learn(state, data)
