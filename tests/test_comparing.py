"""Runs are compared row for row, and nothing else is."""

import json
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.base.atomic import write_json
from headstart.base.errors import DataError, Mismatch, SpecError
from headstart.cli.main import main
from headstart.evaluation.comparison import compare_predictions, comparison_rows, mcnemar
from headstart.evaluation.evaluation import evaluate
from headstart.reporting.run_files import FoldEvaluation, RunEvaluation
from headstart.runs.comparison import compare_runs
from headstart.targets.numbers import NumberTarget
from headstart.targets.predictions import Predictions, write_csv


def answered(right: list[bool], seed: int = 0) -> Predictions:
    """Of two classes in turn; sure, and right where told."""
    labels = np.arange(len(right)) % 2
    sure = np.random.default_rng(seed).uniform(0.6, 0.9, len(right))
    own = np.where(right, sure, 1 - sure)
    scores = np.where(labels[:, None] == [0, 1], own[:, None], 1 - own[:, None])
    ids = tuple(f"{i}.jpg" for i in range(len(right)))
    return Predictions(ids, scores.astype(np.float32), labels, ("cat", "dog"))


def run(folder: Path, name: str, said: Predictions) -> Path:
    (folder / name).mkdir()
    write_csv(said, folder / name / "predictions.csv")
    return folder / name


def discordant(a: int, b: int, same: int = 10) -> tuple[Predictions, Predictions]:
    """Two of which one alone is right on `a` rows and the other alone on `b`."""
    one = [True] * a + [False] * b + [True] * same
    return answered(one), answered([not r for r in one[: a + b]] + [True] * same)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
        (6, 0, 2 / 2**6),
        (5, 5, 1.0),
        (0, 0, 1.0),
        (1, 0, 1.0),
    ],
)
def test_mcnemar_is_as_worked_out_by_hand(a: int, b: int, p: float) -> None:
    assert mcnemar(*discordant(a, b)) == pytest.approx(p, rel=1e-12)


def test_ten_against_two_is_the_published_size() -> None:
    assert mcnemar(*discordant(10, 2)) == pytest.approx(0.0385742, abs=1e-7)


def test_equal_models_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(0)
    found = np.array(
        [
            mcnemar(answered(list(rng.random(150) < 0.8)), answered(list(rng.random(150) < 0.8)))
            for _ in range(800)
        ]
    )
    assert 0.01 < (found < 0.05).mean() < 0.055


def test_mcnemar_is_of_the_same_rows() -> None:
    some = answered([True] * 4)
    with pytest.raises(Mismatch, match="same rows, in the same order"):
        mcnemar(some, some.take([3, 2, 1, 0]))


def test_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    good, worse = discordant(10, 2, same=28)
    first, second = compare_runs([run(tmp_path, "a", good), run(tmp_path, "b", worse)])
    assert (first.gain, first.p) == (None, None)
    assert (second.only_here, second.only_first) == (2, 10)
    assert second.gain is not None
    assert second.gain.value == pytest.approx(-8 / 40)
    assert second.gain.low < second.gain.value < second.gain.high < 0
    assert second.p == pytest.approx(0.0385742, abs=1e-7)


def by_folds(folder: Path, said: Predictions) -> Path:
    """Write what a cross-validated run records beside its predictions."""
    found = evaluate(said)
    folds = (FoldEvaluation(1, "head", len(said), {}),)
    kept = RunEvaluation(
        test=found, val=found, kept="head", candidates_on_val={}, baselines_on_test={}, folds=folds
    )
    write_json(folder / "evaluation.json", kept.to_plain())
    return folder


