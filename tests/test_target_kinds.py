"""What every kind of target must keep: files, answers, unknown labels, splits."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import headstart as hs
from headstart.base.values import fingerprint
from headstart.data.dataset import Dataset
from headstart.data.splits import SplitPlan, split
from headstart.evaluation.evaluation import Evaluation, evaluate
from headstart.targets.classes import ClassTarget
from headstart.targets.grades import GradesTarget
from headstart.targets.labels import LabelsTarget
from headstart.targets.numbers import NumberTarget
from headstart.targets.predictions import Predictions, read_predictions, write_csv
from headstart.targets.registry import target_from_plain, target_to_plain
from headstart.targets.target import Target


@dataclass(frozen=True)
class Kind:
    """A target with the encoded labels of 40 rows."""

    target: Target
    labels: tuple[Any, ...]

    @property
    def y(self) -> Any:
        return self.target.labels(self.labels)

    @property
    def fitted(self) -> Target:
        return self.target.fitted(self.y)

    def raw(self, n: int = 40) -> NDArray[np.float32]:
        shape = (n, self.fitted.outputs)
        return np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def predictions(self) -> Predictions:
        answers = self.fitted.activate(self.raw())
        return Predictions(tuple(map(str, range(40))), answers, self.y, self.fitted)


KINDS = {
    "class": Kind(ClassTarget(("a", "b", "c")), tuple(i % 3 for i in range(40))),
    "labels": Kind(
        LabelsTarget(("a", "b c", "d")),
        tuple(((), (0,), (0, 1), (1, 2), (0, 1, 2))[i % 5] for i in range(40)),
    ),
    "grades": Kind(GradesTarget(("low", "middle", "high")), tuple(i % 3 for i in range(40))),
    "two grades": Kind(GradesTarget(("no", "yes")), tuple(i % 2 for i in range(40))),
    "number": Kind(NumberTarget(), tuple(float(i % 9) / 3 for i in range(40))),
    "huber": Kind(NumberTarget("huber"), tuple(float(i % 9) - 4 for i in range(40))),
    "quantile": Kind(NumberTarget("quantile"), tuple(100.0 * (i % 9) for i in range(40))),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"))


def test_settings_are_plain_json_and_give_the_target_back(kind: Kind) -> None:
    plain = json.loads(json.dumps(target_to_plain(kind.fitted), allow_nan=False))
    assert target_from_plain(plain) == kind.fitted
    json.dumps(kind.fitted.heading(), allow_nan=False)


def test_labels_survive_being_written_as_text(kind: Kind) -> None:
    y = kind.y
    assert same(kind.target.parse(kind.target.decode(y)), y)
    nothing = kind.target.unknown(2)
    assert kind.target.decode(nothing) == ["", ""]
    assert same(kind.target.parse(["", ""]), nothing)


def test_unknown_labels_are_known_as_such(kind: Kind) -> None:
    assert kind.target.known(kind.y).all()
    assert not kind.target.known(kind.target.unknown(3)).any()
    other = kind.target.translate(np.zeros(3, np.int64), ClassTarget(("?",)))
    assert not kind.target.known(other).any()
    assert same(kind.target.translate(kind.y, kind.target), kind.y)


def test_the_target_of_a_part_keeps_its_labels(kind: Kind) -> None:
    some = kind.labels[:4]
    target, labels = kind.target.present(some)
    texts = target.decode(target.labels(labels))
    assert texts == kind.target.decode(kind.target.labels(some))


def test_rows_of_other_kinds_losses_and_weights_train_other_models() -> None:
    names, rows = ("a", "b"), (("x", "y"), ("x", "y"), (0, 1))
    targets: list[Target] = [ClassTarget(names, focal=gamma) for gamma in (None, 2.0, 3.0)]
    targets += [GradesTarget(names), NumberTarget(), NumberTarget("huber")]
    data = [Dataset(*rows, target) for target in targets]
    data += [replace(data[0], weights=(1.0, 2.0)), replace(data[0], soft=((0.5, 0.5), (0.1, 0.9)))]
    assert len({fingerprint(own.decisive) for own in data}) == len(data)
    # so that checkpoints of earlier versions are found
    assert fingerprint(data[0].decisive) == fingerprint((*rows[::2], []))


def test_the_loss_has_a_row_each_and_a_gradient(kind: Kind) -> None:
    fitted, raw = kind.fitted, torch.tensor(kind.raw(), requires_grad=True)
    losses = fitted.loss(raw, fitted.soft(kind.y))
    assert losses.shape == (40,)
    losses.mean().backward()
    assert raw.grad is not None
    assert raw.grad.abs().sum() > 0


def test_the_losses_of_answers_are_those_of_raw_outputs(kind: Kind) -> None:
    fitted, raw = kind.fitted, np.sort(kind.raw(), axis=1)  # quantiles must not cross
    ours = fitted.row_losses(fitted.activate(raw), kind.y)
    theirs = fitted.loss(torch.tensor(raw), fitted.soft(kind.y)).numpy()
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_weights_of_rows_have_a_mean_of_1_and_are_those_of_training(kind: Kind) -> None:
    how = "balanced" if kind.target.kind != "number" else "none"
    ours = kind.target.row_weights(how, kind.y)  # type: ignore[arg-type]
    assert ours.mean() == pytest.approx(1)
    balance = torch.tensor(kind.target.balance(how, kind.y))  # type: ignore[arg-type]
    theirs = kind.target.weights(kind.fitted.soft(kind.y).double(), balance)
    assert np.allclose(ours, theirs)


def test_no_rows_have_answers_metrics_and_tables(kind: Kind) -> None:
    fitted, nothing = kind.fitted, kind.target.unknown(0)
    answers = fitted.activate(kind.raw(0))
    fitted.check(answers, nothing)
    assert all(len(answer) == 0 for answer in answers.values())
    assert set(fitted.metrics(answers, nothing)) == set(fitted.metrics(**of_all(kind)))
    assert len(fitted.tables(answers, nothing)) == len(fitted.tables(**of_all(kind)))


def of_all(kind: Kind) -> dict[str, Any]:
    return {"answers": kind.fitted.activate(kind.raw()), "y": kind.y}


def test_predictions_come_back_from_their_file(kind: Kind, tmp_path: Path) -> None:
    some = kind.predictions()
    write_csv(some, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv", kind.fitted)
    assert again.ids == some.ids
    assert same(again.labels, some.labels)
    for name, answer in some.outputs.items():
        assert again.outputs[name].tobytes() == answer.tobytes(), name


def test_a_file_of_predictions_shows_the_target_of_a_kind(kind: Kind, tmp_path: Path) -> None:
    some = kind.predictions()
    write_csv(some, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv", kind.target.kind)
    assert again.target.agrees(kind.target)
    measured = hs.evaluate(tmp_path / "p.csv", target=kind.target.kind)
    assert measured.metrics == evaluate(some).metrics


def test_an_evaluation_comes_back_from_json(kind: Kind) -> None:
    result = evaluate(kind.predictions(), kind.fitted, resamples=20)
    plain = json.loads(json.dumps(result.to_plain(), allow_nan=False))
    again = Evaluation.read(plain)
    assert again.metrics == result.metrics
    assert [table.rows for table in again.tables] == [table.rows for table in result.tables]
    assert None not in (result.baseline, result.main)


def test_regions_at_the_largest_score_hold_every_label(kind: Kind) -> None:
    fitted, answers = kind.fitted, of_all(kind)["answers"]
    unlike = fitted.conformity(answers, kind.y)
    assert unlike is not None
    assert len(unlike) == 40
    region = fitted.region(answers, unlike.max(axis=0))
    columns = fitted.region_columns(region)
    assert set(columns) == set(fitted.region_names)
    size = fitted.region_size(region)
    assert size is not None
    assert size.shape == (40,)
    assert (size >= 0).all()


def test_parts_share_the_labels(kind: Kind) -> None:
    ids = tuple(map(str, range(40)))
    data = Dataset(ids, tuple(map(Path, ids)), kind.labels, kind.target)
    parts = split(data, SplitPlan(val=0.2, test=0.2))
    assert [len(p) for p in (parts.train, parts.val, parts.test)] == [24, 8, 8]
    alone = replace(data, strata=tuple(map(str, kind.target.strata(data.y))))
    assert split(alone, SplitPlan(val=0.2, test=0.2)).test.ids == parts.test.ids
