"""Make a backbone of a network in memory: a torch.nn.Module, or a converted Keras model."""

import copy
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from headstart.backbones.backbone import Backbone, Block, Card
from headstart.backbones.frozen import Frozen
from headstart.backbones.graph import exported
from headstart.backbones.sources import Listing
from headstart.backbones.tracing import NORMS
from headstart.backbones.weights import Weights, fill
from headstart.base.errors import HeadstartError, SpecError, UnknownName
from headstart.modalities.images.inputs import ImageInput, of_pictures

weight_files = (".safetensors",)
CLASSIFIERS = ("fc", "classifier", "head", "heads")  # names of torchvision's and timm's last layer
TOLERANCE = 1e-5  # share of the largest feature, between two ways to compute the same
CROP = 0.875  # share of the shorter side, as torchvision's 224 of 256
Numbers = float | Sequence[float]


def wrap(
    module: Any,
    *,
    size: int | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    blocks: Sequence[str] | None = None,
    name: str = "",
) -> Backbone:
    """Make a backbone of a torch.nn.Module, (N, 3, size, size) -> (N, D), or of a Keras model.

    size: side of the module's input square, pixels. mean, std: of each channel, or of all, on the
    scale 0..1. A Keras model defines its input size, and takes values 0..255 unless mean and std
    are given or it is one of keras.applications. blocks: names or globs of the modules that form
    one block each; by default found among the children. name: by default the class name. A last
    nn.Linear called fc, classifier, head or heads, or the last Dense of a Keras model, is left out
    for the new head. An output (N, C, h, w) is averaged over h and w. The module is copied.

    Raises SpecError, UnknownName or Mismatch for a module that can't be a backbone.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> wrap(net, size=32, mean=0.5, std=0.5).card.dim
    8
    """
    own, input = _opened(module, size, mean, std)
    name = name or type(module).__name__
    backbone = _assembled(name, own, input, blocks)
    try:
        graph = exported(backbone).graph
    except HeadstartError:
        raise
    except Exception as error:  # the exporter raises many kinds
        raise SpecError(
            f"A backbone is exported to ONNX, which runs it where it is used, but PyTorch can't "
            f"export {name}: {_first_line(error)}"
        ) from error
    # Two modules of the same class and weights may compute different features.
    digest = hashlib.sha256(graph).hexdigest()[:12]
    card = replace(backbone.card, architecture=f"wrapped:{name}@{digest}")
    return replace(backbone, card=card)


def rejoined(frozen: Frozen, module: Any) -> Backbone:
    """Return the PyTorch network of a bundle: `module`, with the weights of the bundle.

    module: the wrapped module, or the Backbone made of it. Raises Mismatch if weights don't fit.
    """
    if isinstance(module, Backbone):
        own, blocks = copy.deepcopy(module.module), module.blocks
    else:
        input = of_pictures(frozen.card.input)
        own, _ = _opened(module, input.size, input.mean, input.std)
        made = _assembled(frozen.card.name, own, input, None)
        own, blocks = made.module, made.blocks
    fill(own, {k: torch.tensor(v) for k, v in frozen.weights.items()}, frozen.card.name)
    return Backbone(frozen.card, own, blocks)


def load(id: str, weights: Weights) -> Backbone:
    """Raise SpecError: a module in memory can't be loaded by name."""
    raise SpecError(
        f"wrapped: is what hs.wrap makes of a module in memory; got wrapped:{id}. Give hs.fit the "
        f"backbone itself."
    )


