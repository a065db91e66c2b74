"""`headstart search`, LogME and `--backbone auto`."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import count_left_out
from listening import Lines
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.optimize import minimize

import headstart as hs
from headstart.base.context import IN_MEMORY
from headstart.cli.main import main
from headstart.data.grouping import grouped
from headstart.data.sampling import sample
from headstart.errors import DataError, Mismatch, PlaceError, SpecError, UnknownName
from headstart.evaluation.backbone_search import (
    BackboneSearch,
    SearchLimit,
    SearchPlan,
    TriedBackbone,
    _choice,
    cross_validated_head,
    search_backbones,
)
from headstart.evaluation.evaluation import Estimate
from headstart.evaluation.logme import logme
from headstart.features.extract import FeatureTable, extract
from headstart.runs import search as searching
from headstart.targets.registry import TARGETS

NETS = ("tiny:32", "tiny:8")


# ------------------------------------------------------------ LogME
def slow_logme(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The evidence of all rows together as one normal density, maximised without derivatives."""
    n = len(y)

    def negative(logs: NDArray[np.float64]) -> float:
        alpha, beta = np.exp(np.clip(logs, -25, 25))
        covariance = np.eye(n) / beta + x @ x.T / alpha
        _, volume = np.linalg.slogdet(covariance)
        quadratic = y @ np.linalg.solve(covariance, y)
        return float((n * np.log(2 * np.pi) + volume + quadratic) / (2 * n))

    starts = [(a, b) for a in (-6, 0, 6) for b in (-3, 3)]
    exact = {"xatol": 1e-7, "fatol": 1e-10, "maxiter": 2000}
    return -min(minimize(negative, s, method="Nelder-Mead", options=exact).fun for s in starts)


@pytest.mark.parametrize("shape", [(12, 3), (20, 30), (15, 15)])
@pytest.mark.parametrize("kind", ["number", "classes", "noise"])
def test_logme_is_the_evidence_that_a_slow_search_finds(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(sum(shape))
    x = rng.normal(size=shape) * rng.choice([0.05, 20.0])
    y = rng.normal(size=shape[0]) + (0 if kind == "noise" else 1) * x[:, 0] / np.abs(x).mean()
    y = (y > 0).astype(np.float64) if kind == "classes" else y
    assert logme(x, y) == pytest.approx(slow_logme(x, y), abs=1e-4)


def test_logme_is_the_mean_of_its_questions_without_those_that_never_vary() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.integers(2, size=(30, 2)).astype(np.float64)
    alone = [logme(x, column) for column in y.T]
    constant = np.hstack([y, np.zeros((30, 1)), np.ones((30, 1))])
    assert logme(x, constant) == pytest.approx(np.mean(alone), abs=1e-12)
    assert np.isnan(logme(x, np.ones(30)))
    with pytest.raises(Mismatch, match="must be finite"):
        logme(np.where(x > 2, np.nan, x), y)


def test_logme_does_not_depend_on_the_unit_of_the_features() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6))
    y = x @ rng.normal(size=6) + rng.normal(size=40)
    assert logme(1e5 * x, y) == pytest.approx(logme(x, y), abs=1e-5)


# ------------------------------------------------------------ cross-validation
def table_of(x: NDArray[Any], y: Sequence[int], groups: tuple[str, ...] = ()) -> FeatureTable:
    names = ("a", "b")
    ids = tuple(map(str, range(len(y))))
    return FeatureTable(ids, x.astype(np.float32), np.array(y), names, "", groups=groups)  # type: ignore[arg-type]


def test_copies_are_held_out_together() -> None:
    """Each example is there twice, with a random label: only its copy tells the label."""
    rng = np.random.default_rng(0)
    x, y = np.tile(rng.normal(size=(40, 60)), (2, 1)), np.tile(rng.integers(2, size=40), 2)
    alone = cross_validated_head(table_of(x, y.tolist()))
    pairs = tuple(f"pair {i % 40}" for i in range(80))
    together = cross_validated_head(table_of(x, y.tolist(), pairs))
    assert together.merit.value < 0.75 < alone.merit.value


