"""Predictions refuse to exist wrongly, and come back from their file bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.base.errors import DataError, Mismatch
from headstart.base.tables import write_parquet_columns
from headstart.targets import predictions
from headstart.targets.numbers import NumberTarget
from headstart.targets.predictions import (
    Predictions,
    is_cross_validated,
    predictions_file,
    read_predictions,
    write_csv,
    write_parquet,
    write_predictions,
)

NUMBERS = NumberTarget()


def f32(values: Any) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def made(n: int = 5, classes: tuple[str, ...] = ("cat", "dog", "owl")) -> Predictions:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.full(len(classes), 0.1), size=n).astype(np.float32)
    labels = np.arange(n) % (len(classes) + 1) - 1
    return Predictions(tuple(f"{i}.jpg" for i in range(n)), scores, labels, classes)


def unscored() -> Predictions:
    none, labels = np.zeros((3, 0), np.float32), np.array([0, -1, 1])
    return Predictions(("1", "2", "3"), none, labels, ("a", "b"), np.array([0, 1, 0]))


def same(a: Predictions, b: Predictions) -> bool:
    bits = a.scores.tobytes() == b.scores.tobytes() and a.labels.tobytes() == b.labels.tobytes()
    bits = bits and np.array_equal(a.predicted, b.predicted) and a.scored == b.scored
    return bits and a.ids == b.ids and a.classes == b.classes


def test_a_file_brings_back_every_bit(tmp_path: Path) -> None:
    said = made(n=2000)
    write_csv(said, tmp_path / "p.csv")
    assert same(read_predictions(tmp_path / "p.csv"), said)


@pytest.mark.parametrize(
    "name", ["path", "label", "predicted", "score:x", 'a,"b"', "two\nlines", "cr\rlf", " ", "café"]
)
def test_odd_names_come_back(tmp_path: Path, name: str) -> None:
    plain = made(classes=(name, "other"))
    said = Predictions((name, *plain.ids[1:]), plain.scores, plain.labels, plain.classes)
    write_csv(said, tmp_path / "p.csv")
    assert same(read_predictions(tmp_path / "p.csv"), said)


def test_no_rows_come_back_as_no_rows(tmp_path: Path) -> None:
    said = made(n=0)
    write_csv(said, tmp_path / "p.csv")
    assert same(read_predictions(tmp_path / "p.csv"), said)
    assert len(said.predicted) == len(said.correct) == 0


def test_the_file_can_be_read_by_eye(tmp_path: Path) -> None:
    scores = f32([[0.25, 0.75], [0.5, 0.5]])
    said = Predictions(("a/1.jpg", "2.jpg"), scores, np.array([1, -1]), ("a", "b"))
    write_csv(said, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == (
        "path,label,predicted,score:a,score:b\na/1.jpg,b,b,0.25,0.75\n2.jpg,,a,0.5,0.5\n"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a file of predictions.*got none"),
        ("path,label\n", "is not a file of predictions"),
        ("path,label,predicted,cat\n", "is not a file of predictions"),
        ("path,label,predicted,score:a\nx,a,a\n", "row 1 does not fit"),
        ("path,label,predicted,score:a\nx,a,a,1\nx,b,a,1\n", "row 2 does not fit"),
        ("path,label,predicted,score:a\nx,a,a,much\n", "row 1 .* not a number"),
        ("path,label\nx,a\n", "without which predicted is needed; got 'path', 'label'"),
        ("path,predicted\nx,a\n", "is not a file of predictions"),
        ("path:label:predicted\n", "is not a file of predictions"),
        ("path,label,predicted,weight\nx,a,a,1\n", "got 'path', 'label', 'predicted', 'weight'"),
        ("path,label,score:\nx,,1\n", "is not a file of predictions"),
        ("path,label,predicted,label\nx,a,a,a\n", "two columns named 'label'"),
        ("path,label,predicted\nx,a,a\ny,a,a\nx,b,a\n", "row 3 is of 'x', as is row 1"),
        ("path,label,predicted\nx,a,a\ny,a,\n", "row 2 does not fit: its predicted is ''"),
        ("path,label,predicted,score:a\nx,a,b,1\n", "row 1 .* its predicted is 'b'"),
        ("path,label,score:a,score:b\nx,a,0.5,0.5\ny,a,0.5,0.4\n", "sum to 1; row 2"),
        ("path,label,score:a,score:b\nx,a,1.5,-0.5\n", "are probabilities .* row 1"),
        ("path,label,score:a,score:b\nx,a,nan,1\n", "are probabilities .* row 1"),
        ("path,label,score:a,score:b\nx,a,1e300,1\n", "are probabilities .* row 1"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ids": ("a",)}, "a label and an answer for each row"),
        ({"outputs": f32([[1.0], [1.0]])}, "one score per class"),
        ({"outputs": np.array([[0.5, 0.5], [0.5, 0.5]])}, "float32"),
        ({"outputs": f32([[0.5, 0.5], [0.5, 0.6]])}, "sum to 1; row 1"),
        ({"outputs": f32([[np.nan, 0.5], [0.5, 0.5]])}, "sum to 1; row 0"),
        ({"outputs": f32([[-0.5, 1.5], [0.5, 0.5]])}, "are probabilities"),
        ({"labels": np.array([0, 2])}, "from 0 to 1, or -1"),
        ({"labels": np.array([0, -2])}, "from 0 to 1, or -1"),
        ({"target": ("a", "a")}, "name of its own"),
        ({"answers": np.array([0])}, "an answer for each row"),
        ({"answers": np.array([0, 1], np.int32)}, "one answer per row"),
        ({"answers": np.array([0, 2])}, "from 0 to 1; got"),
        ({"answers": np.array([0, -1])}, "from 0 to 1; got"),
        ({"outputs": np.zeros((2, 0), np.float32)}, "one score per class"),
        ({"outputs": f32([[1.0], [1.0]]), "answers": np.array([0, 1])}, "one score per class"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], told: str) -> None:
    parts: dict[str, Any] = {
        "ids": ("x", "y"),
        "outputs": f32([[0.5, 0.5], [0.1, 0.9]]),
        "labels": np.array([0, 1]),
        "target": ("a", "b"),
    }
    Predictions(**parts)
    with pytest.raises(Mismatch, match=told):
        Predictions(**(parts | change))


def test_taken_rows_keep_their_scores() -> None:
    said = made()
    taken = said.take([3, 1])
    assert taken.ids == ("3.jpg", "1.jpg")
    assert (taken.scores == said.scores[[3, 1]]).all()
    assert (taken.labels == said.labels[[3, 1]]).all()


def test_an_unknown_label_is_never_right() -> None:
    said = made(n=40)
    assert not said.correct[~said.known].any()
    assert (said.correct == (said.predicted == said.labels)).all()


def test_columns_of_a_file_made_elsewhere_may_be_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "score:b,label,predicted,score:a,path\n0.75,b,b,0.25,x\n0.5,,a,0.5,y\n"
    )
    said = read_predictions(tmp_path / "p.csv")
    assert (said.ids, said.classes, said.labels.tolist()) == (("x", "y"), ("b", "a"), [0, -1])
    assert said.scores.tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert said.predicted.tolist() == [0, 1]


def test_without_a_column_of_answers_the_highest_score_is_the_answer(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("path,label,score:a,score:b\nx,a,0.2,0.8\n")
    said = read_predictions(tmp_path / "p.csv")
    assert (said.predicted.tolist(), said.answers) == ([1], None)


def test_an_answer_that_is_not_the_highest_score_stands(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("path,label,predicted,score:a,score:b\nx,a,a,0.4,0.6\n")
    said = read_predictions(tmp_path / "p.csv")
    assert said.scored
    assert (said.predicted.tolist(), said.correct.tolist()) == ([0], [True])
    write_csv(said, tmp_path / "q.csv")
    assert same(read_predictions(tmp_path / "q.csv"), said)


def test_a_file_without_scores_holds_no_probabilities(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("path,label,predicted\nx,owl,cat\ny,,dog\n")
    said = read_predictions(tmp_path / "p.csv")
    assert said.classes == ("cat", "dog", "owl")
    assert (said.scored, said.scores.shape) == (False, (2, 0))
    assert (said.labels.tolist(), said.predicted.tolist()) == ([2, -1], [0, 1])


def test_answers_without_scores_come_back(tmp_path: Path) -> None:
    said = unscored()
    write_csv(said, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "path,label,predicted\n1,a,a\n2,,b\n3,b,a\n"
    assert same(read_predictions(tmp_path / "p.csv"), said)
    assert said.take([1, 2]).predicted.tolist() == [1, 0]


def test_a_mark_of_the_byte_order_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbfpath,label,predicted\r\nx,a,b\r\n\r\n")
    assert read_predictions(tmp_path / "p.csv").ids == ("x",)


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"path,label,predicted\n\xff,a,b\n")
    for name, message in (("p.csv", "is not UTF-8"), ("q.csv", "is no file that can be read")):
        with pytest.raises(DataError, match=f"{name} {message}"):
            read_predictions(tmp_path / name)


def test_a_column_without_a_name_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(",path,label,predicted\n0,1.png,cat,cat\n1,2.png,dog,cat\n")
    assert read_predictions(tmp_path / "p.csv").correct.tolist() == [True, False]
    (tmp_path / "p.csv").write_text(",path,label,predicted\n0,1.png,cat\n")
    with pytest.raises(DataError, match="row 1 does not fit the 4 columns"):
        read_predictions(tmp_path / "p.csv")


def of_numbers() -> Predictions:
    values = np.array([1.5, -2.25e-7, 3e8], np.float32)
    return Predictions(("a", "b", "c"), {"value": values}, np.array([1.0, np.nan, 3.0]), NUMBERS)


@pytest.mark.parametrize("kind", ["classes", "unscored", "number"])
def test_very_many_predictions_are_parquet_with_the_same_columns(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    said = {"classes": made, "unscored": unscored, "number": of_numbers}[kind]()
    few, about = write_predictions(said, tmp_path / "few")
    monkeypatch.setattr(predictions, "MANY_ROWS", 2)
    path, about = write_predictions(said, tmp_path / "many")
    assert (few.name, path.name, about) == ("predictions.csv", "predictions.parquet", "")
    assert predictions_file(tmp_path / "many") == path
    target = said.target if kind == "number" else None
    there, other = (read_predictions(file, target) for file in (path, few))
    assert there.ids == other.ids
    for name, values in other.outputs.items():
        assert there.outputs[name].tobytes() == values.tobytes()
    assert np.array_equal(there.labels, other.labels, equal_nan=kind == "number")


def test_without_pyarrow_very_many_predictions_are_csv_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "MANY_CELLS", 10)
    monkeypatch.setattr(predictions, "find_spec", lambda name: None)
    path, about = write_predictions(made(), tmp_path)
    assert path.name == "predictions.csv"
    assert 'pip install "headstart[parquet]"' in about
    assert same(read_predictions(predictions_file(tmp_path)), made())


def test_a_parquet_file_with_scores_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "p.parquet"
    columns = {"path": ["a"], "label": ["cat"], "score:cat": ["much"], "score:dog": ["little"]}
    write_parquet_columns(path, columns)
    with pytest.raises(DataError, match="scores are numbers, and the column 'score:cat'"):
        read_predictions(path)


def test_a_parquet_file_of_numbers_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [pyarrow.array(["a"]), pyarrow.array(["1"]), *[pyarrow.array([1.0])] * 2]
    table = pyarrow.Table.from_arrays(cells, ["path", "label", "predicted", "predicted"])
    parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(DataError, match="two columns named 'predicted'"):
        read_predictions(tmp_path / "p.parquet", "number")


def test_a_parquet_file_with_missing_labels_is_judged_as_the_csv_file_of_its_rows(
    tmp_path: Path,
) -> None:
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    classes = pandas.DataFrame({"path": ["a", "b"], "label": [1, None], "predicted": [1, 2]})
    values = [0.1, 123456789012.5]
    numbers = pandas.DataFrame({"path": ["a", "b"], "label": [0.1, np.nan], "predicted": values})
    for rows, target in ((classes, None), (numbers, "number")):
        rows.to_csv(tmp_path / "p.csv", index=False)
        rows.to_parquet(tmp_path / "p.parquet")
        csv, parquet = (read_predictions(tmp_path / f"p.{e}", target) for e in ("csv", "parquet"))
        assert parquet.known.tolist() == [True, False]
        assert (parquet.target, parquet.names) == (csv.target, csv.names)
        assert np.array_equal(parquet.labels, csv.labels, equal_nan=target == "number")
    narrow = numbers.astype({"label": "float32", "predicted": "float32"})
    narrow.to_parquet(tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet", "number").known.tolist() == [True, False]


def test_predicted_numbers_stay_numbers_in_a_frame() -> None:
    pytest.importorskip("pandas")
    values = {"value": np.array([1.5, 2.5], np.float32)}
    said = Predictions(
        ("a", "b"), values, NUMBERS.unknown(2), NUMBERS, doubts=("unlike the training images", "")
    )
    frame = said.to_frame()
    assert frame["predicted"].mean() == 2.0
    assert frame["reason"].tolist() == ["unlike the training images", ""]
    assert said.names == ("unknown", "2.5")
    doubted = replace_doubts(made(2))
    assert doubted.to_frame()["predicted"].tolist()[0] == "unknown"


def replace_doubts(said: Predictions) -> Predictions:
    return Predictions(
        said.ids, said.outputs, said.labels, said.target, doubts=("not sure enough", "")
    )


def test_the_folds_of_a_parquet_file_are_known(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_parquet(made(), tmp_path / "p.parquet", range(5))
    assert is_cross_validated(tmp_path / "p.parquet")
    assert same(read_predictions(tmp_path / "p.parquet"), made())


def test_what_is_right_is_compared_once_for_all_rows() -> None:
    """Looked up row by row, it took time with the square of the rows."""
    scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    said = Predictions(("a", "b"), scores, np.array([0, 0]), ("x", "y"))
    assert said.correct is said.correct
    assert said.predicted is said.predicted
    assert said.take([1]).correct.tolist() == [False]
