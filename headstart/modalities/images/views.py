"""Which augmented versions of an example there are: numbered, and the same for a number ever."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.base.atomic import write_bytes
from headstart.base.errors import SpecError
from headstart.base.store import digest
from headstart.base.values import check_seed, fingerprint
from headstart.modalities.images.augment import Augment, png, view_grid
from headstart.modalities.images.decoding import decode
from headstart.modalities.images.preprocess import Preprocess

MOST_SIZE = 2048  # pixels of a view in a grid of 16, which then takes 200 MB


@dataclass(frozen=True)
class Views:
    """Every example's views 0, 1, 2, …: each decided by the file's bytes, its number and the seed.

    So a view does not depend on the order of the rows, on threads, or on what else is trained.
    """

    augment: Augment = Augment()
    seed: int = 0

    def fingerprint(self) -> str:
        """Nothing for views that change nothing, so that they share what plain pictures have."""
        return fingerprint(self.augment.fingerprint(), self.seed) if self.augment.active else ""

    def name(self, file: bytes, number: int) -> bytes:
        """Names view `number` of the file with this digest."""
        return digest(file, number.to_bytes(4, "little")) if self.augment.active else file

    def square(self, plain: NDArray[np.uint8], file: bytes, number: int) -> NDArray[np.uint8]:
        """View `number` of a plain square (S, S, 3), which is of the file with this digest."""
        if not self.augment.active:
            return plain
        seed = (self.seed % 2**64).to_bytes(8, "little")
        named = digest(file, number.to_bytes(4, "little"), seed)
        return self.augment(plain, int.from_bytes(named[:4], "little"))


PLAIN = Views()


def draw_views(
    picture: Path, out: Path, augment: Augment, *, size: int = 224, seed: int = 0
) -> None:
    """Write a PNG of the picture, squashed to `size` pixels, and 15 views of it around.

    Raises DataError or OSError for what can't be decoded, SpecError for a size that is none.
    """
    if not 1 <= size <= MOST_SIZE:
        raise SpecError(f"size is from 1 to {MOST_SIZE:,} pixels a view; got {size}.")
    check_seed(seed)
    square = Preprocess(size, size, fit="squash")(decode(picture))
    write_bytes(out, png(view_grid(square, augment, seed=seed)))