def test_too_few_rows_are_one_sentence() -> None:
    with pytest.raises(DataError, match="A head is cross-validated on 10 rows or more"):
        cross_validated_head(table_of(np.eye(4), [0, 1, 0, 1]))


@pytest.mark.parametrize("seed", range(4))
def test_the_settings_told_are_those_of_the_answers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 80)
    x = rng.normal(size=(80, 50)) + 0.8 * y[:, None] * (np.arange(50) < 5)
    found = cross_validated_head(table_of(x, y.tolist()))
    assert found.chosen["accuracy"] == pytest.approx(found.merit.value)


@pytest.mark.parametrize("labels", ["number", "labels", "class"])
def test_a_sample_keeps_the_shares_of_the_labels(labels: str) -> None:
    y: list[Any] = [i % 10 for i in range(400)]
    given: Any = y if labels == "number" else [["a"] if i < 3 else ["b"] for i in y]
    given = [str(i < 3) for i in y] if labels == "class" else given
    data = hs.read(([np.zeros((4, 4, 3), np.uint8)] * 400, given), target=labels)
    drawn = sample(data, 100, seed=1)
    assert len(drawn) == 100
    low = np.asarray(drawn.y).reshape(100, -1)[:, 0]
    shares = {"number": (low < 3).mean(), "labels": low.mean(), "class": (low == 1).mean()}
    assert shares[labels] == pytest.approx(0.3, abs=0.03)


def test_groups_hold_what_a_split_keeps_together() -> None:
    data = hs.read([(np.full((4, 4, 3), i, np.uint8), "ab"[i % 2]) for i in range(4)])
    a, b, c, _ = data.ids
    assert grouped(data, [(1, 3)]).groups == (a, b, c, b)


# ------------------------------------------------------------ the table
def tried(name: str, value: float, gain: Estimate | None = None, ms: float = 10.0) -> TriedBackbone:
    merit = Estimate(value, value - 0.1, value + 0.05, 500)
    gain = gain or Estimate(0.0, 0.0, 0.0, 500)
    return TriedBackbone(name, merit, (value,), gain, -0.1234, ms, 127.4, "Apache-2.0", {})


def test_a_tie_goes_to_the_faster_network_and_a_clear_win_does_not() -> None:
    best = tried("best", 0.9, ms=20)
    close = tried("close", 0.89, Estimate(-0.01, -0.03, 0.01, 500), ms=12)
    worse = tried("worse", 0.8, Estimate(-0.1, -0.14, -0.06, 500), ms=1)
    assert _choice([best, close, worse]) == "close"
    assert _choice([best, worse]) == "best"


def test_a_budget_takes_the_best_network_that_it_has_time_for() -> None:
    best = tried("best", 0.9, ms=20)
    close = tried("close", 0.89, Estimate(-0.01, -0.03, 0.01, 500), ms=12)
    worse = tried("worse", 0.8, Estimate(-0.1, -0.14, -0.06, 500), ms=1)
    assert _choice([best, close, worse], 15) == "close"
    assert _choice([best, close, worse], 5) == "worse"
    assert _choice([best, close, worse], 0.5) == "worse"  # the fastest, where none is fast enough
    found = BackboneSearch("accuracy", 500, 0, "worse", (best, close, worse), most_ms=5.0)
    assert "more than the 5 ms" in found.why
    assert BackboneSearch.read(found.to_plain()) == found


def test_a_search_without_time_tries_the_first_network_alone(shapes: Path) -> None:
    data = hs.read(shapes)
    plan = SearchPlan(rows=20)
    found = search_backbones(data, NETS, plan, IN_MEMORY, limit=SearchLimit(seconds=0.0, ms=1e-9))
    assert [item.name for item in found.tried] == [NETS[0]] == [found.chosen]
    assert [(str(item.path), item.reason) for item in found.left_out] == [
        (NETS[1], "the budget has no time to try it")
    ]
    assert len(search_backbones(data, NETS, plan, IN_MEMORY).tried) == 2


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from headstart.cli.printing import print_table

    own = (tried("packaged:efficientnet_lite0", 0.853), tried("packaged:efficientnet_lite2", 0.8))
    print_table(BackboneSearch("accuracy", 500, 0, own[0].name, own).table())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["packaged:efficientnet_lite0", "0.853", "[0.75,"]
    assert max(map(len, lines)) <= 80


