"""Adversarial fine-tuning: what it trains on, what it leaves alone, and that it makes robust."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Lines, kept, told
from torch import Tensor, nn

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.base.errors import Diverged, Mismatch, SpecError
from headstart.base.values import field_help
from headstart.cli.main import main
from headstart.data.splits import split
from headstart.features.extract import FeatureTable
from headstart.models.bundle import load_bundle
from headstart.models.finetuning import thaw, tune
from headstart.models.fitting import fit
from headstart.models.results import FitResult
from headstart.models.wording import attack_message
from headstart.specs import FeatureExtraction, FineTune, Job
from headstart.targets.classes import ClassTarget
from headstart.training.attacked import ATTACKED, Attack, pushed
from headstart.training.feeds import Feed, RowNumbers
from headstart.training.history import Count, Epoch, ParameterCount
from headstart.training.judging import judge
from headstart.training.loop import Trained, train
from headstart.training.network import Network, snapshot
from headstart.training.plan import Plan

PLAN = Plan(
    epochs=3,
    batch_size=8,
    optimizer="adam",
    lr=1e-2,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.0,
    adversarial=4 / 255,
)
ATTACK = Attack(4 / 255, steps=10)
JOB = Job(
    backbone="tiny:32",
    strategy="finetune",
    finetune=FineTune(epochs=2, batch_size=8, lr=1e-3, thaw="all", adversarial=4 / 255),
)


class Pixels(Feed):
    """Small pictures of two classes. One corner tells them apart by far, and so does a faint
    pattern over all of it, which is exact but within reach of an attack."""

    def __init__(self, n: int = 40, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        y, ids = np.arange(n) % 2, tuple(f"{i}.png" for i in range(n))
        none, target = np.zeros((n, 0), np.float32), ClassTarget(("a", "b"))
        self._table = FeatureTable(ids, none, y, target, "test")
        pattern = np.random.default_rng(9).choice([-1, 1], (8, 8, 3))
        side = np.where(y, 1, -1)[:, None, None, None]
        x = rng.normal(128, 3, (n, 8, 8, 3)) + 3 * side * pattern
        x[:, :2, :2] = rng.normal(128, 3, (n, 2, 2, 3)) + 12 * side
        self.x = torch.from_numpy(x.clip(0, 255).astype(np.uint8))

    @property
    def labelled(self) -> FeatureTable:
        return self._table

    def batch(self, rows: RowNumbers, epoch: int) -> Tensor:
        return self.x[torch.from_numpy(rows)]


class Flat(nn.Module):
    """The thawed tail: pixels (N, 8, 8, 3) -> (N, 8), after a norm whose statistics are frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer = nn.BatchNorm1d(192), nn.Linear(192, 8)
        self.norm.load_state_dict({"running_mean": torch.full((192,), 128.0)}, strict=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.layer(self.norm(pixels.float().flatten(1)) / 30)
        return x.relu()


def network() -> Network:
    thawed = ("layer.weight", "layer.bias", "norm.weight", "norm.bias")
    tail = Flat()
    return Network(tail, nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 2)), thawed)


def trained(plan: Plan = PLAN, **more: Any) -> tuple[Network, Trained]:
    net = network()
    return net, train(net, plan, Pixels(), Pixels(seed=1), **more)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def under_attack(net: Network) -> float:
    accuracy = judge(net, Pixels(100, seed=2), ATTACK)[1]
    assert accuracy is not None
    return accuracy


def test_it_makes_a_network_robust_that_is_not_so_without_it() -> None:
    plain, _ = trained(replace(PLAN, epochs=10, adversarial=0.0))
    hard, _ = trained(replace(PLAN, epochs=10))
    assert judge(plain, Pixels(100, seed=2))[1] == 1.0
    assert judge(hard, Pixels(100, seed=2))[1] == 1.0
    assert under_attack(plain) < 0.2
    assert under_attack(hard) > 0.8


