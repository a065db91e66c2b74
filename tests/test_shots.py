"""`--shots K`: heads on a few examples of each class, over draws, and the nearest class mean."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import Lines
from scales import scale_of
from test_every_kind import pictures
from test_folds import table
from test_runs import FILES

import headstart as hs
from headstart.base.errors import DataError, HeadstartError, SpecError
from headstart.cli.main import main
from headstart.data.dataset import Dataset
from headstart.data.shots import with_shots
from headstart.data.splits import SplitPlan
from headstart.evaluation.few_shots import HeadSpread, few_shots
from headstart.heads.families import load_head, solve_head
from headstart.heads.head import Rows
from headstart.heads.specs import LogisticSpec, MeanSpec, NearestSpec, RidgeSpec
from headstart.runs import seeds
from headstart.runs.shots import heads_to_try
from headstart.specs import Augment, FeatureExtraction, Job
from headstart.targets.classes import ClassTarget
from headstart.targets.grades import GradesTarget
from headstart.targets.supervision import Supervision


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(backbone="tiny:32", store=hs.Store(tmp_path / "store"), shots=2, draws=4)


def clouds(n: int, classes: int = 3, seed: int = 0, apart: float = 3.0) -> Rows:
    """Classes around means of their own, in 8 columns of other units."""
    means = np.random.default_rng(9).normal(size=(classes, 8)) * apart
    rng, y = np.random.default_rng(seed), np.arange(n) % classes
    x = (means[y] + rng.normal(size=(n, 8))) * np.logspace(-2, 3, 8)
    return Rows(x.astype(np.float32), y, tuple("abcdef"[:classes]))


def none_of(rows: Rows) -> Rows:
    return Rows(rows.x[:0], rows.y[:0], rows.target)


# ------------------------------------------------------------ the nearest mean
def test_the_answer_is_the_class_whose_mean_is_nearest() -> None:
    train, test = clouds(30), clouds(200, seed=1)
    head = solve_head(MeanSpec(), train, none_of(train)).head
    std = scale_of(train.x)
    means = np.stack([train.x[train.y == c].mean(axis=0) for c in range(3)])
    away = (((test.x[:, None] - means) / std) ** 2).sum(axis=2)
    assert (head.scores(test.x).argmax(axis=1) == away.argmin(axis=1)).all()
    raw = head.raw(test.x)
    slope = np.polyfit(-(away - away[:, :1])[:, 1:].ravel(), (raw - raw[:, :1])[:, 1:].ravel(), 1)
    assert slope[1] == pytest.approx(0, abs=1e-2)  # logits are distances, scaled by one temperature
    again = load_head(head.kind, head.tensors(), head.settings())
    assert np.array_equal(again.raw(test.x), raw)


def test_its_temperature_is_of_rows_that_the_means_leave_out() -> None:
    """Noise has no classes, which means that were fitted on the rows would not admit."""
    rng = np.random.default_rng(0)
    noise = Rows(rng.normal(size=(12, 300)).astype(np.float32), np.arange(12) % 2, ("a", "b"))
    scores = solve_head(MeanSpec(), noise, none_of(noise)).head.scores(noise.x)
    assert scores.max() < 0.7


@pytest.mark.parametrize("each", [1, 2])
def test_one_example_of_each_class_is_enough(each: int) -> None:
    train, test = clouds(3 * each, apart=9.0), clouds(90, seed=1, apart=9.0)
    head = solve_head(MeanSpec(), train, none_of(train)).head
    scores = head.scores(test.x)
    assert np.isfinite(scores).all()
    assert (scores.argmax(axis=1) == test.y).mean() > 0.9


def test_case_weights_and_probabilities_count_as_rows_do() -> None:
    train = clouds(30)
    twice = np.concatenate([np.arange(30), np.arange(10)])
    rows = Rows(train.x[twice], train.y[twice], train.target)
    weights = np.where(np.arange(30) < 10, 2.0, 1.0)
    weighed = replace(train, supervision=Supervision(weights))
    soft = replace(train, supervision=Supervision(None, np.eye(3)[train.y]))
    heads = [solve_head(MeanSpec(), r, none_of(train)).head for r in (rows, weighed, train, soft)]
    x = clouds(50, seed=2).x
    answers = [head.scores(x).argmax(axis=1) for head in heads]
    assert (answers[0] == answers[1]).all()
    assert np.allclose(heads[2].scores(x), heads[3].scores(x), atol=1e-6)


def test_it_is_for_classes() -> None:
    rows = Rows(clouds(9).x, clouds(9).y, GradesTarget(("a", "b", "c")))
    assert [s.family for s in heads_to_try(LogisticSpec(), rows.target)] == [
        "nearest",
        "ridge",
        "logistic",
    ]


# ------------------------------------------------------------ the draws
def data(n: int = 60, groups: tuple[str, ...] = ()) -> Dataset:
    ids = tuple(map(str, range(n)))
    return Dataset(ids, ids, tuple(i % 3 for i in range(n)), ("x", "y", "z"), groups=groups)


def test_draws_are_of_k_units_a_class_and_never_of_the_test_part() -> None:
    rows = data(groups=("g", "g", *("",) * 58))
    parts = with_shots(rows, SplitPlan(), 4, 3, together=[(3, 6)])
    test = set(parts.whole.test.ids)
    assert test
    for train, rest in parts.draws:
        assert train.counts == {"x": 4, "y": 4, "z": 4}
        assert not {*train.ids} & {*rest.ids}
        assert not test & {*train.ids, *rest.ids}
        for unit in ({"0", "1"}, {"3", "6"}):
            assert not ({*train.ids} & unit and {*rest.ids} & unit)
    assert len({train.ids for train, _ in parts.draws}) == 3
    assert parts.whole.train.ids == parts.draws[0][0].ids
    again = with_shots(rows, SplitPlan(), 4, 3, together=[(3, 6)])
    assert [t.ids for t, _ in again.draws] == [t.ids for t, _ in parts.draws]


def test_a_row_of_each_class_is_left_to_judge_by() -> None:
    with pytest.raises(DataError, match=r"--shots 17 takes 18 different .* 'x' has 17\. Add"):
        with_shots(data(), SplitPlan(), 17, 2)


def test_rows_of_weight_0_are_not_drawn() -> None:
    """A group is drawn by its first row with a weight."""
    weights, groups = tuple(float(i % 2) for i in range(60)), ("g", *("",) * 2, "g", *("",) * 56)
    rows = replace(data(groups=groups), weights=weights)
    for train, _ in with_shots(rows, SplitPlan(), 4, 5).draws:
        assert train.counts == {"x": 4, "y": 4, "z": 4}
        assert train.weights == (1.0,) * 12
    with pytest.raises(DataError, match="count once and those of weight 0 not at all; 'x' has"):
        with_shots(rows, SplitPlan(), 10, 2)


def test_the_head_that_was_named_is_tried_alone() -> None:
    classes = ClassTarget(("a", "b"))
    assert heads_to_try(LogisticSpec(), classes, named=True) == [LogisticSpec()]
    assert [s.family for s in heads_to_try(RidgeSpec(), classes)] == ["ridge"]
    assert heads_to_try(NearestSpec(neighbours=(1,)), classes) == [NearestSpec(neighbours=(1,))]
    usual = heads_to_try(FeatureExtraction().head, classes)
    assert [s.family for s in usual] == ["mean", "nearest", "ridge", "logistic"]
    assert all(
        s.class_weights == "balanced" for s in heads_to_try(LogisticSpec("balanced"), classes)
    )


def test_the_best_head_has_the_highest_mean_over_the_draws() -> None:
    """Four clouds at the corners of a square, each class at two opposite ones: no mean tells."""
    rng, specs = np.random.default_rng(0), [MeanSpec(), NearestSpec(neighbours=(1,))]
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])

    def square(n: int) -> Rows:
        x = corners[np.arange(n) % 4] + rng.normal(size=(n, 2)) * 0.05
        return Rows(x.astype(np.float32), np.arange(n) % 2, ("a", "b"))

    found = few_shots(specs, [(square(16), square(40)) for _ in range(3)], 8)
    assert (found.best, found.rows, found.draws) == ("nearest", 40, 3)
    assert found.heads["nearest"] == HeadSpread(1.0, 0.0, 1.0, 1.0)
    own = found.heads["mean"]
    assert own.least <= own.mean <= own.most < 0.9


# ------------------------------------------------------------ the run
def test_a_run_of_few_shots_keeps_the_best_head_and_tells_the_spread(
    shapes: Path, tmp_path: Path, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, rows = Lines(), hs.read(shapes)
    run = hs.train(rows, tmp_path / "run", job, lines)
    assert {p.name for p in run.folder.iterdir()} == FILES
    parts = Counter((row["part"], row["label"]) for row in table(run.folder / "splits.csv"))
    assert (parts["train", "dark"], parts["train", "bright"]) == (2, 2)
    assert run.evaluation.n == parts["test", "dark"] + parts["test", "bright"] > 0
    found = run.few_shots
    assert found is not None
    assert (found.shots, found.draws, found.metric) == (2, 4, "accuracy")
    assert parts["val", "dark"] + parts["val", "bright"] == found.rows  # they chose the head
    judged = hs.evaluate(run, rows, store=job.store)
    assert (judged.n, judged.left_out) == (run.evaluation.n, ())
    assert set(found.heads) == {"mean", "nearest", "ridge", "logistic"}
    assert found.heads[found.best].mean == max(own.mean for own in found.heads.values())
    assert run.fitted.chosen["head"] == found.best
    plain = json.loads((run.folder / "evaluation.json").read_text())
    assert plain["few_shots"]["heads"][found.best]["mean"] == found.heads[found.best].mean
    assert lines.of("shots")[0].startswith(f"2 of each class, 4 draws: {found.best} is best")
    assert "Few examples: 2 of each class" in (run.folder / "report.html").read_text()
    again = hs.train(rows, tmp_path / "again", config=run.folder, store=tmp_path / "store")
    for name in ("evaluation.json", "predictions.csv", "model/weights.safetensors"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes(), name


def test_a_logistic_head_that_was_named_is_tried_alone_and_so_it_is_when_repeated(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    rows, quick = hs.read(shapes), replace(job, insights="none")
    run = hs.train(rows, tmp_path / "run", quick, head="logistic")
    again = hs.train(rows, tmp_path / "again", config=run.folder, store=job.store)
    for found in (run.few_shots, again.few_shots):
        assert found is not None
        assert list(found.heads) == ["logistic"]
    recipe = "recipe.json"
    assert (again.folder / recipe).read_bytes() == (run.folder / recipe).read_bytes()


def test_changes_that_few_examples_do_not_learn_from_are_told(shapes: Path, job: Job) -> None:
    lines, flips = Lines(), Augment(flip="both")
    own = replace(job, augment=flips).for_data(hs.read(shapes), lines)
    assert own.augment == Augment()
    assert lines.of("views") == ["none: the heads of few shots learn from examples as they are"]
    for acts in ({"tta": "8"}, {"baseline": "cnn"}):
        kept = replace(job, augment=flips, **acts)  # type: ignore[arg-type]
        assert kept.for_data(hs.read(shapes), lines).augment == flips


def test_the_command_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    pictures(tmp_path, "grades", 60)
    flags = ["--backbone", "tiny:8", "--ordered", "low,middle,high", "--shots", "3", "--draws", "2"]
    assert main(["train", "rows.csv", "--out", "run", *flags]) == 0
    printed = capsys.readouterr().out
    assert "3 of each class, 2 draws, judged on" in printed
    assert "mean quadratic kappa" in printed
    assert main(["report", "run", "--language", "ru"]) == 0
    assert "Мало примеров: по 3 каждого класса" in (tmp_path / "run" / "report.html").read_text()
    dry = ["train", "rows.csv", "--out", "x", *flags, "--dry-run"]
    assert main(dry) == 0
    assert "3 of each class, 2 draws" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rows: hs.train(rows, "x", shots=2, folds=3), "folds does not go with it"),
        (lambda rows: hs.train(rows, "x", shots=2, strategy="scratch"), "strategy scratch does"),
        (lambda rows: hs.train(rows, "x", shots=2, head="linear"), "head linear does not"),
        (lambda rows: hs.train(rows, "x", shots=2, backbone="auto"), "backbone auto does not"),
        (lambda rows: hs.train(rows, "x", shots=-1), "shots is a number of examples"),
        (lambda rows: hs.train(rows, "x", shots=2, draws=1), "draws is from 2"),
        (lambda rows: hs.train(rows, "x", draws=5), "draws would change nothing"),
        (lambda rows: hs.train(rows, "x", shots=2, flip="both"), "flip would change nothing: the"),
        (lambda rows: hs.train(rows, "x", shots=2, augment="auto"), "shots compares learn from"),
        (
            lambda rows: hs.train(rows, "x", shots=2, epochs=3, wise=True),
            "epochs and wise would change nothing, with shots 2 and head logistic",
        ),
        (lambda rows: hs.train(rows, "x", shots=2, head_lr=0.1), "head_lr would change nothing"),
        (lambda rows: hs.train(rows, "x", shots=2, augment=lambda x: x), "augment would change"),
        (lambda rows: hs.fit(rows, shots=5), "shots is a setting of a run"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    shapes: Path, call: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        call(hs.read(shapes))


def test_numbers_have_no_shots(tmp_path: Path, job: Job) -> None:
    rows = hs.read(pictures(tmp_path, "number", 30))
    with pytest.raises(HeadstartError, match="Shots count the examples of a class, and this data"):
        hs.train(rows, tmp_path / "run", replace(job, backbone="tiny:8"))


def test_seeds_do_not_mix_runs_with_a_named_head_and_with_all_heads(shapes: Path) -> None:
    data, usual = hs.read(shapes), Job(shots=2)
    named = replace(usual, given=("head",))
    assert seeds._asked(usual, data) != seeds._asked(named, data)
    alone = Job(given=("head",))
    assert seeds._asked(Job(), data) == seeds._asked(alone, data)
