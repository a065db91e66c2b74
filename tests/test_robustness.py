"""Changed pictures: damage that is what it says, attacks that find what there is to find."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import headstart as hs
from headstart.base.errors import DataError, Mismatch, PlaceError, SpecError, UnknownName
from headstart.cli.main import main
from headstart.explaining.pixels import robust
from headstart.explaining.pixels.corruptions import (
    CORRUPTIONS,
    STRENGTHS,
    _convolved,
    _snow,
    corrupt,
)
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of
from headstart.explaining.pixels.robust import trials
from headstart.explaining.pixels.robustness import Robustness, UnderAttack, UnderCorruption
from headstart.explaining.pixels.squares import InputSquares, input_squares, stratified_rows
from headstart.features.extract import extract
from headstart.modalities.images.decoding import decode
from headstart.models.bundle import load_bundle
from headstart.specs import Attack, Job, RobustnessPlan, SplitPlan
from headstart.targets.classes import ClassTarget
from headstart.training.attacked import perturb

RANDOM = ("gaussian_noise", "shot_noise", "motion_blur", "snow", "fog")
CLEAN = RobustnessPlan(epsilons=(), corruptions=())


def robustness(*args: Any, **settings: Any) -> Robustness:
    """The results of all trials."""
    *_, last = trials(*args, **settings)
    return last


def under_attack(results: Robustness, levels: int) -> UnderAttack:
    return next(each for each in results.attacked if each.levels == levels)


def corrupted(results: Robustness, name: str, strength: int) -> UnderCorruption:
    return next(
        each for each in results.corrupted if (each.name, each.strength) == (name, strength)
    )


# ---- damage ----


def scene(side: int = 64) -> NDArray[np.uint8]:
    """A picture with edges, smooth parts, colour and fine detail."""
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    ball = np.hypot(across - 0.6, down - 0.4) < 0.25
    detail = np.random.default_rng(0).random((side, side))
    light = np.stack([across, down, 0.3 + 0.4 * detail], axis=2)
    light[ball] = (0.9, 0.3, 0.2)
    return np.rint(255 * light).astype(np.uint8)


def grey(level: int, side: int = 96) -> NDArray[np.uint8]:
    return np.full((side, side, 3), level, np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_is_the_same_again_and_another_by_another_seed(name: str) -> None:
    once, again, other = (corrupt(scene(), name, 3, seed) for seed in (0, 0, 1))
    assert once.shape == scene().shape
    assert once.dtype == np.uint8
    np.testing.assert_array_equal(once, again)
    assert (once != other).any() == (name in RANDOM)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_damage_changes_more(name: str) -> None:
    picture = scene(224).astype(int)
    away = [np.abs(corrupt(scene(224), name, s) - picture).mean() for s in STRENGTHS]
    assert 1 < away[0] < away[-1]
    assert away == sorted(away) or name in ("snow", "fog")  # which get finer as well


def test_noise_is_as_strong_as_published() -> None:
    for strength, sd in ((1, 0.08), (2, 0.12)):
        noise = corrupt(grey(128), "gaussian_noise", strength) / 255 - 128 / 255
        assert noise.std() == pytest.approx(sd, rel=0.03)
    for strength, photons in ((1, 60), (2, 25)):
        noise = corrupt(grey(102), "shot_noise", strength) / 255 - 0.4
        assert noise.var() == pytest.approx(0.4 / photons, rel=0.05)


def test_brightness_is_the_value_of_hsv() -> None:
    color = pytest.importorskip("skimage.color")
    hsv = color.rgb2hsv(scene())
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    expected = 255 * color.hsv2rgb(hsv)
    assert np.abs(corrupt(scene(), "brightness", 3) - expected).max() <= 0.51


def test_contrast_shrinks_about_the_mean_of_each_channel() -> None:
    mean = scene().mean(axis=(0, 1))
    expected = mean + 0.2 * (scene() - mean)
    assert np.abs(corrupt(scene(), "contrast", 3) - expected).max() <= 0.51


def test_blurs_are_convolutions_over_mirrored_edges() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = np.random.default_rng(0).random((7, 7))
    light = scene(20).astype(np.float32) / 255
    expected = np.stack([ndimage.convolve(light[..., c], kernel) for c in range(3)], axis=2)
    np.testing.assert_allclose(_convolved(light, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
def test_blurs_keep_the_light_there_is_and_reach_as_far_on_any_side(name: str) -> None:
    reached = list[float]()
    for side in (224, 448):
        dot = np.zeros((side, side, 3), np.uint8)
        dot[side // 2 - 4 : side // 2 + 4, side // 2 - 4 : side // 2 + 4] = 255
        blurred = corrupt(dot, name, 5)
        assert blurred.mean() == pytest.approx(dot.mean(), rel=0.1)
        lit = np.flatnonzero(blurred.max(axis=(1, 2)) > 4)
        reached.append((lit[-1] - lit[0] + 1 - 8) / side)
    assert reached[0] == pytest.approx(reached[1], abs=0.03)
    assert np.abs(corrupt(grey(77), name, 5).astype(int) - 77).max() <= 1


def test_snow_falls_as_large_on_any_side() -> None:
    numbers = CORRUPTIONS["snow"].numbers[2]
    few, many = (
        _snow(np.full((side, side, 3), 0.3, np.float32), numbers, np.random.default_rng(0))
        for side in (224, 448)
    )
    halved = many.reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(few.ravel(), halved.ravel())[0, 1] > 0.9


def test_coarse_pixels_are_flat_blocks() -> None:
    blocks = corrupt(scene(224), "pixelate", 5).reshape(56, 4, 56, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(np.unique(blocks[:, 0, :, 0].reshape(-1, 3), axis=0)) > 100


def test_fog_whitens_what_is_dark() -> None:
    assert corrupt(grey(0), "fog", 3).mean() > 40
    white = corrupt(grey(255), "fog", 3)  # and leaves the rest of the range to what it hides
    thick, _ = CORRUPTIONS["fog"].numbers[2]
    assert 255 / (1 + thick) - 1 <= white.min() < white.max() <= 255
    assert white.mean() > corrupt(grey(0), "fog", 3).mean() + 60


def test_damage_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'gaussian_noise'"):
        corrupt(scene(), "gausian_noise", 1)
    with pytest.raises(SpecError, match="strength from 1 to 5; got 6"):
        corrupt(scene(), "fog", 6)


# ---- a model whose answers can be worked out by hand ----


class Brightness(nn.Module):
    """(N, S, S, 3) -> (N, 1): by how many levels the mean is above the middle."""

    def forward(self, squares: Tensor) -> Tensor:
        return squares.float().mean(dim=(1, 2, 3), keepdim=False)[:, None] - 127.5


class Dip(nn.Module):
    """(N, S, S, 3) -> (N, 1): below 0 only where the mean is within half a level of 101."""

    def forward(self, squares: Tensor) -> Tensor:
        mean = squares.float().mean(dim=(1, 2, 3))
        return (mean - 101)[:, None].abs() - 0.5


def grad_model_on(network: nn.Module) -> GradModel:
    """ "dark" where the network says less than 0, else "bright"."""
    head = nn.Linear(1, 2)
    head.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.zeros(2)})
    backbone = hs.load_backbone("tiny:8")
    return GradModel(backbone, network, head.requires_grad_(False), ("dark", "bright"))


def flat(grad_model: GradModel, *levels: int) -> NDArray[np.uint8]:
    return np.stack([grey(level, grad_model.input.size) for level in levels])


def attacked(*levels: int) -> RobustnessPlan:
    return RobustnessPlan(epsilons=tuple(e / 255 for e in levels), corruptions=())


def test_accuracy_is_what_the_margins_say() -> None:
    """128 - d is dark, and so is what is changed by fewer than d levels."""
    grad_model = grad_model_on(Brightness())
    squares = flat(grad_model, 127, 125, 123, 119, 111, 130)
    labels = np.array([0, 0, 0, 0, 0, 0])  # the last is wrong as it is
    found = robustness(grad_model, squares, labels, attacked(1, 2, 4, 8))
    shares = {each.levels: each.accuracy.value * 6 for each in found.attacked}
    assert shares == pytest.approx({0: 5, 1: 4, 2: 4, 4: 3, 8: 2})


def test_what_a_small_change_misleads_a_large_one_does_too() -> None:
    """The dip is so narrow that steps of two levels jump across it."""
    grad_model = grad_model_on(Dip())
    found = robustness(grad_model, flat(grad_model, 100), np.array([1]), attacked(1, 100))
    assert [each.accuracy.value for each in found.attacked] == [1, 0, 0]


def test_the_search_goes_on_where_a_few_steps_are_not_enough() -> None:
    grad_model = grad_model_on(Brightness())
    squares, labels = flat(grad_model, 119), np.array([0])
    seen = list[int]()
    real = perturb

    def counted(loss: Any, pixels: Tensor, attack: Attack, stream: int) -> Tensor:
        seen.append(attack.steps)
        return pixels.float() if attack.steps < 20 else real(loss, pixels, attack, stream)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(robust, "perturb", counted)
        found = robustness(grad_model, squares, labels, attacked(16))
    assert seen == [robust.FEW, 20]
    assert under_attack(found, 16).accuracy.value == 0


# ---- a model that was trained ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on dark and bright noise, the pictures beside it."""
    folder, rng = tmp_path_factory.mktemp("robust"), np.random.default_rng(0)
    for name, level in {"dark": 90, "bright": 150}.items():
        (folder / "shapes" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.normal(level, 30, size=(20, 20, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / "shapes" / name / f"{i:02}.png")
    data, job = hs.read(folder / "shapes"), Job(
        source=str(folder / "shapes"),
        backbone="tiny:32",
        strategy="extract",
        store=hs.Store(folder / "store"),
        split=SplitPlan(val=0.2, test=0.3),
    )  # fmt: skip
    hs.train(data, folder / "run", job)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


@pytest.fixture(scope="module")
def model(trained: Path) -> hs.Model:
    return load_bundle(trained / "run" / "model").model


@pytest.fixture(scope="module")
def grad_model(model: hs.Model) -> GradModel:
    return grad_model_of(model)


@pytest.fixture(scope="module")
def tried(grad_model: GradModel, trained: Path) -> InputSquares:
    data = hs.read(trained / "shapes")
    return input_squares(grad_model.input, data.take(range(0, len(data), 4)), threads=2)


def test_nothing_changed_is_what_the_model_says(grad_model: GradModel, tried: InputSquares) -> None:
    labels = tried.data.y.copy()
    labels[0] = 1 - labels[0]
    found = robustness(grad_model, tried.squares, labels, CLEAN)
    right = grad_model.scores(tried.squares).argmax(axis=1) == labels
    assert found.finished
    assert found.attacked[0].accuracy.value == right.mean() < 1


def test_accuracy_never_rises_with_the_change(grad_model: GradModel, tried: InputSquares) -> None:
    found = robustness(grad_model, tried.squares, tried.data.y, attacked(1, 8, 32, 128))
    shares = [each.accuracy.value for each in found.attacked]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[-1] == 0


def test_accuracy_under_damage_is_that_of_the_damaged_squares(
    grad_model: GradModel, tried: InputSquares
) -> None:
    plan = replace(CLEAN, corruptions=("brightness", "gaussian_noise"))
    found = robustness(grad_model, tried.squares, tried.data.y, plan)
    for each in found.corrupted:
        damaged = np.stack([corrupt(s, each.name, each.strength) for s in tried.squares])
        right = grad_model.scores(damaged).argmax(axis=1) == tried.data.y
        assert each.accuracy.value == right.mean(), (each.name, each.strength)
    assert corrupted(found, "brightness", 5).accuracy.value < 1
    assert len(found.corrupted) == 10


def test_the_order_of_the_pictures_does_not_matter(
    grad_model: GradModel, tried: InputSquares
) -> None:
    plan = RobustnessPlan(epsilons=(), corruptions=("snow",))
    forward = robustness(grad_model, tried.squares, tried.data.y, plan)
    reverse = robustness(grad_model, tried.squares[::-1], tried.data.y[::-1], plan)
    assert forward.corrupted == reverse.corrupted


def test_neighbours_are_those_of_a_slow_search(
    model: hs.Model, grad_model: GradModel, tried: InputSquares, trained: Path
) -> None:
    known = extract(model.backbone, hs.read(trained / "shapes"), store=None)
    plan = replace(CLEAN, corruptions=("fog",))
    found = robustness(grad_model, tried.squares, tried.data.y, plan, known=known)
    foggy = np.stack([corrupt(square, "fog", 5) for square in tried.squares])
    before, after = (nearest(grad_model, known, squares) for squares in (tried.squares, foggy))
    same = np.mean([len(a & b) / 10 for a, b in zip(before, after, strict=True)])
    own = np.mean([known.y[list(a)] == y for a, y in zip(after, tried.data.y, strict=True)])
    moved = corrupted(found, "fog", 5).neighbours
    assert found.attacked[0].neighbours is not None
    assert found.attacked[0].neighbours.same == 1
    assert moved is not None
    assert (moved.same, moved.own) == pytest.approx((same, own))
    assert same < 1


def nearest(
    grad_model: GradModel, known: hs.FeatureTable, squares: NDArray[np.uint8]
) -> list[set[int]]:
    with torch.inference_mode():
        x = grad_model.network(torch.from_numpy(squares)).numpy()
    cosines = [
        [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in known.x]
        for row in x
    ]
    return [set(np.argsort(row)[-10:].tolist()) for row in cosines]


def test_labels_of_training_rows_go_by_name(
    model: hs.Model, grad_model: GradModel, tried: InputSquares, trained: Path
) -> None:
    known = extract(model.backbone, hs.read(trained / "shapes"), store=None)
    turned = replace(known, y=1 - known.y, target=ClassTarget(known.classes[::-1]))
    shares = [
        robustness(grad_model, tried.squares, tried.data.y, CLEAN, known=table)
        .attacked[0]
        .neighbours
        for table in (known, turned)
    ]
    assert shares[0] == shares[1]


def test_trials_grow_one_change_at_a_time(grad_model: GradModel, tried: InputSquares) -> None:
    plan = RobustnessPlan(epsilons=(2 / 255,), corruptions=("fog",))
    steps = list(trials(grad_model, tried.squares, tried.data.y, plan))
    assert [len(f.attacked) + len(f.corrupted) for f in steps] == list(range(1, 8))
    assert [f.finished for f in steps] == [False] * 6 + [True]
    told = json.loads(json.dumps(steps[-1].to_plain()))
    assert [row["levels"] for row in told["attacked"]] == [0, 2]
    assert [row["strength"] for row in told["corrupted"]] == [1, 2, 3, 4, 5]


def test_squares_that_do_not_fit_are_refused(grad_model: GradModel, tried: InputSquares) -> None:
    with pytest.raises(Mismatch, match="one or more squares"):
        robustness(grad_model, tried.squares[:, :-1], tried.data.y)
    with pytest.raises(Mismatch, match="Labels count from 0 to 1"):
        robustness(grad_model, tried.squares, tried.data.y + 1)


def test_squares_are_those_that_features_are_made_of(
    grad_model: GradModel, tried: InputSquares
) -> None:
    for square, source in zip(tried.squares, tried.data.sources, strict=True):
        np.testing.assert_array_equal(square, grad_model.input(decode(source)))


def test_pictures_that_can_not_be_read_are_named(grad_model: GradModel, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(grey(9)).save(tmp_path / "a" / "good.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"\x89PNG\r\nno more")
    data = hs.read(tmp_path)
    found = input_squares(grad_model.input, data)
    assert found.data.ids == ("a/good.png",)
    assert [item.path for item in found.left_out] == ["a/bad.png"]
    with pytest.raises(DataError, match=r"of 1 none can \(a/bad.png"):
        input_squares(grad_model.input, data.take([data.ids.index("a/bad.png")]))


# ---- what is tried ----


def test_a_draw_keeps_the_share_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    rows = stratified_rows(labels, 20, seed=1)
    assert np.bincount(labels[rows]).tolist() == [12, 6, 2]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows.tolist() == stratified_rows(labels, 20, seed=1).tolist()
    assert rows.tolist() != stratified_rows(labels, 20, seed=2).tolist()
    for enough in (0, 100, 1000):
        assert stratified_rows(labels, enough).tolist() == list(range(100))


def test_plans_that_can_not_be_kept_are_refused() -> None:
    assert RobustnessPlan(epsilons=(8 / 255, 2 / 255, 0, 2 / 255)).levels == (0, 2, 8)
    with pytest.raises(SpecError, match="The nearest is 3/255"):
        RobustnessPlan(epsilons=(0.01,))
    for wrong in (2.0, -1 / 255, float("nan")):
        with pytest.raises(SpecError, match="shares of a pixel's range"):
            RobustnessPlan(epsilons=(wrong,))
    with pytest.raises(UnknownName, match="Did you mean 'fog'"):
        RobustnessPlan(corruptions=("fogg",))
    with pytest.raises(SpecError, match="rows is a count"):
        RobustnessPlan(rows=-1)


# ---- the command ----


def test_the_command_writes_what_it_found_and_the_page_tells_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rows", "8", "--epsilons", "2/255", "--corruptions", "fog"]
    assert main(["robustness", str(run), *options]) == 0
    out, err = capsys.readouterr()
    assert "8 of 12 test pictures" in err
    assert "2/255" in out
    told = json.loads((run / "robustness.json").read_text())
    assert told["rows"] == told["attacked"][0]["accuracy"]["n"] == 8
    assert told["neighbours"] == {"nearest": 10, "of": 20}
    assert "Everyday damage" in (run / "report.html").read_text()
    assert main(["robustness", str(run), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_ctrl_c_keeps_what_was_tried(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["robustness", str(run), "--epsilons", "2/255", "--corruptions", "fog", "contrast"]
    monkeypatch.setattr(robust, "corrupt", stopping_at("contrast", 2))
    assert main(command) == 130
    assert "8 of 12 changes were tried" in capsys.readouterr().err
    told = json.loads((run / "robustness.json").read_text())
    assert not told["finished"]
    assert [row["name"] for row in told["corrupted"]] == ["fog"] * 5 + ["contrast"]
    assert main(["report", str(run)]) == 0
    assert "stopped before its end" in (run / "report.html").read_text()


def test_ctrl_c_leaves_an_earlier_whole_result(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["robustness", str(run), "--epsilons", "2/255", "--corruptions", "fog"]
    assert main(command) == 0
    before = (run / "robustness.json").read_bytes()
    monkeypatch.setattr(robust, "corrupt", stopping_at("fog", 3))
    assert main(command) == 130
    assert "left as it was" in capsys.readouterr().err
    assert (run / "robustness.json").read_bytes() == before


def test_a_shorter_try_does_not_take_the_place_of_a_longer_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["robustness", str(run), "--epsilons", "2/255", "--corruptions", "fog"]
    monkeypatch.setattr(robust, "corrupt", stopping_at("fog", 3))
    assert main(command) == 130
    before = (run / "robustness.json").read_bytes()
    monkeypatch.setattr(robust, "corrupt", stopping_at("fog", 2))
    assert main(command) == 130
    assert "of a time when more was tried" in capsys.readouterr().err
    assert (run / "robustness.json").read_bytes() == before
    monkeypatch.setattr(robust, "corrupt", stopping_at("fog", 4))
    assert main(command) == 130
    assert len(json.loads((run / "robustness.json").read_text())["corrupted"]) == 3
    before = (run / "robustness.json").read_bytes()
    monkeypatch.setattr(robust, "corrupt", stopping_at("contrast", 2))
    assert main([*command, "contrast", "--rows", "4"]) == 130  # of more kinds, but fewer pictures
    assert (run / "robustness.json").read_bytes() == before


def stopping_at(name: str, strength: int) -> Any:
    def damaged(square: Any, own: str, s: int, seed: int) -> Any:
        if (own, s) == (name, strength):
            raise KeyboardInterrupt
        return corrupt(square, own, s, seed)

    return damaged


def test_a_test_picture_that_is_broken_is_named_and_the_rest_tried(
    run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(trained / "shapes", tmp_path / "moved"))
    lines = [line.split(",") for line in (run / "splits.csv").read_text().splitlines()]
    broken = next(path for path, _, part, *_ in lines if part == "test")
    (moved / broken).write_bytes(b"no picture")
    options = ["--epsilons", "0", "--corruptions", "contrast", "--data", str(moved)]
    assert main(["robustness", str(run), *options]) == 3
    err = capsys.readouterr().err
    assert f"{broken}: it holds other bytes than when it was checked" in err
    assert "11 of 12 test pictures" in err


def test_without_training_pictures_neighbours_are_left_out(
    run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(trained / "shapes", tmp_path / "moved"))
    for line in (run / "splits.csv").read_text().splitlines():
        path, _, part, *_ = line.split(",")
        if part == "train":
            (moved / path).unlink()
    options = ["--epsilons", "0", "--corruptions", "contrast", "--data", str(moved)]
    assert main(["robustness", str(run), *options]) == 0
    assert "how neighbours move is left out: There must be train" in capsys.readouterr().err
    told = json.loads((run / "robustness.json").read_text())
    assert told["attacked"][0]["neighbours"] is None
    assert "Everyday damage" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--corruptions", "smog"], 2, "no corruption named 'smog'"),
        (["--epsilons", "0.01"], 2, "The nearest is 3/255"),
        (["--epsilons", "1/0"], 2, "--epsilons"),
        (["--data", "."], 1, "No images of a class"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(
    run: Path,
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run / "model")
    assert main(["robustness", str(run), *words]) == code
    assert said in capsys.readouterr().err
    assert not (run / "robustness.json").exists()


def test_a_bundle_is_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robustness", str(run / "model")]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_what_is_computed_is_printed_though_it_can_not_be_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "robustness.json" / "mine").mkdir(parents=True)
    command = ["robustness", str(run), "--epsilons", "2/255", "--corruptions", "fog"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "fog" in out
    assert err.splitlines()[-1].startswith(f"error     {run / 'robustness.json'}: ")

    def refused(folder: Path) -> None:
        raise PlaceError(f"{folder} must be a folder that can be written to.")

    monkeypatch.setattr("headstart.cli.robustness.check_folder", refused)
    assert main([*command, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["finished"]
    assert "the results will be printed, but not kept" in err
