"""A run with a time budget: what is planned, what the deadline ends, and what is there then."""

import json
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from listening import Calls, Lines, kept
from test_training import same, trained

import headstart as hs
from headstart.backbones.saved import save_backbone
from headstart.base.context import IN_MEMORY
from headstart.base.deadline import Deadline
from headstart.base.durations import seconds_of
from headstart.base.errors import SpecError
from headstart.base.listener import Listeners
from headstart.cli.main import main
from headstart.evaluation.budget import (
    MOST_EPOCHS,
    SAFE,
    Allowed,
    BudgetPlan,
    Paces,
    PlanChoice,
    RunSize,
    choices,
    planned,
)
from headstart.modalities.sources import load_backbone
from headstart.models.bundle import load_bundle
from headstart.runs import budgeting
from headstart.runs.config import read_config
from headstart.runs.settings import job_with
from headstart.specs import FineTune, Job
from headstart.training.checkpoints import read_checkpoint, write_checkpoint

CELLS = RunSize(train=1836, val=394, test=394)  # solar cells on two cores
PACES = Paces(decode=0.003, forward=0.0125, open=5.0, step=0.0085, judge=0.003, spent=12.0)
ANY = Allowed(side=224)


# ------------------------------------------------------------ the plan
def plan(budget: float, allowed: Allowed = ANY, size: RunSize = CELLS) -> BudgetPlan:
    return planned(budget, size, PACES, allowed)


def test_more_time_never_buys_less_and_the_plan_keeps_to_it() -> None:
    order = choices(ANY)
    ranks = []
    for budget in range(60, 2000, 20):
        made = plan(budget)
        ranks.append(order.index(made.choice))
        assert made.seconds <= SAFE * budget
    assert ranks == sorted(ranks)
    assert ranks[0] == order.index(PlanChoice(side=made_side(60)))
    assert plan(1900).choice == PlanChoice(0, MOST_EPOCHS, refit=True)


def made_side(budget: float) -> int:
    return plan(budget).choice.side


def test_time_goes_to_the_head_first_then_to_fine_tuning_then_to_a_refit() -> None:
    assert 0 < made_side(60) < 224
    assert plan(90).choice == PlanChoice()  # all pixels, no fine-tuning
    few = plan(180).choice
    assert (few.refit, 0 < few.epochs < 5) == (False, True)
    many = plan(600).choice
    assert many.refit
    assert many.epochs >= 8


def test_what_the_user_chose_is_kept() -> None:
    assert {c.epochs for c in choices(replace(ANY, epochs=3, head=False))} == {3}
    assert plan(1000, replace(ANY, refit=False)).choice == PlanChoice(0, MOST_EPOCHS)
    assert plan(1000, replace(ANY, tune=False)).choice == PlanChoice()
    assert plan(90, replace(ANY, insights=False)).parts[-2].seconds == 0
    with pytest.raises(SpecError, match="too short"):  # smaller pictures are not allowed
        plan(60, replace(ANY, side=0))
    scratch = replace(ANY, head=False, scratch=True, side=0)
    assert planned(600, CELLS, replace(PACES, forward=0.0), scratch).choice.epochs > 5


def test_an_impossible_budget_names_the_least() -> None:
    with pytest.raises(SpecError) as error:
        plan(2)
    least = re.search(r"the least is about (\d+) s", str(error.value))
    assert least
    fits = float(least[1]) + 1
    assert 2 < plan(fits).seconds <= SAFE * fits
    assert "barely" in plan(fits - 3).tight
    assert plan(600).tight == ""


def test_folds_views_and_stored_features_count() -> None:
    assert plan(600, size=replace(CELLS, trainings=6)).choice.epochs < plan(600).choice.epochs
    assert plan(600, size=replace(CELLS, views=8)).choice.epochs < plan(600).choice.epochs
    again = plan(600, size=replace(CELLS, extracted=True))
    assert again.choice.epochs > plan(600).choice.epochs
    assert "features" not in [part.what for part in again.parts]


def took(size: RunSize, paces: Paces = PACES) -> dict[str, float]:
    """The seconds of each part of a plan with 3 epochs and a refit."""
    made = planned(1e5, size, paces, replace(ANY, epochs=3))
    assert made.choice == PlanChoice(0, 3, refit=True)
    return {part.what: part.seconds for part in made.parts}


