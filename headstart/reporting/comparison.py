"""Section: the kept model compared with the other candidates and the baselines."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate
from headstart.evaluation.judged import Gain
from headstart.reporting.blocks import Heading, PageBlock, TableBlock, Text
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data

FROM_SCRATCH = " from scratch"  # suffix of the names of baselines in evaluation.json
CHANCE = 0.05  # significance level: a difference with p of at least this is a tie


def contender(w: Words, name: str) -> Markup:
    """Return the displayed name of a phase of training or of a baseline."""
    if name.endswith(FROM_SCRATCH):
        return w("phase.from_scratch", name=data(name.removesuffix(FROM_SCRATCH)))
    return w.named("phase", name)


def compared_section(facts: Facts, w: Words) -> list[PageBlock]:
    compared = facts.insights.compared
    if not compared:
        return [_candidates(facts, w), Text(w("compared.none"), "empty")]
    blocks = [_candidates(facts, w), Heading(w("compared.difference")), _differences(w, compared)]
    return [*blocks, Text(w("compared.explained"), "note")]


def _candidates(facts: Facts, w: Words) -> PageBlock:
    on_val, baselines = facts.evaluation.candidates_on_val, facts.evaluation.baselines_on_test
    on_test = baselines | {facts.evaluation.kept: facts.evaluation.test}
    rows = list[Sequence[Any]]()
    for name in dict.fromkeys([*on_val, *baselines]):
        phase, label = facts.recipe.phases.get(name), contender(w, name)
        if name == facts.evaluation.kept:
            label = Markup("<strong>{}</strong> ({})").format(label, w("compared.kept"))
        shares = (w.estimate(p[name].main) if name in p else "–" for p in (on_val, on_test))
        rows.append([label, *shares, w.count(phase.trainable.parameters) if phase else "–"])
    head = [w("compared.what"), w("compared.on_val"), w("compared.on_test"), w("compared.trained")]
    return TableBlock(head, rows, caption=w("compared.caption"))


def _differences(w: Words, compared: Sequence[Gain]) -> PageBlock:
    rows = [
        [
            w("compared.pair", a=contender(w, pair.a), b=contender(w, pair.b)),
            w.named("part", pair.on),
            w.gain(pair.gain),
            w("compared.tiny") if pair.p is not None and pair.p < 0.001 else w.number(pair.p),
            w("compared.verdict." + verdict(pair.gain, pair.p)),
        ]
        for pair in compared
    ]
    head = [w("compared." + k) for k in ("pair_head", "on", "gain", "p", "verdict")]
    return TableBlock(head, rows, left=(0, 1, 4))


def verdict(e: Estimate, p: float | None) -> str:
    """Return "tie" unless the interval excludes 0 and McNemar's p is below 0.05."""
    if e.low <= 0 <= e.high or (p is not None and p >= CHANCE):
        return "tie"
    return "better" if e.low > 0 else "worse"
