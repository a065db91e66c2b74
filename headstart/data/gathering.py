"""Places of examples whose labels follow their names, gathered as columns slice by slice."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.backbones.inputs import Input
from headstart.base.arrow_files import need_pyarrow
from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.location import Location, open_source, read_range, stamp_of
from headstart.base.tars import TarMember, members
from headstart.data.dataset import LeftOut
from headstart.data.layouts import PART_WORDS, FolderLayout, layout_of
from headstart.data.walking import passed_over

LABEL = ".cls"  # the ending of WebDataset's labels, beside the example of the same name
LONGEST_LABEL = 4096  # bytes
REPLACED = "a later member of the same name replaces it"
Row = dict[str, Any]  # the cells of one row of an index, by column
Named = Callable[[str], bool]  # whether a name is that of an example


@dataclass
class Gathered:
    """Places of examples by name, as Arrow batches of the columns in COLUMNS; `left_out`."""

    batches: list[Any] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of one shard, or a slice of other places."""
        arrow = need_pyarrow("Writing an index")
        if rows:
            self.batches.append(arrow.RecordBatch.from_pylist(rows, schema=_schema(arrow)))

    def names(self) -> Iterator[str]:
        return chain.from_iterable(batch.column("name").to_pylist() for batch in self.batches)

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


def _schema(arrow: Any) -> Any:
    texts = ("name", "shard", "source", "label", "part", "etag")
    numbers = ("offset", "size")
    return arrow.schema(
        [(name, arrow.string()) for name in texts] + [(name, arrow.int64()) for name in numbers]
    )


def gather_tars(shards: Mapping[str, str], input: Input[Any]) -> Gathered:
    """Return the examples in tar shards.

    shards: source of each by its name, relative to the data. A damaged shard is left out from its
    damage on, and named; the others are read.
    """
    found, parts = Gathered(), parts_of(shards)
    for shard, source in shards.items():
        try:
            rows = _shard(shard, source, input, found.left_out)
        except OSError as error:
            found.left_out.append(LeftOut(shard, f"cannot be read: {error.strerror or error}"))
            continue
        found.add([row | {"part": parts[shard]} for row in rows])
    return found


def _shard(shard: str, source: str, input: Input[Any], left_out: list[LeftOut]) -> list[Row]:
    """Return the rows of one tar; what is not an example in it is added to `left_out`."""
    etag, folder = stamp_of(Location(shard, source)), PurePosixPath(shard).parent
    rows, labels, others = dict[str, Row](), dict[str, str](), Counter[str]()
    try:
        with open_source(source) as file:
            for member in members(file, int(etag.partition("-")[0], 16)):
                if _is_label(member):
                    labels[_stem(member.name)] = _label_in(source, member)
                elif why := _why_not(member, input):
                    others[why] += 1
                elif member.fault:
                    left_out.append(LeftOut(f"{shard}/{display(member.name)}", member.fault))
                else:
                    name = display(Path(folder / member.name))
                    if name in rows:
                        left_out.append(LeftOut(f"{shard}/{name}", REPLACED, expected=True))
                    row = {"offset": member.offset, "size": member.size, "source": source}
                    rows[name] = row | {"name": name, "shard": shard, "etag": etag}
    except DataError as error:
        left_out.append(LeftOut(shard, str(error)))
    for why, n in sorted(others.items()):
        left_out.append(LeftOut(shard, f"{n:,} members are no examples: {why}", expected=True))
    for name, row in rows.items():
        row["label"] = labels.get(_stem(name.removeprefix(f"{folder.as_posix()}/")))
    return list(rows.values())


def _why_not(member: TarMember, input: Input[Any]) -> str:
    """Return why a member is not an example, by its name, or ""."""
    for part in PurePosixPath(member.name).parts:
        if why := passed_over(part):
            return why
    return "" if is_example(member.name, input) else f"{input.unmeant} ({_ending(member.name)})"


