"""Another kind of input, target, source of backbones and head, added from outside the package."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import headstart as hs
from headstart.base.errors import DataError
from headstart.cli.main import main
from headstart.extend import (
    HEADS,
    INPUTS,
    SOURCES,
    Backbone,
    Batch,
    Block,
    Card,
    Fitted,
    HeadFamily,
    HeadSpec,
    Input,
    Listing,
    Mean,
    Metric,
    Outputs,
    Row,
    Target,
    Weights,
    register_target,
)
from headstart.models.bundle import load_bundle, save

Array = NDArray[Any]


@dataclass(frozen=True)
class Numbers(Input[Array]):
    """Rows of three numbers, the cells "1 2 3" of a table."""

    kind: ClassVar[str] = "numbers"
    noun: ClassVar[str] = "rows of numbers"
    column: ClassVar[str] = "numbers"

    def fetch(self, where: str) -> bytes:
        return where.encode()

    def read(self, data: bytes) -> Array:
        try:
            return np.array(data.decode().split(), np.float32).reshape(3)
        except ValueError as error:
            raise DataError("it is no row of three numbers") from error

    def prepare(self, raw: Array) -> Batch:
        return {"numbers": raw[None]}

    def fingerprint(self) -> str:
        return "numbers-1"

    def first_layer(self) -> nn.Module:
        return nn.Identity()

    def blank(self, n: int) -> Batch:
        return {"numbers": np.zeros((n, 3), np.float32)}


@dataclass(frozen=True)
class Count(Target):
    """How many events: a Poisson rate, whose logarithm the head gives."""

    kind: ClassVar[str] = "events"
    reads: ClassVar[tuple[str, ...]] = ("events",)

    def encode(self, row: Row) -> float:
        return float(row["events"])

    def labels(self, values: Sequence[float]) -> Array:
        return np.array(values, np.float64)

    def unknown(self, n: int) -> Array:
        return np.full(n, np.nan)

    def known(self, y: Array) -> Array:
        return ~np.isnan(y)

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        return nn.functional.poisson_nll_loss(raw[:, 0], y, reduction="none")

    def activate(self, raw: Array) -> Outputs:
        return {"rate": np.exp(raw[:, 0]).astype(np.float32)}

    def row_scores(self, answers: Outputs, y: Array) -> Array:
        return -np.abs(answers["rate"] - y)

    def metrics(self, answers: Outputs, y: Array) -> Mapping[str, Metric | None]:
        return {"mean_error": Mean(np.abs(answers["rate"] - y)) if len(y) else None}


class Layers:
    """The source `layers:D`: two dense blocks on three numbers."""

    weight_files = (".safetensors",)

    def load(self, id: str, weights: Weights) -> Backbone:
        card = Card(f"layers:{id}", f"layers:{id}", int(id), Numbers(), "random")
        return Backbone(card, *self.build(card))

    def build(self, card: Card) -> tuple[nn.Module, tuple[Block, ...]]:
        torch.manual_seed(0)
        net = nn.Sequential()
        net.add_module("low", nn.Sequential(nn.Linear(3, 16), nn.Tanh()))
        net.add_module("high", nn.Sequential(nn.Linear(16, card.dim), nn.Tanh()))
        names = {b: tuple(n for n, _ in net.named_parameters() if n[: len(b)] == b) for b in BLOCKS}
        return net.eval().requires_grad_(False), tuple(Block(b, names[b]) for b in BLOCKS)

    def listing(self) -> tuple[Listing, ...]:
        return ()


BLOCKS = ("low", "high")


@dataclass(frozen=True)
class LeastSquaresSpec(HeadSpec):
    family: ClassVar[str] = "least-squares"
    ridge: float = 1e-3


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """The logarithm of the count by ridge regression. weight: (D + 1, 1), the bias last."""

    weight: Array
    kind: ClassVar[str] = "least-squares"
    classes = outputs = 1

    @property
    def features(self) -> int:
        return len(self.weight) - 1

    @property
    def parameters(self) -> int:
        return self.weight.size

    def raw(self, x: Array) -> Array:
        return x.astype(np.float64) @ self.weight[:-1] + self.weight[-1]

    def scores(self, x: Array) -> Array:
        return self.raw(x).astype(np.float32)

    def tensors(self) -> dict[str, Array]:
        return {"weight": self.weight}

    def settings(self) -> dict[str, float]:
        return {}

    def as_module(self) -> nn.Module:
        layer = nn.Linear(self.features, 1)
        weight = torch.tensor(self.weight, dtype=torch.float32)
        layer.load_state_dict({"weight": weight[:-1].T, "bias": weight[-1]})
        return layer

    def from_module(self, module: nn.Module) -> "LeastSquares":
        w, b = (p.detach().numpy() for p in module.parameters())
        return LeastSquares(np.vstack([w.T, b[None]]))


def fit(spec: LeastSquaresSpec, train: Any, val: Any) -> Fitted:
    x = np.hstack([train.x, np.ones((len(train.x), 1))]).astype(np.float64)
    y = np.log(train.y + 0.5)[:, None]
    weight = np.linalg.solve(x.T @ x + spec.ridge * np.eye(x.shape[1]), x.T @ y)
    return Fitted(LeastSquares(weight.astype(np.float32)), {"head": spec.family, "by": "ridge"}, ())


def load(tensors: Mapping[str, Array], settings: Mapping[str, Any]) -> LeastSquares:
    return LeastSquares(tensors["weight"])


INPUTS.register("numbers", Numbers)
SOURCES.register("layers", Layers())
HEADS.register("least-squares", HeadFamily(LeastSquaresSpec, load, fit, targets=("events",)))
register_target(Count)

# ---------------------------------------------------------------- what a user does with them


def test_everything_registered_goes_all_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (120, 3)).round(3)
    y = rng.poisson(np.exp(1 + x[:, 0]))
    rows = [f"{' '.join(map(str, a))},{b}" for a, b in zip(x, y, strict=True)]
    Path("rows.csv").write_text("\n".join(["numbers,events", *rows]))
    asked = ["--backbone", "layers:8", "--head", "least-squares", "--thaw", "high", "--epochs", "2"]
    for words in (
        ["check", "rows.csv"],
        ["train", "rows.csv", "--out", "run", "--strategy", "finetune", *asked],
        ["evaluate", "run", "rows.csv"],
        ["report", "run"],
        ["predict", "run", "rows.csv", "--json"],
    ):
        capsys.readouterr()
        assert main(words) == 0, (words, capsys.readouterr().err)
    answers = json.loads(capsys.readouterr().out)
    rate = np.array([answer["rate"] for answer in answers])
    assert np.corrcoef(rate, x[:, 0])[0, 1] > 0.8
    assert "mean_error" in Path("run/report.html").read_text()
    assert "phases" in json.loads(Path("run/recipe.json").read_text())
    model = load_bundle("run/model").model
    assert (type(model.target), type(model.head)) == (Count, LeastSquares)
    save(model, "copy")
    again = load_bundle("copy").model.predict(hs.read("rows.csv"), store=None)
    assert np.allclose(again.outputs["rate"], rate, atol=1e-5)


def test_a_backbone_of_another_kind_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("numbers,events\n1 2 3,4\n" * 1)
    words = ["train", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "run")]
    assert main([*words, "--backbone", "tiny:8"]) == 1
    assert "tiny:8 takes images, and the data holds rows of numbers" in " ".join(
        capsys.readouterr().err.split()
    )
