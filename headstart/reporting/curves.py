"""Section: the learning curves of training, and their diagnosis."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial

from markupsafe import Markup

from headstart.reporting.blocks import Figure, Figures, Key, PageBlock, Text
from headstart.reporting.charts import Axis, Series, axis, line_chart
from headstart.reporting.diagnosis import compare_with_start, diagnose_curves
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words
from headstart.training.history import Epoch

SMALL_LOSSES = 0.05  # a range below this needs more than two decimals
LEARNED = ("finetune", "scratch")  # phases that can be trained adversarially


def curves_section(facts: Facts, w: Words) -> list[PageBlock]:
    lines = facts.history
    if not lines:
        return [Text(w("curves.none"), "empty")]
    if len(lines) < 2:
        return [Text(w("curves.solved"), "note")]
    tuning = facts.recipe.finetune
    reach = tuning.values.get("adversarial", 0.0) if tuning else 0.0
    attacked = bool(reach) and lines[-1].phase in LEARNED
    fine = not facts.of_classes  # a loss on a scale of its own
    shown = ("accuracy", "loss") if facts.of_classes else ("loss",)
    blocks: list[PageBlock] = [Figures([_curve(w, lines, what, fine) for what in shown])]
    if any(line.lr is None for line in lines if line.phase == "finetune"):
        blocks.append(Text(w("curves.before"), "note"))
    if attacked:
        blocks.append(Text(w("curves.attacked", reach=f"{reach * 255:.3g}/255"), "note"))
    if attacked and lines[-1].val_loss is None:
        return blocks  # no curve to diagnose
    reading = diagnose_curves(lines, guess=_guess(facts), attacked=attacked)
    sentences = [w("reading." + reading.kind, epoch=reading.best)]
    moved = compare_with_start(lines) if lines[-1].phase == "finetune" else None
    if moved is not None:
        values = {k: w.brief(getattr(moved, k)) for k in ("start", "best", "end")}
        sentences.append(w("tuned." + moved.kind, epoch=moved.epoch, **values))
    return [Text(Markup(" ").join(sentences), "lead"), *blocks]


def _guess(facts: Facts) -> float | None:
    """Return the training accuracy of always predicting the most frequent class."""
    counts = Counter(row.label for row in facts.part("train"))
    return max(counts.values()) / counts.total() if counts else None


def _curve(w: Words, lines: Sequence[Epoch], what: str, fine: bool) -> Figure:
    """Draw one line per part and phase; phases are not joined, since each is measured anew.

    fine: whether ticks have all the decimals that they need.
    """
    show = w.share if what == "accuracy" else w.number
    series = list[Series]()
    for part in ("train", "val"):
        for phase in dict.fromkeys(line.phase for line in lines):
            own = [line for line in lines if line.phase == phase]
            points = [(float(line.epoch), _nan(getattr(line, f"{part}_{what}"))) for line in own]
            label = f"{w('part.' + part)}, {w('curves.epoch')}"
            notes = [f"{label} {x:.0f}: {show(y)}" for x, y in points]
            series.append(Series(points, part, notes))
    epochs = [line.epoch for line in lines]
    x = Axis(str(w("curves.epoch")), min(epochs), max(epochs), lambda v: f"{v:.0f}")
    values = [y for s in series for _, y in s.points]
    known = [y for y in values if math.isfinite(y)] or [0.0]
    ticks = w.percent if what == "accuracy" else partial(w.number, digits=2)
    if fine or (what == "loss" and max(known) - min(known) < SMALL_LOSSES):
        ticks = w.tick
    y = axis("", values, ticks)
    keys = [Key(part, w("part." + part)) for part in ("train", "val")]
    marks = list[tuple[float, str]]()
    tuned = [line.epoch for line in lines if line.phase == "finetune"]
    if tuned and lines[0].phase == "head":
        keys.append(Key("start", w("curves.start")))
        marks.append((tuned[0], str(w("curves.start_short"))))
    return line_chart(w("curves." + what), x, y, series, keys, marks)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
