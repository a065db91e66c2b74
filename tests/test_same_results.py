"""The comparison of two versions' outputs finds every number that differs, and lets words pass."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save as pack

from headstart.cli.main import main as command_line

BENCH = Path(__file__).parents[1] / "bench"
sys.path.append(str(BENCH))
from same.commands import commands, needed  # noqa: E402
from same.compare import NEW, NUMBERS, OLD, SAME, WORDS, Intended, compare, intended_of  # noqa: E402
from same.control import planted  # noqa: E402

TABLE = "path,score\na.png,0.25\nb.png,1e-3\n"


def png(level: int, **options: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (level, 2, 3)).save(file, "PNG", **options)
    return file.getvalue()


def outputs(folder: Path, **changed: str | bytes) -> Path:
    """A folder of one file of each kind, some of them changed."""
    weights: dict[str, NDArray[Any]] = {"a": np.ones((2, 2), np.float32), "b": np.zeros(3, int)}
    usual: dict[str, str | bytes] = {
        "evaluation.json": json.dumps({"accuracy": {"value": 0.5, "n": 4}, "kept": "head"}),
        "predictions.csv": TABLE,
        "report.html": "<p>1 of 2, 3 of 4 in 3.5 s</p><style>p {margin: 1px}</style>",
        "model/weights.safetensors": pack(weights),
        "model/graph.onnx": b"graph 1 2 3",
        "map.png": png(1),
    }
    own = {name.replace("__", "/").replace("_", "."): data for name, data in changed.items()}
    for name, data in {**usual, **own}.items():
        path = folder / "runs" / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    (folder / "said").mkdir()
    (folder / "said" / "train.out").write_text(f"accuracy 0.500\nsaved {folder}/runs/a\n")
    return folder


def verdicts(old: Path, new: Path, *intended: Intended) -> dict[str, str]:
    """Of what is not the same, by file name."""
    found = compare(old, new, intended)
    return {f.path.removeprefix("runs/a/"): f.verdict for f in found if f.verdict != SAME}


def test_a_folder_agrees_with_itself_wherever_it_lies(tmp_path: Path) -> None:
    assert verdicts(outputs(tmp_path / "old"), outputs(tmp_path / "elsewhere")) == {}


def test_the_control_one_number_altered_in_each_kind_of_file_is_found(tmp_path: Path) -> None:
    old, new = outputs(tmp_path / "old"), outputs(tmp_path / "new")
    names = planted(new)
    assert len(names) == 7
    assert set(verdicts(old, new)) == {name.removeprefix("runs/a/") for name in names}
    assert set(verdicts(old, new).values()) == {NUMBERS}


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluation_json": '{"right": {"of": 4, "share": 0.5}, "kept": "its head"}'},
        {"predictions_csv": TABLE.replace("score", "probability")},
        {"report_html": "<b>1 out of 2, and 3 of 4, in 3.5 s</b><style>p {margin: 2px}</style>"},
        {"map_png": png(1, compress_level=0)},
        {
            "model__weights_safetensors": pack(
                {"c": np.ones((2, 2), np.float32), "b": np.zeros(3, int)}
            )
        },
    ],
    ids=lambda changed: min(changed),
)
def test_other_words_for_the_same_numbers_are_told_from_other_numbers(
    tmp_path: Path, changed: dict[str, str | bytes]
) -> None:
    found = verdicts(outputs(tmp_path / "old"), outputs(tmp_path / "new", **changed))
    assert list(found.values()) == [WORDS]


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluation_json": '{"accuracy": {"value": 0.50000001, "n": 4}, "kept": "head"}'},
        {"predictions_csv": TABLE.replace("1e-3", "1e-4")},
        {"predictions_csv": "path,score\nb.png,1e-3\na.png,0.25\n"},
        {"report_html": "<p>1 of 3, 3 of 4 in 3.5 s</p>"},
        {"map_png": png(2)},
        {"model__weights_safetensors": pack({"a": np.ones(4, np.float32), "b": np.zeros(3)})},
        {"evaluation_json": "{"},
    ],
)
def test_other_numbers_are_found(tmp_path: Path, changed: dict[str, str | bytes]) -> None:
    found = verdicts(outputs(tmp_path / "old"), outputs(tmp_path / "new", **changed))
    assert list(found.values()) == [NUMBERS]


def test_seconds_are_taken_out_where_they_stand_and_nowhere_else(tmp_path: Path) -> None:
    names = ("timings.json", "history.csv", "report.html")
    texts = ('{\n    "head": %s,\n  "n": 3}', "epoch,seconds\n1,%s\n", "<td>%s s</td>")
    for side, seconds in {"old": "1.5", "new": "20"}.items():
        for name, text in zip(names, texts, strict=True):
            path = tmp_path / side / "runs" / "a" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text % seconds)
    assert verdicts(tmp_path / "old", tmp_path / "new") == {}
    timings = tmp_path / "new" / "runs" / "a" / "timings.json"
    timings.write_text(timings.read_text().replace("3", "4"))
    assert verdicts(tmp_path / "old", tmp_path / "new") == {"timings.json": NUMBERS}


@pytest.mark.parametrize(("step", "found"), [(1, {}), (2, {NUMBERS})])
def test_dates_and_random_names_of_trackers_are_taken_out(
    tmp_path: Path, step: int, found: set[str]
) -> None:
    tracker = pytest.importorskip("tensorboardX")
    for side, seconds, n in (("old", 1.0, 1), ("new", 2.0, step)):
        run = tmp_path / side / "mlruns" / "813799724184103241" / (side[0].encode().hex() * 16)
        (run / "metrics").mkdir(parents=True)
        (run / "metrics" / "loss").write_text(f"179592406612{n} 0.5 {n}\n")
        with tracker.SummaryWriter(str(tmp_path / side / "board")) as writer:
            writer.add_scalar("head/seconds", seconds, 1, walltime=seconds)
            writer.add_scalar("head/loss", 0.5, n, walltime=seconds)
    verdict = verdicts(tmp_path / "old", tmp_path / "new")
    assert set(verdict.values()) == set(found)
    assert len(verdict) in (0, 2)


def test_a_file_that_one_side_lacks_is_named(tmp_path: Path) -> None:
    old, new = outputs(tmp_path / "old"), outputs(tmp_path / "new", curves_json="[1]")
    (new / "runs" / "a" / "map.png").unlink()
    assert verdicts(old, new) == {"curves.json": NEW, "map.png": OLD}


def test_an_intended_difference_passes_with_its_reason(tmp_path: Path) -> None:
    old, new = outputs(tmp_path / "old"), outputs(tmp_path / "new", predictions_csv="path\n7\n")
    entry = Intended("scores are gone", "a later step", files="runs/*/predictions.csv")
    (found,) = (f for f in compare(old, new, [entry]) if f.verdict != SAME)
    assert found.good
    assert found.reason == "scores are gone (a later step)"
    assert not next(f for f in compare(old, new) if f.verdict != SAME).good


@pytest.mark.parametrize(("rest", "good"), [(0.5, True), (0.25, False)])
def test_what_is_dropped_on_purpose_leaves_the_rest_to_be_compared(
    tmp_path: Path, rest: float, good: bool
) -> None:
    text = f'{{"accuracy": {{"value": {rest}, "n": 4}}, "kept": "head", "seed": 7}}'
    old, new = outputs(tmp_path / "old"), outputs(tmp_path / "new", evaluation_json=text)
    entry = Intended("the seed", "a step", files="*/evaluation.json", drop=r', "seed": \d+')
    (found,) = (f for f in compare(old, new, [entry]) if f.verdict != SAME)
    assert (found.verdict, found.good) == (NUMBERS, good)


def test_a_file_that_moved_on_purpose_is_compared_in_its_new_place(tmp_path: Path) -> None:
    old, new = outputs(tmp_path / "old"), outputs(tmp_path / "new")
    (new / "runs" / "a" / "map.png").rename(new / "runs" / "a" / "features.png")
    entry = Intended("named by what it is", "a step", moved=r"map\.png$", to="features.png")
    assert verdicts(old, new, entry) == {}
    (new / "runs" / "a" / "features.png").write_bytes(png(9))
    assert verdicts(old, new, entry) == {"features.png": NUMBERS}


def test_every_entry_of_the_table_of_intended_differences_has_a_reason() -> None:
    for entry in intended_of(BENCH / "same_results_intended.json"):
        assert entry.reason
        assert entry.since
        assert bool(entry.files) != bool(entry.moved)


def test_every_command_is_among_those_that_are_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_line(["--help"])
    there = set(re.findall(r"^  (\w+) ", capsys.readouterr().out, re.MULTILINE))
    assert len(there) > 10
    run = {c.argv[0] for c in commands() if "--help" not in c.argv}
    # a demo takes minutes, and is train with other data; search and advise tell measured times;
    # the others are newer, and have known answers of their own
    newer = {"export", "extract", "index", "verify", "serve", "store"}
    assert there - run == {"demo", "search", "advise"} | newer
    assert needed(commands(quick=True)) < needed(commands())


@pytest.mark.slow
@pytest.mark.skipif(not (BENCH.parent / ".git").exists(), reason="a commit is compared with")
def test_a_planted_change_is_found_in_this_codes_own_results(tmp_path: Path) -> None:
    words = [sys.executable, "same_results.py", "--quick", "--control", "--out", str(tmp_path)]
    subprocess.run(words, cwd=BENCH, check=True, timeout=600)
