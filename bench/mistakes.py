"""Label mistakes planted among the solar cells: how many of them are found?

    python bench/mistakes.py [--seeds 0 1 2]

Cells with a clear label (probability 0 or 1), 5 % of them flipped; features of the package's
EfficientNet-Lite0, five folds, confident learning. Precision at k: of the k likeliest mistakes, k
being as many as were planted, the share that was planted; by chance it is the share planted.
Then an easy set: clouds of points six deviations apart.
"""

import numpy as np
from harness import Bench
from numpy.typing import NDArray

import headstart as hs
from headstart.evaluation.mistakes import margins, suspicious
from headstart.features.extract import FeatureTable, extract
from headstart.heads.fit import out_of_fold
from headstart.heads.specs import LogisticSpec
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.specs import FeatureExtraction
from headstart.targets.classes import ClassTarget

FLIPPED, L2 = 0.05, 0.03


def main() -> None:
    bench = Bench("mistakes", __doc__)
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0])
    bench.flag("--backbone", default=DEFAULT_BACKBONE, quick="tiny:32")
    args = bench.arguments()
    cells = clear_cells()
    recipe = FeatureExtraction(fit="squash")
    table = extract(recipe.prepared(hs.load_backbone(args.backbone)), cells)
    rows = [planted("solar cells", table, seed) for seed in args.seeds]
    rows += [planted("easy", clouds(seed), seed) for seed in args.seeds]
    real = [row for row in rows if row["data"] == "solar cells"]
    bench.report(
        rows,
        {
            "least precision at k, times the base rate": min(
                float(str(row["times base"])) for row in real
            )
        },
    )


def clear_cells() -> hs.Dataset:
    """The cells that the expert was sure of, in an order that tells nothing."""
    cells, probabilities = solar_cells(), np.asarray(solar_cells("number").labels)
    return cells.take(np.flatnonzero((probabilities == 0) | (probabilities == 1)))


def clouds(seed: int) -> FeatureTable:
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=2000)
    x = (rng.normal(size=(2000, 16)) + 6 * np.eye(4, 16)[y]).astype(np.float32)
    return FeatureTable(tuple(map(str, range(2000))), x, y, ClassTarget(("a", "b", "c", "d")), "")


def planted(name: str, table: FeatureTable, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    n, classes = len(table.y), len(table.classes)
    wrong = rng.permutation(n)[: round(FLIPPED * n)]
    y: NDArray[np.int64] = table.y.copy()
    y[wrong] = (y[wrong] + rng.integers(1, classes, size=len(wrong))) % classes
    told = FeatureTable(table.ids, table.x, y, table.target, "")
    scores = out_of_fold(LogisticSpec(l2=(L2,)), told, rng)
    flipped = np.isin(np.arange(n), wrong)
    first = np.argsort(margins(scores, y), kind="stable")[: len(wrong)]
    named = suspicious(scores, y)
    precision, base = float(flipped[first].mean()), len(wrong) / n
    return {
        "data": name,
        "seed": seed,
        "rows": n,
        "planted": len(wrong),
        "precision at k": round(precision, 3),
        "times base": round(precision / base, 1),
        "named": len(named),
        "precision": round(float(flipped[named].mean()), 3),
        "recall": round(float(flipped[named].sum() / len(wrong)), 3),
    }


if __name__ == "__main__":
    main()
