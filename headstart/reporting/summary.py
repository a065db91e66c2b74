"""Section: what the model is, how good it is, and what it costs."""

from markupsafe import Markup

from headstart.evaluation.evaluation import Evaluation, cell
from headstart.reporting.blocks import PageBlock, Text, Tile, Tiles
from headstart.reporting.comparison import contender
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data


def answer_section(facts: Facts, w: Words) -> list[PageBlock]:
    test = facts.evaluation.test
    sentences = [_made(facts, w), _accuracy(facts, w), *_against(facts, w), _cost(facts, w)]
    tiles = [
        *(_tile(w, test, name) for name in (test.target.shown or tuple(test.metrics))[:2]),
        Tile(w.count(len(facts.classes)), w("tile.classes"), w("tile.rows", n=len(facts.rows))),
        Tile(w.seconds(facts.timings.total_seconds), w("tile.time"), w("tile.time_note")),
    ]
    return [Text(Markup(" ").join(sentences), "lead"), Tiles(tiles)]


def _made(facts: Facts, w: Words) -> Markup:
    kept = facts.evaluation.kept
    return w(
        "answer.what." + (kept if kept in ("head", "finetune", "scratch") else "other"),
        backbone=data(facts.recipe.backbone),
        classes=w("count.classes", n=len(facts.classes)),
        rows=w("count.pictures", n=len(facts.part("train"))),
    )


def _accuracy(facts: Facts, w: Words) -> Markup:
    accuracy = facts.evaluation.test.metrics.get("accuracy")
    if not accuracy:
        return w("answer.untested")
    rows = w("count.test_pictures", n=accuracy.n)
    return w("answer.good", rows=rows, accuracy=w.estimate(accuracy))


def _tile(w: Words, test: Evaluation, name: str) -> Tile:
    e = getattr(test, name)
    if not test.target.counts_right:
        return Tile(data(cell(e)), w.named("metric", name))
    if e is None:
        return Tile(w.share(None), w("metric." + name))
    interval = w("tile.interval", low=w.number(100 * e.low, 1), high=w.share(e.high))
    return Tile(w.share(e.value), w("metric." + name), interval)


def _against(facts: Facts, w: Words) -> list[Markup]:
    if not facts.classes:
        return []
    sentences = []
    if base := facts.evaluation.test.baseline:
        share = w.estimate(base.metric)
        sentences.append(w("answer.majority", majority=data(base.answer), accuracy=share))
    for name, judged in facts.evaluation.baselines_on_test.items():
        share = w.estimate(judged.accuracy)
        sentences.append(w("answer.baseline", name=contender(w, name), accuracy=share))
    return sentences


def _cost(facts: Facts, w: Words) -> Markup:
    rate = facts.timings.examples_per_second
    if not rate:
        return w("answer.no_cost")
    return w("answer.cost", time=w.seconds(1 / rate), device=data(facts.recipe.device))
