"""`--augment auto`: the changes of training pictures that the data chooses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart as hs
from headstart.backbones.views import ViewSpec
from headstart.base.values import to_plain
from headstart.cli.main import main
from headstart.errors import SpecError
from headstart.evaluation.view_search import (
    MeanGain,
    TriedChange,
    ViewSearch,
    _Trial,
    search_views,
)
from headstart.features.extract import FeatureTable
from headstart.heads.specs import LinearSpec, LogisticSpec, NearestSpec
from headstart.modalities.images import augment as augmenting
from headstart.specs import Augment, AutoViews, Job

FRESH = np.random.default_rng(1)
TINY: dict[str, Any] = {"backbone": "tiny:8", "strategy": "extract", "insights": "none"}


# ------------------------------------------------------------ the search, on made-up features
def table_of(x: NDArray[Any], y: Sequence[int]) -> FeatureTable:
    ids = tuple(map(str, range(len(y))))
    return FeatureTable(ids, x.astype(np.float32), np.array(y), ("a", "b"), "")  # type: ignore[arg-type]


def noisy_rows(seed: int = 0) -> FeatureTable:
    """Return rows with a signal in one column, among many columns of noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(120) % 2
    x = rng.normal(size=(120, 100))
    x[:, 0] += 3 * y
    return table_of(x, y.tolist())


def views_with(
    plain: FeatureTable, changed: Callable[[ViewSpec, NDArray[Any]], NDArray[Any]]
) -> Callable[[ViewSpec], tuple[FeatureTable, ...]]:
    return lambda change: tuple(replace(plain, x=changed(change, plain.x)) for _ in range(4))


def fresh_noise(change: ViewSpec, x: NDArray[Any]) -> NDArray[Any]:
    """A flip leaves the signal and draws the noise anew; all else turns the signal round."""
    after = x.copy()
    if change == Augment(flip="horizontal"):
        after[:, 1:] = FRESH.normal(size=(len(x), x.shape[1] - 1))
    else:
        after[:, 0] = 3 - x[:, 0]
    return after


def test_a_change_that_keeps_the_class_is_taken_and_others_are_not() -> None:
    plain = noisy_rows()
    found = search_views(plain, views_with(plain, fresh_noise), LogisticSpec(), AutoViews())
    assert found is not None
    assert found.taken is not None
    assert found.taken.names == ("flip_horizontal",)
    losses = {own.change: own.loss.value for own in found.tried}
    assert losses.pop("flip_horizontal") > 0 > max(losses.values())
    assert found.taken_loss < found.loss
    rights = {own.change: own.on_changed or 0 for own in found.tried}
    assert rights["flip_horizontal"] > 0.6 > 0.4 > rights["flip_vertical"]


def test_changes_that_teach_nothing_are_not_taken() -> None:
    plain = noisy_rows()
    found = search_views(plain, views_with(plain, lambda _, x: x), LogisticSpec(), AutoViews())
    assert found is not None
    assert found.taken is None
    assert found.tried[0].on_changed is None
    assert found.message.startswith("none: no change helps beyond noise, by logistic heads")


@pytest.mark.parametrize("head", [NearestSpec(), LinearSpec()])
def test_other_heads_judge_too(head: Any) -> None:
    plain = noisy_rows()
    found = search_views(plain, views_with(plain, fresh_noise), head, AutoViews())
    assert found is not None
    assert found.head == ("logistic" if head.by_epochs else "nearest")


@pytest.mark.parametrize("rows", [50, 51])
@pytest.mark.parametrize("neighbours", [(1, 3, 5, 10, 20, 50, 100), (60, 70)])
def test_more_neighbours_than_a_fold_has_rows_judge_too(
    rows: int, neighbours: tuple[int, ...]
) -> None:
    """Of noise all neighbours together know most; folds leave 40 rows, or 40 and 41."""
    y = (np.arange(rows) % 2).tolist()
    noise = table_of(np.random.default_rng(0).normal(size=(rows, 100)), y)
    same = views_with(noise, lambda _, x: x)
    found = search_views(noise, same, NearestSpec(neighbours=neighbours), AutoViews())
    assert found is not None
    assert np.isfinite(found.loss)


