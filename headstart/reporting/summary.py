"""Section: what the model is, how good it is, and what it costs."""

from math import isfinite

from markupsafe import Markup

from headstart.evaluation.evaluation import Estimate, Evaluation, decimals
from headstart.reporting.blocks import PageBlock, Text, Tile, Tiles
from headstart.reporting.comparison import SUFFIXES, contender
from headstart.reporting.facts import Facts
from headstart.reporting.results import baseline_name
from headstart.reporting.words import Words, data

KINDS = ("head", "finetune", "scratch", "soup", "ensemble")  # of models that sentences are about


def answer_section(facts: Facts, w: Words) -> list[PageBlock]:
    test = facts.evaluation.test
    sentences = [_made(facts, w), _accuracy(facts, w), *_folds(facts, w)]
    sentences += [*_against(facts, w), *_no_baseline(facts, w), _cost(facts, w)]
    tiles = [
        *(_tile(w, test, name) for name in (test.target.shown or tuple(test.metrics))[:2]),
        _size(facts, w),
        Tile(w.seconds(facts.timings.total_seconds), w("tile.time"), w("tile.time_note")),
    ]
    return [Text(Markup(" ").join(sentences), "lead"), Tiles(tiles)]


def _size(facts: Facts, w: Words) -> Tile:
    if not facts.classes:
        each = {part: w.count(len(facts.part(part))) for part in ("train", "val", "test")}
        return Tile(w.count(len(facts.rows)), w("tile.pictures"), w("tile.parts", **each))
    return Tile(w.count(len(facts.classes)), w("tile.classes"), w("tile.rows", n=len(facts.rows)))


def _made(facts: Facts, w: Words) -> Markup:
    kept = facts.evaluation.kept
    kind, members = kept if kept in KINDS else "other", w.count(facts.averaged)
    if not facts.classes:
        target = facts.evaluation.test.target
        return w(
            "answer.target." + kind,
            members=members,
            backbone=data(facts.recipe.backbone),
            target=w.named("target", target.kind, target.described),
            rows=w("count.pictures", n=_learned(facts)),
        )
    return w(
        "answer.what." + kind,
        members=members,
        backbone=data(facts.recipe.backbone),
        classes=w("count.classes", n=len(facts.classes)),
        rows=w("count.pictures", n=_learned(facts)),
    )


def _accuracy(facts: Facts, w: Words) -> Markup:
    if not facts.classes:
        return _measured(facts.evaluation.test, w)
    accuracy = facts.evaluation.test.metrics.get("accuracy")
    if not accuracy:
        return w("answer.untested")
    rows = w("count.test_pictures", n=accuracy.n)
    return w("answer.good", rows=rows, accuracy=w.estimate(accuracy))


def _folds(facts: Facts, w: Words) -> list[Markup]:
    """Say how a cross-validated run was judged."""
    folds = len(facts.evaluation.folds)
    if not folds:
        return []
    learned = len(facts.part("train")) + len(facts.part("val"))
    return [w("answer.folds", k=w.count(folds), rows=w("count.pictures", n=learned))]


def _learned(facts: Facts) -> int:
    """Return the number of rows that the saved model learned from."""
    parts = ("train", "val") if facts.recipe.strategy.refitted else ("train",)
    return sum(len(facts.part(part)) for part in parts)


def _measured(test: Evaluation, w: Words) -> Markup:
    """State the first metrics of a target without classes."""
    shown = [name for name in test.target.shown or test.metrics if test.metrics[name]][:2]
    if not shown:
        return w("answer.unmeasured")
    figures = [
        w("answer.figure", name=w.named("metric", n), value=w.measure(test.metrics[n]))
        for n in shown
    ]
    rows = w("count.test_pictures", n=test.n)
    return w("answer.measured", rows=rows, figures=Markup("; ").join(figures))


def _tile(w: Words, test: Evaluation, name: str) -> Tile:
    e = getattr(test, name)
    if not test.classes:
        return _number_tile(w, e, name)
    if e is None:
        return Tile(w.share(None), w("metric." + name))
    interval = w("tile.interval", low=w.number(100 * e.low, 1), high=w.share(e.high))
    return Tile(w.share(e.value), w("metric." + name), interval)


def _number_tile(w: Words, e: Estimate | None, name: str) -> Tile:
    if e is None:
        return Tile(w.texts["none"], w.named("metric", name))
    digits = decimals([v for v in (e.value, e.low, e.high) if isfinite(v)])
    low, high = w.number(e.low, digits), w.number(e.high, digits)
    interval: str = w("tile.interval", low=low, high=high) if isfinite(e.low) else Markup("")
    return Tile(w.number(e.value, digits), w.named("metric", name), interval)


def _against(facts: Facts, w: Words) -> list[Markup]:
    if not facts.classes:
        return _numbers_against(facts, w)
    sentences = []
    if base := facts.evaluation.test.baseline:
        share = w.estimate(base.metric)
        sentences.append(w("answer.majority", majority=data(base.answer), accuracy=share))
    for name, judged in facts.evaluation.baselines_on_test.items():
        share = w.estimate(judged.accuracy)
        sentences.append(w("answer.baseline", name=contender(w, name), accuracy=share))
    return [*sentences, *_beaten(facts, w)]


def _no_baseline(facts: Facts, w: Words) -> list[Markup]:
    """Say that a network to compare with was asked for, and that its training did not end."""
    names = facts.evaluation.baselines_on_test
    if facts.recipe.baseline == "none" or any(name.endswith(tuple(SUFFIXES)) for name in names):
        return []
    return [w("answer.no_baseline")]


def _beaten(facts: Facts, w: Words) -> list[Markup]:
    """Name the baselines that are better than the model on the test rows."""
    names = facts.evaluation.baselines_on_test
    better = [c.b for c in facts.insights.compared or () if c.on == "test" and c.gain.value < 0]
    return [w("answer.beaten", name=contender(w, name)) for name in better if name in names]


def _numbers_against(facts: Facts, w: Words) -> list[Markup]:
    """Compare a target without classes with its constant answer and with the baselines."""
    sentences, test = list[Markup](), facts.evaluation.test
    if (base := test.baseline) and base.metric:
        metric, value = w.named("metric", base.name), w.measure(base.metric)
        name = baseline_name(w, base)
        sentences.append(w("answer.constant", name=name, metric=metric, value=value))
    for kind, judged in facts.evaluation.baselines_on_test.items():
        if judged.main:
            figure = w.measure(judged.main)
            sentences.append(w("answer.baseline", name=contender(w, kind), accuracy=figure))
    return [*sentences, *_beaten(facts, w)]


def _cost(facts: Facts, w: Words) -> Markup:
    rate = facts.timings.examples_per_second
    if not rate:
        return w("answer.no_cost")
    return w("answer.cost", time=w.seconds(1 / rate), device=data(facts.recipe.device))