def test_what_is_frozen_and_every_norms_statistics_stay_to_the_bit() -> None:
    net = network()
    net.thawed = frozenset({"layer.weight"})
    for name, parameter in net.tail.named_parameters():
        parameter.requires_grad_(name in net.thawed)
    before = snapshot(net.state_dict())
    train(net, PLAN, Pixels(), Pixels(seed=1))
    learned = {"tail.layer.weight", "head.1.weight", "head.1.bias"}
    for name, tensor in net.state_dict().items():
        assert torch.equal(before[name], tensor) == (name not in learned), name


def trained_on(monkeypatch: pytest.MonkeyPatch, rows: Pixels, plan: Plan) -> list[Tensor]:
    """The batches that a network learned from."""
    seen, real = list[Tensor](), Network.forward

    def noted(self: Network, x: Tensor) -> Tensor:
        if self.training:
            seen.append(x.clone())
        return real(self, x)

    monkeypatch.setattr(Network, "forward", noted)
    train(network(), plan, rows, rows)
    return seen


def test_it_trains_within_a_reach_that_rises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = Pixels(8)
    plan = replace(PLAN, epochs=4, adversarial_rise=0.5, adversarial_steps=1)
    seen = trained_on(monkeypatch, rows, plan)
    changes = [_ordered(x, rows) - rows.x for x in seen]
    assert [round(float(c.abs().max()), 3) for c in changes] == [2, 4, 4, 4]
    assert min(x.min() for x in seen) >= 0
    assert max(x.max() for x in seen) <= 255


def test_the_help_of_each_setting_is_its_own() -> None:
    """Also where the text of another, wrapped, has a line that begins with its name."""
    assert field_help(FineTune, "adversarial").startswith("train on the worst change")
    assert field_help(FineTune, "thaw").endswith("where training is adversarial")


def test_it_may_begin_with_all_of_its_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Pixels(8)
    seen = trained_on(monkeypatch, rows, replace(PLAN, epochs=1, adversarial_rise=0.0))
    assert (_ordered(seen[0], rows) - rows.x).abs().max() == pytest.approx(4)


def _ordered(x: Tensor, rows: Pixels) -> Tensor:
    """Changed pictures in the order of those they are nearest to."""
    away = (x[:, None].float() - rows.x[None].float()).abs().flatten(2).sum(dim=2)
    return x[away.argmin(dim=0)]


def test_every_step_begins_its_search_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[Tensor]()

    def noted(loss: Any, pixels: Tensor, change: Tensor, levels: float, steps: int) -> Tensor:
        begun.append(change / levels)
        return pushed(loss, pixels, change, levels, steps)

    monkeypatch.setattr("headstart.training.attacked.pushed", noted)
    trained(replace(PLAN, epochs=2))
    assert len(begun) == 10
    assert len({start.sum().item() for start in begun}) == 10


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_push_goes_uphill_and_stays_within_reach(steps: int) -> None:
    x, slopes = Pixels(6).x, torch.randn(8, 8, 3, generator=torch.Generator().manual_seed(0))
    start = 6 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) - 3
    changed = pushed(lambda p: (p * slopes).flatten(1).sum(1), x, start, 3.0, steps)
    gained = (changed - x) * slopes.sign()
    assert gained.abs().max() == 3
    assert (gained >= (3 if steps > 1 else 0.75) - 1e-4).all()  # 1.25 of them from the other wall


@pytest.mark.parametrize("change", [{"mixup": 0.5}, {"label_smoothing": 0.2}, {"seed": 1}])
def test_other_settings_go_on_meaning_something(change: dict[str, Any]) -> None:
    plain, other = trained()[0], trained(replace(PLAN, **change))[0]
    assert not same(plain.state_dict(), other.state_dict())


@pytest.mark.parametrize("steps", [1, 5, 7])
def test_a_run_cut_off_anywhere_goes_on_to_the_bit(tmp_path: Path, steps: int) -> None:
    plan = replace(PLAN, mixup=0.2)
    whole, unbroken = trained(plan)
    path, asked = tmp_path / "checkpoint.safetensors", iter([*[False] * (steps - 1), True])
    with pytest.raises(KeyboardInterrupt):
        trained(plan, context=kept(path, stop=lambda: next(asked)))
    resumed, result = trained(plan, context=kept(path))
    assert same(whole.state_dict(), resumed.state_dict())
    assert [replace(e, seconds=0) for e in result.history] == [
        replace(e, seconds=0) for e in unbroken.history
    ]


