"""The content of a bundle's JSON files, checked for type and range."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import Mismatch, SpecError

KEYS = {"classes", "majority", "target", "head", "limits", "inputs", "versions", "told"}
NEEDED = {"head", "limits", "inputs"}
SHOWN = 60  # characters of a foreign value in a message
UNUSED = 64 * 2**20  # bytes of weights besides those of the graph, where that has less
UNLIMITED = "limits.miss"  # which is infinite for a label that had too few rows


def facts_of(plain: Any) -> dict[str, Any]:
    """Return the content of model.json; raises SpecError for a key or type that it has not."""
    facts = _object(plain, "model.json")
    if extra := sorted(facts.keys() - KEYS):
        raise SpecError(f"model.json has no key {extra[0][:SHOWN]!r}; it takes {sorted(KEYS)}.")
    kinds = {"target"} if "target" in facts else {"classes", "majority"}
    if lacking := sorted((NEEDED | kinds) - facts.keys()):
        raise SpecError(f"model.json must hold {lacking[0]!r}, and does not.")
    if "target" in facts and {"classes", "majority"} & facts.keys():
        raise SpecError("model.json holds a target or classes, and here both.")
    head = _object(facts["head"], "head")
    if head.keys() != {"kind", "settings"} or type(head["kind"]) is not str:
        raise SpecError(f"head must hold its kind, a text, and its settings; got {sorted(head)}.")
    for name, value in {"head.settings": head["settings"], "limits": facts["limits"]}.items():
        _object(value, name)
    for name in {"target", "told", "versions"} & facts.keys():
        _object(facts[name], name)
    if not all(type(text) is str for text in facts.get("versions", {}).values()):
        raise SpecError("versions must hold a text for each package.")
    _check_inputs(facts["inputs"])
    return facts


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"{name} must be an object; got {value!r:.{SHOWN}}.")
    return value


def _check_inputs(names: Any) -> None:
    texts = isinstance(names, list) and all(type(name) is str for name in names)
    if not texts or len(set(names)) < len(names):
        raise SpecError("inputs must be a list of names, each there once.")


def check_weights(
    weights: Mapping[str, NDArray[Any]], inputs: tuple[str, ...], others: Mapping[str, Any]
) -> None:
    """Raise Mismatch unless the weights of a graph are there, and all numbers are finite (but for
    the limits of labels, which may be infinite).

    weights: of the backbone. inputs: names of those that the graph takes. others: all tensors that
    are no weights of the backbone.
    """
    if lacking := next((name for name in inputs if name not in weights), None):
        raise Mismatch(f"the weights must hold {lacking[:SHOWN]!r}, which the graph takes.")
    taken = sum(weights[name].nbytes for name in inputs)
    if sum(array.nbytes for array in weights.values()) > taken + max(taken, UNUSED):
        raise Mismatch("most of its weights are read by nothing.")
    if extra := next((n for n in others if not n.startswith(("head.", "limits.", "input."))), None):
        raise Mismatch(f"the weights hold {extra[:SHOWN]!r}, which is no part of a bundle.")
    for name, array in {**weights, **others}.items():
        bounded = array[array != np.inf] if name == UNLIMITED else array
        if array.dtype.kind == "f" and not _finite(bounded):
            raise Mismatch(f"the weights must be finite numbers; {name[:SHOWN]!r} holds others.")


def _finite(array: NDArray[Any], step: int = 2**20) -> bool:
    flat = array.reshape(-1)
    return all(bool(np.isfinite(flat[i : i + step]).all()) for i in range(0, flat.size, step))


def check_assets(tensors: Mapping[str, NDArray[Any]], assets: Mapping[str, bytes]) -> None:
    """Raise Mismatch unless the tensors are the bytes of the input's files, by name."""
    flat = all(array.dtype == np.uint8 and array.ndim == 1 for array in tensors.values())
    if tensors.keys() != assets.keys() or not flat:
        raise Mismatch(
            f"its input has the files {sorted(assets)}; got {sorted(tensors)!r:.{SHOWN}}."
        )


def check_restored(given: Any, restored: Any, at: str = "") -> None:
    """Raise SpecError unless the file's content equals the content that this version would write.

    So a key, a type or a value that this version does not know is never ignored in silence, and
    a missing value is never replaced by a default.
    """
    if isinstance(given, dict) and isinstance(restored, dict):
        if lacking := sorted(restored.keys() - given.keys()):
            raise SpecError(f"{at or 'it'} must hold {lacking[0]!r}, and does not.")
        for key, value in given.items():
            if key not in restored:
                raise SpecError(f"{at or 'it'} has no setting {key[:SHOWN]!r}.")
            check_restored(value, restored[key], f"{at}.{key}" if at else key)
    elif isinstance(given, list) and isinstance(restored, (list, tuple)):
        if len(given) != len(restored):
            raise SpecError(f"{at} must have {len(restored)} values; got {len(given)}.")
        for i, (one, other) in enumerate(zip(given, restored, strict=True)):
            check_restored(one, other, f"{at}[{i}]")
    elif given != restored or isinstance(given, bool) != isinstance(restored, bool):
        raise SpecError(f"{at} must be written as {restored!r:.{SHOWN}}; got {given!r:.{SHOWN}}.")


def golden_of(plain: Any) -> dict[str, NDArray[np.float64]]:
    """Return the answers in golden.json as arrays; raises SpecError for anything else."""
    return {name: _numbers(name, value) for name, value in _object(plain, "golden.json").items()}


def _numbers(name: str, value: Any) -> NDArray[np.float64]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif type(one) not in (int, float, bool):
            raise SpecError(
                f"golden.json must hold numbers; {name[:SHOWN]!r} holds {one!r:.{SHOWN}}."
            )
    try:
        return np.array(value, np.float64)
    except (ValueError, OverflowError) as error:
        raise SpecError(
            f"golden.json must hold numbers in rows of equal length ({error})."
        ) from error
