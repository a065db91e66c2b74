"""Pictures changed so little that people see the same: what is saved still fools the model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from listening import progress_of
from numpy.typing import NDArray
from pictures import photo
from PIL import Image
from torch import Tensor, nn

import headstart as hs
from headstart.base.errors import DataError, SpecError
from headstart.cli.main import main
from headstart.data.splits import split
from headstart.explaining.naming import named_after
from headstart.explaining.pixels import fooling as drawing
from headstart.explaining.pixels.attacking import Aim, distance, fool
from headstart.explaining.pixels.fooling import Fooling
from headstart.explaining.pixels.grad_model import GradModel, grad_model_of, source_grad_model
from headstart.explaining.pixels.squaring import MOST, squaring, weights
from headstart.features.extract import extract
from headstart.modalities.images.decoding import Pixels, decode
from headstart.modalities.images.inputs import ImageInput, of_pictures
from headstart.modalities.reading import find
from headstart.models.bundle import load_bundle, save
from headstart.models.distance import Seen
from headstart.models.fitting import fit
from headstart.models.limits import Limits
from headstart.models.predictor import answerer
from headstart.specs import Attack, FeatureExtraction
from headstart.training.attacked import lead, perturb

EATS = {
    "crop": ImageInput(32, 36),
    "crop of what is larger": ImageInput(32, 64, interpolation="bilinear"),
    "squash": ImageInput(32, 32, fit="squash"),
    "pad": ImageInput(32, 32, fit="pad"),
    "nearest": ImageInput(32, 40, interpolation="nearest"),
    "lanczos": ImageInput(31, 31, fit="squash", interpolation="lanczos"),
}
SIZES = [(32, 32), (7, 5), (45, 61), (300, 211), (900, 20), (20, 900)]  # width, height
REACH = Attack(8 / 255)


def pixels_of(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.asarray(photo(np.random.default_rng(seed), width, height))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photograph-like pictures, tinted a little towards one of three colours."""
    root = tmp_path_factory.mktemp("tinted")
    for c, name in enumerate(("red", "green", "blue")):
        (root / "data" / name).mkdir(parents=True)
        for i in range(24):
            pixels = pixels_of(40, 34, seed=100 * c + i).astype(np.int16)
            pixels[..., c] += 12
            file = root / "data" / name / f"{i:02}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    data = split(hs.read(folder / "data"))
    model = fit(FeatureExtraction(fit="squash", choose="validation"), "tiny:32", data).model
    save(model, folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Model:
    return load_bundle(bundle).model


def attacked(model: hs.Model, picture: Pixels, attack: Attack, target: str = "") -> Fooling:
    grad_model = grad_model_of(model)
    goal = grad_model.number(target) if target else None
    return fool(grad_model, answerer(model), picture, attack, target=goal)


def resized(pixels: Pixels, *passes: tuple[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """One axis after the other, in whole levels each time, halves going up."""
    for axes, by in passes:
        pixels = np.floor(np.einsum(axes, pixels, by) + 0.5).clip(0, 255)
    return pixels.astype(np.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EATS)
def test_the_weights_are_those_by_which_pictures_are_squared(
    name: str, size: tuple[int, int]
) -> None:
    eats, pixels = EATS[name], pixels_of(*size)
    down, across = weights(eats, pixels.shape[:2])
    real = np.ix_(down.any(axis=1), across.any(axis=1))  # the rest is what pad fills up with
    passes = ("hwc,sw->hsc", across), ("hwc,sh->swc", down)
    orders = passes, passes[::-1]  # Pillow begins with the cheaper one
    off = [np.abs(resized(pixels, *order) - eats(pixels))[real] for order in orders]
    assert min(o.max() for o in off) <= 1
    assert min((o > 0).mean() for o in off) < 0.002
    np.testing.assert_allclose(down.sum(axis=1)[down.any(axis=1)], 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(61, 83), (290, 171)])
@pytest.mark.parametrize("name", EATS)
def test_a_brighter_spot_moves_the_square_as_the_gradient_says(
    name: str, shape: tuple[int, int]
) -> None:
    eats = EATS[name]
    eye = squaring(eats, np.full((*shape, 3), 100, np.uint8))
    seen = torch.from_numpy(eye.seen[None]).float().requires_grad_()
    asked = torch.randn(eats.size, eats.size, 3, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((eye(seen)[0] * asked).sum(), seen)
    spot = torch.zeros_like(seen)
    spot[:, 15:24, 12:21] = 90
    moved = ((eye(seen.detach() + spot) - eye(seen.detach()))[0] * asked).sum()
    torch.testing.assert_close(moved, (slope * spot).sum(), rtol=0.02, atol=30.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EATS)
def test_squares_are_those_of_the_preprocessing_to_the_bit(
    name: str, size: tuple[int, int]
) -> None:
    eats, pixels = EATS[name], pixels_of(*size)
    eye = squaring(eats, pixels)
    np.testing.assert_array_equal(eye.whole(eye.seen), pixels)
    square = eye(torch.from_numpy(eye.seen[None]))[0].numpy()
    np.testing.assert_array_equal(square, eats(pixels))


def test_of_a_large_picture_whole_blocks_change_and_none_out_of_range() -> None:
    pixels = pixels_of(300, 211)
    eye = squaring(ImageInput(32, 32, fit="squash"), pixels)
    assert (eye.block, eye.seen.shape) == (6, (36, 50, 3))
    seen, expected = eye.seen.copy(), pixels.astype(int)
    seen[7, 49] += 40
    expected[42:48, 294:300] += 40
    assert 215 > eye.seen[7, 49].max()
    np.testing.assert_array_equal(eye.whole(seen), expected.clip(0, 255))


def test_only_what_reaches_the_square_is_changed() -> None:
    eats = ImageInput(32, 40, fit="crop")
    pixels = pixels_of(120, 60)
    eye = squaring(eats, pixels)
    assert eye.seen.shape[0] < 60
    assert eye.seen.shape[1] < 60
    other = eye.whole(255 - eye.seen)
    assert (other != pixels).any(axis=2).sum() <= eye.seen.shape[0] * eye.seen.shape[1]
    only = np.zeros_like(pixels)
    only[np.ix_(eye.rows, eye.columns)] = eye.seen
    np.testing.assert_array_equal(eats(only), eats(pixels))


def test_a_strip_too_long_to_be_squared_is_refused() -> None:
    with pytest.raises(DataError, match=r"32,769 pixels long; gradients are found for up to"):
        squaring(ImageInput(32, 32, fit="squash"), np.zeros((1, MOST + 1, 3), np.uint8))


@pytest.mark.parametrize("how", [REACH, Attack(8 / 255, steps=1), Attack(2.5, "l2")])
def test_the_saved_file_read_back_by_predict_is_called_another_class(
    how: Attack, model: hs.Model, tmp_path: Path
) -> None:
    found = attacked(model, pixels_of(50, 40), how)
    found.save(tmp_path / "fooled.png")
    said = model.predict(find([tmp_path / "fooled.png"])[0], store=None)
    assert said.classes[said.predicted[0]] == found.after.name != found.before.name
    np.testing.assert_allclose(said.scores[0], found.after.scores)
    with Image.open(tmp_path / "fooled.png") as image:
        change = np.asarray(image).astype(int) - pixels_of(50, 40)
    assert np.abs(change).max() == found.levels
    np.testing.assert_allclose(np.linalg.norm(change / 255), found.length)
    assert (found.length if how.norm == "l2" else found.levels / 255) <= how.epsilon + 1e-9


@pytest.mark.parametrize("target", ["red", "green", "blue"])
def test_a_picture_is_taken_for_the_class_that_was_asked_for(target: str, model: hs.Model) -> None:
    picture = next(p for s in range(9) if answer(model, p := pixels_of(50, 40, s)) != target)
    found = attacked(model, picture, Attack(16 / 255), target)
    assert found.after.name == target
    assert found.flipped


@pytest.mark.parametrize("how", [Attack(4 / 255), Attack(10.0, "l2")])
def test_a_large_picture_is_fooled_within_the_same_reach(how: Attack, model: hs.Model) -> None:
    found = attacked(model, pixels_of(403, 297), how)
    assert found.flipped
    reached = found.length if how.norm == "l2" else found.levels / 255
    assert 0.9 * how.epsilon < reached <= how.epsilon + 1e-9


def test_the_same_seed_makes_the_same_file(model: hs.Model) -> None:
    once, again, other = (
        attacked(model, pixels_of(50, 40), Attack(2 / 255, seed=seed)).file for seed in (1, 1, 2)
    )
    assert once == again != other


def answer(model: hs.Model, picture: Pixels) -> str:
    return answerer(model).of_example(picture).name


def test_a_picture_that_is_called_so_already_is_not_attacked(model: hs.Model) -> None:
    picture = pixels_of(50, 40)
    name = answer(model, picture)
    with pytest.raises(SpecError, match=f"called '{name}' already: name another --target"):
        attacked(model, picture, REACH, name)


def test_a_change_too_small_to_fool_is_kept_and_not_called_flipped(model: hs.Model) -> None:
    found = attacked(model, pixels_of(50, 40), Attack(1.0 / 255, "l2"))
    assert not found.flipped
    assert not found.fooled
    assert found.length <= 1 / 255


def test_how_unlike_a_picture_is_has_the_value_that_predict_goes_by() -> None:
    rng = np.random.default_rng(0)
    seen = Seen.of(rng.normal(size=(40, 8)).astype(np.float32))
    x = rng.normal(size=(6, 8)).astype(np.float32)
    ours = distance(torch.from_numpy(x), seen)
    np.testing.assert_allclose(ours.numpy(), seen.distance(x), atol=1e-3)


def test_a_model_that_knows_its_limits_is_attacked_within_them(
    model: hs.Model, folder: Path
) -> None:
    """Where an attack that ignores them is found out."""
    picture, grad_model = pixels_of(50, 40, seed=1), grad_model_of(model)
    seen = Seen.of(extract(model.backbone, hs.read(folder / "data")).x)

    def away(pixels: Pixels) -> float:
        x, *_ = answerer(model).engine(grad_model.input.prepare(pixels))
        return float(seen.distance(x)[0])

    blunt = attacked(model, picture, REACH)
    far = (away(picture) + away(blunt.changed)) / 2
    careful = replace(model, limits=Limits(far=far, seen=seen))
    assert "unlike the training images" in answerer(careful).of_example(blunt.changed).doubt
    found = attacked(careful, picture, REACH)
    assert found.flipped
    assert found.fooled


def test_a_model_that_must_be_sure_is_made_sure(model: hs.Model, folder: Path) -> None:
    """Its answers are scaled down, so that it takes more to be sure than to be ahead."""
    seen = Seen.of(extract(model.backbone, hs.read(folder / "data")).x)
    limits = Limits(temperature=4.0, confidence=0.95, far=2.0, seen=seen)
    for seed in (2, 3):
        found = attacked(replace(model, limits=limits), pixels_of(50, 40, seed=seed), REACH)
        assert found.fooled, found.after.doubt
        assert found.after.score >= 0.95


def test_of_many_classes_it_climbs_until_the_score_is_what_is_asked(model: hs.Model) -> None:
    """Behind a temperature, what each of the others keeps of the score adds up."""
    bare = replace(grad_model_of(model), network=nn.Identity(), head=nn.Identity())
    seen = Seen.of(np.eye(100, dtype=np.float32))
    limits = Limits(temperature=2.0, confidence=0.9, far=2.0, seen=seen)
    logits, short = torch.zeros(1, 100), 0.85
    logits[0, 7] = 2 * np.log(99 * short / (1 - short))
    assert torch.softmax(logits / 2, dim=1)[0, 7].item() == pytest.approx(short)
    for label, towards in ((7, True), (3, False)):
        x = logits.clone().requires_grad_()
        Aim(bare, label, towards, limits)(x).sum().backward()
        assert x.grad is not None
        assert x.grad[0, 7] > 0.01


class Outside(nn.Module):
    """Logits of squares as ART wants them: (N, 3, S, S), 0 to 1."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits((255 * x).permute(0, 2, 3, 1))


Logits = Callable[[Tensor], Tensor]  # (N, S, S, 3) -> (N, 3)


def by_art(kind: str, logits: Logits, squares: Tensor, **settings: float) -> Tensor:
    """ART is imported here, in the one worker that runs this file: it writes a file into a new home
    as it is imported, and of two workers that do so at once one fails."""
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    np.random.seed(0)  # ART draws from NumPy's own generator
    x = (squares.numpy() / 255).astype(np.float32).transpose(0, 3, 1, 2)
    outside = PyTorchClassifier(
        Outside(logits),
        nn.CrossEntropyLoss(),
        x.shape[1:],
        3,
        clip_values=(0, 1),
        device_type="cpu",  # where the network is
    )
    changed = getattr(evasion, kind)(outside, batch_size=64, verbose=False, **settings).generate(x)
    return torch.from_numpy(np.rint(255 * changed)).permute(0, 2, 3, 1)


def by_us(logits: Logits, squares: Tensor, levels: int) -> Tensor:
    labels = logits(squares).argmax(dim=1)
    return perturb(lambda x: -lead(logits(x), labels), squares, Attack(levels / 255))


def share_flipped(logits: Logits, before: Tensor, after: Tensor) -> float:
    return (logits(before).argmax(1) != logits(after).argmax(1)).float().mean().item()


@pytest.fixture(scope="module")
def squares(model: hs.Model) -> Tensor:
    eats = of_pictures(model.backbone.card.input)
    pictures = [eats(pixels_of(40, 34, seed=1000 + i)) for i in range(120)]
    return torch.from_numpy(np.stack(pictures)).float()


def test_an_independent_library_fools_it_as_often(model: hs.Model, squares: Tensor) -> None:
    logits = grad_model_of(model).logits
    ours = by_us(logits, squares, 1)
    reach = {"eps": 1 / 255, "eps_step": 1 / 8 / 255, "max_iter": 20}
    theirs = by_art("ProjectedGradientDescent", logits, squares, **reach)
    assert (theirs - squares).abs().max() <= (ours - squares).abs().max() == 1
    share = share_flipped(logits, squares, ours)
    assert 0.5 < share < 0.95  # where a weaker attack would be told from a stronger one
    assert abs(share - share_flipped(logits, squares, theirs)) <= 0.03


def test_gradients_are_not_masked(model: hs.Model, squares: Tensor) -> None:
    logits, few = grad_model_of(model).logits, squares[:40]
    by_gradients, without = by_and_without_gradients(logits, few)
    assert by_gradients >= without > 0


def test_masked_gradients_would_be_seen(model: hs.Model, squares: Tensor) -> None:
    """The same network behind a rounding to every fifth level, which has no slope."""

    logits = grad_model_of(model).logits

    def coarse(x: Tensor) -> Tensor:
        return logits((x / 5).round() * 5)

    by_gradients, without = by_and_without_gradients(coarse, squares[:40])
    assert by_gradients < without


def by_and_without_gradients(logits: Logits, squares: Tensor) -> tuple[float, float]:
    """Shares that PGD, and a search that asks for scores only, flip within the same epsilon."""
    square = by_art("SquareAttack", logits, squares, eps=4 / 255, max_iter=60)
    assert (square - squares).abs().max() <= 4
    pgd = by_us(logits, squares, 4)
    return share_flipped(logits, squares, pgd), share_flipped(logits, squares, square)


def panels(found: Fooling) -> list[NDArray[np.uint8]]:
    """The three pictures of a triptych, found by where they are drawn."""
    sheet, (height, width) = found.triptych(), found.picture.shape[:2]
    lefts = [drawing.GAP + n * (drawing.SIDE + drawing.GAP) for n in range(3)]
    return [
        sheet[drawing.HEAD :, left + (drawing.SIDE - width) // 2 :][:height, :width]
        for left in lefts
    ]


def test_a_triptych_tells_names_in_other_alphabets_apart(model: hs.Model) -> None:
    pytest.importorskip("matplotlib")  # brings the letters
    found = attacked(model, pixels_of(40, 34), Attack(steps=1))
    named = [replace(found, before=replace(found.before, name=name)) for name in ("жук", "дук")]
    one, other = (each.triptych() for each in named)
    assert (one != other).any()


def test_a_triptych_shows_before_difference_and_after(model: hs.Model) -> None:
    found = attacked(model, pixels_of(300, 200), Attack(3 / 255))
    before, difference, after = panels(found)
    np.testing.assert_array_equal(before, found.picture)
    np.testing.assert_array_equal(after, found.changed)
    change = after.astype(int) - before
    np.testing.assert_array_equal(difference, 128 + 42 * change)  # 3 x 42 is the most that fits


@pytest.mark.parametrize("size", [(8, 5), (3000, 20), (20, 900), (640, 480)])
def test_pictures_of_any_shape_are_drawn_alike(model: hs.Model, size: tuple[int, int]) -> None:
    sheet = attacked(model, pixels_of(*size), Attack(steps=1)).triptych()
    height, width = sheet.shape[:2]
    assert width == 3 * drawing.SIDE + 4 * drawing.GAP
    assert height < width


def run_attack(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["attack", *map(str, words), "--steps", "4"])
    return code, *capsys.readouterr()


def test_the_command_writes_both_pictures_and_tells_a_line_a_file(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [folder / "data" / name / "00.png" for name in ("red", "blue")]
    code, out, err = run_attack(capsys, bundle, *files, "--out", tmp_path / "new" / "out")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows] == list(map(str, files))
    assert "2 of 2 flipped" in err
    for _, before, _, after, _, levels, _, outcome, file in rows:
        assert (levels, outcome) == ("4/255", "flipped")
        assert before != after
        assert main(["predict", str(bundle), file]) == 0
        assert capsys.readouterr().out.split("\t")[1] == after
    made = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert made == {"00.png", "00-triptych.png", "00-2.png", "00-2-triptych.png"}


def test_json_tells_the_same(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--json", "--out", tmp_path, "--norm", "l2", "--target", "green")
    code, out, _ = run_attack(capsys, bundle, folder / "data" / "red" / "01.png", *more)
    (told,) = json.loads(out)
    assert code == 0
    assert told["target"] == told["after"]["predicted"] == "green"
    assert (told["outcome"], told["before"]["predicted"]) == ("flipped", "red")
    assert 0.5 < told["l2"] <= 1
    assert Path(told["file"]).exists()
    assert Path(told["triptych"]).exists()


def test_nothing_is_written_over_and_in_a_run_names_are_numbered_on(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = folder / "data" / "red" / "00.png"
    code, _, err = run_attack(capsys, bundle, picture, "--out", picture.parent)
    assert (code, "is there already: name another --out" in err) == (2, True)
    shutil.copytree(bundle, tmp_path / "run" / "model")
    for colour in ("red", "blue"):
        assert run_attack(capsys, tmp_path / "run", folder / "data" / colour / "00.png")[0] == 0
    own = tmp_path / "run" / "attack"
    names = {"00.png", "00-triptych.png", "00-2.png", "00-2-triptych.png"}
    assert {path.name for path in own.iterdir()} == names
    before = (own / "00.png").read_bytes()
    assert run_attack(capsys, tmp_path / "run", own / "00.png")[0] == 0
    assert (own / "00.png").read_bytes() == before
    assert (own / "00-3.png").exists()


def test_names_that_differ_in_case_alone_are_numbered(tmp_path: Path) -> None:
    sources = [Path("a/Cat.jpg"), Path("b/cat.png"), Path("c/cat.webp"), Path("d/dog.png")]
    files = named_after(sources, lambda name: (tmp_path / f"{name}.png",))
    assert [file.name for (file,) in files] == ["Cat.png", "cat-2.png", "cat-3.png", "dog.png"]
    (tmp_path / "cat-2.png").touch()
    with pytest.raises(SpecError, match=r"cat-2\.png is there already"):
        named_after(sources, lambda name: (tmp_path / f"{name}.png",))


def test_what_can_not_be_read_is_named_and_the_rest_attacked(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    code, out, err = run_attack(capsys, bundle, tmp_path / "bad.png", "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "bad.png: not a picture" in err
    both = tmp_path / "bad.png", folder / "data" / "red" / "00.png"
    code, out, _ = run_attack(capsys, bundle, *both, "--out", tmp_path / "out")
    assert (code, len(out.splitlines())) == (3, 1)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--target", "bleu"], 2, "Did you mean 'blue'"),
        (["--target", "red"], 1, "called 'red' already; name another --target"),
        (["--epsilon", "4/0"], 2, "a share of the pixels' range, such as 4/255"),
        (["--epsilon", "4"], 2, "For levels write 4/255"),
        (["--epsilon", "0"], 2, "1/255 or more"),
        (["--restarts", "0"], 2, "--restarts: it is a whole number from 1 to 1,000,000; got '0'"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(
    words: list[str],
    code: int,
    told: str,
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = folder / "data" / "red" / "00.png"
    found, out, err = run_attack(capsys, bundle, picture, "--out", tmp_path / "out", *words)
    assert (found, out) == (code, "")
    assert told in err
    assert not (tmp_path / "out").exists()


def test_starts_that_a_single_step_would_not_make_are_refused(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(folder / "data" / "red" / "00.png")
    assert main(["attack", str(bundle), picture, "--steps", "1", "--restarts", "2"]) == 2
    assert "--restarts would change nothing" in capsys.readouterr().err


def test_what_was_done_before_ctrl_c_is_kept_and_told(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def after_the_first(done: int, total: int) -> None:
        raise KeyboardInterrupt

    listener = progress_of("attack", after_the_first)
    monkeypatch.setattr("headstart.cli.opening.Terminal", lambda: listener)
    where = folder / "data" / "red", "--out", tmp_path, "--json"
    code, out, err = run_attack(capsys, bundle, *where)
    assert code == 130
    assert "1 of 24 pictures are done and kept" in err
    assert [Path(one["file"]).exists() for one in json.loads(out)] == [True]


def test_a_pretrained_network_is_fooled_among_its_source_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(skimage.data.cat()).save(tmp_path / "cat.jpg")
    name = "packaged:efficientnet_lite0"
    where = tmp_path / "cat.jpg", "--out", tmp_path / "out"
    code, out, _ = run_attack(capsys, "--backbone", name, *where)
    _, before, _, after, score, *_, outcome, file = out.strip().split("\t")
    assert (code, outcome) == (0, "flipped")
    assert "cat" in before
    grad_model = source_grad_model(hs.load_backbone(name))
    (scores,) = grad_model.scores(grad_model.input(decode(Path(file)))[None])
    assert grad_model.classes[scores.argmax()] == after != before
    assert abs(scores.max() - float(score)) < 1e-3


def test_towards_a_class_its_score_is_raised_and_not_only_its_rank() -> None:
    """Of three classes 2 leads as far in both; it is the likelier where the others are low."""
    as_it_is = GradModel(hs.load_backbone("tiny:8"), nn.Flatten(), nn.Identity(), ("a", "b", "c"))
    aim = Aim(as_it_is, 2, True, Limits())
    even, low = aim(torch.tensor([[0.0, 0.0, 9.0], [0.0, -9.0, 9.0]]))
    assert low > even + 0.5
