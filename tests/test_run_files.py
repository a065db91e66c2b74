"""The files of JSON in a run's folder: read into the value that wrote them, or refused by key."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from test_report import make_run

from headstart.base.atomic import write_json
from headstart.base.errors import DataError, HeadstartError, SpecError
from headstart.base.values import Record, Settings, as_key, from_plain, read_value, to_plain
from headstart.data.findings import Findings
from headstart.evaluation.evaluation import Estimate
from headstart.evaluation.insights import Insights
from headstart.explaining.pixels.robustness import Robustness
from headstart.explaining.pixels.saved import ExplainedRows
from headstart.reporting.facts import read_facts
from headstart.reporting.run_files import RunEvaluation, RunRecipe, Timings
from headstart.runs.folder import recorded_rows
from headstart.training.history import Epoch

KINDS: dict[str, Any] = {
    "checks": Findings,
    "evaluation": RunEvaluation,
    "explained": ExplainedRows,
    "insights": Insights,
    "recipe": RunRecipe,
    "robustness": Robustness,
    "timings": Timings,
}


@dataclass(frozen=True)
class Inner(Record):
    share: float
    named: str = field(default="", metadata=as_key("class"))


@dataclass(frozen=True)
class Outer(Record):
    inner: Inner
    count: int = 0
    on: bool = False
    part: Literal["val", "test"] = "val"
    pair: tuple[int, str] = (0, "")
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    by_name: dict[str, Inner] = field(default_factory=dict)
    spec: Settings = field(default_factory=Settings)


WHOLE = Outer(
    inner=Inner(0.5, "cat"),
    count=3,
    on=True,
    part="test",
    pair=(1, "a"),
    many=(Inner(1), Inner(0.0)),
    maybe=Inner(0.25),
    by_name={"x": Inner(1)},
    spec=Settings({"l2": [0.1]}, "Head"),
)


def test_a_record_survives_json() -> None:
    for value in (WHOLE, Outer(Inner(0.5))):
        plain = json.loads(json.dumps(to_plain(value)))
        assert from_plain(plain, Outer) == value
        assert "kind" not in plain
    assert to_plain(WHOLE)["inner"] == {"share": 0.5, "class": "cat"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"inner": None}, "inner must be an object; got null"),
        ({"inner": {}}, "inner.share must be given, and is missing"),
        ({"inner": {"share": "half"}}, "inner.share must be a finite number; got 'half'"),
        ({"inner": {"share": True}}, "inner.share must be a finite number; got True"),
        ({"inner": {"share": float("nan")}}, "inner.share must be a finite number; got nan"),
        ({"inner": {"share": 10**400}}, "inner.share must be a finite number; got 1000"),
        ({"count": 1.5}, "count must be a whole number; got 1.5"),
        ({"count": True}, "count must be a whole number; got True"),
        ({"on": 1}, "on must be true or false; got 1"),
        ({"part": "train"}, "part must be 'val' or 'test'; got 'train'"),
        ({"pair": [1]}, "pair must be a list of 2; got a list"),
        ({"pair": [1, 2]}, r"pair\[1\] must be a text; got 2"),
        ({"many": {}}, "many must be a list; got an object"),
        ({"many": [{"share": 1}, 2]}, r"many\[1\] must be an object; got 2"),
        ({"maybe": {"share": []}}, "maybe.share must be a finite number; got a list"),
        ({"by_name": {"x": {"class": ""}}}, "by_name.x.share must be given"),
        ({"by_name": []}, "by_name must be an object; got a list"),
        ({"spec": "Head"}, "spec must be an object; got 'Head'"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_key(change: Any, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        from_plain({**to_plain(WHOLE), **change}, Outer)


def test_a_key_of_a_later_version_is_left_aside() -> None:
    assert from_plain({**to_plain(WHOLE), "new": 1}, Outer) == WHOLE


@pytest.mark.parametrize("text", ["", "half of", "[" * 100_000, '"text', "\x00", "1" * 5000])
def test_a_file_that_holds_no_such_value_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SpecError, match="must"):
        read_value(tmp_path / "x.json", Outer)


def test_the_type_of_a_setting_of_a_spec_is_checked_too() -> None:
    with pytest.raises(SpecError, match="epoch must be a whole number; got 'two'"):
        from_plain({**to_plain(Epoch("head", 2, None, 1, 1, 1, 1)), "epoch": "two"}, Epoch)


def test_an_estimate_without_an_interval_survives_json() -> None:
    plain = Estimate(0.5, float("nan"), float("nan"), 3).to_plain()
    assert plain == {"value": 0.5, "low": None, "high": None, "n": 3}
    assert from_plain(plain, Estimate).to_plain() == plain


# ---- the files of a run ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))[0]


def test_each_file_is_read_into_the_value_that_wrote_it(run: Path, tmp_path: Path) -> None:
    for name, kind in KINDS.items():
        value = read_value(run / f"{name}.json", kind)
        write_json(tmp_path / "again.json", to_plain(value))
        assert read_value(tmp_path / "again.json", kind) == value


def leaves(plain: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers, texts and lists of a plain value are, of each list the first item."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from leaves(value, (*at, key))
    elif isinstance(plain, list):
        yield at
        yield from leaves(plain[0], (*at, 0)) if plain else ()
    elif plain is not None:
        yield at


FREE = {"recipe", "finetune", "augment", "trust", "split", "checks", "chosen", "tried", "plan"}


@pytest.mark.parametrize("name", KINDS)
def test_whatever_value_is_spoilt_the_report_names_its_file_and_key(run: Path, name: str) -> None:
    """Settings of specs may be anything; all else has a type."""
    file = run / f"{name}.json"
    text = file.read_text()
    places = [at for at in leaves(json.loads(text)) if not FREE & set(at)]
    assert places
    try:
        for at in places:
            plain = json.loads(text)
            spot = plain
            for key in at[:-1]:
                spot = spot[key]
            spot[at[-1]] = {"spoilt": [1]}
            file.write_text(json.dumps(plain))
            with pytest.raises(DataError) as error:
                read_facts(run, {})
            said = str(error.value)
            assert str(file) in said
            assert "\n" not in said
            assert any(str(key) in said.partition("writes (")[2] for key in at), said
    finally:
        file.write_text(text)


OLDER: dict[str, tuple[str, ...]] = {  # keys that a run of an earlier version may lack
    "checks": ("left_out", "exact_duplicates", "odd_sizes"),
    "recipe": ("data_licence", "weights", "augment", "language", "device", "trust", "tried"),
    "timings": ("machine", "peak_rss_bytes", "examples_per_second"),
    "evaluation": ("baselines_on_test",),
    "insights": ("doubt", "map", "compared"),
    "robustness": ("neighbours",),
}


@pytest.mark.parametrize("name", OLDER)
def test_a_run_that_lacks_keys_of_later_versions_is_read(
    run: Path, tmp_path: Path, name: str
) -> None:
    plain = json.loads((run / f"{name}.json").read_text())
    write_json(tmp_path / "old.json", {k: v for k, v in plain.items() if k not in OLDER[name]})
    read_value(tmp_path / "old.json", KINDS[name])


def test_weights_that_an_earlier_run_described_in_words_are_still_told(run: Path) -> None:
    plain = json.loads((run / "recipe.json").read_text())
    plain["weights"] = {"from": "made on the spot", "fingerprint": "0123"}
    assert from_plain(plain, RunRecipe).weights.described == "made on the spot"


def test_a_spec_of_any_version_can_be_shown_and_is_checked_when_it_is_built() -> None:
    recipe = RunRecipe(backbone="tiny:32", phases={}, versions={})
    later = replace(recipe, recipe=Settings({"new": 1}, "LaterSpec"))
    assert from_plain(to_plain(later), RunRecipe) == later
    with pytest.raises(HeadstartError):
        later.recipe.spec(Epoch)


def test_a_label_of_thousands_of_boxes_is_read_and_one_that_is_too_long_ends_in_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = "x" * 200_000
    (tmp_path / "splits.csv").write_text(f"path,label,part\na.png,{label},test\n")
    usual = csv.field_size_limit(131_072)
    try:
        assert recorded_rows(tmp_path)["a.png"].label == label
        csv.field_size_limit(1000)
        monkeypatch.setattr(csv, "field_size_limit", lambda size: size)
        assert recorded_rows(tmp_path) == {}
    finally:
        monkeypatch.undo()
        csv.field_size_limit(usual)
