"""Write an index: a Parquet file that lists where the examples of a data set lie.

DATA is a folder of files, tar shards, tables with the bytes of pictures or with texts, a folder
that `datasets` saved, the address of a folder of s3:// or gs://, or a list of addresses. No example
is decoded.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from headstart.backbones.inputs import Input, input_class
from headstart.base.arrow_files import ARROW, need_pyarrow
from headstart.base.atomic import writing
from headstart.base.display import display
from headstart.base.errors import DataError, SpecError
from headstart.base.location import WHOLE, is_url, stamp_of_file
from headstart.base.objects import WEB, ObjectFacts, check_url, head, list_objects
from headstart.base.paths import user_path
from headstart.data import finding
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.gathering import (
    Gathered,
    NamedLayout,
    Row,
    gather_tars,
    hidden,
    is_example,
    labelled_rows,
)
from headstart.data.index_file import ENDINGS, SLICE, IndexFacts, facts_of
from headstart.data.table_rows import (
    LABEL,
    TableReader,
    TableShard,
    is_saved_dataset,
    saved_shards,
    table_shards,
)
from headstart.data.walking import counted, passed_over
from headstart.modalities.reading import BESIDE, USUAL, folder_input, read_folder_as

TAR = ".tar"
LIST = ".txt"  # of addresses
TABLES = (*ENDINGS, ARROW)
FIRST = ("id", "source", "offset", "size", "column", "label", "part", "group", "stratum", "etag")


@dataclass(frozen=True)
class Indexed:
    """What `headstart index` wrote. kind: of the examples. labels, parts: rows of each; of
    several labels or numbers, {}. left_out: what is not an example, or can't be read."""

    path: Path
    rows: int
    kind: str
    labels: dict[str, int]
    parts: dict[str, int]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def noun(self) -> str:
        return input_class(self.kind).noun


@dataclass(frozen=True)
class IndexRequest:
    """What to index, and how.

    input: the kind of the examples, None for what the data shows. column, label: of tables, "" for
    the usual ones. labelled: whether rows without a label are left out.
    """

    source: str
    input: Input[Any] | None = None
    column: str = ""
    label: str = ""
    labelled: bool = True


@dataclass
class _Source:
    """Rows of an index. kind: of their examples. labels: the columns that may hold labels, ()
    without any. others: columns beside these and FIRST."""

    kind: str
    slices: Iterator[list[Row]]
    left_out: list[LeftOut]
    labels: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of the index, in order."""
        first = (name for name in FIRST if name != LABEL or LABEL in self.labels)
        return list(dict.fromkeys((*first, *self.labels, *self.others)))


def write_index(request: IndexRequest, out: Path) -> Indexed:
    """Write the index of a data set to a file, which replaces an earlier index there.

    Raises DataError if there are no examples, SpecError if `out` is no Parquet file or holds
    something else than an index, MissingPackage without pyarrow.
    """
    need_pyarrow("Writing an index")
    _check_out(out)
    found = _found(request)
    with writing(out) as file:
        writer = _Writer(file, out.parent.resolve(), found, request.labelled)
        for rows in found.slices:
            for start in range(0, len(rows), SLICE):
                writer.add(rows[start : start + SLICE])
        writer.close()
        if not writer.rows:
            raise DataError(_nothing(request, found))
    return Indexed(
        out,
        writer.rows,
        found.kind,
        dict(sorted(writer.labels.items())),
        dict(writer.parts),
        tuple(found.left_out),
    )


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in ENDINGS:
        raise SpecError(f"An index is a Parquet file; name --out with .parquet, not {out.name!r}.")
    if out.exists() and facts_of(out) is None:
        raise SpecError(f"{display(out)} is there already, and is no index: name another --out.")


def _nothing(request: IndexRequest, found: _Source) -> str:
    why = "; ".join(f"{item.path}: {item.reason}" for item in found.left_out[:3])
    unlabelled = " Rows without labels are indexed with --unlabelled." if request.labelled else ""
    return (
        f"There must be {'labelled ' if request.labelled else ''}examples in "
        f"{display(request.source)}; none were found{f' ({why})' if why else ''}.{unlabelled}"
    )


class _Writer:
    """Writes rows slice by slice, and counts them."""

    def __init__(self, file: Any, root: Path, found: _Source, labelled: bool) -> None:
        self.file, self.root, self.found, self.labelled = file, root, found, labelled
        self.rows, self.writer, self.schema = 0, None, None
        self.labels, self.parts = Counter[str](), Counter[str]()

    def add(self, rows: list[Row]) -> None:
        if self.labelled:
            rows = [row for row in rows if self._has_label(row)]
        if not rows:
            return
        import pyarrow

        writer = self.writer or self._open()
        for row in rows:
            row["source"] = self._relative(row["source"])
        writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=self.schema))
        self.rows += len(rows)
        self.labels.update(row["label"] for row in rows if row.get("label"))
        self.parts.update(row["part"] for row in rows if row.get("part"))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _has_label(self, row: Row) -> bool:
        if any(row.get(name) for name in self.found.labels):
            return True
        self.found.left_out.append(LeftOut(str(row["id"]), "without a label"))
        return False

    def _open(self) -> Any:
        import pyarrow
        from pyarrow import parquet

        types = dict.fromkeys(self.found.columns, pyarrow.string())
        types |= dict.fromkeys(("offset", "size"), pyarrow.int64())
        facts = IndexFacts(self.found.kind).packed()
        self.schema = pyarrow.schema(list(types.items()), metadata=facts)
        self.writer = parquet.ParquetWriter(self.file, self.schema, compression="zstd")
        return self.writer

    def _relative(self, source: str) -> str:
        """Return a path as it is relative to the index's folder, if it lies in it."""
        if is_url(source):
            return source
        path = Path(source)
        inside = path.is_relative_to(self.root)
        return display(path.relative_to(self.root) if inside else path)


