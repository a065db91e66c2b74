"""Training on several processes: the weights of one, from the same checkpoints."""

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Stopper
from safetensors.numpy import load_file
from test_training import PLAN as USUAL
from test_training import THAWED, feed, network, same
from torch import nn

import headstart as hs
from headstart.base.context import IN_MEMORY, Checkpointing, RunContext
from headstart.base.errors import LostRank, SpecError
from headstart.base.ranks import ALONE, Ended, Group, Ranks
from headstart.cli.main import main
from headstart.runs.job import Job
from headstart.runs.together import check_together
from headstart.targets.supervision import Supervision
from headstart.training.feeds import Stored
from headstart.training.loop import train
from headstart.training.network import Network, snapshot
from headstart.training.plan import Plan

PLAN = replace(USUAL, optimizer="sgd", lr=0.05)  # whose steps are as exact as the gradients
ROWS = 37  # in batches of 8: the last has 5, which two processes share unevenly


def uneven(n: int = ROWS) -> Stored:
    """Rows that count differently."""
    table = feed(n).tables[0]
    weights = np.random.default_rng(5).uniform(0.1, 3.0, n)
    return Stored((replace(table, supervision=Supervision(weights)),), cut=True)


def without_dropout() -> Network:
    net = network(THAWED)
    head: Any = net.head
    return Network(net.tail, nn.Sequential(head[1]), THAWED)


START = without_dropout()  # made once: threads share PyTorch's random numbers


def learned(ranks: Ranks, plan: Plan = PLAN, **more: Any) -> dict[str, torch.Tensor]:
    """Return the weights of a training, a part of which this process takes."""
    net = copy.deepcopy(START)
    context = replace(more.pop("context", IN_MEMORY), ranks=ranks)
    train(net, plan, uneven(), feed(11, seed=1), context=context, **more)
    return snapshot(net.learned())


class Meeting:
    """What threads exchange, which stand for processes."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier = size, threading.Barrier(size, timeout=60)
        self.values = dict[int, Any]()

    def all(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        every = [self.values[r] for r in range(self.size)]
        self.barrier.wait()
        return every


class Thread(Ranks):
    def __init__(self, rank: int, meeting: Meeting, averaged: bool = False) -> None:
        super().__init__(rank, meeting.size)
        self.meeting, self.averaged = meeting, averaged

    def add(self, *values: float) -> tuple[float, ...]:
        return tuple(map(sum, zip(*self.meeting.all(self.rank, values), strict=True)))

    def add_gradients(self, parameters: Any) -> None:
        own = {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}
        every = self.meeting.all(self.rank, own)
        for name, p in parameters.items():
            p.grad = sum(each[name] for each in every if name in each)

    def any(self, own: bool) -> bool:
        return any(self.meeting.all(self.rank, own))

    def shared(self, value: Any) -> Any:
        return self.meeting.all(self.rank, value)[0]

    def shared_bytes(self, data: bytes) -> bytes:
        given: bytes = self.shared(data)
        return given

    def equal(self, tensors: Any) -> None:
        for name, tensor in self.shared(tensors).items():
            tensors[name].copy_(tensor.clone())


def in_threads(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Return what each of several processes returns or raises."""
    meeting, results = Meeting(size), dict[int, Any]()

    def one(rank: int) -> None:
        try:
            results[rank] = work(Thread(rank, meeting))
        except BaseException as error:
            results[rank] = error
            if not isinstance(error, KeyboardInterrupt):
                meeting.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(size)]


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], by: float) -> None:
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=0, atol=by)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_several_take_the_steps_of_one(size: int) -> None:
    """7 of them have no row of some batches' last rows."""
    alone = learned(ALONE)
    several = in_threads(size, learned)
    assert all(same(several[0], other) for other in several[1:])
    close(several[0], alone, by=1e-6)


def test_mixup_blends_rows_of_the_whole_batch() -> None:
    plan = replace(PLAN, mixup=0.4, class_weights="balanced")
    several = in_threads(2, lambda ranks: learned(ranks, plan))
    close(several[0], learned(ALONE, plan), by=1e-6)