def test_each_fine_tuning_of_an_ensemble_counts() -> None:
    one, three = took(CELLS), took(replace(CELLS, members=3))
    assert three["fine-tuning"] > 3 * one["fine-tuning"]
    assert all(three[part] > 2.5 * one[part] for part in ("refit", "test"))


def test_the_network_of_each_fold_is_judged() -> None:
    assert took(replace(CELLS, trainings=6))["test"] > 5 * took(CELLS)["test"]


def test_features_of_rows_outside_the_parts_and_heads_that_are_compared_count() -> None:
    more = took(replace(CELLS, others=500, tried=40))
    assert more["features"] - took(CELLS)["features"] == pytest.approx(500 * PACES.feature())
    assert more["head"] == pytest.approx(took(CELLS)["head"] * (1 + 40 * 1836 / (1836 + 394)))


def test_a_baseline_counts_in_each_fold() -> None:
    paces = replace(PACES, baseline_step=0.01)
    assert "baseline" not in took(CELLS)
    once = took(CELLS, paces)["baseline"]
    assert 10 * 1836 * 0.01 < once < 200
    assert took(replace(CELLS, trainings=6), paces)["baseline"] == pytest.approx(5 * once)
    with pytest.raises(SpecError, match="leave --baseline out"):
        planned(100, CELLS, paces, ANY)


def test_a_plan_is_told_as_a_table_and_read_again() -> None:
    made = plan(600)
    lines = made.lines()
    assert len({len(line) for line in lines}) == 1
    assert re.match(r"fine-tuning +\d+ epochs +\d+ min", lines[3])
    assert BudgetPlan.read(made.to_plain()) == made


@pytest.mark.parametrize(
    ("given", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("45", 45)]
)
def test_a_duration_is_read(given: str, seconds: float) -> None:
    assert seconds_of(given) == seconds
    assert Job(budget=given).budget_s == seconds


@pytest.mark.parametrize("given", ["soon", "", "-3", "1.2.3m", "10x", -1, float("nan"), True])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with pytest.raises(SpecError, match="10m"):
        Job(budget=given)


# ------------------------------------------------------------ the deadline
class After(Deadline):
    """A deadline that comes after it has been asked for a number of times."""

    def __init__(self, asked: int) -> None:
        super().__init__(seconds=3600)
        self.asked = asked

    @property
    def late(self) -> bool:
        self.asked -= 1
        return self.asked < 0


def test_the_deadline_ends_an_epoch_which_is_judged() -> None:
    whole, all_of_it = trained()
    assert (len(all_of_it.history), all_of_it.late) == (4, False)
    _, short = trained(context=replace(IN_MEMORY, deadline=After(4)))
    assert len(short.history) == 2  # before training, and a part of the first epoch
    assert (short.stopped, short.late) == (True, True)
    last = short.history[-1]
    assert last.val_loss is not None
    assert last.train_loss is not None
    assert 0 < last.train_loss < 10  # of the rows that were met


def test_a_deadline_after_the_last_step_cuts_nothing_off() -> None:
    _, result = trained()
    steps = Calls()
    _, same = trained(context=replace(IN_MEMORY, listener=steps, deadline=Deadline(3600)))
    assert [line.train_loss for line in same.history] == [
        line.train_loss for line in result.history
    ]
    assert not same.late


@pytest.mark.parametrize("asked", [0, 3, 6, 15])  # at the start, in an epoch, after it, in the last
def test_training_that_the_deadline_ended_goes_on_to_the_bit(tmp_path: Path, asked: int) -> None:
    whole, all_of_it = trained()
    context = kept(tmp_path / "c.safetensors")
    _, short = trained(context=replace(context, deadline=After(asked)))
    assert (short.late, len(short.history) <= 4) == (True, True)
    net, result = trained(context=context)
    assert (result.late, result.stopped) == (False, False)
    losses = [[line.train_loss for line in made.history] for made in (all_of_it, result)]
    assert losses[0] == losses[1]
    assert same(whole.state_dict(), net.state_dict())


