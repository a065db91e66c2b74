"""Examples of several parts and of any length: integer sequences read in windows, and a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones.cutting import Cut, sequence_cut
from headstart.base.errors import DataError
from headstart.base.values import as_key
from headstart.data.dataset import Dataset
from headstart.extend import INPUTS, SOURCES, Backbone, Batch, Block, Card, Input, Listing, Weights
from headstart.modalities.reading import read

WINDOW, WIDTH, WORDS, DIM = 12, 16, 50, 10
Array = NDArray[Any]


class Embed(nn.Module):
    """The first layer passes the numbers and the mask on."""

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return ids, mask


@dataclass(frozen=True)
class Sequences(Input[list[int]]):
    """Rows of numbers from 1 to 49, such as "3 1 4"; longer ones are read in windows of 12.

    shift: an asset, the byte that is added to every number.
    """

    kind: ClassVar[str] = "sequences"
    noun: ClassVar[str] = "sequences"
    column: ClassVar[str] = "sequence"
    window: int = WINDOW
    shift: bytes = field(default=b"\0", repr=False, metadata=as_key("", written=False))

    def fetch(self, where: str) -> bytes:
        return where.encode()

    def encode(self, example: Any) -> bytes:
        return str(example).encode()

    def read(self, data: bytes) -> list[int]:
        try:
            numbers = [int(word) for word in data.decode().split()]
        except ValueError as error:
            raise DataError("it is no row of numbers") from error
        if not numbers:
            raise DataError("it is empty")
        return numbers

    def prepare(self, raw: list[int]) -> Batch:
        rows = [raw[i : i + self.window] for i in range(0, len(raw), self.window)]
        longest = max(map(len, rows))
        ids, mask = np.zeros((2, len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = (np.array(row) + self.shift[0]) % WORDS
            mask[i, : len(row)] = 1
        return {"ids": ids, "mask": mask}

    def part_weights(self, batch: Batch) -> NDArray[np.float64]:
        return batch["mask"].sum(axis=1).astype(np.float64)

    def dynamic_axes(self) -> Mapping[str, Mapping[int, str]]:
        return {"ids": {1: "tokens"}, "mask": {1: "tokens"}}

    def assets(self) -> Mapping[str, bytes]:
        return {"shift.bin": self.shift}

    def with_assets(self, assets: Mapping[str, bytes]) -> Self:
        return replace(self, shift=assets["shift.bin"])

    def fingerprint(self) -> str:
        return f"sequences-{self.window}-{self.shift[0]}"

    def first_layer(self) -> nn.Module:
        return Embed()

    def blank(self, n: int) -> Batch:
        return {"ids": np.ones((n, 5), np.int64), "mask": np.ones((n, 5), np.int64)}

    def golden(self) -> Batch:
        return self.prepare(list(range(1, 30)))


class Layer(nn.Module):
    """A residual block whose every position also reads the mean of its sequence."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(dropout)
        self.own, self.others = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(hidden)
        made = torch.tanh(self.own(x) + self.others(masked_mean(x, mask))[:, None])
        return hidden + self.dropout(made)


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    held = mask.to(hidden.dtype)[..., None]
    return (hidden * held).sum(1) / held.sum(1)


class Net(nn.Module):
    """An embedding, three blocks and the mean of the positions that the mask holds."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Layer(dropout) for _ in range(3))
        self.last = nn.Linear(WIDTH, DIM)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.embedding(ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return torch.tanh(self.last(masked_mean(hidden, mask)))

    def cut_before(self, thawed: tuple[str, ...]) -> Cut | None:
        """Cut before the lowest thawed block; None if the embedding learns."""
        if any(name.startswith("embedding.") for name in thawed):
            return None
        depth = min((int(n.split(".")[1]) for n in thawed if n.startswith("layers.")), default=3)
        return sequence_cut(f"layers.{depth}", Lower(self, depth), Upper(self, depth), WIDTH)


class Lower(nn.Module):
    def __init__(self, net: Net, layers: int) -> None:
        super().__init__()
        self.embedding, self.layers = net.embedding, net.layers[:layers]

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.embedding(ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden, mask


class Upper(nn.Module):
    def __init__(self, net: Net, layers: int) -> None:
        super().__init__()
        self.upper, self.last = net.layers[layers:], net.last

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        for layer in self.upper:
            hidden = layer(hidden, mask)
        return torch.tanh(self.last(masked_mean(hidden, mask)))


@dataclass(frozen=True)
class Nets:
    """The source of random networks: `sequences:SEED`, or `sequences:SEED-dropout`."""

    weight_files: tuple[str, ...] = (".safetensors",)

    def load(self, id: str, weights: Weights) -> Backbone:
        name = f"sequences:{id}"
        card = Card(name, name, DIM, Sequences(shift=b"\3"), "random")
        return Backbone(card, *self.build(card))

    def build(self, card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
        seed, _, dropout = card.id.partition("-")
        torch.manual_seed(int(seed))
        net = Net(0.1 if dropout else 0.0)
        for layer in net.modules():
            if isinstance(layer, nn.LayerNorm):  # equal weights would be exported once
                nn.init.normal_(layer.weight, 1.0, 0.1)
                nn.init.normal_(layer.bias, 0.0, 0.1)
        blocks = ("embedding", "layers.0", "layers.1", "layers.2", "last")
        names = [name for name, _ in net.named_parameters()]
        of = {b: tuple(n for n in names if n.startswith(f"{b}.")) for b in blocks}
        return net.eval().requires_grad_(False), tuple(Block(b, of[b]) for b in blocks)

    def listing(self) -> tuple[Listing, ...]:
        return ()


def register() -> None:
    """Add the input and the source; a second call changes nothing."""
    if "sequences" not in INPUTS.names():
        INPUTS.register("sequences", Sequences)
        SOURCES.register("sequences", Nets())


def labelled(lengths: Sequence[int]) -> Dataset:
    """Random sequences of these lengths: in those of class a low numbers are many, in b high."""
    rows = []
    for i, n in enumerate(lengths):
        numbers = np.random.default_rng([n, i]).integers(1, 35, n) + 15 * (i % 2)
        rows.append((" ".join(map(str, numbers)), "ab"[i % 2]))
    return read(rows, input=Sequences())
