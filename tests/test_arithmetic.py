"""The number format of training: chosen by trying a few steps, which leave no trace."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Lines, Stopper, kept
from torch import Tensor, nn
from torch.nn.functional import conv2d

import headstart as hs
from headstart.base import runtime
from headstart.base.context import IN_MEMORY, RunContext
from headstart.base.errors import Diverged, SpecError
from headstart.base.runtime import Runtime
from headstart.base.values import fingerprint, to_plain
from headstart.features.extract import FeatureTable
from headstart.models.fitting import fit
from headstart.models.specs import TwoPhaseSpec
from headstart.runs.job import Job
from headstart.runs.stages import RunState
from headstart.specs import FineTune
from headstart.targets.classes import ClassTarget
from headstart.training import arithmetic, trials
from headstart.training.arithmetic import GroupedInFloat32, computing, has_grouped, settled
from headstart.training.checkpoints import read_checkpoint, write_checkpoint
from headstart.training.feeds import Stored
from headstart.training.loop import Trained, train
from headstart.training.network import Network
from headstart.training.plan import Plan
from headstart.training.trials import FormatTrial, fastest, restored

CPU = torch.device("cpu")
PLAN = Plan(epochs=4, batch_size=4, lr=1e-2, schedule="constant", warmup=0.0, mixup=0.2)


class Attention(nn.Module):
    """A block of a vision transformer on the positions of a map (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v)
        return (x + self.mlp(x)).mean(1)


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(6, 16, 1),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.ReLU6(),
        nn.Conv2d(16, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def vit() -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 8, 2, stride=2), Attention(8))


def network(make: Callable[[], nn.Module] = depthwise) -> Network:
    torch.manual_seed(0)
    tail = make()
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 2))
    return Network(tail, head, [name for name, _ in tail.named_parameters()])


def feed(n: int = 64, seed: int = 0) -> Stored:
    """Two classes of activations (n, 6, 8, 8), which differ in their mean."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    cut = (rng.normal(size=(n, 6, 8, 8)) + 0.5 * y[:, None, None, None]).astype(np.float32)
    ids = tuple(f"{i}.png" for i in range(n))
    table = FeatureTable(
        ids, np.zeros((n, 8), np.float32), y, ClassTarget(("a", "b")), "test", cut=cut
    )
    return Stored((table,), cut=True)


def trained(
    net: Network, precision: Any = "auto", plan: Plan = PLAN, context: RunContext = IN_MEMORY
) -> Trained:
    context = replace(context, runtime=Runtime("cpu", compute_precision=precision))
    return train(net, plan, feed(), feed(seed=1), context=context)


def same(a: Network, b: Network) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let trials choose a format, on any processor and for phases of any length."""

    def let(chosen: str, seconds: float = 1.0) -> None:
        monkeypatch.setattr(arithmetic, "bfloat16_processor", lambda: True)
        monkeypatch.setattr(trials, "LEAST_SECONDS", 0.0)
        ticks = {"float32": 2.0, "bfloat16-dense": 2.0, "bfloat16": 2.0} | {chosen: seconds}

        def clocked(attempt: Any, steps: int, *, grouped: bool) -> Any:
            def measured(name: Any, count: int) -> FormatTrial:
                return replace(attempt(name, count), seconds=ticks[name])

            return fastest(measured, steps, grouped=grouped)

        monkeypatch.setattr("headstart.training.loop.fastest", clocked)

    return let


# ------------------------------------------------------------ operators
def dtypes(format: arithmetic.Arithmetic) -> list[tuple[torch.dtype, torch.dtype]]:
    """Of what each convolution of the network takes and gives."""
    found = list[tuple[torch.dtype, torch.dtype]]()

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if func is conv2d:
                found.append((args[0].dtype, out.dtype))
            return out

    with Watch(), computing(format, CPU):
        network()(torch.ones(1, 6, 8, 8))
    return found


def test_depthwise_convolutions_alone_compute_in_float32() -> None:
    full, half = torch.float32, torch.bfloat16
    assert dtypes("bfloat16-dense") == [(full, half), (full, full), (half, half)]
    assert dtypes("bfloat16") == [(full, half), (half, half), (half, half)]
    assert dtypes("float32") == [(full, full)] * 3


def test_the_outputs_of_the_head_are_not_rounded() -> None:
    net = network().eval()
    with computing("bfloat16", CPU):
        logits = net(torch.randn(4, 6, 8, 8))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_gradients_of_weights_are_float32() -> None:
    net = network().train()
    with computing("bfloat16-dense", CPU):
        loss = net(torch.randn(4, 6, 8, 8)).sum()
    loss.backward()
    assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.float32}


def test_networks_with_grouped_convolutions_are_known() -> None:
    x = torch.ones(1, 6, 8, 8)
    assert has_grouped(network(), x)
    assert not has_grouped(network(vit), x)
    with GroupedInFloat32() as mode:
        conv2d(torch.ones(1, 1, 4, 4), torch.ones(3, 1, 2, 2))  # one channel is no group
    assert not mode.met


