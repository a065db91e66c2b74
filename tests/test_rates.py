"""`headstart train --lr-find`: the losses of steps at rising rates, and nothing written."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import count_left_out
from torch import nn

import headstart as hs
from headstart.cli.main import main
from headstart.cli.printing import print_table
from headstart.errors import DataError, SpecError
from headstart.features.extract import FeatureTable
from headstart.models.rate_test import FIRST, RateTest
from headstart.specs import FineTune, Job
from headstart.targets.registry import TARGETS
from headstart.training.feeds import Stored, batches
from headstart.training.loop import losses_at
from headstart.training.network import Network
from headstart.training.plan import Plan

RATES = tuple(np.geomspace(1e-7, 10, 100).tolist())
TINY: dict[str, Any] = {"backbone": "tiny:32", "store": None, "lr_find": True}


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.models.rate_test.STEPS", 25)


def losses_of(losses: Any) -> RateTest:
    return RateTest("lr", 1e-4, RATES, tuple(np.asarray(losses, float).tolist()))


def test_a_valley_gives_a_tenth_of_its_rate() -> None:
    valley = 1.0 - 0.5 * np.exp(-((np.log10(RATES) + 2) ** 2))  # lowest at 0.01
    noise = np.random.default_rng(0).normal(0, 0.02, 100)
    rate = losses_of(valley + noise).suggested
    assert rate is not None
    assert 5e-4 <= rate <= 5e-3  # the running mean lags behind
    assert f"--lr {rate:g}, a tenth" in losses_of(valley + noise).verdict


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_rise_give_no_rate(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0.5, 0.1, 100)
    for losses in (noise, noise + np.array(RATES), np.zeros(100), noise[:FIRST]):
        assert losses_of(losses).suggested is None
    assert (
        losses_of(1e-6 * (1 - np.arange(100) / 100)).suggested is None
    )  # nothing is left to learn
    assert "Leave --lr out (0.0001)" in losses_of(noise).verdict


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(losses_of(np.minimum(1 + np.array(RATES) ** 3, 1e6)).table())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("  1.0e-07  1")


def test_the_losses_are_those_of_plain_steps() -> None:
    """A slow reference: SGD with momentum, written out."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)).astype(np.float32), rng.integers(2, size=20)
    table = FeatureTable(tuple(map(str, range(20))), x, y, ("a", "b"), "")  # type: ignore[arg-type]
    head, plan = nn.Linear(3, 2), Plan(batch_size=8, optimizer="sgd", weight_decay=0.0)
    own, rates = copy.deepcopy(head), (0.1, 0.2, 0.4, 0.8, 1.6)
    optimizer = torch.optim.SGD(own.parameters(), momentum=0.9)
    picked = [*batches(20, 8, 1, 0), *batches(20, 8, 2, 0)]
    expected = []
    for rate, rows in zip(rates, picked, strict=False):
        optimizer.param_groups[0]["lr"] = rate
        loss = nn.functional.cross_entropy(
            own(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    found = list(losses_at(rates, Network(nn.Identity(), head, ()), plan, Stored((table,), False)))
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("few_steps")
def test_the_command_writes_nothing_but_features(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbone", "tiny:32", "--store", str(tmp_path / "store"), "--lr-find"]
    for out in ([], ["--out", str(tmp_path / "run")]):
        assert main(["train", str(shapes), *words, *out]) == 0
        shown = capsys.readouterr().out
        assert "1.0e-07" in shown
        assert "--lr" in shown
    assert not (tmp_path / "run").exists()
    assert main(["train", str(shapes)]) == 2  # without the flag a folder is needed


@pytest.mark.usefixtures("few_steps")
def test_files_that_cannot_be_read_are_named(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shapes / "dark" / "00.png").write_bytes(b"damaged")
    words = ["--backbone", "tiny:32", "--lr-find", "--max-bad", "0.5"]
    assert main(["train", str(shapes), *words, "--store", str(tmp_path / "store")]) == 3
    assert count_left_out(capsys.readouterr().err, "dark/00.png") == 1


@pytest.mark.parametrize("kind", [n for n in TARGETS.built_in if not TARGETS[n].no_search])
@pytest.mark.usefixtures("few_steps")
def test_every_target_has_its_rates_tested(kind: str) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(3, size=45)
    pixels = [np.full((16, 16, 3), 60 * i + n % 40, np.uint8) for n, i in enumerate(levels)]
    labels: dict[str, Any] = {
        "class": [str(i) for i in levels],
        "number": levels.tolist(),
        "grades": [str(i) for i in levels],
        "labels": [["some"] * (i > 0) + ["many"] * (i > 1) for i in levels.tolist()],
    }
    found = hs.train(hs.read((pixels, labels[kind]), target=kind), **TINY)
    assert found.setting == "lr"
    assert len(found.losses) > FIRST
    assert found.usual > 0


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"strategy": "extract", "head": "linear"}, "head_lr"),
        ({"strategy": "extract", "head": "mlp", "hidden": 8, "flip": "both"}, "head_lr"),
        ({"strategy": "scratch", "batch_size": 8}, "lr"),
        ({"thaw": "all", "mixup": 0.2}, "lr"),
        ({"flip": "horizontal", "views": 2, "thaw": "1"}, "lr"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("few_steps")
def test_all_that_is_trained_by_steps_is_tested(
    settings: dict[str, Any], setting: str, shapes: Path
) -> None:
    found = hs.train(shapes, **{**TINY, **settings})
    assert found.setting == setting
    assert np.isfinite(found.losses).all()


@pytest.mark.usefixtures("few_steps")
def test_texts_are_tested_too(tmp_path: Path) -> None:
    rows = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(15)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = hs.train(tmp_path / "t.jsonl", **{**TINY, "backbone": "tiny-text:16"})
    assert len(found.losses) > FIRST


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "extract"}, "A logistic head is solved, and has no learning rate"),
        ({"head": "nearest"}, "A nearest head is solved, and has no learning rate"),
        ({"seeds": 2}, "so seeds would change nothing"),
        ({"dry_run": True}, "so dry_run would change nothing"),
        ({"track": "tensorboard"}, "so track would change nothing"),
        ({"budget": "10m"}, "so budget would change nothing"),
        ({"resume": True}, "so resume would change nothing"),
        ({"shots": 3}, "so shots would change nothing"),
        ({"backbone": "auto"}, "A rate is found for one backbone"),
        ({"lr_find": False}, "Name the folder for the run"),
    ],
    ids=str,
)
def test_nothing_to_test_is_one_sentence(settings: dict[str, Any], says: str, shapes: Path) -> None:
    with pytest.raises(SpecError, match=says):
        hs.train(shapes, **{**TINY, **settings})


def test_a_config_that_thaws_nothing_has_no_rate(shapes: Path) -> None:
    frozen = Job(finetune=FineTune(thaw="none"))  # the flag itself is refused
    with pytest.raises(SpecError, match="A logistic head is solved, and has no learning rate"):
        hs.train(shapes, job=frozen, **TINY)


@pytest.mark.usefixtures("few_steps")
def test_rates_are_those_of_the_first_fold() -> None:
    """Four pictures of a class are too few for a test part."""
    pixels = [np.full((16, 16, 3), 30 * i, np.uint8) for i in range(8)]
    labels = ["dark"] * 4 + ["bright"] * 4
    found = hs.train(hs.read((pixels, labels)), folds=2, **TINY)
    assert len(found.losses) > FIRST
    with pytest.raises(DataError, match="takes 5 different pictures"):
        hs.train(hs.read((pixels, labels)), **TINY)


def test_the_command_refuses_what_a_test_of_rates_does_not_do(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in (["--seeds", "2"], ["--dry-run"], ["--track", "mlflow"]):
        assert main(["train", str(shapes), "--lr-find", "--backbone", "tiny:32", *flags]) == 2
        assert f"so {flags[0]} would change nothing" in capsys.readouterr().err
