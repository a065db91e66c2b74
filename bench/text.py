"""Texts: a network frozen and fine-tuned, against TF-IDF; in English, in Russian, and across.

    python bench/text.py [--rows 3000] [--seeds 0 1 2] [--data data]

Sentences of film and of product reviews (vaderSentiment's source archive), a random 3,000 for each
seed, a quarter of them for the test, a tenth for validation: the sign of the rating where it is
clear, and the rating as a number. MiniLM frozen under a logistic or ridge head; then its upper
third fine-tuned from the cut; and the baseline that stands beside every model of texts: TF-IDF of
words and pairs of words under logistic or ridge regression, its strength chosen on validation.

Russian sayings in six topics (fortunes-ru), 150 of each: the multilingual network, frozen, against
the baseline and TF-IDF of letters (strength by five folds). Then trained on English sayings of the
same topics (fortunes), and tested on all the Russian ones. `make data` fetches the three packages;
what is not in --data is left out.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Bench
from references.fortunes import TOPICS, sayings, there

import headstart as hs
from headstart.modalities.examples import labelled
from headstart.modalities.text.baseline import fit_baseline
from headstart.modalities.text.examples import ARCHIVE, Of, snippets
from headstart.modalities.text.inputs import TextInput

ENGLISH, RUSSIAN = "packaged:minilm", "packaged:use_multilingual"
METRIC = {"class": "accuracy", "number": "r2"}
Way = Callable[[hs.Splits], hs.Predictions]


def main() -> None:
    bench = Bench("text", __doc__)
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0])
    bench.flag("--rows", type=int, default=3000, quick=120)
    bench.flag("--each", type=int, default=150, quick=20, help="Russian sayings of a topic")
    bench.flag("--epochs", type=int, default=3, quick=1)
    bench.flag("--data", type=Path, default=Path("data"))
    args = bench.arguments()
    with tempfile.TemporaryDirectory() as folder:
        store = hs.Store(Path(folder))
        rows, facts = reviews(args, store)
        others, more = across(args, store)
    bench.report([*rows, *others], {**facts, **more})


# ------------------------------------------------------------ reviews
def reviews(args: Any, store: hs.Store) -> tuple[list[dict[str, object]], dict[str, object]]:
    """A row per kind of review, target and seed, and what is wanted of the means."""
    if not (args.data / ARCHIVE).is_file():
        return [{"data": "reviews", "skipped": f"no {ARCHIVE}"}], {}
    rows, facts = list[dict[str, object]](), dict[str, object]()
    kinds: tuple[Of, ...] = ("film", "product")
    for of in kinds:
        for target, metric in METRIC.items():
            ways = ways_of(ENGLISH, args.epochs, store)
            found: dict[str, list[float]] = {name: [] for name in ways}
            for seed in args.seeds:
                parts = drawn(snippets(of, target, args.data), args.rows, seed, store)
                row: dict[str, object] = {"data": of, "predicted": metric, "seed": seed}
                rows.append(row | measured(ways, parts, metric, found))
                print(rows[-1], flush=True)
            facts |= wanted(of, metric, found)
    return rows, facts


def drawn(data: hs.Dataset, rows: int, seed: int, store: hs.Store) -> hs.Splits:
    """Random rows, split into parts."""
    chosen = np.random.default_rng(seed).permutation(len(data))[:rows]
    return hs.split(data.take(np.sort(chosen)), val=0.1, test=0.25, seed=seed, store=store)


def ways_of(backbone: str, epochs: int, store: hs.Store) -> dict[str, Way]:
    def fitted(parts: hs.Splits, **settings: Any) -> hs.Predictions:
        found = hs.fit(parts, backbone=backbone, store=store, **settings)
        return found.predict(parts.test, store=store)

    return {
        "frozen": lambda parts: fitted(parts, strategy="extract"),
        "fine-tuned": lambda parts: fitted(parts, strategy="finetune", thaw="2", epochs=epochs),
        "TF-IDF": tfidf,
    }


def measured(
    ways: Mapping[str, Way], parts: hs.Splits, metric: str, found: Mapping[str, list[float]]
) -> dict[str, object]:
    """The estimate of each way on the test rows; its value is added to `found`."""
    row = dict[str, object]()
    for name, way in ways.items():
        estimate = getattr(hs.evaluate(way(parts)), metric)
        found[name].append(estimate.value)
        row[name] = str(estimate)
    return row


def wanted(of: str, metric: str, found: Mapping[str, Sequence[float]]) -> dict[str, object]:
    means = {name: statistics.mean(values) for name, values in found.items()}
    best = max(means["frozen"], means["fine-tuned"])
    gain = best - means["TF-IDF"]
    facts: dict[str, object] = {f"{of}, {metric}, {name}": mean for name, mean in means.items()}
    facts[f"{of}, {metric}: transferred less TF-IDF"] = gain
    if of == "film":
        least = 0.05 if metric == "accuracy" else 0.1
        facts[f"{of}, {metric}: at least {least} better"] = gain >= least
    return facts


# ------------------------------------------------------------ two languages
def across(args: Any, store: hs.Store) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Russian sayings by topic; then a model of the English ones on the Russian ones."""
    if not there(args.data):
        return [{"data": "sayings", "skipped": "no packages of sayings"}], {}
    russian = topics("ru", list(TOPICS), args)
    ways: dict[str, Way] = {
        "frozen": ways_of(RUSSIAN, args.epochs, store)["frozen"],
        "TF-IDF": tfidf,
        "TF-IDF of letters": letters,
    }
    rows, found = list[dict[str, object]](), {name: list[float]() for name in ways}
    for seed in args.seeds:
        parts = hs.split(russian, val=0.1, test=0.25, seed=seed, store=store)
        row: dict[str, object] = {"data": "Russian", "predicted": "accuracy", "seed": seed}
        rows.append(row | measured(ways, parts, "accuracy", found))
        print(rows[-1], flush=True)
    english = topics("en", list(TOPICS.values()), args)
    parts = hs.split(english, val=0.2, test=0.1, seed=0, store=store)
    model = hs.fit(parts, backbone=RUSSIAN, strategy="extract", store=store)
    crossed = hs.evaluate(model.predict(russian, store=store)).accuracy
    rows.append({"data": "Russian, by a model of English", "frozen": str(crossed)})
    means = {name: statistics.mean(values) for name, values in found.items()}
    facts: dict[str, object] = {f"Russian, {name}": mean for name, mean in means.items()}
    facts["Russian: at least 0.1 better than TF-IDF"] = means["frozen"] - means["TF-IDF"] >= 0.1
    facts["Russian, by a model of English"] = crossed.value
    facts["chance"] = 1 / len(TOPICS)
    return rows, facts


