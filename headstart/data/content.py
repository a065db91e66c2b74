"""What examples hold: a file that is read again must be unchanged, and exact copies count once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from headstart.backbones.inputs import Batch, Input
from headstart.backbones.views import PLAIN, Views
from headstart.base.errors import DataError
from headstart.base.store import digest
from headstart.data.dataset import CheckedFile, Dataset, LeftOut

OTHER_BYTES = "it holds other bytes than when it was checked"
NAMED = 20  # pictures under two labels that a warning names
COPIES = 6  # rows named of each of them


def read_checked(input: Input[Any], source: Path | CheckedFile) -> tuple[bytes, bytes]:
    """The bytes of a file and their digest; raises DataError if they are not those checked."""
    file = CheckedFile.of(source)
    data = input.fetch(file.path)
    name = digest(data)
    if file.digest and name.hex() != file.digest:
        raise DataError(OTHER_BYTES)
    return data, name


def prepared(
    input: Input[Any], source: Path | CheckedFile, views: Views = PLAIN, number: int = 0
) -> Batch:
    """View `number` of a file as the network is given it, a batch of 1; raises OSError, or
    DataError also for a file that changed since it was checked."""
    data, file = read_checked(input, source)
    return views.view(input.prepare(input.read(data)), file, number)


def changed_during_run(id: str, reason: object, others: int = 0) -> DataError:
    """The error for a file that is not, or no longer, what the checks of a run found."""
    more = f", and {others:,} more" if others else ""
    return DataError(
        f"Files must stay as they are during a run, but {id} changed after it was checked "
        f"({reason}){more}. Run it again."
    )


def copies(data: Dataset) -> list[tuple[int, ...]]:
    """Groups of rows with the same decoded pixels, by their first row; none if not known."""
    rows = defaultdict[str, list[int]](list)
    for row, content in enumerate(data.contents):
        if content.decoded:
            rows[content.decoded].append(row)
    return [tuple(group) for group in rows.values() if len(group) > 1]


def each_once(data: Dataset) -> tuple[Dataset, tuple[LeftOut, ...]]:
    """The rows to judge by, and the others: a figure with its interval rests on distinct examples.

    Of exact copies (the same decoded pixels) the first row stays; of those under several labels
    none does, since none of the labels is known to be right.
    """
    left_out = dict[int, LeftOut]()
    for first, *others in copies(data):
        labels = {data.labels[row] for row in (first, *others)}
        reason = f"an exact copy of {data.ids[first]}, which is counted once"
        if len(labels) > 1:
            reason = f"the same picture stands under {len(labels)} labels, so it judges nothing"
            left_out[first] = LeftOut(data.ids[first], reason, expected=True)
        left_out |= {row: LeftOut(data.ids[row], reason, expected=True) for row in others}
    if not left_out:
        return data, ()
    kept = [row for row in range(len(data)) if row not in left_out]
    return data.take(kept), tuple(out for _, out in sorted(left_out.items()))


def two_labels_warning(data: Dataset, groups: Iterable[Sequence[int]]) -> str:
    """A sentence that names groups of rows which are one picture under several labels; "" if there
    is none."""
    named = [_same_picture(data, group) for group in groups]
    if not named:
        return ""
    some = "1 picture stands" if len(named) == 1 else f"{len(named):,} pictures stand"
    more = f"; and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    return (
        f"{some} under two labels or more, which misleads training and can judge nothing: "
        f"{'; '.join(named[:NAMED])}{more}. Keep each under its right label alone."
    )


def _same_picture(data: Dataset, group: Sequence[int]) -> str:
    """The rows of one picture with their labels, those of a new label first."""
    first = {data.labels[row]: row for row in reversed(group)}
    rows = [*sorted(first.values()), *(row for row in group if row not in first.values())]
    some = data.take(rows[:COPIES])
    named = zip(some.ids, some.target.decode(some.y), strict=True)
    shown = " = ".join(f"{id} ({label})" for id, label in named)
    return shown + (f" = … ({len(group)} rows)" if len(group) > COPIES else "")
