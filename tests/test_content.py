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
from conftest import count_left_out
from listening import Calls, progress_of
from PIL import Image

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main
from headstart.data.checks import good_rows
from headstart.data.dataset import Content
from headstart.data.splits import split
from headstart.modalities.reading import survey
from headstart.models.fitting import fit
from headstart.reporting.run_files import RecordedRow
from headstart.runs.folder import RunRecord
from headstart.runs.seeds import train_seeds
from headstart.specs import Augment, FeatureExtraction, FineTune, Job, LinearSpec

TUNE = FineTune(epochs=2, batch_size=8)
FRESH = Augment(flip="both", views=0)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(backbone="tiny:32", store=hs.Store(tmp_path / "store"), finetune=TUNE)


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


def at_stage(stage: str, act: Callable[[], object]) -> hs.Listener:
    """Act when a run first tells of a stage."""
    acts = [act]

    def say(told: str, text: str) -> None:
        if told == stage and acts:
            acts.pop()()

    return Calls(stage=say)


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
    shapes: Path, tmp_path: Path, job: Job, stage: str, changes: dict[str, Any]
) -> None:
    def spoil() -> None:
        for path in sorted(shapes.rglob("0*.png")):
            replace_picture(path)

    with pytest.raises(DataError, match=r"must stay as they are .*0\d\.png changed after it was"):
        hs.train(hs.read(shapes), tmp_path / "run", replace(job, **changes), at_stage(stage, spoil))
    assert not (tmp_path / "run" / "timings.json").exists()
    assert (tmp_path / "run" / ".unfinished").exists()


