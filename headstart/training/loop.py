"""The one training loop: heads on features, tails from the cut and whole networks go through it.

All randomness of a step comes from (seed, epoch, step), so that a run that was cut off anywhere
goes on to the bit from its last checkpoint, whose place in the epoch is all there is to know.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.backbone import under
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import SpecError
from headstart.heads.head import check_rate
from headstart.targets.target import Target
from headstart.training.adversary import LEVELS, Attack, lead, perturb, pushed
from headstart.training.checkpoints import (
    Place,
    altered,
    check_tensors,
    pack_optimizer,
    read_checkpoint,
    unpack_optimizer,
    write_checkpoint,
)
from headstart.training.feeds import Feed, Rows, batches
from headstart.training.guards import (
    check_gradients,
    check_input,
    check_losses,
    check_weights,
)
from headstart.training.history import Epoch
from headstart.training.network import Network, snapshot
from headstart.training.optimizing import make_optimizer, set_rates
from headstart.training.plan import Plan

JUDGED = 64  # rows of a batch that is only looked at
ATTACKED = 256  # rows, at most, that an epoch is judged by under attack
AT_ONCE = 16  # of them: gradients take far more memory than looking does
JUDGING_STEPS = 4  # of that attack: more than one, or a network might only look robust to it
Figures = tuple[float | None, float | None]  # loss and accuracy
NOTHING: Figures = (None, None)


@dataclass(frozen=True, eq=False)
class Trained:
    """history: a line an epoch. chosen: the epoch whose weights the network now has. start: what
    it had before. stopped: whether the listener ended training before the plan did.
    """

    history: tuple[Epoch, ...]
    chosen: int
    start: dict[str, Tensor]
    stopped: bool = False


def train(
    network: Network,
    plan: Plan,
    rows: Feed,
    val: Feed,
    *,
    phase: str = "finetune",
    after: int = 0,
    depth: Mapping[str, int] | None = None,
    context: RunContext = IN_MEMORY,
) -> Trained:
    """Train what is thawed of `network`, in place; it ends with the weights of the epoch kept.

    phase: its name in the history. after: epochs that came before, so that they are numbered on.
    depth: blocks below the head, by parameter of the tail, for `layer_decay`.
    Raises Diverged, before anything is saved, for a number that is not finite; KeyboardInterrupt
    when `context.checkpoints.stop` asks for it, and whatever the listener raises, after saving.
    """
    check_rate("lr", plan.lr)  # 0 stands for what nobody has settled yet
    network.to(context.runtime.device).to(memory_format=torch.channels_last)
    start = snapshot(network.learned())
    optimizer = make_optimizer(network, plan, depth)
    if plan.adversarial:
        context.listener.stage(phase, attack_said(plan, len(val.ids)))
    forward = compiled(network) if context.runtime.compile else network
    work = _Work(network, forward, optimizer, plan, phase, after, rows, val, context)
    with context.checkpoints.stopping() as stop:
        _run(work, stop)
    return Trained(tuple(work.history), work.keep(), start, work.stopped)


def _run(work: "_Work", stop: Callable[[], bool]) -> None:
    plan, rows = work.plan, work.rows
    if not work.resume():
        work.judge_start()
    while work.epoch < plan.epochs and not (work.stopped or work.stale()):
        work.network.train()
        order = batches(len(rows.ids), plan.batch_size, work.number, plan.seed)
        for step in range(work.step, len(order)):
            with _seeded(plan.seed, work.number, step):
                done, whole = work.epoch * len(order) + step, plan.epochs * len(order)
                work.lr = set_rates(work.optimizer, plan, done, whole)
                work.reach = reach_of(plan, done, whole)
                work.learn(order[step])
            work.stepped(len(order), stop)
        work.judge_epoch()


@dataclass(eq=False)
class _Work:
    """Training under way. What is below `context` is where it is: a checkpoint holds just that."""

    network: Network
    forward: Callable[[Tensor], Tensor]  # the same network, as a step runs it
    optimizer: torch.optim.Optimizer
    plan: Plan
    phase: str
    after: int
    rows: Feed
    val: Feed
    context: RunContext
    epoch: int = 0  # epochs of this phase that are done
    step: int = 0  # steps of the one under way that are done
    loss: float = 0.0  # summed over its rows so far, as are the rows that were right
    right: int = 0
    lr: float = 0.0  # of the last step
    reach: float = 0.0  # levels of 255 by which pixels are changed in this step
    parts: int = 1  # that a batch is cut into, so that it fits the accelerator
    history: list[Epoch] = field(default_factory=list)
    best: int = 0  # which of the history was best on validation
    stopped: bool = False  # whether the listener asked to stop after the last epoch
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0  # that the epoch under way took until `began`
    began: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        balance = self.target.balance(self.plan.class_weights, self.rows.y)
        self._balance = torch.tensor(balance, dtype=torch.float32)
        self._learned = self.network.learned()
        self._parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}

    @property
    def number(self) -> int:
        """Of the epoch under way, counted on from the phase before."""
        return self.after + self.epoch + 1

    @property
    def target(self) -> Target:
        return self.rows.target

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def stale(self) -> bool:
        """Whether validation has not got better for as long as the plan is patient."""
        return 0 < self.plan.patience <= self.epoch - self.best and len(self.val.ids) > 0

    def learn(self, picked: Rows) -> None:
        """One step of the optimiser, on one batch, each of its numbers seen to be finite."""
        ids = [self.rows.ids[row] for row in picked]
        x = self.rows.batch(picked, self.number)
        check_input(x, ids)
        x, targets = self._mixed(
            x, self.target.soft(self.rows.y[picked], self.plan.label_smoothing)
        )
        logits, losses = self._gradients(x, targets, ids)
        gradients = {n: p.grad for n, p in self._parameters.items() if p.grad is not None}
        check_gradients(gradients, ids)
        if self.plan.clip:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.plan.clip)
        self.optimizer.step()
        check_weights(self._parameters)
        self.loss += float(losses.sum())
        right = self.target.right(logits, targets)
        self.right += 0 if right is None else int(right.sum())

    def stepped(self, steps: int, stop: Callable[[], bool]) -> None:
        """Note that a step is done; write a checkpoint when it is time or the end is asked for."""
        self.step += 1
        with self._saved_on_error():
            done, total = self.epoch * steps + self.step, self.plan.epochs * steps
            self.context.listener.progress(self.phase, done, total)
        stopped = stop()
        if stopped or time.perf_counter() - self.saved >= self.context.checkpoints.every_s:
            self._save()
        if stopped:
            raise KeyboardInterrupt

    def judge_start(self) -> None:
        """Epoch 0: what the network says before training; the best so far."""
        plain = self.rows.features  # of them the head says what the whole network would
        train = NOTHING if plain is None else judge(self.network.head, plain)
        line = Epoch(self.phase, self.after, None, *train, *self._judged_val(), 0.0)
        self.history = [line]
        self.best_weights = snapshot(self._learned)
        self._tell(line)
        self.began = time.perf_counter()

    def judge_epoch(self) -> None:
        """A line of history for the epoch that is over; its weights are kept if they are better."""
        n = len(self.rows.ids)
        right = self.right / n if self.target.counts_right else None
        train, val = (self.loss / n, right), self._judged_val()
        now = time.perf_counter()
        seconds = round(self.seconds + now - self.began, 3)
        line = Epoch(self.phase, self.number, self.lr, *train, *val, seconds)
        self.history.append(line)
        if _merit(line) > _merit(self.history[self.best]):
            self.best, self.best_weights = len(self.history) - 1, snapshot(self._learned)
        self.epoch, self.step, self.loss, self.right = self.epoch + 1, 0, 0.0, 0
        self.seconds, self.began = 0.0, now
        self._tell(line)

    def _tell(self, line: Epoch) -> None:
        """Tell the listener of an epoch; the end that it asks for is kept in the checkpoint."""
        figures = line.figures()
        if self.plan.adversarial:
            figures["adversarial"] = self.plan.adversarial
        with self._saved_on_error():
            number = line.epoch - self.after
            self.stopped = bool(self.context.listener.epoch(self.phase, number, figures))
        if self.stopped:
            self._save()

    @contextmanager
    def _saved_on_error(self) -> Iterator[None]:
        """Save where training is before an error of the listener ends it."""
        try:
            yield
        except BaseException as error:
            self._save()
            if path := self.context.checkpoints.path:
                error.add_note(f"Training is kept in {path}: the same call goes on from there.")
            raise

    def keep(self) -> int:
        """Give the network the weights of the epoch that the plan keeps; return its number."""
        if self.plan.keep == "last" or not len(self.val.ids):
            return self.history[-1].epoch
        self.network.load(self.best_weights)
        return self.history[self.best].epoch

    def resume(self) -> bool:
        """Go on from the checkpoint of this very job, if there is one."""
        path = self.context.checkpoints.path
        if path is None or not os.path.lexists(path):
            return False
        tensors, facts = read_checkpoint(path)
        place = Place.read(facts, path)
        if place.job != self.context.checkpoints.job:
            raise SpecError(
                f"The run in {path.parent} was begun with other settings, other data or another "
                f"backbone, and its training would be lost: repeat the command as it was, name "
                f"another --out, or delete {path}."
            )
        self._check_place(place, path)
        begun = place.epoch > 0 or place.step > 0
        check_tensors(path, tensors, self._learned, self.optimizer if begun else None)
        self.network.load(under("learned.", tensors))
        unpack_optimizer(self.optimizer, tensors)
        self.best_weights = under("best.", tensors)
        self.history = list(place.history)
        for name in PLACE:
            setattr(self, name, getattr(place, name))
        self._say(f"going on after step {self.step} of epoch {self.epoch + 1}")
        return True

    def _save(self) -> None:
        now = time.perf_counter()
        self.seconds, self.began, self.saved = self.seconds + now - self.began, now, now
        checkpoints = self.context.checkpoints
        if checkpoints.path is None:
            return
        tensors = {f"learned.{name}": t for name, t in self._learned.items()}
        tensors |= {f"best.{name}": t for name, t in self.best_weights.items()}
        place = Place(
            checkpoints.job, tuple(self.history), **{name: getattr(self, name) for name in PLACE}
        )
        tensors |= pack_optimizer(self.optimizer)
        write_checkpoint(checkpoints.path, tensors, place.to_plain())

    def _say(self, message: str) -> None:
        self.context.listener.stage(self.phase, message)

    def _check_place(self, place: Place, path: Path) -> None:
        """Raises BundleError for a place that this phase can't have come to."""
        steps = len(batches(len(self.rows.ids), self.plan.batch_size, 0, self.plan.seed))
        lines = [(line.phase, line.epoch) for line in place.history]
        fits = {
            "epoch": place.epoch <= self.plan.epochs,
            "step": place.step <= steps,
            "right": place.right <= len(self.rows.ids),
            "parts": 1 <= place.parts,
            "best": place.best <= place.epoch,
            "history": lines == [(self.phase, self.after + i) for i in range(place.epoch + 1)],
        }
        if wrong := [name for name, fit in fits.items() if not fit]:
            raise altered(path, f"its {wrong[0]!r} is not of this phase")

    def _mixed(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each row blended with another of the batch: mixup (Zhang et al. 2018, eq. 1)."""
        if not self.plan.mixup:
            return x, targets
        rng = np.random.default_rng([self.plan.seed, self.number, self.step])
        share = float(rng.beta(self.plan.mixup, self.plan.mixup))
        other = torch.from_numpy(rng.permutation(len(x)))
        mixed = share * x + (1 - share) * x[other]
        mixed = mixed if x.is_floating_point() else mixed.round().to(x.dtype)  # whole pixels
        return mixed, share * targets + (1 - share) * targets[other]

    def _gradients(self, x: Tensor, targets: Tensor, ids: list[str]) -> tuple[Tensor, Tensor]:
        """Backward through the whole batch, in parts if it does not fit; logits and losses."""
        while True:
            try:
                return self._backward(x, targets, ids)
            except torch.OutOfMemoryError:
                if self.parts >= len(x):
                    raise
                self.parts *= 2
                self._say(
                    f"a batch of {len(x)} is too large for the accelerator: from here on it is "
                    f"run in {self.parts} parts, whose gradients are added up"
                )

    def _backward(self, x: Tensor, targets: Tensor, ids: list[str]) -> tuple[Tensor, Tensor]:
        x = self._attacked(x, targets) if self.plan.adversarial else _laid_out(x)
        self.optimizer.zero_grad(set_to_none=True)
        weights = self.target.weights(targets, self._balance)
        said, lost, size = [], [], -(-len(x) // self.parts)
        for part in torch.arange(len(x)).split(size):
            logits = _logits(self.forward, x[part], self.device)
            losses = self.target.loss(logits, targets[part].to(logits.device))
            check_losses(losses.detach(), [ids[i] for i in part], self._parameters)
            (losses @ (weights[part] / weights.sum()).to(losses.device)).backward()
            said.append(logits.detach().cpu())
            lost.append(losses.detach().cpu())
        return torch.cat(said), torch.cat(lost)

    def _attacked(self, x: Tensor, targets: Tensor) -> Tensor:
        """The pictures (B, S, S, 3) changed against the network as it predicts now, float32.

        What isn't finite in here moves no pixel, and stops training where the changed are learned.
        """
        draws = np.random.SeedSequence([self.plan.seed, self.number, self.step, 1])
        generator = torch.Generator().manual_seed(int(draws.generate_state(1)[0]))
        change = (2 * torch.rand(x.shape, generator=generator) - 1) * self.reach
        self.network.eval()
        found = []
        for part in torch.arange(len(x)).split(-(-len(x) // self.parts)):

            def loss(pixels: Tensor, part: Tensor = part) -> Tensor:
                logits = _logits(self.forward, pixels, self.device)
                return self.target.loss(logits, targets[part].to(logits.device))

            squares, begin = x[part].to(self.device), change[part].to(self.device)
            steps = self.plan.adversarial_steps
            found.append(pushed(loss, squares, begin, self.reach, steps))
        self.network.train()
        return torch.cat(found)

    def _judged_val(self) -> Figures:
        if not len(self.val.ids):
            return NOTHING
        return judge(self.network, self.val, judging_attack(self.plan))


PLACE = tuple(f.name for f in fields(Place) if f.name not in ("job", "history"))


def reach_of(plan: Plan, done: int, steps: int) -> float:
    """Levels by which pixels are changed in the step after `done` of so many: they rise evenly."""
    rise = plan.adversarial_rise * steps
    return plan.adversarial * LEVELS * min(1.0, (done + 1) / rise if rise else 1.0)


def judging_attack(plan: Plan) -> Attack | None:
    """What validation is put to; None where training isn't adversarial."""
    if not plan.adversarial:
        return None
    return Attack(plan.adversarial, steps=JUDGING_STEPS, seed=plan.seed)


def attack_said(plan: Plan, val: int) -> str:
    reach, steps = f"{plan.adversarial * LEVELS:.3g}/{LEVELS}", plan.adversarial_steps
    return (
        f"every value of a picture is changed by up to {reach}: in training by "
        f"{'a step' if steps == 1 else f'{steps} steps'} uphill, its reach rising from 0 over "
        f"{plan.adversarial_rise:.0%} of the way; by {JUDGING_STEPS} steps and all of it on "
        f"{min(val, ATTACKED):,} of {val:,} validation rows. Losses and accuracies that follow are "
        f"under attack"
    )


def judge(network: nn.Module, rows: Feed, attack: Attack | None = None) -> Figures:
    """Mean loss, in nats, and accuracy of what the network says of rows.

    attack: of pixels (N, S, S, 3) instead, up to 256 rows of them, evenly spread, each changed so
    that another class is called if one within reach is found.
    Raises Diverged, naming the row, for what is not finite.
    """
    network.eval()
    loss, right, n = 0.0, 0, len(rows.ids)
    weights = dict(network.named_parameters())
    device = next(iter(weights.values())).device
    judged, size = (np.arange(n), JUDGED) if attack is None else (_some(n, ATTACKED), AT_ONCE)
    for start in range(0, len(judged), size):
        picked = judged[start : start + size]
        ids, x = [rows.ids[row] for row in picked], rows.batch(picked, 0)
        check_input(x, ids)
        if attack is not None:
            labels = torch.from_numpy(rows.y[picked]).to(device)
            x = _worst(network, x.to(device), labels, attack, start)
        with torch.inference_mode():
            logits = _logits(network, _laid_out(x), device).cpu()
            soft = rows.target.soft(rows.y[picked])
            losses, hits = rows.target.loss(logits, soft), rows.target.right(logits, soft)
            check_losses(losses, ids, weights)
            loss += float(losses.double().sum())
            right += 0 if hits is None else int(hits.sum())
    return loss / len(judged), right / len(judged) if rows.target.counts_right else None


def _some(n: int, most: int) -> Rows:
    """All of n rows, or so many of them, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _worst(network: nn.Module, x: Tensor, labels: Tensor, attack: Attack, stream: int) -> Tensor:
    """The pictures (N, S, S, 3), uint8, changed so that another class leads by the most."""

    def loss(pixels: Tensor) -> Tensor:
        logits = _logits(network, pixels, x.device)
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return -lead(logits, labels)

    return perturb(loss, x, attack, stream).to(x.dtype)


def compiled(network: Network) -> Callable[[Tensor], Tensor]:
    """The network as torch.compile makes it; raises SpecError at its first step if it can't."""
    from torch._dynamo.exc import TorchDynamoException  # which takes a second to import

    forward = torch.compile(network, options={"fallback_random": True})  # dropout as uncompiled

    def run(x: Tensor) -> Tensor:
        try:
            logits: Tensor = forward(x)
        except TorchDynamoException as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SpecError(
                f"PyTorch can't compile this network on this machine ({reason}): leave --compile "
                f"out, or give PyTorch the compiler that it wants."
            ) from error
        return logits

    return run


def _laid_out(x: Tensor) -> Tensor:
    """What crosses a cut (N, C, H, W) with its channels last in memory; pixels have them so."""
    if x.dim() == 4 and x.is_floating_point():
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _logits(forward: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> Tensor:
    """Logits in float32; on an accelerator reckoned in bfloat16 where that is safe."""
    x = x.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
        return forward(x).float()


def _merit(line: Epoch) -> tuple[float, float]:
    """More right answers on validation are better; of equals the smaller loss."""
    return line.val_accuracy or 0.0, -(line.val_loss or 0.0)


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """What layers such as dropout draw inside comes from these numbers alone."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    cuda = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a trace of each call
        if cuda:
            torch.cuda.manual_seed(seed)
        yield
