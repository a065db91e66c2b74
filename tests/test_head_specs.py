"""A spec per family of heads, the table of families, and the flags that are made of them."""

import argparse
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.base.errors import HeadstartError, SpecError, UnknownName
from headstart.base.values import to_plain
from headstart.cli.flags import add_flags, add_head_flags
from headstart.cli.parser import Parser
from headstart.cli.train import arguments, run
from headstart.heads.families import HEADS, HeadFamily, load_head, spec_named
from headstart.heads.fit import fit_head
from headstart.heads.head import FeatureRows, Fitted, Rows, weight_of_classes
from headstart.heads.linear import LinearHead
from headstart.heads.specs import HeadSpec, MlpSpec
from headstart.models.specs import recipe_from_plain
from headstart.runs.recipes import RECIPES
from headstart.specs import (
    FeatureExtraction,
    FineTune,
    Job,
    LinearSpec,
    LogisticSpec,
    NearestSpec,
    RidgeSpec,
    SplitPlan,
)

Y = np.array([0, 0, 0, 1])


@dataclass(frozen=True)
class CentreSpec(HeadSpec):
    """The class whose mean is nearest; `sharpness` scales the logits."""

    family: ClassVar[str] = "centre"
    sharpness: float = 1.0


class CentreHead(LinearHead):
    kind: ClassVar[str] = "centre"


def fit_centres(spec: CentreSpec, train: FeatureRows, val: FeatureRows) -> Fitted:
    means = np.stack([train.x[train.y == c].mean(axis=0) for c in range(train.target.outputs)])
    weight = (2 * spec.sharpness * means.T).astype(np.float32)
    bias = (-spec.sharpness * (means**2).sum(axis=1)).astype(np.float32)
    return Fitted(CentreHead(weight, bias), {"head": "centre", "by": "nothing"}, ())


def load_centres(tensors: Any, settings: Any) -> CentreHead:
    return CentreHead(tensors["weight"], tensors["bias"])