@pytest.mark.parametrize("make", [depthwise, vit])
@pytest.mark.parametrize("precision", ["bfloat16"])
def test_losses_over_an_epoch_are_within_a_hundredth_of_float32s(
    make: Callable[[], nn.Module], precision: str
) -> None:
    plan = replace(PLAN, epochs=1, batch_size=8)
    usual = trained(network(make), "float32", plan).history[1]
    reduced = trained(network(make), precision, plan).history[1]
    assert reduced.train_loss != usual.train_loss  # it did compute in another format
    assert reduced.train_loss == pytest.approx(usual.train_loss, rel=0.01)
    assert reduced.val_loss == pytest.approx(usual.val_loss, rel=0.01)


# ------------------------------------------------------------ the choice
def test_what_leaves_no_choice_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "bfloat16_processor", lambda: True)
    assert settled("auto", CPU, 60, compiled=False) is None
    assert settled("auto", CPU, 59, compiled=False) == "float32"
    assert settled("auto", CPU, 60, compiled=True) == "float32"
    assert settled("float32", CPU, 60, compiled=False) == "float32"
    assert settled("bfloat16", CPU, 1, compiled=False) == "bfloat16-dense"
    assert settled("auto", torch.device("cuda"), 60, compiled=False) == "bfloat16"
    assert settled("float32", torch.device("cuda"), 60, compiled=False) == "float32"
    monkeypatch.setattr(arithmetic, "bfloat16_processor", lambda: False)
    assert settled("auto", CPU, 60, compiled=False) == "float32"


def tried(seconds: dict[str, float], **loss: float) -> tuple[tuple[str, str], list[str]]:
    """What is chosen of formats of so many seconds a step, and the formats that were tried."""
    asked = list[str]()

    def attempt(name: Any, count: int) -> FormatTrial:
        asked.append(name)
        if name not in seconds:
            raise RuntimeError("not implemented for BFloat16")
        return FormatTrial(seconds[name], loss.get(name.replace("-", "_"), 0.5))

    grouped = "bfloat16-dense" in seconds
    return fastest(attempt, 100, grouped=grouped), asked


def test_the_fastest_format_is_taken_and_its_gain_told() -> None:
    (chosen, message), _ = tried({"float32": 0.3, "bfloat16-dense": 0.2, "bfloat16": 0.6})
    assert chosen == "bfloat16-dense"
    assert "0.200 s instead of 0.300 s, 1.50 times as fast" in message
    assert "depthwise convolutions in float32" in message
    (chosen, message), asked = tried({"float32": 0.3, "bfloat16": 0.1})
    assert chosen == "bfloat16"
    assert "depthwise" not in message
    assert "bfloat16-dense" not in asked  # the same without grouped convolutions


def test_float32_stays_where_others_do_not_pay_differ_or_fail() -> None:
    for seconds, loss, why in (
        ({"float32": 0.3, "bfloat16": 0.29}, {}, "1.03 times as fast"),
        ({"float32": 0.3, "bfloat16": 0.1}, {"bfloat16": 0.52}, "differ by 4.0%, more than 1%"),
        ({"float32": 0.3, "bfloat16": 0.1}, {"bfloat16": float("nan")}, "more than 1%"),
        ({"float32": 0.3}, {}, "can't be computed"),
    ):
        (chosen, message), _ = tried(seconds, **loss)
        assert chosen == "float32"
        assert why in message
    (chosen, message), asked = tried({"float32": 0.01, "bfloat16": 0.001})
    assert (chosen, message, asked) == ("float32", "", ["float32"])  # a phase of a second


def test_a_trial_that_diverges_in_bfloat16_leaves_float32() -> None:
    def attempt(name: Any, count: int) -> FormatTrial:
        if name != "float32":
            raise Diverged("the loss of a.png is not a finite number")
        return FormatTrial(1.0, 0.5)

    assert fastest(attempt, 100, grouped=False)[0] == "float32"


def test_trials_leave_no_trace(choice: Callable[..., None]) -> None:
    plain, after = network(), network()
    choice("float32", 2.0)
    lines = Lines()
    torch.manual_seed(7)
    result = trained(after, context=replace(IN_MEMORY, listener=lines))
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    assert lines.of("finetune")[0].startswith("float32: a step in bfloat16 is 1.00 times as fast")
    assert trained(plain, "float32").history[-1].train_loss == result.history[-1].train_loss
    assert same(plain, after)


