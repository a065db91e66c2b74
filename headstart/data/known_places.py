"""Digests of examples at places that have not changed, so that their bytes are not read again.

The store remembers them by the place and by its stamp: size and modification time, or ETag. They
identify nothing: what is computed is kept by the digest of the bytes, wherever these lie.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np

from headstart.backbones.inputs import Input
from headstart.base.errors import DataError, StoreError
from headstart.base.location import Location, stamp_of
from headstart.base.store import DIGEST_BYTES, Layout, Store, StoredTable, digest
from headstart.base.values import fingerprint

VERSION = 1
SHARD = 4096  # places that are written to the store together
SLICE = 1024  # places that are looked up together
RACY_NS = 2 * 10**9  # a file changed later than this may change again and keep its stamp


T = TypeVar("T")


class KnownBytes(NamedTuple):
    """The digest of an example's bytes, and its key in the store (`Input.store_key`)."""

    file: bytes
    key: bytes


class KnownPlaces:
    """What the store remembers of places; nothing without a store, or of files that are named by
    their paths alone.

    With `Store.reread` nothing is remembered, and a place whose bytes have changed under the same
    stamp is never trusted again.
    """

    def __init__(self, store: Store | None, input: Input[Any]) -> None:
        self.store, self.kind = store, input.kind
        self.fresh = dict[bytes, KnownBytes]()
        self.ahead = dict[bytes, KnownBytes | None]()  # of the places that are asked for next
        self.lock = Lock()
        self.tables: tuple[StoredTable, StoredTable] | None = None

    def _opened(self, store: Store) -> tuple[StoredTable, StoredTable]:
        """Return the tables of known and of doubted places, opened when first needed."""
        with self.lock:
            if self.tables is None:
                entry = (np.uint8, (DIGEST_BYTES,))
                layout: Layout = {"file": entry, "key": entry}
                name = fingerprint("places", VERSION, self.kind)
                self.tables = (
                    store.table(f"places-{name}", layout),
                    store.table(f"places-doubted-{name}", layout),
                )
            return self.tables

    def of(self, source: Any) -> KnownBytes | None:
        """Return what is known of a place that has not changed; raises OSError if the shard or
        table that holds the example is gone."""
        if self.store is None or self.store.reread or not isinstance(source, Location):
            return None
        stamp = _stamp_if_any(source)
        return self._remembered(self.store, _key(source, stamp)) if _may_trust(stamp) else None

    def looked_up(self, sources: Iterable[T]) -> Iterator[list[T]]:
        """Yield slices of the sources, once what is known of their places was read together.

        They are paths, places or what has one as its `path`.
        """
        sources, before = iter(sources), dict[bytes, KnownBytes | None]()
        while some := list(islice(sources, SLICE)):
            own = self._known_of([getattr(each, "path", each) for each in some])
            self.ahead, before = before | own, own  # threads are still at the slice before
            yield some

    def _known_of(self, places: list[Any]) -> dict[bytes, KnownBytes | None]:
        """Return what is known of each place that has not changed, by its key."""
        if self.store is None or self.store.reread:
            return {}
        keys = list[bytes]()
        for place in places:
            if isinstance(place, Location):
                with suppress(OSError, DataError):  # named when it is read
                    stamp = stamp_of(place)
                    keys += [_key(place, stamp)] if _may_trust(stamp) else []
        if not keys:
            return {}
        known, doubted = self._opened(self.store)
        found: dict[bytes, KnownBytes | None] = dict.fromkeys(keys)
        with suppress(StoreError, KeyError):  # damaged since: each is looked up by itself
            there = [keys[i] for i in np.flatnonzero(known.has(keys) & ~doubted.has(keys)).tolist()]
            files, names = (known.rows(there, column) for column in ("file", "key"))
            for key, file, name in zip(there, files, names, strict=True):
                found[key] = KnownBytes(file.tobytes(), name.tobytes())
            return found
        return {}

    def _remembered(self, store: Store, key: bytes) -> KnownBytes | None:
        known, doubted = self._opened(store)
        with self.lock:
            if found := self.fresh.get(key):
                return found
        if key in self.ahead:
            return self.ahead[key]
        if key not in known or key in doubted:
            return None
        return KnownBytes(*(known.rows([key], column)[0].tobytes() for column in ("file", "key")))

    def learn(self, source: Any, found: KnownBytes) -> None:
        """Remember the digests of a place that was read."""
        if self.store is None or not isinstance(source, Location):
            return
        stamp = _stamp_if_any(source)
        if not _may_trust(stamp) or (not source.is_remote and _is_racy(stamp)):
            return
        key = _key(source, stamp)
        known, doubted = self._opened(self.store)
        new = key in self.ahead and self.ahead[key] is None  # looked up with its slice
        before = None if new or key not in known else self._remembered(self.store, key)
        with self.lock:
            if new or (before is None and key not in known):
                self.fresh[key] = found
            full = len(self.fresh) >= SHARD
        if before is not None and before != found:
            _append(doubted, {key: found})
        if full:
            self.save()

    def save(self) -> None:
        """Write what was learned to the store; raises StoreError if it can't be written."""
        with self.lock:
            fresh, self.fresh = self.fresh, {}
        if fresh and self.store is not None:
            _append(self._opened(self.store)[0], fresh)


def _stamp_if_any(place: Location) -> str:
    """Return the stamp of a place, "" for a file on this machine that has none.

    A picture of CIFAR-10 or MNIST is named by a path below the file that holds it. Of a missing
    file nothing is known, and it is named when it is read. Raises OSError for a missing shard.
    """
    try:
        return stamp_of(place)
    except OSError:
        if place.is_file:
            return ""
        raise


def _may_trust(stamp: str) -> bool:
    """Return whether a stamp has an ETag or a modification time beside the size."""
    return bool(stamp) and not stamp.endswith("-")


def _is_racy(stamp: str) -> bool:
    """Return whether a file may change again and keep this stamp."""
    return time.time_ns() - int(stamp.partition("-")[2], 16) < RACY_NS


def _append(table: StoredTable, rows: dict[bytes, KnownBytes]) -> None:
    columns = {
        column: np.frombuffer(b"".join(getattr(known, column) for known in rows.values()), np.uint8)
        for column in ("file", "key")
    }
    shaped = {name: values.reshape(len(rows), DIGEST_BYTES) for name, values in columns.items()}
    table.append(list(rows), shaped)


def _key(place: Location, stamp: str) -> bytes:
    parts = [place.source, str(place.offset), str(place.size), place.column, stamp]
    if place.column:  # an older index of a table that was written anew must not find its rows
        parts.append(place.etag)
    return digest(*(part.encode("utf-8", "surrogateescape") for part in parts))
