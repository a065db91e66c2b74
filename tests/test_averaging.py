"""Averages of the weights during training: judged, kept and resumed in place of the weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import Stopper, kept
from test_training import PLAN, THAWED, feed, network, same, trained
from torch import Tensor

from headstart.base.errors import BundleError, SpecError
from headstart.training.averaging import Averages
from headstart.training.checkpoints import read_checkpoint
from headstart.training.judging import judge
from headstart.training.loop import train
from headstart.training.plan import Plan

LAST = replace(PLAN, keep="last")
AVERAGED = {"ema": {"ema": 0.9}, "last epochs": {"average_last": 2}}
each = pytest.mark.parametrize("how", AVERAGED.values(), ids=list(AVERAGED))


def weights(**plan: Any) -> dict[str, Tensor]:
    return trained(replace(LAST, **plan))[0].learned()


def test_the_average_of_the_last_epochs_is_the_mean_of_their_final_weights() -> None:
    second, third = weights(epochs=2), weights(epochs=3)
    for name, mean in weights(epochs=3, average_last=2).items():
        torch.testing.assert_close(mean, (second[name] + third[name]) / 2, atol=1e-7, rtol=1e-6)
    assert same(weights(epochs=1, average_last=2), weights(epochs=1))


def test_the_exponential_average_fades_by_a_decay_that_rises() -> None:
    plan, steps = replace(LAST, epochs=1, ema=0.3), 5  # of 8 of 40 rows
    at = [dict(network(THAWED).learned())]
    for rows in range(1, steps + 1):  # the weights after each step
        few = feed()
        net = network(THAWED)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headstart.training.loop._Training.order", _first(rows))
            train(net, replace(plan, ema=0.0), few, feed(seed=1))
        at.append(net.learned())
    average = {name: t.double() for name, t in at[0].items()}
    for step, own in enumerate(at[1:]):
        decay = min(0.3, (1 + step) / (10 + step))
        average = {n: decay * t + (1 - decay) * own[n].double() for n, t in average.items()}
    for name, found in weights(epochs=1, ema=0.3).items():
        torch.testing.assert_close(found.double(), average[name], atol=1e-6, rtol=1e-5)


def _first(rows: int) -> Any:
    from headstart.training.loop import _Training

    plain = _Training.order
    return lambda self: plain(self)[:rows]


@each
@pytest.mark.parametrize("keep", ["best", "last"])
def test_what_is_judged_and_kept_is_the_average(how: dict[str, Any], keep: Any) -> None:
    net, result = trained(replace(PLAN, epochs=6, keep=keep, lr=0.3, **how))
    line = next(line for line in result.history if line.epoch == result.chosen)
    assert judge(net, feed(seed=1)) == (line.val_loss, line.val_accuracy)
    _, plain = trained(replace(PLAN, epochs=6, keep=keep, lr=0.3))
    assert [e.train_loss for e in result.history] == [e.train_loss for e in plain.history]
    assert [e.val_loss for e in result.history] != [e.val_loss for e in plain.history]


@each
@pytest.mark.parametrize("steps", [1, 5, 7, 15])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_cut_off_anywhere_goes_on_with_its_averages_to_the_bit(
    how: dict[str, Any], steps: int, keep: Any, tmp_path: Path
) -> None:
    plan, path = replace(PLAN, keep=keep, **how), tmp_path / "checkpoint.safetensors"
    whole, unbroken = trained(plan)
    with pytest.raises(KeyboardInterrupt):
        trained(plan, context=kept(path, stop=Stopper(steps)))
    resumed, result = trained(plan, context=kept(path))
    assert same(whole.state_dict(), resumed.state_dict())
    assert [e.val_loss for e in result.history] == [e.val_loss for e in unbroken.history]


@each
def test_a_listener_that_stops_training_leaves_the_weights_in_the_checkpoint(
    how: dict[str, Any], tmp_path: Path
) -> None:
    """Not the averages, which the network has while it is judged."""
    from listening import Calls

    path = tmp_path / "checkpoint.safetensors"
    stop = Calls(epoch=lambda phase, number, figures: number == 2)
    trained(replace(PLAN, **how), context=replace(kept(path), listener=stop))
    tensors, _ = read_checkpoint(path)
    plain = trained(replace(LAST, epochs=2))[0].learned()
    for name, tensor in plain.items():
        assert torch.equal(tensors[f"learned.{name}"], tensor)


def test_statistics_of_trained_norms_are_averaged_and_counters_are_the_latest() -> None:
    def state(**how: Any) -> dict[str, Tensor]:
        net = network(THAWED, learn=True)
        plan = replace(LAST, norms="trained", **how)
        train(net, plan, feed(), feed(seed=1))
        return net.state_dict()

    plain, second = state(), state(epochs=2)
    found = state(average_last=2)
    mean = (plain["tail.3.running_var"] + second["tail.3.running_var"]) / 2
    torch.testing.assert_close(found["tail.3.running_var"], mean)
    count = "tail.3.num_batches_tracked"
    assert torch.equal(found[count], plain[count])
    faded = state(ema=0.9)
    assert torch.equal(faded[count], plain[count])
    assert not torch.equal(faded["tail.3.running_var"], plain["tail.3.running_var"])
    for name in ("tail.1.running_mean", "tail.1.running_var"):  # frozen
        assert torch.equal(faded[name], network().state_dict()[name])


def test_patience_and_the_best_epoch_follow_the_averages() -> None:
    _, result = trained(replace(PLAN, epochs=50, lr=1e-30, patience=2, ema=0.9))
    assert len(result.history) == 3


def test_a_checkpoint_without_its_averages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(context=kept(path, stop=Stopper(7)))
    assert not any(name.startswith("average") for name in read_checkpoint(path)[0])
    with pytest.raises(BundleError, match=r"no tensor 'average\.0\."):
        trained(replace(PLAN, ema=0.9), context=kept(path))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"ema": 1.0}, "ema is from 0 to below 1"),
        ({"ema": -0.1}, "ema is from 0 to below 1"),
        ({"average_last": 1}, "average_last is 0 or from 2 epochs on"),
        ({"average_last": -2}, "average_last is a whole number from 1 up"),
        ({"average_last": 3, "ema": 0.9}, "no second average beside ema"),
    ],
)
def test_an_average_that_can_not_be_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        replace(PLAN, **settings)


def test_a_plan_without_an_average_is_written_as_before() -> None:
    from headstart.base.values import to_plain

    assert {"ema", "average_last"}.isdisjoint(to_plain(Plan()))
    assert to_plain(Plan(ema=0.9))["ema"] == 0.9
    assert Averages.of(Plan()).number(5) == 0