def test_a_search_survives_its_file() -> None:
    own = BackboneSearch("mae", 9, 0, "a", (tried("a", 1.0),))
    assert BackboneSearch.read(json.loads(json.dumps(own.to_plain()))) == own


# ------------------------------------------------------------ the command
def test_bad_backbones_are_named_and_do_not_stop_the_others(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbones", "tiny:8", "nowhere:1", "tiny-text:8", "tiny:32"]
    words += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "found")]
    assert main(["search", str(shapes), *words]) == 3
    out, err = capsys.readouterr()
    assert {"tiny:8", "tiny:32"} < set(out.split())
    assert "left out  nowhere:1: There is no source" in err
    assert "left out  tiny-text:8: " in err
    kept = json.loads((tmp_path / "found" / "search.json").read_text())
    assert [item["path"] for item in kept["left_out"]] == ["nowhere:1", "tiny-text:8"]
    assert main(["search", str(shapes), *words]) == 1
    assert "never written over" in capsys.readouterr().err


def test_the_json_is_the_table(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--backbones", *NETS, "--rows", "20", "--json", "--store", str(shapes / "../store")]
    assert main(["search", str(shapes), *words]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["rows"] == 20
    assert all(t["ms"] > 0 and t["megabytes"] >= 0 and t["fingerprint"] for t in plain["tried"])


@pytest.mark.parametrize("command", ["search", "advise"])
def test_the_suggested_command_reads_the_data_as_it_was_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, cells, rng = tmp_path / "my photos" / "rows.csv", ["path,label"], np.random.default_rng(0)
    data.parent.mkdir()
    for i in range(30):
        pixels = rng.normal(60 + 60 * (i % 3), 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(data.parent / f"{i}.png")
        cells.append(f"{i}.png,{i % 3}")
    data.write_text("\n".join(cells))
    store = ["--store", str(tmp_path / "store")]
    words = [command, str(data), "--target", "grades", "--max-bad", "0.5", *store]
    words += ["--probe-epochs", "0"] if command == "advise" else []
    assert main([*words, "--backbones", "tiny:8"]) == 0
    program, *told = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert (program, told[:2]) == ("headstart", ["train", str(data)])
    told[told.index("RUN")] = str(tmp_path / "run")
    told += ["--strategy", "extract"] if command == "search" else []
    assert main([*told, *store, "--insights", "none"]) == 0
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["target"]["target"], recipe["checks"]["max_bad"]) == ("grades", 0.5)


@pytest.mark.parametrize("words", [["search"], ["search", "--json"], ["advise"]], ids=" ".join)
def test_files_that_cannot_be_read_are_named(
    words: list[str], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shapes / "dark" / "00.png").write_bytes(b"damaged")
    command, *flags = words
    flags += ["--probe-epochs", "0"] if command == "advise" else []
    flags += ["--backbones", "tiny:8", "--max-bad", "0.5", "--store", str(tmp_path / "store")]
    assert main([command, str(shapes), *flags]) == 3
    assert count_left_out(capsys.readouterr().err, "dark/00.png") == 1
    if command == "search":
        lines = Lines()
        hs.search(shapes, backbones=["tiny:8"], max_bad=0.5, store=None, listener=lines)
        assert lines.of("left out")[0].startswith("dark/00.png: ")


def test_without_any_backbone_the_first_error_is_raised(shapes: Path) -> None:
    with pytest.raises(UnknownName, match="nowhere"):
        hs.search(shapes, backbones=["nowhere:1"], store=None)
    with pytest.raises(SpecError, match="rows is 10 or more"):
        hs.search(shapes, rows=5)


@pytest.mark.parametrize("kind", [n for n in TARGETS.built_in if not TARGETS[n].no_search])
def test_every_target_is_searched(kind: str) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(3, size=45)
    pictures = [rng.normal(60 + 60 * i, 20, (16, 16, 3)) for i in levels]
    pixels = [picture.clip(0, 255).astype(np.uint8) for picture in pictures]
    labels: dict[str, Any] = {
        "class": [str(i) for i in levels],
        "number": levels.tolist(),
        "grades": [str(i) for i in levels],
        "labels": [["some"] * (i > 0) + ["many"] * (i > 1) for i in levels.tolist()],
    }
    found = hs.search(hs.read((pixels, labels[kind]), target=kind), backbones=NETS, store=None)
    assert found.merit_name == TARGETS[kind].merit_name
    assert len(found.tried) == 2
    assert all(t.logme is not None for t in found.tried)
    assert found.tried[0].rank >= found.tried[1].rank


def test_texts_are_searched(tmp_path: Path) -> None:
    rows = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(15)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = hs.search(tmp_path / "t.jsonl", backbones=["tiny-text:16", "tiny:8"], store=None)
    assert [t.name for t in found.tried] == ["tiny-text:16"]
    assert [item.path for item in found.left_out] == ["tiny:8"]


def shape_of(rng: np.random.Generator, kind: str) -> Image.Image:
    """A ring or a cross, anywhere, in any colours, on noise."""
    noise = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    picture = Image.blend(Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())),
                          Image.fromarray(noise), 0.3)  # fmt: skip
    draw, colour = ImageDraw.Draw(picture), tuple(rng.integers(0, 256, 3).tolist())
    x, y, r = (int(v) for v in (*rng.integers(16, 48, 2), rng.integers(8, 16)))
    if kind == "ring":
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=3)
    else:
        draw.line((x - r, y, x + r, y), fill=colour, width=3)
        draw.line((x, y - r, x, y + r), fill=colour, width=3)
    return picture


