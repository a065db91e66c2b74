"""Convert frozen dataclasses to plain dicts and JSON and back, and fingerprint them.

A spec is written with its class name as `kind`, since a field may hold specs of several classes.
A `Record` is written without, since the type of its field names the class.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from headstart.base.errors import SpecError, UnknownName

T = TypeVar("T")
Kinds = tuple[type[Any], ...]

LARGEST = sys.float_info.max  # NaN compares as larger, too
SIMPLE: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda v: isinstance(v, bool)),
    int: ("a whole number", lambda v: type(v) is int),
    float: ("a finite number", lambda v: type(v) in (int, float) and abs(v) <= LARGEST),
    str: ("a text", lambda v: isinstance(v, str)),
    NoneType: ("null", lambda v: v is None),
}
NAMES = {dict: "an object", list: "a list", tuple: "a list", NoneType: "null"}


class Record:
    """Base of a frozen dataclass that is written without `kind`; see `as_key`.

    Unknown keys are ignored on reading: a later version may have written them.
    """

    def to_plain(self) -> dict[str, Any]:
        """Return the plain dict that is written to the files of a run and by `--json`."""
        return _fields(self)

    @classmethod
    def read(cls, plain: Any, at: str = "") -> Self:
        """Rebuild the record from its plain dict. at: its own key, for messages."""
        kind: Any = cls
        plain, hints, known = entries(plain, at), _hints(kind), fields(kind)
        required = [f for f in known if f.default is MISSING and f.default_factory is MISSING]
        if lacking := [key for f in required if (key := _key(f)) not in plain]:
            raise SpecError(f"{joined(at, lacking[0])} must be given, and is missing.")
        given = {f.name: key for f in known if (key := _key(f)) in plain}
        return cls(**{name: entry(plain, key, hints[name], at) for name, key in given.items()})


@dataclass(frozen=True)
class Settings:
    """A spec as stored in a file of any version: its class name and its settings' plain values."""

    values: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""

    @classmethod
    def of(cls, value: Any) -> "Settings":
        """Return the settings of a spec or of a mapping of names to plain values."""
        plain = dict(_plain(value))
        return cls(kind=plain.pop("kind", ""), values=plain)

    def spec(self, *kinds: type[T]) -> T:
        """Rebuild the spec; arguments and errors are those of `from_plain`."""
        return from_plain(_plain(self), *kinds)


def as_key(key: str, *, written: bool = True) -> dict[str, Any]:
    """Return the metadata of a field called `key` in files; written=False for an old key."""
    return {"key": key, "written": written}


def later() -> dict[str, Any]:
    """Return the metadata of a field that earlier versions lacked: written unless it is usual.

    So fingerprints of specs, by which checkpoints are found, stay those of earlier versions.
    """
    return {"later": True}


def to_plain(value: Any) -> dict[str, Any]:
    """Return the frozen dataclass `value` as a dict for JSON, from which `from_plain` rebuilds it.

    >>> from headstart.data.splits import SplitPlan
    >>> to_plain(SplitPlan(val=0.2))
    {'kind': 'SplitPlan', 'val': 0.2, 'test': 0.15, 'seed': 0}
    """
    if isinstance(value, Record):
        return value.to_plain()
    return {"kind": kind_of(type(value))} | _fields(value)


def kind_of(cls: type[Any]) -> str:
    """Return the `kind` of a spec class in files: its `SAVED_AS` if renamed, else its name."""
    return str(cls.__dict__.get("SAVED_AS", cls.__name__))


def from_plain(plain: Any, *kinds: type[T]) -> T:
    """Rebuild a record of the class `kinds[0]`, or a spec of any of `kinds`, from its plain dict.

    kinds: includes the classes of nested specs. Raises UnknownName for a spec of another class, and
    SpecError, which names the key, for a wrong value and an unknown or missing setting.
    """
    if issubclass(kinds[0], Record):
        return cast(T, kinds[0].read(plain))
    return cast(T, _spec(plain, "", kinds))


def read_value(path: Path, kind: type[T], spelt: Callable[[str], str] = str) -> T:
    """Return the record in a JSON file, `spelt` applied to its strings; OSError or SpecError."""
    return from_plain(read_json(path, spelt), kind)


def read_json(path: Path, spelt: Callable[[str], str] = str) -> Any:
    """Return the plain value in a JSON file; raises OSError, or SpecError if it is not JSON."""
    try:
        return _respelt(json.loads(path.read_text(encoding="utf-8")), spelt)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"the file must hold JSON, and does not: {error}") from error


def entry(plain: Mapping[str, Any], key: str, hint: Any, at: str = "") -> Any:
    """Return the value of type `hint` under `key`; SpecError if missing or of another type."""
    if key not in plain:
        raise SpecError(f"{joined(at, key)} must be given, and is missing.")
    return _typed(plain[key], hint, joined(at, key), ())


