"""The plan of a run with a time budget: what of it fits, chosen from measured paces.

Everything here is a function of values, so that a plan can be understood and tested. The choices
are listed from the least to the most valuable; the last one that fits is taken. A further stage of
a run is one more part of `parts_of`, and if it can be left out, more choices in `choices`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from headstart.base.durations import spoken
from headstart.base.errors import SpecError
from headstart.base.values import Record, later
from headstart.models.specs import SCRATCH

SAFE = 0.92  # share of the budget that is planned; measured paces are not exact
LATE = 1.1  # of the budget: the latest end that is promised
FEWEST_EPOCHS = 2  # of fine-tuning: fewer seldom are better than the head
REFIT_FROM = 5  # epochs; before that, further epochs are worth more than a refit
WITHOUT_REFIT = 8  # epochs without a refit, at most
MOST_EPOCHS = 20  # of fine-tuning: more have not been better
FROM_SCRATCH = 100  # epochs from random weights, at most
SMALLER = (4 / 7, 5 / 7, 6 / 7)  # sides that are tried if the features take too long
REMEMBERED = 1000  # rows whose features a model keeps, at most
SAVE_S, REPORT_S, OPEN_S = 3.0, 5.0, 4.0  # what saving, the report and opening a network take
INSIGHTS = 0.06  # share of the budget for insights and explanations,
INSIGHTS_S = 2.0, 30.0  # which are at least and at most so many seconds
AFTER_TEST_S = SAVE_S + REPORT_S + INSIGHTS_S[0]  # what follows once the test rows are predicted
LEAST_SIDE = 64  # pixels
HEAD_S = 4e-7  # to choose and fit a head: of a row, a feature and an output


@dataclass(frozen=True)
class Paces(Record):
    """What a run's parts take on this machine, in seconds, as measured on a few of its rows.

    decode: to read and prepare a row. forward: the whole network on a row. open: choosing an engine
    for a network. step: a row in a training step, with reading it. judge: a row of validation
    during training; step is inf where fine-tuning has no room. spent: since the run began.
    baseline_step, baseline_judge: the same of a baseline that is trained; 0 for none.
    """

    decode: float = 0.0
    forward: float = 0.0
    open: float = OPEN_S
    step: float = 0.0
    judge: float = 0.0
    spent: float = 0.0
    baseline_step: float = 0.0
    baseline_judge: float = 0.0

    def feature(self, share: float = 1.0) -> float:
        """Return the seconds of a row at a share of the usual side of its square."""
        return self.decode + self.forward * share**2


@dataclass(frozen=True)
class RunSize:
    """The rows of a run, and how often they are computed.

    others: rows outside the parts, whose features are computed too. views: stored ones of a
    training row, 0 for none. test_views: averaged in predictions. trainings: the run's own and
    those of its folds. members: fine-tunings of a training, which are averaged. tried: heads that
    are fitted on as many rows before, to be compared. columns: features times outputs. extracted:
    whether the features are there already.
    """

    train: int
    val: int = 0
    test: int = 0
    others: int = 0
    views: int = 0
    test_views: int = 1
    trainings: int = 1
    members: int = 1
    tried: int = 0
    columns: int = 2560
    extracted: bool = False

    @property
    def rows(self) -> int:
        """The rows whose features are computed."""
        return self.train + self.val + self.test + self.others

    @property
    def folds(self) -> int:
        return self.trainings - 1

    @property
    def judged(self) -> int:
        """The rows that the run is judged on: the test part, or all rows of its folds."""
        return self.train + self.val if self.folds else self.test

    @property
    def judged_each(self) -> int:
        """The rows that one model is judged on: the test part, or a fold."""
        return self.judged // max(1, self.folds)


@dataclass(frozen=True)
class Allowed:
    """What may be chosen. scratch: whether the network is trained from random weights.

    epochs: the number that was asked for, 0 to choose it. head: whether the head alone will do.
    tune: whether fine-tuning is wanted. refit: whether a refit is. side: of the pictures if it may
    be made smaller; 0 if not. insights: whether any are wanted.
    """

    epochs: int = 0
    head: bool = True
    tune: bool = True
    refit: bool = True
    side: int = 0
    insights: bool = True
    scratch: bool = False


@dataclass(frozen=True)
class PlanChoice(Record):
    """One way to spend a budget. side: of the pictures, 0 as asked. epochs: of fine-tuning, 0 for
    the head alone. refit: of what was fine-tuned (a head always is, if that is wanted)."""

    side: int = 0
    epochs: int = 0
    refit: bool = False

    @property
    def in_words(self) -> str:
        """The choice in words."""
        if not self.epochs:
            return f"the head alone{f', at {self.side} px' if self.side else ''}"
        return f"{self.epochs} epochs of fine-tuning{', and a refit' if self.refit else ''}"


@dataclass(frozen=True)
class PlannedPart(Record):
    """What a part of the run is to do, and the seconds expected of it."""

    what: str
    choice: str
    seconds: float


@dataclass(frozen=True)
class BudgetPlan(Record):
    """A plan: seconds of the budget, the choice, and the parts in order.

    after: seconds from the end of training to the end of the run. again: seconds that a refitted
    network adds to these. baseline: seconds of the baseline beside one model. asked: a fingerprint
    of the settings and the rows that the plan is for.
    """

    budget: float
    choice: PlanChoice
    parts: tuple[PlannedPart, ...]
    after: float
    again: float = 0.0
    baseline: float = field(default=0.0, metadata=later())
    asked: str = field(default="", compare=False)

    @property
    def seconds(self) -> float:
        """The seconds expected of the whole run."""
        return sum(part.seconds for part in self.parts)

    @property
    def least(self) -> float:
        """The least budget into which this plan fits with its margin."""
        rest = sum(part.seconds for part in self.parts if part.what != "insights")
        return max(rest / (SAFE - INSIGHTS), (rest + INSIGHTS_S[0]) / SAFE)

    @property
    def tight(self) -> str:
        """A warning that the plan leaves no spare time; "" if it leaves some."""
        if self.seconds <= SAFE * self.budget:
            return ""
        fits = f"what fits is {self.choice.in_words}, and barely"
        return f"{fits}: {spoken(self.least)} would leave room"

    def lines(self) -> list[str]:
        """Return the table as lines: what, choice, expected seconds."""
        rows = [(p.what, p.choice, spoken(p.seconds)) for p in self.parts if p.seconds or p.choice]
        rows.append(("in all", f"of {spoken(self.budget)}", spoken(self.seconds)))
        wide, long = (max(len(row[i]) for row in rows) for i in (0, 1))
        return [f"{what:{wide}}  {choice:{long}}  {took:>12}" for what, choice, took in rows]


def planned(budget: float, size: RunSize, paces: Paces, allowed: Allowed) -> BudgetPlan:
    """Return the most valuable plan that fits into `budget` seconds.

    Where none fits with a margin, that of the least work. Raises SpecError, which names the least
    budget, if that would end later than a tenth after the deadline.

    >>> plan = planned(600, RunSize(1800, 400, 400), Paces(0.005, 0.01, step=0.01), Allowed())
    >>> plan.choice
    PlanChoice(side=0, epochs=10, refit=True)
    """
    plans = [_plan(budget, choice, size, paces, allowed) for choice in choices(allowed)]
    fitting = [plan for plan in plans if plan.seconds <= SAFE * budget]
    if fitting:
        return fitting[-1]
    least = min(plans, key=lambda plan: plan.seconds)
    if least.seconds > LATE * budget:
        less = "fewer rows, or leave --baseline out" if least.baseline else "or fewer rows"
        raise SpecError(
            f"A budget of {spoken(budget)} is too short for {size.rows:,} rows on this machine: "
            f"the least is about {spoken(least.least)}. Give more, {less}."
        )
    return least


def choices(allowed: Allowed) -> list[PlanChoice]:
    """Return what may be chosen, from the least to the most valuable."""
    found = list[PlanChoice]()
    if allowed.head and not allowed.scratch:
        sides = dict.fromkeys(
            max(LEAST_SIDE, round(allowed.side * share / 32) * 32) for share in SMALLER
        )
        found += [PlanChoice(side) for side in sides if allowed.side > side]
        found.append(PlanChoice())
    if allowed.tune or allowed.scratch:
        found += _trained(allowed)
    return found


def _trained(allowed: Allowed) -> Iterator[PlanChoice]:
    refits = (False, True) if allowed.refit and not allowed.scratch else (False,)
    for refit in refits:
        if allowed.epochs:
            epochs: Sequence[int] = (allowed.epochs,)
        elif allowed.scratch:
            epochs = range(1, FROM_SCRATCH + 1)
        elif refit:
            epochs = range(REFIT_FROM, MOST_EPOCHS + 1)
        else:
            first = FEWEST_EPOCHS if allowed.head else 1
            epochs = range(first, (WITHOUT_REFIT if allowed.refit else MOST_EPOCHS) + 1)
        yield from (PlanChoice(0, n, refit) for n in epochs)


def _plan(
    budget: float, choice: PlanChoice, size: RunSize, paces: Paces, allowed: Allowed
) -> BudgetPlan:
    share = choice.side / allowed.side if choice.side else 1.0
    feature = paces.feature(share)
    least, most = INSIGHTS_S
    insights = min(most, max(least, INSIGHTS * budget)) if allowed.insights else 0.0
    network = own_network(size, paces, size.test) if choice.epochs else 0.0
    fold = own_network(size, paces, size.judged_each) if choice.epochs else 0.0
    baseline = own_baseline(size, paces)
    parts = (
        PlannedPart("begun", "read, checked and measured", paces.spent),
        *parts_of(choice, size, paces, feature),
        PlannedPart("test", f"{size.judged:,} rows, limits", network + size.folds * fold),
        PlannedPart("insights", "as far as time goes" if insights else "none", insights),
        PlannedPart("save", "bundle and report", SAVE_S + REPORT_S),
    )
    after = network + SAVE_S + REPORT_S + min(insights, least)
    again = refitted_network(size, paces)
    return BudgetPlan(budget, choice, parts, after, again, baseline)


def parts_of(
    choice: PlanChoice, size: RunSize, paces: Paces, feature: float
) -> Iterator[PlannedPart]:
    """Yield the parts up to the end of training. feature: seconds of a row's features."""
    learned, trainings = size.train + size.val, size.trainings
    if paces.forward and not size.extracted:
        views = size.views * learned
        rows = (size.rows - size.others) * size.test_views if size.test_views > 1 else 0
        side = f" at {choice.side} px" if choice.side else ""
        more = f", {size.views} views" if size.views else ""
        took = (size.rows + views + rows) * feature + paces.open
        yield PlannedPart("features", f"{size.rows:,} rows{side}{more}", took)
    if paces.forward:
        fitted = max(1, size.views) * learned * trainings + size.tried * size.train
        yield PlannedPart("head", "chosen and refitted", HEAD_S * fitted * size.columns)
    yield from _tuned(choice, size, paces)
    if baseline := max(1, size.folds) * own_baseline(size, paces):
        yield PlannedPart("baseline", f"{SCRATCH.epochs} epochs from scratch", baseline)


