"""The loop: what it leaves alone, what stops it, and that it goes on to the bit."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Stopper, kept, told
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from headstart.backbones.views import Views
from headstart.base.context import IN_MEMORY
from headstart.base.errors import BundleError, Diverged, SpecError, UnknownName
from headstart.base.runtime import Runtime
from headstart.base.seals import sealed
from headstart.features.extract import FeatureTable
from headstart.heads.specs import LinearSpec
from headstart.modalities.images.augment import Augment
from headstart.specs import FeatureExtraction, FineTune, SplitPlan
from headstart.targets.classes import ClassTarget
from headstart.training.checkpoints import read_checkpoint, write_checkpoint
from headstart.training.feeds import Stored, batches, view_numbers
from headstart.training.judging import judge
from headstart.training.loop import Trained, train
from headstart.training.network import Network, new_head, snapshot
from headstart.training.optimizing import make_optimizer, rate_factor
from headstart.training.plan import Plan

PLAN = Plan(
    epochs=3,
    batch_size=8,
    optimizer="adam",
    lr=1e-2,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.0,
)


def feed(n: int = 40, seed: int = 0, views: int = 1) -> Stored:
    """Two classes of small pictures at a cut: (n, 3, 8, 8), brighter and darker."""
    tables = []
    for view in range(views):
        rng = np.random.default_rng([seed, view])
        y = np.arange(n) % 2
        bright = 0.5 * y[:, None, None, None]
        cut = (rng.normal(size=(n, 3, 8, 8)) + bright).astype(np.float32)
        ids = tuple(f"{i}.png" for i in range(n))
        tables.append(
            FeatureTable(
                ids, np.zeros((n, 4), np.float32), y, ClassTarget(("a", "b")), "test", cut=cut
            )
        )
    return Stored(tuple(tables), cut=True)


def network(thawed: tuple[str, ...] = ("2.weight", "2.bias"), learn: bool = False) -> Network:
    """A frozen convolution and norm, a thawed norm after a thawed convolution, and a head."""
    torch.manual_seed(0)
    tail = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Network(tail, nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 2)), thawed, learn)


THAWED = ("2.weight", "2.bias", "3.weight", "3.bias")


def trained(plan: Plan = PLAN, **more: Any) -> tuple[Network, Trained]:
    net = network(THAWED)
    return net, train(net, plan, feed(), feed(seed=1), **more)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_training_learns() -> None:
    net, result = trained(replace(PLAN, epochs=10))
    loss, accuracy = judge(net, feed(seed=2))
    assert accuracy is not None
    assert accuracy > 0.9
    assert result.history[0].train_loss is not None
    assert loss is not None
    assert loss < result.history[0].train_loss


def test_what_is_frozen_and_every_norms_statistics_stay_to_the_bit() -> None:
    net = network(THAWED)
    before = snapshot(net.state_dict())
    train(net, PLAN, feed(), feed(seed=1))
    after = net.state_dict()
    learned = {f"tail.{n}" for n in THAWED} | {"head.1.weight", "head.1.bias"}
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) == (name not in learned), name


def test_training_mode_on_the_whole_network_would_spoil_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: what the tutorials warn of does break the test above."""
    monkeypatch.setattr(Network, "train", nn.Module.train)
    net = network(THAWED)
    before = snapshot(net.state_dict())
    train(net, PLAN, feed(), feed(seed=1))
    assert not torch.equal(net.state_dict()["tail.1.running_mean"], before["tail.1.running_mean"])


def test_norms_learn_statistics_only_when_asked_and_thawed() -> None:
    net = network(THAWED, learn=True)
    before = snapshot(net.state_dict())
    train(net, replace(PLAN, norms="trained"), feed(), feed(seed=1))
    after = net.state_dict()
    assert torch.equal(after["tail.1.running_mean"], before["tail.1.running_mean"])
    assert not torch.equal(after["tail.3.running_mean"], before["tail.3.running_mean"])


