"""The training loop for heads on features, tails from the cut, and whole networks.

All randomness of a step comes from (seed, epoch, step), so that interrupted training resumes bit
for bit from its last checkpoint, which holds `Progress` and tensors only. Several processes
(`base.ranks`) each take a contiguous part of every batch, so that the batches, and a checkpoint,
do not depend on their number.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from headstart.backbones.backbone import under
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Diverged, SpecError
from headstart.base.ranks import Ranks
from headstart.heads.head import check_rate
from headstart.training.arithmetic import (
    Arithmetic,
    judging_arithmetic,
    settled,
    usual_arithmetic,
)
from headstart.training.attacked import Push, attack_plan_message, attacked, judging_attack
from headstart.training.averaging import Averages
from headstart.training.checkpoints import (
    Progress,
    check_progress,
    check_tensors,
    checkpoint_bytes,
    read_progress,
    save_progress,
    unpack_optimizer,
)
from headstart.training.feeds import Feed, RowNumbers, balanced_rows, batches
from headstart.training.guards import (
    check_gradients,
    check_input,
    check_losses,
    check_weights,
    parts_message,
)
from headstart.training.history import Epoch
from headstart.training.judging import NOTHING, Figures, judge
from headstart.training.network import Network, compiled, laid_out, logits_of, snapshot
from headstart.training.objective import BatchLabels, Objective, mixed
from headstart.training.optimizing import make_optimizer, set_rates
from headstart.training.parts import TrainingBatch
from headstart.training.plan import Plan
from headstart.training.trials import STEPS, FirstSteps, fastest

TRIED = 12  # steps that choosing a number format takes, at most


@dataclass(frozen=True, eq=False)
class Trained:
    """history: one line per epoch. chosen: the epoch whose weights the network has. start: the
    weights before training. stopped: whether training was ended early, by the listener or, if late,
    by the deadline. arithmetic: the number format of its steps."""

    history: tuple[Epoch, ...]
    chosen: int
    start: dict[str, Tensor]
    stopped: bool = False
    arithmetic: Arithmetic = "float32"
    late: bool = False


@dataclass(frozen=True)
class Again:
    """What a training chose: its epochs, their number format, and the share of its weights that was
    averaged with those at the start (1: none)."""

    epochs: int
    arithmetic: Arithmetic = "float32"
    wise: float = 1.0


def train(
    network: Network,
    plan: Plan,
    rows: Feed,
    val: Feed,
    *,
    context: RunContext = IN_MEMORY,
    phase: str = "finetune",
    after: int = 0,
    depth: Mapping[str, int] | None = None,
    again: Again | None = None,
) -> Trained:
    """Train the thawed parameters of `network` in place; it ends with the weights of the kept
    epoch.

    phase: its name in the history. after: number of earlier epochs, added to epoch numbers. depth:
    blocks below the head, by parameter of the tail, for `layer_decay`. again: what an earlier
    training by the same plan chose, to be repeated on other rows. Raises Diverged for a
    non-finite number, before anything is saved. The context's deadline ends an epoch early, and
    training with it; KeyboardInterrupt when `context.checkpoints` asks
    to stop, and the listener's exceptions, after saving.
    """
    check_rate("lr", plan.lr)  # 0 means unresolved
    if context.ranks.several:
        check_plan_together(plan)
    network.to(context.runtime.device).to(memory_format=torch.channels_last)
    start, optimizer = snapshot(network.learned()), make_optimizer(network, plan, depth)
    run = _Training(network, optimizer, plan, rows, val, context, phase, after, again)
    if plan.adversarial:
        run.tell(attack_plan_message(plan, len(val.ids)))
    with context.ranks.together(phase), context.checkpoints.stopping(context.deadline.end) as stop:
        context.ranks.equal(network.learned())
        if not run.resume():
            measured = run.choose_arithmetic(partial(make_optimizer, network, plan, depth))
            run.judge_start()
            if measured:
                run.save()  # another timing might choose otherwise
        while not run.finished():
            network.train()
            for picked in run.order()[run.at.step :]:
                with _seeded(*run.seeds):
                    run.learn(picked, run.batch(picked))
                run.stepped(stop)
                if run.cut_off():  # the epoch ends here, and is judged
                    break
            run.judge_epoch()
    at = run.at
    stopped = at.stopped or run.over
    return Trained(at.history, run.keep(), start, stopped, run.arithmetic, late=run.over)


def check_plan_together(plan: Plan) -> None:
    """Raise SpecError for what several processes cannot train."""
    if plan.norms == "trained":
        raise SpecError(
            "Several processes each see a part of a batch, and norms that learn would each learn "
            "other statistics: leave --norms trained out, or train in one process."
        )
    if plan.adversarial:
        raise SpecError(
            "Adversarial training is by one process: leave --adversarial out, or torchrun."
        )


def losses_at(
    rates: Sequence[float],
    network: Network,
    plan: Plan,
    rows: Feed,
    *,
    context: RunContext = IN_MEMORY,
    depth: Mapping[str, int] | None = None,
) -> Generator[float]:
    """Train `network` by one step at each learning rate in turn; yield the mean losses of batches.

    The loss is that of the step's batch before the step. The steps are those of `plan` but for the
    rate, and the weights end anywhere. Ends early at a number that is not finite.
    """
    network.to(context.runtime.device).to(memory_format=torch.channels_last)
    optimizer, quiet = make_optimizer(network, plan, depth), RunContext(None, context.runtime)
    run = _Training(network, optimizer, plan, rows, rows, quiet, "rates", 0)
    network.train()
    with suppress(Diverged):
        for rate in rates:
            run.plan = replace(plan, lr=rate, schedule="constant", warmup=0.0)
            picked, before = run.order()[run.at.step], run.at.loss
            with _seeded(plan.seed, run.number, run.at.step):
                run.learn(picked, rows.batch(picked, run.number))
            yield (run.at.loss - before) / len(picked)
            epoch, step = divmod(run.done + 1, run.steps)
            run.at = replace(run.at, epoch=epoch, step=step)


def seconds_of_step(
    network: Network,
    plan: Plan,
    rows: Feed,
    *,
    context: RunContext = IN_MEMORY,
    depth: Mapping[str, int] | None = None,
    most: float = np.inf,
) -> float:
    """Return the seconds of a step of training in the number format that training would choose.

    rows: those of a few steps, which are taken and undone; the time to read the rows counts. most:
    seconds of measuring; if trying other formats would take longer, the usual one is measured.
    """
    network.to(context.runtime.device).to(memory_format=torch.channels_last)
    fresh = partial(make_optimizer, network, plan, depth)
    quiet = RunContext(None, context.runtime)
    run = _Training(network, fresh(), plan, rows, rows, quiet, "steps", 0)
    began = time.perf_counter()
    begin = [(picked, rows.batch(picked, 1)) for picked in run.order()[:STEPS]]
    reading = (time.perf_counter() - began) / len(begin)
    trials = FirstSteps(network, begin, partial(run.starting, fresh))
    usual = trials.attempt(run.arithmetic, 2).seconds
    if TRIED * usual > most or not run.choose_arithmetic(fresh):
        return reading + usual
    return reading + trials.attempt(run.arithmetic, len(begin)).seconds


@dataclass(eq=False)
class _Training:
    """Training in progress. Only `at` and the tensors of a checkpoint change."""

    network: Network
    optimizer: torch.optim.Optimizer
    plan: Plan
    rows: Feed
    val: Feed
    context: RunContext
    phase: str
    after: int
    again: Again | None = None
    at: Progress = Progress()
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch
    began: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)
    over: bool = False  # whether the deadline ended training, which no checkpoint holds

    def __post_init__(self) -> None:
        self.forward = compiled(self.network) if self.context.runtime.compile else self.network
        self.target, self.learned = self.rows.target, self.network.learned()
        how, smoothing, y = self.plan.class_weights, self.plan.label_smoothing, self.rows.y
        self.objective = Objective.of(self.target, y, self.rows.supervision, how, smoothing)
        self.parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        self.device = next(self.network.parameters()).device
        self.averages = Averages.of(self.plan)
        self.steps = -(-len(self.rows.ids) // self.plan.batch_size)  # of an epoch
        self.all_steps = self.plan.epochs * self.steps

    @property
    def ranks(self) -> Ranks:
        return self.context.ranks

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the current step; other processes than the first draw other numbers."""
        own = (self.ranks.rank,) if self.ranks.rank else ()
        return (self.plan.seed, self.number, self.at.step, *own)

    @property
    def number(self) -> int:
        """The number of the current epoch, continuing the numbers of the phase before."""
        return self.after + self.at.epoch + 1

    @property
    def done(self) -> int:
        """The number of finished steps of all epochs."""
        return self.at.epoch * self.steps + self.at.step

    @property
    def arithmetic(self) -> Arithmetic:
        return self.at.arithmetic or usual_arithmetic(self.device)

    def order(self) -> Sequence[RowNumbers]:
        """Return the batches of the current epoch: each row once, or as `resample` draws them."""
        seed, rows = self.plan.seed, self.rows
        chosen: int | RowNumbers = len(rows.ids)
        if self.plan.resample != "none":
            chosen = balanced_rows(self.target.strata(rows.y), self.number, seed)
        size, sliced = self.plan.batch_size, rows.sliced
        return batches(chosen, size, self.number, seed, rows.sizes, sliced=sliced)

    def batch(self, picked: RowNumbers) -> TrainingBatch | None:
        """Return the input of this process's part of a batch; None for a part without rows.

        Mixup blends rows of the whole batch, which every process reads then.
        """
        own = picked if self.plan.mixup else picked[self.ranks.part(len(picked))]
        return self.rows.batch(own, self.number) if len(own) else None

    def finished(self) -> bool:
        """Return whether to stop: after the last epoch, on request, or for lack of improvement."""
        stale = 0 < self.plan.patience <= self.at.epoch - self.at.best and len(self.val.ids) > 0
        return self.at.epoch >= self.last or self.at.stopped or self.over or stale

    @property
    def last(self) -> int:
        """The number of epochs to train for."""
        return self.again.epochs if self.again else self.plan.epochs

    @property
    def late(self) -> bool:
        """Whether the deadline ends training before all its epochs are done."""
        return self.context.deadline.late and self.at.epoch < self.last

    def cut_off(self) -> bool:
        """Return whether the deadline ends the current epoch before its last step.

        The checkpoint stays at this step, where training goes on if the run is resumed.
        """
        if self.context.deadline.late and self.at.step < self.steps:
            self.save()
            self.over = True
        return self.over

    def choose_arithmetic(self, fresh: Callable[[], torch.optim.Optimizer]) -> bool:
        """Set the number format of all steps; return whether it was chosen by trying a few.

        fresh: makes an optimiser for a trial. The trials change no weight and no random number.
        """
        if not self.network.thawed:  # a head alone is always float32 on a CPU
            return False
        if self.again:
            self.at = replace(self.at, arithmetic=self.again.arithmetic)
            return False
        asked, compiled = self.context.runtime.compute_precision, self.context.runtime.compile
        found = settled(asked, self.device, self.all_steps, compiled=compiled)
        if measured := found is None:
            found = self.ranks.shared(self.tried(fresh) if self.ranks.leads else None)
        self.at = replace(self.at, arithmetic=found)
        return measured

    def tried(self, fresh: Callable[[], torch.optim.Optimizer]) -> Arithmetic:
        """Return the number format that a few steps, by this process alone, show to be fastest."""
        rows = self.order()[:STEPS]
        begin = [(picked, self.rows.batch(picked, self.number)) for picked in rows]
        trials = FirstSteps(self.network, begin, partial(self.starting, fresh))
        found, message = fastest(trials.attempt, self.all_steps, grouped=trials.grouped)
        if message:
            self.tell(message)
        return found

    def starting(
        self, fresh: Callable[[], torch.optim.Optimizer], arithmetic: Arithmetic
    ) -> Callable[[RowNumbers, TrainingBatch], float]:
        """Return a function that takes a step in a number format and returns its summed loss."""
        quiet = RunContext(None, self.context.runtime)
        own = replace(self, optimizer=fresh(), context=quiet, at=Progress(arithmetic=arithmetic))

        def step(picked: RowNumbers, x: TrainingBatch) -> float:
            before = own.at.loss
            with _seeded(own.plan.seed, own.number, own.at.step):
                own.learn(picked, x)
            own.at = replace(own.at, step=own.at.step + 1)
            return own.at.loss - before

        return step

    def learn(self, picked: RowNumbers, x: TrainingBatch | None) -> None:
        """Take one optimiser step on a batch, checking that all numbers are finite.

        picked: the rows of the whole batch. x: the input of this process's part, as `batch`
        returns it. The gradients are sums over the parts, whose losses have the weights that they
        have in the whole batch.
        """
        plan, seeds = self.plan, (self.plan.seed, self.number, self.at.step)
        lr = set_rates(self.optimizer, plan, self.done, self.all_steps)
        ids, part = [self.rows.ids[row] for row in picked], self.ranks.part(len(picked))
        labels = self.objective.batch(picked, self.rows.labels(picked, self.number))
        if x is not None:
            check_input(x, ids if plan.mixup else ids[part])
            x, labels = mixed(x, labels, plan.mixup, seeds)
        weights = self.objective.weights(labels)
        if self.ranks.several:
            labels, weights = labels.of(part), weights[part]
            x = x[torch.arange(part.start, part.stop)] if plan.mixup and x is not None else x
        push = Push.of(plan, self.done, self.all_steps, (*seeds, 1)) if plan.adversarial else None
        raw, losses = self.gradients(x, labels, weights, ids[part], push)
        self.ranks.add_gradients(self.parameters)
        check_gradients({n: p.grad for n, p in self.parameters.items() if p.grad is not None}, ids)
        if plan.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), plan.clip)
        self.optimizer.step()
        check_weights(self.parameters)
        loss, right = self.ranks.add(*self.figures(raw, labels, losses))
        at = self.at
        self.at = replace(at, lr=lr, loss=at.loss + loss, right=at.right + int(right))

    def figures(self, raw: Tensor, labels: BatchLabels, losses: Tensor) -> tuple[float, float]:
        """Return the sum of the losses of labels, as on validation, and the right answers."""
        if not len(raw):
            return 0.0, 0.0
        if labels.soft is not None:
            losses = self.target.loss(raw, labels.named)
        hits = self.target.right(raw, labels.named)
        return float(losses.sum()), 0.0 if hits is None else float(hits.sum())

    def gradients(
        self,
        x: TrainingBatch | None,
        labels: BatchLabels,
        weights: Tensor,
        ids: list[str],
        push: Push | None,
    ) -> tuple[Tensor, Tensor]:
        """Compute gradients of a batch, in parts if memory is short; return outputs and losses.

        weights: by which the losses are summed. x: None for no rows.
        """
        if x is None:
            self.optimizer.zero_grad(set_to_none=True)
            return torch.zeros((0, self.target.outputs)), torch.zeros(0)
        while True:
            try:
                changed = self.changed(x, labels.learned, push)
                return self.backward(changed, labels.learned, weights, ids)
            except torch.OutOfMemoryError:
                if self.at.parts >= len(x):
                    raise
                self.at = replace(self.at, parts=2 * self.at.parts)
                self.tell(parts_message(len(x), self.at.parts))

    def changed(self, x: TrainingBatch, soft: Tensor, push: Push | None) -> TrainingBatch:
        """Return the batch to learn from: attacked if `push` is given."""
        if push is None:
            return laid_out(x)
        assert isinstance(x, Tensor)  # pixels
        self.network.eval()
        worst = attacked(self.losses, x.to(self.device), soft, push, self.at.parts)
        self.network.train()
        return worst

    def losses(self, x: Tensor, soft: Tensor) -> Tensor:
        raw = logits_of(self.forward, x, self.device, self.arithmetic)
        return self.target.loss(raw, soft.to(raw.device))

    def backward(
        self, x: TrainingBatch, soft: Tensor, weights: Tensor, ids: list[str]
    ) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        outputs, lost, size = [], [], -(-len(x) // self.at.parts)
        for part in torch.arange(len(x)).split(size):
            raw = logits_of(self.forward, x[part], self.device, self.arithmetic)
            losses = self.target.loss(raw, soft[part].to(raw.device))
            check_losses(losses.detach(), [ids[i] for i in part], self.parameters)
            (losses @ weights[part].to(losses.device)).backward()
            outputs.append(raw.detach().cpu())
            lost.append(losses.detach().cpu())
        return torch.cat(outputs), torch.cat(lost)

    def stepped(self, stop: Callable[[], bool]) -> None:
        """Count a step; save a checkpoint when it is due or a stop is requested."""
        self.averages.after_step(self.learned, self.done)
        self.at = replace(self.at, step=self.at.step + 1)
        with self.saved_on_error():
            self.context.listener.progress(self.phase, self.done, self.all_steps)
        stopped = self.ranks.any(stop())
        if stopped or time.perf_counter() - self.saved >= self.context.checkpoints.every_s:
            self.save()
        if stopped:
            raise KeyboardInterrupt

    def judge_start(self) -> None:
        """Evaluate the network before training (epoch 0), as the best so far."""
        plain = self.rows.features  # on features the head equals the whole network
        train, own = NOTHING, judging_arithmetic(self.device, self.arithmetic)
        if plain is not None:
            train = judge(self.network.head, plain, None, own, self.ranks)
        line = Epoch(self.phase, self.after, None, *train, *self.judged_val(), 0.0)
        self.at, self.best = replace(self.at, history=(line,)), snapshot(self.learned)
        self.averages.begin(self.learned)
        self.hear(line)
        self.began = time.perf_counter()

    def judge_epoch(self) -> None:
        """Add the finished epoch to the history; keep its weights, or averages, if the best."""
        self.averages.after_epoch(self.learned)
        at = self.at
        n = sum(map(len, self.order()[: at.step]))  # all rows, unless the deadline came first
        right = at.right / n if self.target.counts_right else None
        with self.averages.inside(self.network):
            train, val = (at.loss / n, right), self.judged_val()
            now = time.perf_counter()
            seconds = round(at.seconds + now - self.began, 3)
            line = Epoch(self.phase, self.number, at.lr, *train, *val, seconds)
            if better := line.merit > at.history[at.best].merit:
                self.best = snapshot(self.learned)
        self.at, self.began = at.after(line, better), now
        self.hear(line)

    def hear(self, line: Epoch) -> None:
        """Report an epoch to the listener; save its request to stop in the checkpoint."""
        figures = line.figures()
        if self.plan.adversarial:
            figures["adversarial"] = self.plan.adversarial
        with self.saved_on_error():
            number = line.epoch - self.after
            stopped = self.ranks.any(bool(self.context.listener.epoch(self.phase, number, figures)))
        late = self.late
        if stopped:
            self.at = replace(self.at, stopped=True)
        if stopped or late:
            self.save()
        self.over = self.over or late

    def tell(self, message: str) -> None:
        self.context.listener.stage(self.phase, message)

    def judged_val(self) -> Figures:
        if not len(self.val.ids):
            return NOTHING
        own = judging_arithmetic(self.device, self.arithmetic)
        return judge(self.network, self.val, judging_attack(self.plan), own, self.ranks)

    def keep(self) -> int:
        """Load the weights of the epoch that the plan keeps; return its number."""
        if self.plan.keep == "last" or not len(self.val.ids):
            self.averages.load_into(self.network)
            return self.at.history[-1].epoch
        self.network.load(self.best)
        return self.at.history[self.at.best].epoch

    def resume(self) -> bool:
        """Resume from this job's checkpoint; return whether there is one."""
        own = self.context.checkpoints
        there = self.ranks.shared(own.path is not None and os.path.lexists(own.path))
        if own.path is None or not there:
            return False
        data = checkpoint_bytes(own.path) if self.ranks.leads else b""
        at, tensors = read_progress(own, self.ranks.shared_bytes(data))
        most = {"epoch": self.plan.epochs, "step": self.steps, "right": len(self.rows.ids)}
        lines = [(self.phase, self.after + i) for i in range(at.epoch + 1)]
        check_progress(own.path, at, {**most, "best": at.epoch}, lines)
        begun = at.epoch > 0 or at.step > 0
        optimizer, number = self.optimizer if begun else None, self.averages.number(at.epoch)
        check_tensors(own.path, tensors, self.learned, optimizer, number)
        self.network.load(under("learned.", tensors))
        unpack_optimizer(self.optimizer, tensors)
        kept = [under(f"average.{i}.", tensors) for i in range(number)]
        self.averages.restore(kept, self.learned)
        self.best, self.at = under("best.", tensors), at
        self.tell(f"going on after step {self.at.step} of epoch {self.at.epoch + 1}")
        return True

    def save(self) -> None:
        """Write a checkpoint, unless the deadline has ended training."""
        if self.over:
            return
        now = time.perf_counter()
        self.at = replace(self.at, seconds=self.at.seconds + now - self.began)
        self.began = self.saved = now
        own = self.context.checkpoints
        if not self.ranks.leads:
            return
        kept = self.averages.kept
        save_progress(own, self.at, self.learned, self.best, self.optimizer, kept)

    @contextmanager
    def saved_on_error(self) -> Iterator[None]:
        """Save a checkpoint before an exception of the listener ends training."""
        try:
            yield
        except BaseException as error:
            self.save()
            if path := self.context.checkpoints.path:
                error.add_note(f"Training is kept in {path}: the same call goes on from there.")
            raise


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Seed PyTorch's random draws, such as dropout, with these numbers only."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    cuda = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a stack trace per call
        if cuda:
            torch.cuda.manual_seed(seed)
        yield