def _tuned(choice: PlanChoice, size: RunSize, paces: Paces) -> Iterator[PlannedPart]:
    """Yield fine-tuning and its refit."""
    if not choice.epochs:
        yield PlannedPart("fine-tuning", "none: the head alone", 0.0)
        return
    learned, trainings, members = size.train + size.val, size.trainings, size.members
    epoch = size.train * paces.step + size.val * paces.judge
    judged = paces.open + size.val * paces.feature()
    averages = 2 * members - 1 if members > 1 else 0  # soups, and all networks side by side
    took = members * (choice.epochs * epoch + judged) + averages * judged
    times = f", {members} times" if members > 1 else ""
    yield PlannedPart("fine-tuning", f"{choice.epochs} epochs{times}", trainings * took)
    if choice.refit:
        again = members * choice.epochs * learned * paces.step + refitted_network(size, paces)
        what = f"{choice.epochs} epochs on {learned:,} rows{times}"
        yield PlannedPart("refit", what, trainings * again)
    else:
        yield PlannedPart("refit", "none in any fold" if size.folds else "if time is left", 0.0)


def own_network(size: RunSize, paces: Paces, judged: int) -> float:
    """Return the seconds of a fine-tuned network after training: rows that it is judged on, and
    rows to remember."""
    rows = (judged + min(REMEMBERED, size.train)) * size.test_views * size.members
    return OPEN_S + rows * paces.feature()


def refitted_network(size: RunSize, paces: Paces) -> float:
    """Return the seconds that a refit adds to these."""
    rows = min(REMEMBERED, size.train + size.val) * size.test_views * size.members
    return paces.open + rows * paces.feature()


def own_baseline(size: RunSize, paces: Paces) -> float:
    """Return the seconds of a baseline beside one model: trained, and judged on the same rows."""
    if not paces.baseline_step:
        return 0.0
    judged = (1 + SCRATCH.epochs) * size.val + size.judged_each
    learned = SCRATCH.epochs * size.train
    return OPEN_S + learned * paces.baseline_step + judged * paces.baseline_judge
