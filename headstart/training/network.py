"""The network that is trained: the thawed tail of a backbone and a head."""

import copy
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.tracing import NORMS
from headstart.base.errors import SpecError
from headstart.base.runtime import seeded
from headstart.heads.head import Head, TunableHead
from headstart.heads.mlp import DenseHead, MlpHead
from headstart.heads.module import ModuleHead, ModuleSpec
from headstart.heads.specs import TrainedSpec
from headstart.targets.target import Target
from headstart.training.arithmetic import Arithmetic, computing, usual_arithmetic
from headstart.training.history import Count, ParameterCount
from headstart.training.parts import Parts, TrainingBatch


class Network(nn.Module):
    """tail: a feed's batch -> (N, D); head: (N, D) -> (N, C) logits, or (N, 1).

    thawed: names of the tail's trainable parameters; the head is always trained. norms_learn:
    thawed normalisation layers use batch statistics and update their running statistics.
    """

    def __init__(
        self, tail: nn.Module, head: nn.Module, thawed: Iterable[str], norms_learn: bool = False
    ) -> None:
        super().__init__()
        self.tail, self.head = tail, head
        self.thawed = frozenset(thawed)
        self.norms_learn = norms_learn
        tail.requires_grad_(False)
        for name, parameter in tail.named_parameters():
            parameter.requires_grad_(name in self.thawed)

    def forward(self, x: TrainingBatch) -> Tensor:
        features = self.features(x)
        if features.device.type != "cpu":
            logits: Tensor = self.head(features)
            return logits
        with torch.autocast("cpu", enabled=False):  # outputs are not rounded to bfloat16
            logits = self.head(features.float() if features.dtype == torch.bfloat16 else features)
        return logits

    def features(self, x: TrainingBatch) -> Tensor:
        """Return the features (N, D) of a batch, of examples in parts their parts' means."""
        if not isinstance(x, Parts):
            features: Tensor = self.tail(x)
            return features
        if torch.is_grad_enabled():
            return x.pooled(self.tail(*x.arrays))
        return x.pooled(torch.cat([self.tail(*arrays) for arrays in x.split()]))

    def train(self, mode: bool = True) -> "Network":
        """Set training mode where something learns; frozen layers and norms stay in inference mode.

        A frozen batch norm in training mode would drift with every batch.
        """
        super().train(False)
        self.training = mode
        self.head.train(mode)
        for name, module in self.tail.named_modules():
            own = {f"{name}.{p}" if name else p for p, _ in module.named_parameters(recurse=False)}
            norm = isinstance(module, NORMS)
            learns = bool(own & self.thawed) and (self.norms_learn or not norm)
            plain = not own and not norm and not any(module.children())  # such as dropout
            module.training = mode and (learns or plain)
        return self

    def learned(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name: the tensors themselves, not copies."""
        tensors: dict[str, Tensor] = {n: p for n, p in self.named_parameters() if p.requires_grad}
        if self.norms_learn:
            for name, module in self.named_modules():
                if isinstance(module, NORMS) and any(p.requires_grad for p in module.parameters()):
                    tensors |= {f"{name}.{b}": t for b, t in module.named_buffers(recurse=False)}
        return {name: tensor.data for name, tensor in tensors.items()}

    def load(self, learned: dict[str, Tensor]) -> None:
        """Restore tensors from `learned`."""
        own = self.learned()
        for name, tensor in learned.items():
            own[name].copy_(tensor)


def snapshot(learned: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learned.items()}


def count(backbone: nn.Module, network: Network) -> Count:
    """Count what the network trains and leaves frozen of the whole backbone and its own head."""
    learning = [p for p in network.parameters() if p.requires_grad]
    trainable = ParameterCount(sum(p.numel() for p in learning), len(learning))
    every = parameters_of(backbone, network.head)
    frozen = every.parameters - trainable.parameters, every.tensors - trainable.tensors
    return Count(ParameterCount(*frozen), trainable)


def parameters_of(*modules: nn.Module) -> ParameterCount:
    """Count the values and tensors of the modules' state: as in Keras, with running statistics."""
    states = [m.state_dict().items() for m in modules]
    tensors = [t for state in states for name, t in state if not name.endswith("_tracked")]
    return ParameterCount(sum(tensor.numel() for tensor in tensors), len(tensors))


def new_head(spec: TrainedSpec, features: int, classes: int, seed: int) -> nn.Module:
    """Return a user's own module, or dense layers, dropout first.

    Dense layers start as in Keras: Glorot uniform weights, zero biases.

    Raises SpecError if one logit is requested for other than two classes, or if the layers don't
    fit this machine's memory.
    """
    if isinstance(spec, ModuleSpec):
        return spec.start(features, classes)
    width = spec.width(classes)
    spec.check_room(features, classes)
    widths = [features, *spec.layers, width]
    generator = seeded(seed)
    layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return _stacked(layers, spec.dropout)


def tied(module: nn.Module, target: Target) -> nn.Module:
    """Let the target tie what must stay equal in the last dense layer of a head; return it."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if layers:
        target.tie(layers[-1])
    return module


def head_module(head: Head, dropout: float = 0.0) -> nn.Module:
    """Return a fitted head as a trainable module; raises SpecError for other kinds of heads."""
    if isinstance(head, TunableHead):
        return nn.Sequential(nn.Dropout(dropout), head.as_module()) if dropout else head.as_module()
    if not isinstance(head, DenseHead):
        raise SpecError(
            f"Fine-tuning goes on from a head of linear layers; a {head.kind!r} head has none. "
            f"Fit the head with --head logistic."
        )
    layers = []
    for weight, bias in zip(head.weights, head.biases, strict=True):
        layer = nn.Linear(*weight.shape)
        layer.load_state_dict({"weight": torch.tensor(weight.T), "bias": torch.tensor(bias)})
        layers.append(layer)
    return _stacked(layers, dropout)


def trained_head(module: nn.Module, spec: TrainedSpec, features: int) -> Head:
    """Return a trained module of `new_head` as a head."""
    if isinstance(spec, ModuleSpec):
        return ModuleHead.of(module, features)
    return dense_head(module)


def head_of(module: nn.Module, before: Head | nn.Module | None = None) -> Head:
    """Return a trained module as a head; `before`: the head that the module was made from."""
    if not isinstance(before, TunableHead):
        return dense_head(module)
    if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Dropout):
        module = module[1]
    return before.from_module(copy.deepcopy(module).cpu())


def dense_head(module: nn.Module) -> MlpHead:
    """Return the current layers of a head module as a NumPy head."""
    layers = [layer for layer in copy.deepcopy(module).modules() if isinstance(layer, nn.Linear)]
    weights = tuple(np.ascontiguousarray(m.weight.detach().cpu().float().numpy().T) for m in layers)
    return MlpHead(weights, tuple(m.bias.detach().cpu().float().numpy().copy() for m in layers))


def _stacked(layers: Sequence[nn.Linear], dropout: float) -> nn.Sequential:
    stack = nn.Sequential(nn.Dropout(dropout)) if dropout else nn.Sequential()
    for n, layer in enumerate(layers):
        if n:
            stack.append(nn.ReLU())
        stack.append(layer)
    return stack


def compiled(network: Network) -> Callable[[TrainingBatch], Tensor]:
    """Return the network under torch.compile; the first call raises SpecError if that fails."""
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    forward = torch.compile(network, options={"fallback_random": True})  # dropout as uncompiled

    def run(x: TrainingBatch) -> Tensor:
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


def laid_out(x: TrainingBatch) -> TrainingBatch:
    """Return activations (N, C, H, W) in channels-last memory; pixels already have that layout."""
    if isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point():
        return x.contiguous(memory_format=torch.channels_last)
    return x


def logits_of(
    forward: Callable[[TrainingBatch], Tensor],
    x: TrainingBatch,
    device: torch.device,
    arithmetic: Arithmetic | None = None,
) -> Tensor:
    """Return float32 logits, computed in a number format; None is the device's usual one."""
    x = x.to(device)
    with computing(arithmetic or usual_arithmetic(device), device):
        return forward(x).float()
