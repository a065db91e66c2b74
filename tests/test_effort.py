"""What a run computes beside its figures: how much, within which budget, and how it is reported."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Calls, Lines
from test_insights import table

import headstart as hs
from headstart.backbones import graph
from headstart.base.errors import SpecError, UnknownName
from headstart.base.threads import Ahead
from headstart.evaluation.effort import QUICK, InsightEffort
from headstart.evaluation.learning_curve import learning_curve
from headstart.evaluation.mistakes import mistakes, outliers
from headstart.features.engines import OnnxEngine, TorchEngine
from headstart.heads.basis import Rotation
from headstart.heads.fit import fit_head
from headstart.heads.head import some_of
from headstart.heads.specs import HeadSpec, LogisticSpec, RidgeSpec
from headstart.modalities import reading
from headstart.models.bundle import load_bundle
from headstart.models.finetuning import thaw
from headstart.runs import stages
from headstart.runs.config import read_config
from headstart.specs import FineTune, Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    store = hs.Store(tmp_path / "store")
    return Job(backbone="tiny:32", store=store, finetune=FineTune(epochs=1, batch_size=8))


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each export of a graph, whether it had further outputs."""
    found, freeze = list[bool](), graph.freeze

    def counted(backbone: Any, both: Any = None) -> Any:
        found.append(both is not None)
        return freeze(backbone, both)

    monkeypatch.setattr(graph, "freeze", counted)
    return found


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- how much ----


def test_without_insights_a_run_has_its_figures_and_its_page_alone(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, insights="none"))
    assert not {"insights.json", "explained.json"} & files_of(run.folder)
    assert {"report.html", "evaluation.json"} <= files_of(run.folder)
    assert not {"insights", "explained"} & run.timings.seconds.keys()


@pytest.mark.parametrize(("detail", "explained"), [("quick", 4), ("full", 6)])
def test_full_insights_explain_more(
    shapes: Path, tmp_path: Path, job: Job, detail: Any, explained: int
) -> None:
    job = replace(job, insights=detail, strategy="extract", split=hs.specs.SplitPlan(test=0.4))
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    rows = json.loads((run.folder / "explained.json").read_text())["rows"]
    assert len(rows) == min(explained, 2 if detail == "quick" else 2)  # right answers alone
    found = json.loads((run.folder / "insights.json").read_text())
    assert found["learning_curve"]
    assert found["outliers"]
    recipe = json.loads((run.folder / "recipe.json").read_text())
    assert recipe.get("insights", "quick") == detail
    assert read_config(run.folder).insights == detail


def test_another_word_for_the_insights_is_refused() -> None:
    with pytest.raises(UnknownName, match="insights"):
        Job(insights="fast")  # type: ignore[arg-type]


def test_heads_in_all_rotated_columns_are_those_of_the_columns_themselves() -> None:
    rows = table(200, apart=1.0)
    turned = Rotation.of(rows.x, 10)(rows)
    for spec in (LogisticSpec(l2=(0.03,)), RidgeSpec(l2=(0.03,))):
        own, other = (_scores(spec, each) for each in (rows, turned))
        np.testing.assert_allclose(other, own, atol=2e-3)


def _scores(spec: HeadSpec, rows: Any) -> Any:
    return fit_head(spec, rows, some_of(rows, np.arange(0))).head.scores(rows.x)


