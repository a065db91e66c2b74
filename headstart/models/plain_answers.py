"""Answers as JSON values: what `predict --json` prints and the server sends."""

import math
from typing import TYPE_CHECKING, Any

from headstart.base.display import displayed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.targets.predictions import Predictions

UNKNOWN = "unknown"  # the answer of a model that abstains
SCORE = "score:"  # prefix of columns of scores, as in predictions.csv


def plain_answer(
    predictions: "Predictions", row: int, doubt: str = "", held: "NDArray[np.bool_] | None" = None
) -> dict[str, Any]:
    """Return the answer for one example as a dict of JSON values.

    doubt: why the model abstains, "" if it does not. held: (C,), the classes that are not ruled
    out, None for a model without limits.
    """
    if not predictions.classes:
        return _of_columns(predictions, row, doubt)
    scores = predictions.scores[row]
    found = {
        "path": displayed(predictions.ids[row]),
        "predicted": predictions.classes[predictions.predicted[row]],
        "score": float(scores.max()),
        "scores": {c: float(s) for c, s in zip(predictions.classes, scores, strict=True)},
    }
    if held is not None:
        found["not_ruled_out"] = [
            name for name, kept in zip(predictions.classes, held, strict=True) if kept
        ]
    if doubt:
        found |= {"predicted": UNKNOWN, "reason": doubt}
    return found


def answer_columns(predictions: "Predictions") -> dict[str, Any]:
    """Return the columns of a target without classes, the region's after the answers'."""
    return {**predictions.target.columns(predictions.outputs), **predictions.region}


def _of_columns(predictions: "Predictions", row: int, doubt: str) -> dict[str, Any]:
    """Return the dict of `plain_answer` for a target without classes."""
    values = {name: json_value(column[row]) for name, column in answer_columns(predictions).items()}
    scores = {n.removeprefix(SCORE): v for n, v in values.items() if n.startswith(SCORE)}
    if scores:
        others = {n: v for n, v in values.items() if not n.startswith(SCORE)}
        first, *rest = others.items()
        values = dict([first, ("scores", scores), *rest])
    if predictions.target.listing:
        values["found"] = predictions.target.listed(predictions.outputs, row)
    reason = {"reason": doubt} if doubt else {}
    return {"path": displayed(predictions.ids[row]), **values, **reason}


def json_value(value: Any) -> Any:
    """Return a number, text or tuple of names as a JSON value; None for NaN and infinity."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    return list(plain) if isinstance(plain, tuple) else plain
