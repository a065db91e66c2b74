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
class Squared:
    """squares: (N, S, S, 3) uint8. data: their rows. left_out: rows that can't be read or have
    changed since they were checked."""

    squares: NDArray[np.uint8]
    data: Dataset
    left_out: tuple[LeftOut, ...] = ()


def squared(input: ImageInput, data: Dataset, *, threads: int = 1) -> Squared:
    """Prepare all rows that can be read; raises DataError if there is none."""

    files = data.files

    def made(row: int) -> NDArray[np.uint8] | str:
        try:
            return prepared(input, files[row])["pixels"][0]
        except OSError as error:
            return error.strerror or str(error)
        except DataError as error:
            return str(error)

    found = list(ordered_map(made, range(len(data)), threads=threads, ahead=4 * threads))
    good = [row for row, square in enumerate(found) if not isinstance(square, str)]
    left_out = [
        LeftOut(data.ids[row], why) for row, why in enumerate(found) if isinstance(why, str)
    ]
    if not good:
        first = f" ({left_out[0].path}: {left_out[0].reason})" if left_out else ""
        raise DataError(
            f"There must be pictures that can be read; of {len(data):,} none can{first}."
        )
    squares = np.stack([square for square in found if not isinstance(square, str)])
    return Squared(squares, data.take(good), tuple(left_out))
