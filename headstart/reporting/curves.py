"""Section: the learning curves of training, and their diagnosis."""

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import (
    Block,
    Figure,
    Figures,
    Key,
    Section,
    Text,
)
from headstart.reporting.charts import Axis, Series, axis, line_chart
from headstart.reporting.diagnosis import diagnose_curves
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words
from headstart.training.history import Epoch

LEARNED = ("finetune", "scratch")  # phases that can be trained adversarially


def curves_section(facts: Facts, w: Words, album: Album) -> Section:
    return Section("curves", w("curves.title"), _curves(facts, w, facts.history))


def _curves(facts: Facts, w: Words, lines: Sequence[Epoch]) -> list[Block]:
    if not lines:
        return [Text(w("curves.none"), "empty")]
    if len(lines) < 2:
        return [Text(w("curves.solved"), "note")]
    tuning = facts.recipe.finetune
    reach = tuning.values.get("adversarial", 0.0) if tuning else 0.0
    attacked = bool(reach) and lines[-1].phase in LEARNED
    keys = [Key("train", w("part.train")), Key("val", w("part.val"))]
    tuned = [line for line in lines if line.phase == "finetune"]
    starts = bool(tuned) and lines[0].phase == "head"
    if starts:
        keys.append(Key("start", w("curves.start")))
    marks = [(float(tuned[0].epoch), str(w("curves.start_short")))] if starts else []
    figures = [
        Figure(_curve(w, lines, what, marks), w("curves." + what), keys)
        for what in ("accuracy", "loss")
    ]
    notes = [Text(w("curves.before"), "note")] if any(line.lr is None for line in tuned) else []
    if attacked:
        notes.append(Text(w("curves.attacked", reach=f"{reach * 255:.3g}/255"), "note"))
    blocks: list[Block] = [Figures(figures), *notes]
    if attacked and lines[-1].val_loss is None:
        return blocks  # no curve to diagnose
    reading = diagnose_curves(lines, guess=_guess(facts), attacked=attacked)
    return [Text(w("reading." + reading.kind, epoch=reading.best), "lead"), *blocks]


def _guess(facts: Facts) -> float | None:
    """Return the training accuracy of always predicting the most frequent class."""
    counts = Counter(row.label for row in facts.part("train"))
    return max(counts.values()) / counts.total() if counts else None


def _curve(
    w: Words, lines: Sequence[Epoch], what: str, marks: Sequence[tuple[float, str]]
) -> Markup:
    """Draw one line per part and phase; phases are not joined, since each is measured anew."""
    show = w.share if what == "accuracy" else lambda v, d=3: w.number(v, d)
    series, values = list[Series](), list[float]()
    for part in ("train", "val"):
        for phase in dict.fromkeys(line.phase for line in lines):
            points = [
                (float(line.epoch), _nan(getattr(line, f"{part}_{what}")))
                for line in lines
                if line.phase == phase
            ]
            notes = [
                f"{w('part.' + part)}, {w('curves.epoch')} {x:.0f}: {show(y)}" for x, y in points
            ]
            values += [y for _, y in points]
            series.append(Series(points, part, notes))
    epochs = [line.epoch for line in lines]
    ticks = (lambda v: w.share(v, 0)) if what == "accuracy" else (lambda v: w.number(v, 2))
    x = Axis(str(w("curves.epoch")), min(epochs), max(epochs), lambda v: f"{v:.0f}")
    return line_chart(w("curves." + what), x, axis("", values, ticks), series, marks=marks)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