def test_too_few_rows_choose_nothing() -> None:
    few = table_of(np.eye(4), [0, 1, 0, 1])
    assert search_views(few, views_with(few, fresh_noise), LogisticSpec(), AutoViews()) is None


def test_what_helps_no_further_is_left_out() -> None:
    """All changes do the same, so that one of them is enough."""
    plain = noisy_rows()
    same = views_with(plain, fresh_noise)(Augment(flip="horizontal"))
    found = search_views(plain, lambda change: same, LogisticSpec(), AutoViews())
    assert found is not None
    assert found.taken is not None
    assert found.taken.change in AutoViews.changes
    assert any(" + " in own.change for own in found.tried)


def test_the_error_is_that_of_the_mean_of_groups() -> None:
    """Rows that are there twice give the error of half as many rows, not a smaller one."""
    plain = noisy_rows()
    once = _Trial.begin(LogisticSpec(), plain)
    twice = _Trial.begin(LogisticSpec(), plain)
    assert once is not None
    assert twice is not None
    gained = np.random.default_rng(2).normal(size=120)
    doubled = replace(twice, weights=np.ones(240), group=np.tile(once.group, 2))
    own, both = once._gain(gained), doubled._gain(np.tile(gained, 2))
    assert own.error == pytest.approx(gained.std(ddof=1) / np.sqrt(120))
    assert (both.value, both.error) == pytest.approx((own.value, own.error))


def test_one_row_cannot_outweigh_all_others() -> None:
    trial = _Trial.begin(LogisticSpec(), noisy_rows())
    assert trial is not None
    losses = trial.now.losses - 0.01
    losses[0] = 1e6
    worst = trial.now.losses.max()
    assert trial._saved(losses).value > 0.01 * 119 / 120 - worst / 120


def test_flips_of_both_kinds_are_one_setting() -> None:
    own = AutoViews().together(["flip_horizontal", "flip_vertical", "rotation", "quarter_turns"])
    assert own == Augment(
        flip="both", quarter_turns=True, rotation=AutoViews.changes["rotation"].rotation
    )
    assert AutoViews(3).together([]) == Augment(views=3)


def test_a_search_survives_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    from headstart.cli.printing import print_table

    plain = noisy_rows()
    own = search_views(plain, views_with(plain, fresh_noise), LogisticSpec(), AutoViews())
    assert own is not None
    assert ViewSearch.read(json.loads(json.dumps(own.to_plain()))) == own
    print_table(own.table())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["flip", "horizontal"]
    assert lines[1].endswith("taken")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("loss", "score", "helps"), [(2, 0, True), (1, 0, False), (2, -1, False)])
def test_a_gain_is_beyond_noise_and_costs_no_right_answers(
    loss: float, score: float, helps: bool
) -> None:
    assert (
        TriedChange("rotation", MeanGain(loss, 1), MeanGain(score, 1), MeanGain(0, 0), 1.0).helps
        == helps
    )


# ------------------------------------------------------------ in a run
def stripes(way: str, i: int) -> NDArray[np.uint8]:
    """A picture whose class is the end that is bright: left or right."""
    rng = np.random.default_rng(i)
    ramp = np.linspace(40, 200, 16)[None, :, None] + rng.normal(0, 60, (16, 16, 1))
    ramp = ramp if way == "right" else ramp[:, ::-1]
    return np.repeat(ramp, 3, axis=2).clip(0, 255).astype(np.uint8)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> hs.Dataset:
    """Pictures of the two classes; two changes alone are tried on them."""
    every = AutoViews.changes
    flips = {name: change for name, change in every.items() if name.startswith("flip")}
    monkeypatch.setattr(AutoViews, "changes", flips)
    ways = ["left", "right"] * 20
    return hs.read(([stripes(way, i) for i, way in enumerate(ways)], ways))


