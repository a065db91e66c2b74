"""What is wrong with the data, found before any training.

`survey` looks at every file once and remembers it, `check` turns what was seen into findings, and
`good_rows` takes what a model can be made from, or refuses.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, SpecError
from headstart.base.grouping import groups
from headstart.base.store import DIGEST_BYTES, Layout, Store, StoredTable, digest
from headstart.base.threads import ordered_map
from headstart.base.values import fingerprint
from headstart.data.content import two_labels_warning
from headstart.data.dataset import Content, Dataset, LeftOut
from headstart.data.findings import AlikePair, Findings, Group, OddSize, TwoLabels
from headstart.data.readers import EMPTY_CLASS
from headstart.data.walking import about_links
from headstart.modalities.images import decoding
from headstart.modalities.images import likeness as duplicates
from headstart.modalities.images.decoding import decode, read_file, store_key
from headstart.modalities.images.likeness import Pair, near_duplicates, thumbnail

VERSION = 1  # raise it when the same pixels would give other facts
SHARD = 512  # rows that are stored together
SMALL = 32  # pixels: a shorter side below that has little to see
LONG = 4.0  # longer to shorter side: a crop or squash loses most of it
FAR = 16.0  # times more or fewer pixels than the median picture
UNEVEN = 10.0  # largest to smallest class: accuracy alone misleads from here on
FEW = 5  # examples named in a table or a message

LAYOUT: Layout = {
    "pixels": (np.uint8, (DIGEST_BYTES,)),
    "sizes": (np.int32, (2,)),
    "thumbs": (np.uint8, (duplicates.SIDE, duplicates.SIDE)),
}

Facts = dict[str, NDArray[np.generic]]  # one row's entries of the columns below


@dataclass(frozen=True)
class CheckPlan:
    """What is still good enough."""

    max_bad: Annotated[float, "share of a class's files that may be unreadable"] = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise SpecError(f"max_bad is a share from 0 to 1; got {self.max_bad}.")


@dataclass(frozen=True, eq=False)
class Survey:
    """What was seen of each of a dataset's N rows; a row in `errors` has zeros elsewhere.

    files, pixels: (N, 16) uint8, digests of the bytes and of the decoded pixels. sizes: (N, 2)
    int32, width and height. thumbs: (N, SIDE, SIDE) uint8 grey. errors: row -> why it can't be
    read. decoded: how many files were decoded; the others were known from before.
    """

    files: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    thumbs: NDArray[np.uint8]
    errors: dict[int, str]
    decoded: int

    @classmethod
    def blank(cls, n: int) -> "Survey":
        thumbs = np.zeros((n, duplicates.SIDE, duplicates.SIDE), np.uint8)
        files, pixels = (np.zeros((n, DIGEST_BYTES), np.uint8) for _ in range(2))
        return cls(files, pixels, np.zeros((n, 2), np.int32), thumbs, {}, 0)

    @property
    def good(self) -> NDArray[np.intp]:
        """The rows that can be read."""
        return np.array([i for i in range(len(self.sizes)) if i not in self.errors], np.intp)

    def content(self, row: int) -> Content:
        """What a row's file holds; nothing is known of one that can't be read."""
        if row in self.errors:
            return Content()
        return Content(self.files[row].tobytes().hex(), self.pixels[row].tobytes().hex())


@dataclass(frozen=True, eq=False)
class _Look:
    """One file as a thread saw it: its digest and facts, if they are new, or why there are none.

    key: the name of its facts in the store (`decoding.store_key`).
    """

    name: bytes = b""
    key: bytes = b""
    facts: Facts | None = None
    error: str = ""


def survey(
    dataset: Dataset,
    *,
    store: Store | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Decode every file once and note what it shows; with a store, never again for the same bytes.

    Files are held one at a time by each of `threads`; a row's facts are 4 kB. Bad files are not
    remembered. Raises StoreError when the store can't be written.
    """
    table = store.table(_table_name(), LAYOUT) if store else None
    seen, names, fresh = Survey.blank(len(dataset)), list[bytes](), dict[bytes, Facts]()
    decoded = 0
    looks = ordered_map(
        lambda source: _look(source, table), dataset.sources, threads=threads, ahead=4 * threads
    )
    try:
        for i, look in enumerate(looks):
            names.append(look.key)
            if look.error:
                seen.errors[i] = look.error
            if look.name:
                seen.files[i] = np.frombuffer(look.name, np.uint8)
            if look.facts is not None:
                decoded += 1
                fresh[look.key] = look.facts
                _note(seen, i, look.facts)
            if len(fresh) >= SHARD:
                _remember(table, fresh)
            if progress:
                progress(i + 1, len(dataset))
    finally:
        looks.close()
        _remember(table, fresh)  # what was seen is kept, whatever stopped us
    if table is not None:
        _recall(seen, table, names)
    return replace(seen, decoded=decoded)