def test_a_few_leading_columns_show_nearly_the_same() -> None:
    """200 columns that are mixtures of 10, and noise; 30 directions are kept."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(10, 200))
    wide = [
        replace(t, x=(t.x @ mixing + rng.normal(size=(400, 200))).astype(np.float32))
        for t in (table(400, apart=2.0), table(400, apart=2.0, seed=1))
    ]
    turn = Rotation.of(wide[0].x, 30)
    whole = learning_curve(0.03, wide[0], wide[1])
    quick = learning_curve(0.03, turn(wide[0]), turn(wide[1]), draws=2)
    assert whole is not None
    assert quick is not None
    assert turn(wide[0]).x.shape == (400, 30)
    assert [p.rows for p in quick.points] == [p.rows for p in whole.points]
    assert abs(quick.points[-1].accuracy - whole.points[-1].accuracy) < 0.03


def test_planted_mistakes_are_found_in_rotated_columns() -> None:
    rows = table(300, classes=2, apart=6.0)
    y = rows.y.copy()
    y[[7, 70]] = 1 - y[[7, 70]]
    rows = replace(rows, y=y)
    found = mistakes(0.03, rows, rows=Rotation.of(rows.x, 5)(rows))
    assert found is not None
    assert {row.path for row in found.rows[:2]} == {"7.png", "70.png"}


def test_outliers_are_looked_for_among_some_rows_if_there_are_many() -> None:
    rows = table(300)
    some = outliers(rows, most=50)
    assert some is not None
    assert len({o.path for o in some}) == 12
    assert some == outliers(rows, most=50)  # the same rows each time
    assert some != outliers(rows)


def test_an_insight_that_would_take_long_is_left_out_and_named(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = InsightEffort(products=1.0)
    monkeypatch.setattr("headstart.runs.insights.EFFORTS", {"quick": effort})
    lines = Lines()
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, strategy="extract"), lines)
    found = json.loads((run.folder / "insights.json").read_text())
    assert found["learning_curve"] is found["mistakes"] is None
    assert found["outliers"]
    (line,) = lines.of("insights")
    assert "learning curve and mistakes" in line
    assert "--insights full" in line
    assert QUICK.allows(100_000, 1280, 2)  # the control: an ordinary run is within the limit


def test_what_the_budget_has_no_time_for_is_named(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.runs.insights.LEAST_S", 0.0)
    monkeypatch.setattr("headstart.runs.insights.SHARE", 0.0)
    lines = Lines()
    job = replace(job, strategy="extract")
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    found = json.loads((run.folder / "insights.json").read_text())
    assert found["map"] is None
    assert "map" in lines.of("insights")[0]
    assert len(json.loads((run.folder / "explained.json").read_text())["rows"]) == 1
    assert "of 2 answers" in lines.of("explained")[0]
    heard = Lines()
    hs.train(hs.read(shapes), tmp_path / "full", replace(job, insights="full"), heard)
    assert not heard.of("insights")  # the control: no budget ends these


# ---- progress ----


@pytest.mark.parametrize("strategy", ["extract", "finetune"])
def test_every_stage_shows_its_progress(
    shapes: Path, tmp_path: Path, job: Job, strategy: Any
) -> None:
    heard = dict[str, list[tuple[int, int]]]()

    def progress(stage: str, done: int, total: int) -> None:
        heard.setdefault(stage, []).append((done, total))

    job = replace(job, strategy=strategy)
    hs.train(hs.read(shapes), tmp_path / "run", job, Calls(progress=progress))
    stages = {"checks", "features", "save", "insights", "explained", "report"}
    assert stages | ({"trust", "evaluation"} if strategy == "finetune" else set()) <= set(heard)
    for stage in stages:
        done = [d for d, _ in heard[stage]]
        assert done == sorted(done)
        assert heard[stage][-1][0] == heard[stage][-1][1]


# ---- exports ----


@pytest.mark.parametrize("strategy", ["auto", "extract", "finetune"])
def test_a_run_exports_each_graph_once(
    shapes: Path, tmp_path: Path, job: Job, exports: list[bool], strategy: Any
) -> None:
    """The network with its activations at the cut for training, and alone for all else."""
    job = replace(job, strategy=strategy, augment=hs.specs.Augment(flip="both", views=2))
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    assert sorted(exports) == ([False] if strategy == "extract" else [False, True])
    assert load_bundle(run.folder / "model").model.classes == ("bright", "dark")


def test_weights_that_were_equal_at_the_export_may_differ_in_a_copy() -> None:
    """The ones and zeros of a new batch norm, which the exporter shares."""
    backbone = hs.load_backbone("tiny:32")
    graph.exported(backbone)
    tuned = thaw(backbone, "all").backbone
    generator = torch.Generator().manual_seed(0)
    for parameter in tuned.module.parameters():
        parameter.data += 0.1 * torch.rand(parameter.shape, generator=generator)
    example = tuned.card.input.golden()
    (found,) = OnnxEngine(graph.exported(tuned), 1)(example)
    np.testing.assert_allclose(found, TorchEngine(tuned, "cpu")(example)[0], atol=1e-5)


def test_another_input_or_another_network_is_exported_anew(exports: list[bool]) -> None:
    backbone = hs.load_backbone("tiny:32")
    graph.exported(backbone)
    graph.exported(backbone)
    graph.exported(backbone.changed(size=48))
    assert len(exports) == 2
    tuned = thaw(backbone, "1").backbone
    for parameter in tuned.module.parameters():
        parameter.data += 0.01
    frozen = graph.exported(tuned)  # the same graph, and the new weights
    assert len(exports) == 2
    assert frozen.fingerprint() == tuned.fingerprint() != backbone.fingerprint()
    graph.exported(replace(backbone, module=tuned.module.get_submodule("stem")))
    assert len(exports) == 3


# ---- work in a thread ----


def test_reports_are_heard_in_order_by_the_thread_that_asks() -> None:
    heard, threads = list[int](), set[int]()

    def work(progress: Any) -> str:
        for i in range(5):
            progress(i + 1, 5)
        return "done"

    def progress(done: int, total: int) -> None:
        heard.append(done)
        threads.add(threading.get_ident())

    with Ahead(work) as began:
        assert began.result(progress) == "done"
    assert heard == [1, 2, 3, 4, 5]
    assert threads == {threading.get_ident()}


def test_an_error_of_the_thread_is_raised_where_the_result_is_asked_for() -> None:
    def work(progress: Any) -> None:
        raise hs.HeadstartError("broken")

    with Ahead(work) as began, pytest.raises(hs.HeadstartError, match="broken"):
        began.result()


def test_leaving_the_block_stops_the_work() -> None:
    steps, first = list[int](), threading.Event()

    def work(progress: Any) -> None:
        for i in range(1_000_000):
            steps.append(i)
            progress(i, 1_000_000)
            first.set()

    with Ahead(work):
        assert first.wait(10)
    assert len(steps) < 1_000_000


def test_files_are_looked_at_while_the_network_is_loaded(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, prepare = threading.Event(), stages.prepared

    def noted(*args: Any, **more: Any) -> Any:
        looked.set()
        return reading.survey(*args, **more)

    def prepared(*args: Any, **more: Any) -> Any:
        assert looked.wait(10)
        return prepare(*args, **more)

    monkeypatch.setattr("headstart.runs.run.survey", noted)
    monkeypatch.setattr("headstart.runs.run.prepared", prepared)
    job = replace(job, strategy="extract", insights="none")
    assert hs.train(hs.read(shapes), tmp_path / "run", job).kept == "head"


def test_a_wrong_network_is_named_before_damaged_files(tmp_path: Path, job: Job) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(b"no picture")
    with pytest.raises((SpecError, UnknownName), match="tinny"):
        hs.train(hs.read(tmp_path / "data"), tmp_path / "run", replace(job, backbone="tinny:32"))
