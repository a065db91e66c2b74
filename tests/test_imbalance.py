"""Rare classes and labels: focal loss, balanced resampling, and the head that is used for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Calls
from test_generic_training import TUNED, of_grades, of_labels, of_numbers
from test_head_specs import job_of

import headstart as hs
from headstart.base.errors import SpecError
from headstart.base.values import fingerprint, to_plain
from headstart.heads.families import check_supports, head_for
from headstart.heads.specs import LinearSpec, LogisticSpec, MlpSpec, RidgeSpec, UsualSpec
from headstart.models.bundle import load_bundle, save
from headstart.models.fitting import fit
from headstart.models.specs import FeatureExtraction, FineTune
from headstart.runs.job import Job
from headstart.targets.classes import ClassTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.plan import TargetPlan
from headstart.targets.target import Target
from headstart.training.feeds import Stored, balanced_rows
from headstart.training.loop import train
from headstart.training.network import Network, new_head
from headstart.training.plan import Plan

FOCAL = TargetPlan(loss="focal", focal_gamma=1.5)
TWO, THREE = ClassTarget(("a", "b")), ClassTarget(("a", "b", "c"))


def test_focal_loss_of_classes_is_that_of_the_paper() -> None:
    raw, y = torch.randn(7, 3), np.arange(7) % 3
    target = THREE.planned(FOCAL)
    p = torch.softmax(raw, dim=1)[torch.arange(7), torch.as_tensor(y)]
    assert torch.allclose(target.loss(raw, target.soft(y)), -((1 - p) ** 1.5) * p.log())


def test_focal_loss_of_labels_and_of_one_logit_is_torchvisions() -> None:
    ops = pytest.importorskip("torchvision.ops")
    raw, y = torch.randn(7, 3), np.random.default_rng(0).integers(2, size=(7, 3)).astype(np.int8)
    labels, two = LabelsTarget(("a", "b", "c")).planned(FOCAL), TWO.planned(FOCAL)
    theirs = ops.sigmoid_focal_loss(raw, torch.tensor(y).float(), alpha=-1, gamma=1.5)
    assert torch.allclose(labels.loss(raw, labels.soft(y)), theirs.mean(dim=1), atol=1e-6)
    assert torch.allclose(
        two.loss(raw[:, :1], two.soft(y[:, 0].astype(np.int64))), theirs[:, 0], atol=1e-6
    )


def test_gamma_0_is_cross_entropy_and_a_sure_row_has_a_slope() -> None:
    raw, y = torch.randn(7, 3), np.arange(7) % 3
    none = THREE.planned(TargetPlan(loss="focal", focal_gamma=0.0))
    assert torch.allclose(none.loss(raw, none.soft(y)), THREE.loss(raw, THREE.soft(y)))
    half = THREE.planned(TargetPlan(loss="focal", focal_gamma=0.5))
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    half.loss(sure, half.soft(np.array([0]))).sum().backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_focal_loss_is_for_classes_and_labels_and_for_training_by_epochs() -> None:
    with pytest.raises(SpecError, match="For a number --loss focal is not known"):
        NumberTarget().planned(FOCAL)
    with pytest.raises(SpecError, match="logistic head is solved .*--class-weights balanced"):
        check_supports(LogisticSpec(), THREE.planned(FOCAL))
    with pytest.raises(SpecError, match="focal_gamma is a setting of --loss focal"):
        TargetPlan(focal_gamma=1.0)
    with pytest.raises(SpecError, match="focal_gamma is from 0"):
        TargetPlan(loss="focal", focal_gamma=-1.0)


def test_an_epoch_has_equally_many_rows_of_each_stratum() -> None:
    strata = np.repeat([0, 1, 2], [90, 10, 2])
    rows = balanced_rows(strata, epoch=3, seed=5)
    assert len(rows) == 102
    assert np.bincount(strata[rows]).tolist() == [34, 34, 34]
    times = np.bincount(rows, minlength=102)
    assert times[:90].max() == 1
    assert np.ptp(times[90:100]) <= 1
    assert times[100:].tolist() == [17, 17]
    assert (balanced_rows(strata, 3, 5) == rows).all()
    assert (balanced_rows(strata, 4, 5) != rows).any()


def test_the_strata_of_labels_are_the_rarest_that_a_row_has() -> None:
    y = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [1, 1], [0, 0]], np.int8)
    rows = balanced_rows(LabelsTarget(("often", "rare")).strata(y), epoch=1, seed=0)
    assert sorted(rows[rows >= 4].tolist()) == [4, 4, 5, 5]


@pytest.mark.parametrize("how", [{}, {"resample": "balanced"}])
def test_a_rare_class_is_found_after_resampling(how: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 30 == 0).astype(np.int64)
    x = (rng.normal(size=(300, 2)) + 1.2 * y[:, None]).astype(np.float32)
    rows = hs.FeatureTable(tuple(map(str, range(300))), x, y, TWO, made_by="")
    net = Network(torch.nn.Identity(), new_head(LinearSpec(), 2, 2, 0), ())
    plan = Plan(epochs=8, lr=0.02, optimizer="adam", keep="last", **how)
    train(net, plan, Stored((rows,), cut=False), Stored((rows,), cut=False))
    called = net.head(torch.tensor(x)).argmax(1).numpy()
    assert (called[y == 1].mean() > 0.5) == bool(how)


def test_resampling_is_refused_where_nothing_is_trained_by_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = "--resample balanced --strategy extract".split()
    with pytest.raises(SpecError, match="--class-weights balanced instead of --resample"):
        job_of(monkeypatch, *asked)
    job = job_of(monkeypatch, *asked, "--head", "linear")
    assert job.recipe.head == LinearSpec(resample="balanced")
    assert job_of(monkeypatch, "--resample", "balanced").finetune.resample == "balanced"
    with pytest.raises(SpecError, match="both let rare rows count more"):
        FineTune(class_weights="balanced", resample="balanced")


def test_settings_of_later_versions_leave_old_fingerprints_alone() -> None:
    for spec in (FineTune(), MlpSpec(), LinearSpec()):
        assert "resample" not in to_plain(spec)
        assert fingerprint(to_plain(replace(spec, resample="balanced"))) != fingerprint(
            to_plain(spec)
        )


def test_the_head_that_is_used_if_none_is_named() -> None:
    number, focal = NumberTarget(), THREE.planned(FOCAL)
    quantile = NumberTarget("quantile")
    for target, family in (
        (THREE, "logistic"), (LabelsTarget(("a", "b")), "logistic"), (number, "ridge"),
        (quantile, "ridge"), (focal, "linear"),
    ):  # fmt: skip
        spec, why = head_for(UsualSpec(l2=(0.5,)), target)
        assert spec.family == family
        assert bool(why) == (family != "logistic")
    assert head_for(UsualSpec(l2=(0.5,)), number)[0] == RidgeSpec(l2=(0.5,))
    assert head_for(LogisticSpec(), number) == (LogisticSpec(), "")  # it was named
    with pytest.raises(SpecError, match="one that can answer a number; logistic cannot. Name"):
        check_supports(LogisticSpec(), number)


def test_fit_says_once_which_head_it_uses() -> None:
    said = list[str]()
    heard = Calls(stage=lambda stage, text: said.append(text) if stage == "head" else None)
    found = fit(FeatureExtraction(), hs.load_backbone("tiny:8"), of_numbers(), listener=heard)
    assert found.chosen["head"] == "ridge"
    assert said[0] == "ridge, since logistic regression does not predict a number"
    assert len(said) == 2


def test_a_named_head_is_kept_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(job_of(monkeypatch).recipe.head, UsualSpec)
    assert isinstance(job_of(monkeypatch, "--l2", "1").recipe.head, UsualSpec)
    assert not isinstance(job_of(monkeypatch, "--head", "logistic").recipe.head, UsualSpec)
    assert UsualSpec() == LogisticSpec()
    assert to_plain(UsualSpec()) == to_plain(LogisticSpec())


@pytest.mark.parametrize("of", [of_labels, of_grades])
def test_labels_and_grades_are_resampled_in_fine_tuning(of: Any) -> None:
    spec = FeatureExtraction(LinearSpec(epochs=1, resample="balanced"))
    model = fit(spec, hs.load_backbone("tiny:8"), of(), store=None)
    tuned = replace(TUNED, resample="balanced", epochs=1)
    assert fit(tuned, model, of(), store=None).history[-1].train_loss is not None


def test_a_model_that_goes_on_learning_takes_the_loss_that_is_asked_for() -> None:
    target: Target = THREE.planned(FOCAL)
    goes_on = THREE.fitted(np.array([0, 1, 1])).learning(target)
    assert (goes_on.majority, goes_on.focal) == ("b", 1.5)


def test_a_model_that_was_trained_with_focal_loss_is_saved(tmp_path: Path) -> None:
    parts = of_labels()
    parts = parts.of(parts.train.target.planned(FOCAL))
    model = fit(FeatureExtraction(), hs.load_backbone("tiny:8"), parts, store=None).model
    assert model.head.kind == "mlp"  # trained by epochs
    save(model, tmp_path / "model")
    assert load_bundle(tmp_path / "model").model.target == model.target


def test_resampling_beside_a_solved_head_is_said_to_be_of_fine_tuning_alone() -> None:
    said = list[str]()
    heard = Calls(stage=lambda stage, text: said.append(text) if stage == "resample" else None)
    data = of_labels().train
    tuned = FineTune(epochs=1, resample="balanced")
    jobs = Job(finetune=tuned), Job(finetune=tuned, strategy="extract"), Job()
    for job in (*jobs, Job(finetune=tuned, recipe=FeatureExtraction(LinearSpec()))):
        job.for_data(data, heard)
    (only,) = said
    assert (
        only == "balanced in fine-tuning alone: the logistic head is solved on all rows, each once"
    )
