"""The pictures of a dataset as a network's input squares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.base.threads import ordered_map
from headstart.data.content import prepared
from headstart.data.dataset import Dataset, LeftOut
from headstart.modalities.images.inputs import ImageInput


@dataclass(frozen=True, eq=False)
class InputSquares:
    """squares: (N, S, S, 3) uint8. data: their rows. left_out: rows that can't be read or have
    changed since they were checked."""

    squares: NDArray[np.uint8]
    data: Dataset
    left_out: tuple[LeftOut, ...] = ()


def input_squares(input: ImageInput, data: Dataset, *, threads: int = 1) -> InputSquares:
    """Prepare all rows that can be read; raises DataError if there is none."""
    files = data.files

    def made(row: int) -> NDArray[np.uint8] | LeftOut:
        try:
            return prepared(input, files[row])["pixels"][0]
        except (OSError, DataError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return LeftOut(data.ids[row], reason)

    results = list(ordered_map(made, range(len(data)), threads=threads, ahead=4 * threads))
    squares = {row: square for row, square in enumerate(results) if isinstance(square, np.ndarray)}
    left_out = tuple(result for result in results if isinstance(result, LeftOut))
    if not squares:
        first = f" ({left_out[0].path}: {left_out[0].reason})" if left_out else ""
        raise DataError(
            f"There must be pictures that can be read; of {len(data):,} none can{first}."
        )
    return InputSquares(np.stack(list(squares.values())), data.take(list(squares)), left_out)


def stratified_rows(labels: NDArray[np.int64], rows: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw `rows` row numbers, sorted, each class keeping its share; 0 or too many takes all."""
    if not 0 < rows < len(labels):
        return np.arange(len(labels))
    rng, share = np.random.default_rng(seed), np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        share[own] = (np.arange(len(own)) + 0.5) / len(own)
    return np.sort(np.argsort(share, kind="stable")[:rows])