def test_the_control_weights_that_are_not_given_back_are_found(
    choice: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    choice("float32")
    monkeypatch.setattr(trials, "restored", lambda network: nullcontext())
    plain, after = network(), network()
    trained(plain, "float32")
    trained(after)
    assert not same(plain, after)


def test_norms_that_learn_get_their_statistics_back() -> None:
    net = network()
    net.norms_learn = True
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with restored(net):
        net.train()(torch.randn(4, 6, 8, 8)).sum().backward()
        assert not torch.equal(
            net.state_dict()["tail.1.running_mean"], before["tail.1.running_mean"]
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_head_alone_is_trained_in_float32(choice: Callable[..., None]) -> None:
    choice("bfloat16")
    frozen = Network(depthwise(), nn.Linear(8, 2), ())
    assert trained(frozen).arithmetic == "float32"


@pytest.mark.parametrize("adversarial", [0.0, 4 / 255])
def test_what_validation_decides_is_computed_in_the_format_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, adversarial: float
) -> None:
    """Where another format is the usual one, as on an accelerator."""
    formats = set[str]()

    def watched(format: arithmetic.Arithmetic, device: torch.device) -> Any:
        formats.add(format)
        return computing(format, device)

    monkeypatch.setattr("headstart.training.network.usual_arithmetic", lambda device: "bfloat16")
    monkeypatch.setattr("headstart.training.network.computing", watched)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    labels, target = (["a", "b"], "class") if adversarial else ([["a"], []], "labels")
    settings = FineTune(epochs=1, batch_size=16, wise=True, adversarial=adversarial)
    fit(
        TwoPhaseSpec(finetune=settings, refit=False),
        "tiny:32",
        hs.split(hs.read((pixels, labels * 20), target=target)),
        store=None,
        runtime=Runtime("cpu", compute_precision="float32"),
    )
    assert formats == {"float32"}


# ------------------------------------------------------------ resuming
@pytest.mark.parametrize("chosen", ["bfloat16-dense", "bfloat16"])
@pytest.mark.parametrize("steps", [1, 21])
def test_a_resumed_run_keeps_its_format_to_the_bit(
    tmp_path: Path, choice: Callable[..., None], chosen: str, steps: int
) -> None:
    whole, path = network(), tmp_path / "checkpoint.safetensors"
    choice(chosen)
    unbroken = trained(whole)
    assert unbroken.arithmetic == chosen
    with pytest.raises(KeyboardInterrupt):
        trained(network(), context=kept(path, stop=Stopper(steps)))
    choice("float32")  # what another timing would give
    resumed, other = network(), network()
    assert trained(resumed, context=kept(path)).arithmetic == chosen
    assert same(whole, resumed)
    trained(other, "float32")
    assert not same(whole, other)  # the control: the format matters to the bit


def test_the_choice_is_kept_before_the_first_step(
    tmp_path: Path, choice: Callable[..., None]
) -> None:
    choice("bfloat16")
    path, facts = tmp_path / "checkpoint.safetensors", list[Any]()

    def stop() -> bool:
        facts.append(read_checkpoint(path)[1])
        return True

    with pytest.raises(KeyboardInterrupt):
        trained(network(), context=kept(path, every_s=1e9, stop=stop))
    assert (facts[0]["arithmetic"], facts[0]["step"]) == ("bfloat16", 0)


def test_a_checkpoint_of_an_earlier_release_goes_on_in_float32(
    tmp_path: Path, choice: Callable[..., None]
) -> None:
    whole, resumed, path = network(), network(), tmp_path / "checkpoint.safetensors"
    trained(whole, "float32")
    with pytest.raises(KeyboardInterrupt):
        trained(network(), "float32", context=kept(path, stop=Stopper(5)))
    tensors, facts = read_checkpoint(path)
    assert facts.pop("arithmetic") == "float32"
    write_checkpoint(path, tensors, facts)
    choice("bfloat16")
    trained(resumed, context=kept(path))
    assert same(whole, resumed)


def test_a_precision_that_is_forced_is_of_another_job(tmp_path: Path) -> None:
    """Else a run begun in one would go on in the other; auto's outcome is in the checkpoint."""

    def name(precision: Any) -> str:
        job = Job(runtime=Runtime("cpu", compute_precision=precision))
        return RunState.begin(tmp_path, job, Lines()).context.checkpoints.job

    spec = [to_plain(s) for s in (Job().recipe, Job().finetune, Job().augment)]
    assert name("auto") == fingerprint(spec, "cpu")  # as in earlier releases
    assert len({name("auto"), name("float32"), name("bfloat16")}) == 3


# ------------------------------------------------------------ the machine
def test_a_precision_is_one_of_three() -> None:
    with pytest.raises(SpecError, match="compute_precision is one of auto, float32, bfloat16"):
        Runtime(compute_precision="half")  # type: ignore[arg-type]
    assert Runtime(compute_precision="float32").resolved().compute_precision == "float32"


@pytest.mark.parametrize(
    ("flags", "has"),
    [("fpu avx2", False), ("fpu avx512f avx512_bf16 x", True), ("amx_tile amx_bf16", True)],
)
def test_the_processor_says_whether_it_multiplies_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, has: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : amx_bf16\n")
    monkeypatch.setattr(runtime, "Path", lambda name: file)
    assert runtime.bfloat16_processor.__wrapped__() == has
