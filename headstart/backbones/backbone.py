"""A backbone: a pretrained network, its card and its blocks in depth order."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, input_from_plain, input_to_plain
from headstart.base.errors import Mismatch, SpecError
from headstart.base.values import from_plain, to_plain

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
ASSET = "input."  # prefix of an input's files among the tensors of a bundle
MOST_FEATURES = 2**22
Origin = Literal["pretrained", "fine-tuned", "random", "given"]


@dataclass(frozen=True)
class Card:
    """The description of a backbone, readable without its weights.

    architecture: source and id of the code that builds the module, as "timm:tf_efficientnet_lite0".
    dim: length of the feature vector. input: how examples are prepared. origin: of the weights;
    "given" means a file or module of the user. source_classes: class names of the source task, in
    the order of the source head's outputs; empty without one. config: what the source needs besides
    the id to build the module, as JSON; "" for most.
    """

    name: str
    architecture: str
    dim: int
    input: Input[Any]
    origin: Origin
    licence: str = "unknown"
    source_task: str = ""
    source_classes: tuple[str, ...] = ()
    config: str = ""

    def __post_init__(self) -> None:
        if type(self.dim) is not int or not 0 < self.dim <= MOST_FEATURES:
            raise SpecError(
                f"dim is a number of features from 1 to {MOST_FEATURES:,}; got {self.dim!r:.40}."
            )
        if self.origin not in get_args(Origin):
            raise SpecError(f"origin is {', '.join(get_args(Origin))}; got {self.origin!r}.")

    @property
    def id(self) -> str:
        """The id of the architecture within its source: the part after the colon."""
        return self.architecture.partition(":")[2]


def card_to_plain(card: Card) -> dict[str, Any]:
    """Return a card as a dict of JSON values."""
    return {
        name: input_to_plain(card.input) if name == "input" else value
        for name, value in to_plain(card).items()
        if name != "config" or value
    }


def card_from_plain(plain: Any) -> Card:
    """Rebuild a card from `card_to_plain` or an earlier release; raises SpecError or UnknownName
    if `plain` is not a card."""
    settings = newer_card(plain)
    given = input_from_plain(settings.pop("input", None))
    return replace(from_plain({**settings, "input": None}, Card), input=given)


def newer_card(plain: Any) -> dict[str, Any]:
    """Return a card of an earlier release as this one writes it; SpecError if it is no card."""
    if not isinstance(plain, dict) or plain.get("kind") != Card.__name__:
        raise SpecError(f"A card is a JSON object of kind Card; got {plain!r:.80}.")
    settings = {**plain}
    if isinstance(settings.get("weights"), str):  # prose, in format 2 bundles before 0.2
        settings["origin"] = _origin(settings.pop("weights"))
    if isinstance(old := settings.pop("preprocess", None), dict):  # its name in the first releases
        settings["input"] = {**old, "kind": "image"}
    return settings


def weights_asked(words: str) -> str:
    """Return the `weights` choice that a card of an earlier version describes in prose."""
    if words == "made on the spot":  # of a backbone without pretrained weights
        return "pretrained"
    origin = _origin(words)
    return origin if origin in ("pretrained", "random") else words


def _origin(words: str) -> Origin:
    return next(origin for sign, origin in _SIGNS if re.search(sign, words))


_SIGNS: tuple[tuple[str, Origin], ...] = (
    ("fine-tuned$", "fine-tuned"),
    (r"^(random|made on the spot)\b", "random"),
    (r"on the Hugging Face Hub$|^the package |of keras\.applications", "pretrained"),
    ("", "given"),  # the path of a file
)


def under(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the tensors whose names begin with `prefix`, with the prefix removed."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def asset_tensors(input: Input[Any]) -> dict[str, NDArray[np.uint8]]:
    """Return the files that an input needs as tensors of bytes, named input.FILE."""
    return {f"{ASSET}{k}": np.frombuffer(v, np.uint8) for k, v in input.assets().items()}


def with_assets(card: Card, tensors: Mapping[str, Any]) -> Card:
    """Return a card whose input has its files from `asset_tensors`, as arrays or as tensors."""
    assets = {k: np.asarray(v, np.uint8).tobytes() for k, v in under(ASSET, tensors).items()}
    return replace(card, input=card.input.with_assets(assets))


@dataclass(frozen=True)
class Block:
    """Layers that are thawed together; `parameters`: their names in the module's state dict."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SourceHead:
    """The linear classification layer that the backbone was pretrained with."""

    weight: NDArray[np.float32]  # (D, C)
    bias: NDArray[np.float32]  # (C,)

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float64]:  # (N, D) -> (N, C)
        """Return the softmax over the source classes."""
        logits = x.astype(np.float64) @ self.weight + self.bias
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)


