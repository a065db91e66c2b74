"""Pictures are known by what they hold: during a run, when it goes on, and when it is judged."""

import csv
import json
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import headstart as hs
from headstart.errors import DataError, SpecError

TUNE = hs.FineTune(epochs=2, batch_size=8)
FRESH = hs.Augment(flip="both", views=0)


@pytest.fixture
def job(tmp_path: Path) -> hs.Job:
    return hs.Job(backbone="tiny:32", store=hs.Store(tmp_path / "store"), finetune=TUNE)


def rows_of(run: Path, part: str) -> list[str]:
    with open(run / "splits.csv", encoding="utf-8", newline="") as f:
        return [row["path"] for row in csv.DictReader(f) if row["part"] == part]


def replace_picture(path: Path) -> None:
    """By another that can be read."""
    Image.new("RGB", (20, 20), (200, 10, 10)).save(path)


def swap(one: Path, other: Path) -> None:
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def at_stage(stage: str, act: Callable[[], object]) -> hs.Talk:
    """Act when a run first tells of a stage."""
    acts = [act]

    def say(told: str, text: str) -> None:
        if told == stage and acts:
            acts.pop()()

    return hs.Talk(say=say)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("data", {}),  # after the checks, before anything is computed
        ("data", {"strategy": "scratch"}),
        ("split", {"strategy": "scratch"}),
        ("split", {"baseline": "cnn", "strategy": "extract"}),
        ("head", {"augment": FRESH, "strategy": "finetune"}),
        ("finetune", {"finetune": replace(TUNE, adversarial=1 / 255), "strategy": "finetune"}),
    ],
)
def test_a_picture_replaced_during_a_run_stops_it(
    shapes: Path, tmp_path: Path, job: hs.Job, stage: str, changes: dict[str, Any]
) -> None:
    def spoil() -> None:
        for path in sorted(shapes.rglob("0*.png")):
            replace_picture(path)

    with pytest.raises(DataError, match=r"must stay as they are .*0\d\.png changed after it was"):
        hs.train(hs.read(shapes), tmp_path / "run", replace(job, **changes), at_stage(stage, spoil))
    assert not (tmp_path / "run" / "timings.json").exists()
    assert (tmp_path / "run" / ".unfinished").exists()


def test_two_classes_swapped_during_a_run_stop_it_though_both_are_stored(
    shapes: Path, tmp_path: Path, job: hs.Job
) -> None:
    hs.train(hs.read(shapes), tmp_path / "before", job)  # all that is read is in the store
    one, other = shapes / "dark" / "03.png", shapes / "bright" / "07.png"
    talk = at_stage("data", lambda: swap(one, other))
    with pytest.raises(DataError, match=r"bright/07\.png changed .* holds other bytes.*and 1 more"):
        hs.train(hs.read(shapes), tmp_path / "run", job, talk)


def test_a_run_whose_picture_was_replaced_begins_anew(
    shapes: Path, tmp_path: Path, job: hs.Job
) -> None:
    talk = at_stage("data", lambda: replace_picture(shapes / "dark" / "03.png"))
    with pytest.raises(DataError, match="changed after it was checked"):
        hs.train(hs.read(shapes), tmp_path / "run", job, talk)
    again = hs.train(hs.read(shapes), tmp_path / "run", job).folder
    clean = hs.train(hs.read(shapes), tmp_path / "clean", job).folder
    for name in ("splits.csv", "predictions.csv", "model/weights.safetensors"):
        assert (again / name).read_bytes() == (clean / name).read_bytes(), name


def test_a_picture_replaced_after_training_is_not_explained_as_the_one_that_was_tested(
    shapes: Path, tmp_path: Path, job: hs.Job
) -> None:
    def spoil() -> None:  # the model is judged, saved and kept
        for path in shapes.rglob("*.png"):
            replace_picture(path)

    heard, talk = list[str](), at_stage("trust", spoil)

    def say(stage: str, text: str) -> None:
        heard.append(f"{stage} {text}")
        talk.say(stage, text)

    run = hs.train(
        hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"), hs.Talk(say)
    )
    assert any(line.startswith("explained left out: ") for line in heard)
    assert not (run.folder / "explained.json").exists()
    assert "are not the files they were" in (run.folder / "report.html").read_text()


