"""Places of examples whose labels follow their names, gathered as columns slice by slice."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from headstart.backbones.inputs import Input
from headstart.base.arrow_files import need_pyarrow
from headstart.base.cells import as_label
from headstart.base.display import display
from headstart.base.errors import DataError
from headstart.base.location import Location, open_source, stamp_of
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

    def places(self) -> Iterator[tuple[str, str]]:
        """Yield shard and name of each example; of an object of its own, "" and its name."""
        for batch in self.batches:
            shards, names = (batch.column(name).to_pylist() for name in ("shard", "name"))
            yield from zip((shard or "" for shard in shards), names, strict=True)

    @property
    def labelled(self) -> bool:
        """Whether some examples have labels of their own."""
        return any(batch.column("label").null_count < batch.num_rows for batch in self.batches)

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
    etag = stamp_of(Location(shard, source))
    found = _Members(shard, input, left_out)
    try:
        with open_source(source) as file:
            for member in members(file, int(etag.partition("-")[0], 16)):
                found.add(member, file)
    except DataError as error:
        left_out.append(LeftOut(shard, str(error)))
    for why, n in sorted(found.others.items()):
        left_out.append(LeftOut(shard, f"{n:,} members are no examples: {why}", expected=True))
    own = {"shard": shard, "source": source, "etag": etag}
    return [
        {"name": name, "offset": member.offset, "size": member.size}
        | {"label": found.labels.get(_stem(name)), **own}
        for name, member in found.examples.items()
    ]


@dataclass
class _Members:
    """The examples and labels of one tar, by names that begin with the folder of the tar.

    others: how many members are no examples, by the reason.
    """

    shard: str
    input: Input[Any]
    left_out: list[LeftOut]
    examples: dict[str, TarMember] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, member: TarMember, file: BinaryIO) -> None:
        """Add a member. file: the open tar, from which a label is read."""
        name = display(Path(PurePosixPath(self.shard).parent / member.name))
        if _is_label(member):
            data = _bytes_of(member, file)
            try:
                self.labels[_stem(name)] = as_label(data)
            except DataError as error:
                self.leave_out(member, f"the label {error}")
        elif why := _why_not(member, self.input):
            self.others[why] += 1
        elif member.fault:
            self.leave_out(member, member.fault)
        else:
            if name in self.examples:
                self.leave_out(member, REPLACED, expected=True)
            self.examples[name] = member

    def leave_out(self, member: TarMember, why: str, *, expected: bool = False) -> None:
        path = f"{self.shard}/{display(member.name)}"
        self.left_out.append(LeftOut(path, why, expected))


def _why_not(member: TarMember, input: Input[Any]) -> str:
    """Return why a member is not an example, by its name, or ""."""
    other = "" if is_example(member.name, input) else f"{input.unmeant} ({_ending(member.name)})"
    return hidden(member.name) or other


def hidden(name: str) -> str:
    """Return why a name is passed over, by that of its file or of one of its folders, or ""."""
    return next(filter(None, map(passed_over, PurePosixPath(name).parts)), "")


def is_example(name: str, input: Input[Any]) -> bool:
    """Return whether a name ends as those of examples do."""
    return _ending(name) in input.suffixes


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    """Return a name without its last ending, and no more: x.v1.png and x.v2.png are two."""
    return name[: len(name) - len(PurePosixPath(name).suffix)]


def _is_label(member: TarMember) -> bool:
    whole = member.size <= LONGEST_LABEL and not member.fault
    return PurePosixPath(member.name).suffix == LABEL and whole and not hidden(member.name)


def _bytes_of(member: TarMember, file: BinaryIO) -> bytes:
    if file.tell() != member.offset:  # an object asks again for what it has read ahead
        file.seek(member.offset)
    return file.read(member.size)


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """Return the part of each shard or table: that of its own name, such as
    "train-00000-of-00002.parquet", or else that of the nearest of its folders that is named as one.

    "" for all unless two parts are named.

    >>> parts_of(["a/train-000.tar", "a/val-000.tar"])
    {'a/train-000.tar': 'train', 'a/val-000.tar': 'val'}
    >>> parts_of(["train/0.tar", "test/0.tar"])
    {'train/0.tar': 'train', 'test/0.tar': 'test'}
    >>> parts_of(["train-000.tar", "train-001.tar"])
    {'train-000.tar': '', 'train-001.tar': ''}
    """
    found = {name: _part_of(PurePosixPath(name)) for name in names}
    return found if len({*found.values()} - {""}) > 1 else dict.fromkeys(found, "")


def _part_of(path: PurePosixPath) -> str:
    return next(filter(None, (_part_in(each.name) for each in (path, *path.parents))), "")


def _part_in(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    return next((PART_WORDS[word] for word in words if word in PART_WORDS), "")


@dataclass(frozen=True)
class NamedLayout:
    """Where the class folders are among gathered names; None if examples name their own labels.

    parts: of such examples, by their folders (`_folder_in`).
    """

    layout: FolderLayout | None
    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Gathered, *, labelled: bool) -> "NamedLayout":
        """Return the layout; raises DataError for an ambiguous one."""
        if found.labelled:
            return cls(None, parts_of({_folder_in(*place) for place in found.places()}))
        if not labelled:
            return cls(None)
        names = [PurePosixPath(name) for name in found.names()]
        folders = {above for name in names for above in name.parents if above.parts}
        layout = layout_of(map(Path, names), sorted(map(Path, folders)))
        found.left_out += layout.left_out
        return cls(layout)

    def place(self, name: str, shard: str, label: str) -> tuple[str, str] | str:
        """Return class and part of a name, or why it has none. label: the example's own."""
        if self.layout is None:
            return label, self.parts.get(_folder_in(shard, name), "")
        path = Path(name)
        base = self.layout.base(path)
        if base is None:
            return "not in one of the parts train, val and test"
        if base in self.layout.unlabelled:
            return ""  # counted in the layout's `left_out`
        if len(path.parts) <= len(base) + 1:
            return "in no class folder"
        return as_label(path.parts[len(base)]), self.layout.parts[base]


def _folder_in(shard: str, name: str) -> str:
    """Return the folder of a member as if its shard were a folder: "train/0.tar/inner"."""
    inner = name.removeprefix(f"{shard.rpartition('/')[0]}/")
    return f"{shard}/{inner}".rpartition("/")[0]


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
            placed = layout.place(name, shard or "", row["label"] or "")
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