def build(card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
    """Raise SpecError: the code of a user's module is not saved."""
    raise SpecError(
        f"{card.name} was made of a module by hs.wrap, and its code is not in the bundle: open it "
        f"with hs.load(path, module=…), giving that module."
    )


def listing() -> tuple[Listing, ...]:
    """Return nothing: modules in memory are not listed."""
    return ()


def _opened(
    module: Any, size: int | None, mean: Numbers | None, std: Numbers | None
) -> tuple[nn.Module, ImageInput]:
    """Return a PyTorch copy, float32, on the CPU and in inference mode; and its input."""
    if (keras := sys.modules.get("keras")) and isinstance(module, keras.Model):
        from headstart.modalities.images.keras_models import opened_model

        own, input = opened_model(module, size)
        mean, std = input.mean if mean is None else mean, input.std if std is None else std
        return own, _input(input.size, mean, std, input)
    if not isinstance(module, nn.Module):
        raise SpecError(
            f"hs.wrap takes a torch.nn.Module or a keras.Model; got {type(module).__name__}."
        )
    if size is None or mean is None or std is None:
        raise SpecError(
            "hs.wrap needs the size, mean and std that the module was trained with; those of "
            "torchvision: size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)."
        )
    return _copied(module), _input(size, mean, std, ImageInput())


def _input(size: int, mean: Numbers, std: Numbers, others: ImageInput) -> ImageInput:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise SpecError(f"size is the side of the network's input in pixels; got {size!r}.")
    resize = size if others.fit == "squash" else round(size / CROP)
    return replace(others, size=size, resize=resize, mean=_three(mean), std=_three(std))


def _three(value: Numbers) -> tuple[float, ...]:
    return tuple(float(v) for v in ([value] * 3 if isinstance(value, (int, float)) else value))


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy of the user's module, without in-place layers."""
    if isinstance(module, nn.DataParallel):
        module = module.module
    module = getattr(module, "_orig_mod", module)  # the original of torch.compile
    lazy = [n for n, p in module.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise SpecError(
            f"A module needs all its weights to be wrapped; {lazy[0]} gets its shape from a first "
            f"batch. Call the module once before."
        )
    try:
        own = copy.deepcopy(module)
    except Exception as error:  # e.g. old weight_norm, locks, open files
        raise SpecError(
            f"A module is copied to be wrapped, but {type(module).__name__} can't be: "
            f"{_first_line(error)}"
        ) from error
    for part in own.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # the activations kept at a cut must not change
    return own.cpu().float().eval().requires_grad_(False)


def _assembled(
    name: str, module: nn.Module, input: ImageInput, blocks: Sequence[str] | None
) -> Backbone:
    x, before = _sample(input), {n: t.clone() for n, t in _tensors(module).items()}
    module = _without_classifier(module, x, name)
    if _output(module, x, name).dim() == 4:
        module = _averaged(module)
    features = _output(module, x, name)
    if features.dim() != 2 or len(features) != len(x):
        raise SpecError(
            f"A backbone gives (N, D) features or (N, C, h, w) maps for (N, 3, {input.size}, "
            f"{input.size}) pixels; {name} gives {tuple(features.shape)} for N = {len(x)}."
        )
    _check_unchanged(module, before, name)
    _check_steady(module, x, features, name)
    card = Card(name, f"wrapped:{name}", features.shape[1], input, "given")
    return Backbone(card, module, blocks_of(module, x, name, blocks))


def _sample(input: ImageInput) -> Tensor:
    """Return three normalised pictures of noise: (3, 3, size, size)."""
    noise = torch.rand((3, 3, input.size, input.size), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v)[:, None, None] for v in (input.mean, input.std))
    x = (noise - mean) / std
    return x[:, [2, 1, 0]] if input.bgr else x


@torch.inference_mode()
def _output(module: nn.Module, x: Tensor, name: str) -> Tensor:
    """Return the output for `x`; raises SpecError for an error, no tensor, or a changed `x`."""
    given = x.clone()
    try:
        output = module(given)
    except Exception as error:  # whatever a user's forward may raise
        raise SpecError(
            f"{name} can't be given pixels of the shape {tuple(x.shape)}: {_first_line(error)}"
        ) from error
    if not isinstance(output, Tensor):
        raise SpecError(
            f"A backbone gives one tensor, (N, D) features or (N, C, h, w) maps; {name} gives a "
            f"{type(output).__name__}. Wrap a module whose forward returns that tensor alone."
        )
    if not torch.equal(given, x):
        raise SpecError(
            f"A backbone leaves its input as it is, but the forward of {name} changes it: compute "
            f"a new tensor, as in x = x * 2 in place of x *= 2."
        )
    return output


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _check_unchanged(module: nn.Module, before: Mapping[str, Tensor], name: str) -> None:
    """Raise SpecError if a forward pass changed a parameter or buffer."""
    for own, value in _tensors(module).items():
        if own not in before or not torch.equal(before[own], value):
            raise SpecError(
                f"A backbone gives the same features each time, but {name} changes its {own} when "
                f"it runs, in inference mode too. Leave that out of its forward."
            )


def _check_steady(module: nn.Module, x: Tensor, features: Tensor, name: str) -> None:
    """Raise SpecError if a second pass, or another batch, gives a picture other features."""
    again, alone = _output(module, x, name), _output(module, x[:1], name)
    if not _same(again, features):
        raise SpecError(
            f"A backbone gives the same features each time, but {name} gives others for the same "
            f"pictures, in inference mode too. Is a dropout on, as F.dropout(x) without training=?"
        )
    if not _same(alone, features[:1]):
        raise SpecError(
            f"The features of a picture may not depend on the others of its batch, but those of "
            f"{name} do. Has a norm of it no running statistics?"
        )


def _same(features: Tensor, reference: Tensor) -> bool:
    if features.shape != reference.shape:
        return False
    allowed = 10 * TOLERANCE * max(1.0, float(reference.abs().max()))
    return bool((features - reference).abs().max() <= allowed)


def _without_classifier(module: nn.Module, x: Tensor, name: str) -> nn.Module:
    """Replace the last linear layer by nn.Identity, if it has one of the names CLASSIFIERS."""
    for path in CLASSIFIERS:
        layer = _last_linear(module, path)
        if layer and _ends_in(module, module.get_submodule(layer), x, name):
            parent, _, child = layer.rpartition(".")
            setattr(module.get_submodule(parent), child, nn.Identity())
            return module
    return module


def _last_linear(module: nn.Module, path: str) -> str:
    """Return the dotted name of the linear layer that the child `path` is or ends in, or ""."""
    part = getattr(module, path, None)
    if isinstance(part, nn.Sequential) and len(part):
        last = list(part.named_children())[-1]
        path, part = f"{path}.{last[0]}", last[1]
    return path if isinstance(part, nn.Linear) else ""


def _ends_in(module: nn.Module, layer: nn.Module, x: Tensor, name: str) -> bool:
    """Return whether the layer's output is the module's output."""
    given: list[Tensor] = []
    with layer.register_forward_hook(lambda _, inputs, output: given.append(output)):
        output = _output(module, x, name)
    return len(given) == 1 and torch.equal(given[0], output)


def _averaged(module: nn.Module) -> nn.Module:
    """Average the module's output over height and width; its parts keep their names."""
    if isinstance(module, fx.GraphModule):
        return nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    kind = type(module)

    def forward(self: Any, x: Tensor) -> Tensor:
        return cast(Tensor, kind.forward(self, x)).mean(dim=(2, 3))

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return module


def blocks_of(
    module: nn.Module, x: Tensor, name: str, wanted: Sequence[str] | None = None
) -> tuple[Block, ...]:
    """Return the parts that are thawed together, in execution order.

    wanted: names or globs of parts. A parameter in no part joins the part before it, or "stem".
    Raises UnknownName for a pattern that matches no part, SpecError for a part without weights.
    """
    parts = _named_parts(module, name, wanted) if wanted else list(_found(module))
    place, groups = _places(module, x, name), dict[str, list[str]]()
    owner = {
        n: max((p for p in parts if n.startswith(f"{p}.")), key=len, default="") for n in place
    }
    latest = "stem"
    for parameter in sorted(place, key=lambda n: (place[n], owner[n] != "")):
        latest = owner[parameter] or latest
        groups.setdefault(latest, []).append(parameter)
    for part in parts if wanted else ():
        if part not in groups:
            raise SpecError(f"A block holds weights; {part!r} of {name} has none of its own.")
    return tuple(Block(block, tuple(names)) for block, names in groups.items())


def _places(module: nn.Module, x: Tensor, name: str) -> dict[str, int]:
    """Return when the layer of each parameter, or a module that holds it, runs first; else -1."""
    ran: list[str] = []

    def note(layer: str) -> Any:
        return lambda part, inputs: ran.append(layer)

    with ExitStack() as hooks:
        for layer, part in module.named_modules():
            if layer:
                hooks.enter_context(part.register_forward_pre_hook(note(layer)))
        _output(module, x[:1], name)
    first = {layer: i for i, layer in reversed(list(enumerate(ran)))}
    places = {}
    for parameter, _ in module.named_parameters():
        layer = parameter
        while layer and layer not in first:
            layer = layer.rpartition(".")[0]
        places[parameter] = first.get(layer, -1)
    return places


def _found(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Yield the names of children with weights; norms are left out, to join the layer before.

    Descends into sequences, and into children that hold a stack of blocks or most of the weights.
    """
    total, plain = sum(p.numel() for p in module.parameters()), _is_plain(module)
    for name, child in module.named_children():
        held = sum(p.numel() for p in child.parameters())
        if not held or isinstance(child, NORMS):
            continue
        inner = _is_plain(child) or (not plain and (2 * held > total or _holds_a_stack(child)))
        if inner and any(True for _ in child.children()):
            yield from _found(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _is_plain(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _holds_a_stack(module: nn.Module) -> bool:
    """Return whether a child is a sequence of several modules that have children."""
    sequences = [child for child in module.children() if _is_plain(child)]
    return any(sum(1 for m in s.children() if any(m.children())) > 1 for s in sequences)


def _named_parts(module: nn.Module, name: str, wanted: Sequence[str]) -> list[str]:
    known = [n for n, m in module.named_modules() if n]
    parts: list[str] = []
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        same_depth = [n for n in known if n.count(".") == pattern.count(".")]
        matched = [n for n in same_depth if fnmatchcase(n, pattern)]
        if not matched:
            raise UnknownName(f"block of {name}", pattern, list(_found(module)))
        parts += matched
    return parts


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
