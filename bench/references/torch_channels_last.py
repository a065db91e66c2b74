"""The tutorial's two phases in plain PyTorch, as a careful user writes them for a processor.

    python bench/references/torch_channels_last.py DATA_DIR [--epochs 10] [--augment]

channels_last throughout; two worker processes that live on between epochs decode the pictures;
what is frozen runs without gradients in both phases; BatchNorm always in inference mode. timm's
mobilenetv2_100, random weights; Keras' epsilons and decay in the optimizers. With --network
resnet50 timm's resnet50, of which the last convolution and its norm are thawed (Keras' last five
layers), by Adam. With --bfloat16 all of it in autocast.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import timm
import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from references.protocol import Counts, Phase, Task, show, task

MEAN = STD = (0.5, 0.5, 0.5)  # pixels from -1 to 1, as in the tutorial


class Rest(nn.Module):
    """The second half of an inverted residual, from its depthwise convolution on."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(block.conv_dw, block.bn2, block.conv_pwl, block.bn3)

    def forward(self, halfway: tuple[Tensor, Tensor]) -> Tensor:
        wide, shortcut = halfway
        return self.layers(wide) + shortcut


class Start(nn.Module):
    """All that phase 2 leaves frozen, Keras' layers 0 to 100: images to the middle of block 11."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        first, second, *_ = base.blocks[4]
        self.layers = nn.Sequential(base.conv_stem, base.bn1, *base.blocks[:4], first)
        self.expand = nn.Sequential(second.conv_pw, second.bn1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shortcut = self.layers(x)
        return self.expand(shortcut), shortcut


class ResNetStart(nn.Module):
    """All of ResNet50 before its last convolution: images to the middle of the last block."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        *others, last = base.layer4
        stem = (base.conv1, base.bn1, base.act1, base.maxpool)
        self.layers = nn.Sequential(*stem, base.layer1, base.layer2, base.layer3, *others)
        middle = (last.conv1, last.bn1, last.act1, last.conv2, last.bn2, last.act2)
        self.narrow = nn.Sequential(*middle)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shortcut = self.layers(x)
        return self.narrow(shortcut), shortcut


class ResNetEnd(nn.Module):
    def __init__(self, last: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(last.conv3, last.bn3)

    def forward(self, halfway: tuple[Tensor, Tensor]) -> Tensor:
        narrow, shortcut = halfway
        return nn.functional.relu(self.layers(narrow) + shortcut)


class Net(nn.Module):
    """start (always frozen), end (thawed in phase 2), head: images (N, 3, S, S) to logits (N,)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        full = {"mobilenetv2": "mobilenetv2_100", "resnet50": "resnet50"}[name]
        base: Any = timm.create_model(full, pretrained=False)
        if name == "resnet50":
            self.start: nn.Module = ResNetStart(base)
            self.end: nn.Module = ResNetEnd(base.layer4[-1])
        else:
            _, second, *others = base.blocks[4]
            self.start = Start(base)
            rest = (*others, *base.blocks[5:], base.conv_head, base.bn2)
            self.end = nn.Sequential(Rest(second), *rest)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(pool, nn.Dropout(0.2), nn.Linear(base.num_features, 1))
        self.start.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            halfway = self.start(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.thawed):
            features = self.end(halfway)
        return self.head(features)[:, 0]

    @property
    def thawed(self) -> bool:
        return next(self.end.parameters()).requires_grad

    def train(self, mode: bool = True) -> "Net":
        super().train(mode)
        self.start.eval()  # BatchNorm keeps its statistics, thawed or not
        self.end.eval()
        return self

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]


def main() -> None:
    asked = task(__doc__)
    torch.manual_seed(0)
    train, val = loader(asked, "train"), loader(asked, "val")
    net: Any = Net(asked.network).to(memory_format=torch.channels_last)
    net.end.requires_grad_(False)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(net.trained(), lr=1e-4, eps=1e-7)
    frozen = fit(net, optimizer, (train, val), asked.epochs, asked.bfloat16)
    net.end.requires_grad_(True)
    if asked.network == "resnet50":
        optimizer = torch.optim.Adam(net.trained(), lr=1e-4, eps=1e-7)
    else:
        optimizer = torch.optim.RMSprop(net.trained(), lr=1e-5, alpha=0.9, eps=1e-7)
    thawed = fit(net, optimizer, (train, val), asked.fine_epochs, asked.bfloat16)
    packages = ("torch", "torchvision", "timm", "pillow")
    show("torch_channels_last", frozen, thawed, packages)


def loader(asked: Task, part: str) -> Any:
    change = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(72, transforms.InterpolationMode.BILINEAR),  # Keras' 0.2 turns
    ]
    see = transforms.Compose(
        [
            transforms.Resize((asked.size, asked.size)),
            *(change if asked.augment and part == "train" else []),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return torch.utils.data.DataLoader(
        ImageFolder(str(asked.data_dir / part), see),
        batch_size=asked.batch,
        shuffle=part == "train",
        num_workers=2,
        persistent_workers=True,
    )


def fit(
    net: Net, optimizer: torch.optim.Optimizer, data: tuple[Any, Any], epochs: int, bfloat16: bool
) -> Phase:
    phase, (train, val) = Phase(counts(net)), data
    for _ in range(epochs):
        net.train()
        for x, y in batches(train):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = net(x)
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            accuracy(net, val)
        phase.lap()
    phase.stop()
    return phase


@torch.inference_mode()
def accuracy(net: Net, data: Any) -> float:
    net.eval()
    right = [((net(x) > 0) == (y > 0)).float() for x, y in batches(data)]
    return float(torch.cat(right).mean())


def batches(data: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in data:
        yield x.to(memory_format=torch.channels_last), y.float()


def counts(net: Net) -> Counts:
    trainable = sum(p.numel() for p in net.trained())
    moments = [b for b in net.buffers() if b.ndim]  # not the batches that BatchNorm has seen
    every = sum(t.numel() for t in [*net.parameters(), *moments])
    return Counts(every - trainable, trainable)


if __name__ == "__main__":
    main()