def _table_name() -> str:
    return fingerprint("survey", VERSION, decoding.VERSION, duplicates.VERSION)


def _look(source: Path, table: StoredTable | None) -> _Look:
    try:
        data = read_file(source)
        name = digest(data)
        key = store_key(data, name)
        if table is not None and key in table:
            return _Look(name, key)
        return _Look(name, key, _facts(decode(data)))
    except DataError as error:
        return _Look(error=str(error))
    except OSError as error:
        return _Look(error=f"cannot be read: {error.strerror or error}")


def _facts(pixels: decoding.Pixels) -> Facts:
    height, width, _ = pixels.shape
    name = digest(np.array(pixels.shape, np.int64).tobytes(), np.ascontiguousarray(pixels).data)
    return {
        "pixels": np.frombuffer(name, np.uint8),
        "sizes": np.array([width, height], np.int32),
        "thumbs": thumbnail(pixels),
    }


def _note(seen: Survey, row: int, facts: Facts) -> None:
    for column, value in facts.items():
        getattr(seen, column)[row] = value


def _remember(table: StoredTable | None, fresh: dict[bytes, Facts]) -> None:
    """Store the facts that are new, and forget them here."""
    if table is not None and fresh:
        columns = {
            column: np.stack([facts[column] for facts in fresh.values()])
            for column in ("pixels", "sizes", "thumbs")
        }
        names = list(fresh)
        fresh.clear()
        table.append(names, columns)
    fresh.clear()


def _recall(seen: Survey, table: StoredTable, names: Sequence[bytes]) -> None:
    """Fill in, a shard's worth at a time, the rows that were known before."""
    blank = [i for i, name in enumerate(names) if name and not seen.sizes[i].any()]
    for start in range(0, len(blank), SHARD):
        rows = blank[start : start + SHARD]
        for column in ("pixels", "sizes", "thumbs"):
            getattr(seen, column)[rows] = table.rows([names[i] for i in rows], column)


def good_rows(dataset: Dataset, seen: Survey, plan: CheckPlan | None = None) -> Dataset:
    """The rows that can be read, and only the classes that have one: what a model is made from.

    Raises DataError when no file can be read, when more than `plan.max_bad` of a class can't, or
    when fewer than two classes are left.
    """
    plan = plan or CheckPlan()
    if len(seen.good) == 0:
        raise DataError(
            f"None of the {len(dataset)} images can be read. The first: "
            f"{dataset.ids[0]} ({seen.errors[0]})."
        )
    _refuse_bad_classes(dataset, seen, plan.max_bad)
    rows = _readable(dataset, seen)
    if len(names := rows.target.stratum_names) == 1:
        raise DataError(
            f"At least two classes with readable images are needed to tell them apart; "
            f"there is {names[0]!r} only.{_about_inner_folders(rows)}"
            f"{about_links(dataset.left_out)}"
        )
    rows.target.check_names()
    return rows


def _about_inner_folders(rows: Dataset) -> str:
    """A sentence on the folders in the only class, after a blank: they may be meant; or nothing."""
    tops = {Path(name).parts[:-2] for name in rows.ids}
    inner = sorted({Path(name).parts[-2] for name in rows.ids if len(Path(name).parts) > 2})
    if len(tops) > 1 or len(inner) < 2:
        return ""
    named = ", ".join(inner[:3]) + (", …" if len(inner) > 3 else "")
    return f" If the folders in it are the classes ({named}), name the folder that holds them."


def with_contents(dataset: Dataset, seen: Survey) -> Dataset:
    """The same rows with what each file holds; nothing is known of those that can't be read."""
    return replace(dataset, contents=tuple(map(seen.content, range(len(dataset)))))