def test_two_classes_swapped_during_a_run_stop_it_though_both_are_stored(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    hs.train(hs.read(shapes), tmp_path / "before", job)  # all that is read is in the store
    one, other = shapes / "dark" / "03.png", shapes / "bright" / "07.png"
    talk = at_stage("data", lambda: swap(one, other))
    with pytest.raises(DataError, match=r"bright/07\.png changed .* holds other bytes.*and 1 more"):
        hs.train(hs.read(shapes), tmp_path / "run", job, talk)


def test_a_run_whose_picture_was_replaced_begins_anew(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    talk = at_stage("data", lambda: replace_picture(shapes / "dark" / "03.png"))
    with pytest.raises(DataError, match="changed after it was checked"):
        hs.train(hs.read(shapes), tmp_path / "run", job, talk)
    again = hs.train(hs.read(shapes), tmp_path / "run", job).folder
    clean = hs.train(hs.read(shapes), tmp_path / "clean", job).folder
    for name in ("splits.csv", "predictions.csv", "model/weights.safetensors"):
        assert (again / name).read_bytes() == (clean / name).read_bytes(), name


def test_a_picture_replaced_after_training_is_not_explained_as_the_one_that_was_tested(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    def spoil() -> None:  # the model is judged, saved and kept
        for path in shapes.rglob("*.png"):
            replace_picture(path)

    heard, talk = list[str](), at_stage("trust", spoil)

    def say(stage: str, text: str) -> None:
        heard.append(f"{stage} {text}")
        talk.stage(stage, text)

    run = hs.train(
        hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"), Calls(stage=say)
    )
    assert any(line.startswith("explained left out: ") for line in heard)
    assert not (run.folder / "explained.json").exists()
    assert "their files have changed since the run" in (run.folder / "report.html").read_text()


def interrupted(data: hs.Dataset, out: Path, job: Job, phase: str) -> None:
    def press(done: int, total: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        hs.train(data, out, job, progress_of(phase, press))
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
    shapes: Path, tmp_path: Path, job: Job, phase: str, changes: dict[str, Any]
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
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job, out = replace(job, strategy="scratch"), tmp_path / "run"
    interrupted(hs.read(shapes), out, job, "scratch")
    (shapes / "dark" / "03.png").rename(shapes / "dark" / "renamed.png")
    with pytest.raises(SpecError, match=r"dark/03\.png \(gone\), dark/renamed\.png \(new\)"):
        hs.train(hs.read(shapes), out, job)


@pytest.mark.long
def test_runs_of_several_seeds_are_of_the_same_pictures(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job = replace(job, strategy="extract")
    train_seeds(hs.read(shapes), tmp_path / "runs", job, 2)
    shutil.rmtree(tmp_path / "runs" / "seed-1")
    replace_picture(shapes / "dark" / "03.png")
    with pytest.raises(SpecError, match=r"not those of seed-0: dark/03\.png \(changed\)"):
        train_seeds(hs.read(shapes), tmp_path / "runs", job, 2)


def test_what_a_run_was_tested_on_is_not_shown_when_the_file_is_another(
    shapes: Path, tmp_path: Path, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job = replace(job, strategy="extract", source=str(shapes.resolve()))
    run = hs.train(hs.read(shapes), tmp_path / "run", job).folder
    tested, known = rows_of(run, "test"), rows_of(run, "train")
    replace_picture(shapes / tested[0])
    replace_picture(shapes / known[0])
    assert main(["report", str(run)]) == 0
    assert "or their files have changed since the run" in (run / "report.html").read_text()
    assert main(["explain", str(run)]) == 3
    told = capsys.readouterr().err
    assert re.search(rf"left out  {tested[0]}: .*it holds other bytes", told)
    assert f"nearest   left out: {known[0]}: it holds other bytes" in told
    trial = ["--epsilons", "1/255", "--steps", "1", "--corruptions", "fog", "--json"]
    assert main(["robustness", str(run), *trial]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == len(tested) - 1
    assert f"left out  {tested[0]}: it holds other bytes" in err


def twice_each(folder: Path) -> None:
    """Every picture a second time, in another format."""
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))


def test_val_and_test_hold_each_picture_once(shapes: Path, tmp_path: Path, job: Job) -> None:
    twice_each(shapes)
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"))
    train, val, test = run.splits.train, run.splits.val, run.splits.test
    assert run.evaluations["test"].n == len(test)
    for part in (val, test):
        assert len({content.decoded for content in part.contents}) == len(part)
    assert len({content.decoded for content in train.contents}) * 2 == len(train)
    unused = 48 - len(train) - len(val) - len(test)
    assert len(rows_of(run.folder, "")) == len(run.left_out) == unused > 0


def test_copies_that_do_not_count_are_no_failure(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice_each(shapes)
    told = ["--backbone", "tiny:32", "--strategy", "extract", "--store", str(tmp_path / "store")]
    run = str(tmp_path / "run")
    assert main(["train", str(shapes), "--out", run, *told]) == 0
    assert re.search(r"split .* exact copies in val and test do not count", capsys.readouterr().err)
    assert main(["evaluate", run, str(shapes), "--store", str(tmp_path / "store"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == len(rows_of(Path(run), "test"))
    assert re.search(r"of 48 rows \(test\); \d exact copies do not count", err)


def test_a_picture_under_two_labels_is_named_and_judges_nothing(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((shapes / "dark").glob("*.png")):
        shutil.copy(path, shapes / "bright" / f"copy-{path.name}")
    store, run = ["--store", str(tmp_path / "store")], tmp_path / "run"
    same = r"bright/copy-00\.png \(bright\) = dark/00\.png \(dark\); "
    assert main(["check", str(shapes), "--backbone", "none", *store]) == 0
    assert re.search(f"warning .*12 pictures stand .*{same}", capsys.readouterr().err)
    told = ["--backbone", "tiny:32", "--strategy", "extract", *store]
    assert main(["train", str(shapes), "--out", str(run), *told]) == 0
    assert re.search(f"warning .*12 pictures stand .*{same}", capsys.readouterr().err)
    tested = [*rows_of(run, "test"), *rows_of(run, "val")]
    assert tested
    assert not [path for path in tested if "dark" in path or "copy" in path]


def test_clean_data_is_warned_of_nothing(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    assert main(["check", str(shapes), "--backbone", "none", "--store", store]) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def run(shapes: Path, tmp_path: Path, job: Job) -> Path:
    """A head, whose data gave 17 rows to train, 4 for validation and 3 for test."""
    asked = replace(job, strategy="extract", source=str(shapes.resolve()))
    return hs.train(hs.read(shapes), tmp_path / "run", asked).folder


def judged(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, int, str]:
    """Exit code, n (0 for none) and what is said of `headstart evaluate`."""
    capsys.readouterr()
    store = ["--store", str(run.parent / "store")]
    code = main(["evaluate", str(run), str(data), "--json", *store, *more])
    out, err = capsys.readouterr()
    return code, json.loads(out)["n"] if out else 0, err


def moved(shapes: Path) -> Path:
    return shapes.rename(shapes.parent / "elsewhere")


def listed(shapes: Path) -> Path:
    rows = sorted(shapes.rglob("*.png"))
    lines = [f"{path},{path.parent.name}" for path in rows]
    (shapes.parent / "list.csv").write_text("\n".join(["path,label", *lines]))
    return shapes.parent / "list.csv"


def renamed(shapes: Path) -> Path:
    """In place: names go round within each class, so that old names hold other pictures."""
    for folder in sorted(shapes.iterdir()):
        files = sorted(folder.iterdir())
        held = [path.read_bytes() for path in files]
        for path, data in zip(files, held[1:] + held[:1], strict=True):
            path.write_bytes(data)
    return shapes


def saved_again(shapes: Path) -> Path:
    """Other bytes, the same pixels."""
    for path in sorted(shapes.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    return shapes


def relabelled(shapes: Path) -> Path:
    (shapes / "dark").rename(shapes / "kept")
    (shapes / "bright").rename(shapes / "dark")
    (shapes / "kept").rename(shapes / "bright")
    return moved(shapes)


def in_its_test_part(shapes: Path) -> Path:
    (shapes.parent / "parts").mkdir()
    return shapes.rename(shapes.parent / "parts" / "test").parent


@pytest.mark.parametrize(
    "change", [moved, listed, renamed, saved_again, relabelled, in_its_test_part]
)
def test_pictures_that_a_model_has_learned_from_are_known_whatever_they_are_called(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], Path]
) -> None:
    code, n, err = judged(run, change(shapes), capsys)
    assert (code, n) == (3, 3)
    for part, reason in (("val", "chosen by"), ("train", "trained on")):
        told = count_left_out(err, f"the model was {reason} this picture")
        assert told == len(rows_of(run, part)) or "left out  and " in err  # further reasons
        assert told


@pytest.mark.parametrize(
    ("part", "n", "learned"), [("train", 17, 17), ("val", 4, 4), ("test", 3, 0), ("all", 24, 21)]
)
def test_a_part_that_is_asked_for_judges_wherever_its_pictures_are(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str], part: str, n: int, learned: int
) -> None:
    code, counted, err = judged(run, moved(shapes), capsys, "--part", part)
    assert (code, counted) == (0, n)
    assert (f"{learned} of which the model has learned from" in err) == bool(learned)


def test_a_copy_of_a_training_picture_is_no_new_one(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, tested = rows_of(run, "train")[0], rows_of(run, "test")[0]
    shutil.copy(shapes / trained, shapes / "dark" / "again.png")
    shutil.copy(shapes / tested, (shapes / tested).with_name("more.png"))
    Image.new("RGB", (20, 20), (9, 9, 9)).save(shapes / "dark" / "new.png")
    code, n, err = judged(run / "model", shapes, capsys)
    assert (code, n) == (3, 4)
    assert f"dark/again.png: the model was trained on this picture, as {trained}" in err
    assert err.count("left out") == 1
    assert "4 of 27 rows (test, new ones among them); 1 exact copies do not count" in err


def test_of_two_copies_in_training_each_is_known_by_its_own_name() -> None:
    held = Content("f", "p")
    record = RunRecord("data", {id: RecordedRow(id, "train", held) for id in ("a", "b")})
    data = hs.Dataset(("a", "b", "c"), (Path("x"),) * 3, (0,) * 3, ("k",), contents=(held,) * 3)
    assert [row.path for row in record.matched(data) if row] == ["a", "b", "b"]


def test_another_picture_under_a_training_name_is_new(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_picture(shapes / rows_of(run, "train")[0])
    assert judged(run, shapes, capsys)[:2] == (0, 4)


def test_without_a_picture_that_is_new_there_is_nothing_to_judge_by(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for id in rows_of(run, "test"):
        (shapes / id).unlink()
    code, _, err = judged(run, moved(shapes), capsys)
    assert code == 1
    assert re.search(r"the run had all 21 of these pictures \((17 train|4 val), ", err)


def test_rows_that_were_left_out_of_the_parts_are_not_new(
    shapes: Path, tmp_path: Path, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, groups = list[str](), {"00": "patient 0", "01": "patient 1", "06": "patient 0"}
    for path in sorted(shapes.rglob("*.png")):
        part, group = "test" if path.stem < "06" else "train", groups.get(path.stem, "")
        label = path.parent.name
        group = f"{label} {group}" if group else ""
        lines.append(f"shapes/{label}/{path.name},{label},{part},{group}")
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["path,label,part,group", *lines]))
    asked = replace(job, strategy="extract", source=str(manifest.resolve()))
    run = hs.train(hs.read(manifest), tmp_path / "run", asked).folder
    assert rows_of(run, "") == ["shapes/bright/06.png", "shapes/dark/06.png"]
    code, n, err = judged(run, manifest, capsys)
    assert (code, n) == (3, 12)
    assert "shapes/dark/06.png: the run left this picture out of its parts" in err


def test_a_run_of_an_earlier_version_is_compared_by_names_and_says_so(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(run / "splits.csv", encoding="utf-8", newline="") as f:
        lines = [f"{r['path']},{r['label']},{r['part']}" for r in csv.DictReader(f)]
    (run / "splits.csv").write_text("\n".join(["path,label,part", *lines]))
    code, n, err = judged(run, shapes, capsys)
    assert (code, n) == (0, 3)
    assert "by their names only" in err
    assert judged(run, moved(shapes), capsys)[:2] == (0, 24)


def test_a_bundle_without_its_run_says_that_it_knows_no_pictures(
    shapes: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = shutil.copytree(run / "model", run.parent / "bundle" / "model")
    code, n, err = judged(bundle, shapes, capsys)
    assert (code, n) == (0, 24)
    assert "known from its run alone" in err


@pytest.mark.parametrize("augment", [Augment(), Augment(flip="both", views=2), FRESH])
def test_fit_stops_for_a_checked_picture_that_was_replaced(shapes: Path, augment: Augment) -> None:
    data = hs.read(shapes)
    parts = split(good_rows(data, survey(data)))
    replace_picture(parts.train.sources[0])
    recipe = FeatureExtraction(LinearSpec(epochs=1))
    with pytest.raises(DataError, match=r"\d\d\.png changed after it was checked"):
        fit(recipe, "tiny:32", parts, views=augment, store=None)
