"""Known examples and the answers that a model gave for them, by which a copy of it is checked.

They travel with an export, as one safetensors file; a server is ready once they are reproduced.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from headstart.base.errors import BundleError, Mismatch

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]  # the inputs of a model -> its answers, by name
INPUT, ANSWER = "input", "answer"
TOLERANCE = 1e-3  # of an answer; measured between processors: 1e-5
MOST = 64  # examples in a file


@dataclass(frozen=True, eq=False)
class KnownAnswer:
    """What a model was given once, and what it answered; arrays by name."""

    inputs: Arrays
    answers: Arrays


def known_answers(run: Run, inputs: Iterable[Arrays]) -> tuple[KnownAnswer, ...]:
    """Run a model on inputs and keep its answers.

    >>> known_answers(lambda given: {"twice": 2 * given["x"]}, [{"x": np.ones(2)}])[0].answers
    {'twice': array([2., 2.])}
    """
    return tuple(KnownAnswer(given, run(given)) for given in inputs)


def largest_difference(known: Sequence[KnownAnswer], run: Run) -> float:
    """Return the largest difference of an answer, relative to answers above 1; inf for other
    names, shapes or NaN."""
    pairs = ((example.answers, run(example.inputs)) for example in known)
    return max((difference(promised, given) for promised, given in pairs), default=0.0)


def difference(promised: Arrays, given: Arrays) -> float:
    """Return the largest difference between answers to the same input, relative to answers above 1.

    >>> difference({"score": np.array([0.5])}, {"score": np.array([0.5]), "more": np.zeros(1)})
    0.0
    """
    if not promised.keys() <= given.keys():
        return math.inf
    return max((_apart(values, given[name]) for name, values in promised.items()), default=0.0)


def check_known(known: Sequence[KnownAnswer], run: Run, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference; raises Mismatch if it exceeds `tolerance`."""
    found = largest_difference(known, run)
    if not found <= tolerance:
        raise Mismatch(
            f"A model must give known examples the answers that it gave when it was saved, to "
            f"{tolerance:g}; here they differ by {found:.2g}. Is this build of the engine to be "
            f"trusted?"
        )
    return found


def pack_known(known: Sequence[KnownAnswer]) -> bytes:
    """Return known answers as the bytes of a safetensors file: NUMBER.input.NAME and so on."""
    tensors = {
        f"{number}.{role}.{name}": np.asarray(array, order="C")
        for number, example in enumerate(known)
        for role, arrays in ((INPUT, example.inputs), (ANSWER, example.answers))
        for name, array in arrays.items()
    }
    return pack(tensors)


def unpack_known(data: bytes) -> tuple[KnownAnswer, ...]:
    """Read what `pack_known` wrote; raises BundleError for anything else."""
    try:
        tensors, found = unpack(data), dict[int, dict[str, dict[str, NDArray[Any]]]]()
        for key, array in tensors.items():
            number, role, name = key.split(".", 2)
            found.setdefault(int(number), {INPUT: {}, ANSWER: {}})[role][name] = array
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"Known answers are a file of their own kind; got {error}.") from error
    whole = [found.get(number, {}) for number in range(min(len(found), MOST + 1))]
    if not whole or len(whole) > MOST or not all(r.get(INPUT) and r.get(ANSWER) for r in whole):
        raise BundleError(
            f"Known answers are 1 to {MOST} examples, each with inputs and answers; got "
            f"{len(found)}. Get the file again."
        )
    return tuple(KnownAnswer(role[INPUT], role[ANSWER]) for role in whole)


def _apart(promised: NDArray[Any], given: NDArray[Any]) -> float:
    if promised.shape != given.shape:
        return math.inf
    if promised.dtype == np.bool_:  # a decision: its score is compared
        return 0.0
    a, b = promised.astype(np.float64), given.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where(a == b, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(a)))
    return math.inf if np.isnan(off).any() else float(off.max(initial=0.0))