@pytest.mark.long
def test_random_weights_come_last() -> None:
    rng = np.random.default_rng(0)
    kinds = ["ring", "cross"] * 40
    data = hs.read([(shape_of(rng, kind), kind) for kind in kinds])
    names = ["tiny:32", "packaged:efficientnet_lite0"]
    found = hs.search(data, backbones=names, store=None)
    assert [t.name for t in found.tried] == names[::-1]
    assert found.chosen == names[1]
    evidence = [t.logme for t in found.tried]
    assert evidence == sorted(evidence, key=float, reverse=True)  # type: ignore[arg-type]


class StopsAfter(hs.Listener):
    """Stops a search when it has told of so many networks."""

    def __init__(self, networks: int) -> None:
        self.left = networks

    def stage(self, name: str, message: str) -> None:
        self.left -= name == "search"
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("networks", [1, 2])
def test_a_stopped_search_ends_as_one_that_was_never_stopped(
    networks: int, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.evaluation import backbone_search

    forwards = list[int]()

    def counted(*args: Any, **how: Any) -> FeatureTable:
        table = extract(*args, **how)
        forwards.append(table.forwards)
        return table

    monkeypatch.setattr(backbone_search, "extract", counted)

    def found(name: str, listener: hs.Listener | None = None) -> dict[str, Any]:
        out, store = tmp_path / f"{name} out", tmp_path / name
        plain = hs.search(shapes, backbones=NETS, out=out, store=store, listener=listener)
        kept = json.loads((out / "search.json").read_text())
        assert kept["tried"] == plain.to_plain()["tried"]
        return {t["name"]: {k: v for k, v in t.items() if k != "ms"} for t in kept["tried"]}

    whole = found("whole")
    assert forwards == [24, 24]
    with pytest.raises(KeyboardInterrupt):
        found("parts", StopsAfter(networks))
    del forwards[:]
    assert found("parts") == whole
    assert forwards == [0] * networks + [24] * (2 - networks)


# ------------------------------------------------------------ --backbone auto
@pytest.fixture
def two_nets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The usual backbones are small ones; the rows that they are compared on are noted."""
    noted = list[tuple[str, ...]]()
    real = search_backbones

    def noting(data: hs.Dataset, *args: Any) -> BackboneSearch:
        noted.append(data.ids)
        return real(data, *args)

    monkeypatch.setattr(searching, "usual_names", lambda data: NETS)
    monkeypatch.setattr(searching, "search_backbones", noting)
    return noted


def test_auto_takes_a_backbone_without_a_look_at_the_test_rows(
    shapes: Path, tmp_path: Path, two_nets: list[tuple[str, ...]]
) -> None:
    settings: dict[str, Any] = {"strategy": "extract", "store": tmp_path / "store"}
    run = hs.train(shapes, tmp_path / "run", backbone="auto", **settings)
    assert {*two_nets[0]} == {*run.splits.train.ids, *run.splits.val.ids}
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["backbone"] == recipe["backbone_search"]["chosen"] in NETS
    assert {t["name"] for t in recipe["backbone_search"]["tried"]} == set(NETS)
    assert not list((tmp_path / "run").glob("checkpoint*"))
    config = tmp_path / "run" / "recipe.json"
    again = hs.train(shapes, tmp_path / "again", config=config, **settings)
    assert again.splits.train.ids == run.splits.train.ids
    assert len(two_nets) == 1


def test_a_run_that_names_its_backbone_records_no_search(shapes: Path, tmp_path: Path) -> None:
    hs.train(shapes, tmp_path / "run", backbone="tiny:8", strategy="extract", store=None)
    assert "backbone_search" not in json.loads((tmp_path / "run" / "recipe.json").read_text())


class Stops(hs.Listener):
    def stage(self, name: str, message: str) -> None:
        if name == "split":
            raise KeyboardInterrupt


def test_a_stopped_run_keeps_its_choice(
    shapes: Path, tmp_path: Path, two_nets: list[tuple[str, ...]]
) -> None:
    settings: dict[str, Any] = {"backbone": "auto", "strategy": "extract", "store": tmp_path / "s"}
    with pytest.raises(KeyboardInterrupt):
        hs.train(shapes, tmp_path / "run", listener=Stops(), **settings)
    hs.train(shapes, tmp_path / "run", **settings)
    assert len(two_nets) == 1


@pytest.mark.long
def test_a_stopped_run_searches_again_for_other_rows_and_settings(
    shapes: Path, tmp_path: Path, two_nets: list[tuple[str, ...]]
) -> None:
    same: dict[str, Any] = {"backbone": "auto", "strategy": "extract", "store": tmp_path / "s"}
    data, out = hs.read(shapes), tmp_path / "run"
    graded = hs.read(data, target="grades", ordered=["dark", "bright"])
    asked: list[tuple[hs.Dataset, dict[str, Any]]] = [(data, {}), (graded, {})]
    asked += [(data.take(range(4, 24)), {}), (data, {"seed": 1}), (data, {"size": 64})]
    for rows, settings in asked:
        with pytest.raises(KeyboardInterrupt):
            hs.train(rows, out, listener=Stops(), **same, **settings)
    assert len(two_nets) == len(asked)
    hs.train(data, out, insights="none", **same)  # its search was not lost meanwhile
    assert len(two_nets) == len(asked)


def test_fit_takes_auto_too(shapes: Path, two_nets: list[tuple[str, ...]]) -> None:
    fitted = hs.fit(shapes, backbone="auto", strategy="extract", store=None)
    assert fitted.model.backbone.card.name in NETS
    assert fitted.splits is not None
    assert not {*two_nets[0]} & {*fitted.splits.test.ids}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "scratch"}, "auto compares pretrained networks"),
        ({"weights": "random"}, "auto compares pretrained networks"),
        ({"dry_run": True}, "which backbone=auto finds by a search"),
        ({"seeds": 2}, "might choose another network for each"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_auto_is_refused_where_it_makes_no_sense(
    settings: dict[str, Any], says: str, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as error:
        hs.train(shapes, tmp_path / "run", **{"backbone": "auto", "store": None, **settings})
    assert says in str(error.value).replace("backbone auto", "backbone=auto")


def test_a_folder_with_a_search_is_not_written_over(shapes: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"backbones": ["tiny:8"], "store": None, "out": tmp_path}
    assert hs.search(shapes, **settings).chosen == "tiny:8"
    with pytest.raises(PlaceError):
        hs.search(shapes, **settings)
    assert SearchPlan().rows == 500
