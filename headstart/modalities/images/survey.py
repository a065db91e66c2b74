"""The facts that a survey stores of each picture: size, thumbnail, digest of the pixels."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headstart.base.grouping import Pair
from headstart.base.store import DIGEST_BYTES, Layout, digest
from headstart.base.values import fingerprint
from headstart.data.findings import OddSize, Remark
from headstart.data.survey import CONTENT, Facts
from headstart.modalities.images import decoding, hashes, likeness, quality

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset

VERSION = 2  # raise it when the same pixels would give other facts
SMALL = 32  # pixels; a picture with a shorter side is reported as odd
LONG = 4.0  # longer over shorter side; beyond it, a crop or squash loses most of the picture
FAR = 16.0  # times more or fewer pixels than the median picture


class PictureSurveyor:
    """sizes: (N, 2) int32, width and height. frames: (N,) int32, frames or pages of the file, of
    which the first is the picture. thumbs: (N, SIDE, SIDE) uint8 grey."""

    layout: Layout = {
        CONTENT: (np.uint8, (DIGEST_BYTES,)),
        "sizes": (np.int32, (2,)),
        "frames": (np.int32, ()),
        "thumbs": (np.uint8, (likeness.SIDE, likeness.SIDE)),
    }

    large = ("thumbs",)  # 4 kB a row

    @property
    def table(self) -> str:
        return fingerprint("survey", VERSION, decoding.VERSION, likeness.VERSION)

    def look(self, data: bytes) -> Facts:
        pixels = decoding.decode(data)
        height, width, _ = pixels.shape
        name = digest(np.array(pixels.shape, np.int64).tobytes(), np.ascontiguousarray(pixels).data)
        return {
            CONTENT: np.frombuffer(name, np.uint8),
            "sizes": np.array([width, height], np.int32),
            "frames": np.array(decoding.frames(data), np.int32),
            "thumbs": likeness.thumbnail(pixels),
        }

    def near(self, facts: Facts, threads: int) -> Sequence[Pair]:
        return likeness.near_duplicates(facts["thumbs"], threads=threads)

    def remarks(self, dataset: "Dataset", facts: Facts) -> Iterator[Remark]:
        """Yield files of several frames, pictures of poor quality, and that very many pictures are
        compared in part."""
        for row in np.flatnonzero(facts["frames"] > 1).tolist():
            n = int(facts["frames"][row])
            why = f"the first of {n:,} frames or pages is used"
            yield Remark(dataset.ids[row], "several frames", why, "several_frames", (("n", n),))
        strata = np.asarray(dataset.target.strata(dataset.y), np.intp)
        for found in quality.spoilt(facts["thumbs"], strata):
            text = found.kind.replace(" ", "_")
            yield Remark(dataset.ids[found.row], found.kind, str(found), text, found.facts)
        if (n := len(facts["thumbs"])) > hashes.CROWDED:
            why = (
                f"{n:,} pictures: of very many that look alike, each is compared with up to "
                f"{hashes.REACH} neighbours in each order of their hashes"
            )
            values = (("n", n), ("reach", hashes.REACH))
            yield Remark("", "near duplicates in part", why, "crowded", values)

    def odd(self, ids: Sequence[str], facts: Facts) -> Iterator[OddSize]:
        area = facts["sizes"].astype(np.int64).prod(axis=1)
        median = float(np.median(area)) if len(area) else 1.0
        for name, (width, height) in zip(ids, facts["sizes"].tolist(), strict=True):
            short, long = sorted((width, height))
            if short < SMALL:
                yield OddSize(name, width, height, f"a side of less than {SMALL} pixels")
            elif long > LONG * short:
                yield OddSize(name, width, height, f"more than {LONG:.0f} times as long as wide")
            elif not median / FAR <= width * height <= median * FAR:
                yield OddSize(name, width, height, "far from the usual size here")