def test_epochs_are_judged_under_attack_and_that_is_said() -> None:
    said: list[str] = []
    net, result = trained(context=told(stage=lambda stage, text: said.append(text)))
    line = next(line for line in result.history if line.epoch == result.chosen)
    attack = Attack(PLAN.adversarial, steps=4)
    assert (line.val_loss, line.val_accuracy) == judge(net, Pixels(seed=1), attack)
    assert judge(net, Pixels(seed=1))[0] < (line.val_loss or 0)  # type: ignore[operator]
    assert len(said) == 1
    assert "changed by up to 4/255: in training by 2 steps uphill" in said[0]
    assert "by 4 steps and all of it on 40 of 40 validation rows" in said[0]


def test_only_so_many_rows_are_judged_under_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, real = list[RowNumbers](), Pixels.batch

    def noted(self: Pixels, rows: RowNumbers, epoch: int) -> Tensor:
        looked.append(rows)
        return real(self, rows, epoch)

    monkeypatch.setattr(Pixels, "batch", noted)
    judge(network(), Pixels(2 * ATTACKED), replace(ATTACK, steps=1))
    picked = np.concatenate(looked)
    assert len(set(picked)) == len(picked) == ATTACKED
    assert (picked.min(), picked.max()) == (0, 2 * ATTACKED - 1)


def test_a_single_logit_is_attacked_as_two_are() -> None:
    two, one = network(), network()
    layer, joined = nn.Linear(8, 2), nn.Linear(8, 1)
    own = layer.state_dict().items()
    joined.load_state_dict({name: tensor[1:] - tensor[:1] for name, tensor in own})
    two.head, one.head = nn.Sequential(layer), nn.Sequential(joined)
    said = [judge(net, Pixels(), ATTACK) for net in (two, one)]
    assert said[0] == pytest.approx(said[1], rel=1e-4)


