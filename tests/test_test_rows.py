"""Test rows judge the model and choose nothing: with other labels there, all else is the same.

The labels of the test rows are exchanged. Whatever is chosen, fitted, saved or advised must not
change by a bit; the figures on the test part must.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.data.dataset import Dataset
from headstart.data.folds import RunParts, folded
from headstart.data.splits import Splits
from headstart.features import extract as extracting
from headstart.models.model import Model
from headstart.runs import job as jobs
from headstart.runs import search as searching

SETTINGS: dict[str, Any] = {"backbone": "tiny:32", "insights": "none"}
MODES: dict[str, dict[str, Any]] = {
    "auto": {},
    "auto without refit": {"refit": False},
    "head": {"strategy": "extract"},
    "head without refit": {"strategy": "extract", "refit": False},
    "head chosen on validation": {"strategy": "extract", "choose": "validation"},
    "head by epochs": {"strategy": "extract", "head": "linear", "head_epochs": 2},
    "finetune": {"strategy": "finetune", "wise": True},
    "finetune without refit": {"strategy": "finetune", "refit": False, "ema": 0.5},
    "scratch": {"strategy": "scratch"},
    "shots": {"shots": 3, "draws": 2},
    "backbone auto": {"backbone": "auto", "strategy": "extract"},
    "test-time views": {"strategy": "extract", "tta": "auto", "flip": "horizontal", "views": 2},
    "conformal sets": {"strategy": "extract", "alpha": 0.2},
}
TUNES = {"auto", "auto without refit", "finetune", "finetune without refit", "scratch"}
PARTS = ("train", "train", "train", "test", "test", "test", "val", "val", "train", "train")
SECONDS = {"seconds", "ms", "decoding"}


def settings_of(mode: str) -> dict[str, Any]:
    return {**SETTINGS, **({"epochs": 1} if mode in TUNES else {}), **MODES[mode]}


@pytest.fixture
def data() -> Dataset:
    """60 pictures in two classes that overlap, with their parts."""
    rng = np.random.default_rng(0)
    levels = rng.normal(128, 20, 60) + 15 * np.where(np.arange(60) % 2, 1, -1)
    pictures = [rng.normal(level, 40, (20, 20, 3)).clip(0, 255).astype("u1") for level in levels]
    rows = hs.read([(p, "ab"[i % 2]) for i, p in enumerate(pictures)])
    return replace(rows, parts=tuple(PARTS[i % 10] for i in range(60)))


def exchanged(data: Dataset, ids: set[str]) -> Dataset:
    """The data with the other label at some rows."""
    given = zip(data.ids, data.labels, strict=True)
    return replace(data, labels=tuple(1 - y if id in ids else y for id, y in given))


def in_test(data: Dataset) -> set[str]:
    return {id for id, part in zip(data.ids, data.parts, strict=True) if part == "test"}


def without_times(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {k: without_times(v) for k, v in plain.items() if k not in SECONDS}
    return [without_times(v) for v in plain] if isinstance(plain, list) else plain


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def learned(run: Path) -> dict[str, Any]:
    """All of a run that its test rows must not change."""
    files = sorted(path for path in (run / "model").rglob("*") if path.is_file())
    described = {"manifest.json", "model.json"}  # these hold the digest of the data
    model = json.loads((run / "model" / "model.json").read_text())
    del model["told"]["provenance"]
    history = without_times(table(run / "history.csv"))
    evaluation = json.loads((run / "evaluation.json").read_text())
    return {
        **{str(p.relative_to(run)): p.read_bytes() for p in files if p.name not in described},
        "model": model,
        "history": history,
        "recipe": without_times(json.loads((run / "recipe.json").read_text())),
        "parts": [(line["path"], line["part"]) for line in table(run / "splits.csv")],
        "val": evaluation["val"],
        "candidates": evaluation["candidates_on_val"],
        "answers": [
            {k: v for k, v in line.items() if k not in ("label", "right")}
            for line in table(run / "predictions.csv")
        ],
    }


@pytest.fixture
def one_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "usual_names", lambda data: ("tiny:32",))


@pytest.mark.parametrize("mode", MODES)
def test_labels_of_test_rows_change_nothing_but_the_figures_on_them(
    mode: str, data: Dataset, tmp_path: Path, one_net: None
) -> None:
    settings = {**settings_of(mode), "store": tmp_path / "store"}
    hs.train(data, tmp_path / "run", **settings)
    hs.train(exchanged(data, in_test(data)), tmp_path / "other", **settings)
    own, other = learned(tmp_path / "run"), learned(tmp_path / "other")
    assert own.keys() == other.keys()
    for name in own:
        assert own[name] == other[name], name
    figures = [json.loads((tmp_path / n / "evaluation.json").read_text()) for n in ("run", "other")]
    assert figures[0]["test"]["accuracy"] != figures[1]["test"]["accuracy"]


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["extract", "finetune"])
def test_labels_of_a_fold_change_no_answer_to_its_rows(
    strategy: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = replace(data, parts=())
    divide, fold_of = folded, dict[str, int]()

    def as_before(given: Dataset, *args: Any, **how: Any) -> RunParts:
        """The folds of the true labels, which shares of the classes decide."""
        found = divide(replace(given, labels=rows.labels), *args, **how)
        fold_of.update(found.fold)
        folds = tuple(relabelled(own, given) for own in found.folds)
        return replace(found, whole=relabelled(found.whole, given), folds=folds)

    monkeypatch.setattr(jobs, "folded", as_before)
    settings = {**SETTINGS, "store": tmp_path / "store", "strategy": strategy, "folds": 3}
    settings |= {"epochs": 1} if strategy == "finetune" else {}
    hs.train(rows, tmp_path / "run", **settings)
    first = {id for id, fold in fold_of.items() if fold == 1}
    hs.train(exchanged(rows, first), tmp_path / "other", **settings)
    own, other = (
        {line["path"]: line for line in learned(tmp_path / name)["answers"]}
        for name in ("run", "other")
    )
    assert own.keys() == other.keys() == set(rows.ids)
    assert {id for id in own if own[id] == other[id]} >= first
    assert own != other  # the other folds' models learned from these labels


def relabelled(parts: Splits, rows: Dataset) -> Splits:
    """The parts with the labels of `rows`."""
    label = dict(zip(rows.ids, rows.labels, strict=True))
    own = {
        name: replace(part, labels=tuple(label[id] for id in part.ids))
        for name in ("train", "val", "test")
        for part in [getattr(parts, name)]
    }
    return replace(parts, **own)


# ------------------------------------------------------------ searches and advice
def by_search(data: Dataset, out: Path) -> Any:
    return hs.search(data, backbones=["tiny:32"], store=None, out=out).to_plain()


def by_trials(data: Dataset, out: Path) -> Any:
    settings: dict[str, Any] = {"backbone": "tiny:32", "epochs": (1, 2)}
    return hs.search(data, trials=2, store=None, out=out, **settings).to_plain()


def by_advice(data: Dataset, out: Path) -> Any:
    found = hs.advise(data, backbones=["tiny:32"], probe_epochs=1, store=None)
    plain = found.to_plain()
    del plain["words"]  # which tell how long it takes
    return plain


COMMANDS = {"search": by_search, "search --trials": by_trials, "advise": by_advice}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The rows that a network ran on."""
    seen, real = set[str](), extracting._run

    def noting(work: Any) -> Any:
        seen.update(work.dataset.ids)
        return real(work)

    monkeypatch.setattr(extracting, "_run", noting)
    return seen


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_searched_or_advised_reads_no_test_row(
    command: str, data: Dataset, tmp_path: Path, read: set[str]
) -> None:
    ask: Callable[[Dataset, Path], Any] = COMMANDS[command]
    found = ask(data, tmp_path / "a")
    assert read
    assert not read & in_test(data)
    other = ask(exchanged(data, in_test(data)), tmp_path / "b")
    assert without_times(found) == without_times(other)
    rest = set(sorted(set(data.ids) - in_test(data))[:15])
    assert without_times(ask(exchanged(data, rest), tmp_path / "c")) != without_times(found)


def test_a_row_of_a_group_in_the_test_part_is_left_out_too(data: Dataset) -> None:
    group = {data.ids[3]: "g", data.ids[0]: "g", data.ids[1]: "h"}
    own = replace(data, groups=tuple(group.get(id, "") for id in data.ids))
    kept = searching.outside_named_test(own).ids
    assert set(kept) == set(data.ids) - in_test(data) - {data.ids[0]}
    plain = replace(data, parts=())
    assert searching.outside_named_test(plain) is plain


# ------------------------------------------------------------ once
@pytest.mark.parametrize("mode", ["auto", "head", "finetune without refit", "shots"])
def test_a_run_answers_each_test_row_once(
    mode: str, data: Dataset, tmp_path: Path, one_net: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, predict, tested = list[str](), Model.predict_table, in_test(data)

    def noting(model: Model, rows: Any) -> Any:
        answered.extend(id for id in rows.ids if id in tested)
        return predict(model, rows)

    monkeypatch.setattr(Model, "predict_table", noting)
    hs.train(data, tmp_path / "run", store=tmp_path / "store", **settings_of(mode))
    assert sorted(answered) == sorted(tested)
