"""Mutated images: does `decode` return pixels or raise DataError, in a short time?

    python bench/fuzz_images.py [--images 100000] [--seed 0]

Some 40 small pictures (every mode, orientation and animation of tests/pictures.py, and progressive,
interlaced, tiled and compressed ones) are mutated: bytes and bits flipped, chunks cut out, doubled
or taken from another file, ends cut off, sizes in headers changed; a mutated PNG mostly gets good
checksums again, or its decoder would never be reached. Image i is the same in every run of a seed.

Two processes decode. Failures are: a dead process, an error that isn't DataError, more than a
second of its processor (the least of three attempts) and more than 500 MB.
"""

import io
import multiprocessing
import os
import re
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from harness import Bench
from numpy.typing import NDArray
from PIL import Image

from headstart.base.errors import DataError
from headstart.base.runtime import peak_rss_bytes
from headstart.modalities.images.decoding import decode

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pictures import photo, saved, turned, variants  # noqa: E402

SLOW_S, LARGE_BYTES, HANGS_S = 1.0, 500e6, 60.0
PROCESSES = 2
NUMBERS = (0, 1, 2, 255, 256, 4096, 7999, 16383, 32767, 65535, 10**6, 2**31 - 1, 2**32 - 1)
FIELDS = (  # what stands before a size, a depth or a count; where that is from there; its type
    (rb"IHDR", (4, 8), ">I"),
    (rb"IHDR", (12, 13, 16), "B"),
    (rb"fcTL", (8, 12, 16, 20), ">I"),
    (rb"\xff[\xc0-\xc2]\0[\x0b\x11\x14]", (5, 7), ">H"),
    (rb"\xff[\xc0-\xc2]\0[\x0b\x11\x14]", (4, 9, 11, 14), "B"),
    (rb"\AGIF8", (6, 8), "<H"),
    (rb"\ABM", (10, 14, 18, 22), "<I"),
    (rb"\ABM", (28,), "<H"),
    (rb"[\0-\x07]\x01[\x03\x04]\0", (4, 8), "<I"),  # TIFF tags 256 (width) to 263
    (rb"[\x11-\x17\x3d\x42-\x45\x53]\x01[\x03\x04]\0", (2, 4, 8), "<I"),  # strips, tiles, type
    (rb"VP8X", (12, 15), "<I"),
    (rb"VP8L", (9,), "<I"),
    (rb"VP8 ", (14, 16), "<H"),
)

Mutation = Callable[[bytearray, np.random.Generator, list[bytes]], None]


def main() -> None:
    bench = Bench("fuzz_images", __doc__)
    bench.flag("--images", type=int, default=100_000, quick=2000)
    bench.flag("--seed", type=int, default=0)
    args = bench.arguments()
    seen = fuzz(args.images, args.seed)
    rows = [
        {"outcome": outcome, "images": count, "share": f"{count / args.images:.2%}"}
        for outcome, count in seen.outcomes.most_common()
    ]
    print(*seen.failures[:50], sep="\n")
    bench.report(rows, seen.facts())
    print("no failure" if not seen.failures else f"{len(seen.failures)} FAILURES")
    sys.exit(bool(seen.failures))