class Small(nn.Module):
    """An accelerator with room for so many rows."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return x


def test_a_batch_that_is_too_large_is_attacked_in_parts_and_gives_the_same() -> None:
    nets = []
    for room in (10**6, 40):  # rows of a batch are 80
        net = network()
        net.tail = nn.Sequential(Small(room), net.tail)
        net.head = nn.Sequential(*list(net.head.children())[1:])  # dropout would draw otherwise
        nets.append(net)
        train(net, replace(PLAN, batch_size=80, epochs=2), Pixels(80), Pixels(seed=1))
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_network_that_says_no_finite_number_stops_and_is_named() -> None:
    net = network()
    with torch.no_grad():
        net.tail.layer.weight[0, 0] = float("nan")  # type: ignore[union-attr,operator]
    with pytest.raises(Diverged, match=r"tail\.layer\.weight is no longer a finite number"):
        train(net, PLAN, Pixels(), Pixels(0))  # no validation, so that a step meets it


def bad_settings() -> Iterator[tuple[dict[str, Any], str]]:
    for epsilon in (0.5 / 255, -1.0, float("nan"), float("inf"), 2.0):
        yield {"adversarial": epsilon}, "adversarial is a share of the pixels' range"
    yield {"adversarial_rise": 1.1}, "adversarial_rise is from 0 to 1"
    yield {"adversarial": 2 / 255, "adversarial_steps": 0}, "adversarial_steps is a whole number"


@pytest.mark.parametrize(("settings", "said"), list(bad_settings()))
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        replace(PLAN, **settings)


def test_strategy_auto_would_throw_it_away_and_is_refused() -> None:
    with pytest.raises(SpecError, match="Name --strategy finetune"):
        replace(JOB, strategy="auto")


def test_a_network_that_starts_from_a_cut_has_no_pixels_to_change(shapes: Path) -> None:
    parts = split(hs.read(shapes))
    backbone = hs.load_backbone("tiny:16")
    head = fit(FeatureExtraction(), backbone, parts, store=None).model.head
    recipe = replace(JOB.finetune, thaw="1")
    with pytest.raises(Mismatch, match="open it whole"):
        tune(recipe, thaw(backbone, "1"), head, (Pixels(), Pixels()))


def test_what_is_frozen_in_a_backbone_stays_so(shapes: Path) -> None:
    parts = split(hs.read(shapes))
    backbone = hs.load_backbone("tiny:16")
    before, thawed = backbone.weights(), thaw(backbone, "1").thawed
    start = fit(FeatureExtraction(), backbone, parts, store=None)
    model = fit(replace(JOB.finetune, thaw="1", keep="last"), start, parts, store=None).model
    assert isinstance(model.backbone, Backbone)
    after = model.backbone.weights()
    for name in before:
        assert np.array_equal(before[name], after[name]) == (name not in thawed), name


def test_all_of_a_network_is_thawed_unless_it_is_said_what() -> None:
    settings, backbone = replace(JOB.finetune, thaw="auto"), hs.load_backbone("tiny:16")
    assert settings.resolved(backbone, 1e-3).thaw == "all"
    assert replace(settings, adversarial=0.0).resolved(backbone, 1e-3).thaw == "1"
    assert replace(settings, thaw_from=3).resolved(backbone, 1e-3).thaw == "auto"


def test_a_run_tells_what_it_trained_on_and_what_it_chose_by(shapes: Path, tmp_path: Path) -> None:
    heard = Lines()
    settings = replace(JOB.finetune, thaw="1")
    job = replace(JOB, finetune=settings, store=hs.Store(tmp_path / "store"))
    run = hs.train(hs.read(shapes), tmp_path / "run", job, heard)
    assert run.kept == "finetune"
    assert "nothing can be kept at a cut" in heard.of("cut")[0]
    assert "attacked: loss" in heard.of("finetune")[1]
    assert any("by accuracy under attack on validation" in text for text in heard.of("finetune"))
    assert heard.of("finetune")[-1].startswith("accuracy under attack on validation: ")
    assert run.fitted.chosen["by"] == "accuracy under attack on validation"
    assert len(load_bundle(run.folder / "model").model.predict(run.splits.test, store=None)) > 0


def test_from_scratch_it_tells_what_was_bought_too(shapes: Path, tmp_path: Path) -> None:
    heard = Lines()
    job = replace(JOB, strategy="scratch", store=hs.Store(tmp_path / "store"))
    hs.train(hs.read(shapes), tmp_path / "run", job, heard)
    assert heard.of("scratch")[-1].startswith("accuracy under attack on validation: ")


def test_the_command_takes_a_fraction_and_records_it(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "run", tmp_path / "store"
    command = ["train", str(shapes), "--out", str(out), "--store", str(store)]
    more = ["--backbone", "tiny:32", "--strategy", "finetune", "--adversarial", "2/255"]
    assert main([*command, *more, "--epochs", "1", "--thaw", "all"]) == 0
    assert json.loads((out / "recipe.json").read_text())["finetune"]["adversarial"] == 2 / 255
    assert "changed by up to 2/255" in capsys.readouterr().err


@pytest.mark.parametrize(("share", "averaged"), [(1.0, False), (0.5, True)])
def test_what_was_bought_is_told_of_the_epoch_and_not_of_an_average(
    share: float, averaged: bool
) -> None:
    before = Epoch("finetune", 0, None, 1.0, 0.5, 1.0, 0.5)
    after = replace(before, epoch=1, lr=1e-3, val_accuracy=0.75)
    model: Any = None
    chosen = {"epoch": 1, "by": "accuracy", "wise": share}
    none = Count(ParameterCount(0), ParameterCount(0))
    said = attack_message(FitResult(model, chosen, (), (before, after), none))
    assert "0.500 before, 0.750 after epoch 1" in said
    assert ("before its weights were averaged" in said) == averaged