def fingerprint(*parts: Any) -> str:
    """Return 16 hex digits of the SHA-256 of `parts`, the same on every machine.

    >>> fingerprint("a", 1)
    '2657442bb4a48d62'
    """
    text = json.dumps(_plain(parts), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def field_help(spec: type, name: str) -> str:
    """Return the help text of a field: `epochs: Annotated[int, "the text"]`."""
    hint = _hints(spec, extras=True)[name]
    texts = (text for text in getattr(hint, "__metadata__", ()) if isinstance(text, str))
    return next(texts, name.replace("_", " "))


def check_seed(seed: int) -> None:
    """Raise SpecError for a negative seed, which NumPy rejects."""
    if seed < 0:
        raise SpecError(f"seed is a whole number from 0 on; got {seed}.")


def _key(field: "Field[Any]") -> str:
    return str(field.metadata.get("key", field.name))


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return ({"kind": value.kind} if value.kind else {}) | _plain(value.values)
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"No plain form is known for {type(value).__name__}: {value!r}")


def _respelt(plain: Any, spelt: Callable[[str], str]) -> Any:
    if isinstance(plain, str):
        return spelt(plain)
    if isinstance(plain, list):
        return [_respelt(v, spelt) for v in plain]
    if isinstance(plain, dict):
        return {spelt(k): _respelt(v, spelt) for k, v in plain.items()}
    return plain


def _fields(value: Any) -> dict[str, Any]:
    written = [f for f in fields(value) if _is_written(f, getattr(value, f.name))]
    return {_key(f): _plain(getattr(value, f.name)) for f in written}


def _is_written(field: "Field[Any]", value: Any) -> bool:
    usual = field.metadata.get("later", False) and value == field.default
    return field.metadata.get("written", True) and not usual


def _spec(plain: Any, at: str, kinds: Kinds) -> Any:
    given = dict(entries(plain, at))
    named: dict[str, Any] = {kind_of(k): k for k in kinds if not issubclass(k, Record)}
    kind = named.get(str(given.pop("kind", None)))
    if kind is None:
        raise UnknownName("kind of value", str(plain.get("kind")), named)
    hints, known = _hints(kind), {f.name for f in fields(kind)}
    if extra := sorted(given.keys() - known):
        raise SpecError(f"{kind.__name__} has no setting {extra[0]!r}. It takes {sorted(known)}.")
    try:
        return kind(**{k: _typed(v, hints[k], joined(at, k), kinds) for k, v in given.items()})
    except TypeError as error:
        raise SpecError(f"{kind.__name__} cannot be built from these settings: {error}.") from error


def _typed(value: Any, hint: Any, at: str, kinds: Kinds) -> Any:
    """Return a value of type `hint` from its plain form; SpecError if it does not fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(value, inner, at, kinds)
    if origin is tuple:
        return _tuple(value, inner, at, kinds)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        given = entries(value, at).items()
        return {key: _typed(v, inner[1], joined(at, key), kinds) for key, v in given}
    if origin is Literal:
        return _checked(value, at, " or ".join(map(repr, inner)), value in inner)
    if hint in SIMPLE:
        what, fits = SIMPLE[hint]
        return _checked(value, at, what, fits(value))
    if hint is Settings:
        return Settings.of(entries(value, at))
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.read(value, at)
    if is_dataclass(hint):
        return _spec(value, at, kinds)
    return _rebuilt(value, at, kinds)


def _one_of(value: Any, hints: tuple[Any, ...], at: str, kinds: Kinds) -> Any:
    if value is None and NoneType in hints:
        return None
    others = [hint for hint in hints if hint is not NoneType]
    for hint in others[:-1]:
        try:
            return _typed(value, hint, at, kinds)
        except (SpecError, UnknownName):
            continue
    return _typed(value, others[-1], at, kinds)


def _tuple(value: Any, hints: tuple[Any, ...], at: str, kinds: Kinds) -> tuple[Any, ...]:
    _checked(value, at, "a list", isinstance(value, (list, tuple)))
    each: Iterable[Any] = hints
    if hints[1:] == (...,):
        each = hints[:1] * len(value)
    else:
        _checked(value, at, f"a list of {len(hints)}", len(value) == len(hints))
    return tuple(
        _typed(v, hint, f"{at}[{i}]", kinds)
        for i, (v, hint) in enumerate(zip(value, each, strict=True))
    )


def _rebuilt(value: Any, at: str, kinds: Kinds) -> Any:
    """Rebuild a value of type Any: lists become tuples, dicts with a `kind` become specs."""
    if isinstance(value, (list, tuple)):
        return tuple(_rebuilt(v, at, kinds) for v in value)
    if isinstance(value, dict):
        if "kind" in value:
            return _spec(value, at, kinds)
        return {k: _rebuilt(v, at, kinds) for k, v in value.items()}
    return value


def entries(plain: Any, at: str = "") -> Mapping[str, Any]:
    """Return `plain` if it is a mapping; raises SpecError for anything else."""
    found: Mapping[str, Any] = _checked(plain, at, "an object", isinstance(plain, Mapping))
    return found


def _checked(value: T, at: str, what: str, fits: bool) -> T:
    if not fits:
        got = NAMES.get(type(value)) or repr(value)[:40]
        raise SpecError(f"{at or 'the value'} must be {what}; got {got}.")
    return value


def joined(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


@cache
def _hints(kind: Any, extras: bool = False) -> dict[str, Any]:
    """Return the type of each field, `Annotated` ones with their texts if `extras`.

    All are Any if a type's name is unknown at run time.
    """
    try:
        return get_type_hints(kind, include_extras=extras)
    except NameError:
        return {f.name: Any for f in fields(kind)}
