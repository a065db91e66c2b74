"""A bundle predicts what the model did, without the training stack, or is refused."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

import headstart as hs
from headstart.backbones.backbone import Card
from headstart.base.errors import BundleError, DataError, Mismatch
from headstart.base.runtime import ON_CPU
from headstart.data.splits import split
from headstart.features.extract import extract
from headstart.heads.families import spec_named
from headstart.heads.linear import LinearHead
from headstart.heads.nearest import NearestHead
from headstart.models import bundle_files as bundles
from headstart.models.bundle import load_bundle, save
from headstart.models.bundle_facts import check_weights
from headstart.models.distance import Seen
from headstart.models.fitting import fit
from headstart.models.fitting_limits import with_limits
from headstart.models.limits import Limits
from headstart.specs import FeatureExtraction, SplitPlan, TrustPlan
from headstart.targets.classes import ClassTarget
from headstart.targets.temperature import scaled


@pytest.fixture
def model(shapes: Path) -> hs.Model:
    parts = split(hs.read(shapes))
    return fit(FeatureExtraction(), "tiny:32", parts, store=None).model


@pytest.fixture
def saved(model: hs.Model, tmp_path: Path) -> Path:
    return save(model, tmp_path / "bundle").folder


@pytest.mark.parametrize("head", ["logistic", "ridge", "nearest"])
def test_a_bundle_predicts_exactly_as_the_model_did(
    shapes: Path, tmp_path: Path, head: str
) -> None:
    data = hs.read(shapes)
    recipe = FeatureExtraction(spec_named(head), fit="squash")
    model = fit(recipe, "tiny:32", split(data), store=None, runtime=ON_CPU).model
    said = model.predict(data, store=None, runtime=ON_CPU)
    save(model, tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle").model.predict(data, store=None)
    assert np.array_equal(again.scores, said.scores)
    assert again.classes == said.classes


def test_a_bundle_keeps_the_backbones_fingerprint(model: hs.Model, saved: Path) -> None:
    assert load_bundle(saved).model.backbone.fingerprint() == model.backbone.fingerprint()


def test_a_bundle_is_a_backbone_for_the_next_run(model: hs.Model, saved: Path) -> None:
    backbone = hs.load_backbone(f"file:{saved}")
    assert backbone.fingerprint() == model.backbone.fingerprint()


def test_the_same_model_makes_the_same_bytes(model: hs.Model, tmp_path: Path) -> None:
    one, two = (save(model, tmp_path / name).folder for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_a_bundle_is_never_written_over(model: hs.Model, saved: Path) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    with pytest.raises(FileExistsError):
        save(model, saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


@pytest.mark.parametrize("name", [*bundles.FILES, bundles.MANIFEST])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_a_flipped_byte_is_refused_in_any_file(saved: Path, name: str, where: float) -> None:
    raw = bytearray((saved / name).read_bytes())
    raw[int(where * len(raw))] ^= 1
    (saved / name).write_bytes(raw)
    with pytest.raises(BundleError):
        load_bundle(saved)


@pytest.mark.parametrize("name", bundles.FILES)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(BundleError, match=f"incomplete: {name} is missing"):
        load_bundle(saved)


def test_an_extra_file_is_named(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds notes\.txt"):
        load_bundle(saved)


def reseal(saved: Path) -> None:
    """What a forger does: make the manifest agree with what the files now are."""
    digests = {name: bundles.digest_of(saved / name) for name in bundles.FILES}
    (saved / bundles.MANIFEST).write_text(bundles.manifest_of(digests))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", bundles.FILES)
def test_a_pickle_in_a_bundle_is_never_run(saved: Path, tmp_path: Path, name: str) -> None:
    (saved / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(BundleError):
        load_bundle(saved)
    reseal(saved)
    with pytest.raises(BundleError):
        load_bundle(saved)
    assert not (tmp_path / "ran").exists()


def test_a_bundle_whose_graph_reads_a_file_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its weights is taken from a file where the one who predicts happens to be."""
    graph, facts = onnx.load(saved / "graph.onnx", load_external_data=False), saved / "model.json"
    tensor = graph.graph.initializer[0]
    tensor.external_data[0].value = "secret.bin"
    (saved / "graph.onnx").write_bytes(graph.SerializeToString())
    plain = json.loads(facts.read_text())
    facts.write_text(json.dumps({**plain, "inputs": plain["inputs"][1:]}))
    reseal(saved)
    weights = load_file(saved / "weights.safetensors")[f"backbone.{tensor.name}"]
    (tmp_path / "secret.bin").write_bytes(weights.tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"bundle .* would be read from 'secret\.bin'"):
        load_bundle(saved)