def topics(language: str, names: Sequence[str], args: Any) -> hs.Dataset:
    """Random sayings of each topic, in an order that tells nothing."""
    rng, texts = np.random.default_rng(0), sayings(language, names, args.data)
    pairs = [
        (texts[name][i], own)
        for name, own in zip(names, TOPICS, strict=True)
        for i in rng.permutation(len(texts[name]))[: args.each]
    ]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    sources, labels = zip(*pairs, strict=True)
    ids = [f"{language}{number}" for number in range(len(pairs))]
    return labelled(labels, "class", ids, sources, input=TextInput())


# ------------------------------------------------------------ TF-IDF
def tfidf(parts: hs.Splits) -> hs.Predictions:
    """The baseline that stands beside every model of texts."""
    target, test = parts.train.target.fitted(parts.train.y), parts.test
    made = fit_baseline(TextInput(), parts.train, parts.val)
    assert made is not None
    return hs.Predictions(test.ids, target.activate(made.raw(test)), test.y, target)


def letters(parts: hs.Splits) -> hs.Predictions:
    """TF-IDF of two to five letters, which suits languages of many endings."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline

    known = [*map(str, parts.train.sources), *map(str, parts.val.sources)]
    features = TfidfVectorizer(ngram_range=(2, 5), analyzer="char_wb", sublinear_tf=True)
    solver = LogisticRegressionCV(
        Cs=[1, 10, 100],
        cv=5,
        max_iter=1000,
        scoring="accuracy",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    model = make_pipeline(features, solver)
    model.fit(known, np.concatenate([parts.train.y, parts.val.y]))
    scores = model.predict_proba(list(map(str, parts.test.sources))).astype(np.float32)
    return hs.Predictions(parts.test.ids, scores, parts.test.y, parts.train.target)


if __name__ == "__main__":
    main()