def test_a_run_records_and_repeats_what_it_chose(
    ends: hs.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hs.train(ends, tmp_path / "run", augment="auto", views=2, store=tmp_path / "s", **TINY)
    found = run.view_search
    assert found is not None
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["view_search"]["tried"][0]["change"] == "flip_horizontal"
    chosen = AutoViews(2).together(found.taken.names if found.taken else ())
    assert recipe["augment"] == to_plain(chosen)
    assert found.rows == len(run.splits.train) + len(run.splits.val)
    assert recipe["augment"]["flip"] in ("none", "vertical")  # a mirrored left end is a right end
    settings: dict[str, Any] = {"config": tmp_path / "run", "store": tmp_path / "s"}
    again = hs.train(ends, tmp_path / "again", **settings)
    assert again.view_search is None
    same = [json.loads((tmp_path / n / "recipe.json").read_text()) for n in ("run", "again")]
    assert same[0]["augment"] == same[1]["augment"]
    # of a second run with the same search, every view is stored
    monkeypatch.setattr(augmenting.Augment, "change", None)
    second = hs.train(ends, tmp_path / "b", augment="auto", views=2, store=tmp_path / "s", **TINY)
    assert second.view_search == found


def test_a_run_without_it_records_no_search(ends: hs.Dataset, tmp_path: Path) -> None:
    run = hs.train(ends, tmp_path / "run", augment="none", store=None, **TINY)
    assert run.view_search is None
    assert "view_search" not in json.loads((tmp_path / "run" / "recipe.json").read_text())


def test_no_test_row_is_looked_at(
    ends: hs.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.runs import changes as choosing

    seen = set[str]()
    real = search_views

    def noting(plain: FeatureTable, *args: Any) -> ViewSearch | None:
        seen.update(plain.ids)
        return real(plain, *args)

    monkeypatch.setattr(choosing, "search_views", noting)
    run = hs.train(ends, tmp_path / "run", augment="auto", store=None, **TINY)
    assert seen == {*run.splits.train.ids, *run.splits.val.ids}


def test_the_terminal_shows_the_gains(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(shapes), "--out", str(tmp_path / "run"), "--augment", "auto"]
    words += ["--store", str(tmp_path / "s"), "--backbone", "tiny:8", "--strategy", "extract"]
    assert main(["train", *words]) == 0
    out, err = capsys.readouterr()
    assert "augmentation, by logistic heads, cross-validated on" in out
    assert "quarter turns" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Which changes help" in page
    assert page.count("upside-down flip") >= 1
    hs.report(tmp_path / "run", language="ru")
    assert "отражение сверху вниз" in (tmp_path / "run" / "report.html").read_text()
    assert "changes" in err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": "both"}, "augment auto and flip both say how pictures are changed"),
        ({"budget": "10m"}, "plans a run before its features are there"),
        ({"folds": 3}, "chooses on the rows outside the test part"),
        ({"strategy": "scratch"}, "judges changes by features of a pretrained network"),
        ({"tta": 8}, "of which changes there are test-time views"),
        ({"lr_find": True, "strategy": "finetune"}, "A rate is found for one augmentation"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    settings: dict[str, Any], message: str, ends: hs.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=message):
        hs.train(ends, tmp_path / "run", augment="auto", backbone="tiny:8", **settings)
    with pytest.raises(SpecError, match="fit does not make"):
        hs.fit(ends, augment="auto")


def test_none_takes_the_changes_of_a_recipe_away() -> None:
    from headstart.runs.settings import job_with

    job = Job(augment=Augment(flip="both", views=7))
    assert job_with(job, {"augment": "none"}).augment == Augment(views=7)
    assert job_with(job, {"augment": "auto"}).augment == AutoViews(7)
    assert job_with(job, {"augment": "auto", "views": 2}).augment == AutoViews(2)


def test_texts_have_no_such_changes(tmp_path: Path) -> None:
    told = list[str]()

    class Listens(hs.Listener):
        def stage(self, name: str, message: str) -> None:
            told.append(f"{name}: {message}")

    texts = [f"{word} {i}" for i in range(12) for word in ("good", "bad")]
    lines = [f"{text},{label}" for text, label in zip(texts, ["p", "n"] * 12, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    settings: dict[str, Any] = {"backbone": "tiny-text:8", "strategy": "extract", "store": None}
    hs.train(tmp_path / "t.csv", tmp_path / "run", augment="auto", listener=Listens(), **settings)
    assert "changes: none: there are no changes of texts to choose from" in told