def test_a_setting_that_is_not_known_is_refused(saved: Path) -> None:
    card = json.loads((saved / "card.json").read_text())
    (saved / "card.json").write_text(json.dumps({**card, "hook": "os.system"}))
    reseal(saved)
    with pytest.raises(BundleError, match="no setting 'hook'"):
        load_bundle(saved)


def test_another_format_is_named(saved: Path) -> None:
    text = (saved / bundles.MANIFEST).read_text()
    (saved / bundles.MANIFEST).write_text(text.replace('"format": 2', '"format": 9'))
    with pytest.raises(BundleError, match="format 9; this version reads 2"):
        load_bundle(saved)


def test_a_bundle_that_scores_otherwise_is_refused(saved: Path) -> None:
    (saved / "golden.json").write_text('{"scores": [0.5, 0.5]}')
    reseal(saved)
    with pytest.raises(BundleError, match="known example"):
        load_bundle(saved)


class OwnHead(LinearHead):
    kind: ClassVar[str] = "mine"


@dataclass(frozen=True)
class OwnCard(Card):
    """A card that no other program knows."""


def linear(model: hs.Model) -> LinearHead:
    assert isinstance(model.head, LinearHead)
    return model.head


def own_kind(model: hs.Model) -> hs.Model:
    return replace(model, head=OwnHead(linear(model).weight, linear(model).bias))


def too_large(model: hs.Model) -> hs.Model:
    """Numbers that single precision, which a bundle keeps, has not got."""
    head = LinearHead(linear(model).weight.astype(np.float64) + 1e300, linear(model).bias)  # type: ignore[arg-type]
    return replace(model, head=head)


def spoiled(model: hs.Model) -> hs.Model:
    linear(model).bias[0] = np.nan
    return model


def other_number(model: hs.Model) -> hs.Model:
    x = np.eye(2, model.head.features, dtype=np.float32)
    votes = NearestHead(x, np.array([0, 1]), np.ones(2, np.float32), np.int64(1))  # type: ignore[arg-type]
    return replace(model, head=votes)


def own_card(model: hs.Model) -> hs.Model:
    card = OwnCard(**{f.name: getattr(model.backbone.card, f.name) for f in fields(Card)})
    return replace(model, backbone=replace(model.backbone, card=card))


def names_in_pairs(model: hs.Model) -> hs.Model:
    names: Any = (("a", 1), ("b", 2))
    return replace(model, target=ClassTarget(names, names[0]))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    "change",
    [own_kind, too_large, spoiled, other_number, own_card, names_in_pairs],
    ids=lambda change: change.__name__,
)
def test_what_could_not_be_loaded_again_is_not_written(
    model: hs.Model, tmp_path: Path, change: Callable[[hs.Model], hs.Model]
) -> None:
    changed = change(model)
    with pytest.raises(BundleError, match="bundle was not written, since .*: ") as caught:
        save(changed, tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("told", [{"gain": float("nan")}, {"where": Path("a")}, {1j: 2}])
def test_what_json_has_not_is_refused_before_anything_is_written(
    model: hs.Model, tmp_path: Path, told: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match="was not written"):
        save(model, tmp_path / "bundle", told=told)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["temperature", "confidence", "miss", "far"])
