"""Processes killed while they write to the store: is any acknowledged row lost or wrong?

    python bench/kill_store.py [--kills 1000] [--seed 0]
    python bench/kill_store.py --flips 200

A child process appends batches of rows whose content follows from their digest, and says on a pipe
when an append begins and when it has returned. Its parent kills it (SIGKILL) at a random moment,
opens the table again and looks: every acknowledged row must be there and right, and every row that
is there must be right. Every tenth time two writers share the table. The same harness must catch a
naive writer, which appends to one file and then to its index.

With --flips, one random bit of one random shard of a full table is flipped instead, so many times:
every row that is still there must be right, the others are appended again as an extraction would,
and then all rows must be what they were. The control takes every shard for intact.
"""

import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from harness import Bench
from numpy.typing import NDArray

from headstart.base.atomic import TEMPORARY
from headstart.base.shards import Stamp
from headstart.base.store import DIGEST_BYTES, Store, StoredTable, digest

ROWS, WIDTH = 32, 4096  # of a batch: 0.5 MB, so that most of a writer's life is spent in append
KILLS_PER_TABLE = 20
LONGEST_S = 0.05  # that a writer lives after its first append began
BEGAN, RETURNED = 0, 1
MESSAGE = struct.Struct("<BI")  # what happened, to which batch

Rows = NDArray[np.uint32]  # (n, WIDTH)