def interrupted(data: hs.Dataset, out: Path, job: hs.Job, phase: str) -> None:
    def press(done: int, total: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    def watch(stage: str) -> hs.Watch:
        return hs.Watch(progress=press) if stage == phase else hs.Watch()

    with pytest.raises(KeyboardInterrupt):
        hs.train(data, out, job, hs.Talk(watch=watch))
    assert (out / f"checkpoint-{phase}.safetensors").exists()


@pytest.mark.parametrize(
    ("phase", "changes"),
    [
        ("scratch", {"strategy": "scratch"}),
        ("baseline", {"strategy": "extract", "baseline": "cnn"}),
        ("finetune", {"strategy": "finetune", "augment": FRESH}),
        ("finetune", {"strategy": "finetune", "finetune": replace(TUNE, adversarial=1 / 255)}),
        ("finetune", {"strategy": "finetune"}),
    ],
)
def test_a_run_does_not_go_on_with_other_pictures(
    shapes: Path, tmp_path: Path, job: hs.Job, phase: str, changes: dict[str, Any]
) -> None:
    job, out = replace(job, **changes), tmp_path / "run"
    interrupted(hs.read(shapes), out, job, phase)
    checkpoint = (out / f"checkpoint-{phase}.safetensors").read_bytes()
    one, other = (shapes.parent / path for path in ("shapes/dark/03.png", "shapes/bright/07.png"))
    swap(one, other)
    with pytest.raises(
        SpecError, match=r"bright/07\.png \(changed\), dark/03\.png \(changed\)\. Put"
    ):
        hs.train(hs.read(shapes), out, job)
    assert (out / f"checkpoint-{phase}.safetensors").read_bytes() == checkpoint
    swap(one, other)
    hs.train(hs.read(shapes), out, replace(job, resume=True))
    assert not list(out.glob("checkpoint-*"))


def test_pictures_that_came_or_went_since_a_run_was_cut_off_are_named(
    shapes: Path, tmp_path: Path, job: hs.Job
) -> None:
    job, out = replace(job, strategy="scratch"), tmp_path / "run"
    interrupted(hs.read(shapes), out, job, "scratch")
    (shapes / "dark" / "03.png").rename(shapes / "dark" / "renamed.png")
    with pytest.raises(SpecError, match=r"dark/03\.png \(gone\), dark/renamed\.png \(new\)"):
        hs.train(hs.read(shapes), out, job)


def test_runs_of_several_seeds_are_of_the_same_pictures(
    shapes: Path, tmp_path: Path, job: hs.Job
) -> None:
    job = replace(job, strategy="extract")
    hs.train_seeds(hs.read(shapes), tmp_path / "runs", job, 2)
    shutil.rmtree(tmp_path / "runs" / "seed-1")
    replace_picture(shapes / "dark" / "03.png")
    with pytest.raises(SpecError, match=r"not those of seed-0: dark/03\.png \(changed\)"):
        hs.train_seeds(hs.read(shapes), tmp_path / "runs", job, 2)


def test_what_a_run_was_tested_on_is_not_shown_when_the_file_is_another(
    shapes: Path, tmp_path: Path, job: hs.Job, capsys: pytest.CaptureFixture[str]
) -> None:
    from headstart.cli import main

    job = replace(job, strategy="extract", source=str(shapes.resolve()))
    run = hs.train(hs.read(shapes), tmp_path / "run", job).folder
    tested, known = rows_of(run, "test"), rows_of(run, "train")
    replace_picture(shapes / tested[0])
    replace_picture(shapes / known[0])
    assert main(["report", str(run)]) == 0
    assert "or are not the files they were" in (run / "report.html").read_text()
    assert main(["explain", str(run)]) == 3
    told = capsys.readouterr().err
    assert re.search(rf"left out  {tested[0]}: .*it holds other bytes", told)
    assert f"nearest   left out: {known[0]}: it holds other bytes" in told
    trial = ["--epsilons", "1/255", "--steps", "1", "--corruptions", "fog", "--json"]
    assert main(["robustness", str(run), *trial]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == len(tested) - 1
    assert f"left out  {tested[0]}: it holds other bytes" in err
