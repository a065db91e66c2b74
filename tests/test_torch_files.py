"""Files of torch.save are parsed into the tensors that PyTorch reads, and into nothing else."""

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbones.torch_files import read_tensors_of
from headstart.modalities.images import packaged


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def state() -> dict[str, torch.Tensor]:
    whole = torch.arange(12.0).reshape(3, 4)
    return {
        "whole": whole,
        "turned": whole.T,
        "part": whole[1:, ::2],
        "half": torch.tensor([1.5, -2.0]).half(),
        "count": torch.tensor(7),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }


def assert_equal(read: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        theirs = tensor.numpy()
        assert (read[name].dtype, read[name].shape) == (theirs.dtype, theirs.shape)
        assert read[name].tobytes() == np.ascontiguousarray(theirs).tobytes()


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_tensors_are_read_bit_for_bit(kind: type[Any]) -> None:
    assert_equal(read_tensors_of(saved(kind(state()))), state())


@pytest.mark.parametrize("id", packaged.PACKAGED)
def test_the_packages_files_are_read_as_pytorch_reads_them(id: str) -> None:
    path = packaged._weights_file(id, own := packaged.PACKAGED[id])
    expected = torch.load(path, map_location="cpu", weights_only=True)
    assert_equal(packaged._read(path, own.sha256), dict(expected))


@pytest.mark.parametrize(
    "other",
    [
        {"a": 1},
        {1: torch.zeros(2)},
        [torch.zeros(2)],
        {"a": {"b": torch.zeros(2)}},
        {"a": Path("x")},
        {"a": torch.nn.Linear(2, 2)},
        {"a": torch.zeros(1).expand(10)},
        {"a": torch.zeros(2).to_sparse()},
    ],
    ids=repr,
)
def test_anything_but_named_tensors_is_refused(other: Any) -> None:
    with pytest.raises(ValueError, match=r"no plain tensor|no named tensor|no dictionary|beyond"):
        read_tensors_of(saved(other))


def test_cut_and_lengthened_files_are_refused() -> None:
    whole = saved(state())
    for end in (0, 5, 20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match=r".+"):
            read_tensors_of(whole[:end])
    with pytest.raises(ValueError, match="1 bytes follow"):
        read_tensors_of(whole + b"\0")


def test_a_cut_in_the_length_of_a_last_empty_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        read_tensors_of(saved({"none": torch.zeros(0, 3)})[:-1])


def test_a_flipped_byte_gives_tensors_or_a_value_error() -> None:
    whole, rng = saved(state()), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 400):
        altered = bytearray(whole)
        altered[place] ^= 1 << int(rng.integers(8))
        try:
            read = read_tensors_of(bytes(altered))
        except ValueError:
            continue
        assert all(isinstance(array, np.ndarray) for array in read.values())