@pytest.fixture
def centre(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family `centre`, for one test: what other tests have registered stays as it was."""
    monkeypatch.setattr(HEADS, "_registered", dict(HEADS._registered))
    HEADS.register("centre", HeadFamily(CentreSpec, load_centres, fit_centres))


@pytest.mark.parametrize("name", HEADS.built_in)
def test_a_spec_has_the_settings_of_its_family_alone(name: str) -> None:
    spec = spec_named(name)
    assert spec.family == name
    others = {f.name for n in HEADS.built_in for f in fields(HEADS[n].spec)}
    for setting in others - {f.name for f in fields(spec)}:
        with pytest.raises(TypeError, match=setting):
            spec_named(name, None, **{setting: 1})


def test_a_head_by_its_name_has_its_usual_settings() -> None:
    assert FeatureExtraction("mlp").head == MlpSpec()  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="Did you mean 'logistic'"):
        FeatureExtraction("logstic")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="head is the spec of a head"):
        FeatureExtraction(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HEADS.built_in)
def test_a_saved_recipe_is_read_again(name: str) -> None:
    recipe = FeatureExtraction(spec_named(name, None, class_weights={"kind": 2.0}), fit="pad")
    assert recipe_from_plain(to_plain(recipe)) == recipe


FLAT = {
    "kind": "FeatureExtraction",
    "head": "mlp",
    "class_weights": "balanced",
    "l2": [1.0],
    "neighbours": [3],
    "hidden": [16, 8],
    "dropout": 0.1,
    "output": "sigmoid",
    "head_epochs": 7,
    "head_lr": 0.01,
    "head_optimizer": "sgd",
    "head_batch_size": 4,
    "head_keep": "last",
    "seed": 5,
    "fit": "squash",
    "draft": False,
    "size": 64,
}


def test_a_recipe_saved_with_the_settings_of_all_heads_is_read() -> None:
    head = MlpSpec("balanced", 0.1, "sigmoid", 7, 0.01, "sgd", 4, "last", (16, 8))
    assert recipe_from_plain(FLAT) == FeatureExtraction(head, 5, "squash", False, 64)
    logistic = recipe_from_plain(FLAT | {"head": "logistic"}).head
    assert logistic == LogisticSpec("balanced", (1.0,))
    with pytest.raises(UnknownName, match="'logstic'"):
        recipe_from_plain(FLAT | {"head": "logstic"})


def test_some_settings_of_a_recipe_are_enough() -> None:
    usual = FeatureExtraction(LinearSpec(epochs=3), fit="pad")
    mlp = MlpSpec(epochs=3, hidden=(4,))
    assert recipe_from_plain({"seed": 2}, usual) == replace(usual, seed=2)
    assert recipe_from_plain({"head_lr": 0.5}, usual).head == LinearSpec(epochs=3, lr=0.5)
    assert recipe_from_plain({"head": {"lr": 0.5}}, usual).head == LinearSpec(epochs=3, lr=0.5)
    assert recipe_from_plain({"head": "mlp", "hidden": [4]}, usual).head == mlp
    assert recipe_from_plain({"head": {"kind": "MlpSpec", "hidden": [4]}}, usual).head == mlp
    for wrong in ({"hed": "mlp"}, {"head": {"kind": "MlpSpc"}}, {"head": "mpl"}):
        with pytest.raises(UnknownName):
            recipe_from_plain(wrong, usual)
    for odd in ({"head": {"hidden": [4]}}, {"head": 3}, {"head_lr": "fast"}, {"head": None}):
        with pytest.raises(HeadstartError):
            recipe_from_plain(odd, usual)


def job_of(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Job:
    """What `headstart train` would do with these flags."""
    jobs: list[Job] = []

    def caught(data: Any, out: Any, job: Job, *rest: Any, **more: Any) -> None:
        jobs.append(job)
        raise InterruptedError

    monkeypatch.setattr("headstart.runs.run.train", caught)
    monkeypatch.setattr("headstart.runs.recorded.read_as", lambda path, plan: None)
    argv = ["photos", "--out", "run", *flags]
    with pytest.raises(InterruptedError):
        run(arguments(argv).parse_args(argv))
    return jobs[0]


@pytest.mark.parametrize(
    ("flags", "head"),
    [
        ("", LogisticSpec()),
        ("--l2 1 0.1", LogisticSpec(l2=(1.0, 0.1))),
        ("--head ridge --l2 1 --class-weights balanced", RidgeSpec("balanced", (1.0,))),
        ("--head nearest --neighbours 3 --strategy extract", NearestSpec(neighbours=(3,))),
        ("--head linear --head-epochs 3 --head-lr 0.1 --head-batch-size 4 --head-keep last "
         "--head-optimizer sgd --dropout 0.5 --output sigmoid",
         LinearSpec("none", 0.5, "sigmoid", 3, 0.1, "sgd", 4, "last")),
        ("--head mlp --hidden 8 4", MlpSpec(hidden=(8, 4))),
        ("--recipe vgg16-frozen --head linear", LinearSpec(batch_size=64, keep="last")),
        ("--recipe vgg16-frozen --hidden 8", MlpSpec(batch_size=64, keep="last", hidden=(8,))),
    ],
)  # fmt: skip
def test_flags_of_heads_keep_their_spellings(
    monkeypatch: pytest.MonkeyPatch, flags: str, head: HeadSpec
) -> None:
    assert job_of(monkeypatch, *flags.split()).recipe.head == head


def test_the_rate_of_the_head_is_what_fine_tuning_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    assert job_of(monkeypatch, "--head-lr", "0.1").finetune.lr == pytest.approx(0.01)
    assert job_of(monkeypatch, "--head-lr", "0.1", "--lr", "0.3").finetune.lr == 0.3
    assert job_of(monkeypatch, "--strategy", "scratch", "--head-lr", "0.1").finetune.lr == 0.1
    assert job_of(monkeypatch, "--head", "linear", "--head-lr", "0.1").finetune.lr == 0.0


@pytest.mark.parametrize(
    "flags",
    ["--hidden 8", "--neighbours 3", "--head nearest --strategy extract --l2 1",
     "--head linear --l2 1", "--output sigmoid", "--head-epochs 3",
     "--strategy extract --head-lr 0.1", "--strategy extract --dropout 0.1"],
)  # fmt: skip
def test_a_flag_of_another_family_is_refused(flags: str) -> None:
    argv = ["photos", "--out", "run", *flags.split()]
    last = [word for word in argv if word.startswith("--")][-1]
    with pytest.raises(SpecError, match=f"{last} would change nothing"):
        run(arguments(argv).parse_args(argv))


@dataclass(frozen=True)
class OtherSpec:
    """Of something else, with a setting that fine-tuning has as well."""

    epochs: int = 3


def test_two_settings_of_one_flag_are_an_error() -> None:
    parser = Parser("train")
    add_flags(parser, FineTune())
    add_flags(parser, SplitPlan())  # which share the seed, as is declared
    with pytest.raises(SpecError, match="Two settings would be --epochs"):
        add_flags(parser, OtherSpec())


@pytest.mark.usefixtures("centre")
def test_a_family_of_a_script_has_flags_is_fitted_and_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = job_of(monkeypatch, "--head", "centre", "--sharpness", "3")
    assert job.recipe.head == CentreSpec(sharpness=3.0)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(20, 4)) + np.repeat([[0.0], [3.0]], 10, axis=0)).astype(np.float32)
    rows = Rows(x, np.repeat([0, 1], 10), ("a", "b"))
    head = fit_centres(CentreSpec(), rows, rows).head
    assert (head.scores(x).argmax(axis=1) == rows.y).all()
    again = load_head(head.kind, head.tensors(), head.settings())
    assert np.array_equal(again.scores(x), head.scores(x))
    assert recipe_from_plain(to_plain(job.recipe)) == job.recipe


@dataclass(frozen=True)
class OddSpec(HeadSpec):
    """Of a family whose setting has the name, and not the meaning, of one of mlp's."""

    family: ClassVar[str] = "odd"
    hidden: float = 0.5


@pytest.mark.usefixtures("centre")
def test_a_setting_that_would_take_anothers_flag_is_an_error() -> None:
    HEADS.register("odd", HeadFamily(OddSpec, load_centres, fit_centres))
    with pytest.raises(SpecError, match="Two settings would be --hidden"):
        add_head_flags(argparse.ArgumentParser(), OddSpec())


def test_a_family_is_solved_or_trained() -> None:
    with pytest.raises(SpecError, match="has a fit unless its spec is trained by epochs"):
        HeadFamily(CentreSpec, load_centres, None)


def weights(how: Any, y: NDArray[np.int64] = Y) -> list[float]:
    return weight_of_classes(how, y, ("a", "b")).tolist()


def test_class_weights_are_named_and_their_mean_over_rows_is_one() -> None:
    assert weights({"b": 3}) == [4 / 6, 2.0]
    assert weights({"a": 1, "b": 3}) == pytest.approx(weights("balanced"))
    with pytest.raises(UnknownName, match="Did you mean 'b'"):
        weights({"bb": 2})


@pytest.mark.parametrize("how", [{}, {"a": 0}, {"a": -1}, {"a": float("nan")}, {"a": "2"}])
def test_class_weights_are_numbers_above_zero(how: Any) -> None:
    for make in (RidgeSpec, FineTune):
        with pytest.raises(SpecError, match="a weight above 0 for each class"):
            make(class_weights=how)


@pytest.mark.parametrize("family", ["logistic", "ridge", "nearest"])
def test_named_weights_that_balance_give_what_balanced_gives(family: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    rows = Rows(x, (np.arange(40) % 4 == 0).astype(np.int64), ("a", "b"))
    named, balanced = (
        fit_head(spec_named(family, None, class_weights=how), rows, rows).head.scores(x)
        for how in ({"b": 3.0}, "balanced")
    )
    assert np.abs(named - balanced).max() < 1e-5


def test_every_recipe_keeps_what_it_says_in_a_file() -> None:
    for named in RECIPES.values():
        recipe = replace(named.job.recipe, seed=2)
        assert recipe_from_plain(to_plain(recipe)) == recipe