def is_example(name: str, input: Input[Any]) -> bool:
    """Return whether a name ends as those of examples do."""
    return _ending(name) in input.suffixes


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    """Return a name without its last ending, and no more: x.v1.png and x.v2.png are two."""
    return name[: len(name) - len(PurePosixPath(name).suffix)]


def _is_label(member: TarMember) -> bool:
    ending = PurePosixPath(member.name).suffix
    return ending == LABEL and member.size <= LONGEST_LABEL and not member.fault


def _label_in(source: str, member: TarMember) -> str:
    try:
        return as_label(read_range(source, member.offset, member.size))
    except DataError as error:
        raise DataError(f"the label in {display(member.name)} {error}") from error


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """Return the part that the name of each shard or table says: "train-00000-of-00002.parquet".

    "" for all unless two parts are named.

    >>> parts_of(["a/train-000.tar", "a/val-000.tar"])
    {'a/train-000.tar': 'train', 'a/val-000.tar': 'val'}
    >>> parts_of(["train-000.tar", "train-001.tar"])
    {'train-000.tar': '', 'train-001.tar': ''}
    """
    found = {name: _part_in(PurePosixPath(name).stem) for name in names}
    return found if len({*found.values()} - {""}) > 1 else dict.fromkeys(found, "")


def _part_in(stem: str) -> str:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((PART_WORDS[word] for word in words if word in PART_WORDS), "")


@dataclass(frozen=True)
class NamedLayout:
    """Where the class folders are among gathered names; None if examples name their own labels."""

    layout: FolderLayout | None

    @classmethod
    def of(cls, found: Gathered, *, labelled: bool) -> "NamedLayout":
        """Return the layout; raises DataError for an ambiguous one."""
        own = any(batch.column("label").null_count < batch.num_rows for batch in found.batches)
        if own or not labelled:
            return cls(None)
        names = [PurePosixPath(name) for name in found.names()]
        folders = {above for name in names for above in name.parents if above.parts}
        layout = layout_of(map(Path, names), sorted(map(Path, folders)))
        found.left_out += layout.left_out
        return cls(layout)

    def place(self, name: str) -> tuple[str, str] | str:
        """Return class and part of a name, or why it has none."""
        assert self.layout is not None
        path = Path(name)
        base = self.layout.base(path)
        if base is None:
            return "not in one of the parts train, val and test"
        if base in self.layout.unlabelled:
            return ""  # counted in the layout's `left_out`
        if len(path.parts) <= len(base) + 1:
            return "in no class folder"
        return as_label(path.parts[len(base)]), self.layout.parts[base]


def labelled_rows(
    found: Gathered, layout: NamedLayout, *, labelled: bool = True
) -> Iterator[list[Row]]:
    """Yield the rows of an index, batch by batch, with what their names say of label and part.

    Names that occur in several shards are told apart by the shard's name before them.
    """
    times = _repeated(found)
    for batch in found.batches:
        rows = list[Row]()
        for row in batch.to_pylist():
            name, shard = row.pop("name"), row.pop("shard")
            placed: tuple[str, str] | str = (row["label"] or "", row["part"] or "")
            if layout.layout is not None:
                placed = layout.place(name)
            if isinstance(placed, str) or (labelled and not placed[0]):
                why = placed if isinstance(placed, str) else "without a label beside it"
                found.left_out += [LeftOut(name, why)] if why else []
                continue
            own = f"{shard}/{name}" if shard and name in times else name
            row |= {"id": own, "label": placed[0] or None, "part": placed[1] or row["part"]}
            rows.append(row)
        yield rows


def _repeated(found: Gathered) -> set[str]:
    """Return the names that occur more than once."""
    seen, twice = set[int](), defaultdict[int, int](int)
    for name in found.names():
        key = hash(name)
        twice[key] += key in seen
        seen.add(key)
    keys = {key for key, n in twice.items() if n}
    return {name for name in found.names() if hash(name) in keys}