def test_averages_of_each_processs_own_gradient_would_be_another_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: a loss that is averaged over each part, as is usual."""
    from headstart.training.objective import Objective

    whole = Objective.weights

    def of_part(self: Objective, labels: Any) -> torch.Tensor:
        weights = whole(self, labels)
        parts = [Ranks(rank, 2).part(len(weights)) for rank in (0, 1)]
        return torch.cat([weights[p] / weights[p].sum() / 2 for p in parts])

    alone = learned(ALONE)
    monkeypatch.setattr(Objective, "weights", of_part)
    apart = in_threads(2, learned)[0]
    assert max(float((apart[n] - alone[n]).abs().max()) for n in alone) > 1e-3


def stopped_after(steps: int, path: Path) -> RunContext:
    own = Checkpointing(path, "job", every_s=0.0, stop=Stopper(steps))
    return replace(IN_MEMORY, checkpoints=own)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_a_checkpoint_goes_on_with_any_number_of_processes(
    before: int, after: int, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    others = [replace(stopped_after(99, path), checkpoints=Checkpointing(path, "job"))] * 3

    def first(ranks: Ranks) -> Any:
        return learned(ranks, context=stopped_after(7, path) if ranks.leads else others[0])

    cut = in_threads(before, first) if before > 1 else _caught(lambda: first(ALONE))
    assert all(isinstance(result, KeyboardInterrupt) for result in cut)
    again = in_threads(after, lambda ranks: learned(ranks, context=others[ranks.rank]))
    close(again[0], learned(ALONE), by=1e-6)
    if before == after:
        assert same(again[0], in_threads(2, learned)[0])


def _caught(work: Callable[[], Any]) -> list[BaseException]:
    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    return [caught.value]


def test_what_cannot_be_divided_is_refused_in_one_sentence() -> None:
    with pytest.raises(SpecError, match="leave --norms trained out"):
        learned(Ranks(0, 2), replace(PLAN, norms="trained"))
    for settings, name in (({"folds": 3}, "folds"), ({"strategy": "extract"}, "strategy extract")):
        with pytest.raises(SpecError, match=f"--{name} does not go with it"):
            check_together(Job(**settings), {"seeds": False})
    with pytest.raises(SpecError, match="--seeds does not"):
        check_together(Job(), {"seeds": True})


def test_a_function_is_refused_where_a_command_is_meant(
    monkeypatch: pytest.MonkeyPatch, shapes: Path
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="not that of a function: type torchrun"):
        hs.train(shapes, shapes.parent / "run", backbone="tiny:32")
    assert not (shapes.parent / "run").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_other_commands_are_refused_by_one_process(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["predict", "run", "a.png"]) == 2
    said = capsys.readouterr().err.split()
    wanted = "error only `headstart train` divides work among them: type headstart predict without"
    assert set(wanted.split()) <= set(said) if rank == "0" else said == []


def second() -> None:
    """Be the second process of the test below."""
    ranks = Group("cpu")
    try:
        ranks.wait()
        learned(ranks)
    except Ended:
        ranks.add(1.0)
        os._exit(9)  # as if it was killed


@pytest.mark.long
def test_two_real_processes_and_the_death_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    for name, value in {**own, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    here, alone = str(Path(__file__).parent), learned(ALONE)
    code = f"import sys; sys.path.insert(0, {here!r}); import test_ranks; test_ranks.second()"
    env = {**os.environ, "RANK": "1"}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as other:
        ranks = Group("cpu")
        close(learned(ranks), alone, by=1e-6)
        ranks.end()
        assert ranks.add(0.0) == (1.0,)
        with pytest.raises(LostRank, match="The same command goes on from the last checkpoint"):
            ranks.add(0.0)
        assert other.wait() == 9
    ranks.close()


def run_under_torchrun(data: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """Start a training on two processes, in a session of its own."""
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *HEADSTART, "train", str(data)]
    settings = [*SETTINGS, "--out", str(out), "--store", str(data.parent / "store"), *more]
    return subprocess.Popen(
        [sys.executable, *words, *settings], stderr=subprocess.PIPE, text=True, env=WITHOUT_RANKS
    )


HEADSTART = ("-m", "headstart")
SETTINGS = (
    *("--backbone", "tiny:32", "--strategy", "finetune", "--thaw", "all", "--epochs", "4"),
    *("--batch-size", "16", "--optimizer", "sgd", "--lr", "0.001", "--keep", "last"),
    *("--threads", "1", "--insights", "none", "--no-refit", "--checkpoint-s", "0"),
)
WITHOUT_RANKS = {n: v for n, v in os.environ.items() if n not in ("RANK", "WORLD_SIZE")}


def weights_of(run: Path) -> dict[str, Any]:
    files = sorted((run / "model").glob("*.safetensors"))
    return {f"{f.name} {n}": t for f in files for n, t in load_file(f).items()}


@pytest.mark.slow
def test_a_run_whose_process_was_killed_ends_with_the_same_bits(
    shapes: Path, tmp_path: Path
) -> None:
    undisturbed, killed, alone = (tmp_path / name for name in ("undisturbed", "killed", "alone"))
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    with run_under_torchrun(data, undisturbed) as torchrun:
        torchrun.communicate()
    assert torchrun.returncode == 0
    with run_under_torchrun(data, killed) as torchrun:
        assert torchrun.stderr is not None
        while "epoch 2" not in torchrun.stderr.readline():
            pass
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        ranks = {
            Path(f"/proc/{pid}/environ").read_bytes().split(b"\0RANK=")[1][:1]: pid
            for pid in children
        }
        os.kill(int(ranks[b"1"]), signal.SIGKILL)
        said = torchrun.stderr.read()
    assert said.count("error     ") + said.count("stopped   ") == 1, said
    shutil.copytree(killed, alone)
    with run_under_torchrun(data, killed) as torchrun:
        torchrun.communicate()
    assert torchrun.returncode == 0
    words = [*HEADSTART, "train", str(data), *SETTINGS, "--out", str(alone)]
    store = ["--store", str(tmp_path / "store")]
    subprocess.run([sys.executable, *words, *store], check=True, env=WITHOUT_RANKS)
    wanted = weights_of(undisturbed)
    for name, tensor in weights_of(killed).items():
        assert (tensor == wanted[name]).all(), name
    for name, tensor in weights_of(alone).items():
        np.testing.assert_allclose(tensor, wanted[name], rtol=0, atol=1e-6)
