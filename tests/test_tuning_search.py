"""`headstart search --trials`: settings of fine-tuning, in a folder that processes share."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import count_left_out
from numpy.typing import NDArray

import headstart as hs
from headstart.base.atomic import alone, lock
from headstart.cli.main import main
from headstart.errors import DataError, Diverged, MissingPackage, PlaceError, SpecError
from headstart.evaluation.tuning_search import TriedSettings, TuningSearch
from headstart.evaluation.tuning_space import Dimension, TuningSpace, settings_of, tuned_by
from headstart.evaluation.tuning_trial import TuningTrials, lower_is_better
from headstart.models.specs import FineTune
from headstart.runs import tuning_search as searching
from headstart.targets.classes import ClassTarget
from headstart.targets.numbers import NumberTarget

pytest.importorskip("optuna")
# A few settings on a tiny network: a trial takes a part of a second.
QUICK: dict[str, Any] = {
    "backbone": "tiny:32",
    "epochs": (1, 3),
    "lr": (1e-3, 1e-1),
    "thaw": (1, 2),
    "weight_decay": 0.01,
    "dropout": 0.0,
    "layer_decay": 1.0,
    "ema": (0.0, 0.5),
}


@pytest.fixture
def noisy() -> hs.Dataset:
    """40 pictures in two classes that overlap."""
    return noisy_data()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler and the pruner learn from fewer trials than usual."""
    from headstart.runs import tuning_study

    monkeypatch.setattr(tuning_study, "FIRST", 3)
    monkeypatch.setattr(tuning_study, "WARM", 2)
    monkeypatch.setattr(tuning_study, "PATIENT", 1)


def noisy_data() -> hs.Dataset:
    rng = np.random.default_rng(0)
    levels = rng.normal(128, 20, 40) + 12 * np.where(np.arange(40) % 2, 1, -1)
    pictures = [rng.normal(level, 40, (20, 20, 3)).clip(0, 255) for level in levels]
    return hs.read([(p.astype(np.uint8), "ab"[i % 2]) for i, p in enumerate(pictures)])


def outcome(found: TuningSearch) -> list[dict[str, Any]]:
    """All that was tried, but for the seconds."""
    return [{k: v for k, v in t.to_plain().items() if k != "seconds"} for t in found.tried]