def main() -> None:
    bench = Bench("kill_store", __doc__)
    bench.flag("--kills", type=int, default=1000, quick=60)
    bench.flag("--flips", type=int, default=0, help="flip bits instead, so many times")
    bench.flag("--seed", type=int, default=0)
    args = bench.arguments()
    if args.flips:
        sys.exit(flip_main(bench, args.flips, args.seed))
    real = hunt(StoreKeeper, args.kills, args.seed)
    naive = hunt(NaiveKeeper, max(60, args.kills // 10), args.seed)
    rows = [{"writer": "store", **real.shown()}, {"writer": "naive", **naive.shown()}]
    bench.report(rows, {"MB a batch": ROWS * WIDTH * 4 / 1e6})
    print("store:", "WRONG" if real.violations else "nothing lost, nothing wrong")
    print("naive:", "caught" if naive.violations else "NOT CAUGHT: this harness proves nothing")
    sys.exit(bool(real.violations or not naive.violations))


class Keeper(Protocol):
    """What keeps rows in a folder: opened anew by every writer and by every look."""

    def __init__(self, folder: Path) -> None: ...

    def append(self, names: Sequence[bytes], rows: Rows) -> None: ...

    def found(self, names: Sequence[bytes]) -> dict[bytes, Rows]:
        """Those of `names` that are there, and their rows (WIDTH,)."""


class StoreKeeper:
    """The real one."""

    def __init__(self, folder: Path) -> None:
        self.table: StoredTable = Store(folder).table("rows")

    def append(self, names: Sequence[bytes], rows: Rows) -> None:
        self.table.append(names, {"x": rows})

    def found(self, names: Sequence[bytes]) -> dict[bytes, Rows]:
        there = [name for name in names if name in self.table]
        return dict(zip(there, self.table.rows(there, "x"), strict=True))


class NaiveKeeper:
    """One growing file of rows under its final name, and beside it one of their names."""

    def __init__(self, folder: Path) -> None:
        self.data, self.index = folder / "rows.bin", folder / "index.bin"

    def append(self, names: Sequence[bytes], rows: Rows) -> None:
        for path, more in ((self.data, rows.tobytes()), (self.index, b"".join(names))):
            with open(path, "ab") as f:
                f.write(more)
                f.flush()
                os.fsync(f.fileno())

    def found(self, names: Sequence[bytes]) -> dict[bytes, Rows]:
        if not self.index.exists():
            return {}
        index = np.fromfile(self.index, f"V{DIGEST_BYTES}").tolist()
        data = np.fromfile(self.data, np.uint32)
        rows = data[: len(data) // WIDTH * WIDTH].reshape(-1, WIDTH)
        return dict(zip(index, rows, strict=False))


@dataclass
class Tally:
    """What a hunt saw."""

    kills: int = 0
    in_append: int = 0
    acknowledged: int = 0  # rows
    lost: int = 0
    wrong: int = 0
    leftovers: int = 0  # temporary files of the killed
    seconds: float = 0.0

    @property
    def violations(self) -> int:
        return self.lost + self.wrong

    def shown(self) -> dict[str, object]:
        share = self.in_append / max(1, self.kills)
        return {
            "kills": self.kills,
            "within append": f"{share:.0%}",
            "rows acknowledged": self.acknowledged,
            "lost": self.lost,
            "wrong": self.wrong,
            "leftover .part": self.leftovers,
            "seconds": self.seconds,
        }


@dataclass
class Begun:
    """The batches that the writers of one table began, and those that were acknowledged."""

    batches: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)

    def next_batch(self) -> int:
        """The first that is not acknowledged: what was cut short is written again."""
        return next(i for i in range(len(self.batches) + 1) if i not in self.acknowledged)


def hunt(keeper: type[Keeper], kills: int, seed: int) -> Tally:
    """Kill writers until `kills` are dead, looking at the table after each."""
    rng, tally, start = np.random.default_rng(seed), Tally(), time.perf_counter()
    while tally.kills < kills:
        folder = Path(tempfile.mkdtemp(prefix="kill-store-"))
        try:
            begun = Begun()
            for _ in range(min(KILLS_PER_TABLE, kills - tally.kills)):
                writers = 2 if tally.kills % 10 == 9 else 1
                tally.in_append += kill(keeper, folder, begun, rng, writers)
                tally.kills += writers
                look(keeper, folder, begun, tally)
                if keeper is NaiveKeeper and tally.violations:
                    break  # from here on all rows are shifted: one finding a table is enough
            tally.acknowledged += len(begun.acknowledged) * ROWS
            tally.leftovers += sum(1 for _ in folder.rglob(f"{TEMPORARY}*"))
        finally:
            shutil.rmtree(folder)
    tally.seconds = time.perf_counter() - start
    return tally


BATCHES = 8  # of the table that bits are flipped in


@dataclass
class Flips:
    """What came of flipped bits, one after the other."""

    flips: int = 0
    passed_over: int = 0  # the shard was, and its rows appended again
    not_noticed: int = 0  # of these, and the rows right all the same
    different: int = 0  # rows that were wrong without a word
    seconds: float = 0.0


def flip_main(bench: Bench, count: int, seed: int) -> bool:
    """Flip bits with the check and without; whether something is wrong."""
    real, blind = flip(count, seed), flip(max(20, count // 10), seed, blind=True)
    rows = [{"check": "seals", **vars(real)}, {"check": "none", **vars(blind)}]
    bench.report(rows)
    good = real.different == 0 and real.passed_over == real.flips
    print("store:", "no silent difference" if good else "WRONG")
    print("none:", "caught" if blind.different else "NOT CAUGHT: this harness proves nothing")
    return not (good and blind.different)


def flip(count: int, seed: int, *, blind: bool = False) -> Flips:
    """Flip so many bits of a table's shards. blind: every shard is taken for intact."""
    rng, tally, start = np.random.default_rng(seed), Flips(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="flip-store-") as root:
        folder, names = Path(root), [n for batch in range(BATCHES) for n in names_of(batch)]
        for batch in range(BATCHES):
            StoreKeeper(folder).append(names_of(batch), rows_of(names_of(batch)))
        shards = sorted(folder.rglob("*.safetensors"))
        for _ in range(count):
            path = shards[rng.integers(len(shards))]
            whole = path.read_bytes()
            flipped, bit = bytearray(whole), int(rng.integers(8 * len(whole)))
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with taken_for_intact(blind):
                judge_flip(folder, names, tally)
            path.write_bytes(whole)
    tally.seconds = time.perf_counter() - start
    return tally


def judge_flip(folder: Path, names: Sequence[bytes], tally: Flips) -> None:
    """Look at the table as a new process would, append what it lacks, and look again."""
    tally.flips += 1
    found = StoreKeeper(folder).found(names)
    missing = [name for name in names if name not in found]
    right = all(np.array_equal(rows, rows_of([name])[0]) for name, rows in found.items())
    tally.passed_over += bool(missing)
    if missing:
        StoreKeeper(folder).append(missing, rows_of(missing))
    table = StoreKeeper(folder).table
    there = [name for name in names if name in table]
    read = table.reader(there, "x")[range(len(there))]
    right = right and len(there) == len(names) and np.array_equal(read, rows_of(there))
    tally.different += not right
    tally.not_noticed += right and not missing


@contextmanager
def taken_for_intact(blind: bool) -> Iterator[None]:
    """The control: no shard is checked against its name and seal."""
    before = StoredTable._intact

    def intact(table: StoredTable, path: Path, file: BinaryIO) -> bool:
        table._good[path] = Stamp.of(file)
        return True

    setattr(StoredTable, "_intact", intact if blind else before)  # noqa: B010
    try:
        yield
    finally:
        setattr(StoredTable, "_intact", before)  # noqa: B010


def kill(
    keeper: type[Keeper], folder: Path, begun: Begun, rng: np.random.Generator, writers: int
) -> int:
    """Let writers work for a random moment and kill them: how many died within an append."""
    first = begun.next_batch()
    children = [start_writer(keeper, folder, first) for _ in range(writers)]
    for _, pipe in children:
        select.select([pipe], [], [])  # its first append has begun
    time.sleep(rng.uniform(0, LONGEST_S))
    for pid, _ in children:
        os.kill(pid, signal.SIGKILL)
    within = 0
    for pid, pipe in children:
        os.waitpid(pid, 0)
        messages = list(drained(pipe))
        within += messages[-1][0] == BEGAN
        begun.batches.update(batch for _, batch in messages)
        begun.acknowledged.update(batch for what, batch in messages if what == RETURNED)
    return within


def start_writer(keeper: type[Keeper], folder: Path, first: int) -> tuple[int, int]:
    """A forked child that appends batch after batch until it is killed: its pid and its pipe."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writes)
        return pid, reads
    try:
        table = keeper(folder)
        for batch in range(first, 2**32):
            names = names_of(batch)
            rows = rows_of(names)
            os.write(writes, MESSAGE.pack(BEGAN, batch))
            table.append(names, rows)
            os.write(writes, MESSAGE.pack(RETURNED, batch))
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def drained(pipe: int) -> Iterator[tuple[int, int]]:
    with open(pipe, "rb") as f:
        yield from MESSAGE.iter_unpack(f.read())


def look(keeper: type[Keeper], folder: Path, begun: Begun, tally: Tally) -> None:
    """Open the table as a new process would and compare it with what must be in it."""
    promised = [name for batch in sorted(begun.acknowledged) for name in names_of(batch)]
    everything = [name for batch in sorted(begun.batches) for name in names_of(batch)]
    found = keeper(folder).found(everything)
    tally.lost += sum(name not in found for name in promised)
    if found:
        rows = np.stack(list(found.values()))
        tally.wrong += int((rows != rows_of(list(found))).any(axis=1).sum())


def names_of(batch: int) -> list[bytes]:
    return [digest(b"row %d of batch %d" % (i, batch)) for i in range(ROWS)]


def rows_of(names: Sequence[bytes]) -> Rows:
    """Any content will do that another row does not have: a line with the digest's slope."""
    seeds: Rows = np.frombuffer(b"".join(names), dtype=np.uint32).reshape(len(names), -1)
    steps = np.arange(1, WIDTH + 1, dtype=np.uint32)
    return np.asarray(seeds[:, :1] * steps + seeds[:, 1:2], np.uint32)


if __name__ == "__main__":
    main()
