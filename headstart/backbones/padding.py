"""Asymmetric zero padding of a convolution's input, computed for one input size."""

from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

Edges = tuple[int, int, int, int]  # left, right, top, bottom: the order of torch's pad


class PaddedConv2d(nn.Conv2d):
    """The convolution `conv` with fixed padding `edges`, which may differ between the sides.

    `graph.freeze` turns the padding into the ONNX Conv's pads, which PyTorch can't express.
    """

    def __init__(self, conv: nn.Conv2d, edges: Edges) -> None:
        super().__init__(1, 1, 1)
        self.__dict__.update(conv.__dict__)
        self.edges = edges

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, self.edges)
        return conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def same_edges(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1),
) -> Edges:
    """Return TensorFlow's "SAME" padding of a (height, width): an odd zero goes right and below.

    >>> same_edges((224, 224), (3, 3), (2, 2))
    (0, 1, 0, 1)
    """
    top, left = (
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    )
    return left // 2, left - left // 2, top // 2, top - top // 2
