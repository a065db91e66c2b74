"""The pictures of a dataset as squares, just as a network is given them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError
from headstart.base.threads import ordered_map
from headstart.data.content import read_checked
from headstart.data.dataset import CheckedFile, Dataset, LeftOut
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.preprocess import Preprocess
from headstart.modalities.images.views import PLAIN, Views


@dataclass(frozen=True, eq=False)
class Squared:
    """squares: (N, S, S, 3) uint8. data: their rows. left_out: the others, which can't be read or
    changed since they were checked."""

    squares: NDArray[np.uint8]
    data: Dataset
    left_out: tuple[LeftOut, ...] = ()


def squared(preprocess: Preprocess, data: Dataset, *, threads: int = 1) -> Squared:
    """All rows that can be read; raises DataError if there is none."""

    files = data.files

    def made(row: int) -> NDArray[np.uint8] | str:
        try:
            return square_of(preprocess, PLAIN, files[row], 0)
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


def square_of(
    preprocess: Preprocess, views: Views, source: Path | CheckedFile, number: int
) -> NDArray[np.uint8]:  # (S, S, 3)
    """View `number` of a file as the network is given it; raises OSError, or DataError also for a
    file that changed since it was checked."""
    data, file = read_checked(source)
    plain = preprocess(decode(data, short_side=preprocess.short_side))
    return views.square(plain, file, number)
