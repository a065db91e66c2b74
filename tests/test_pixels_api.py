"""The Python functions for models of pictures: what they return, write, tell and refuse."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_shapes
from listening import Lines
from PIL import Image
from test_inputs import Rows

import headstart as hs
from headstart.base.errors import DataError, HeadstartError, SpecError, UnknownName
from headstart.cli.main import main
from headstart.explaining.pixels.ideal_plan import IdealPlan
from headstart.explanations import explain
from headstart.models.bundle import load_bundle
from headstart.pixels import attack, ideal, robustness, views

FEW = {"method": "places"}  # of the ways to make a map, the quickest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of two classes, and a run of them."""
    folder = tmp_path_factory.mktemp("trained")
    write_shapes(folder / "shapes")
    words = ["train", str(folder / "shapes"), "--out", str(folder / "run"), "--strategy", "extract"]
    easy = ["--false-alarms", "0", "--choose", "validation", "--no-refit"]  # to attack
    words += [*easy, "--backbone", "tiny:32", "--store", str(folder / "store")]
    assert main(words) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


@pytest.fixture
def store(trained: Path) -> hs.Store:
    return hs.Store(trained / "store")


@pytest.fixture
def picture(trained: Path) -> Path:
    return trained / "shapes" / "dark" / "03.png"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "broken.png").write_text("no picture")
    return tmp_path / "broken.png"


def test_an_explanation_is_returned_and_saves_what_the_command_writes(
    run: Path, picture: Path, store: hs.Store, tmp_path: Path
) -> None:
    (why,) = explain(run, picture, method="places", out=tmp_path / "out", store=store)
    words = ["explain", str(run), str(picture), "--method", "places", "--out", str(tmp_path / "b")]
    assert main([*words, "--store", str(store.folder)]) == 0
    why.save(tmp_path / "own.png")
    written = (tmp_path / "out" / "03.png").read_bytes()
    assert written == (tmp_path / "b" / "03.png").read_bytes()
    assert written == (tmp_path / "own.png").read_bytes()
    assert (why.path, why.name) == (str(picture), "dark")
    assert [near.label for near in why.nearest] == ["dark"] * 5


@pytest.mark.parametrize("opened", ["path", "text", "bundle", "model"])
def test_a_model_is_given_by_its_folder_or_itself(opened: str, run: Path, picture: Path) -> None:
    bundle = run / "model"
    given: dict[str, Any] = {
        "path": run,
        "text": str(run),
        "bundle": bundle,
        "model": load_bundle(bundle).model,
    }
    (why,) = explain(given[opened], str(picture), class_name="bright", method="places", store=None)
    assert why.name == "bright"
    assert why.score < 0.5
    assert bool(why.nearest) == (opened in ("path", "text"))


@pytest.mark.long
def test_a_pretrained_network_is_given_by_its_name_or_itself(picture: Path) -> None:
    name = "packaged:efficientnet_lite0"
    results = [
        explain(given, [picture], method="gradcam")[0] for given in (name, hs.load_backbone(name))
    ]
    assert results[0].name == results[1].name
    np.testing.assert_array_equal(results[0].map.values, results[1].map.values)


def test_without_files_the_mistakes_of_a_run_are_explained(run: Path, tmp_path: Path) -> None:
    explanations = explain(run, out=tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"{n:02}.png" for n in range(1, len(explanations) + 1)]
    with pytest.raises(SpecError, match="Name pictures to explain after the model"):
        explain(load_bundle(run / "model").model)


@pytest.mark.parametrize(("work", "settings"), [(explain, FEW), (attack, {"steps": 1})])
def test_what_can_not_be_read_is_told_and_the_rest_done(
    work: Callable[..., list[Any]], settings: dict[str, Any], run: Path, picture: Path, broken: Path
) -> None:
    heard = Lines()
    results = work(run / "model", [broken, picture], **settings, listener=heard)
    assert [result.path for result in results] == [str(picture)]
    (told,) = heard.of("left out")
    assert told.startswith(f"{broken}: ")
    with pytest.raises(DataError, match=r"of 1 none can \(.*broken.png"):
        work(run / "model", broken, **settings)


def test_the_ideal_picture_is_the_one_that_is_written(run: Path, tmp_path: Path) -> None:
    heard, out = Lines(), tmp_path / "dark.png"
    film = tmp_path / "dark.gif"
    best = ideal(run, "dark", out=out, film=str(film), steps=6, listener=heard)
    with Image.open(out) as image:
        np.testing.assert_array_equal(np.asarray(image), best.picture)
    again = tmp_path / "again.png"
    ideal(run, "dark", steps=6).save(again)
    assert again.read_bytes() == out.read_bytes()
    assert (best.name, best.plan, film.exists()) == ("dark", IdealPlan(steps=6), True)
    assert heard.of("ideal")[0].startswith("dark, step 0 of 6: score ")
    with pytest.raises(SpecError, match="is there already"):
        ideal(run, "dark", out=out)


