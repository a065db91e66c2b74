"""Predictions refuse to exist wrongly, and come back from their file bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import DataError, Mismatch
from headstart.predictions import Predictions, read_csv, write_csv


def f32(values: Any) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def made(n: int = 5, classes: tuple[str, ...] = ("cat", "dog", "owl")) -> Predictions:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.full(len(classes), 0.1), size=n).astype(np.float32)
    labels = np.arange(n) % (len(classes) + 1) - 1
    return Predictions(tuple(f"{i}.jpg" for i in range(n)), scores, labels, classes)


def same(a: Predictions, b: Predictions) -> bool:
    bits = a.scores.tobytes() == b.scores.tobytes() and a.labels.tobytes() == b.labels.tobytes()
    return bits and a.ids == b.ids and a.classes == b.classes


def test_a_file_brings_back_every_bit(tmp_path: Path) -> None:
    said = made(n=2000)
    write_csv(said, tmp_path / "p.csv")
    assert same(read_csv(tmp_path / "p.csv"), said)


@pytest.mark.parametrize(
    "name", ["path", "label", "predicted", "score:x", 'a,"b"', "two\nlines", "cr\rlf", " ", "café"]
)
def test_odd_names_come_back(tmp_path: Path, name: str) -> None:
    plain = made(classes=(name, "other"))
    said = Predictions((name, *plain.ids[1:]), plain.scores, plain.labels, plain.classes)
    write_csv(said, tmp_path / "p.csv")
    assert same(read_csv(tmp_path / "p.csv"), said)


def test_no_rows_come_back_as_no_rows(tmp_path: Path) -> None:
    said = made(n=0)
    write_csv(said, tmp_path / "p.csv")
    assert same(read_csv(tmp_path / "p.csv"), said)
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
        ("path,label,predicted,score:a\nx,a,a,much\n", "not a number"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_csv(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ids": ("a",)}, "a label a row"),
        ({"scores": f32([[1.0], [1.0]])}, "a score a class"),
        ({"scores": np.array([[0.5, 0.5], [0.5, 0.5]])}, "float32"),
        ({"scores": f32([[0.5, 0.5], [0.5, 0.6]])}, "sum to 1; row 1"),
        ({"scores": f32([[np.nan, 0.5], [0.5, 0.5]])}, "sum to 1; row 0"),
        ({"scores": f32([[-0.5, 1.5], [0.5, 0.5]])}, "are probabilities"),
        ({"labels": np.array([0, 2])}, "from 0 to 1, or -1"),
        ({"labels": np.array([0, -2])}, "from 0 to 1, or -1"),
        ({"classes": ("a", "a")}, "name of its own"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], told: str) -> None:
    parts: dict[str, Any] = {
        "ids": ("x", "y"),
        "scores": f32([[0.5, 0.5], [0.1, 0.9]]),
        "labels": np.array([0, 1]),
        "classes": ("a", "b"),
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
