"""Read the weights in a file of `torch.save`, in its format before PyTorch 1.6, without unpickling.

Such a file is five pickles (a magic number, the version of the format, sizes of the machine's
types, the tensors by name, and the keys of their storages), followed by the storages' numbers. The
opcodes of the pickles are parsed, and only those that make a dictionary of tensors are accepted;
nothing that a pickle names is imported or called.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.pickles import MEMO, opcodes

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
ORDERED, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
DTYPES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
COUNT = 8  # bytes of a storage's length, before its numbers
VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT"}
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MARK = object()


@dataclass(frozen=True)
class _Name:
    """The name of a class or function that a pickle refers to; it is never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and stride in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors_of(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file's bytes by name, in the file's order, as arrays of their own.

    Raises ValueError, which names the place, for a file that holds anything but named tensors.
    """
    file = io.BytesIO(data)
    magic, version, system = (_value(file) for _ in range(3))
    if (magic, version) != (MAGIC, VERSION) or not isinstance(system, dict):
        raise ValueError("it does not begin as a file of torch.save does")
    if system.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    named, keys = _value(file), _value(file)
    if not isinstance(named, dict) or not isinstance(keys, list):
        raise ValueError("it holds no dictionary of tensors")
    starts = _storages(file, keys, _sizes_of(named))
    return {name: _array(data, tensor, starts) for name, tensor in named.items()}


def _sizes_of(named: Mapping[object, object]) -> dict[str, _Storage]:
    """Return the storages of the tensors by key; ValueError for a value that is no tensor."""
    found: dict[str, _Storage] = {}
    for name, tensor in named.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is no named tensor")
        if found.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ValueError(f"the numbers of {name!r} are of two types")
    return found


def _storages(file: io.BytesIO, keys: list[Any], known: Mapping[str, _Storage]) -> dict[str, int]:
    """Return where the numbers of each storage begin."""
    if len(keys) != len(set(keys)) or set(keys) != known.keys():
        raise ValueError("its list of numbers is not that of its tensors")
    starts, end = {}, len(file.getbuffer())
    for key in keys:
        storage = known[key]
        length = file.read(COUNT)
        count = int.from_bytes(length, "little", signed=True)
        size = storage.count * storage.dtype.itemsize
        if len(length) < COUNT or count != storage.count or file.tell() + size > end:
            raise ValueError(f"the numbers of storage {key!r} are cut short")
        starts[key] = file.tell()
        file.seek(size, io.SEEK_CUR)
    if file.tell() != end:
        raise ValueError(f"{end - file.tell():,} bytes follow its last tensor")
    return starts


def _array(data: bytes, tensor: _Tensor, starts: Mapping[str, int]) -> NDArray[Any]:
    storage = tensor.storage
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    beyond = 0 not in tensor.shape and tensor.offset + reach >= storage.count
    if beyond or math.prod(tensor.shape) > storage.count:  # a stride of 0 repeats numbers
        raise ValueError("a tensor reaches beyond its numbers")
    numbers = np.frombuffer(data, storage.dtype, storage.count, starts[storage.key])
    size = storage.dtype.itemsize
    strides = tuple(step * size for step in tensor.stride)
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, strides, writeable=False
    )
    return np.array(view, order="C")


def _value(file: io.BytesIO) -> Any:
    """Return the value of one pickle: of numbers, texts, lists, dictionaries and `_Tensor`s."""
    machine = _Machine()
    for name, argument, offset in opcodes(file):
        try:
            if name == "STOP":
                (value,) = machine.stack
                return value
            machine.step(name, argument)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"at byte {offset:,} it is no plain tensor ({name})") from error
    raise ValueError("it breaks off")


@dataclass
class _Machine:
    """The stack and the memo of a pickle; a step that fits neither raises a builtin's error."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode of those that plain tensors need."""
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in MEMO:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(_Name(argument))
        elif name not in ("PROTO", "FRAME"):
            STEPS[name](self)

    def pop_marked(self) -> list[Any]:
        """Remove and return the values above the last mark."""
        values: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def join(self, count: int) -> None:
        """Replace the last `count` values by a tuple of them."""
        values = tuple(self.stack.pop() for _ in range(count))[::-1]
        self.stack.append(values)

    def set_items(self, items: list[Any]) -> None:
        (own,) = _plain(self.stack[-1:], dict)
        own.update(zip(items[::2], items[1::2], strict=True))

    def append_items(self, items: list[Any]) -> None:
        (own,) = _plain(self.stack[-1:], list)
        own.extend(items)

    def set_state(self) -> None:
        """Ignore the state of a dictionary: `torch.save` keeps versions of layers there."""
        self.stack.pop()
        _plain(self.stack[-1:], dict)

    def refer(self) -> None:
        """Replace the description of a storage by it."""
        kind, type_, key, place, count, view = self.stack.pop()
        if kind != "storage" or view is not None or not isinstance(key, str):
            raise ValueError(place)
        self.stack.append(_Storage(key, DTYPES[type_.name], _whole(count)))

    def call(self) -> None:
        """Replace a function's name and its arguments by their value."""
        arguments, function = self.stack.pop(), self.stack.pop().name
        if function == ORDERED and arguments == ():
            self.stack.append({})
        elif function == TENSOR:
            storage, offset, shape, stride, _, hooks = arguments
            if not isinstance(storage, _Storage) or hooks != {} or len(shape) != len(stride):
                raise ValueError(function)
            sizes = tuple(map(_whole, shape)), tuple(map(_whole, stride))
            self.stack.append(_Tensor(storage, _whole(offset), *sizes))
        else:
            raise ValueError(function)


STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda m: m.stack.append(MARK),
    "EMPTY_DICT": lambda m: m.stack.append({}),
    "EMPTY_LIST": lambda m: m.stack.append([]),
    "EMPTY_TUPLE": lambda m: m.stack.append(()),
    "TUPLE": lambda m: m.stack.append(tuple(m.pop_marked())),
    "TUPLE1": lambda m: m.join(1),
    "TUPLE2": lambda m: m.join(2),
    "TUPLE3": lambda m: m.join(3),
    "SETITEMS": lambda m: m.set_items(m.pop_marked()),
    "SETITEM": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "APPENDS": lambda m: m.append_items(m.pop_marked()),
    "APPEND": lambda m: m.append_items([m.stack.pop()]),
    "BINPERSID": _Machine.refer,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.set_state,
}


def _plain(values: list[Any], kind: type) -> list[Any]:
    """Return the values if all are of a type; TypeError otherwise."""
    if not all(type(value) is kind for value in values):
        raise TypeError(kind.__name__)
    return values


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError(value)
    return value
