"""Networks for texts: forward(ids, mask) -> features, both arguments (P, L) int64.

P counts windows of texts, L the tokens of the longest; the mask is 0 where a window was filled up.
Each network divides itself at the input of any of its blocks (`Encoder.cut_before`).
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.backbone import Block
from headstart.backbones.cutting import Cut, sequence_cut
from headstart.modalities.text.tokens import HASHED


class AsGiven(nn.Module):
    """The first layer of texts: ids and mask as they are."""

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return ids, mask


class Encoder(nn.Module):
    """Blocks that pass hidden states (P, L, H), and pooling to features (P, D).

    Subclasses give `start` (ids, mask -> hidden states), `step` (one block on hidden states) and
    `pool` (hidden states -> features). hidden: H. first: the block of the parameters in `start`, ""
    without any.
    """

    hidden: int
    first: str = ""

    def start(self, ids: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def steps(self) -> Sequence[str]:
        """Return the names of the blocks after `start`, in order."""
        raise NotImplementedError

    def step(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def block_of(self, parameter: str) -> str:
        """Return the name of the block that a parameter belongs to."""
        raise NotImplementedError

    def width(self, below: Sequence[str]) -> int:
        """Return H after the blocks `below`."""
        return self.hidden

    def run(self, names: Sequence[str], hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the hidden states after some blocks."""
        for name in names:
            hidden = self.step(name, hidden, mask)
        return hidden

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.pool(self.run(self.steps(), self.start(ids, mask), mask), mask)

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks from input to output; every parameter is in one."""
        owners = {name: self.block_of(name) for name, _ in self.named_parameters()}
        return tuple(
            Block(block, tuple(name for name, owner in owners.items() if owner == block))
            for block in dict.fromkeys(owners.values())
        )

    def cut_before(self, thawed: Collection[str]) -> Cut | None:
        """Cut the network before the first block with a thawed parameter.

        Returns None if `start` is thawed: the whole network is then trained.
        """
        names = list(self.steps())
        owners = {self.block_of(name) for name in thawed}
        if self.first in owners:
            return None
        first = next((at for at, name in enumerate(names) if name in owners), len(names))
        below, above = names[:first], names[first:]
        name = above[0] if above else "pool"
        return sequence_cut(name, _Trunk(self, below), _Tail(self, above), self.width(below))


class _Part(nn.Module):
    """A part of a network at a cut. names: the blocks below the cut, or those of a tail."""

    def __init__(self, network: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)


class _Trunk(_Part):
    """ids, mask -> hidden states at the cut, and the mask."""

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        start = self.network.start(ids, mask)
        return self.network.run(self.names, start, mask), mask


class _Tail(_Part):
    """Hidden states at the cut, and the mask -> features."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.network.pool(self.network.run(self.names, hidden, mask), mask)


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (P, H) of the hidden states (P, L, H) that the mask keeps."""
    kept = mask[..., None].to(hidden.dtype)
    return (hidden * kept).sum(1) / kept.sum(1)


class Bert(Encoder):
    """BERT's encoder (Devlin et al. 2019) with the mean of the tokens, of length 1, as features.

    Parameters are named as in the files of the library transformers, without the pooler.
    """

    first = "embeddings"

    def __init__(
        self, vocabulary: int, hidden: int, layers: int, heads: int, inner: int, positions: int
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.embeddings = _Embeddings(vocabulary, hidden, positions)
        self.encoder = _Layers(nn.ModuleList(_Layer(hidden, heads, inner) for _ in range(layers)))

    def steps(self) -> Sequence[str]:
        return [f"layer.{i}" for i in range(len(self.encoder.layer))]

    def start(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.embeddings(ids)

    def step(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.encoder.layer[int(name.removeprefix("layer."))](hidden, mask)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(mean_of_tokens(hidden, mask), dim=1)

    def block_of(self, parameter: str) -> str:
        part, *rest = parameter.split(".")
        return f"layer.{rest[1]}" if part == "encoder" else self.first


class _Layers(nn.Module):
    def __init__(self, layer: nn.ModuleList) -> None:
        super().__init__()
        self.layer = layer


class _Embeddings(nn.Module):
    def __init__(self, vocabulary: int, hidden: int, positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, hidden)
        self.position_embeddings = nn.Embedding(positions, hidden)
        self.token_type_embeddings = nn.Embedding(2, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        kind = self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(places) + kind)


class _Projections(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)


class _Added(nn.Module):
    """A dense layer whose result is added to its block's input and normalised."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = _Projections(hidden)
        self.output = _Added(hidden, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def of_heads(values: Tensor) -> Tensor:
            return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        own = self.self
        query, key, value = (of_heads(part(x)) for part in (own.query, own.key, own.value))
        kept = mask[:, None, None, :].bool()
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=kept)
        return self.output(mixed.transpose(1, 2).flatten(2), x)


class _Dense(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, inner)


class _Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = _Attention(hidden, heads)
        self.intermediate = _Dense(hidden, inner)
        self.output = _Added(inner, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(F.gelu(self.intermediate.dense(x)), x)


class TinyText(Encoder):
    """Word vectors and two gated layers with a look at the neighbours, for tests: D features."""

    first = "words"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = 16
        self.words = nn.Embedding(HASHED, self.hidden)
        self.low = nn.Linear(2 * self.hidden, self.hidden)
        self.high = nn.Linear(self.hidden, dim)

    def steps(self) -> Sequence[str]:
        return ("low", "high")

    def start(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.words(ids) * mask[..., None]

    def step(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        if name == "high":
            return self.high(hidden)
        before = F.pad(hidden, (0, 0, 1, 0))[:, : hidden.shape[1]]
        return hidden + torch.tanh(self.low(torch.cat([hidden, before], dim=2)))

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return mean_of_tokens(hidden, mask)

    def block_of(self, parameter: str) -> str:
        return parameter.partition(".")[0]
