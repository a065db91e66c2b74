"""Pictures that a class is surest of: drawn by ascent, judged as any other picture would be."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

import headstart as hs
from headstart.base.errors import Diverged, SpecError, UnknownName
from headstart.base.values import from_plain
from headstart.cli.ideal import _orders
from headstart.cli.main import main
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of
from headstart.explaining.pixels.ideal import (
    LEVEL,
    Ideal,
    Waves,
    _brush,
    _pull,
    _views,
    ascend,
    surest,
    total_variation,
)
from headstart.explaining.pixels.ideal_plan import IdealPlan, Space
from headstart.heads.specs import LinearSpec
from headstart.modalities.images.decoding import Pixels, decode
from headstart.modalities.images.inputs import ImageInput
from headstart.models.bundle import load_bundle, save
from headstart.models.model import Model
from headstart.targets.classes import ClassTarget
from headstart.training.network import head_of, new_head

QUICK = IdealPlan(steps=24, lr=0.2)
STILL = IdealPlan(jitter=0, rotation=0, zoom=0)
RESIZED = ImageInput(size=48, resize=64)


@pytest.fixture(scope="module")
def grad_model() -> GradModel:
    head = head_of(new_head(LinearSpec(), 32, 3, seed=1))
    seen = grad_model_of(
        Model(hs.load_backbone("tiny:32"), head, ClassTarget(("ant", "bee", "cat"), "ant"))
    )
    sure = torch.nn.Linear(32, 3)
    torch.nn.init.normal_(sure.weight, std=8, generator=torch.Generator().manual_seed(0))
    return replace(seen, head=sure.requires_grad_(False))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("ideal"), np.random.default_rng(0)
    for name, level in {"dark": 60, "bright": 190}.items():
        (folder / "shapes" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.normal(level, 30, (20, 20, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "shapes" / name / f"{i}.png")
    data, out = str(folder / "shapes"), str(folder / "run")
    store = str(folder / "store")
    assert main(["train", data, "--out", out, "--backbone", "tiny:32", "--store", store]) == 0
    return folder / "run"


def ideal(model: GradModel, name: str, plan: IdealPlan, start: Pixels | None = None) -> Ideal:
    return surest(ascend(model, model.number(name), plan, start))


def noise(size: int = 64) -> Tensor:  # (1, 3, size, size) of 0..1
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("space", ["frequency", "pixels"])
@pytest.mark.parametrize("name", ["ant", "bee", "cat"])
def test_the_class_gets_surer_of_its_picture(
    grad_model: GradModel, name: str, space: Space
) -> None:
    plan = replace(QUICK, space=space)
    begun = next(ascend(grad_model, grad_model.number(name), plan))
    found = ideal(grad_model, name, plan)
    assert found.log_odds > begun.log_odds + 0.5
    assert found.score > begun.score
    square = grad_model.input(found.picture)[None].copy()
    assert found.score == grad_model.scores(square)[0, grad_model.number(name)]


def test_the_variation_term_makes_it_smoother(grad_model: GradModel) -> None:
    rough, smooth = (ideal(grad_model, "bee", replace(QUICK, tv=tv)) for tv in (0.0, 0.3))
    assert total_variation(smooth.picture) < total_variation(rough.picture) / 1.5


def test_distance_from_grey_can_be_charged_for(grad_model: GradModel) -> None:
    far, near = (
        ideal(grad_model, "bee", replace(QUICK, l2=l2)).picture / 255.0 for l2 in (0.0, 1.0)
    )
    assert np.square(near - 0.5).mean() < np.square(far - 0.5).mean() / 2


def test_a_seed_draws_the_same_picture_and_another_seed_another(grad_model: GradModel) -> None:
    first, again = (ideal(grad_model, "cat", QUICK).picture for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (ideal(grad_model, "cat", replace(QUICK, seed=1)).picture != first).mean() > 0.5


@pytest.mark.parametrize("seed", [20241126120000, 2**70, -1])
def test_any_whole_number_is_a_seed(grad_model: GradModel, seed: int) -> None:
    assert ideal(grad_model, "ant", IdealPlan(steps=1, seed=seed)).score > 0


def test_the_best_that_was_seen_is_kept_and_each_is_worth_what_it_says(
    grad_model: GradModel,
) -> None:
    start = ideal(grad_model, "bee", QUICK).picture
    fading = replace(QUICK, l2=1.0, tv=1.0)  # pulled to grey, a good picture gets worse
    seen = list(ascend(grad_model, 1, fading, start))
    assert seen[-1].log_odds < max(s.log_odds for s in seen)
    assert ideal(grad_model, "bee", fading, start).log_odds == max(s.log_odds for s in seen)
    for s in seen:
        share = grad_model.logits(torch.from_numpy(s.picture)[None]).double().softmax(dim=1)[0, 1]
        assert s.log_odds == pytest.approx(float(torch.log(share / (1 - share))), abs=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 64, 100, 129])
def test_every_step_is_taken_and_some_64_are_looked_at(grad_model: GradModel, steps: int) -> None:
    seen = [s.step for s in ascend(grad_model, 0, replace(QUICK, steps=steps))]
    assert (seen[0], seen[-1]) == (0, steps)
    assert seen == sorted(set(seen))
    assert min(steps, 50) < len(seen) <= 103


@pytest.mark.parametrize("space", ["frequency", "pixels"])
def test_it_begins_with_the_picture_that_was_given(grad_model: GradModel, space: Space) -> None:
    start = (255 * noise(32)[0].permute(1, 2, 0)).byte().numpy()
    first, *_, last = ascend(grad_model, 0, replace(QUICK, space=space), start)
    np.testing.assert_array_equal(first.picture, start)
    assert 0 < np.abs(last.picture - start.astype(float)).mean() < 100


def test_a_picture_to_begin_with_is_brought_to_the_canvas_like_any_other(
    grad_model: GradModel,
) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    first = next(ascend(grad_model, 0, QUICK, wide))
    np.testing.assert_array_equal(grad_model.input(first.picture), grad_model.input(wide))


def test_a_still_look_is_exactly_what_the_pipeline_cuts_out() -> None:
    picture = (255 * noise()).round() / 255
    pixels = (255 * picture[0].permute(1, 2, 0)).round().byte().numpy()
    (seen,) = _views(picture, RESIZED, STILL, torch.Generator())
    expected = torch.from_numpy(RESIZED(pixels).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5)


def test_jitter_shifts_by_whole_pixels_and_no_farther_than_asked() -> None:
    picture, plan = noise(), replace(STILL, jitter=5, views=40)
    shifts = set()
    for seen in _views(picture, RESIZED, plan, torch.Generator().manual_seed(0)):
        distance = {
            (y, x): float((picture[0, :, 8 + y : 56 + y, 8 + x : 56 + x] - seen).abs().max())
            for y in range(-5, 6)
            for x in range(-5, 6)
        }
        shifts.add(min(distance, key=lambda at: distance[at]))
        assert min(distance.values()) < 1e-4
    assert len(shifts) > 20


def test_a_turn_and_a_zoom_move_a_point_as_far_as_they_say() -> None:
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 30:34, 47:51] = 1.0  # 17 pixels right of the middle
    for plan, least, most in (
        (replace(STILL, rotation=30, views=50), (16.8, 24), (17.2, 30)),
        (replace(STILL, zoom=0.3, views=50), (17 * 0.7, 0), (17 * 1.3, 0.5)),
    ):
        views = _views(picture, RESIZED, plan, torch.Generator().manual_seed(0))
        where = [(v[0] > 0.25).nonzero().float().mean(0) - 23.5 for v in views]
        away = [float(w.norm()) for w in where]
        turned = [abs(float(torch.rad2deg(torch.atan2(w[0], w[1])))) for w in where]
        assert all(least[0] - 0.6 < a < most[0] + 0.6 for a in away)
        assert least[1] <= max(turned) <= most[1]
    assert max(away) - min(away) > 6


def test_what_the_terms_ask_of_each_pixel_is_the_slope_of_what_they_charge_for() -> None:
    drawn = torch.randn(1, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    steps = [drawn.diff(dim=axis).square() + LEVEL**2 for axis in (2, 3)]
    charge = 0.3 * sum(step.sqrt().sum() for step in steps) + 0.2 * drawn.square().sum() / 2
    (slope,) = torch.autograd.grad(charge, drawn)
    torch.testing.assert_close(_pull(drawn.detach(), IdealPlan(tv=0.3, l2=0.2)), slope)


def test_each_octave_draws_waves_twice_as_fine_as_the_one_before() -> None:
    plan = IdealPlan(octaves=3)
    finest = []
    for octave in range(3):
        brush = _brush(plan, 64, octave)
        drawn = brush.draw(torch.randn(brush.blank().shape))[0, 0]
        strength = torch.fft.fft2(drawn).abs()
        rows, columns = torch.meshgrid(*[torch.fft.fftfreq(64)] * 2, indexing="ij")
        finest.append(float(torch.hypot(rows, columns)[strength > 1e-3].max()))
    assert finest == pytest.approx([0.5**0.5 / 4, 0.5**0.5 / 2, 0.5**0.5], rel=0.05)


def test_waves_of_standard_strengths_have_a_spread_of_one_and_fall_with_frequency() -> None:
    brush = _brush(IdealPlan(octaves=1), 64, 0)
    assert isinstance(brush, Waves)
    strengths = torch.randn(200, *brush.blank().shape[1:], generator=torch.Generator())
    assert float(brush.draw(strengths).std()) == pytest.approx(1, abs=0.15)
    assert float(brush.weight[0, 8] / brush.weight[0, 16]) == pytest.approx(2)


def test_total_variation_is_what_neighbours_differ_by() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2 * 255
    stripes = np.indices((8, 8))[1] % 2 * 255
    assert total_variation(np.repeat(board[..., None], 3, 2).astype(np.uint8)) == pytest.approx(1)
    assert total_variation(np.repeat(stripes[..., None], 3, 2).astype(np.uint8)) == 0.5
    assert total_variation(np.full((5, 9, 3), 77, np.uint8)) == 0


def test_what_can_not_be_drawn_is_refused() -> None:
    wrong = ({"steps": 0}, {"views": 0}, {"octaves": 0}, {"tv": -1.0}, {"zoom": 1.0}, {"lr": 0.0})
    for settings in (
        *wrong,
        {"tv": 150.0},
        {"octaves": 99},
        {"space": "waves"},
        {"rotation": float("nan")},
    ):
        with pytest.raises((SpecError, UnknownName), match=str(*settings)):
            IdealPlan(**settings)


def test_a_network_whose_answer_is_no_number_is_found_out(grad_model: GradModel) -> None:
    broken = torch.nn.Linear(32, 3)
    torch.nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(Diverged, match="must answer with numbers; at step 0 it said nan"):
        ideal(replace(grad_model, head=broken), "ant", QUICK)


def test_the_file_scores_what_the_command_says(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder" / "cell.png"
    words = ["ideal", str(run), "--class", "dark", "--steps", "16", "--out", str(out), "--json"]
    assert main(words) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["after"] > said["before"]
    assert (said["file"], said["judge"], said["finished"]) == (str(out), None, True)
    assert main(["predict", str(run), str(out), "--json"]) == 0
    (predicted,) = json.loads(capsys.readouterr().out)
    assert predicted["scores"]["dark"] == pytest.approx(said["after"], abs=1e-4)


def test_several_classes_get_a_file_each_and_a_film(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    both = ["--class", "dark", "--class", "bright", "--steps", "6", "--film", "way.webp"]
    assert main(["ideal", str(run), *both]) == 0
    made = {"ideal-dark.png", "ideal-bright.png", "way-dark.webp", "way-bright.webp"}
    assert {p.name for p in tmp_path.iterdir()} == made
    table = capsys.readouterr().out
    assert table.split()[:4] == ["class", "file", "before", "after"]
    assert len(table.splitlines()) == 3


def test_a_picture_that_is_made_is_told_of_though_the_next_is_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, begun = ascend, list[int]()

    def first_alone(*args: Any) -> Iterator[Ideal]:
        begun.append(1)
        if len(begun) == 2:
            raise KeyboardInterrupt
        yield from plain(*args)

    monkeypatch.setattr("headstart.pixels.ascend", first_alone)
    both = ["--class", "dark", "--class", "bright", "--steps", "6", "--json"]
    assert main(["ideal", str(run), *both, "--out", str(tmp_path / "a.png")]) == 130
    out, err = capsys.readouterr()
    assert [Path(row["file"]).name for row in json.loads(out)] == ["a-dark.png"]
    assert "1 of 2 pictures are made and kept" in err


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_film_shows_the_way_and_rests_on_the_picture(
    run: Path, tmp_path: Path, suffix: str
) -> None:
    out, film = tmp_path / "dark.png", tmp_path / f"dark.{suffix}"
    words = ["--class", "dark", "--steps", "12", "--out", str(out), "--film", str(film)]
    words += ["--lr", "0.5", "--tv", "0.1"]  # so that every frame differs
    assert main(["ideal", str(run), *words, "--start", str(picture(tmp_path))]) == 0
    with Image.open(film) as opened:
        frames, lasts = [], []
        for frame in ImageSequence.Iterator(opened):
            frames.append(np.asarray(frame.convert("RGB"), float))
            lasts.append(frame.info["duration"])
        assert opened.info["loop"] == 0
    assert sum(lasts) == (1 + 12) * 80 + 2000  # equal frames in a row are one, and last as long
    assert len(frames) > 6
    assert np.abs(frames[-1] - decode(out)).mean() < 6
    assert np.abs(frames[0] - frames[-1]).mean() > 1


def picture(folder: Path) -> Path:
    across = np.arange(30, dtype=np.uint8) * 8
    Image.fromarray(np.repeat(across[None, :, None], 30, 0).repeat(3, 2)).save(folder / "start.png")
    return folder / "start.png"


def test_the_picture_says_how_it_was_made(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "dark.png"
    words = ["--steps", "5", "--tv", "0.3", "--space", "pixels", "--out", str(out)]
    assert main(["ideal", str(run), "--class", "dark", *words]) == 0
    with Image.open(out) as opened:
        told = json.loads(opened.info["headstart"])
    assert told["class"] == "dark"
    assert from_plain(told["plan"], IdealPlan) == IdealPlan(steps=5, tv=0.3, space="pixels")


def test_another_run_of_the_same_classes_can_judge(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--class", "bright", "--steps", "4", "--out", str(tmp_path / "a.png"), "--json"]
    assert main(["ideal", str(run), *words, "--judge", str(run)]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["judged"] == said["after"]
    assert said["judge"] == "tiny:32"


def test_a_judge_is_asked_for_a_class_by_either_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = replace(load_bundle(run / "model").model, target=ClassTarget(("tabby", "dark"), "dark"))
    save(judge, tmp_path / "judge")
    words = ["--class", "tabby", "--steps", "2", "--out", str(tmp_path / "a.png"), "--json"]
    who = ["--backbone", "packaged:efficientnet_lite0", "--judge", str(tmp_path / "judge")]
    assert main(["ideal", *who, *words]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["class"], said["judge"]) == ("tabby, tabby cat", "tiny:32")


def test_a_judge_that_does_not_know_the_class_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--class", "bright", "--out", str(tmp_path / "a.png")]
    assert main(["ideal", str(run), *words, "--judge", "packaged:efficientnet_lite0"]) == 2
    err = capsys.readouterr().err
    assert "The judge, packaged:efficientnet_lite0, knows no class 'bright'" in err


@pytest.mark.long
def test_a_pretrained_network_is_judged_by_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbone", "packaged:efficientnet_lite0", "--class", "tabby", "--steps", "12"]
    assert main(["ideal", *words, "--out", str(tmp_path / "a.png"), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["class"] == "tabby, tabby cat"
    assert said["judge"] in ("packaged:efficientnet_lite1", "packaged:efficientnet_lite2")
    assert said["after"] > 10 * said["before"]
    assert 0 <= said["judged"] <= 1


WRONG = {
    "There is no class of this model named 'drak'. Did you mean 'dark'?": ["--class", "drak"],
    "'dark' was named more than once": ["--class", "dark", "--class", "dark"],
    "--out is a .png": ["--class", "dark", "--out", "a.jpg"],
    "A film is a .gif or a .webp": ["--class", "dark", "--film", "a.mp4"],
    "there.png is there already": ["--class", "dark", "--out", "there.png"],
    "steps is": ["--class", "dark", "--steps", "0"],
    "These arguments are required: --class": [],
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_wrong_command_is_told_before_anything_is_drawn(
    run: Path,
    tmp_path: Path,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    assert main(["ideal", str(run), *WRONG[sentence]]) == 2
    assert sentence in capsys.readouterr().err
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"mine"]


def test_two_classes_whose_files_would_be_one_are_not_written_over_each_other(
    grad_model: GradModel,
) -> None:
    alike = replace(grad_model, classes=("a b", "a-b", "c"))
    asked = argparse.Namespace(classes=["a b", "a-b"], out=None, film=None)
    with pytest.raises(SpecError, match=r"Two files would be called ideal-a-b\.png"):
        _orders(alike, asked)
    asked = argparse.Namespace(classes=["Cat", "cat"], out=None, film=None)
    with pytest.raises(SpecError, match=r"Two files would be called ideal-Cat\.png"):
        _orders(replace(grad_model, classes=("Cat", "cat", "c")), asked)  # on some systems, one


def test_a_start_that_is_no_picture_is_a_failure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_text("not a picture")
    words = ["--class", "dark", "--out", str(tmp_path / "a.png")]
    assert main(["ideal", str(run), *words, "--start", str(tmp_path / "bad.png")]) == 1
    assert "bad.png must be a picture that can be read" in capsys.readouterr().err


@pytest.mark.long
def test_ctrl_c_keeps_the_best_so_far(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "dark.png"
    code = "import sys; from headstart.cli.main import main; sys.exit(main())"
    words = ["ideal", str(run), "--class", "dark", "--steps", "3200", "--out", str(out)]
    going = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert going.stderr is not None
    assert "step 0 of 3200" in going.stderr.readline()
    assert "step 400 of 3200" in going.stderr.readline()
    going.send_signal(signal.SIGINT)
    stdout, stderr = going.communicate(timeout=60)
    assert going.returncode == 130
    (said,) = json.loads(stdout)
    assert not said["finished"]
    assert said["after"] > said["before"]
    assert "stopped   dark after step" in stderr
    assert decode(out).shape == (32, 32, 3)
