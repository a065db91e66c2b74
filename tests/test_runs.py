"""The main job end to end, on pictures made in a moment."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import Calls, progress_of
from PIL import Image

import headstart as hs
from headstart.backbones.saved import save_backbone
from headstart.base.atomic import write_json
from headstart.base.errors import (
    BundleError,
    DataError,
    Diverged,
    MissingPackage,
    SpecError,
    StoreError,
)
from headstart.base.runtime import ON_CPU, Runtime, bfloat16_processor
from headstart.data.splits import split
from headstart.evaluation.evaluation import evaluate
from headstart.models.bundle import load_bundle, save
from headstart.models.fitting import fit
from headstart.reporting.page import write_report
from headstart.runs.folder import recorded_parts
from headstart.runs.stages import _recorded
from headstart.specs import (
    Augment,
    FeatureExtraction,
    FineTune,
    Job,
    LinearSpec,
    LogisticSpec,
    MlpSpec,
    NearestSpec,
    RidgeSpec,
)
from headstart.targets.plan import TargetPlan

WITH_BFLOAT16 = pytest.mark.skipif(
    not bfloat16_processor(), reason="others refuse bfloat16 on the CPU"
)
FILES = {
    "recipe.json",
    "splits.csv",
    "checks.json",
    "history.csv",
    "predictions.csv",
    "evaluation.json",
    "insights.json",
    "explained.json",
    "timings.json",
    "report.html",
    "figures",
    "model",
}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        backbone="tiny:32",
        store=hs.Store(tmp_path / "store"),
        finetune=FineTune(epochs=2, batch_size=8),
    )


def test_a_run_fills_its_folder_as_promised(shapes: Path, tmp_path: Path, job: Job) -> None:
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    assert {p.name for p in run.folder.iterdir()} == FILES
    assert str(run.evaluations["test"].accuracy).startswith("1.000")


def test_every_figure_is_there_for_scripts(shapes: Path, tmp_path: Path, job: Job) -> None:
    folder = hs.train(hs.read(shapes), tmp_path / "run", job).folder
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert {"test", "val", "kept", "candidates_on_val"} <= set(evaluation)
    assert {"n", "accuracy", "per_class", "confusion"} <= set(evaluation["test"])
    assert {"value", "low", "high"} <= set(evaluation["test"]["accuracy"])
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["recipe"]["fit"] == "crop"  # "card", resolved
    assert recipe["phases"]["head"]["trainable"]["parameters"] == 33 * 2
    timings = json.loads((folder / "timings.json").read_text())
    assert timings["backbone_forwards"] >= sum(1 for _ in shapes.rglob("*.png"))
    header = (folder / "history.csv").read_text().splitlines()[0]
    assert header.startswith("phase,epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy")


def test_every_row_is_in_one_part(shapes: Path, tmp_path: Path, job: Job) -> None:
    data = hs.read(shapes)
    folder = hs.train(data, tmp_path / "run", job).folder
    rows = list(csv.DictReader((folder / "splits.csv").read_text().splitlines()))
    assert sorted(row["path"] for row in rows) == sorted(data.ids)
    assert {row["part"] for row in rows} == {"train", "val", "test"}
    tested = [row["path"] for row in rows if row["part"] == "test"]
    said = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert [row["path"] for row in said] == tested


@pytest.mark.long
def test_a_second_run_computes_nothing(shapes: Path, tmp_path: Path, job: Job) -> None:
    data = hs.read(shapes)
    hs.train(data, tmp_path / "one", job)
    two = hs.train(data, tmp_path / "two", job)
    assert two.timings.backbone_forwards == 0
    assert two.timings.store_hits >= len(data)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_same_seed_gives_bitwise_the_same_files(
    shapes: Path, tmp_path: Path, job: Job, threads: int
) -> None:
    """timings.json, its figures in the report and the seconds of history.csv apart."""
    data = hs.read(shapes)
    one = hs.train(data, tmp_path / "one", job).folder
    other = Job(
        backbone="tiny:32",
        store=hs.Store(tmp_path / "another store"),
        runtime=Runtime(decode_threads=threads),
        finetune=job.finetune,
    )
    two = hs.train(data, tmp_path / "two", other).folder
    names = [p.relative_to(one) for p in one.rglob("*") if p.is_file()]
    timed = ("timings.json", "history.csv", "report.html")
    for name in (n for n in names if n.name not in timed):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert without_seconds(one) == without_seconds(two)


def without_seconds(run: Path) -> list[str]:
    """The lines of history.csv, less how long each epoch took."""
    return [line.rpartition(",")[0] for line in (run / "history.csv").read_text().splitlines()]


def test_an_interrupted_run_goes_on_in_its_folder(shapes: Path, tmp_path: Path, job: Job) -> None:
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    data, job = hs.read(shapes), replace(job, runtime=ON_CPU)  # where batches are small
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, tmp_path / "run", job, progress_of("features", stop))
    run = hs.train(data, tmp_path / "run", job)
    assert run.timings.store_hits > 0
    assert str(run.evaluations["test"].accuracy).startswith("1.000")


def test_a_finished_run_is_never_written_over(shapes: Path, tmp_path: Path, job: Job) -> None:
    data = hs.read(shapes)
    folder = hs.train(data, tmp_path / "run", job).folder
    before = (folder / "recipe.json").read_bytes()
    with pytest.raises(SpecError, match="finished run, which is never written over"):
        hs.train(data, tmp_path / "run", job)
    assert (folder / "recipe.json").read_bytes() == before


def test_a_folder_with_other_things_is_left_alone(shapes: Path, tmp_path: Path, job: Job) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SpecError, match=r"holds 'thesis\.txt'"):
        hs.train(hs.read(shapes), tmp_path / "mine", job)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_that_only_looks_like_a_run_is_left_alone(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "precious.bin").write_text("years of work")
    with pytest.raises(SpecError, match="holds 'model'"):
        hs.train(hs.read(shapes), tmp_path / "mine", job)
    assert (tmp_path / "mine" / "model" / "precious.bin").exists()


def test_a_file_that_changes_during_a_run_is_named(shapes: Path, tmp_path: Path, job: Job) -> None:
    def spoil(stage: str, text: str) -> None:
        if stage == "data":  # the checks are done, features come next
            (shapes / "dark" / "00.png").write_bytes(b"")

    with pytest.raises(DataError, match=r"dark/00\.png changed after it was checked"):
        hs.train(hs.read(shapes), tmp_path / "run", job, Calls(stage=spoil))


def test_one_class_is_refused(shapes: Path, tmp_path: Path, job: Job) -> None:
    data = hs.read(shapes)
    dark = data.take([i for i, label in enumerate(data.labels) if label == 0])
    with pytest.raises(DataError, match="class"):
        hs.train(dark, tmp_path / "run", job)


def test_a_class_too_small_for_three_parts_is_refused_before_anything_is_computed(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    (shapes / "red").mkdir()
    for level in (100, 150, 200):
        Image.new("RGB", (20, 20), (level, 0, 0)).save(shapes / "red" / f"{level}.png")
    with pytest.raises(DataError, match="takes 5 different pictures.*'red' has 3"):
        hs.train(hs.read(shapes), tmp_path / "run", job)
    assert not list((tmp_path / "store").glob("features-*"))


def test_a_class_with_one_image_in_given_parts_is_trained_and_not_measured(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    for n, file in enumerate(sorted(shapes.rglob("*.png"))):
        part = shapes / ("train", "val", "test")[n % 3] / file.parent.name
        part.mkdir(parents=True, exist_ok=True)
        file.rename(part / file.name)
    for name in ("bright", "dark"):
        (shapes / name).rmdir()
    (shapes / "train" / "red").mkdir()
    Image.new("RGB", (20, 20), "red").save(shapes / "train" / "red" / "one.png")
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    test = run.evaluations["test"].to_plain()
    assert test["per_class"]["red"]["n"] == 0
    assert test["per_class"]["red"]["recall"] is None
    assert "red" in run.splits.train.classes


def test_duplicates_never_straddle_parts(shapes: Path, tmp_path: Path, job: Job) -> None:
    originals = sorted((shapes / "dark").glob("*.png"))
    for path in originals:
        Image.open(path).save(path.with_suffix(".bmp"))
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    parts = {"train": run.splits.train, "val": run.splits.val, "test": run.splits.test}
    part = {id: name for name, rows in parts.items() for id in rows.ids}
    for path in originals:
        png, bmp = (part.get(f"dark/{path.stem}.{kind}") for kind in ("png", "bmp"))
        assert {png, bmp} in ({"train"}, {None, "val"}, {None, "test"})  # there it counts once


def test_the_runs_own_parts_are_found_again(shapes: Path, tmp_path: Path, job: Job) -> None:
    data = hs.read(shapes)
    run = hs.train(data.take(range(20)), tmp_path / "run", replace(job, source="here"))
    for folder in (run.folder, run.folder / "model"):
        parts = recorded_parts(folder, "here", data)
        assert parts.count("test") == len(run.splits.test)
        assert parts.count("") == len(data) - 20
    assert recorded_parts(run.folder, "elsewhere", data) == ()
    assert recorded_parts(tmp_path, "here", data) == ()


def test_the_walk_of_the_readme(shapes: Path, tmp_path: Path) -> None:
    data = split(hs.read(shapes))
    model = fit(FeatureExtraction(), "tiny:32", data, store=None).model
    result = evaluate(model.predict(data.test), fitted=model.target)
    assert str(result.accuracy).startswith("1.000 [")
    save(model, tmp_path / "bundle")


def lines(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("strategy", "phases", "kept"),
    [
        ("auto", ["head", "finetune"], {"head", "finetune"}),
        ("extract", ["head"], {"head"}),
        ("finetune", ["head", "finetune"], {"finetune"}),
        ("scratch", ["scratch"], {"scratch"}),
    ],
)
def test_a_strategy_is_followed_and_told(
    shapes: Path, tmp_path: Path, job: Job, strategy: Any, phases: list[str], kept: set[str]
) -> None:
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy=strategy))
    assert list(dict.fromkeys(line["phase"] for line in lines(run.folder))) == phases
    assert run.kept in kept
    assert load_bundle(run.folder / "model").facts["told"]["kept"] == run.kept
    recipe = json.loads((run.folder / "recipe.json").read_text())
    assert list(recipe["phases"]) == phases
    assert recipe["strategy"]["asked"] == strategy


def test_a_head_that_fine_tuning_ruins_is_kept_and_by_how_much_is_told(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    ruinous = FineTune(epochs=2, batch_size=2, lr=3.0, optimizer="sgd", keep="last")
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, finetune=ruinous))
    assert run.kept == "head"
    strategy = load_bundle(run.folder / "model").facts["told"]
    assert strategy["gain_on_val"]["value"] >= 0
    kept, other = run.candidates["head"].accuracy, run.candidates["finetune"].accuracy
    assert kept is not None
    assert other is not None
    assert strategy["gain_on_val"]["value"] == pytest.approx(kept.value - other.value)


def test_epochs_are_numbered_on(shapes: Path, tmp_path: Path, job: Job) -> None:
    recipe = FeatureExtraction(LinearSpec(epochs=3))
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, recipe=recipe))
    numbers = [(line["phase"], int(line["epoch"])) for line in lines(run.folder)]
    assert numbers[:4] == [("head", e) for e in range(4)]
    assert numbers[4:] == [("finetune", 3), ("finetune", 4), ("finetune", 5)]


@pytest.mark.parametrize("views", [0, 2])
def test_augmented_runs_end_well(shapes: Path, tmp_path: Path, job: Job, views: int) -> None:
    augment = Augment(flip="both", rotation=0.2, views=views)
    recipe = FeatureExtraction(LinearSpec(epochs=2))
    job = replace(job, augment=augment, recipe=recipe)
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    assert {"head", "finetune"} == set(run.candidates)
    assert run.evaluations["test"].accuracy is not None


def test_a_baseline_from_scratch_stands_beside_the_model(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, baseline="cnn"))
    assert list(run.baselines) == ["scratch:cnn from scratch"]
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    (beside,) = evaluation["baselines_on_test"].values()
    assert beside["n"] == evaluation["test"]["n"]


def test_a_baseline_has_a_checkpoint_of_its_own(shapes: Path, tmp_path: Path, job: Job) -> None:
    job = replace(job, strategy="scratch", baseline="cnn", checkpoint_s=0.0)
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    assert (run.kept, len(run.baselines)) == ("scratch", 1)
    settings = json.loads((run.folder / "recipe.json").read_text())["finetune"]
    assert (settings["thaw"], settings["norms"], settings["lr"]) == ("all", "trained", 1e-3)


def stop_in(phase: str, after: int) -> hs.Listener:
    """Ctrl-C, as a terminal sends it, at a step of a phase."""

    def press(done: int, total: int) -> None:
        if done == after:
            signal.raise_signal(signal.SIGINT)

    return progress_of(phase, press)


@pytest.mark.parametrize(
    ("phase", "after", "precision"),
    [
        ("head", 2, "auto"),
        ("finetune", 1, "auto"),
        pytest.param("finetune", 3, "bfloat16", marks=WITH_BFLOAT16),
    ],
)
def test_ctrl_c_saves_and_the_run_goes_on_to_the_bit(
    shapes: Path, tmp_path: Path, job: Job, phase: str, after: int, precision: Any
) -> None:
    recipe = FeatureExtraction(LinearSpec(epochs=4))
    runtime = replace(job.runtime, compute_precision=precision)
    job = replace(job, recipe=recipe, strategy="finetune", runtime=runtime)
    data = hs.read(shapes)
    whole = hs.train(data, tmp_path / "whole", job).folder
    chosen = json.loads((whole / "recipe.json").read_text())["chosen"]["finetune"]
    assert ("arithmetic" in chosen) == (precision == "bfloat16")
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, broken, job, stop_in(phase, after))
    assert (broken / f"checkpoint-{phase}.safetensors").exists()
    hs.train(data, broken, replace(job, resume=True))
    for name in ("model/weights.safetensors", "splits.csv", "predictions.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert without_seconds(whole) == without_seconds(broken)
    assert {p.name for p in broken.iterdir()} == FILES


def test_training_does_not_go_on_with_another_loss(shapes: Path, tmp_path: Path, job: Job) -> None:
    recipe, focal = FeatureExtraction(LinearSpec(epochs=4)), TargetPlan(loss="focal")
    job = replace(job, recipe=recipe, strategy="extract", target=focal, insights="none")
    data, out = hs.read(shapes), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, out, job, stop_in("head", 2))
    for other in (TargetPlan(), replace(focal, focal_gamma=5.0)):
        with pytest.raises(SpecError, match="was begun with other settings"):
            hs.train(data, out, replace(job, target=other))
    assert hs.train(data, out, job).kept == "head"


def test_there_must_be_something_to_resume(shapes: Path, tmp_path: Path, job: Job) -> None:
    with pytest.raises(SpecError, match=r"resume goes on with a run that was cut off"):
        hs.train(hs.read(shapes), tmp_path / "run", replace(job, resume=True))
    assert not (tmp_path / "run").exists()


def test_a_second_trainer_on_the_same_folder_is_refused(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    data, refused = hs.read(shapes), list[str]()

    def again(stage: str, text: str) -> None:
        if stage == "data":
            with pytest.raises(SpecError, match="Another process is working on") as error:
                hs.train(data, tmp_path / "run", job)
            refused.append(str(error.value))

    run = hs.train(data, tmp_path / "run", job, Calls(stage=again))
    assert len(refused) == 1
    assert {p.name for p in run.folder.iterdir()} == FILES


@pytest.mark.long
def test_a_resumed_run_that_stores_no_cut_ends_to_the_bit(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    """New views every epoch: the frozen part runs in the loop, beside a tail that has changed."""
    job = replace(job, strategy="finetune", augment=Augment(flip="both", views=0))
    data, broken = hs.read(shapes), tmp_path / "broken"
    whole = hs.train(data, tmp_path / "whole", job).folder
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, broken, job, stop_in("finetune", 4))
    hs.train(data, broken, job)
    weights = "model/weights.safetensors"
    assert (whole / weights).read_bytes() == (broken / weights).read_bytes()


def test_a_run_that_goes_on_keeps_to_what_it_decided_about_the_disk(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, data, out = replace(job, strategy="finetune"), hs.read(shapes), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, out, job, stop_in("finetune", 2))
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    hs.train(data, out, job)
    settings = json.loads((out / "recipe.json").read_text())["finetune"]
    assert settings["cut_precision"] == "float32"


@pytest.mark.parametrize(
    ("record", "flip", "precision"),
    [
        ("own", "none", "auto"),
        ("own", "both", "float32"),
        ("of an earlier version", "both", "auto"),
    ],
)
def test_a_decision_about_the_disk_is_kept_for_its_own_settings(
    record: str, flip: Any, precision: str, shapes: Path, tmp_path: Path, job: Job
) -> None:
    job, data, out = replace(job, strategy="finetune"), hs.read(shapes), tmp_path / "run"
    full = shutil.disk_usage(tmp_path)._replace(free=0)

    def stop(stage: str, message: str) -> None:
        if stage == "split":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(KeyboardInterrupt):
            hs.train(data, out, replace(job, augment=Augment(views=1)), Calls(stage=stop))
    if record != "own":
        write_json(out / "checkpoint-cut.json", {"precision": None})
    augment = Augment(flip=flip, views=1)
    hs.train(data, out, replace(job, augment=augment, insights="none"))
    settings = json.loads((out / "recipe.json").read_text())["finetune"]
    assert settings["cut_precision"] == precision


def test_a_refused_command_leaves_what_a_training_decided(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job, data, out = replace(job, strategy="finetune"), hs.read(shapes), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, out, job, stop_in("finetune", 2))
    decided = (out / "checkpoint-cut.json").read_bytes()
    with pytest.raises(SpecError, match="was begun with other settings"):
        hs.train(data, out, replace(job, finetune=replace(job.finetune, thaw="2")))
    assert (out / "checkpoint-cut.json").read_bytes() == decided


@pytest.mark.long
@pytest.mark.parametrize("harm", ["cut short", "flipped", "removed"])
def test_a_shard_damaged_during_fine_tuning_is_told_and_the_run_goes_on_to_the_bit(
    shapes: Path, tmp_path: Path, job: Job, harm: str
) -> None:
    job, data = replace(job, strategy="finetune", checkpoint_s=0.0), hs.read(shapes)
    whole = hs.train(data, tmp_path / "whole", replace(job, store=hs.Store(tmp_path / "s"))).folder

    def damage(done: int, total: int) -> None:
        (shard,) = (tmp_path / "store").glob("cut-*/*.safetensors")
        content = shard.read_bytes()
        if harm == "removed":
            shard.unlink()
        else:
            end = b"" if harm == "cut short" else bytes([content[-1] ^ 1])
            shard.write_bytes(content[:-1] + end)

    broken = tmp_path / "broken"
    with pytest.raises(StoreError, match="Run the same command again"):
        hs.train(data, broken, job, progress_of("finetune", damage))
    hs.train(data, broken, job)
    weights = "model/weights.safetensors"
    assert (whole / weights).read_bytes() == (broken / weights).read_bytes()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"precision": "float64"}', '{"precision": ["float32"]}', "[" * 9999]
    + ['{"precision": "float32", "more": 1}', '{"precision": NaN}', "pipe"],
    ids=lambda text: text[:30],
)
def test_an_altered_record_of_what_was_decided_is_refused_in_a_sentence(
    tmp_path: Path, text: str
) -> None:
    path, asked = tmp_path / "checkpoint-cut.json", FineTune(cut_precision="float16")
    if text == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(text)
    with pytest.raises(BundleError, match=r"checkpoint-cut\.json must hold .* Remove it"):
        _recorded(path, FineTune())
    if text == "{}":  # the control, and what was asked for otherwise
        path.write_text('{"precision": "float32"}')
        assert _recorded(path, FineTune()) == "float32"
        with pytest.raises(BundleError, match="float16, or null"):
            _recorded(path, asked)


def test_a_size_that_a_network_cannot_be_given_is_refused_at_once(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    recipe = FeatureExtraction(size=64)
    job = replace(job, backbone="scratch:cnn", strategy="scratch", recipe=recipe)
    with pytest.raises(SpecError, match="can't be given 64 pixels, being built for 32"):
        hs.train(hs.read(shapes), tmp_path / "run", job)


def test_one_logit_for_three_classes_is_refused_before_anything_is_computed(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    (shapes / "red").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (200, i, 0)).save(shapes / "red" / f"{i}.png")
    recipe = FeatureExtraction(LinearSpec(output="sigmoid"))
    with pytest.raises(SpecError, match="tells two classes apart; there are 3"):
        hs.train(hs.read(shapes), tmp_path / "run", replace(job, recipe=recipe))
    assert not list((tmp_path / "store").glob("features-*"))


def test_peak_memory_is_of_this_process_alone() -> None:
    held = np.ones(50_000_000)  # which a child must not be told as its own
    code = "from headstart.base.runtime import peak_rss_bytes; print(peak_rss_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 10**6 < int(child.stdout) < held.nbytes / 2


def test_a_run_is_not_lost_for_want_of_its_page(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> Path:
        raise MissingPackage("jinja2", purpose="The report", extra="train")

    monkeypatch.setattr("headstart.runs.run.write_report", refuse)
    heard = list[str]()
    talk = Calls(stage=lambda stage, text: heard.append(f"{stage} {text}"))
    run = hs.train(hs.read(shapes), tmp_path / "run", job, talk)
    assert heard[-1].startswith("report not written: The report needs")
    assert not (run.folder / ".unfinished").exists()
    assert len(load_bundle(run.folder / "model").model.classes) == 2


def test_a_run_ends_without_what_could_not_be_looked_at(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("headstart.runs.insights.outliers", fail)
    heard = list[str]()
    talk = Calls(stage=lambda stage, text: heard.append(f"{stage}: {text}"))
    run = hs.train(hs.read(shapes), tmp_path / "run", job, talk)
    assert {p.name for p in run.folder.iterdir()} == FILES
    found = json.loads((run.folder / "insights.json").read_text())
    assert found["outliers"] is None
    assert found["doubt"]
    assert "insights: left out: MemoryError" in heard


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ("insights.embedding_map", RecursionError),
        ("run.write_json", RuntimeError),
        ("insights.explaining", np.linalg.LinAlgError),
        ("run.write_report", KeyError),
    ],
)
def test_no_error_after_the_model_is_saved_loses_the_run(
    shapes: Path,
    tmp_path: Path,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    error: type[Exception],
) -> None:
    def fail(*args: object, **more: object) -> None:
        if part != "run.write_json" or "insights.json" in str(args[0]):
            raise error("a bug")
        write_json(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(f"headstart.runs.{part}", fail)
    heard = list[str]()
    talk = Calls(stage=lambda stage, text: heard.append(f"{stage}: {text}"))
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"), talk)
    assert any("a bug" in line for line in heard)
    assert len(load_bundle(run.folder / "model").model.classes) == 2
    assert not (run.folder / ".unfinished").exists()


def test_a_run_interrupted_after_its_model_is_saved_is_said_to_be_finished(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headstart.runs.insights.embedding_map", interrupt)
    with pytest.raises(KeyboardInterrupt, match="the run is finished"):
        hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"))
    assert not (tmp_path / "run/.unfinished").exists()


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="the process is ended by signals")
@pytest.mark.parametrize(
    "part", ["insights.embedding_map", "insights.explaining", "run.write_report"]
)
def test_no_crash_after_the_model_is_saved_loses_the_run(
    shapes: Path, tmp_path: Path, part: str
) -> None:
    crash = (
        "import os, signal, sys\nimport headstart as hs, headstart.runs.run\n"
        f"headstart.runs.{part} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from pathlib import Path\n"
        "from headstart.specs import Job\n"
        "job = Job(backbone='tiny:32', strategy='extract', store=hs.Store(Path(sys.argv[3])))\n"
        "hs.train(hs.read(Path(sys.argv[1])), Path(sys.argv[2]), job)\n"
    )
    run, store = tmp_path / "run", tmp_path / "store"
    ended = subprocess.run([sys.executable, "-c", crash, shapes, run, store], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(load_bundle(run / "model").model.classes) == 2
    assert "</html>" in write_report(run, {}).read_text()
    with pytest.raises(SpecError, match="holds a finished run"):
        hs.train(hs.read(shapes), run, Job(backbone="tiny:32"))


@pytest.mark.parametrize("head", [LogisticSpec(), RidgeSpec(), NearestSpec(), MlpSpec(epochs=1)])
def test_a_dead_backbone_is_told_and_its_run_ends_well(
    shapes: Path, tmp_path: Path, job: Job, head: Any
) -> None:
    dead = hs.load_backbone("tiny:32")
    for parameter in dead.module.parameters():
        parameter.data.zero_()
    folder = save_backbone(dead, tmp_path / "dead")
    heard = list[str]()
    talk = Calls(stage=lambda stage, text: heard.append(f"{stage}: {text}"))
    recipe = FeatureExtraction(head)
    job = replace(job, backbone=f"file:{folder}", recipe=recipe, strategy="extract")
    run = hs.train(hs.read(shapes), tmp_path / "run", job, talk)
    assert any(line.startswith("features: the same for every row") for line in heard)
    assert json.loads((run.folder / "insights.json").read_text())["map"] is None
    assert "</html>" in (run.folder / "report.html").read_text()


def test_a_baseline_that_diverges_is_left_out(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*args: object) -> None:
        raise Diverged("The loss is not finite.")

    monkeypatch.setattr("headstart.models.tuning.from_scratch", diverge)
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, baseline="cnn"))
    assert run.baselines == {}
    assert (run.folder / "model" / "manifest.json").is_file()


def test_a_second_run_does_not_tell_the_time_of_the_store(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    data, plain = hs.read(shapes), replace(job, strategy="extract")
    assert (hs.train(data, tmp_path / "one", plain).timings.examples_per_second or 0) > 0
    assert hs.train(data, tmp_path / "two", plain).timings.examples_per_second is None