@dataclass
class Seen:
    """What came of the images decoded so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    peak_bytes: tuple[int, str] = (0, "")
    seconds: float = 0.0

    def add(self, name: str, outcome: str, seconds: float, peak_bytes: int) -> None:
        """`outcome` begins with ! if it must not be; `peak_bytes` if this image raised it, or 0."""
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, (seconds, name))
        self.peak_bytes = max(self.peak_bytes, (peak_bytes, name))
        if outcome.startswith("!"):
            self.failures.append(f"{name}: {outcome}")
        if seconds > SLOW_S:
            self.failures.append(f"{name}: took {seconds:.2f} s")
        if peak_bytes > LARGE_BYTES:
            self.failures.append(f"{name}: took its process to {peak_bytes / 1e6:.0f} MB")

    def facts(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "process deaths": self.outcomes["! process died"],
            "slowest": f"{self.slowest[0]:.3f} s, {self.slowest[1]}",
            "peak": f"{self.peak_bytes[0] / 1e6:.0f} MB, {self.peak_bytes[1]}",
            "failures": len(self.failures),
        }


class Worker:
    """A process that decodes one image at a time, and is replaced when it dies."""

    def __init__(self, seed: int) -> None:
        self.seed, self.image = seed, -1
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.seed), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, image: int) -> None:
        self.image = image
        self.pipe.send(image)

    def result(self, *, hangs: bool) -> tuple[str, str, float, int]:
        if not hangs:
            try:
                return self.pipe.recv()
            except EOFError:
                pass
        self.process.kill()
        self._start()
        return f"image {self.image}", "! hangs" if hangs else "! process died", 0.0, 0


def fuzz(images: int, seed: int) -> Seen:
    """Decode images 0 to images - 1 of this seed."""
    seen, start, left = Seen(), time.perf_counter(), iter(range(images))
    busy: dict[Any, Worker] = {}
    for worker in [Worker(seed) for _ in range(PROCESSES)]:
        worker.give(next(left))
        busy[worker.pipe] = worker
    while busy:
        ready = wait(list(busy), timeout=HANGS_S)
        for pipe in ready or list(busy):
            worker = busy.pop(pipe)
            seen.add(*worker.result(hangs=not ready))
            if (image := next(left, None)) is not None:
                worker.give(image)
                busy[worker.pipe] = worker
                if image % 10_000 == 0:
                    print(f"{image:,} of {images:,} images", file=sys.stderr)
    seen.seconds = time.perf_counter() - start
    return seen


def work(pipe: Connection, seed: int) -> None:
    """In a process of its own: for each image number, what it was and what came of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff talks to it, and a lot
    kinds = originals()
    highest = 0
    while True:
        try:
            i = pipe.recv()
        except EOFError:
            return
        kind, data, short_side = mutated(kinds, seed, i)
        outcome, seconds = timed(data, short_side)
        for _ in range(2):
            if seconds > SLOW_S:
                seconds = min(seconds, timed(data, short_side)[1])
        peak = peak_rss_bytes()
        pipe.send((f"image {i} ({kind})", outcome, seconds, peak if peak > highest else 0))
        highest = max(highest, peak)


def timed(data: bytes, short_side: int | None) -> tuple[str, float]:
    start = time.process_time()  # of this process: the machine may be busy
    try:
        decode(data, short_side=short_side)
        outcome = "decoded"
    except DataError as error:
        phrase = str(error).removeprefix("cannot be decoded: ")
        outcome = "DataError: " + re.sub(r"[\W\d]*\d.*|[:(].*", " ...", phrase)[:60]
    except BaseException as error:
        outcome = f"! {type(error).__name__}: {error}"[:100]
    return outcome, time.process_time() - start


def originals() -> dict[str, bytes]:
    """The pictures that are mutated, each a few kB."""
    rgb = photo(np.random.default_rng(0), 96, 72)
    grey, one = rgb.convert("L"), rgb.convert("1")
    found = variants(rgb)
    for quality, subsampling in ((30, 2), (75, 1), (95, 0)):
        found[f"jpeg {quality}"] = saved(rgb, "JPEG", quality=quality, subsampling=subsampling)
    found["jpeg progressive"] = saved(rgb, "JPEG", progressive=True, restart_marker_blocks=4)
    found["jpeg progressive cmyk"] = saved(rgb.convert("CMYK"), "JPEG", progressive=True)
    found["jpeg turned, large"] = turned(rgb.resize((768, 576)), 6, "JPEG", quality=50)
    found["jpeg of two"] = saved(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)])
    found["png 1 bit"] = saved(one, "PNG")
    found["png interlaced"] = interlaced(grey)
    found["webp lossy"] = saved(rgb, "WEBP", quality=60)
    found["webp alpha"] = saved(rgb.convert("RGBA"), "WEBP", quality=60, exif=b"Exif\0\0MM\0*")
    found["gif interlaced"] = saved(grey, "GIF", interlace=1, transparency=3)
    found["bmp 1 bit"] = saved(one, "BMP")
    found["bmp palette"] = saved(rgb.quantize(200), "BMP")
    for compression in (
        "raw",
        "tiff_lzw",
        "tiff_adobe_deflate",
        "packbits",
        "jpeg",
        "lzma",
        "zstd",
    ):
        found[f"tiff {compression}"] = saved(rgb, "TIFF", compression=compression)
    found["tiff fax"] = saved(one, "TIFF", compression="group4")
    found["tiff cmyk"] = saved(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw")
    found["tiff tiled"] = tiled(grey)
    found["tiff strips"] = saved(rgb, "TIFF", compression="tiff_lzw", strip_size=1000)
    found["tiff big"] = saved(rgb, "TIFF", big_tiff=True)
    deep = np.asarray(rgb).astype(np.float64)
    found["tiff floats in planes"] = by_tifffile(
        np.moveaxis(deep, 2, 0), byteorder=">", planarconfig="separate", photometric="rgb"
    )
    found["tiff 16 bits in tiles"] = by_tifffile(
        deep.astype("u2") << 8, compression="lzw", predictor=2, tile=(32, 32), photometric="rgb"
    )
    found["tiff 12 bits"] = by_tifffile(
        deep[..., 0].astype("u2") << 4, bitspersample=12, photometric="minisblack"
    )
    found["tiff min-is-white floats"] = by_tifffile(
        deep[..., 0].astype("f4"), compression="zstd", predictor=3, photometric="miniswhite"
    )
    return found


def by_tifffile(values: NDArray[Any], **options: Any) -> bytes:
    """A TIFF of a layout that Pillow does not write."""
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def interlaced(grey: Image.Image) -> bytes:
    """A grey PNG in the seven passes of Adam7, which Pillow reads but does not write."""
    pixels = np.asarray(grey)
    raw = bytearray()
    for top, left, down, across in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        for line in pixels[top::down, left::across]:
            raw += b"\0" + line.tobytes()
    head = struct.pack(">IIBBBBB", grey.width, grey.height, 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(raw))), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + name + d + bytes(4) for name, d in chunks)
    return rechecked(b"\x89PNG\r\n\x1a\n" + body)