def head_of_source(card: Card, head: SourceHead | None) -> SourceHead:
    """Return the head of a network's source task; raises SpecError if it came without one."""
    if head is None or not card.source_classes:
        raise SpecError(
            f"{card.name} has no source classes: it came without the layer it was trained with. "
            f"Name another --backbone; packaged:efficientnet_lite0 has ImageNet's."
        )
    return head


@dataclass(frozen=True, eq=False, repr=False)
class Backbone:
    """A PyTorch module, from the output of its input's first layer to (N, D), and its card.

    blocks: from input to output; every parameter is in one. exports: graphs that `graph.exported`
    made of this architecture, shared with copies that have other weights.

    >>> from headstart.modalities.sources import load_backbone
    >>> [block.name for block in load_backbone("tiny:32").blocks]
    ['stem', 'body']
    """

    card: Card
    module: "nn.Module"
    blocks: tuple[Block, ...]
    source_head: SourceHead | None = None
    exports: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Backbone({self.card.name}, {self.card.input.describe()}, {self.card.dim} features)"

    @property
    def parts(self) -> "tuple[nn.Module, tuple[Block, ...]]":
        """The module and its blocks, as `sources.build` returns them."""
        return self.module, self.blocks

    def changed(self, **settings: Any) -> "Backbone":
        """Return the backbone with changed input settings (see `Input.changed`)."""
        return replace(self, card=replace(self.card, input=self.card.input.changed(**settings)))

    def source(self) -> SourceHead:
        """Return the source head; raises SpecError if the backbone has none."""
        return head_of_source(self.card, self.source_head)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return every parameter and buffer by name; raises Mismatch for dtypes NumPy lacks."""
        state = self.module.state_dict()
        try:
            return {name: tensor.cpu().numpy() for name, tensor in state.items()}
        except TypeError as error:
            raise Mismatch(
                f"Weights are kept in a type that NumPy has; {self.card.name}: {error}. "
                f"Convert the module first, with module.float()."
            ) from error

    def fingerprint(self) -> str:
        """Return the fingerprint of architecture and weights; not cached, weights can change."""
        import torch

        def entries() -> Iterable[tuple[str, str, tuple[int, ...], bytes]]:
            for name, tensor in self.module.state_dict().items():
                raw = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                yield name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw.data

        return weights_fingerprint(self.card, entries())


def weights_fingerprint(
    card: Card, entries: Iterable[tuple[str, str, tuple[int, ...], "bytes | memoryview"]]
) -> str:
    """Return 16 hex digits for an architecture, the constants of its first layer and its weights.

    entries: name, dtype, shape and raw bytes of each tensor, in any order.
    """
    h = hashlib.blake2b(digest_size=8)
    config = (card.config,) if card.config else ()  # only if set: older fingerprints stay valid
    h.update(repr((card.architecture, *config, *card.input.constants())).encode())
    for name, dtype, shape, raw in sorted(entries, key=lambda e: e[0]):
        h.update(repr((name, dtype, tuple(shape))).encode())
        h.update(raw)
    return h.hexdigest()