def _found(request: IndexRequest) -> _Source:
    """Return the rows of a data set of any layout."""
    if is_url(request.source):
        return _of_objects(*_listed_under(request.source), request)
    path = user_path(request.source)
    if not path.exists():
        raise DataError(f"There is no folder or file {display(path)}. Check the path.")
    path = path.resolve()
    if path.suffix.lower() == LIST and path.is_file():
        urls = addresses_in(path)
        return _of_objects([*map(head, urls)], _common_folder(urls), request)
    if path.is_dir() and is_saved_dataset(path):
        left_out = list[LeftOut]()
        return _of_tables(saved_shards(path, left_out), request, left_out)
    shards = _shards(path)
    if shards and all(_ends(name, TAR) for name in shards):
        return _of_tars(shards, request)
    if shards and all(_ends(name, *TABLES) for name in shards):
        return _of_tables(table_shards(shards), request, [])
    if not path.is_dir():
        raise DataError(
            f"Indexed are folders, tar shards ({TAR}), tables ({', '.join(TABLES)}) and lists of "
            f"addresses ({LIST}); {display(path)} is another file."
        )
    return _of_folder(path, request)


def _shards(path: Path) -> dict[str, str]:
    """Return the tars, or else the tables, that a file or folder consists of; {} for others.

    A folder consists of them if it holds no more other files than descriptions of the data, and
    indexes that were written into it.
    """
    if path.is_file():
        return {path.name: str(path)}
    found, others = dict[str, str](), 0
    for place, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not passed_over(name))
        for own in (Path(place, name) for name in sorted(names) if not passed_over(name)):
            if _ends(own.name, TAR, *TABLES) and not _is_index(own):
                found[own.relative_to(path).as_posix()] = str(own)
            others += own.suffix.lower() in USUAL.suffixes
    tars = {name: own for name, own in found.items() if _ends(name, TAR)}
    return {} if others else tars or found


def _ends(name: str, *endings: str) -> bool:
    return name.lower().endswith(endings)


def _is_index(path: Path) -> bool:
    try:
        return facts_of(path) is not None
    except DataError:  # a damaged table, which is named when it is read
        return False


def _listed_under(url: str) -> tuple[list[ObjectFacts], str]:
    """Return a single shard at an address, or the objects below it, and the folder of their
    names."""
    if url.split("://")[0] in WEB:
        raise SpecError(
            f"A web server tells no list of its files: write their addresses into a text file, a "
            f"line each, and index that file ({LIST})."
        )
    own = url.rstrip("/")
    try:
        if _ends(own, TAR, *ENDINGS):
            return [head(own)], f"{own.rpartition('/')[0]}/"
        return list(list_objects(own)), f"{own}/"
    except DataError as error:
        raise DataError(f"{own}: {error}") from None


def addresses_in(path: Path) -> list[str]:
    """Return the addresses in a text file, one a line; blank lines and those after # are none.

    Raises DataError, with its line, for one that may hold a secret.
    """
    found = dict[str, int]()
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        if not (url := line.strip()) or url.startswith("#"):
            continue
        try:
            check_url(url)
        except DataError as error:
            raise DataError(f"{display(path)}, line {number}: {error}") from error
        found.setdefault(url, number)
    if not found:
        raise DataError(f"{display(path)} must list addresses, a line each; it has none.")
    return list(found)