def test_a_limit_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(Mismatch, match=f"{name}=nan"):
        Limits(**{name: float("nan")})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_the_limits_of_labels_in_a_bundle_are_numbers_or_endless(wrong: float) -> None:
    check_weights({}, (), {"limits.miss": np.array([0.1, np.inf])})
    with pytest.raises(Mismatch, match="finite numbers; 'limits.miss' holds others"):
        check_weights({}, (), {"limits.miss": np.array([0.1, np.inf, wrong])})
    with pytest.raises(Mismatch, match="finite numbers; 'head.weight' holds others"):
        check_weights({}, (), {"head.weight": np.array([0.1, np.inf])})


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_a_temperature_that_scales_nothing_is_refused_in_a_bundle_too(
    saved: Path, temperature: float
) -> None:
    facts = json.loads((saved / "model.json").read_text())
    limits = facts["limits"] | {"temperature": temperature}
    (saved / "model.json").write_text(json.dumps({**facts, "limits": limits}))
    reseal(saved)
    with pytest.raises(BundleError, match="temperature"):
        load_bundle(saved)


@pytest.mark.parametrize("shape", [(0, 32), (4, 31), (32,)])
def test_features_seen_must_be_rows_that_the_head_reads(
    model: hs.Model, shape: tuple[int, ...]
) -> None:
    with pytest.raises(Mismatch, match="seen"):
        replace(model, limits=Limits(seen=Seen(np.zeros(shape, np.float16))))


@pytest.mark.parametrize("names", [("dark", "dark"), ("dark", "unknown"), ("?", "dark")])
def test_names_of_classes_that_training_refuses_are_not_saved(
    model: hs.Model, tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match="class must"):
        save(replace(model, target=ClassTarget(names, "dark")), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_no_bundle_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"a folder with manifest\.json"):
        load_bundle(tmp_path)


def test_a_bundle_predicts_without_the_training_stack(
    model: hs.Model, saved: Path, shapes: Path
) -> None:
    """Not one training library is imported, by predict or by what it calls."""
    picture = next(shapes.rglob("*.png"))
    code = (
        "import sys; from headstart.cli.main import main; "
        f"code = main(['predict', {str(saved)!r}, {str(picture)!r}]); "
        "heavy = {'torch', 'timm', 'torchvision', 'sklearn', 'scipy', 'onnx', 'rich', "
        "'headstart.models.fitting', 'headstart.runs.run', 'headstart.modalities.sources'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(picture))


def test_a_bundle_moves(saved: Path, tmp_path: Path, shapes: Path) -> None:
    data = hs.read(shapes)
    before = load_bundle(saved).model.predict(data, store=None).scores
    shutil.move(saved, tmp_path / "elsewhere")
    after = load_bundle(tmp_path / "elsewhere").model.predict(data, store=None).scores
    assert np.array_equal(after, before)


def test_a_bundle_doubts_as_the_model_did(shapes: Path, tmp_path: Path) -> None:
    parts = split(hs.read(shapes), SplitPlan(val=0.4))
    model = fit(FeatureExtraction(), "tiny:32", parts, store=None).model
    plan = TrustPlan(false_alarms=0.2, coverage=0.9)
    model = with_limits(model, parts, plan, store=None)
    again = save(model, tmp_path / "bundle").model
    table = extract(again.backbone, parts.val, store=None)
    said = again.predict_table(table)
    assert any(again.doubts(said, table))
    assert again.doubts(said, table) == model.doubts(said, table)
    assert again.limits.settings() == model.limits.settings()


def test_a_model_is_calibrated_on_validation_alone(shapes: Path) -> None:
    parts = split(hs.read(shapes), SplitPlan(val=0.4))
    model = fit(FeatureExtraction(), "tiny:32", parts, store=None).model
    one = with_limits(model, parts, store=None)
    other = with_limits(model, replace(parts, test=parts.test.take([])), store=None)
    assert one.limits.settings() == other.limits.settings()
    np.testing.assert_array_equal(
        one.predict(parts.test, store=None).predicted,
        model.predict(parts.test, store=None).predicted,
    )


def test_a_models_scores_are_scaled_by_its_temperature(model: hs.Model, shapes: Path) -> None:
    table = extract(model.backbone, hs.read(shapes), store=None)
    flatter = replace(model, limits=Limits(temperature=3.0)).predict_table(table)
    expected = scaled(model.head.scores(table.x), 3.0)
    np.testing.assert_array_equal(flatter.scores, expected)
    assert flatter.scores.max() < model.predict_table(table).scores.max()