def _refuse_bad_classes(dataset: Dataset, seen: Survey, max_bad: float) -> None:
    """Files that a manifest lists and that are not there count as bad, too."""
    bad = defaultdict[str, list[str]](list)
    labels = _stratum_of_rows(dataset)
    for row in sorted(seen.errors):
        bad[labels[row]].append(f"{dataset.ids[row]} ({seen.errors[row]})")
    for item in dataset.left_out:
        if item.label:
            bad[item.label].append(f"{item.path} ({item.reason})")
    announced = Counter(item.label for item in dataset.left_out if item.label)
    there = Counter(labels)
    for label, named in bad.items():
        total = there[label] + announced[label]
        if len(named) > max_bad * total:
            share = np.ceil(1000 * len(named) / total) / 1000
            raise DataError(
                f"At most {max_bad:.1%} of {'a class' if label else 'the images'} may be "
                f"unreadable, but {len(named)} of {total} "
                f"{f'images of {label!r}' if label else 'images'} are. The first: "
                f"{'; '.join(named[:FEW])}. Repair or remove them, or allow this with "
                f"--max-bad {share:.3g}."
            )


def _readable(dataset: Dataset, seen: Survey) -> Dataset:
    rows = with_contents(dataset, seen).take(seen.good)
    target, labels = rows.target.present(rows.labels)
    return replace(rows, target=target, labels=labels)


def _stratum_of_rows(dataset: Dataset) -> list[str]:
    """The name of each row's stratum, such as its class; "" where strata have no names."""
    names = dataset.target.stratum_names
    return [names[s] if names else "" for s in dataset.target.strata(dataset.y)]


