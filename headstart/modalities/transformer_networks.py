"""Models of the library transformers as backbones, with pooling, cut before any of their layers.

A model is cut by copies of its containers, which share all layers: the list of layers is divided,
and in the upper part the embeddings pass the given hidden states on. The model's own code builds
attention masks and rotary embeddings in both parts.
"""

import copy
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.backbone import Block
from headstart.backbones.cutting import Cut, sequence_cut, weight_names
from headstart.modalities.text.networks import mean_of_tokens

Pool = Literal["mean", "cls", "pooler", "last"]
# Where models keep their layers in order of execution, and the norm after the last of them.
LISTS = (
    *("encoder.layer", "transformer.layer", "encoder.layers", "encoder.stages"),
    *("layers", "layer", "h"),
)
LAST_NORMS = ("final_norm", "ln_f", "layernorm", "norm")
EMBEDDINGS = ("embeddings", "wte", "wpe", "drop", "embed_tokens")
SAME = 1e-4  # by which a model in two parts may differ from the whole one
FIRST = "embeddings"


class Transformer(nn.Module):
    """A model of transformers and its pooling; subclasses say what a model is given."""

    def __init__(self, model: nn.Module, pooling: nn.Module) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling
        self.listed = next((path for path in LISTS if _is_list(model, path)), "")

    @property
    def layers(self) -> int:
        return len(_list_at(self.model, self.listed)) if self.listed else 0

    def blocks(self) -> tuple[Block, ...]:
        """Return the embeddings and each layer; what follows the last layer belongs to it."""
        owners = self._owners()
        return tuple(
            Block(block, tuple(name for name, owner in owners.items() if owner == block))
            for block in sorted(set(owners.values()), key=_depth)
        )

    def _owners(self) -> dict[str, str]:
        """Return the block of each parameter, by name: the embeddings precede the layers."""
        owners, block, prefix = dict[str, str](), FIRST, f"model.{self.listed}."
        for name, _ in self.named_parameters():
            if self.listed and name.startswith(prefix):
                block = f"layer.{name.removeprefix(prefix).partition('.')[0]}"
            owners[name] = block
        return owners

    def cut_before(self, thawed: Collection[str]) -> Cut | None:
        """Cut before the first layer with a parameter in `thawed`.

        Returns None, so that the whole network is trained, if the embeddings learn or the model
        can't be divided.
        """
        owners = self._owners()
        learning = {owners[name] for name in thawed}
        if FIRST in learning or not self.listed:
            return None
        depth = min(map(_depth, learning), default=self.layers)
        if not any(name.startswith(f"model.{self.listed}.") for name in thawed):
            depth = self.layers  # only what follows the layers learns
        try:
            cut = self.divided(depth)
            return cut if self._is_same(cut, thawed) else None
        except Exception:  # a model that is built in another way fails in its own way
            return None

    def divided(self, depth: int) -> Cut:
        """Return the model in two parts, the lower one with `depth` layers."""
        raise NotImplementedError

    def example(self) -> tuple[Tensor, ...]:
        """Return arguments of `forward` on which the parts are compared with the whole."""
        raise NotImplementedError

    def lower(self, depth: int) -> nn.Module:
        """Return the model up to its layer `depth`, without what follows the layers."""
        changes: dict[str, nn.Module | None] = {
            self.listed: _list_at(self.model, self.listed)[:depth],
            "pooler": None,
            **{name: nn.Identity() for name in LAST_NORMS},
        }
        return _with(self.model, changes)

    def upper(self, depth: int) -> nn.Module:
        """Return the model from its layer `depth` on, which is given hidden states."""
        layers = _list_at(self.model, self.listed)
        grid: tuple[int, ...] = getattr(getattr(self.model, FIRST, None), "patch_grid", ())
        for _ in range(depth):  # each stage of Swin halves it
            grid = tuple((side + 1) // 2 for side in grid)
        passing: dict[str, nn.Module | None] = {name: _Passed(grid) for name in EMBEDDINGS}
        return _with(self.model, {**passing, "wpe": _NoPositions(), self.listed: layers[depth:]})

    @torch.inference_mode()
    def _is_same(self, cut: Cut, thawed: Collection[str]) -> bool:
        """Return whether the parts compute what the whole does and only the upper one learns."""
        frozen = set(map(id, cut.trunk.parameters()))
        if any(name in thawed and id(p) in frozen for name, p in self.named_parameters()):
            return False
        given = self.example()
        parts, whole = cut.both(*given)[0], self(*given)
        return bool((parts - whole).abs().max() <= SAME * max(1.0, float(whole.abs().max())))


class TextTransformer(Transformer):
    """forward(ids, mask) -> features (P, D); both arguments (P, L) int64."""

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return self.pooling(self.model(input_ids=ids, attention_mask=mask), mask)

    def divided(self, depth: int) -> Cut:
        config: Any = self.model.config
        lower, upper = _LowerText(self.lower(depth)), _UpperText(self.upper(depth), self.pooling)
        return sequence_cut(f"layer.{depth}", lower, upper, config.hidden_size)

    def example(self) -> tuple[Tensor, ...]:
        ids = torch.arange(2, 14).reshape(2, 6)
        mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
        device = next(self.parameters()).device
        return ids.to(device), mask.to(device)


class ImageTransformer(Transformer):
    """forward(pixels (N, 3, S, S)) -> features (N, D). size: S."""

    def __init__(self, model: nn.Module, pooling: nn.Module, size: int) -> None:
        super().__init__(model, pooling)
        self.size = size

    def forward(self, pixels: Tensor) -> Any:
        return self.pooling(self.model(pixels))

    def divided(self, depth: int) -> Cut:
        lower, upper = _LowerImage(self.lower(depth)), _UpperImage(self.upper(depth), self.pooling)
        with torch.inference_mode():
            shape = tuple(lower(*self.example()).shape[1:])
        return Cut(f"layer.{depth}", lower, upper, _TwoParts(lower, upper, self), shape)

    def example(self) -> tuple[Tensor, ...]:
        ramp = torch.arange(2 * 3 * self.size**2).reshape(2, 3, self.size, self.size)
        return ((ramp * 0.37).sin().to(next(self.parameters()).device),)


class TextPooling(nn.Module):
    """A model's output and the mask -> features. unit: divide them by their length.

    pool: "mean" of the tokens, the first ("cls") or the "last", or the model's own "pooler".
    """

    def __init__(self, pool: Pool, unit: bool = False) -> None:
        super().__init__()
        self.pool, self.unit = pool, unit

    def forward(self, output: Any, mask: Tensor) -> Tensor:
        x = self.pooled(output, mask)
        return F.normalize(x, dim=1) if self.unit else x

    def pooled(self, output: Any, mask: Tensor) -> Tensor:
        hidden: Tensor = output.last_hidden_state
        if self.pool == "pooler":
            x: Tensor = output.pooler_output
            return x
        if self.pool == "cls":
            return hidden[:, 0]
        if self.pool == "last":
            last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[2])
            return hidden.gather(1, last)[:, 0]
        return mean_of_tokens(hidden, mask)


