"""Settings chosen by folds, limits from out-of-fold answers, and the refit on all rows."""

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_shapes
from listening import Lines, progress_of

import headstart as hs
from headstart.base.errors import SpecError
from headstart.data.splits import Splits
from headstart.heads.fit import cross_validate, fit_at, fit_head
from headstart.heads.head import Rows
from headstart.models.bundle import load_bundle
from headstart.models.distance import Seen
from headstart.models.fitting import fit
from headstart.models.limits import TrustPlan
from headstart.models.specs import TwoPhaseSpec
from headstart.runs.config import read_config
from headstart.runs.recipes import list_recipes
from headstart.specs import (
    Augment,
    FeatureExtraction,
    FineTune,
    Job,
    LinearSpec,
    LogisticSpec,
    NearestSpec,
    RidgeSpec,
)

NOISE = 400  # columns: enough to memorise every label


def random_rows(n: int = 60, copies: int = 1) -> Rows:
    """Rows whose labels mean nothing, each `copies` times under the name of its group."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, NOISE)).astype(np.float32), rng.integers(0, 2, n)
    groups = tuple(f"g{i}" for i in range(n)) * copies
    return Rows(np.tile(x, (copies, 1)), np.tile(y, copies), ("a", "b"), groups)


def right(found: np.ndarray, rows: Rows) -> float:
    return float((found.argmax(axis=1) == rows.y).mean())


@pytest.mark.parametrize("spec", [LogisticSpec(l2=(1e-3,)), RidgeSpec(l2=(1e-3,)), NearestSpec()])
@pytest.mark.parametrize("copies", [1, 2])
def test_no_row_is_answered_by_a_head_that_knew_it_or_its_copy(spec: object, copies: int) -> None:
    rows = random_rows(copies=copies)
    found = cross_validate(spec, rows, rows)  # type: ignore[arg-type]
    assert found is not None
    assert right(found.answers["scores"], rows) < 0.7
    loose = replace(rows, groups=())
    if copies == 2:  # the control: without groups the copies give the labels away
        leaked = cross_validate(spec, loose, loose)  # type: ignore[arg-type]
        assert leaked is not None
        assert right(leaked.answers["scores"], rows) > 0.85


def test_views_are_learned_from_and_plain_rows_are_answered() -> None:
    rows = random_rows()
    views = Rows(np.tile(rows.x, (3, 1)), np.tile(rows.y, 3), rows.target)
    found = cross_validate(LogisticSpec(l2=(0.01,)), views, rows)
    alone = cross_validate(LogisticSpec(l2=(0.01,)), rows, rows)
    assert found is not None
    assert alone is not None
    np.testing.assert_allclose(found.answers["scores"], alone.answers["scores"], atol=1e-4)


def test_the_setting_of_the_most_right_answers_out_of_fold_is_chosen() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 80)
    x = (rng.normal(size=(80, 50)) + 0.8 * y[:, None] * (np.arange(50) < 5)).astype(np.float32)
    rows = Rows(x, y, ("a", "b"))
    spec = LogisticSpec()
    found = cross_validate(spec, rows, rows)
    assert found is not None
    (chosen,) = found.spec.l2  # type: ignore[attr-defined]
    merits = {entry["l2"]: (entry["accuracy"], -entry["log_loss"]) for entry in found.path}
    assert chosen == max(merits, key=merits.__getitem__)
    assert len(merits) < len(spec.l2)  # it stopped when four weaker ones were no better


def test_too_few_rows_for_folds_are_none() -> None:
    rows = random_rows(6)
    assert cross_validate(LogisticSpec(), rows, rows) is None


def test_a_row_is_not_its_own_neighbour() -> None:
    x = np.eye(8, dtype=np.float32)
    seen = Seen.of(x)
    near, own = seen.distance(x), np.eye(8, dtype=bool)
    assert np.allclose(near, np.sqrt(2))  # the fifth of eight: never itself
    close = Seen.of(np.repeat(x[:2], 5, axis=0))
    assert np.allclose(close.distance(x[:2]), 0, atol=1e-2)
    own = np.repeat(np.eye(2, dtype=bool), 5, axis=1)
    assert np.allclose(close.distance(x[:2], own), np.sqrt(2), atol=1e-2)


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def job(tmp_path: Path) -> Job:
    tuned = FineTune(epochs=2, batch_size=8)
    return Job(backbone="tiny:32", store=hs.Store(tmp_path / "store"), finetune=tuned)


def before_refit(run: hs.Run) -> hs.Model:
    assert run.fitted.before is not None
    return run.fitted.before.model


def whole_head(splits: Splits, run: hs.Run, job: Job) -> np.ndarray:
    """The weights of a head with the chosen strength on all rows outside the test part."""
    table = hs.extract(splits.train_val, backbone="tiny:32", store=job.store)
    l2 = json.loads((run.folder / "recipe.json").read_text())["chosen"]["head"]["l2"]
    head = fit_at(LogisticSpec(l2=(l2,)), Rows(table.x, table.y, table.target)).head
    return head.tensors()["weight"]


def test_the_head_is_chosen_by_folds_and_learns_from_all_rows_but_those_of_the_test(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    lines = Lines()
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"), lines)
    recipe = json.loads((run.folder / "recipe.json").read_text())
    assert recipe["chosen"]["head"]["by"] == "accuracy in 5-fold cross-validation"
    assert recipe["refit"] is True
    assert recipe["strategy"]["refitted"] is True
    told = dict(lines.lines)
    assert "on 21 images: the 17 of training and the 4 of validation" in told["refit"]
    saved = load_bundle(run.folder / "model").model
    expected = whole_head(run.splits, run, job)
    np.testing.assert_allclose(saved.head.tensors()["weight"], expected, atol=1e-4)
    assert "from 21 pictures" in (run.folder / "report.html").read_text()
    plain = replace(job, strategy="extract", refit=False)
    kept = hs.train(hs.read(shapes), tmp_path / "kept", plain)
    assert "from 17 pictures" in (kept.folder / "report.html").read_text()
    before = kept.model.head.tensors()["weight"]
    assert np.abs(before - expected).max() > 1e-3
    first = before_refit(run).head.tensors()["weight"]
    np.testing.assert_array_equal(before, first)


def test_few_rows_still_tell_what_is_unlike_them(shapes: Path, tmp_path: Path, job: Job) -> None:
    lines = Lines()
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"), lines)
    assert np.isfinite(run.model.limits.far)
    assert (
        "as 4.5% of ordinary ones are, the lowest share that so few" in dict(lines.lines)["trust"]
    )
    assert TrustPlan().false_alarms_of(20) == 1 / 21
    assert TrustPlan(false_alarms=0.0).false_alarms_of(20) == 0


@pytest.mark.parametrize("views", [0, 2])
def test_fine_tuning_is_repeated_on_all_rows_for_the_chosen_epochs(
    tmp_path: Path, job: Job, views: int
) -> None:
    data = hs.read(write_shapes(tmp_path / "shapes"))
    augment = Augment(flip="both", views=views) if views else Augment()
    job = replace(job, strategy="finetune", augment=augment)
    job = replace(job, finetune=replace(job.finetune, keep="last"))
    steps: list[int] = []
    listener = progress_of("refit", lambda done, total: steps.append(done))
    run = hs.train(data, tmp_path / "run", job, listener)
    assert steps == [1, 2, 3, 4, 5, 6]  # 20 rows in batches of 8, two epochs
    kept = hs.train(data, tmp_path / "kept", replace(job, refit=False))
    assert run.model.backbone.fingerprint() != kept.model.backbone.fingerprint()
    first, limits = before_refit(run).limits, run.model.limits
    assert (limits.temperature, limits.far) == (first.temperature, first.far)
    assert limits.seen is not None
    assert first.seen is not None
    assert (len(limits.seen.rows), len(first.seen.rows)) == (21, 17)


def test_a_refit_that_was_stopped_goes_on_to_the_bit(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job = replace(job, strategy="finetune", finetune=replace(job.finetune, keep="last"))
    data = hs.read(shapes)
    whole = hs.train(data, tmp_path / "whole", job).folder

    def press(done: int, total: int) -> None:
        if done == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        hs.train(data, tmp_path / "broken", job, progress_of("refit", press))
    broken = hs.train(data, tmp_path / "broken", replace(job, resume=True)).folder
    for name in ("model/weights.safetensors", "predictions.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_head_trained_by_epochs_is_trained_again(
    shapes: Path, tmp_path: Path, job: Job, keep: str
) -> None:
    head = LinearSpec(epochs=3, keep=keep)  # type: ignore[arg-type]
    job = replace(job, strategy="extract", recipe=FeatureExtraction(head))
    lines = Lines()
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    before = run.fitted.before
    assert before is not None
    assert all(", val " in line for line in lines.of("head")[:3])
    again = [line for line in lines.of("refit-head") if line.startswith("epoch")]
    assert again
    assert all("   no validation rows are left   " in line for line in again)
    assert not any("-" in line for line in again)
    ours, theirs = (m.head.tensors() for m in (run.model, before.model))
    assert any(not np.array_equal(ours[name], theirs[name]) for name in ours)


class Impatient(Lines):
    """Asks to stop every epoch of a refit."""

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool:
        super().epoch(phase, number, figures)
        return phase.startswith("refit")


@pytest.mark.parametrize("tuned", [None, FineTune(epochs=2, batch_size=8, keep="last")])
def test_a_listener_stops_no_refit(shapes: Path, tuned: FineTune | None) -> None:
    head = FeatureExtraction(LinearSpec(epochs=3, keep="last"))
    spec = TwoPhaseSpec(head, tuned, keep="finetune" if tuned else "head")
    parts, lines = hs.split(shapes), Impatient()
    alone, heard = (fit(spec, "tiny:32", parts, store=None, listener=own) for own in (None, lines))
    assert len([line for line in lines.of("refit-head") if line.startswith("epoch")]) == 3
    assert (alone.before is None, heard.before is None) == (False, False)
    assert alone.model.backbone.fingerprint() == heard.model.backbone.fingerprint()
    ours, theirs = (made.model.head.tensors() for made in (alone, heard))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_fitting_in_memory_refits_too(shapes: Path) -> None:
    fitted = hs.fit(shapes, backbone="tiny:32", strategy="extract", store=None)
    assert fitted.before is not None
    assert np.isfinite(fitted.model.limits.far)
    assert "cross-validation" in fitted.chosen["by"]
    plain = hs.fit(shapes, backbone="tiny:32", strategy="extract", store=None, refit=False)
    assert plain.before is None


def test_fine_tuning_goes_on_from_the_result_and_not_from_its_refitted_model(shapes: Path) -> None:
    parts = hs.split(shapes)
    fitted = hs.fit(parts, backbone="tiny:32", strategy="extract", store=None)
    assert fitted.before is not None
    tuned: dict[str, Any] = {"epochs": 1, "thaw": "1", "store": None}
    with pytest.raises(SpecError, match=r"give fit\(\) the result itself \(model=fitted\)"):
        hs.fit(parts, model=fitted.model, **tuned)
    for start in (fitted, fitted.before.model):
        assert len(hs.fit(parts, model=start, **tuned).history) == 2


def test_parts_that_share_ids_are_not_joined(shapes: Path) -> None:
    parts, lines = hs.split(shapes), Lines()
    same = replace(parts.val, ids=parts.train.ids[: len(parts.val)])
    fitted = hs.fit(
        replace(parts, val=same), backbone="tiny:32", strategy="extract", store=None, listener=lines
    )
    assert fitted.before is None
    assert dict(lines.lines)["refit"].startswith("left out: rows of training and validation have")


def test_validation_alone_may_choose(shapes: Path) -> None:
    parts = hs.split(shapes)
    recipe = FeatureExtraction(LogisticSpec(), choose="validation")
    spec = TwoPhaseSpec(recipe, None, refit=False)
    fitted = fit(spec, "tiny:32", parts, store=None)
    train, val = (hs.extract(p, backbone="tiny:32", store=None) for p in (parts.train, parts.val))
    expected = fit_head(LogisticSpec(), train, val)
    assert fitted.chosen == expected.chosen
    assert fitted.chosen["by"] == "log loss on validation"


def test_the_tutorials_never_refit_and_the_default_does() -> None:
    assert [r.name for r in list_recipes() if r.job.refit] == ["default"]


def test_a_recipe_of_an_earlier_version_is_repeated_as_it_ran(tmp_path: Path) -> None:
    old = {"recipe": {"kind": "FeatureExtraction"}, "phases": {}, "versions": {}}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    job = read_config(tmp_path / "recipe.json")
    assert (job.refit, job.recipe.choose) == (False, "validation")
    (tmp_path / "recipe.json").write_text(json.dumps(old | {"refit": True}))
    assert read_config(tmp_path / "recipe.json").refit
    (tmp_path / "recipe.json").write_text('{"refit": "no"}')
    with pytest.raises(hs.HeadstartError, match="refit is true or false; got 'no'"):
        read_config(tmp_path / "recipe.json")
