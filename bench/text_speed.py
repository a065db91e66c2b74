"""Texts: fine-tuning from the cut against transformers' Trainer, a head only against SetFit.

    python bench/text_speed.py [--rows 2000] [--epochs 3] [--data data]

Film sentences by the sign of their rating, MiniLM, batches of 32 sentences of like length. First
the upper third of its layers is fine-tuned: by Headstart from the cut, by the Trainer with every
layer run in every epoch, and once more by the Trainer with all layers trained. An epoch holds its
validation; the figure is the median of an epoch. Then few sentences of each class: Headstart's head
only, and SetFit with its own settings, in a virtual environment of its own. Each is a process of
its own; accuracy is of 1,000 other sentences. What is not there is left out.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Bench
from references.environments import installed, measure_texts
from references.texts import TextTask

from headstart.evaluation.evaluation import wilson
from headstart.modalities.text.examples import snippets

OURS, TRAINER, SETFIT = "headstart_texts", "trainer_texts", "setfit_texts"
LAYERS, ALL = 2, 6  # of MiniLM
Record = dict[str, Any]


def main() -> None:
    bench = Bench("text_speed", __doc__)
    bench.flag("--rows", type=int, default=2000, quick=64, help="to train on; a fifth validates")
    bench.flag("--test", type=int, default=1000, quick=64)
    bench.flag("--epochs", type=int, default=3, quick=1)
    bench.flag("--few", type=int, nargs="+", default=[8, 32], quick=[8], help="of each class")
    bench.flag("--seeds", type=int, nargs="+", default=[0, 1, 2], quick=[0], help="of the few")
    bench.flag("--data", type=Path, default=Path("data"))
    args = bench.arguments()
    pairs = sentences(args.data)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "task.json"
        tuned, facts = fine_tuned(pairs, args, place)
        small, more = few(pairs, args, place)
    title = "few sentences of each class: a head only, and SetFit"
    bench.report(tuned, {**facts, **more}, more={title: small})


def sentences(folder: Path) -> list[tuple[str, int]]:
    """Film sentences and their classes in random order."""
    data = snippets("film", folder=folder)
    order = np.random.default_rng(0).permutation(len(data))
    return [(str(data.sources[i]), int(data.labels[i])) for i in order]


# ------------------------------------------------------------ fine-tuning
def fine_tuned(
    pairs: Sequence[tuple[str, int]], args: Any, place: Path
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Three ways to fine-tune on the same rows; ours runs first and last, and the mean is kept."""
    n, val = args.rows, args.rows // 5
    train, held, test = pairs[:n], pairs[n : n + val], pairs[n + val : n + val + args.test]

    def run(name: str, layers: int) -> Record:
        task = TextTask(train, held, test, epochs=args.epochs, layers=layers)
        record = measure_texts(name, task.write(place))
        print(name, layers, {k: v for k, v in record.items() if k != "right"}, flush=True)
        return record

    first = run(OURS, LAYERS)
    same, whole = run(TRAINER, LAYERS), run(TRAINER, ALL)
    last = first if args.quick else run(OURS, LAYERS)
    rows = [
        row("Headstart, from the cut", first, last),
        row("Trainer, upper third trained", same),
        row("Trainer, all layers trained", whole),
    ]
    if any("skipped" in record for record in (first, same, whole, last)):
        return rows, {}
    ours = (epoch(first) + epoch(last)) / 2
    return rows, {
        "epoch, upper third: Trainer over Headstart (at least 2)": epoch(same) / ours,
        "epoch, all layers: Trainer over Headstart": epoch(whole) / ours,
        "accuracy, Headstart less Trainer": accuracy(first) - accuracy(same),
        "within the interval": abs(accuracy(first) - accuracy(same)) <= half(first) + half(same),
    }


def row(name: str, *records: Record) -> dict[str, object]:
    if reasons := [record["skipped"] for record in records if "skipped" in record]:
        return {"who": name, "skipped": reasons[0]}
    return {
        "who": name,
        "epoch, s": statistics.mean(map(epoch, records)),
        "all, s": statistics.mean(record["seconds"] for record in records),
        "accuracy": str(estimate(records[0])),
    }


def epoch(record: Record) -> float:
    return statistics.median(record["epoch_seconds"])


def estimate(record: Record) -> Any:
    return wilson(sum(record["right"]), len(record["right"]))


def accuracy(record: Record) -> float:
    return statistics.mean(record["right"])


def half(record: Record) -> float:
    """Half of the width of the interval of an accuracy."""
    found = estimate(record)
    return float(found.high - found.low) / 2


# ------------------------------------------------------------ few sentences
def few(
    pairs: Sequence[tuple[str, int]], args: Any, place: Path
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """A head only and SetFit on the same few sentences, for each number and seed."""
    rows, facts = list[dict[str, object]](), dict[str, object]()
    names = [OURS] + ([SETFIT] if not args.quick or installed(SETFIT) else [])
    for each in args.few:
        found: dict[str, list[Record]] = {name: [] for name in names}
        for seed in args.seeds:
            task = drawn(pairs, each, seed, args.test)
            for name in names:
                found[name].append(measure_texts(name, task.write(place)))
        rows += [row_of(each, name, records) for name, records in found.items()]
        facts |= compared(each, found)
        print(rows[-len(names) :], flush=True)
    return rows, facts


def drawn(pairs: Sequence[tuple[str, int]], each: int, seed: int, test: int) -> TextTask:
    order = np.random.default_rng(seed).permutation(len(pairs) - test) + test
    chosen = [pairs[i] for c in (0, 1) for i in [i for i in order if pairs[i][1] == c][:each]]
    return TextTask(chosen, [], pairs[:test], layers=0, seed=seed)


def row_of(each: int, name: str, records: list[Record]) -> dict[str, object]:
    if reasons := [record["skipped"] for record in records if "skipped" in record]:
        return {"of each class": each, "who": name, "skipped": reasons[0]}
    return {
        "of each class": each,
        "who": "SetFit" if name == SETFIT else "Headstart, a head only",
        "s": statistics.mean(record["seconds"] for record in records),
        "accuracy, mean": statistics.mean(map(accuracy, records)),
        "accuracies": ", ".join(f"{accuracy(record):.3f}" for record in records),
    }


def compared(each: int, found: dict[str, list[Record]]) -> dict[str, object]:
    if len(found) < 2 or any("skipped" in record for many in found.values() for record in many):
        return {}
    ours, theirs = found[OURS], found[SETFIT]
    seconds = [statistics.mean(record["seconds"] for record in many) for many in (theirs, ours)]
    gap = statistics.mean(map(accuracy, ours)) - statistics.mean(map(accuracy, theirs))
    return {
        f"{each} of each class, seconds: SetFit over Headstart": seconds[0] / seconds[1],
        f"{each} of each class, accuracy: Headstart less SetFit": gap,
    }


if __name__ == "__main__":
    main()