class ImagePooling(nn.Module):
    """A model's output -> features. special: the number of tokens before those of patches."""

    def __init__(self, pool: Pool, special: int) -> None:
        super().__init__()
        self.pool, self.special = pool, special

    def forward(self, output: Any) -> Tensor:
        hidden: Tensor = output.last_hidden_state
        if self.pool == "pooler":
            pooled: Tensor = output.pooler_output
            return pooled.flatten(1)
        if hidden.dim() == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self.pool == "cls" else hidden[:, self.special :].mean(1)


class _Lower(nn.Module):
    """What a model is given -> hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class _LowerText(_Lower):
    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask


class _LowerImage(_Lower):
    def forward(self, pixels: Tensor) -> Any:
        return self.model(pixels).last_hidden_state


class _Upper(nn.Module):
    """Hidden states -> features."""

    def __init__(self, model: nn.Module, pooling: nn.Module) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling


class _UpperText(_Upper):
    def forward(self, hidden: Tensor, mask: Tensor) -> Any:
        return self.pooling(self.model(inputs_embeds=hidden, attention_mask=mask), mask)


class _UpperImage(_Upper):
    def forward(self, hidden: Tensor) -> Any:
        return self.pooling(self.model(hidden))


class _TwoParts(nn.Module):
    """Pixels -> features, and the activations at the cut. weight_names: see `weight_names`."""

    def __init__(self, trunk: nn.Module, tail: nn.Module, whole: nn.Module) -> None:
        super().__init__()
        self.trunk, self.tail = trunk, tail
        self.weight_names = weight_names(self, whole)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(pixels)
        return self.tail(hidden), hidden


class _Passed(nn.Module):
    """In place of embeddings: the hidden states as given, with Swin's grid of patches if any."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = grid
        # models ask for the type of this weight
        weight = torch.zeros(0)
        self.patch_embeddings = SimpleNamespace(projection=SimpleNamespace(weight=weight))

    def forward(self, *given: Any, **named: Any) -> Any:
        hidden = next(v for v in (*given, *named.values()) if isinstance(v, Tensor))
        return (hidden, self.grid) if self.grid else hidden


class _NoPositions(nn.Module):
    """In place of position embeddings that are added to the hidden states: zeros."""

    def forward(self, positions: Tensor) -> Tensor:
        return torch.zeros(1, 1, 1, device=positions.device)


def _with(module: nn.Module, changes: Mapping[str, nn.Module | None]) -> nn.Module:
    """Return a copy of a module that shares its children, those of `changes` replaced.

    changes: by their paths; those that the module lacks are ignored.
    """
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    for path, new in changes.items():
        name, _, rest = path.partition(".")
        child = module._modules.get(name)
        if child is not None:
            twin._modules[name] = _with(child, {rest: new}) if rest else new
    return twin


def _list_at(model: nn.Module, path: str) -> nn.ModuleList:
    found = model.get_submodule(path)
    assert isinstance(found, nn.ModuleList)
    return found


def _is_list(model: nn.Module, path: str) -> bool:
    try:
        return isinstance(model.get_submodule(path), nn.ModuleList)
    except AttributeError:
        return False


def _depth(block: str) -> int:
    """Return the number of layers before a block; -1 for the embeddings."""
    return -1 if block == FIRST else int(block.removeprefix("layer."))