def _of_objects(found: list[ObjectFacts], root: str, request: IndexRequest) -> _Source:
    """Return the rows of objects: tar shards, tables, or files by the folders in their names.

    root: the beginning of their addresses, which is no part of the names.
    """
    named, left_out = _named(found, root)
    own = request.input or USUAL
    if not _holds(named, own):
        shards = {name: each.url for name, each in named.items()}
        tars = {name: url for name, url in shards.items() if _ends(name, TAR)}
        tables = {name: url for name, url in shards.items() if _ends(name, *ENDINGS)}
        if tars:
            return _of_tars(tars, request, left_out)
        if tables:
            return _of_tables(table_shards(tables), request, left_out)
        text = input_class("text")()
        own = text if request.input is None and _holds(named, text) else own
    examples = {name: each for name, each in named.items() if is_example(name, own)}
    gathered = Gathered(left_out=left_out)
    gathered.add(
        [
            {"name": name, "source": each.url, "etag": each.stamp, "size": each.size}
            for name, each in examples.items()
        ]
    )
    if others := len(named) - len(examples):
        what = LeftOut(root, f"{others:,} objects are no examples: {own.unmeant}", expected=True)
        gathered.left_out.append(what)
    return _of_gathered(gathered, own, request)


def _named(found: list[ObjectFacts], root: str) -> tuple[dict[str, ObjectFacts], list[LeftOut]]:
    """Return objects by their names; those that are passed over by these are counted."""
    web = root.split("://")[0] in WEB
    named, passed = dict[str, ObjectFacts](), Counter[str]()
    for each in found:
        name = each.url.removeprefix(root)
        name = unquote(name) if web else name
        if why := hidden(name):
            passed[why] += 1
        else:
            named[name] = each
    return named, [LeftOut(root, counted(why, n), True) for why, n in passed.items()]


def _holds(names: Iterable[str], input: Input[Any]) -> bool:
    """Return whether there are examples among files, beside those that describe the data."""
    own = (PurePosixPath(name) for name in names if is_example(name, input))
    return any(name.stem.lower() not in BESIDE for name in own)


def _common_folder(urls: list[str]) -> str:
    """Return the beginning of addresses up to the last folder that all are in, with its slash."""
    return f"{os.path.commonprefix(urls).rpartition('/')[0]}/"


def _of_tars(
    shards: dict[str, str], request: IndexRequest, left_out: Sequence[LeftOut] = ()
) -> _Source:
    own = request.input or USUAL
    found = gather_tars(shards, own)
    text = input_class("text")()
    if not len(found) and request.input is None and len(texts := gather_tars(shards, text)):
        own, found = text, texts
    found.left_out += left_out
    return _of_gathered(found, own, request)


def _of_gathered(found: Gathered, input: Input[Any], request: IndexRequest) -> _Source:
    layout = NamedLayout.of(found, labelled=request.labelled)
    rows = labelled_rows(found, layout, labelled=request.labelled)
    labels = (LABEL,) if request.labelled or found.labelled else ()
    return _Source(input.kind, rows, found.left_out, labels)


def _of_tables(shards: list[TableShard], request: IndexRequest, left_out: list[LeftOut]) -> _Source:
    reader = TableReader(request.column, request.label, left_out)
    tables = reader.columns(shards)
    own = list(tables.values())
    return _Source(
        own[0].kind if own else "",
        reader.rows(tables, alone=len(shards) == 1),
        left_out,
        tuple(name for columns in own for name in columns.labels),
        tuple(name for columns in own for name in columns.copied),
    )


def _of_folder(path: Path, request: IndexRequest) -> _Source:
    own = request.input or folder_input(path)
    if request.labelled:
        data = read_folder_as(path, own)
        left_out = list(data.left_out)
    else:
        data, missing = finding.find([path], own)
        ids = tuple(display(source.relative_to(path)) for source in data.sources)
        data, left_out = replace(data, ids=ids), list(missing)
    labels = (LABEL,) if request.labelled else ()
    return _Source(own.kind, _rows_of(data, request.labelled), left_out, labels)


def _rows_of(data: Dataset, labelled: bool) -> Iterator[list[Row]]:
    """Yield the rows of a folder's files, slice by slice."""
    for start in range(0, len(data), SLICE):
        some = data[start : start + SLICE]
        labels = some.target.decode(some.y) if labelled else [None] * len(some)
        parts: Iterable[str] = some.parts or [""] * len(some)
        yield [
            {"id": id, "label": label, "part": part or None} | _place_of(source)
            for id, source, label, part in zip(some.ids, some.sources, labels, parts, strict=True)
        ]


def _place_of(source: Path) -> Row:
    """Return the cells of where a file lies; one below another file is read by its path alone."""
    try:
        stamp = stamp_of_file(source)
    except OSError:
        return {"source": str(source), "offset": WHOLE}
    return {"source": str(source), "etag": stamp, "size": int(stamp.partition("-")[0], 16)}
