"""Measured figures stand in one place, each with its origin, and every bench runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "bench"))

from figures import PAGE, page  # noqa: E402
from harness import RESULTS, Bench, Measurement, read, write  # noqa: E402

SHARED = {"cells", "figures", "harness", "labelled_sets", "tables"}  # by the benches
SHARED |= {"box_missing", "box_steps", "made_boxes"}
BENCHES = sorted({path.stem for path in (ROOT / "bench").glob("*.py")} - SHARED)
MORE = {"same_results": ["--against", "HEAD"]}
FOUND = Measurement("bench/a.py", "1234567", "2026-11-22", "AMD EPYC, AVX2", 2, {"images/s": 70.3})


def recorded(bench: Bench, *flags: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a bench with these flags that reports 1 ms; the folder of its record."""
    monkeypatch.setattr(sys, "argv", ["a.py", *flags])
    bench.arguments()
    bench.report([{"what": "a", "ms": 1.0}], {"ms": 1.0})
    return bench.folder


def test_the_page_of_figures_is_what_make_figures_writes() -> None:
    assert PAGE.read_text() == page(), "Run `make figures`."


def test_a_page_of_other_figures_is_another(tmp_path: Path) -> None:
    """The control of the test above."""
    write(tmp_path / "extract.json", [replace(FOUND, command="bench/extract.py")])
    text = page(tmp_path)
    for part in (
        "images/s | 70.3",
        "`bench/extract.py`",
        "1234567",
        "2026-11-22",
        "AMD EPYC, AVX2",
    ):
        assert part in text


def test_figures_that_no_topic_names_are_not_left_out_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [FOUND])
    with pytest.raises(ValueError, match="it lacks a"):
        page(tmp_path)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_every_figure_has_its_commit_date_and_cores(path: Path) -> None:
    for found in read(path):
        assert found.figures or found.rows
        assert found.commit
        assert found.date.startswith("20")
        assert found.cores > 0


@pytest.mark.parametrize(
    ("change", "superseded"),
    [
        ({}, True),
        ({"processor": ""}, True),  # not noted
        ({"processor": "AMD EPYC"}, True),  # without its vector instructions
        ({"processor": "Xeon, AVX-512"}, False),
        ({"cores": 1}, False),
        ({"command": "bench/a.py --size 300"}, False),
    ],
)
def test_a_record_replaces_that_of_the_same_command_and_processor(
    change: dict[str, object], superseded: bool
) -> None:
    assert FOUND.supersedes(replace(FOUND, **change)) is superseded  # type: ignore[arg-type]


def test_records_of_other_commands_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in ((), ("--images", "5"), ()):
        bench = Bench("a", "A bench.")
        bench.flag("--images", type=int, default=7)
        recorded(bench, *flags, "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert [m.command for m in read(tmp_path / "a.json")] == ["bench/a.py --images 5", "bench/a.py"]


def test_no_record_tells_a_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench("a", "A bench.")
    bench.flag("run", type=Path, nargs="?", metavar="RUN")
    bench.flag("--data", type=Path)
    flags = (str(tmp_path / "run"), "--data", str(tmp_path), "--out", str(tmp_path))
    recorded(bench, *flags, monkeypatch=monkeypatch)
    assert str(tmp_path) not in (tmp_path / "a.json").read_text()
    assert read(tmp_path / "a.json")[0].command == "bench/a.py RUN --data DATA"


def test_quick_takes_less_data_and_leaves_the_tracked_figures_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench("a", "A bench.")
    bench.flag("--images", type=int, default=1000, quick=4)
    bench.flag("--rounds", type=int, default=3, quick=1)
    folder = recorded(bench, "--quick", "--rounds", "2", monkeypatch=monkeypatch)
    assert (bench.args.images, bench.args.rounds) == (4, 2)
    assert folder != RESULTS
    assert not (RESULTS / "a.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_runs_quickly_and_records_its_figures(name: str, tmp_path: Path) -> None:
    offline = {"HEADSTART_STORE": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    flags = ["--quick", "--out", str(tmp_path), *MORE.get(name, [])]
    command = [sys.executable, str(ROOT / "bench" / f"{name}.py"), *flags]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **offline}, check=True)
    (found,) = read(tmp_path / f"{name}.json")
    assert found.rows
    assert all(found.rows)