def test_an_attack_changes_a_picture_and_writes_two_files(
    run: Path, picture: Path, tmp_path: Path
) -> None:
    (fooling,) = attack(run, picture, out=tmp_path / "out", epsilon=100 / 255, steps=8)
    assert (fooling.outcome, fooling.path) == ("flipped", str(picture))
    assert 0 < fooling.levels <= 100
    fooling.save(tmp_path / "own.png")
    for name in (".png", "-triptych.png"):
        mine, ours = tmp_path / f"own{name}", tmp_path / "out" / f"03{name}"
        assert mine.read_bytes() == ours.read_bytes()


def test_the_reach_of_an_attack_goes_by_its_norm(run: Path, picture: Path) -> None:
    (near,), (far,) = (attack(run, picture, norm=norm, steps=2) for norm in ("linf", "l2"))
    assert near.levels <= 4
    assert 4 / 255 < far.length <= 1
    assert far.levels > 4


def test_a_picture_of_the_target_class_is_told_and_left_as_it_is(run: Path, picture: Path) -> None:
    heard = Lines()
    assert attack(run, picture, target="dark", listener=heard) == []
    assert heard.of("left out") == [f"{picture}: called 'dark' already"]


def test_robustness_is_written_into_the_run(run: Path, store: hs.Store) -> None:
    results = robustness(run, store=store, rows=2, epsilons=[2 / 255], corruptions=["fog"], steps=2)
    assert [each.levels for each in results.attacked] == [0, 2]
    assert [(each.name, each.strength) for each in results.corrupted] == [
        ("fog", strength) for strength in range(1, 6)
    ]
    assert results.finished
    assert (run / "robustness.json").exists()
    assert "Everyday damage" in (run / "report.html").read_text()


def test_views_are_the_cells_of_the_grid(picture: Path, tmp_path: Path) -> None:
    pictures = views(picture, out=tmp_path / "grid.png", size=24, flip="horizontal")
    assert pictures.shape == (16, 24, 24, 3)
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image)
    np.testing.assert_array_equal(grid[28:52, 56:80], pictures[6])
    flipped = pictures[0][:, ::-1]
    assert any(np.array_equal(view, flipped) for view in pictures[1:])
    with pytest.raises(SpecError, match="No change was asked for"):
        views(picture)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda run, picture: attack(run, picture, epslion=0.1), "Did you mean 'epsilon'"),
        (lambda run, picture: ideal(run, "dark", step=9), "Did you mean 'steps'"),
        (lambda run, picture: robustness(run, row=9), "Did you mean 'rows'"),
        (lambda run, picture: views(picture, flips="both"), "Did you mean 'flip'"),
        (lambda run, picture: views(picture, views=3), "There is no setting named 'views'"),
        (lambda run, picture: explain(run, picture, class_name="drak"), "Did you mean 'dark'"),
        (lambda run, picture: ideal(run, "drak"), "Did you mean 'dark'"),
    ],
)
def test_a_wrong_name_gets_the_nearest_one(
    call: Callable[[Path, Path], object], says: str, run: Path, picture: Path
) -> None:
    with pytest.raises(UnknownName) as raised:
        call(run, picture)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "settings", [{"steps": "many"}, {"steps": 0}, {"norm": "l1"}, {"epsilon": 7}]
)
def test_a_wrong_value_is_refused_in_a_sentence(
    settings: dict[str, Any], run: Path, picture: Path
) -> None:
    with pytest.raises(HeadstartError, match=next(iter(settings))):
        attack(run, picture, **settings)


@pytest.mark.parametrize(
    ("call", "does"),
    [(explain, "explain takes"), (attack, "attack changes"), (ideal, "ideal draws")],
)
def test_a_model_of_another_input_is_refused_in_a_sentence(
    call: Callable[..., object], does: str, picture: Path
) -> None:
    backbone = hs.load_backbone("tiny:8")
    rows = replace(backbone, card=replace(backbone.card, input=Rows()))
    with pytest.raises(SpecError, match=f"{does} pictures; this model's input is rows"):
        call(rows, str(picture))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restarts": 0}, "restarts is a whole number from 1 up to 1,000,000; got 0"),
        ({"restarts": 9, "steps": 1}, "^restarts would change nothing: 1 step begins at"),
    ],
)
def test_starts_that_an_attack_cannot_make_are_refused(
    run: Path, picture: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        attack(run, picture, **settings)


def test_results_are_shown_in_a_line_and_in_a_notebook(run: Path, picture: Path) -> None:
    (why,) = explain(run / "model", picture, method="places")
    (fooling,) = attack(run, picture, steps=1)
    best = ideal(run, "dark", steps=2)
    shown = [repr(result) for result in (why, fooling, best)]
    assert [line.partition("(")[0] for line in shown] == ["Explanation", "Fooling", "Ideal"]
    assert all(len(line) < 200 + len(str(picture)) and "\n" not in line for line in shown)
    for result in (why, fooling, best):
        assert 'src="data:image/png;base64,' in result._repr_html_()
