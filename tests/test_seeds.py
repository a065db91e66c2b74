"""Several seeds of one job: trained once each, and told as a spread."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from listening import Calls

import headstart as hs
from headstart.base.errors import SpecError
from headstart.evaluation.evaluation import Evaluation, evaluate
from headstart.modalities.images.augment import AutoViews
from headstart.runs.seeds import SeedRun, spread, spread_rows, train_seeds
from headstart.specs import CheckPlan, FeatureExtraction, FineTune, Job, RidgeSpec, SplitPlan
from headstart.targets.predictions import Predictions


@pytest.fixture
def job(tmp_path: Path) -> Job:
    store = hs.Store(tmp_path / "store")
    return Job(backbone="tiny:32", strategy="extract", store=store)


def judged(right: int, n: int = 10, scored: bool = True) -> Evaluation:
    """Of n rows of two classes, so many right."""
    labels, own = np.arange(n) % 2, np.arange(n) < right
    answers = np.where(own, labels, 1 - labels)
    scores = np.where(np.arange(2) == answers[:, None], 0.8, 0.2).astype(np.float32)
    ids = tuple(map(str, range(n)))
    scores = scores if scored else scores[:, :0]
    return evaluate(Predictions(ids, scores, labels, ("a", "b"), answers))


def times(runs: tuple[SeedRun, ...]) -> list[int]:
    return [(run.folder / "timings.json").stat().st_mtime_ns for run in runs]


def test_a_spread_is_as_worked_out_by_hand() -> None:
    found = spread([judged(6), judged(8), judged(10)]).accuracy
    assert found is not None
    assert (found.mean, found.sd) == pytest.approx((0.8, 0.2))
    assert (found.least, found.most, found.n) == (0.6, 1.0, 3)
    half = 4.302653 * 0.2 / 3**0.5  # Student's t, two degrees of freedom, 97.5 %
    assert (found.low, found.high) == pytest.approx((0.8 - half, 1.0))  # 1.297 can't be


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), []
    kinds = {right: judged(right, 100) for right in range(101)}
    for _ in range(1000):
        some = spread([kinds[int(r)] for r in rng.binomial(100, 0.7, size=4)]).accuracy
        assert some is not None
        held.append(some.low <= 0.7 <= some.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_what_a_run_cannot_tell_has_no_spread() -> None:
    found = spread([judged(6), judged(8, scored=False)])
    assert found.log_loss is None
    assert found.to_plain()["log_loss"] is None
    header, *rows = spread_rows(found)
    assert [row[0] for row in rows] == ["accuracy", "balanced accuracy", "log loss"]
    assert rows[2][1:] == ("", "n/a", "n/a", "n/a", "n/a", "n/a")
    assert all(len(row) == len(header) for row in rows)


def test_one_run_has_no_spread(shapes: Path, tmp_path: Path, job: Job) -> None:
    with pytest.raises(SpecError, match="two runs or more; got 1"):
        spread([judged(6)])
    with pytest.raises(SpecError, match="two seeds or more; got 1"):
        train_seeds(hs.read(shapes), tmp_path / "out", job, 1)


def test_every_seed_moves_and_is_in_a_folder_of_its_own(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job = replace(job, strategy="auto", split=SplitPlan(seed=4))
    job = replace(job, finetune=FineTune(epochs=1, batch_size=8, seed=9))
    runs = train_seeds(hs.read(shapes), tmp_path / "out", job, 2)
    assert [run.folder.name for run in runs] == ["seed-4", "seed-5"]
    for i, run in enumerate(runs):
        recipe = json.loads((run.folder / "recipe.json").read_text())
        seeds = [recipe[name]["seed"] for name in ("split", "recipe", "finetune")]
        assert seeds == [4 + i, i, 9 + i]
    one, other = ((run.folder / "splits.csv").read_text() for run in runs)
    assert one != other


def test_seeds_json_tells_the_runs_and_their_spread(shapes: Path, tmp_path: Path, job: Job) -> None:
    runs = train_seeds(hs.read(shapes), tmp_path / "out", job, 2)
    told = json.loads((tmp_path / "out" / "seeds.json").read_text())
    assert [run["folder"] for run in told["runs"]] == ["seed-0", "seed-1"]
    for run, own in zip(runs, told["runs"], strict=True):
        recorded = json.loads((run.folder / "evaluation.json").read_text())["test"]
        assert own["test"] == recorded == run.test.to_plain()
    assert told["spread"] == spread([run.test for run in runs]).to_plain()


@pytest.mark.long
def test_what_is_finished_is_not_trained_again(shapes: Path, tmp_path: Path, job: Job) -> None:
    (shapes / "dark" / "torn.png").write_bytes(b"\x89PNG no more")
    data, said = hs.read(shapes), list[tuple[str, str]]()
    job = replace(job, checks=CheckPlan(max_bad=0.2))
    first = train_seeds(data, tmp_path / "out", job, 2)
    before = times(first)
    talk = Calls(stage=lambda stage, text: said.append((stage, text)))
    again = train_seeds(data, tmp_path / "out", job, 3, talk)
    assert times(again)[:2] == before
    assert [run.trained for run in again] == [False, False, True]
    assert [run.test for run in again[:2]] == [run.test for run in first]
    assert all(run.left_out == first[0].left_out for run in again)
    assert first[0].left_out[0].path == "dark/torn.png"
    assert ("seed", "1 (2 of 3), finished already") in said


@pytest.mark.long
def test_a_run_that_was_cut_off_is_trained_to_its_end(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    data = hs.read(shapes)
    first = train_seeds(data, tmp_path / "out", job, 2)
    (first[1].folder / ".unfinished").write_text("")
    again = train_seeds(data, tmp_path / "out", replace(job, resume=True), 3)
    assert [run.trained for run in again] == [False, True, True]
    assert again[1].test == first[1].test


def test_another_job_or_other_data_are_refused(shapes: Path, tmp_path: Path, job: Job) -> None:
    data, out = hs.read(shapes), tmp_path / "out"
    before = times(train_seeds(data, out, job, 2))
    other = replace(job, recipe=FeatureExtraction(RidgeSpec()))
    with pytest.raises(SpecError, match=r"begun otherwise: in recipe\.head"):
        train_seeds(data, out, other, 2)
    with pytest.raises(SpecError, match="begun otherwise: in rows"):
        train_seeds(data.take(range(20)), out, job, 2)
    assert times(train_seeds(data, out, job, 2)) == before


def test_runs_that_were_made_otherwise_are_refused(shapes: Path, tmp_path: Path, job: Job) -> None:
    data, out = hs.read(shapes), tmp_path / "out"
    path = train_seeds(data, out, job, 2)[1].folder / "recipe.json"
    recipe = json.loads(path.read_text())
    path.write_text(json.dumps(recipe | {"recipe": recipe["recipe"] | {"fit": "pad"}}))
    with pytest.raises(SpecError, match=r"seed-1 differs from seed-0 in recipe\.fit"):
        train_seeds(data, out, job, 3)
    assert not (out / "seed-2").exists()  # nothing was trained before it was seen
    path.write_text(json.dumps(recipe | {"split": recipe["split"] | {"seed": 7}}))
    with pytest.raises(SpecError, match="split seed 7, where 1 is wanted"):
        train_seeds(data, out, job, 2)


def test_a_folder_begun_before_data_knew_its_path_goes_on(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    data, out = hs.read(shapes), tmp_path / "out"
    train_seeds(data, out, replace(job, source=data.origin), 2)
    told = json.loads((out / "seeds.json").read_text())
    told["asked"]["source"] = ""
    (out / "seeds.json").write_text(json.dumps(told))
    assert len(train_seeds(data, out, replace(job, source=data.origin), 2)) == 2


@pytest.mark.long
def test_an_augmentation_that_each_seed_chooses_may_differ(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    data, out = hs.read(shapes), tmp_path / "out"
    job = replace(job, strategy="finetune", finetune=FineTune(epochs=1), augment=AutoViews(2))
    path = train_seeds(data, out, job, 2)[1].folder / "recipe.json"
    recipe = json.loads(path.read_text())
    assert recipe["view_search"] is not None
    chosen = recipe["augment"] | {"flip": "both"}
    path.write_text(json.dumps(recipe | {"augment": chosen}))
    assert len(train_seeds(data, out, job, 2)) == 2
    path.write_text(json.dumps(recipe | {"augment": chosen, "view_search": None}))
    with pytest.raises(SpecError, match=r"seed-1 differs from seed-0 in augment"):
        train_seeds(data, out, job, 2)


def test_a_finished_run_with_an_altered_file_is_refused_in_a_sentence(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    data, out = hs.read(shapes), tmp_path / "out"
    folder = train_seeds(data, out, job, 2)[1].folder
    for name in ("recipe.json", "evaluation.json", "checks.json"):
        whole = (folder / name).read_bytes()
        for text in ("[]", '{"recipe": [1], "test": 1, "unreadable": {"a": 1}}', "[" * 9999, "?"):
            (folder / name).write_text(text)
            with pytest.raises(SpecError, match="seed-1 should hold a finished run.*Move"):
                train_seeds(data, out, job, 2)
        (folder / name).write_bytes(whole)
    train_seeds(data, out, job, 2)  # the control


def test_another_folder_is_left_alone(shapes: Path, tmp_path: Path, job: Job) -> None:
    data, out = hs.read(shapes), tmp_path / "out"
    run = hs.train(data, out, job).folder
    there = sorted(p.name for p in run.iterdir())
    with pytest.raises(SpecError, match="is neither"):
        train_seeds(data, out, job, 2)
    with pytest.raises(SpecError, match="is neither"):
        train_seeds(data, out / "recipe.json", job, 2)
    assert sorted(p.name for p in run.iterdir()) == there


def test_networks_from_nothing_are_of_one_kind(shapes: Path, tmp_path: Path, job: Job) -> None:
    job = replace(job, strategy="scratch", finetune=FineTune(epochs=1, batch_size=8))
    assert len(train_seeds(hs.read(shapes), tmp_path / "out", job, 2)) == 2


def test_runs_that_came_out_alike_promise_nothing_of_their_mean() -> None:
    _, accuracy, *_ = spread_rows(spread([judged(8), judged(8)]))
    assert accuracy[2:5] == ("0.800", "0.000", "n/a")
