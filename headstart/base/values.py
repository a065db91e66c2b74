"""Frozen dataclasses to plain dicts and back, and a fingerprint of either."""

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from headstart.base.errors import SpecError, UnknownName

T = TypeVar("T")


def to_plain(spec: Any) -> dict[str, Any]:
    """Everything needed to rebuild the frozen dataclass `spec`, ready for JSON.

    >>> from headstart.data.splits import SplitPlan
    >>> to_plain(SplitPlan(val=0.2))
    {'kind': 'SplitPlan', 'val': 0.2, 'test': 0.15, 'seed': 0}
    """
    return {
        "kind": type(spec).__name__,
        **{f.name: _plain(getattr(spec, f.name)) for f in fields(spec)},
    }


def from_plain(plain: dict[str, Any], *kinds: type[T]) -> T:
    """Rebuild what `to_plain` made; `kinds` lists the classes it may be, nested ones included.

    Raises UnknownName for a kind not listed, SpecError for a setting it does not have.
    """
    if not isinstance(plain, dict):
        raise SpecError(f"A saved value is a JSON object; got {type(plain).__name__}.")
    named: dict[str, type[Any]] = {k.__name__: k for k in kinds}
    kind = named.get(str(plain.get("kind")))
    if kind is None:
        raise UnknownName("kind of value", str(plain.get("kind")), named)
    given = {k: _rebuilt(v, kinds) for k, v in plain.items() if k != "kind"}
    known = {f.name for f in fields(kind)}
    if extra := sorted(given.keys() - known):
        raise SpecError(f"{kind.__name__} has no setting {extra[0]!r}. It takes {sorted(known)}.")
    try:
        return kind(**given)
    except TypeError as error:
        raise SpecError(f"{kind.__name__} cannot be built from these settings: {error}.") from error


def fingerprint(*parts: Any) -> str:
    """A short name (16 hex digits of SHA-256) for these exact values, the same on every machine.

    >>> fingerprint("a", 1)
    '2657442bb4a48d62'
    """
    text = json.dumps(_plain(parts), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def field_help(spec: type, name: str) -> str:
    """The text that a field of a spec carries: `epochs: Annotated[int, "the text"]`."""
    hint = get_type_hints(spec, include_extras=True)[name]
    texts = (text for text in getattr(hint, "__metadata__", ()) if isinstance(text, str))
    return next(texts, name.replace("_", " "))


def check_seed(seed: int) -> None:
    """Raises SpecError for one that NumPy doesn't take."""
    if seed < 0:
        raise SpecError(f"seed is a whole number from 0 on; got {seed}.")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"No plain form is known for {type(value).__name__}: {value!r}")


def _rebuilt(value: Any, kinds: tuple[type[Any], ...]) -> Any:
    if isinstance(value, list):
        return tuple(_rebuilt(v, kinds) for v in value)
    if isinstance(value, dict):
        if "kind" in value:
            return from_plain(value, *kinds)
        return {k: _rebuilt(v, kinds) for k, v in value.items()}
    return value
