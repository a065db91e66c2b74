"""Explain answers about texts: of a text, and of the worst and best answers of a run."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.base.atomic import write_json
from headstart.base.errors import DataError, HeadstartError
from headstart.base.values import read_value
from headstart.data.content import read_checked
from headstart.data.dataset import LeftOut
from headstart.explaining.choosing import rows_of_run
from headstart.explaining.saved import EXPLAINED
from headstart.explaining.tokens.attributing import STEPS, attribute_tokens
from headstart.explaining.tokens.explanation import TextExplanation
from headstart.explaining.tokens.saved import ExplainedTextRow, ExplainedTexts, MarkedWord
from headstart.explaining.tokens.text_model import TextGradModel, text_model_of
from headstart.explaining.tokens.word_deletion import MOST_STEPS, ORDERS, HidableWords
from headstart.explaining.tokens.words import by_word, words_of
from headstart.models.model import Model
from headstart.targets.predictions import predictions_file, read_predictions


@dataclass(frozen=True)
class TextEffort:
    """How much work explaining a run takes.

    wrong, right: how many answers of each, at most. integral: numbers of steps of the integral, the
    next if one was not exact. steps, orders: steps and random orders of deletion curves. windows:
    of the longest text that is explained, 0 for any.
    """

    wrong: int = 6
    right: int = 4
    integral: tuple[int, ...] = STEPS
    steps: int = MOST_STEPS
    orders: int = ORDERS
    windows: int = 0


FULL_TEXT = TextEffort()
EFFORTS = {  # of `train`, by its --insights
    "full": TextEffort(wrong=4, right=2, integral=(12, 36), steps=8, orders=2, windows=6),
    "quick": TextEffort(wrong=2, right=2, integral=(12, 36), steps=6, orders=1, windows=4),
}


def explain_text(
    model: TextGradModel,
    id: str,
    source: Any,
    name: str | None = None,
    effort: TextEffort = FULL_TEXT,
) -> TextExplanation:
    """Explain the answer about a text: for the class or label `name`, or the one answered.

    Raises UnknownName with the nearest names, DataError if the text can't be read, has changed
    since it was checked, or is longer than `effort.windows`.
    """
    text = model.input.read(read_checked(model.input, source)[0])
    places = model.places(text)
    if 0 < effort.windows < len(places.ids):
        raise DataError(
            f"has {len(places.ids):,} windows, which takes long; `headstart explain` explains it"
        )
    x = model.features(places)
    answered = model.model.target.topic(model.model.answers(x))
    topic = int(answered[0]) if name is None else model.number(name)
    found = attribute_tokens(model, places, topic, effort.integral)
    words = tuple(words_of(text))
    flat = places.spans.reshape(-1, 2)
    adds = by_word(found.values.reshape(-1), flat, words)
    hidable = HidableWords(model, places, words, topic)
    curves = hidable.curves(adds, steps=effort.steps, orders=effort.orders)
    return TextExplanation(
        path=id,
        text=text,
        name=model.topics[topic],
        score=float(model.degrees(x, topic)[0]),
        words=tuple(MarkedWord(*span, float(v)) for span, v in zip(words, adds, strict=True)),
        windows=len(places.ids),
        difference=found.difference,
        error=found.error,
        deletion=curves,
        features=x[0],
        input=model.input,
        answer="" if model.model.target.names_topics else model.answer(x),
    )


def try_explain_text(
    model: TextGradModel,
    id: str,
    source: Any,
    name: str | None = None,
    effort: TextEffort = FULL_TEXT,
) -> TextExplanation | LeftOut:
    """Call `explain_text`; return a LeftOut if the text can't be explained."""
    try:
        return explain_text(model, id, source, name, effort)
    except (HeadstartError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return LeftOut(id, reason or type(error).__name__)


def explain_run(
    run: Path,
    model: Model,
    texts: Mapping[str, Any],
    effort: TextEffort = FULL_TEXT,
    opened: TextGradModel | None = None,
) -> Generator[TextExplanation | LeftOut]:
    """Yield explanations of the worst and the best answers on a run's test rows.

    texts: sources of the rows by id. opened: the model with gradients, if there is one.
    RUN/explained.json is written after the last one, or when the caller stops early, unless the
    file holds more rows already.
    """
    test = read_predictions(predictions_file(run), model.target)
    chosen = rows_of_run(run, test, texts, effort.wrong, effort.right)
    opened, labels = opened or text_model_of(model), test.target.decode(test.labels)
    rows, whole = list[ExplainedTextRow](), False
    try:
        for row, good in chosen:
            result = try_explain_text(opened, test.ids[row], texts[test.ids[row]], None, effort)
            if isinstance(result, TextExplanation):
                rows.append(result.row(labels[row], good))
            yield result
        whole = True
    finally:
        if rows and (whole or len(rows) > _rows_there(run)):
            write_json(run / EXPLAINED, ExplainedTexts(tuple(rows)).to_plain())


def count_of_run(
    run: Path, model: Model, texts: Mapping[str, Any], effort: TextEffort = FULL_TEXT
) -> int:
    """Return how many rows `explain_run` explains; raises DataError if there is none."""
    test = read_predictions(predictions_file(run), model.target)
    return len(rows_of_run(run, test, texts, effort.wrong, effort.right))


def _rows_there(run: Path) -> int:
    """Return how many rows explained.json holds; 0 if it can't be read."""
    try:
        return len(read_value(run / EXPLAINED, ExplainedTexts).rows)
    except (OSError, ValueError):
        return 0
