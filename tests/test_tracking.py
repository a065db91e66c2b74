"""A run that was tracked is found again by the tracker's own reader."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart as hs
from headstart.base.errors import DataError, MissingPackage, SpecError, StoreError, UnknownName
from headstart.evaluation.evaluation import evaluate
from headstart.runs.tensorboard import LiveRun
from headstart.runs.tracked import tracked_run
from headstart.runs.tracking import check_tracker, track
from headstart.targets.predictions import Predictions

HISTORY = """\
phase,epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds
head,0,,1.5,0.25,1.4,0.3,0.1
head,1,0.01,0.5,0.75,0.6,0.7,0.2
finetune,1,0.001,0.25,0.9,,,3.0
"""


def part(right: int) -> dict[str, Any]:
    """The evaluation of 40 answers without scores, so many of them right."""
    labels, answers = np.zeros(40, np.int64), np.zeros(40, np.int64)
    answers[right:] = 1
    ids = tuple(map(str, range(40)))
    scores = np.zeros((40, 0), np.float32)
    return evaluate(Predictions(ids, scores, labels, ("a", "b"), answers)).to_plain()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run, as far as it is tracked."""
    folder = tmp_path / "a run"
    folder.mkdir()
    recipe = {
        "backbone": "tiny:32",
        "recipe": {"kind": "FeatureExtraction", "l2": 0.5, "hidden": [8, 4], "draft": True},
        "finetune": None,
        "tried": [{"l2": 1.0}],
        "data": "a|b",
    }
    evaluation = {"test": part(30), "val": part(20), "kept": "head", "candidates_on_val": {}}
    files = {"evaluation": evaluation, "recipe": recipe, "timings": {}}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "history.csv").write_text(HISTORY)
    return folder


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow, keeping its runs in a folder."""
    library = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    monkeypatch.chdir(tmp_path)
    return library


def test_what_is_tracked_is_what_the_folder_says(run: Path) -> None:
    found = tracked_run(run)
    assert [(p.name, p.value, p.step) for p in found.curves if p.name.startswith("head/lr")] == [
        ("head/lr", 0.01, 1)
    ]
    assert len(found.curves) == 5 + 6 + 4  # nothing where nothing was measured
    assert found.figures["test/accuracy"] == 0.75
    assert found.figures["test/accuracy_low"] == part(30)["accuracy"]["low"]
    assert not any("auroc" in name for name in found.figures)
    assert found.settings["recipe.l2"] == "0.5"
    assert found.settings["recipe.hidden"] == "[8, 4]"
    assert not {"finetune", "tried"} & set(found.settings)


def test_tensorboard_reads_back_every_number(run: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    where = track(run, "tensorboard")
    assert where == str(run / "tensorboard")
    read = reader.EventAccumulator(where).Reload()
    found = tracked_run(run)
    for point in found.curves:
        there = {event.step: event.value for event in read.Scalars(point.name)}
        assert there[point.step] == pytest.approx(point.value, rel=1e-6)
    for name, value in found.figures.items():
        assert [e.value for e in read.Scalars(name)] == pytest.approx([value], rel=1e-6)
    names = {p.name for p in found.curves} | set(found.figures)
    assert set(read.Tags()["scalars"]) == names
    (text,) = read.Tensors("recipe/text_summary")
    assert "| recipe.l2 | 0.5 |\n| recipe.hidden |" in text.tensor_proto.string_val[0].decode()
    assert "| data | a\\|b |" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_files_are_written_once(run: Path) -> None:
    pytest.importorskip("tensorboardX")
    track(run, "tensorboard")
    before = sorted((run / "tensorboard").iterdir())
    with pytest.raises(SpecError, match="was tracked already.*Remove that folder"):
        track(run, "tensorboard")
    assert sorted((run / "tensorboard").iterdir()) == before


def test_tensorboard_gets_a_live_curve_once_and_the_rest_at_the_end(run: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1.old").write_text("of a killed process")
    live, tuned = LiveRun(run), "finetune/train_loss"
    live.epoch("finetune", 1, {"lr": 0.001, "train_loss": 0.25, "train_accuracy": 0.9})
    live.epoch("finetune", 1, {"seconds": 3.0})
    track(run, "tensorboard", live)
    read = reader.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in read.Scalars(tuned)] == [(1, 0.25)]
    assert len(read.Scalars("head/train_loss")) == 2  # the live listener had none of these
    assert read.Scalars("test/accuracy")


def test_tensorboard_is_written_anew_for_a_run_that_went_on_in_another_process(run: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    live = LiveRun(run)
    live.epoch("head", 1, {"train_loss": 0.5})  # without epoch 0
    track(run, "tensorboard", live)
    read = reader.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [e.step for e in read.Scalars("head/train_loss")] == [0, 1]


def test_tensorboard_shows_the_figures_of_the_run(run: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (run / "figures").mkdir()
    Image.new("RGB", (30, 20), "red").save(run / "figures" / "curves.png")
    read = reader.EventAccumulator(track(run, "tensorboard")).Reload()
    (shown,) = read.Images("figures/curves")
    assert (shown.width, shown.height) == (30, 20)


def test_tensorboard_shows_wrong_answers(shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    job: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "insights": "quick"}
    folder = hs.train(shapes, tmp_path / "first", store=hs.Store(tmp_path / "s"), **job).folder
    lines = (folder / "predictions.csv").read_text().splitlines()
    path, label, answer, *scores = lines[1].split(",")
    swapped = {"dark": "bright", "bright": "dark"}[answer]
    lines[1] = ",".join([path, label, swapped, *reversed(scores)])
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    read = reader.EventAccumulator(track(folder, "tensorboard")).Reload()
    assert f"wrong/{label}_as_{swapped}/{path}" in read.Tags()["images"]


def test_mlflow_reads_back_every_number(run: Path, mlflow: Any) -> None:
    track(run, "mlflow")
    client = mlflow.MlflowClient()
    (there,) = client.search_runs([client.get_experiment_by_name("cells").experiment_id])
    found = tracked_run(run)
    assert (there.info.run_name, there.info.status) == ("a run", "FINISHED")
    assert there.data.params == found.settings
    for point in found.curves:
        history = client.get_metric_history(there.info.run_id, point.name)
        assert (point.step, point.value) in [(m.step, m.value) for m in history]
    assert {k: v for k, v in there.data.metrics.items() if k in found.figures} == found.figures


def test_mlflow_takes_more_settings_than_fit_in_one_message(run: Path, mlflow: Any) -> None:
    many = {f"s{i}": "x" * 700 for i in range(230)}
    (run / "recipe.json").write_text(json.dumps(many))
    track(run, "mlflow")
    client = mlflow.MlflowClient()
    (there,) = client.search_runs([client.get_experiment_by_name("cells").experiment_id])
    assert len(there.data.params) == 230
    assert {len(value) for value in there.data.params.values()} == {500}


def test_a_run_goes_beneath_the_one_that_is_under_way(run: Path, mlflow: Any) -> None:
    with mlflow.start_run() as outer:
        track(run, "mlflow")
    query = f"tags.`mlflow.parentRunId` = '{outer.info.run_id}'"
    (inner,) = mlflow.search_runs(filter_string=query, output_format="list")
    assert inner.info.run_name == "a run"


def test_what_mlflow_prints_is_not_taken_for_data(
    run: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = mlflow.start_run

    def talkative(**settings: Any) -> Any:
        print("View run at")  # as it does with a server
        return begin(**settings)

    monkeypatch.setattr(mlflow, "start_run", talkative)
    track(run, "mlflow")
    out, err = capsys.readouterr()
    assert (out, "View run at" in err) == ("", True)


def test_mlflow_saying_no_is_one_sentence(
    run: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at-all")
    with pytest.raises(StoreError, match=r"MLflow at nowhere://at-all did not take .*Set MLFLOW_"):
        track(run, "mlflow")


def tracked_model(shapes: Path, mlflow: Any) -> tuple[Any, Any]:
    """The model of a run as MLflow loads it again, and as Headstart does."""
    store = hs.Store(shapes.parent / "store")
    job: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "store": store}
    folder = hs.train(shapes, shapes.parent / "first", **job).folder
    check_tracker("mlflow")
    track(folder, "mlflow")
    (there,) = mlflow.search_runs(experiment_names=["cells"], output_format="list")
    names = {file.path for file in mlflow.MlflowClient().list_artifacts(there.info.run_id)}
    assert {"report.html", "predictions.csv"} <= names
    return mlflow.pyfunc.load_model(f"runs:/{there.info.run_id}/model"), hs.load(folder)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*type hint.*")  # of MLflow, by MLflow
def test_mlflow_loads_the_model_of_a_run_and_it_answers_the_same(
    shapes: Path, tmp_path: Path, mlflow: Any
) -> None:
    loaded, own = tracked_model(shapes, mlflow)
    assert loaded.predict(str(shapes)).equals(own.predict(shapes).to_frame())
    (tmp_path / "no.png").write_text("no picture")
    frame = pd.DataFrame({"path": [str(shapes / "dark" / "00.png"), str(tmp_path / "no.png")]})
    assert loaded.predict(frame).error.notna().tolist() == [False, True]
    with pytest.raises(DataError, match="in a column 'path'; its columns are file"):
        loaded.predict(frame.rename(columns={"path": "file"}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(noload|type hint).*")  # of MLflow, by SQLAlchemy and itself
def test_mlflows_usual_store_works_with_what_the_extra_installs(
    shapes: Path, tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any variable it is a database in the working folder, made at first use."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    loaded, own = tracked_model(shapes, mlflow)
    assert (tmp_path / "mlflow.db").is_file()
    assert loaded.predict(str(shapes)).equals(own.predict(shapes).to_frame())


def test_mlflow_is_tried_before_training(mlflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker("mlflow")
    mlflow.create_experiment("gone")
    mlflow.MlflowClient().delete_experiment(mlflow.get_experiment_by_name("gone").experiment_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
    with pytest.raises(StoreError, match="'gone' at .* was deleted. Set MLFLOW_EXPERIMENT_NAME"):
        check_tracker("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"MLflow at http://127.0.0.1:9 can't be used: .*Set MLF"):
        check_tracker("mlflow")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


@pytest.mark.parametrize(("where", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlf")])
def test_a_missing_library_is_named_with_its_extra(
    run: Path, monkeypatch: pytest.MonkeyPatch, where: str, package: str
) -> None:
    for name in ("tensorboardX", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=rf"{package}.*headstart\[track\]"):
        track(run, where)
    assert not (run / "tensorboard").exists()


def test_what_cannot_be_tracked_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'tensorboard'"):
        track(run, "tensorbord")
    with pytest.raises(DataError, match="is a finished run"):
        track(tmp_path, "tensorboard")
    (run / ".unfinished").write_text("")
    with pytest.raises(DataError, match="is a finished run"):
        track(run, "tensorboard")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("history.csv", "phase,epoch\nhead,0\n"),
        ("history.csv", ""),
        ("history.csv", HISTORY + "head,two,1,1,1,1,1,1\n"),
        ("history.csv", HISTORY + "head,2\n"),
        ("evaluation.json", "{}"),
        ("evaluation.json", "[]"),
        ("evaluation.json", "half of"),
        ("recipe.json", "[]"),
        ("recipe.json", None),
    ],
)
def test_a_spoilt_folder_is_refused(run: Path, name: str, text: str | None) -> None:
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    with pytest.raises(DataError, match="is not as a run leaves it"):
        tracked_run(run)
