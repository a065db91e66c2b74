"""The built-in examples: their names, and what `headstart demo` prints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.base.errors import UnknownName
from headstart.cli.demo import EXAMPLES
from headstart.cli.main import main
from headstart.modalities.examples import labelled
from headstart.modalities.text.inputs import TextInput
from headstart.runs import recorded
from headstart.runs.demos import BUILT_IN, DEMOS, get_demo
from headstart.specs import Job


def tiny(monkeypatch: pytest.MonkeyPatch, name: str, data: hs.Dataset, **job: str) -> None:
    """Put data and a tiny network in the place of a demo's."""
    small = Job(source=get_demo(name).job.source, strategy="extract", **job)  # type: ignore[arg-type]
    monkeypatch.setitem(DEMOS, name, replace(DEMOS[name], read=lambda: data, job=small))


def test_the_demo_prints_results_and_a_few_predictions(
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny(monkeypatch, "images", hs.read(shapes), backbone="tiny:32")
    out = tmp_path / "run"
    assert main(["demo", "--out", str(out), "--store", str(tmp_path / "store")]) == 0
    printed = capsys.readouterr().out
    for part in ("accuracy", "baseline: always", "a few test cells", f"{out / 'report.html'}"):
        assert part in printed
    few = printed.split("by the saved bundle\n")[1].splitlines()
    assert few[0].split() == ["cell", "truth", "predicted", "score"]
    assert few[1].split()[0].endswith(".png")


def test_the_demo_of_texts_prints_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"word{number}" for number in range(300)]
    labels, rng = ["good", "bad"] * 20, np.random.default_rng(0)
    sources = [f"a {label} film: {' '.join(rng.choice(words, 15))}" for label in labels]
    ids = [f"row {number}" for number in range(len(labels))]
    data = labelled(labels, "class", ids, sources, input=TextInput())
    tiny(monkeypatch, "text", data, backbone="tiny-text:16")
    place = ["--out", str(tmp_path / "run"), "--store", str(tmp_path / "store")]
    assert main(["demo", "text", *place]) == 0
    few = capsys.readouterr().out.split("by the saved bundle\n")[1].splitlines()
    assert few[0].split() == ["sentence", "truth", "predicted", "score"]
    assert " film: word" in few[1]
    assert "…" in few[1]  # only its beginning


def test_the_demo_in_python_is_the_same(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch, "images", hs.read(shapes), backbone="tiny:32")
    run = hs.demo(tmp_path / "run", store=tmp_path / "store")
    assert (run.folder / "report.html").is_file()


def test_the_data_of_a_demo_is_found_again_by_its_recorded_source() -> None:
    pytest.importorskip("elpv_dataset")
    assert set(BUILT_IN) == {demo.job.source for demo in DEMOS.values()}
    assert len(recorded.data_from(get_demo("images").job.source)) == 2624


def test_a_demo_of_another_name_is_refused() -> None:
    assert tuple(DEMOS) == EXAMPLES
    with pytest.raises(UnknownName, match="Did you mean 'text'"):
        get_demo("texts")