def tiled(grey: Image.Image, side: int = 32) -> bytes:
    """A grey TIFF of deflated tiles, which Pillow reads but does not write."""
    pixels = np.asarray(grey)
    pixels = np.pad(pixels, [(0, -n % side) for n in pixels.shape])
    corners = np.ndindex(pixels.shape[0] // side, pixels.shape[1] // side)
    tiles = [
        zlib.compress(pixels[r * side : (r + 1) * side, c * side : (c + 1) * side].tobytes())
        for r, c in corners
    ]
    starts = np.cumsum([8, *map(len, tiles)])
    lists = struct.pack(f"<{2 * len(tiles)}I", *starts[:-1], *map(len, tiles))
    at, n = int(starts[-1]), len(tiles)
    tags = {256: grey.width, 257: grey.height, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries += [struct.pack("<HHII", 324, 4, n, at), struct.pack("<HHII", 325, 4, n, at + 4 * n)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, at + len(lists)) + b"".join(tiles) + lists + directory


def mutated(kinds: dict[str, bytes], seed: int, i: int) -> tuple[str, bytes, int | None]:
    """Image i of this seed: what it was made from, its bytes, and `short_side` for decode."""
    rng = np.random.default_rng((seed, i))
    kind = list(kinds)[rng.integers(len(kinds))]
    data, others = bytearray(kinds[kind]), list(kinds.values())
    for _ in range(rng.integers(1, 4)):
        MUTATIONS[rng.integers(len(MUTATIONS))](data, rng, others)
    if data[:4] == b"\x89PNG" and rng.random() < 0.8:
        data = bytearray(rechecked(bytes(data)))
    return kind, bytes(data), (None, None, 16, 64)[rng.integers(4)]


def flip_bits(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    for at in spots(data, rng, int(rng.integers(1, 12))):
        data[at] ^= 1 << rng.integers(8)


def set_bytes(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    for at in spots(data, rng, int(rng.integers(1, 12))):
        data[at] = (0, 1, 127, 128, 255, rng.integers(256))[rng.integers(6)]


def cut_end(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    del data[rng.integers(len(data) + 1) :]


def cut_chunk(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    del data[chunk(data, rng)]


def double_chunk(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    part = chunk(data, rng)
    data[part.stop : part.stop] = data[part] * int(rng.integers(1, 4))


def take_chunk(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    other = others[rng.integers(len(others))]
    data[chunk(data, rng)] = other[chunk(other, rng)]


def change_field(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> None:
    there = [
        (found.start() + offsets[rng.integers(len(offsets))], kind)
        for before, offsets, kind in FIELDS
        for found in list(re.finditer(before, data, re.DOTALL))[:20]
    ]
    if there:
        at, kind = there[rng.integers(len(there))]
        size = struct.calcsize(kind)
        number = NUMBERS[rng.integers(len(NUMBERS))] % 256**size
        data[at : at + size] = struct.pack(kind, number)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, set_bytes, cut_end, cut_chunk, double_chunk, take_chunk),
    *(change_field, change_field),
)


def spots(data: bytearray, rng: np.random.Generator, n: int) -> list[int]:
    """Places to change: half the time all of them in the first 200 bytes."""
    end = min(len(data), 200) if rng.random() < 0.5 else len(data)
    return [int(at) for at in rng.integers(0, end, n)] if end else []


def chunk(data: bytes | bytearray, rng: np.random.Generator) -> slice:
    start = int(rng.integers(len(data) + 1))
    return slice(start, min(len(data), start + int(rng.integers(1, 300))))


def rechecked(png: bytes) -> bytes:
    """The PNG with the checksum of every chunk as it should be."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


if __name__ == "__main__":
    main()
