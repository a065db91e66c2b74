"""Section: the kept model compared with the other candidates and the baselines."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate
from headstart.evaluation.judged import (
    Gain,
)
from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import (
    Block,
    Heading,
    Section,
    TableBlock,
    Text,
)
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data

FROM_SCRATCH = " from scratch"  # suffix of the names of baselines in evaluation.json
CHANCE = 0.05  # significance level: a difference with p of at least this is a tie


def contender(w: Words, name: str) -> Markup:
    """Return the displayed name of a phase of training or of a baseline."""
    if name.endswith(FROM_SCRATCH):
        return w("phase.from_scratch", name=data(name.removesuffix(FROM_SCRATCH)))
    return w.named("phase", name)


def compared_section(facts: Facts, w: Words, album: Album) -> Section:
    blocks = list[Block]([_candidates(facts, w)])
    compared = facts.insights.compared
    if compared:
        blocks += [Heading(w("compared.difference")), _differences(w, compared)]
        blocks += [Text(w("compared.explained"), "note")]
    else:
        blocks.append(Text(w("compared.none"), "empty"))
    return Section("compared", w("compared.title"), blocks)


def _candidates(facts: Facts, w: Words) -> TableBlock:
    on_val, on_test = facts.evaluation.candidates_on_val, facts.evaluation.baselines_on_test
    rows = list[Sequence[Any]]()
    for name in dict.fromkeys([*on_val, *on_test]):
        kept = name == facts.kept
        test = facts.evaluation.test if kept else on_test.get(name)
        phase = facts.recipe.phases.get(name)
        label = contender(w, name)
        rows.append(
            [
                Markup("<strong>{}</strong> ({})").format(label, w("compared.kept"))
                if kept
                else label,
                w.estimate(on_val[name].main) if name in on_val else "–",
                w.estimate(test.main) if test else "–",
                w.count(phase.trainable.parameters) if phase else "–",
            ]
        )
    head = [w("compared.what"), w("compared.on_val"), w("compared.on_test"), w("compared.trained")]
    return TableBlock(head, rows, caption=w("compared.caption"))


def _differences(w: Words, compared: Sequence[Gain]) -> TableBlock:
    rows = list[Sequence[Any]]()
    for pair in compared:
        e, p = pair.gain, pair.p
        rows.append(
            [
                w("compared.pair", a=contender(w, pair.a), b=contender(w, pair.b)),
                w.named("part", pair.on),
                gained(w, e),
                w("compared.tiny") if p is not None and p < 0.001 else w.number(p),
                w("compared.verdict." + verdict(e, p)),
            ]
        )
    head = [w("compared." + k) for k in ("pair_head", "on", "gain", "p", "verdict")]
    return TableBlock(head, rows, left=(0, 1, 4))


def gained(w: Words, e: Estimate | None) -> Markup:
    """Format a difference in percentage points with its interval."""
    if e is None:
        return Markup(w.texts["none"])
    text = '{} <span class="interval">[{}; {}]</span>'
    return Markup(text).format(w.points(e.value), w.points(e.low), w.points(e.high))


def verdict(e: Estimate | None, p: float | None) -> str:
    """Return "tie" unless the interval excludes 0 and McNemar's p is below 0.05."""
    if e is None or e.low <= 0 <= e.high or (p is not None and p >= CHANCE):
        return "tie"
    return "better" if e.low > 0 else "worse"
