"""How often the 95 % intervals of an evaluation contain the true value, on simulated test sets.

    python bench/intervals.py [--sets 2000] [--resamples 400]

A row of class +1 or -1 gets the score z = class * mu + noise, noise normal, and the probability
1 / (1 + exp(-2 z)) of +1; so the true accuracy p is that of mu = Phi^-1(p), and the other true
values follow from mu. As many rows a class in every set, as a stratified split holds them: halves,
or four of one for one of the other. `exact` is no simulation: Wilson's interval of every possible
number of right answers, weighed by the binomial. `within` is whether 93 to 98 % were held; of 2,000
sets the share held is itself uncertain by 1 % either way.
"""

from typing import Any

import numpy as np
from harness import Bench
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import binom, norm

from headstart.evaluation.evaluation import Evaluation, evaluate, wilson
from headstart.targets.classes import ClassTarget
from headstart.targets.metrics import macro_f1
from headstart.targets.predictions import Predictions

SIZES, ACCURACIES, MINORITIES = (30, 300, 3000), (0.5, 0.9, 0.99), (0.5, 0.2)
HELD = (0.93, 0.98)


def main() -> None:
    bench = Bench("intervals", __doc__)
    bench.flag("--sets", type=int, default=2000, quick=20, help="simulated test sets of each kind")
    bench.flag("--resamples", type=int, default=400, quick=20, help="of the log loss's bootstrap")
    args = bench.arguments()
    rows: list[dict[str, Any]] = []
    for minority in MINORITIES:
        for n in SIZES:
            for p in ACCURACIES:
                held = shares_held(n, p, minority, args.sets, args.resamples)
                exact = {"exact": exact_coverage(n, p)} if minority == 0.5 else {}
                rows += [
                    {
                        "metric": name,
                        "smaller class": minority,
                        "n": n,
                        "accuracy": p,
                        "held": share,
                        "within": "yes" if HELD[0] <= share <= HELD[1] else "NO",
                    }
                    | (exact if name == "accuracy" else {})
                    for name, share in held.items()
                ]
    metrics = ClassTarget.shown
    rows.sort(key=lambda row: metrics.index(row["metric"]))
    bench.report(rows, {f"{name}: settings within": within(rows, name) for name in metrics})


def within(rows: list[dict[str, Any]], metric: str) -> str:
    own = [row["within"] == "yes" for row in rows if row["metric"] == metric]
    return f"{sum(own)} of {len(own)}"


def shares_held(n: int, p: float, minority: float, sets: int, resamples: int) -> dict[str, float]:
    """The share of test sets in which each headline number's interval holds the true value."""
    labels = np.repeat([0, 1], [n - round(n * minority), round(n * minority)])
    true, rng = truths(p, np.bincount(labels)), np.random.default_rng(0)
    held = dict.fromkeys(ClassTarget.shown, 0)
    for _ in range(sets):
        found = evaluate(drawn(labels, p, rng), resamples=resamples)
        for name in ClassTarget.shown:
            held[name] += holds(found, name, true[name])
    return {name: count / sets for name, count in held.items()}


def holds(found: Evaluation, name: str, true: float) -> bool:
    estimate = getattr(found, name)
    return bool(estimate.low <= true <= estimate.high)


def drawn(labels: NDArray[np.int64], p: float, rng: np.random.Generator) -> Predictions:
    z = (2 * labels - 1) * norm.ppf(p) + rng.normal(size=len(labels))
    scores = 1 / (1 + np.exp(np.stack([2 * z, -2 * z], axis=1)))
    ids = tuple(map(str, range(len(labels))))
    return Predictions(ids, scores.astype(np.float32), labels, ("-1", "+1"))


def truths(p: float, counts: NDArray[np.int64]) -> dict[str, float]:
    """What a test set without end would show, its classes in the same proportion."""
    mu = float(norm.ppf(p))
    table = counts[:, None] * np.array([[p, 1 - p], [1 - p, p]])
    return {
        "accuracy": p,
        "balanced_accuracy": p,
        "macro_f1": macro_f1(table),
        "auroc": float(norm.cdf(np.sqrt(2) * mu)),
        "log_loss": quad(lambda z: np.logaddexp(0, -2 * z) * norm.pdf(z - mu), mu - 12, mu + 12)[0],
    }


def exact_coverage(n: int, p: float) -> float:
    """How probable it is that Wilson's interval of n rows holds p."""
    intervals = [wilson(right, n) for right in range(n + 1)]
    held = [e is not None and e.low <= p <= e.high for e in intervals]
    return float(binom.pmf(np.arange(n + 1), n, p)[held].sum())


if __name__ == "__main__":
    main()