# ------------------------------------------------------------ the space
def test_a_space_says_what_is_searched_and_what_is_fixed() -> None:
    space = TuningSpace(lr=(1e-4,), epochs=(2, 5), thaw=(), ema=(0.0, 0.9))
    own = {d.name: d for d in space.dimensions(blocks=7)}
    assert own["thaw"] == Dimension("thaw", "whole", (1, 3))
    assert own["ema"] == Dimension("ema", "choice", (0.0, 0.9))
    assert "lr" not in own
    assert space.fixed() == {"lr": 1e-4}
    assert str(own["epochs"]) == "epochs 2 to 5"
    assert "label_smoothing" not in [d.name for d in space.dimensions(7, smooths=False)]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("lr", (1e-2, 1e-3), "from a least to a largest value"),
        ("lr", (0.0, 1e-3), "lr is searched above 0"),
        ("epochs", (), "one value or several"),
        ("thaw", (0, 2), "thaw is searched above 0"),
        ("dropout", (0.0, 1.0), "dropout is a share"),
        ("ema", (0.0, 1.5), "ema is from 0 to below 1"),
    ],
)
def test_a_wrong_range_is_one_sentence(name: str, values: tuple[Any, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        TuningSpace(**{name: values})


def test_more_blocks_than_there_are_is_one_sentence() -> None:
    with pytest.raises(SpecError, match="has 3 blocks to thaw, and thaw goes up to 4"):
        TuningSpace(thaw=(1, 4)).dimensions(blocks=3)


def test_settings_become_a_spec_and_back() -> None:
    spec = tuned_by({"lr": 1e-3, "thaw": 2, "epochs": 4})
    assert spec == FineTune(lr=1e-3, thaw="2", epochs=4)
    assert settings_of(spec)["thaw"] == 2
    assert "thaw" not in settings_of(FineTune(thaw="layer4"))


def test_the_value_orders_trials_as_the_merit_does() -> None:
    rng = np.random.default_rng(0)
    ranks = [(k / 20, -float(loss)) for k in (3, 4, 20) for loss in rng.exponential(9, 20)]
    classes, number = ClassTarget(("a", "b")), NumberTarget()
    assert sorted(ranks, key=lambda r: lower_is_better(r, classes, 20)) == sorted(ranks)[::-1]
    assert lower_is_better((-2.0, -9.0), number, 20) < lower_is_better((-3.0, -1.0), number, 20)


# ------------------------------------------------------------ a trial
def test_a_trial_is_what_a_run_would_do(noisy: hs.Dataset, tmp_path: Path) -> None:
    found = hs.search(noisy, trials=3, out=tmp_path / "o", store=tmp_path / "store", **QUICK)
    assert found.best is not None
    job: dict[str, Any] = {
        "backbone": "tiny:32",
        "strategy": "finetune",
        "refit": False,
        **found.best.settings,
    }
    run = hs.train(noisy, tmp_path / "run", store=tmp_path / "store", insights="none", **job)
    assert (len(run.splits.train), len(run.splits.val)) == (found.train, found.val)
    own = run.candidates["finetune"]
    assert own.accuracy.value == found.best.merit
    assert own.log_loss.value == pytest.approx(found.best.loss, abs=1e-6)
    assert run.candidates["head"].accuracy.value == found.head


def test_the_first_trial_has_the_usual_settings(noisy: hs.Dataset, tmp_path: Path) -> None:
    space: dict[str, Any] = {"backbone": "tiny:32", "epochs": (1, 2)}
    found = hs.search(noisy, trials=1, out=tmp_path / "o", store=None, **space)
    usual = FineTune()
    settings = found.tried[0].settings
    assert settings["lr"] == pytest.approx(1e-4)
    assert settings["epochs"] == 2  # the nearest to 10
    for name in ("weight_decay", "dropout", "layer_decay", "ema", "label_smoothing"):
        assert settings[name] == getattr(usual, name)


def test_layers_that_stay_frozen_run_once_for_each_depth(
    noisy: hs.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.models import training_data

    made = list[int]()
    real = training_data.table_of

    def counted(*args: Any) -> Any:
        table = real(*args)
        made.append(table.forwards)
        return table

    monkeypatch.setattr(training_data, "table_of", counted)
    space: dict[str, Any] = {**QUICK, "thaw": 1}
    found = hs.search(noisy, trials=4, out=tmp_path / "o", store=tmp_path / "store", **space)
    assert sum(made) == found.train + found.val


def test_a_training_that_diverges_is_a_result(
    noisy: hs.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.evaluation import tuning_trial
    from headstart.models import tuning

    real, calls = tuning.fine_tune, list[int]()

    def second_fails(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Diverged("a loss is not finite")
        return real(*args)

    monkeypatch.setattr(tuning_trial, "fine_tune", second_fails)
    found = hs.search(noisy, trials=4, out=tmp_path / "o", store=None, **QUICK)
    assert [t.state for t in found.tried] == ["done", "diverged", "done", "done"]
    assert found.ranked[-1].number == 1
    assert found.tried[1].merit is None


def test_bad_trials_are_pruned(noisy: hs.Dataset, tmp_path: Path, soon: None) -> None:
    space: dict[str, Any] = {**QUICK, "epochs": 4, "lr": (1e-4, 1.0)}
    found = hs.search(noisy, trials=7, out=tmp_path / "o", store=None, **space)
    pruned = [t for t in found.tried if t.state == "pruned"]
    assert pruned
    assert all(0 < t.epochs < 4 and t.merit is None and not t.rank for t in pruned)
    assert any(f"pruned at {pruned[0].epochs}" in line for line in found.table())


@pytest.mark.parametrize("kind", ["number", "labels", "grades"])
def test_other_targets_are_searched(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(3, size=45)
    pixels = [rng.normal(60 + 60 * i, 20, (16, 16, 3)).clip(0, 255).astype("u1") for i in levels]
    labels: dict[str, Any] = {
        "number": levels.tolist(),
        "grades": [str(i) for i in levels],
        "labels": [["some"] * (i > 0) + ["many"] * (i > 1) for i in levels.tolist()],
    }
    data = hs.read((pixels, labels[kind]), target=kind)
    found = hs.search(data, trials=2, out=tmp_path / "o", store=None, **QUICK)
    assert found.merit_name == data.target.merit_name
    assert found.best is not None
    assert found.best.merit is not None
    assert kind != "number" or found.best.merit > 0
    assert ("label_smoothing" in found.searched) == (kind != "number")


# ------------------------------------------------------------ stopped and resumed
class StopsAt(hs.Listener):
    """Stops the work when trial `number` ends: its result is written already."""

    def __init__(self, number: int) -> None:
        self.number = number

    def stage(self, name: str, message: str) -> None:
        if name == "trial" and message.startswith(f"{self.number} "):
            raise KeyboardInterrupt


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stops a training within its first pass, when as many trials as the last number began."""
    from headstart.evaluation import tuning_trial
    from headstart.models import tuning

    stops, began, real = list[int](), list[int](), tuning.fine_tune

    def stopped(*args: Any) -> Any:
        began.append(1)
        if stops and len(began) == stops[-1]:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(tuning_trial, "fine_tune", stopped)
    return stops


@pytest.mark.long
def test_a_stopped_search_ends_as_one_that_was_never_stopped(
    noisy: hs.Dataset, tmp_path: Path, within: list[int], soon: None
) -> None:
    same: dict[str, Any] = {"trials": 7, "store": tmp_path / "store", **QUICK}
    whole = hs.search(noisy, out=tmp_path / "whole", **same)
    assert [t.number for t in whole.tried] == list(range(7))
    with pytest.raises(KeyboardInterrupt):  # between two trials
        hs.search(noisy, out=tmp_path / "parts", listener=StopsAt(1), **same)
    within.append(7 + 2 + 4)
    with pytest.raises(KeyboardInterrupt):  # within one, when the sampler draws by what it saw
        hs.search(noisy, out=tmp_path / "parts", **same)
    assert not list((tmp_path / "parts").glob(".worker-*"))
    assert outcome(hs.search(noisy, out=tmp_path / "parts", **same)) == outcome(whole)
    # Fewer trials first, and more later, are the same search, too.
    hs.search(noisy, out=tmp_path / "more", **{**same, "trials": 5})
    assert outcome(hs.search(noisy, out=tmp_path / "more", **same)) == outcome(whole)


def test_a_finished_search_is_only_printed(
    noisy: hs.Dataset, tmp_path: Path, within: list[int]
) -> None:
    same: dict[str, Any] = {"trials": 2, "out": tmp_path / "o", "store": None, **QUICK}
    first = hs.search(noisy, **same)
    journal = (tmp_path / "o" / "trials.jsonl").read_bytes()
    within.append(3)
    again = hs.search(noisy, **same)
    assert again.tried == first.tried
    assert (tmp_path / "o" / "trials.jsonl").read_bytes().startswith(journal)
    assert TuningSearch.read(json.loads((tmp_path / "o" / "search.json").read_text())) == again


def test_an_entry_that_was_written_in_part_is_cut_off(noisy: hs.Dataset, tmp_path: Path) -> None:
    same: dict[str, Any] = {"out": tmp_path / "o", "store": None, **QUICK}
    first = hs.search(noisy, trials=1, **same)
    with open(tmp_path / "o" / "trials.jsonl", "ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "half')
    found = hs.search(noisy, trials=2, **same)
    assert found.tried[:1] == first.tried
    assert len(found.tried) == 2


CHILD = """
import sys
sys.path.insert(0, {tests!r})
import headstart as hs
from test_tuning_search import QUICK, noisy_data
found = hs.search(noisy_data(), trials=4, out={out!r}, store={store!r}, **QUICK)
"""


@pytest.mark.long
def test_two_processes_share_the_trials(noisy: hs.Dataset, tmp_path: Path) -> None:
    out, store = str(tmp_path / "o"), str(tmp_path / "store")
    code = CHILD.format(tests=str(Path(__file__).parent), out=out, store=store)
    child = subprocess.Popen([sys.executable, "-c", code])
    hs.search(noisy, trials=4, out=out, store=store, **QUICK)
    assert child.wait(120) == 0
    found = hs.search(noisy, trials=4, out=out, store=store, **QUICK)
    assert [t.number for t in found.tried] == list(range(4))
    assert found.running == 0


def test_a_trial_of_a_process_at_work_is_left_to_it(noisy: hs.Dataset, tmp_path: Path) -> None:
    """What a process left when it was killed is taken again; while it lives, it is not."""
    out, store = tmp_path / "o", tmp_path / "store"
    same: dict[str, Any] = {"trials": 3, "out": out, "store": store, **QUICK}
    with pytest.raises(KeyboardInterrupt):
        hs.search(noisy, listener=StopsAt(0), **same)
    from headstart.runs.tuning_study import Study

    other = out / ".worker-of-another"
    with open(other, "wb") as file:
        lock(file.fileno())
        dimensions = [
            d for d in TuningSpace(**ranges_of(QUICK)).dimensions(2) if d.name != "nothing"
        ]
        taken = Study(out, dimensions, 0, other).take(3, {})
        assert taken is not None
        assert taken.number == 1
        found = hs.search(noisy, **same)
        assert [t.number for t in found.tried] == [0, 2]
        assert found.running == 1
        assert "1 more are running" in found.why
    assert [t.number for t in hs.search(noisy, **same).tried] == [0, 1, 2]


def ranges_of(quick: dict[str, Any]) -> dict[str, Any]:
    own = {n: v for n, v in quick.items() if n != "backbone"}
    return {n: v if isinstance(v, tuple) else (v,) for n, v in own.items()}


def test_locks_wait_for_each_other(tmp_path: Path) -> None:
    with alone(tmp_path / "l"), open(tmp_path / "l", "ab") as file:
        assert not lock(file.fileno())
    with open(tmp_path / "l", "ab") as file:
        assert lock(file.fileno())


# ------------------------------------------------------------ refused
def test_a_search_over_anything_else_is_refused(noisy: hs.Dataset, tmp_path: Path) -> None:
    same: dict[str, Any] = {"trials": 1, "out": tmp_path / "o", "store": None, **QUICK}
    hs.search(noisy, **same)
    fewer = noisy.take(range(36))
    for data, change, words in (
        (fewer, {}, "with data other"),
        (noisy, {"lr": (1e-3, 1e-2)}, "with settings other"),
        (noisy, {"backbone": "tiny:8"}, "with a backbone other"),
        (noisy, {"seed": 1}, "with data and settings other"),
    ):
        with pytest.raises(SpecError, match=words):
            hs.search(data, **{**same, **change})


def test_data_read_as_another_target_is_other_data(noisy: hs.Dataset, tmp_path: Path) -> None:
    same: dict[str, Any] = {"trials": 1, "out": tmp_path / "o", "store": None, **QUICK}
    hs.search(noisy, **same)
    graded = hs.read(noisy, target="grades", ordered=["a", "b"])
    with pytest.raises(SpecError, match="with data other"):
        hs.search(graded, **same)


def test_a_folder_with_other_files_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match=r"holds other files \(bright\)"):
        hs.search(shapes, trials=1, out=shapes, store=None, **QUICK)
    hs.search(shapes, trials=1, out=tmp_path / "o", store=None, **QUICK)
    with pytest.raises(SpecError, match="Trials are of one backbone"):
        hs.search(shapes, trials=1, out=tmp_path / "o", backbone="auto")
    with pytest.raises(PlaceError, match="never written over"):
        hs.search(shapes, out=tmp_path / "o", store=None, backbones=["tiny:8"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trials", "3"], "name one with --out"),
        (["--lr", "1e-4", "1e-3"], "--lr would change nothing without --trials"),
        (["--trials", "3", "--rows", "50", "--out", "o"], "--rows would change nothing beside"),
        (["--trials", "-3", "--out", "o"], "trials"),
    ],
)
def test_wrong_flags_are_one_sentence(
    words: list[str], told: str, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(shapes), *words]) in (1, 2)
    assert told in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "installed", lambda name: name != "optuna")
    with pytest.raises(MissingPackage, match=r"headstart\[search\]"):
        hs.search(shapes, trials=1, out=tmp_path / "o", store=None)
    assert not (tmp_path / "o").exists()


def test_data_that_no_run_takes_is_refused_before_the_folder(tmp_path: Path) -> None:
    pictures: list[NDArray[np.uint8]] = [np.full((8, 8, 3), i, np.uint8) for i in range(4)]
    data = hs.read([(p, "ab"[i % 2]) for i, p in enumerate(pictures)])
    with pytest.raises(DataError):
        hs.search(data, trials=1, out=tmp_path / "o", store=None, **QUICK)
    assert not (tmp_path / "o").exists()


# ------------------------------------------------------------ the command
def test_the_command_prints_what_to_do_next(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "found", ["--store", str(tmp_path / "store")]
    words = ["search", str(shapes), "--trials", "2", "--out", str(out), *store]
    words += ["--backbone", "tiny:32", "--epochs", "1", "2", "--ema", "0"]
    assert main(words) == 0
    told, err = capsys.readouterr()
    assert "space     lr 1e-05 to 0.01 (log); epochs 1 to 2" in err
    assert "the test rows are not read" in err
    line = next(line for line in told.splitlines() if line.startswith("headstart train"))
    best = json.loads((out / "best.json").read_text())
    assert f"--lr {best['finetune']['lr']!r} " in line
    kept = json.loads((out / "search.json").read_text())
    assert [t["number"] for t in kept["tried"]] == [0, 1]
    by_flags = [w if w != "RUN" else str(tmp_path / "run") for w in line.split()[1:]]
    assert main([*by_flags, *store, "--insights", "none"]) == 0
    by_file = ["train", "--config", str(out / "best.json"), "--out", str(tmp_path / "other")]
    assert main([*by_file, *store, "--insights", "none"]) == 0
    runs = [json.loads((tmp_path / n / "recipe.json").read_text()) for n in ("run", "other")]
    assert runs[0] == runs[1]
    assert runs[0]["finetune"]["thaw"] == best["finetune"]["thaw"]


def test_the_command_reads_the_data_as_the_search_did(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shapes / "dark" / "00.png").write_bytes(b"damaged")
    out, own = tmp_path / "my search", ["--target", "grades", "--ordered", "dark,bright"]
    words = ["search", str(shapes), "--trials", "1", "--out", str(out), *own, "--max-bad", "0.5"]
    words += ["--backbone", "tiny:32", "--epochs", "1", "2", "--store", str(tmp_path / "store")]
    assert main(words) == 3
    told, err = capsys.readouterr()
    assert count_left_out(err, "dark/00.png") == 1
    by_flags, by_file = map(shlex.split, told.splitlines()[-2:])
    assert by_flags[5:11] == [*own, "--max-bad", "0.5"]
    assert by_file[4] == str(out / "best.json")
    found = TuningSearch.read(json.loads((out / "search.json").read_text()))
    assert "train 'my photos' --out RUN --target grades" in found.command("my photos")
    assert main([*words, "--json"]) == 3


def test_the_table_fits_80_columns() -> None:
    settings = {"lr": 1.23e-5, "epochs": 15, "weight_decay": 0.00123, "label_smoothing": 0.123}
    settings |= {"thaw": 12, "dropout": 0.123, "layer_decay": 0.789, "ema": 0.99}
    trial = TriedSettings(100, "pruned", settings, 1000.0, loss=1.234, epochs=10)
    found = TuningSearch("b", "quadratic_kappa", 9, 9, 0, 0.5, tuple(settings), (trial,))
    widths = [max(map(len, column)) for column in zip(*found.table(), strict=True)]
    assert 2 + sum(widths) + 2 * (len(widths) - 1) <= 100


def test_optuna_says_nothing_and_is_left_as_it_was(
    noisy: hs.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    hs.search(noisy, trials=1, out=tmp_path / "o", store=None, **QUICK)
    assert optuna.logging.get_verbosity() == before
    assert "A new study" not in capfd.readouterr().err


def test_trials_need_no_test_row(noisy: hs.Dataset, tmp_path: Path) -> None:
    """Test rows are no part of what a trial is given."""
    seen = list[int]()
    real = TuningTrials.attempt

    def noting(self: TuningTrials, *args: Any) -> Any:
        seen.append(len(self.splits.test))
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuningTrials, "attempt", noting)
        hs.search(noisy, trials=1, out=tmp_path / "o", store=None, **QUICK)
    assert seen == [0]
    assert os.listdir(tmp_path) == ["o"]
