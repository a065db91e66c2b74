"""The built-in examples: their names, and what `headstart demo` prints."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.base.errors import DataError, UnknownName
from headstart.cli.demo import EXAMPLES
from headstart.cli.main import main
from headstart.heads.specs import PyramidSpec
from headstart.modalities.examples import labelled
from headstart.modalities.images import trees
from headstart.modalities.images.decoding import decode
from headstart.modalities.text.inputs import TextInput
from headstart.runs import recorded
from headstart.runs.demos import BUILT_IN, DEMOS, get_demo
from headstart.specs import FeatureExtraction, Job


def tiny(monkeypatch: pytest.MonkeyPatch, name: str, data: hs.Dataset, **job: Any) -> None:
    """Put data and a tiny network in the place of a demo's."""
    small = Job(source=get_demo(name).job.source, strategy="extract", **job)
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


def forest(folder: Path, content: str | None = None) -> None:
    """An archive like the package's, with pictures of squares."""
    folder.mkdir(exist_ok=True)
    xml = "<annotation>{}</annotation>"
    sides = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    box = f"<object><bndbox>{sides}</bndbox></object>"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / trees.ARCHIVE, "w") as archive:
        for name, suffix in trees.PICTURES.items():
            places = [(x, y) for x in range(31, 900, 160) for y in range(31, 700, 140)]
            pixels = rng.integers(90, 160, (720, 960, 3)).astype(np.uint8)
            for x, y in places:
                pixels[y - 1 : y + 59, x - 1 : x + 59] = (20, 120, 20)
            text = content or xml.format(
                "".join(box.format(x, y, x + 59, y + 59) for x, y in places)
            )
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "PNG")
            archive.writestr(f"deepforest/data/{name}.{suffix}", picture.getvalue())
            archive.writestr(f"deepforest/data/{name}.xml", text)


def test_tiles_of_trees_have_the_boxes_that_lie_in_them(tmp_path: Path) -> None:
    forest(tmp_path)
    data = trees.tree_crowns(tmp_path)
    assert len(data) == 3 * 4  # of 480 x 360 px
    assert data.y.sizes.tolist() == [[480, 360]] * 12
    assert sum(len(own) for own in data.labels) == 3 * 6 * 5
    assert data.labels[0].corners[0].tolist() == [30, 30, 90, 90]
    assert decode(data.sources[0].data)[35, 35].tolist() == [20, 120, 20]


def test_missing_or_damaged_pictures_of_trees_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pip download --no-deps deepforest"):
        trees.tree_crowns(tmp_path)
    forest(tmp_path, "<annotation>")
    with pytest.raises(DataError, match="can't be read"):
        trees.tree_crowns(tmp_path)


@pytest.mark.long
def test_the_demo_of_boxes_prints_what_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forest(tmp_path / "data")
    recipe = FeatureExtraction(PyramidSpec(epochs=1), size=96)
    tiny(
        monkeypatch,
        "boxes",
        trees.tree_crowns(tmp_path / "data"),
        backbone="timm:test_resnet",
        weights="random",
        recipe=recipe,
    )
    place = ["--out", str(tmp_path / "run"), "--store", str(tmp_path / "store")]
    assert main(["demo", "boxes", *place]) == 0
    out, err = capsys.readouterr()
    few = out.split("by the saved bundle\n")[1].splitlines()
    assert few[0].split() == ["tile", "truth", "found"]
    assert " tree" in few[1]
    assert "poor figures" in err
