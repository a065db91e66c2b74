"""Trained heads and fine-tuning of labels, grades and numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.backbone import Backbone
from headstart.base.errors import SpecError
from headstart.data.dataset import Dataset
from headstart.data.splits import Splits
from headstart.heads.specs import LinearSpec, LogisticSpec, MlpSpec, NearestSpec, RidgeSpec
from headstart.models.bundle import load_bundle, save
from headstart.models.fitting import fit
from headstart.models.specs import FeatureExtraction, FineTune, TwoPhaseSpec
from headstart.targets.grades import GradesTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.target import Target

Array = NDArray[Any]
N = 60


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return hs.load_backbone("tiny:8")


def pixels(n: int) -> list[Array]:
    """Pictures whose brightness is their number."""
    rng = np.random.default_rng(0)
    return [
        np.clip(rng.normal(255 * i / n, 20, (32, 32, 3)), 0, 255).astype(np.uint8) for i in range(n)
    ]


def splits(target: Target, labels: list[Any], seed: int = 0) -> Splits:
    base = hs.read((pixels(N), ["a", "b"] * (N // 2)))
    rows = Dataset(base.ids, base.sources, tuple(labels), target, input=base.input)
    order = np.random.default_rng(seed).permutation(N)
    return Splits(rows[order[:36]], rows[order[36:48]], rows[order[48:]])


def of_labels() -> Splits:
    there = [(i > 30, np.random.default_rng(i).random() < i / N) for i in range(N)]
    return splits(LabelsTarget(("a", "b")), [tuple(np.flatnonzero(t).tolist()) for t in there])


def of_grades() -> Splits:
    return splits(GradesTarget(("low", "middle", "high")), [i // 20 for i in range(N)])


def of_numbers() -> Splits:
    return splits(NumberTarget(), [100.0 + 5.0 * i for i in range(N)])


KINDS = {"labels": of_labels, "grades": of_grades, "numbers": of_numbers}
every_kind = pytest.mark.parametrize("kind", KINDS)
TUNED = FineTune(thaw="1", epochs=2, batch_size=12, lr=1e-3)


def fitted(kind: str, backbone: Backbone, head: Any, tuned: FineTune | None = None) -> Any:
    keep: Any = "finetune" if tuned else "best"
    spec = TwoPhaseSpec(FeatureExtraction(head), tuned, keep=keep)
    return fit(spec, backbone, KINDS[kind](), store=None)


def loss_on_val(kind: str, model: hs.Model) -> float:
    said = model.predict(KINDS[kind]().val, store=None)
    return float(model.target.row_losses(said.outputs, said.labels).mean())


@every_kind
@pytest.mark.parametrize("head", [LogisticSpec(), RidgeSpec(), MlpSpec(hidden=(8,), epochs=2)])
def test_fine_tuning_goes_on_from_a_head_and_is_saved(
    kind: str, head: Any, backbone: Backbone, tmp_path: Path
) -> None:
    if kind == "numbers" and head == LogisticSpec():
        with pytest.raises(SpecError, match="one that can answer a number; logistic cannot"):
            fitted(kind, backbone, head)
        return
    found = fitted(kind, backbone, head, TUNED)
    before, *_, last = found.history[-3:]
    assert (before.phase, last.val_accuracy) == ("finetune", None)
    assert found.chosen["by"] == "loss on validation"
    test = KINDS[kind]().test
    save(found.model, tmp_path / "model")
    said, again = (
        m.predict(test, store=None) for m in (found.model, load_bundle(tmp_path / "model").model)
    )
    for name, values in said.outputs.items():
        assert np.allclose(again.outputs[name].astype(float), values.astype(float), atol=1e-4)
    on_from_there = fit(replace(TUNED, epochs=1), found, KINDS[kind](), store=None)
    assert on_from_there.model.target.outputs == found.model.target.outputs


@every_kind
def test_the_head_is_where_fine_tuning_begins(kind: str, backbone: Backbone) -> None:
    found = fitted(kind, backbone, RidgeSpec(), TUNED)
    head, start = found.history[0], found.history[1]
    assert (head.phase, start.phase, start.lr) == ("head", "finetune", None)
    assert head.val_loss == pytest.approx(start.val_loss, abs=1e-4)


def test_a_model_that_goes_on_learning_keeps_its_scale(backbone: Backbone) -> None:
    found = fitted("numbers", backbone, RidgeSpec())
    assert found.model.target.mean == pytest.approx(of_numbers().train.y.mean())
    other = splits(NumberTarget(), [1000.0 + i for i in range(N)])
    again: Any = fit(TUNED, found, other, store=None).model.target
    assert again.mean == found.model.target.mean


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_grades_keep_one_slope_under_every_optimizer(optimizer: Any, backbone: Backbone) -> None:
    head = LinearSpec(epochs=3, optimizer=optimizer, lr=0.05)
    tuned = replace(TUNED, optimizer=optimizer, weight_decay=0.5, lr=0.01, keep="last")
    for found in (fitted("grades", backbone, head), fitted("grades", backbone, head, tuned)):
        weight, bias = found.model.head.weights[-1], found.model.head.biases[-1]
        assert weight.shape == (8, 2)
        assert (weight[:, 0] == weight[:, 1]).all()
        assert np.ptp(weight) > 0
        assert bias[0] > bias[1]


def test_thresholds_come_out_of_fold_or_from_validation_never_from_test(
    backbone: Backbone,
) -> None:
    def thresholds(head: Any, tuned: FineTune | None, *changed: str) -> Any:
        parts = of_labels()
        for name in changed:  # every label is the opposite
            rows = getattr(parts, name)
            labels = tuple(tuple({0, 1} - set(y)) for y in rows.labels)
            parts = replace(parts, **{name: replace(rows, labels=labels)})
        keep: Any = "finetune" if tuned else "best"
        spec = TwoPhaseSpec(FeatureExtraction(head, choose="validation"), tuned, keep=keep)
        target: Any = fit(spec, backbone, parts, store=None).model.target
        return target.thresholds

    solved, trained = LogisticSpec(l2=(0.01,)), LinearSpec(epochs=2, keep="last")
    last = replace(TUNED, keep="last")
    for head, tuned, control in (
        (solved, None, "train"),
        (trained, None, "val"),
        (trained, last, "val"),
    ):
        usual = thresholds(head, tuned)
        assert len(usual) == 2
        assert thresholds(head, tuned, "test") == usual
        assert thresholds(head, tuned, control) != usual  # the control: they do depend on rows
    assert thresholds(solved, None, "val") == thresholds(solved, None)


def test_a_quantile_loss_has_several_outputs(
    backbone: Backbone,
) -> None:
    number = NumberTarget("quantile")
    parts = splits(number, [100.0 + 5.0 * i for i in range(N)])
    spec = FeatureExtraction(LinearSpec(epochs=30, lr=0.05))
    model = fit(spec, backbone, parts, store=None).model
    assert model.head.outputs == 3
    said = model.predict(parts.test, store=None).outputs
    assert (said["q05"] <= said["q95"]).all()
    assert fit(FeatureExtraction(RidgeSpec()), backbone, parts, store=None).model.head.outputs == 3
    with pytest.raises(SpecError, match="Leave --loss out, or name another --head: ridge, linear"):
        fit(FeatureExtraction(NearestSpec()), backbone, parts, store=None)


def test_one_logit_is_for_two_classes(backbone: Backbone) -> None:
    for kind in ("labels", "grades"):
        with pytest.raises(SpecError, match="One logit .* tells two classes apart; the data has"):
            fitted(kind, backbone, LinearSpec(output="sigmoid"))


def test_adversarial_training_is_for_classes(backbone: Backbone) -> None:
    spec = replace(TUNED, adversarial=2 / 255, thaw="all")
    with pytest.raises(SpecError, match="Adversarial training .* several labels"):
        fit(TwoPhaseSpec(finetune=spec), backbone, of_labels(), store=None)
