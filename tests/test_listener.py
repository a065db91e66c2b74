"""What listeners hear of training, and what they may ask of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from listening import Calls, Lines, kept, progress_of
from test_training import same, trained

import headstart as hs
from headstart.base.context import IN_MEMORY
from headstart.data.splits import split
from headstart.models.fitting import fit
from headstart.runs.tensorboard import TensorBoardListener
from headstart.specs import FeatureExtraction, FineTune, Job, LinearSpec

HEAD = FeatureExtraction(LinearSpec(epochs=3))
TUNE = FineTune(epochs=2, thaw="1", lr=1e-3)


class Epochs(Lines):
    """Keeps what it hears of epochs, and may stop training or fail after one of them."""

    def __init__(self, stop: int | None = None, fail: int | None = None, of: str = "") -> None:
        super().__init__()
        self.heard = list[tuple[str, int]]()
        self.figures = list[Mapping[str, float]]()
        self.stop, self.fail, self.of_phase = stop, fail, of

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool:
        self.heard.append((phase, number))
        self.figures.append(figures)
        if number == self.fail:
            raise OSError(28, "No space left on device")
        return number == self.stop and phase.startswith(self.of_phase)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    store = hs.Store(tmp_path / "store")
    return Job(backbone="tiny:32", recipe=HEAD, finetune=TUNE, strategy="finetune", store=store)


def test_a_run_tells_every_epoch_and_records_where_it_was_stopped(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    listener = Epochs(stop=1, of="finetune")
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, refit=False), listener=listener)
    assert listener.heard == [*(("head", n) for n in range(4)), ("finetune", 0), ("finetune", 1)]
    history = (run.folder / "history.csv").read_text().splitlines()[1:]
    numbered_on = [(p, n + 3 * (p == "finetune")) for p, n in listener.heard]
    assert [line.split(",")[:2] for line in history] == [[p, str(n)] for p, n in numbered_on]
    assert {"train_loss", "val_accuracy", "seconds"} <= listener.figures[0].keys()
    assert [figures.get("lr") for figures in listener.figures[:2]] == [None, HEAD.head_lr]
    chosen = json.loads((run.folder / "recipe.json").read_text())["chosen"]
    assert (chosen["finetune"]["stopped_after"], "stopped_after" in chosen["head"]) == (4, False)
    assert any("stopped after epoch 1" in line for line in listener.of("finetune"))


def test_fit_tells_its_listener_of_features_steps_and_epochs(shapes: Path) -> None:
    listener, stages = Epochs(stop=1), set[str]()
    listener.progress = lambda stage, *counts: stages.add(stage)  # type: ignore[method-assign]
    splits = split(hs.read(shapes))
    head = fit(HEAD, "tiny:32", splits, store=None, listener=listener)
    assert (head.model.epochs, head.chosen["stopped_after"]) == (1, 1)
    fit(TUNE, head, splits, store=None, listener=listener)
    assert listener.heard == [("head", 0), ("head", 1), ("finetune", 0), ("finetune", 1)]
    assert stages == {"features", "head", "finetune"}


def test_the_control_a_listener_that_only_hears_changes_no_weight() -> None:
    alone, _ = trained()
    heard, result = trained(context=replace(IN_MEMORY, listener=Epochs()))
    assert same(alone.state_dict(), heard.state_dict())
    assert not result.stopped


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_phase_that_was_stopped_stays_so_when_its_run_goes_on(
    tmp_path: Path, number: int
) -> None:
    context = replace(kept(tmp_path / "c.safetensors"), listener=Epochs(stop=number))
    net, result = trained(context=context)
    again, resumed = trained(context=kept(tmp_path / "c.safetensors"))
    assert (result.stopped, len(result.history)) == (resumed.stopped, len(resumed.history))
    assert (result.stopped, result.history[-1].epoch) == (True, number)
    assert same(net.state_dict(), again.state_dict())


@pytest.mark.parametrize("number", [0, 1, 3])
def test_after_an_error_of_its_listener_training_goes_on_to_the_bit(
    tmp_path: Path, number: int
) -> None:
    whole, _ = trained()
    context = kept(tmp_path / "c.safetensors")
    with pytest.raises(OSError, match="No space left on device") as error:
        trained(context=replace(context, listener=Epochs(fail=number)))
    assert "the same call goes on from there" in error.value.__notes__[0]
    again = Epochs(fail=number)  # what was trained is not told, or trained, again
    net, _ = trained(context=replace(context, listener=again))
    assert ("finetune", number) not in again.heard
    assert same(whole.state_dict(), net.state_dict())


def test_an_error_in_a_message_or_in_progress_ends_the_run_and_loses_nothing(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug of the listener")

    data, out = hs.read(shapes), tmp_path / "run"
    for listener in (Calls(stage=fail), progress_of("features", fail), progress_of("head", fail)):
        with pytest.raises(ZeroDivisionError, match="a bug of the listener"):
            hs.train(data, out, job, listener=listener)
    assert (out / "checkpoint-head.safetensors").exists()


def test_tensorboard_gets_the_curves_while_training_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    live, sizes = TensorBoardListener(tmp_path / "curves"), list[int]()

    def epoch(phase: str, number: int, figures: Mapping[str, float]) -> None:
        live.epoch(phase, number, figures)
        (events,) = live.folder.iterdir()
        sizes.append(events.stat().st_size)

    trained(context=replace(IN_MEMORY, listener=Calls(epoch=epoch)))
    assert len(sizes) == len(set(sizes)) == 4  # it grew with each of them
    (events,) = live.folder.iterdir()
    assert all(b"finetune/" + name in events.read_bytes() for name in (b"train_loss", b"lr"))