def test_an_error_in_an_epoch_that_the_deadline_cut_off_loses_none_of_its_steps(
    tmp_path: Path,
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    whole, _ = trained()
    context = kept(tmp_path / "c.safetensors")
    own = replace(context, deadline=After(3), listener=At("finetune", 1, fail))
    with pytest.raises(ZeroDivisionError):
        trained(context=own)
    net, _ = trained(context=context)
    assert same(whole.state_dict(), net.state_dict())


def test_a_deadline_can_be_asked_to_end_once() -> None:
    told = list[int]()
    own = Deadline(60, on_end=lambda: told.append(1))
    assert not own.late
    assert own.fits(30)
    assert (own.end(), own.end(), own.late, own.left, len(told)) == (True, False, True, 0, 1)
    assert not own.fits(1)
    assert not Deadline().end()  # without a deadline Ctrl-C is what it was


def test_each_training_has_a_part_of_the_time_and_leaves_that_of_its_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headstart.base.deadline.time.monotonic", lambda: 0.0)
    own = Deadline(600, after=100, baseline=20, began=0.0)
    own.share(4)  # three folds with baselines, and the saved model
    assert own.spare == (600 - 100 - 3 * 20) / 4
    with own.in_baseline():
        assert own.spare == 110 + 20
    own.share(2)
    assert own.spare == (600 - 100 - 20) / 2
    own.share(1)
    assert own.spare == 600 - 100 - 20
    assert own.end()
    assert own.late


# ------------------------------------------------------------ runs
@pytest.fixture
def job(tmp_path: Path) -> Job:
    own = Job(backbone="tiny:32", store=hs.Store(tmp_path / "store"))
    return job_with(own, {"budget": "1h", "epochs": 3, "batch_size": 8, "strategy": "finetune"})


class At(Lines):
    """Does something at the end of an epoch of a phase, or at a step."""

    def __init__(self, phase: str, number: int, act: Callable[[], object], *, step: bool = False):
        super().__init__()
        self.when, self.act, self.step = (phase, number), act, step

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        super().epoch(phase, number, figures)
        if not self.step and (phase, number) == self.when:
            self.act()
        return None

    def progress(self, stage: str, done: int, total: int) -> None:
        if self.step and (stage, done) == self.when:
            self.act()


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def ctrl_c_twice() -> None:
    ctrl_c()
    ctrl_c()


def finished(run: Path) -> dict[str, Any]:
    """The recipe of a run that is finished, judged, saved, and has its page."""
    assert json.loads((run / "evaluation.json").read_text())["test"]["accuracy"]["n"] > 0
    assert len(load_bundle(run / "model").model.classes) == 2
    assert (run / "report.html").exists()
    assert not list(run.glob("checkpoint-*"))
    found: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    return found


def test_a_plan_is_told_before_the_work_and_followed(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = Paces(0.001, 0.001, 1.0, step=50.0)  # an epoch of 17 rows: 850 s
    monkeypatch.setattr(budgeting, "measured", lambda *args: paces)
    job = replace(job, given=(), finetune=FineTune(batch_size=8))
    lines = Lines()
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    recipe = finished(run.folder)
    assert (recipe["finetune"]["epochs"], recipe["budget"]) == (3, 3600)
    told = [name for name, _ in lines.lines]
    assert told.index("plan") < told.index("features")
    assert any("3 epochs" in line for line in lines.of("plan"))
    plan = json.loads((run.folder / "timings.json").read_text())["plan"]
    assert plan["choice"] == {"side": 0, "epochs": 3, "refit": False}


def test_a_head_alone_is_planned_where_fine_tuning_takes_too_long(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgeting, "measured", lambda *args: Paces(0.001, 0.001, step=1e4))
    job = replace(job, strategy="auto")
    run = hs.train(hs.read(shapes), tmp_path / "run", job)
    recipe = finished(run.folder)
    assert (recipe["strategy"]["kept"], recipe["finetune"], recipe["refit"]) == ("head", None, True)
    monkeypatch.setattr(budgeting, "measured", lambda *args: Paces(0.001, 150.0))
    lines = Lines()
    large = load_backbone("tiny:32")
    input: Any = replace(large.card.input, size=128, resize=128)  # type: ignore[type-var]
    save_backbone(replace(large, card=replace(large.card, input=input)), tmp_path / "large")
    job = replace(job, backbone=f"file:{tmp_path / 'large'}")
    small = hs.train(hs.read(shapes), tmp_path / "small", job, lines)
    assert finished(small.folder)["recipe"]["size"] == 96
    assert any("96 px" in line for line in lines.of("plan"))
    assert [line.split(", ")[2] for line in lines.of("backbone")] == [
        "128 px (crop)",
        "96 px (crop)",
    ]
    assert len(lines.of("features")) == 1  # computed once
    given = job_with(job, {"size": 128, "budget": "10m"})
    with pytest.raises(SpecError, match="the least is about"):  # a size that was named is kept
        hs.train(hs.read(shapes), tmp_path / "given", given)


def test_ctrl_c_ends_training_early_and_the_run_is_finished(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    lines = At("finetune", 4, ctrl_c, step=True)  # in the second epoch
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    recipe = finished(run.folder)
    assert recipe["chosen"]["finetune"]["stopped_by"] == "the budget"
    assert len(run.history) == 1 + 3  # the head's line, before, an epoch and a part
    assert run.fitted.before is None  # no time for a refit
    assert "Ctrl-C again" in lines.of("ending")[0]
    assert any("left out" in line for line in lines.of("insights"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_training_keeps_the_head(shapes: Path, tmp_path: Path, job: Job) -> None:
    run = hs.train(hs.read(shapes), tmp_path / "run", job, At("features", 3, ctrl_c, step=True))
    assert finished(run.folder)["strategy"]["kept"] == "head"


@pytest.mark.long
def test_a_second_ctrl_c_stops_and_the_run_goes_on_by_its_plan(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = hs.read(shapes), tmp_path / "run"
    whole = hs.train(data, tmp_path / "whole", job).folder
    broken = At("finetune", 2, ctrl_c_twice, step=True)
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, out, job, broken)
    assert (out / "checkpoint-budget.json").exists()
    monkeypatch.setattr(budgeting, "measured", lambda *args: Paces(0.001, 0.001, step=1e4))
    lines = Lines()
    run = hs.train(data, out, replace(job, resume=True), lines)
    assert "counts from now" in lines.of("plan")[0]
    finished(run.folder)
    for name in ("model/weights.safetensors", "predictions.csv"):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name


def test_a_plan_is_not_kept_for_other_rows(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgeting, "measured", lambda *args: Paces(0.001, 0.001, step=0.1))

    def stop(stage: str, message: str) -> None:
        if stage == "head":
            raise KeyboardInterrupt

    def plan() -> str:
        lines = Lines()
        listener = Listeners(lines, Calls(stage=stop))
        with pytest.raises(KeyboardInterrupt):
            hs.train(hs.read(shapes), tmp_path / "run", job, listener)
        return lines.of("plan")[0]

    assert plan().startswith("measuring")
    assert "counts from now" in plan()
    (shapes / "dark" / "00.png").unlink()
    assert plan().startswith("measuring")


def test_the_deadline_ends_training_and_leaves_out_what_is_late(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [0.0]
    real = time.monotonic
    monkeypatch.setattr("headstart.base.deadline.time.monotonic", lambda: real() + late[0])
    lines = At("finetune", 1, lambda: late.__setitem__(0, 4000.0))
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    recipe = finished(run.folder)
    assert recipe["chosen"]["finetune"]["stopped_by"] == "the budget"
    assert (recipe["refit"], recipe["strategy"]["refitted"]) == (False, False)
    assert "the budget does not have" in lines.of("refit")[0]
    assert any("time is over" in line for line in lines.of("insights"))


def test_a_refit_that_the_deadline_cuts_off_is_not_kept(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [0.0]
    real = time.monotonic
    monkeypatch.setattr("headstart.base.deadline.time.monotonic", lambda: real() + late[0])
    lines = At("refit", 1, lambda: late.__setitem__(0, 4000.0), step=True)
    job = replace(job, finetune=replace(job.finetune, keep="last"))
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    assert lines.of("refit")[-1] == "left out: its time is over"
    assert (finished(run.folder)["refit"], run.fitted.before) == (False, None)


class Slow(Lines):
    """Lets the clock run on at the end of every epoch of a phase."""

    def __init__(self, phase: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.phase, self.seconds, self.late, real = phase, seconds, 0.0, time.monotonic
        name = "headstart.base.deadline.time.monotonic"
        monkeypatch.setattr(name, lambda: real() + self.late)

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        self.late += self.seconds if phase == self.phase and number else 0.0
        return super().epoch(phase, number, figures)


QUICK = Paces(0.001, 0.001, 1.0, step=0.001)


@pytest.mark.long
def test_folds_are_not_refitted_where_the_plan_has_no_refit(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = replace(QUICK, step=24.0)  # an epoch of 20 rows: 480 s
    monkeypatch.setattr(budgeting, "measured", lambda *args: paces)
    job = replace(job, given=(), finetune=FineTune(batch_size=8), folds=2, insights="none")
    lines = Lines()
    run = hs.train(hs.read(shapes), tmp_path / "run", job, lines)
    plan = json.loads((run.folder / "timings.json").read_text())["plan"]
    assert plan["choice"] == {"side": 0, "epochs": 2, "refit": False}
    assert lines.of("refit") == ["left out: the budget has no time for one in every fold"]
    assert finished(run.folder)["refit"] is False


@pytest.mark.long
def test_slow_folds_leave_the_time_of_the_saved_model(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgeting, "measured", lambda *args: QUICK)
    slow = Slow("finetune", 1500.0, monkeypatch)  # of 3600, which are for three trainings
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, folds=2, insights="none"), slow)
    assert [fold.kept for fold in run.folds] == ["finetune", "finetune"]
    assert finished(run.folder)["strategy"]["kept"] == "finetune"


def test_an_ensemble_is_planned_and_left_out_of_a_plan_of_the_head_alone(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgeting, "measured", lambda *args: QUICK)
    job = replace(job, strategy="auto", members=2, insights="none")
    data = hs.read(shapes)
    found: Any = hs.train(data, tmp_path / "dry", job, dry_run=True)
    assert "3 epochs, 2 times" in [part.choice for part in found.plan.parts]
    monkeypatch.setattr(budgeting, "measured", lambda *args: replace(QUICK, step=1e4))
    lines = Lines()
    run = hs.train(data, tmp_path / "run", job, lines)
    assert finished(run.folder)["strategy"]["kept"] == "head"
    assert lines.of("plan")[-1] == budgeting.ALONE


def test_shots_are_planned_with_the_features_of_all_rows_as_a_dry_run_does(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgeting, "measured", lambda *args: QUICK)
    job = replace(job, strategy="auto", shots=2, draws=4, insights="none")
    data = hs.read(shapes)
    dry: Any = hs.train(data, tmp_path / "dry", job, dry_run=True)
    run = hs.train(data, tmp_path / "run", job)
    assert run.timings.plan is not None
    _, *parts = run.timings.plan.parts
    assert parts == list(dry.plan.parts[1:])
    assert parts[0].choice == "24 rows"


def test_fine_tuning_leaves_the_time_of_a_baseline(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = replace(QUICK, baseline_step=5.0)  # 10 epochs of 17 rows: 850 s
    monkeypatch.setattr(budgeting, "measured", lambda *args: paces)
    slow = Slow("finetune", 3100.0, monkeypatch)
    job = replace(job, baseline="cnn", insights="none")
    run = hs.train(hs.read(shapes), tmp_path / "run", job, slow)
    assert finished(run.folder)["chosen"]["finetune"]["stopped_by"] == "the budget"
    assert list(run.baselines) == ["scratch:cnn from scratch"]


class Enough(Lines):
    """Stops a phase after its first epoch."""

    def epoch(self, phase: str, number: int, figures: Mapping[str, float]) -> bool | None:
        super().epoch(phase, number, figures)
        return phase == "baseline" and number == 1


def test_a_baseline_that_a_listener_stops_is_kept_with_a_budget_too(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    job = replace(job, strategy="extract", baseline="cnn", insights="none")
    run = hs.train(hs.read(shapes), tmp_path / "run", job, Enough())
    assert list(run.baselines) == ["scratch:cnn from scratch"]


def test_what_was_evaluated_is_not_set_aside_again() -> None:
    own = Deadline(60)
    own.after = 30.0
    own.evaluated(10.0)
    assert own.after == 10.0
    own.evaluated(20.0)
    assert own.after == 10.0


def test_a_baseline_that_the_deadline_cuts_off_is_left_out_and_named(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow("baseline", 4000.0, monkeypatch)
    job = replace(job, baseline="cnn", insights="none")
    run = hs.train(hs.read(shapes), tmp_path / "run", job, slow)
    finished(run.folder)
    assert run.baselines == {}
    assert slow.of("baseline")[-1] == "left out: its time is over"
    assert "The network to compare with is left out" in (run.folder / "report.html").read_text()
    assert run.timings.plan is not None
    (part,) = (part for part in run.timings.plan.parts if part.what == "baseline")
    assert part.seconds > 0


IN_FOLDS = "left out: it was not trained to its end in every fold"
OVER = "left out: its time is over"


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "phase", "told"),
    [
        ({"folds": 2, "baseline": "cnn"}, "finetune", ("baseline", IN_FOLDS)),
        ({"baseline": "cnn"}, "finetune", ("baseline", OVER)),
        ({"baseline": "cnn"}, "baseline", ("baseline", OVER)),
        ({"members": 2}, "finetune", ("ensemble", OVER)),
        ({"shots": 2, "strategy": "auto"}, "shots", ("ending", budgeting.ENDS)),
    ],
)
def test_ctrl_c_in_folds_ensembles_baselines_and_shots_ends_with_a_judged_model(
    more: Any, phase: str, told: tuple[str, str], shapes: Path, tmp_path: Path, job: Job
) -> None:
    lines = At(phase, 1, ctrl_c, step=True)
    run = hs.train(hs.read(shapes), tmp_path / "run", replace(job, **more), lines)
    finished(run.folder)
    assert lines.lines.count(told) == 1
    assert run.baselines == {}


class FullDisk(At):
    """Fails at the message that the refit is left out."""

    def stage(self, name: str, message: str) -> None:
        super().stage(name, message)
        if name == "refit" and message.startswith("left out"):
            raise OSError(28, "No space left on device")


@pytest.mark.long
@pytest.mark.parametrize("phase", ["finetune", "refit"])
def test_a_phase_that_the_deadline_cut_off_goes_on_when_its_run_does(
    shapes: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    late, real, data = [0.0], time.monotonic, hs.read(shapes)
    monkeypatch.setattr("headstart.base.deadline.time.monotonic", lambda: real() + late[0])
    own = replace(job, finetune=replace(job.finetune, keep="last"), insights="none")
    whole = hs.train(data, tmp_path / "whole", own).folder
    disk = FullDisk(phase, 4, lambda: late.__setitem__(0, 4000.0), step=True)  # in an epoch
    with pytest.raises(OSError, match="No space left"):
        hs.train(data, tmp_path / "run", own, disk)
    late[0] = 0.0
    run = hs.train(data, tmp_path / "run", own)
    assert run.fitted.before is not None
    assert "stopped_by" not in finished(run.folder)["chosen"]["finetune"]
    name = "model/weights.safetensors"
    assert (whole / name).read_bytes() == (run.folder / name).read_bytes()


def test_a_refit_that_an_earlier_version_ended_early_is_left_out(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    own = replace(job, finetune=replace(job.finetune, keep="last"), insights="none")
    data, path = hs.read(shapes), tmp_path / "run" / "checkpoint-refit.safetensors"
    with pytest.raises(KeyboardInterrupt):
        hs.train(data, tmp_path / "run", own, At("refit", 4, ctrl_c_twice, step=True))
    tensors, facts = read_checkpoint(path)
    write_checkpoint(path, tensors, {**facts, "stopped": True})
    lines = Lines()
    run = hs.train(data, tmp_path / "run", own, lines)
    assert lines.of("refit")[-1] == "left out: its time is over"
    assert (finished(run.folder)["refit"], run.fitted.before) == (False, None)


def test_a_recipe_with_a_budget_repeats_the_run_without_one(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    first = hs.train(hs.read(shapes), tmp_path / "first", job)
    again = read_config(first.folder / "recipe.json", Job(store=job.store))
    assert (again.budget, again.finetune.epochs) == (0.0, 3)
    second = hs.train(hs.read(shapes), tmp_path / "second", again)
    name = "model/weights.safetensors"
    assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    mine = tmp_path / "mine.json"
    mine.write_text('{"budget": "10m"}')
    assert read_config(mine).budget_s == 600


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    shapes: Path, tmp_path: Path, job: Job
) -> None:
    lines = Lines()
    found: Any = hs.train(hs.read(shapes), tmp_path / "run", job, lines, dry_run=True)
    assert found.plan.choice == PlanChoice(0, 3, refit=True)
    assert lines.of("plan")[1:] == found.plan.lines()
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_wrong_budgets_are_one_sentence(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(shapes), "--out", str(tmp_path / "run"), "--backbone", "tiny:32"]
    for more, says in {
        ("--budget", "soon"): "budget is a time such as 90s",
        ("--budget", "10m", "--seeds", "2"): "leave --budget out",
        ("--budget", "2s"): "the least is about",
    }.items():
        assert main([*words, *more]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SpecError, match="a setting of a run"):
        hs.fit(hs.read(shapes), backbone="tiny:32", budget=60)
