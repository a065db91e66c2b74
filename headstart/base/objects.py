"""Objects of a store, s3:// and gs://, and files of a web server, read by obstore.

Credentials are taken by obstore from the environment alone, for each request. No address that may
hold a secret is accepted, and nothing here is written or pickled but addresses.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn
from urllib.parse import unquote, urlsplit

from headstart.base.errors import DataError, MissingPackage

WEB = ("http", "https")
SCHEMES = ("s3", "gs", *WEB)
RETRIES = 6  # of a request that the server can't answer now
RETRY_FOR = timedelta(seconds=60)
CONNECT_FOR = timedelta(seconds=5)  # obstore asks a machine of the cloud for credentials otherwise
LONGEST = 200  # characters of a message
READ_AHEAD = 2**20  # bytes, of an object that is read from the start
MISSING = re.compile(r"status code: 404|NoSuchBucket")
ASKS = re.compile("credential|metadata|/latest/|security-credentials|token|169\\.254", re.I)
HOW = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a bucket that everyone may read, "
    "AWS_SKIP_SIGNATURE=true)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a key file (for a bucket that everyone may "
    "read, GOOGLE_SKIP_SIGNATURE=true)",
}
SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.I)  # names of variables


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The facts of an object in a store. size: in bytes. etag: or the time of its last change; ""
    if the server gives neither."""

    url: str
    size: int
    etag: str

    @property
    def stamp(self) -> str:
        return f"{self.size:x}-{self.etag}"


def check_url(url: str) -> None:
    """Raise DataError unless objects are read at such an address, which must hold no secret."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise DataError(
            f"An object's address begins with {', '.join(f'{s}://' for s in SCHEMES)} and a bucket "
            f"or a host; got {_without_secrets(parts.scheme)}://…"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise DataError(
            f"An address holds no password and no part after ? or #, which may be a secret, and "
            f"would be written into the index; got one of {parts.scheme}://{parts.hostname}. Give "
            f"credentials by environment variables."
        )


def head(url: str) -> ObjectFacts:
    """Return size and ETag of an object; raises DataError if there is none."""
    api, store, path = _place(url)
    try:
        return _facts(url, api.head(store, path))
    except Exception as error:
        _refuse(url, error)


def get(url: str, most: int) -> bytes:
    """Return the bytes of an object; raises DataError for more than `most`."""
    api, store, path = _place(url)
    try:
        found = api.get(store, path)
        size = int(found.meta["size"])
        data = bytes(found.bytes()) if size <= most else b""
    except Exception as error:
        _refuse(url, error)
    if size > most:
        raise DataError(f"the object is too large ({size / 1e9:.1f} GB)")
    return data


def get_range(url: str, start: int, length: int) -> bytes:
    """Return `length` bytes of an object from `start` on."""
    api, store, path = _place(url)
    try:
        return bytes(api.get_range(store, path, start=start, length=length))
    except Exception as error:
        _refuse(url, error)


def open_object(url: str) -> BinaryIO:
    """Open an object to read it from any byte on, some of it ahead."""
    api, store, path = _place(url)
    try:
        reader: Any = api.open_reader(store, path, buffer_size=READ_AHEAD)
    except Exception as error:
        _refuse(url, error)
    return _Reading(url, reader)  # type: ignore[return-value]


class _Reading:
    """An open object, as a binary file whose bytes are `bytes`."""

    def __init__(self, url: str, reader: Any) -> None:
        self.url, self.reader, self.closed = url, reader, False

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self.reader.read(None if size < 0 else size))
        except Exception as error:
            _refuse(self.url, error)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self.reader.tell())

    def size(self) -> int:
        return head(self.url).size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "_Reading":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def list_objects(url: str) -> Iterator[ObjectFacts]:
    """Yield the objects whose keys begin with those of a folder, in the order of their keys."""
    api, store, path = _place(url)
    root = url[: len(url) - len(path)] if path else url.rstrip("/") + "/"
    try:
        for chunk in api.list(store, prefix=path or None):
            yield from (_facts(f"{root}{found['path']}", found) for found in chunk)
    except Exception as error:
        _refuse(url, error)


def _facts(url: str, found: Any) -> ObjectFacts:
    changed = found.get("last_modified")
    time = changed.isoformat() if changed is not None and changed.timestamp() > 0 else ""
    return ObjectFacts(url, int(found["size"]), str(found.get("e_tag") or time))


def _place(url: str) -> tuple[Any, Any, str]:
    """Return obstore, the store of an address, and the path in it."""
    check_url(url)
    try:
        import obstore
    except ImportError:
        raise MissingPackage(
            "obstore", purpose="Reading s3://, gs:// and https://", extra="objects"
        ) from None
    parts = urlsplit(url)
    path = parts.path.lstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    return obstore, _store(root), unquote(path) if parts.scheme in WEB else path


@lru_cache(maxsize=64)
def _store(root: str) -> Any:
    """Return the store of a bucket or host; obstore takes credentials from the environment."""
    from obstore.store import HTTPStore, from_url

    scheme = root.partition(":")[0]
    client: Any = {"connect_timeout": CONNECT_FOR, "allow_http": scheme == "http"}
    retries: Any = {"max_retries": RETRIES, "retry_timeout": RETRY_FOR}
    try:
        if scheme in WEB:
            return HTTPStore(root, client_options=client, retry_config=retries)
        if os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"):
            client["allow_http"] = True
        return from_url(root, client_options=client, retry_config=retries)
    except Exception as error:
        _refuse(root, error)


def _refuse(url: str, error: Exception) -> NoReturn:
    """Raise DataError for an error of obstore, without anything that may be a secret."""
    if isinstance(error, DataError):
        raise error
    kind, text = type(error).__name__, str(error)
    scheme = url.partition(":")[0]
    if MISSING.search(text) and kind == "GenericError":  # of a list, that nothing answers for
        raise DataError("there is no such bucket: check its name") from None
    if kind in ("NotFoundError", "FileNotFoundError"):
        raise DataError("there is no such object") from None
    denied = kind in ("PermissionDeniedError", "UnauthenticatedError")
    if denied or (scheme in HOW and ASKS.search(text)):
        asked = f": name them in the environment, {HOW[scheme]}" if scheme in HOW else ""
        was = "were refused" if denied else "were not found"
        raise DataError(f"credentials for {scheme}:// {was}{asked}") from None
    first = _without_secrets(next(iter(text.splitlines()), kind))
    raise DataError(f"{scheme}:// can't be read now: {first[:LONGEST]}") from None


def _without_secrets(text: str) -> str:
    """Return a message without the values of variables whose names are those of secrets."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 3:
            text = text.replace(value, "…")
    return text
