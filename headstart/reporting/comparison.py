"""Section: the kept model compared with the other candidates and the baselines."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate
from headstart.evaluation.judged import Gain
from headstart.reporting.blocks import Heading, PageBlock, TableBlock, Text
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data

# Suffixes of the names of baselines in evaluation.json, and the words for them.
SUFFIXES = {" from scratch": "from_scratch", " with random weights": "random_weights"}
CHANCE = 0.05  # significance level: a difference with p of at least this is a tie


def contender(w: Words, name: str) -> Markup:
    """Return the displayed name of a phase of training or of a baseline."""
    return _spelt(w, name, "phase")


def against(w: Words, name: str) -> Markup:
    """Return the name as it stands after "against", which in Russian has another case."""
    return _spelt(w, name, "against")


def _spelt(w: Words, name: str, prefix: str) -> Markup:
    for suffix, key in SUFFIXES.items():
        if name.endswith(suffix):
            return w(f"{prefix}.{key}", name=data(name.removesuffix(suffix)))
    return w.named(prefix, name)


def compared_section(facts: Facts, w: Words) -> list[PageBlock]:
    compared = facts.insights.compared
    models = {*facts.evaluation.candidates_on_val, *facts.evaluation.baselines_on_test}
    if not facts.of_classes and len(models) < 2:
        return []
    if not compared:
        return [_candidates(facts, w), Text(w("compared.none"), "empty")]
    blocks: list[PageBlock] = [_candidates(facts, w), Heading(w("compared.difference"))]
    blocks.append(_differences(w, compared, facts.of_classes))
    explained = "compared.explained" if facts.of_classes else "compared.explained_score"
    return [*blocks, Text(w(explained), "note")]


def _candidates(facts: Facts, w: Words) -> PageBlock:
    on_val, baselines = facts.evaluation.candidates_on_val, facts.evaluation.baselines_on_test
    on_test = baselines | {facts.evaluation.kept: facts.evaluation.test}
    spell = w.estimate if facts.of_classes else w.measure
    rows = list[Sequence[Any]]()
    for name in dict.fromkeys([*on_val, *baselines]):
        phase, label = facts.recipe.phases.get(name), contender(w, name)
        if name == facts.evaluation.kept:
            label = Markup("<strong>{}</strong> ({})").format(label, w("compared.kept"))
        shares = (spell(p[name].main) if name in p else "–" for p in (on_val, on_test))
        rows.append([label, *shares, w.count(phase.trainable.parameters) if phase else "–"])
    head = [w("compared.what"), w("compared.on_val"), w("compared.on_test"), w("compared.trained")]
    if not facts.of_classes:
        target = facts.evaluation.test.target
        first = next(iter(target.shown or facts.evaluation.test.metrics), "")
        metric = w.named("metric", first)
        head[1:3] = [w("compared.metric_on_" + on, metric=metric) for on in ("val", "test")]
    caption = w("compared.caption")
    if facts.recipe.strategy.refitted:
        caption = Markup("{} {}").format(caption, w("compared.refitted"))
    return TableBlock(head, rows, caption=caption)


def _differences(w: Words, compared: Sequence[Gain], points: bool) -> PageBlock:
    """Return the table of gains, in percentage points or as they are."""
    gain, tested = w.gain if points else w.plain_gain, any(pair.p is not None for pair in compared)
    rows = [
        [
            w("compared.pair", a=contender(w, pair.a), b=against(w, pair.b)),
            w.named("part", pair.on),
            gain(pair.gain),
            *([_p(w, pair.p)] if tested else []),
            w("compared.verdict." + verdict(pair.gain, pair.p)),
        ]
        for pair in compared
    ]
    what = ("gain" if points else "gain_score", *(["p"] if tested else []), "verdict")
    head = [w("compared." + k) for k in ("pair_head", "on", *what)]
    return TableBlock(head, rows, left=(0, 1, len(head) - 1))


def _p(w: Words, p: float | None) -> Markup | str:
    return w("compared.tiny") if p is not None and p < 0.001 else w.number(p)


def verdict(e: Estimate, p: float | None) -> str:
    """Return "tie" unless the interval excludes 0 and McNemar's p is below 0.05."""
    if e.low <= 0 <= e.high or (p is not None and p >= CHANCE):
        return "tie"
    return "better" if e.low > 0 else "worse"