def test_intervals_of_cross_validated_runs_are_wider(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = discordant(2, 9, same=29)
    plain = [run(tmp_path, name, p) for name, p in zip("ab", said, strict=True)]
    folds = [by_folds(run(tmp_path, n, p), p) for n, p in zip("cd", said, strict=True)]
    (_, one), (_, other), (_, mixed) = map(
        compare_runs, (plain, folds, [plain[0], folds[1] / "predictions.csv"])
    )
    for name in ("accuracy", "gain"):
        narrow, wide = (getattr(found, name) for found in (one, other))
        assert (wide.value - wide.low) == pytest.approx(1.25 * (narrow.value - narrow.low))
    assert other.gain.low < 0 < one.gain.low, "a difference may pass 0"
    assert mixed.gain == other.gain
    assert other.p == one.p
    for runs, told in ((plain, False), (folds, True)):
        assert main(["compare", *map(str, runs)]) == 0
        assert ("1.25 times as wide" in capsys.readouterr().out) is told


def test_a_file_of_a_cross_validated_run_is_judged_as_the_run_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = discordant(2, 9, same=29)
    file = by_folds(run(tmp_path, "a", said), said) / "predictions.csv"
    narrow = evaluate(said).metrics["accuracy"]
    wide = hs.evaluate(file, metrics={"cats": lambda y, answers: (answers == "cat").mean()})
    assert narrow is not None
    assert wide.accuracy.value - wide.accuracy.low == pytest.approx(
        1.25 * (narrow.value - narrow.low)
    )
    alone = hs.evaluate(said, metrics={"cats": lambda y, answers: (answers == "cat").mean()})
    assert wide.cats.high - wide.cats.low == pytest.approx(
        1.25 * (alone.cats.high - alone.cats.low)
    )
    assert main(["evaluate", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["low"] == wide.accuracy.low


def test_python_knows_from_the_run_beside_a_file_what_it_predicts(tmp_path: Path) -> None:
    y, ids = np.arange(30.0), tuple(map(str, range(30)))
    values = {"value": (y + 1).astype(np.float32)}
    said = Predictions(ids, values, y, NumberTarget().fitted(y))
    folder = by_folds(run(tmp_path, "a", said), said)
    assert float(hs.evaluate(folder / "predictions.csv").mae) == 1.0


def test_gains_of_cross_validated_runs_of_numbers_are_wider(tmp_path: Path) -> None:
    y = np.arange(30.0)
    target = NumberTarget().fitted(y)
    rng, ids = np.random.default_rng(0), tuple(map(str, range(30)))
    said = [Predictions(ids, {"value": y + rng.normal(size=30)}, y, target) for _ in range(2)]
    plain, folds = (compare_predictions(["a", "b"], said, f)[1] for f in ((), (True, True)))
    for narrow, wide in ((plain.gain, folds.gain), (plain.metrics["mae"], folds.metrics["mae"])):
        assert (wide.high - wide.low) == pytest.approx(1.25 * (narrow.high - narrow.low))


def test_rows_and_classes_may_come_in_another_order(tmp_path: Path) -> None:
    good, worse = discordant(10, 2)
    mixed = worse.take(np.random.default_rng(0).permutation(len(worse)))
    turned = Predictions(mixed.ids, mixed.scores[:, ::-1], 1 - mixed.labels, ("dog", "cat"))
    a, b = run(tmp_path, "a", good), run(tmp_path, "b", worse)
    c = run(tmp_path, "c", turned)
    _, straight, shuffled = compare_runs([a, b, c])
    assert straight.gain == shuffled.gain
    assert straight.p == shuffled.p
    assert straight.accuracy == shuffled.accuracy


def test_a_file_made_elsewhere_without_scores_is_compared(tmp_path: Path) -> None:
    good, worse = discordant(3, 1)
    lines = ["label,path,predicted"]
    for id, label, said in zip(worse.ids, worse.labels, worse.predicted, strict=True):
        lines.append(f"{worse.classes[label]},{id},{worse.classes[said]}")
    (tmp_path / "theirs.csv").write_text("\n".join(lines))
    a, b = run(tmp_path, "a", good), run(tmp_path, "b", worse)
    _, ours, theirs = compare_runs([a, b, tmp_path / "theirs.csv"])
    assert (theirs.p, theirs.gain, theirs.accuracy) == (ours.p, ours.gain, ours.accuracy)
    assert (theirs.log_loss, theirs.auroc) == (None, None)
    assert ours.log_loss is not None


def test_a_class_that_no_row_names_is_no_difference(tmp_path: Path) -> None:
    some = answered([True] * 6)
    more = np.hstack([some.scores, np.zeros((6, 1), np.float32)])
    a = run(tmp_path, "a", Predictions(some.ids, more, some.labels, ("cat", "dog", "owl")))
    none = np.zeros((6, 0), np.float32)
    b = run(tmp_path, "b", Predictions(some.ids, none, some.labels, some.classes, some.labels))
    for runs in ([a, b], [b, a]):
        assert compare_runs(runs)[1].p == 1.0


def test_other_rows_are_refused_with_how_many_are_shared(tmp_path: Path) -> None:
    some = answered([True] * 9)
    a, b = run(tmp_path, "a", some.take(range(7))), run(tmp_path, "b", some.take(range(4, 9)))
    told = r"share 3 paths of 7 and 5\. Train them with the same data and the same --seed"
    with pytest.raises(Mismatch, match=told):
        compare_runs([a, b])
    c = run(tmp_path, "c", some.take(range(4)))
    with pytest.raises(Mismatch, match="share 4 paths of 7 and 4"):
        compare_runs([a, c])
    with pytest.raises(Mismatch, match="share 4 paths of 4 and 7"):
        compare_runs([c, a])


def test_other_labels_and_other_classes_are_refused(tmp_path: Path) -> None:
    some = answered([True] * 6)
    labels = some.labels.copy()
    labels[[2, 5]] = [1, -1]
    changed = Predictions(some.ids, some.scores, labels, some.classes)
    named = Predictions(some.ids, some.scores, some.labels, ("cat", "hound"))
    a = run(tmp_path, "a", some)
    with pytest.raises(Mismatch, match=r"share 6 paths and label 2 of them .*'2\.jpg' first"):
        compare_runs([a, run(tmp_path, "b", changed)])
    with pytest.raises(Mismatch, match="'dog' is a class of only one"):
        compare_runs([a, run(tmp_path, "c", named)])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    a = run(tmp_path, "a", answered([True] * 4))
    with pytest.raises(SpecError, match="two runs or more; got 1"):
        compare_runs([a])
    with pytest.raises(DataError, match=r"there is no .*predictions\.csv.*Name the folder"):
        compare_runs([a, tmp_path])


def test_a_table_and_a_plain_form_tell_it(tmp_path: Path) -> None:
    good, worse = discordant(10, 2, same=28)
    both = compare_runs([run(tmp_path, "a", good), run(tmp_path, "b", worse)])
    header, first, second = comparison_rows(both)
    assert len(header) == len(first) == len(second)
    assert first[5:] == ("the first", "", "", "")
    assert second[5].startswith("-0.200 [-0.3")
    assert second[6:] == ("0.0386", "2", "10")
    assert both[0].to_plain()["gain"] is None
    assert both[1].to_plain()["gain"]["n"] == 40


@pytest.mark.parametrize(("there", "refused"), [("b,q", True), ("b,p", False), (",", False)])
def test_runs_that_had_other_pictures_under_the_same_names_are_not_compared(
    tmp_path: Path, there: str, refused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answered([True, True, False, True])
    runs = [run(tmp_path, name, said) for name in ("one", "other")]
    for folder, content in zip(runs, ("a,p", there), strict=True):
        text = f"path,label,part,bytes,pixels\n0.jpg,cat,test,{content}\n"
        (folder / "splits.csv").write_text(text, encoding="utf-8")
    if not refused:
        assert main(["compare", *map(str, runs)]) == 0
        return
    assert main(["compare", *map(str, runs)]) == 1
    assert "different ones called '0.jpg'. Train" in capsys.readouterr().err
    with pytest.raises(Mismatch, match="different ones called '0.jpg'"):
        compare_runs(runs)


def test_files_of_predictions_are_compared_as_the_target_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for file, off in zip(files, (1.0, 2.0), strict=True):
        rows = [f"{i}.jpg,{i % 5},{i % 5 + off}" for i in range(40)]
        file.write_text("\n".join(["path,label,predicted", *rows]))
    found = [one.to_plain()["metrics"]["mae"]["value"] for one in compare_runs(files, "number")]
    assert found == [1.0, 2.0]
    assert main(["compare", *map(str, files), "--target", "number"]) == 0
    assert "mae" in capsys.readouterr().out
    ours = [run(tmp_path, name, answered([True] * 4)) for name in ("c", "d")]
    assert main(["compare", *map(str, ours), "--target", "number"]) == 2
    assert "runs know theirs" in capsys.readouterr().err
