"""The content of examples: detect files that change during a run, and exact copies."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import Batch, Input, fetched
from headstart.backbones.views import PLAIN, Views
from headstart.base.errors import DataError
from headstart.base.store import digest
from headstart.data.contents import Contents
from headstart.data.dataset import CheckedFile, Dataset, LeftOut

OTHER_BYTES = "it holds other bytes than when it was checked"
NAMED = 20  # pictures that a warning names
COPIES = 6  # rows that it names of each picture


def read_checked(input: Input[Any], source: Path | CheckedFile) -> tuple[bytes, bytes]:
    """Return the bytes of a file and their digest; raises DataError if the digest has changed."""
    file = CheckedFile.of(source)
    data = fetched(input, file.path)
    name = digest(data)
    if file.digest and name.hex() != file.digest:
        raise DataError(OTHER_BYTES)
    return data, name


def prepared(
    input: Input[Any], source: Path | CheckedFile, views: Views = PLAIN, number: int = 0
) -> Batch:
    """Return view `number` of a file as the network's input, a batch of 1.

    Raises OSError for an unreadable file, DataError for a damaged or changed one.
    """
    data, file = read_checked(input, source)
    return views.view(input.prepare(input.read(data)), file, number)


def changed_during_run(id: str, reason: object, others: int = 0) -> DataError:
    """Return the error for a file that has changed since the run checked it."""
    more = f", and {others:,} more" if others else ""
    return DataError(
        f"Files must stay as they are during a run, but {id} changed after it was checked "
        f"({reason}){more}. Run it again."
    )


def copies(data: Dataset) -> list[tuple[int, ...]]:
    """Return groups of rows with the same decoded content, ordered by their first row."""
    if isinstance(data.contents, Contents):
        return list(data.contents.copies())
    rows = defaultdict[str, list[int]](list)
    for row, content in enumerate(data.contents):
        if content.decoded:
            rows[content.decoded].append(row)
    return [tuple(group) for group in rows.values() if len(group) > 1]


def each_once(data: Dataset) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """Return the distinct examples, on which metrics and their intervals rest, and the other rows.

    Of exact copies (the same decoded content) the first row is kept; of copies with several labels
    none is, since no label is known to be right.
    """
    left_out = dict[int, LeftOut]()
    for first, *others in copies(data):
        labels = {data.labels[row] for row in (first, *others)}
        reason = f"an exact copy of {data.ids[first]}, which is counted once"
        if len(labels) > 1:
            reason = (
                f"the same {data.example} stands under {len(labels)} labels, so it judges nothing"
            )
            left_out[first] = LeftOut(data.ids[first], reason, expected=True)
        left_out |= {row: LeftOut(data.ids[row], reason, expected=True) for row in others}
    if not left_out:
        return data, ()
    kept = [row for row in range(len(data)) if row not in left_out]
    return data.take(kept), tuple(out for _, out in sorted(left_out.items()))


def with_two_labels(data: Dataset, groups: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the groups of rows that have more than one label."""
    return [group for group in groups if len({data.labels[row] for row in group}) > 1]


def two_labels_warning(data: Dataset, groups: Iterable[tuple[int, ...]]) -> str:
    """Return a warning that names the groups of copies with several labels; "" without any."""
    named = [_same_content(data, group) for group in with_two_labels(data, groups)]
    if not named:
        return ""
    some = f"{len(named):,} {data.examples} stand"
    if len(named) == 1:
        some = f"1 {data.example} stands"
    more = f"; and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    return (
        f"{some} under two labels or more, which misleads training and can judge nothing: "
        f"{'; '.join(named[:NAMED])}{more}. Keep each under its right label alone."
    )


def _same_content(data: Dataset, group: Sequence[int]) -> str:
    """Return the copies of one example with their labels, one row of each label first."""
    first = {data.labels[row]: row for row in reversed(group)}
    rows = [*sorted(first.values()), *(row for row in group if row not in first.values())]
    some = data.take(rows[:COPIES])
    named = zip(some.ids, some.target.brief(some.y), strict=True)
    shown = " = ".join(f"{id} ({label})" for id, label in named)
    return shown + (f" = … ({len(group)} rows)" if len(group) > COPIES else "")
