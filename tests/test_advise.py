"""`headstart advise`: freeze or tune, measured, in words."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from headstart.base.context import RunContext
from headstart.base.runtime import ON_CPU
from headstart.cli.main import main
from headstart.errors import SpecError, UnknownName
from headstart.evaluation.advice import Advice, AdvicePlan, Measured, chosen_thaw, gain_of_more
from headstart.evaluation.backbone_search import BackboneSearch, TriedBackbone
from headstart.evaluation.evaluation import Estimate, compare
from headstart.evaluation.tuning_probe import (
    ProbeAnswers,
    TuningProbe,
    _begun,
    _Fold,
    _folds,
    tuning_probe,
)
from headstart.features.extract import FeatureTable, extract
from headstart.models.specs import FineTune, TwoPhaseSpec
from headstart.models.training_data import prepare
from headstart.reporting.advice import advice_text
from headstart.runs import advise as advising
from headstart.targets.predictions import Predictions
from headstart.targets.registry import TARGETS
from headstart.targets.supervision import Supervision

QUICK: dict[str, Any] = {"backbones": ["tiny:32"], "store": None, "probe_epochs": 1}


# ------------------------------------------------------------ rules
def answers(right: NDArray[np.bool_]) -> Predictions:
    """Two classes, predicted rightly or not."""
    scores = np.stack([~right, right], axis=1).astype(np.float32)
    ids = tuple(map(str, range(len(right))))
    return Predictions(ids, scores, np.ones(len(right), np.int64), ("a", "b"))


def probed(thaw: str, head: NDArray[np.bool_], tuned: NDArray[np.bool_]) -> ProbeAnswers:
    some = Estimate(0.8, 0.7, 0.9, len(head))
    by_head, by_tuned = answers(head), answers(tuned)
    gain = compare(by_tuned, by_head)
    return ProbeAnswers(
        TuningProbe(thaw, 6, len(head), 3, some, some, gain, 0.01), by_head, by_tuned
    )


def test_a_slower_way_must_gain_more_than_its_interval() -> None:
    rows = np.arange(200)
    head, little, much = rows < 160, rows < 162, rows < 180
    assert chosen_thaw([]) == "none"
    assert chosen_thaw([probed("3", head, little)]) == "none"
    assert chosen_thaw([probed("3", head, much)]) == "3"
    assert chosen_thaw([probed("3", head, much), probed("all", head, rows < 182)]) == "3"
    assert chosen_thaw([probed("3", head, much), probed("all", head, rows < 199)]) == "all"
    assert chosen_thaw([probed("3", head, little), probed("all", head, much)]) == "all"


def test_the_gain_of_more_rows_is_seen_and_no_gain_is_none() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=240)
    ids, noise = tuple(map(str, range(240))), rng.normal(size=(240, 60)).astype(np.float32)
    told = noise + 0.35 * (2 * y[:, None] - 1) * (np.arange(60) < 20)
    hard, easy = (
        FeatureTable(ids, x.astype(np.float32), y, ("a", "b"), "")  # type: ignore[arg-type]
        for x in (told, noise + 9 * y[:, None])
    )
    more = gain_of_more(hard, 0)
    assert more is not None
    assert more.n > 100
    same = gain_of_more(easy, 0)
    assert same is not None
    assert more.value > same.value == 0
    assert gain_of_more(FeatureTable(ids[:12], noise[:12], y[:12], ("a", "b"), ""), 0) is None  # type: ignore[arg-type]


def test_half_of_the_rows_count_as_they_do_in_the_whole() -> None:
    """Heads that leave wrong labels of weight 0 out are right with half of the rows already."""
    rng = np.random.default_rng(0)
    truth, wrong = rng.integers(2, size=240), np.arange(240) % 5 < 2
    x = rng.normal(size=(240, 60)) + 3 * truth[:, None] * (np.arange(60) < 20)
    y = np.where(wrong, 1 - truth, truth)
    weights = Supervision(np.where(wrong, 0.0, 1.0))
    ids = tuple(map(str, range(240)))
    table = FeatureTable(ids, x.astype(np.float32), y, ("a", "b"), "", supervision=weights)  # type: ignore[arg-type]
    more = gain_of_more(table, 0)
    assert more is not None
    assert more.value == 0


# ------------------------------------------------------------ the measurement
def test_every_row_is_judged_once_by_models_that_did_not_have_it(shapes: Path) -> None:
    rows = hs.read(shapes)
    parts = list(_folds(rows))
    assert sorted(np.concatenate([out for out, _ in parts]).tolist()) == list(range(24))
    for out, splits in parts:
        assert splits.test.ids == rows.take(out).ids
        learned = {*splits.train.ids, *splits.val.ids}
        assert not learned & {*splits.test.ids}
        assert len(learned) + len(out) == 24


@pytest.mark.parametrize("thaw", ["auto", "all"])
def test_answers_from_the_cut_are_those_of_the_whole_network(thaw: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3)).astype(np.uint8)
    spec = TwoPhaseSpec(finetune=FineTune(thaw=thaw, epochs=2, lr=0.05, keep="last"))
    backbone, rows = hs.load_backbone("tiny:32"), hs.read((pixels, ["a", "b"] * 15))
    context = RunContext(None, ON_CPU.resolved())
    start = _begun(spec, backbone, rows, context)
    _, splits = next(iter(_folds(rows)))
    own = replace(prepare(spec, backbone), tap=start.tap, table=start.table)
    fold = _Fold(spec, own, splits, context)
    tuned = fold.tuned(fold.head())
    before = fold.head().answers(fold.features.x)["scores"]
    model = tuned.model
    whole = model.predict_table(extract(model.backbone, splits.test, runtime=ON_CPU))
    np.testing.assert_allclose(fold.answers(tuned)["scores"], whole.scores, atol=1e-4)
    assert np.abs(whole.scores - before).max() > 1e-3


def test_labels_by_chance_are_no_reason_to_tune() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    found = hs.advise((pixels, ["a", "b"] * 30), **QUICK)
    assert (found.thaw, found.strategy) == ("none", "extract")
    assert found.measured.probes
    assert "--strategy extract" in found.command("d")


def test_a_probe_takes_groups_out_together(shapes: Path) -> None:
    rows = hs.read(shapes)
    rows = replace(rows, groups=tuple(f"g{i // 4}" for i in range(24)))
    context = RunContext(None, ON_CPU.resolved())
    answers = tuning_probe(hs.load_backbone("tiny:32"), rows, "1", 1, context)
    assert answers.probe.rows == 24
    assert 0 < answers.probe.seconds < 1  # of a row and pass
    for out, splits in _folds(rows):
        assert not {rows.groups[i] for i in out} & {*splits.train.groups, *splits.val.groups}


# ------------------------------------------------------------ the command
@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_command_says_what_to_do_and_why(
    language: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbones", "tiny:32", "nowhere:1", "--probe-epochs", "1", "--language", language]
    assert main(["advise", str(shapes), *words, "--store", str(tmp_path / "store")]) == 3
    out, err = capsys.readouterr()
    assert {"en": "Measured, on 24", "ru": "Измерено на 24"}[language] in out.replace("\n", " ")
    assert "--backbone tiny:32" in out.splitlines()[-1]
    assert {"en": "left out", "ru": "пропущено"}[language] + " nowhere:1" in " ".join(err.split())
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_the_json_holds_what_was_measured(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbones", "tiny:32", "--probe-epochs", "0", "--json", "--store", str(tmp_path)]
    assert main(["advise", str(shapes), *words]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["strategy"] == "extract"
    assert plain["measured"]["probes"] == []
    assert plain["measured"]["why_not"] == "--probe-epochs 0 asks for none."
    assert Advice.read(plain).to_plain().items() <= plain.items()


@pytest.mark.long
@pytest.mark.parametrize("kind", [n for n in TARGETS.built_in if not TARGETS[n].no_search])
def test_every_target_is_advised(kind: str) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(3, size=45)
    pixels = [np.full((16, 16, 3), 60 * i + n % 40, np.uint8) for n, i in enumerate(levels)]
    labels: dict[str, Any] = {
        "class": [str(i) for i in levels],
        "number": levels.tolist(),
        "grades": [str(i) for i in levels],
        "labels": [["some"] * (i > 0) + ["many"] * (i > 1) for i in levels.tolist()],
    }
    found = hs.advise(hs.read((pixels, labels[kind]), target=kind), **QUICK)
    assert found.measured.probes
    assert len(found.words) >= 5
    assert (found.smallest > 0) == (kind != "number")


def test_texts_are_advised(tmp_path: Path) -> None:
    rows = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(15)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = hs.advise(tmp_path / "t.jsonl", **{**QUICK, "backbones": ["tiny-text:16"]})
    assert found.measured.place == ""
    assert "30 texts" in found.words[2]


@pytest.mark.parametrize(
    ("place", "gains", "tried"),
    [
        ("near", False, ["auto"]),
        ("far", False, ["auto"]),
        ("very far", False, ["auto", "all"]),
        ("near", True, ["auto", "all"]),
    ],
)
def test_all_layers_are_tried_where_that_may_pay(
    place: str, gains: bool, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, rows = list[str](), np.arange(200)

    def probe(network: object, few: object, thaw: str, *_: object) -> ProbeAnswers:
        noted.append(thaw)
        return probed(thaw, rows < 160, rows < (190 if gains else 161))

    monkeypatch.setattr(advising, "tuning_probe", probe)
    network: Any = None
    few, context = hs.read((np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"])), RunContext()
    list(advising._probes(network, few, Measured(place), AdvicePlan(), context))
    assert noted == tried


def test_without_pytorch_the_head_is_advised(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advising, "installed", lambda *packages: False)
    found = hs.advise(shapes, **QUICK)
    assert found.thaw == "none"
    assert "needs the package 'torch'" in found.measured.why_not


def test_wrong_settings_are_one_sentence(shapes: Path) -> None:
    with pytest.raises(SpecError, match="rows is 10 or more"):
        hs.advise(shapes, rows=9)
    with pytest.raises(UnknownName, match="language"):
        AdvicePlan(language="de")  # type: ignore[arg-type]


# ------------------------------------------------------------ words
def advice(**changes: Any) -> Advice:
    some, gain = Estimate(0.8, 0.7, 0.9, 90), Estimate(0.05, 0.01, 0.09, 90)
    tried = TriedBackbone("tiny:32", some, (0.8,), gain, -0.1, 12.0, 5.0, "MIT", {})
    fast = replace(tried, name="tiny:8", ms=3.0)
    search = BackboneSearch("accuracy", 90, 0, "tiny:8", (tried, fast))
    probes = tuple(TuningProbe(t, 6, 90, 3, some, some, gain, 0.01) for t in ("3", "all"))
    measured = Measured("very far", some, gain, probes, "", 0.02)
    return replace(Advice("image", 900, 20, True, search, measured, "all"), **changes)


ALL = (
    advice(),
    advice(thaw="none", shares=False, rows=5000, smallest=0),
    advice(measured=Measured("near", why_not="PyTorch."), thaw="none"),
    advice(rows=5000, smallest=1000, thaw="3", measured=replace(advice().measured, place="far")),
    advice(measured=replace(advice().measured, place="", more=Estimate(0.0, -0.1, 0.1, 9))),
)


@pytest.mark.parametrize("case", ALL, ids=range(len(ALL)))
def test_the_advice_is_in_the_language_that_is_asked_for(case: Advice) -> None:
    russian = " ".join(advice_text(case, "ru"))
    names = {"tiny", "PyTorch", "MAE", "strategy", "auto"}
    assert set(re.findall(r"[A-Za-z]+", russian)) <= names
    english = " ".join(advice_text(case, "en"))
    assert not re.search("[А-яё]", english)
    for text in (russian, english):
        assert "<" not in text
        assert ".." not in text
        assert "{" not in text
    assert len(advice_text(case, "ru")) == len(advice_text(case, "en"))


def test_the_lessons_table_is_told() -> None:
    cases = {
        ("near", 500): "little data that is near",
        ("far", 500): "little data that is far",
        ("near", 5000): "much data that is near",
        ("very far", 5000): "much data that is far",
    }
    for (place, rows), rule in cases.items():
        measured = replace(advice().measured, place=place)
        text = " ".join(advice_text(advice(rows=rows, smallest=0, measured=measured)))
        assert rule in text
    assert advice(measured=replace(advice().measured, place="")).rule == ""


def test_the_time_is_that_of_what_was_measured() -> None:
    own = advice(rows=1000)
    assert own.head_seconds == 1000 * 0.02
    assert own.tuned_seconds == pytest.approx(20 + 10 * 700 * 0.01)
    assert advice(measured=Measured(seconds=1.0)).tuned_seconds is None