@dataclass(frozen=True, eq=False)
class Checks:
    """What was found. Row numbers count the readable rows, those of `dataset`.

    counts: rows of each class, unreadable ones included. exact: groups of rows with the same
    decoded pixels. near: pairs of rows (of an exact group, its first) that look the same.
    skipped: what the reader left out.
    """

    dataset: Dataset
    counts: dict[str, int]
    unreadable: tuple[LeftOut, ...]
    skipped: tuple[LeftOut, ...]
    exact: tuple[tuple[int, ...], ...]
    near: tuple[Pair, ...]
    odd_sizes: tuple[OddSize, ...]

    def confirmed(self, features: NDArray[np.float32]) -> "Checks":
        """The same with only those near duplicates whose features (N, D) agree too."""
        return replace(self, near=duplicates.confirmed(self.near, features))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return (*self.unreadable, *self.skipped)

    @property
    def together(self) -> tuple[tuple[int, ...], ...]:
        """Rows that must not be split apart: `split(dataset, together=…)`."""
        return groups([*self.exact, *((p.a, p.b) for p in self.near)])

    @property
    def near_groups(self) -> tuple[tuple[int, ...], ...]:
        return groups([(p.a, p.b) for p in self.near])

    @property
    def exact_two_labels(self) -> tuple[tuple[int, ...], ...]:
        """Groups of the very same picture under more than one label."""
        return tuple(g for g in self.exact if len({self.dataset.labels[i] for i in g}) > 1)

    @property
    def warning(self) -> str:
        """A sentence that names pictures under several labels; "" if there are none."""
        return two_labels_warning(self.dataset, self.exact_two_labels)

    @property
    def near_two_labels(self) -> tuple[Pair, ...]:
        """Near duplicates under two labels."""
        labels = self.dataset.labels
        return tuple(p for p in self.near if labels[p.a] != labels[p.b])

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Folders of classes without an image, and classes without a readable one."""
        empty = [out.path for out in self.skipped if out.reason == EMPTY_CLASS]
        return (*empty, *(name for name in self.counts if name not in self.dataset.counts))

    @property
    def one_image_classes(self) -> tuple[str, ...]:
        """Classes with one image: not measured in parts that the data names, refused without."""
        return tuple(name for name, n in self.dataset.counts.items() if n == 1)

    @property
    def imbalance(self) -> float:
        """Rows of the largest class for one of the smallest."""
        counts = self.dataset.counts.values()
        return max(counts) / min(counts) if counts else 1.0

    @property
    def findings(self) -> Findings:
        """Everything found, with ids in place of row numbers."""
        return Findings(
            rows=len(self.dataset),
            counts=self.counts,
            readable=self.dataset.counts,
            unreadable=self.unreadable,
            left_out=self.skipped,
            exact_duplicates=self._named(self.exact),
            near_duplicates=self._named(self.near_groups),
            near_pairs=self._alike(self.near),
            two_labels=TwoLabels(
                self._named(self.exact_two_labels), self._alike(self.near_two_labels)
            ),
            empty_classes=self.empty_classes,
            one_image_classes=self.one_image_classes,
            imbalance=round(self.imbalance, 3),
            odd_sizes=self.odd_sizes,
        )

    def to_plain(self) -> dict[str, Any]:
        """The findings, ready for JSON."""
        return self.findings.to_plain()

    def table(self) -> list[tuple[str, str, str]]:
        """One row for each kind of finding: what, how much of it, and examples."""
        ids = self.dataset.ids
        rows = [
            ("images", f"{len(self.dataset):,}", _balance(self)),
            ("unreadable", *_examples([f"{o.path}: {o.reason}" for o in self.unreadable])),
            ("not used", *_examples([f"{o.path}: {o.reason}" for o in self.skipped])),
            ("exact duplicates", *_examples([_same(ids, g) for g in self.exact])),
            ("near duplicates", *_examples([_same(ids, g) for g in self.near_groups])),
            ("exact, two labels", *_examples([_same(ids, g) for g in self.exact_two_labels])),
            (
                "near, two labels",
                *_examples([_same(ids, (p.a, p.b)) for p in self.near_two_labels]),
            ),
            ("empty classes", *_examples(self.empty_classes)),
            ("one-image classes", *_examples(self.one_image_classes)),
            (
                "odd sizes",
                *_examples([f"{s.path}: {s.width}x{s.height}, {s.reason}" for s in self.odd_sizes]),
            ),
        ]
        return [row for row in rows if row[1] != "0" or row[0] in ("images", "unreadable")]

    def _named(self, groups: Sequence[Sequence[int]]) -> tuple[Group, ...]:
        return tuple(tuple(self.dataset.ids[i] for i in group) for group in groups)

    def _alike(self, pairs: Sequence[Pair]) -> tuple[AlikePair, ...]:
        return tuple((self.dataset.ids[p.a], self.dataset.ids[p.b], p.likeness) for p in pairs)


def check(dataset: Dataset, seen: Survey, *, threads: int = 1) -> Checks:
    """What was found in the data, whether or not a model can come from it."""
    rows = _readable(dataset, seen)
    exact = _exact(seen.pixels[seen.good])
    return Checks(
        dataset=rows,
        counts=dataset.counts,
        unreadable=tuple(LeftOut(dataset.ids[i], why) for i, why in sorted(seen.errors.items())),
        skipped=dataset.left_out,
        exact=exact,
        near=_near(seen, exact, threads),
        odd_sizes=tuple(_odd_sizes(rows, seen.sizes[seen.good])),
    )


def _exact(pixels: NDArray[np.uint8]) -> tuple[tuple[int, ...], ...]:
    rows = defaultdict[bytes, list[int]](list)
    for i, name in enumerate(pixels):
        rows[name.tobytes()].append(i)
    return tuple(tuple(group) for group in rows.values() if len(group) > 1)


def _near(seen: Survey, exact: tuple[tuple[int, ...], ...], threads: int) -> tuple[Pair, ...]:
    """Near duplicates among the readable rows, exact copies counted once."""
    copies = {i for _, *others in exact for i in others}
    rows = np.array([i for i in range(len(seen.good)) if i not in copies], np.intp)
    pairs = near_duplicates(seen.thumbs[seen.good[rows]], threads=threads)
    return tuple(Pair(int(rows[p.a]), int(rows[p.b]), p.likeness) for p in pairs)


def _odd_sizes(rows: Dataset, sizes: NDArray[np.int32]) -> Iterator[OddSize]:
    area = sizes.astype(np.int64).prod(axis=1)
    median = float(np.median(area)) if len(area) else 1.0
    for name, (width, height), pixels in zip(rows.ids, sizes.tolist(), area.tolist(), strict=True):
        short, long = sorted((width, height))
        if short < SMALL:
            yield OddSize(name, width, height, f"a side of less than {SMALL} pixels")
        elif long > LONG * short:
            yield OddSize(name, width, height, f"more than {LONG:.0f} times as long as wide")
        elif not median / FAR <= pixels <= median * FAR:
            yield OddSize(name, width, height, "far from the usual size here")


def _balance(found: Checks) -> str:
    if not (counts := found.dataset.counts):
        return f"{len(found.dataset):,} rows"
    text = f"in {len(counts)} classes: {_counts(counts)}"
    if found.imbalance < UNEVEN:
        return text
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return (
        f"{text}; uneven, {counts[large]:,} of {large!r} and {counts[small]:,} of {small!r}: "
        f"look at balanced accuracy"
    )


def _counts(counts: dict[str, int], most: int = 6) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {n:,}" for name, n in largest[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _examples(found: Sequence[str]) -> tuple[str, str]:
    """How many, and the first few."""
    more = "; …" if len(found) > 2 else ""
    return f"{len(found):,}", "; ".join(found[:2]) + more


def _same(ids: Sequence[str], group: Sequence[int]) -> str:
    more = f" = … ({len(group)})" if len(group) > 2 else ""
    return " = ".join(ids[i] for i in group[:2]) + more