def test_epoch_0_is_before_training_and_epochs_are_numbered_on() -> None:
    net = network(THAWED)
    start = judge(net, feed(seed=1))
    result = train(net, PLAN, feed(), feed(seed=1), after=10)
    assert [line.epoch for line in result.history] == [10, 11, 12, 13]
    assert (result.history[0].val_loss, result.history[0].val_accuracy) == start
    assert result.history[0].lr is None


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_epoch_that_is_kept_is_the_one_that_is_named(keep: Any) -> None:
    net, result = trained(replace(PLAN, epochs=6, keep=keep, lr=0.3))
    line = next(line for line in result.history if line.epoch == result.chosen)
    assert judge(net, feed(seed=1)) == (line.val_loss, line.val_accuracy)
    if keep == "best":
        assert line.val_accuracy == max(entry.val_accuracy or 0 for entry in result.history)


def test_patience_ends_training_early() -> None:
    _, result = trained(replace(PLAN, epochs=50, lr=1e-30, patience=2))
    assert len(result.history) == 3  # epoch 0, and two that were no better


def test_the_same_seed_is_the_same_to_the_bit_and_another_is_not() -> None:
    one, two, other = trained()[0], trained()[0], trained(replace(PLAN, seed=1))[0]
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), other.state_dict())


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    net = network()
    torch.manual_seed(5)
    train(net, PLAN, feed(), feed(seed=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
@pytest.mark.parametrize("steps", [1, 5, 7])
def test_a_run_cut_off_anywhere_goes_on_to_the_bit(
    tmp_path: Path, optimizer: Any, steps: int
) -> None:
    plan = replace(PLAN, optimizer=optimizer, mixup=0.2, schedule="cosine", warmup=0.2)
    whole, unbroken = trained(plan)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(plan, context=kept(path, stop=Stopper(steps)))
    resumed, result = trained(plan, context=kept(path))
    assert same(whole.state_dict(), resumed.state_dict())
    assert [replace(e, seconds=0) for e in result.history] == [
        replace(e, seconds=0) for e in unbroken.history
    ]


def test_a_checkpoint_of_another_job_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(context=kept(path, stop=Stopper(3)))
    before = path.read_bytes()
    with pytest.raises(SpecError, match="was begun with other settings"):
        trained(context=kept(path, "another job"))
    assert path.read_bytes() == before


def test_a_checkpoint_never_holds_a_number_that_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(Diverged, match="a holds|a has others"):
        write_checkpoint(path, {"a": torch.tensor([1.0, float("nan")])}, {})
    assert not path.exists()


def test_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(BundleError, match="no checkpoint"):
        read_checkpoint(path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of training that was cut off after 7 steps, in its second epoch."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(context=kept(path, stop=Stopper(7)))
    return path


def refused(path: Path) -> str:
    """Why training does not go on from a checkpoint, which it leaves as it is."""
    with pytest.raises(BundleError, match=r"Remove it to begin that phase again\.") as caught:
        trained(context=kept(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_refused(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    padding = data.index(b" ", 8 + int.from_bytes(data[:8], "little") - 8)
    spread = np.random.default_rng(0).integers(8 * len(data), size=200)
    for bit in (0, 65, 8 * padding, 8 * len(data) - 1, *spread.tolist()):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        checkpoint.write_bytes(flipped)
        with pytest.raises(BundleError, match="Remove it to begin that phase again"):
            read_checkpoint(checkpoint)
    refused(checkpoint)


def test_the_control_without_its_seal_a_flipped_bit_goes_on_to_other_weights(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr("headstart.training.checkpoints.seal_holds", lambda data, name: True)
    resumed, _ = trained(context=kept(checkpoint))
    assert not same(whole.state_dict(), resumed.state_dict())


LINE = {"phase": "finetune", "epoch": 0, "lr": None, "train_loss": None, "train_accuracy": None}
LINE |= {"val_loss": 0.7, "val_accuracy": 0.5, "seconds": 0.0}


ALTERED: dict[str, tuple[Any, ...]] = {
    "epoch": (-1, 1.5, True, "1", [1], None, 10**30, 4, 2),
    "step": (-1, 6, 10**400, {}),
    "loss": ("0", None, [0.0], True, 10**400),
    "best": (-1, 2, 0.0),
    "parts": (0, -1, 2.0),
    "right": (-1, 41),
    "history": (
        *([], None, {}, "x", [1], [[]], [LINE], [LINE, LINE]),
        *([LINE, LINE | {"epoch": 1} | odd] for odd in ({"phase": "head"}, {"val_loss": "low"})),
        [LINE, LINE | {"epoch": 1, "more": 1}],
    ),
    "lr": ("fast",),
    "seconds": ([1],),
    "arithmetic": ("half", None, [], {}),
    "job": (None,),
    "more": (1,),
}


@pytest.mark.parametrize(
    ("fact", "value"),
    [(fact, value) for fact, values in ALTERED.items() for value in values],
    ids=lambda value: str(value)[-30:],
)
def test_altered_facts_of_a_checkpoint_are_refused(
    checkpoint: Path, fact: str, value: object
) -> None:
    tensors, facts = read_checkpoint(checkpoint)
    write_checkpoint(checkpoint, tensors, facts | {fact: value})
    refused(checkpoint)


@pytest.mark.parametrize("name", ["epoch", "history", "job", "step"])
def test_a_checkpoint_that_lacks_a_fact_is_refused(checkpoint: Path, name: str) -> None:
    tensors, facts = read_checkpoint(checkpoint)
    write_checkpoint(checkpoint, tensors, {k: v for k, v in facts.items() if k != name})
    assert f"it has no {name!r}" in refused(checkpoint)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learned.tail.2.weight", None),
        ("learned.tail.2.weight", torch.zeros(1)),
        ("best.head.1.bias", torch.zeros(2, dtype=torch.float64)),
        ("best.head.1.bias", None),
        ("optimizer.0.exp_avg", None),
        ("optimizer.0.exp_avg", torch.zeros(())),
        ("optimizer.99.exp_avg", torch.zeros(1)),
        ("optimizer.x", torch.zeros(1)),
        ("more", torch.zeros(1)),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_tensors_is_refused(
    checkpoint: Path, name: str, value: Tensor | None
) -> None:
    tensors, facts = read_checkpoint(checkpoint)
    tensors.pop(name, None)
    write_checkpoint(checkpoint, tensors | ({} if value is None else {name: value}), facts)
    assert "tensor" in refused(checkpoint)


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
@pytest.mark.parametrize(
    "what", ["empty", "cut short", "folder", "pipe", "loop", "dangling", "no seal", "renamed"]
)
def test_what_lies_in_the_place_of_a_checkpoint_is_refused_in_a_sentence(
    checkpoint: Path, what: str
) -> None:
    data = checkpoint.read_bytes()
    checkpoint.unlink()
    if what in ("empty", "cut short"):
        checkpoint.write_bytes(data[: -5 if what == "cut short" else 0])
    elif what == "folder":
        checkpoint.mkdir()
    elif what == "pipe":
        os.mkfifo(checkpoint)
    elif what in ("loop", "dangling"):
        checkpoint.symlink_to(checkpoint if what == "loop" else checkpoint.parent / "gone")
    else:  # as version 0.1.0 wrote them; a shard of the store
        seal = {} if what == "no seal" else {"seal": "0" * 32}
        plain = save_tensors({"a": torch.zeros(1)}, {"facts": "{}"} | seal)
        checkpoint.write_bytes(sealed(plain, "a table") if seal else plain)
    refused(checkpoint)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
def test_runs_resumed_from_flipped_checkpoints_differ_never_in_silence(tmp_path: Path) -> None:
    bench = Path(__file__).parents[1] / "bench" / "kill_train.py"
    command = [sys.executable, str(bench), "--flips", "10", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=600)


def spoiled_input() -> tuple[Network, Stored, Plan]:
    rows = feed()
    assert isinstance(rows.tables[0].cut, np.ndarray)
    rows.tables[0].cut[17, 0, 0, 0] = np.nan
    return network(THAWED), rows, PLAN


def spoiled_weight() -> tuple[Network, Stored, Plan]:
    net = network(THAWED)
    with torch.no_grad():
        net.tail[2].weight[0, 0, 0, 0] = float("nan")  # type: ignore[index]
    return net, feed(), PLAN


def spoiled_gradient() -> tuple[Network, Stored, Plan]:
    net = network(THAWED)
    parameter = dict(net.named_parameters())["tail.2.weight"]
    parameter.register_hook(lambda g: g * float("nan"))
    return net, feed(), PLAN


def rate_too_high() -> tuple[Network, Stored, Plan]:
    return network(THAWED), feed(), replace(PLAN, lr=1e9)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (spoiled_input, r"given of 17\.png is not a finite number"),
        (spoiled_weight, r"tail\.2\.weight is no longer a finite number"),
        (spoiled_gradient, r"the gradient of tail\.2\.weight is not a finite number"),
        (rate_too_high, r"The learning rate is too high: try a tenth of it"),
    ],
)
def test_what_is_not_finite_stops_within_one_step_with_its_cause(
    tmp_path: Path, spoil: Callable[[], tuple[Network, Stored, Plan]], cause: str
) -> None:
    net, rows, plan = spoil()
    path, steps = tmp_path / "c.safetensors", Stopper(10**9)
    if spoil is spoiled_input:
        plan = replace(plan, batch_size=len(rows.ids))  # so that the first step meets it
    with pytest.raises(Diverged, match=cause):
        train(net, plan, rows, feed(seed=1), context=kept(path, every_s=0.0, stop=steps))
    assert steps.left == 10**9  # no step was ever done
    assert not path.exists()


def test_a_loss_that_overflows_names_its_example() -> None:
    rows = feed()
    assert isinstance(rows.tables[0].cut, np.ndarray)
    rows.tables[0].cut[23] = 3e38
    with pytest.raises(Diverged, match=r"the loss of 23\.png is not a finite number"):
        train(network(THAWED), replace(PLAN, batch_size=40), rows, feed(seed=1))


class Small(nn.Module):
    """An accelerator with room for so many rows."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return x


def test_a_batch_that_is_too_large_is_halved_once_and_gives_the_same() -> None:
    said: list[str] = []
    roomy, small = network(THAWED), network(THAWED)
    small.tail = nn.Sequential(*small.tail.children(), Small(room=4))
    for net in (roomy, small):
        net.head = nn.Sequential(*list(net.head.children())[1:])  # dropout would draw otherwise
    train(roomy, PLAN, feed(), feed(seed=1))
    train(
        small, PLAN, feed(), feed(seed=1), context=told(stage=lambda stage, text: said.append(text))
    )
    assert len(said) == 1
    assert "run in 2 parts" in said[0]
    for a, b in zip(roomy.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_one_logit_and_two_say_the_same() -> None:
    z = torch.tensor([[-1.0], [0.3], [2.0]])
    two = torch.cat([torch.zeros_like(z), z], dim=1)
    targets = torch.tensor([[1.0, 0.0], [0.1, 0.9], [0.5, 0.5]])
    target = ClassTarget(("a", "b"))
    torch.testing.assert_close(target.loss(z, targets), target.loss(two, targets))


def test_smoothed_labels_weights_and_mixup_are_used() -> None:
    plain, _ = trained()
    for change in (
        {"label_smoothing": 0.2},
        {"mixup": 0.5},
        {"clip": 1e-3},
        {"weight_decay": 0.5, "optimizer": "adamw"},
    ):
        assert not same(plain.state_dict(), trained(replace(PLAN, **change))[0].state_dict())


def test_balanced_classes_weigh_alike() -> None:
    rows = feed(40)
    few = Stored((rows.tables[0].of(_Some(rows, [0, *range(1, 40, 2)])),), cut=True)
    plain, balanced = network(THAWED), network(THAWED)
    train(plain, PLAN, few, feed(seed=1))
    train(balanced, replace(PLAN, class_weights="balanced"), few, feed(seed=1))
    assert not same(plain.state_dict(), balanced.state_dict())


def _Some(rows: Stored, picked: list[int]) -> Any:
    from headstart.data.dataset import Dataset

    table = rows.tables[0]
    ids = tuple(table.ids[i] for i in picked)
    sources = tuple(Path(id) for id in ids)
    return Dataset(ids, sources, tuple(int(table.y[i]) for i in picked), table.classes)


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    net = network(THAWED)
    optimizer = make_optimizer(net, replace(PLAN, weight_decay=0.1, optimizer="adamw"))
    for group in optimizer.param_groups:
        flat = [p.ndim <= 1 for p in group["params"]]
        assert all(flat) if group["weight_decay"] == 0 else not any(flat)


def test_blocks_below_learn_slower() -> None:
    net = network(THAWED)
    plan = replace(PLAN, layer_decay=0.5)
    groups = make_optimizer(net, plan, {"2.weight": 2, "3.weight": 1}).param_groups
    scales = {id(p): g["scale"] for g in groups for p in g["params"]}
    parameters = dict(net.named_parameters())
    assert scales[id(parameters["head.1.weight"])] == 1
    assert scales[id(parameters["tail.3.weight"])] == 0.5
    assert scales[id(parameters["tail.2.weight"])] == 0.25


def test_the_rate_rises_then_follows_half_a_cosine() -> None:
    plan = replace(PLAN, schedule="cosine", warmup=0.1)
    factors = [rate_factor(plan, step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert {rate_factor(PLAN, step, 100) for step in range(100)} == {1.0}


def test_every_epoch_shows_every_row_once_in_a_new_order() -> None:
    orders = [np.concatenate(list(batches(50, 8, epoch, seed=0))) for epoch in range(2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert (orders[0] != orders[1]).any()


def test_in_as_many_epochs_as_views_each_row_shows_each_view() -> None:
    numbers = np.stack([view_numbers(30, 4, epoch, seed=0) for epoch in range(4)])
    assert (np.sort(numbers, axis=0) == np.arange(4)[:, None]).all()
    assert len(set(numbers[0])) > 1
    assert (view_numbers(30, 0, 7, seed=0) == 7).all()


def test_a_feed_gives_the_view_of_the_epoch() -> None:
    rows = feed(views=3)
    for epoch in range(3):
        batch = rows.batch(np.arange(10), epoch)
        for row, view in enumerate(view_numbers(40, 3, epoch, rows.seed)[:10]):
            cut = rows.tables[view].cut
            assert isinstance(cut, np.ndarray)
            assert isinstance(batch, torch.Tensor)
            assert np.array_equal(batch[row].numpy(), cut[[row]][0])


def test_an_epoch_is_one_pass_whatever_the_number_of_stored_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = list[tuple[int, int]]()  # epoch and row
    plain = Stored.batch

    def batch(self: Stored, rows: Any, epoch: int) -> Any:
        if epoch and self.cut:  # validation asks for epoch 0
            drawn.extend((epoch, int(row)) for row in rows)
        return plain(self, rows, epoch)

    monkeypatch.setattr(Stored, "batch", batch)
    train(network(THAWED), PLAN, feed(views=8), feed(seed=1))
    assert sorted(drawn) == [(epoch, row) for epoch in (1, 2, 3) for row in range(40)]


def bad_settings() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"epochs": 0}, "epochs is a whole number from 1 up"
    yield {"lr": -1.0}, "lr is a learning rate above 0"
    yield {"lr": float("nan")}, "lr is a learning rate above 0"
    yield {"layer_decay": 0.0}, "layer_decay is above 0"
    yield {"warmup": 1.0}, "warmup is from 0 to below 1"
    yield {"mixup": -0.1}, "mixup is 0 or more"


@pytest.mark.parametrize(("settings", "said"), list(bad_settings()))
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        replace(PLAN, **settings)


def test_an_unknown_optimizer_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'adam' or 'adamw'|'adam'"):
        replace(PLAN, optimizer="adamm")  # type: ignore[arg-type]


@pytest.mark.slow  # the compiler takes half a minute
def test_a_compiled_network_learns_the_same() -> None:
    plan = replace(PLAN, optimizer="sgd")  # Adam makes much of roundings
    _, plain = trained(plan)
    torch.compiler.reset()
    _, compiled = trained(plan, context=replace(IN_MEMORY, runtime=Runtime("cpu", compile=True)))
    for a, b in zip(plain.history, compiled.history, strict=True):
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-4)


def test_a_network_that_can_not_be_compiled_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(module: nn.Module, options: object) -> Any:
        def run(x: Tensor) -> Tensor:
            raise TorchDynamoException("no C++ compiler\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(SpecError, match=r"this machine \(no C\+\+ compiler\): leave --compile out"):
        trained(context=replace(IN_MEMORY, runtime=Runtime("cpu", compile=True)))


def test_a_seed_is_any_whole_number_from_0_on() -> None:
    for make in (FineTune, FeatureExtraction, SplitPlan):
        with pytest.raises(SpecError, match="seed is a whole number from 0 on; got -1"):
            make(seed=-1)
    one, other = (new_head(LinearSpec(), 4, 3, 2**70 + n).state_dict() for n in (0, 1))
    assert not torch.equal(one["0.weight"], other["0.weight"])
    square = np.zeros((8, 8, 3), np.uint8)
    assert Views(Augment(flip="both"), 2**70).view({"pixels": square[None]}, b"", 1)
