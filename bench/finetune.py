"""The tutorial's two phases, full runs in turn: Headstart, Keras, PyTorch and fastai.

    python bench/finetune.py [--images 600] [--epochs 10] [--only NAME …] [--augmented-only]

MobileNetV2 at 160 pixels with random weights (these are for time), on 600 JPEGs of 500x375, 480 of
them for training: 10 epochs of a head on the frozen network, 10 more from layer 100 on. Each is a
process of its own in an environment of its own, with nothing else running; then again with flips
and rotation, where Headstart stores 4 views of each picture. bench/references/README.md says what
each competitor is, and what the seconds hold.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from harness import Bench
from references.environments import NAMES, installed, measure
from references.pictures import make_pictures

OURS = "headstart_two_phase"
KERAS = ("keras_tensorflow", "keras_torch")
PLAIN = "torch_channels_last"
PRINTED = ("keras_jax", "fastai_finetune")  # figures to print, without a promise
Found = dict[str, dict[str, Any]]


def main() -> None:
    bench = Bench("finetune", __doc__)
    every = [OURS, PLAIN, *KERAS, *PRINTED]
    bench.flag("--images", type=int, default=600, quick=40)
    bench.flag("--epochs", type=int, default=10, quick=1, help="of each phase")
    bench.flag("--only", nargs="+", choices=NAMES, default=every, quick=[OURS, PLAIN, KERAS[0]])
    bench.flag("--augmented-only", action="store_true")
    args = bench.arguments()
    rows: list[dict[str, object]] = []
    facts: dict[str, object] = {}
    names = [name for name in args.only if not args.quick or installed(name)]
    rows += [{"who": n, "skipped": "not installed"} for n in args.only if n not in names]
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), images=args.images)
        for augment in (
            (True,) if args.augmented_only else (False,) if args.quick else (False, True)
        ):
            found = run(Path(folder), names, args.epochs, augment)
            rows += [row(record, found.get(OURS), augment) for record in found.values()]
            facts |= promises(found, augment)
    bench.report(rows, facts)


def run(folder: Path, names: list[str], epochs: int, augment: bool) -> Found:
    """Each competitor once, one after the other; Headstart twice, first and last, the mean kept.

    The machine may be slower at the end than at the beginning: the two runs show by how much.
    """
    found: Found = {}
    for name in [*names, *([OURS] if OURS in names and len(names) > 1 else [])]:
        if augment and name in PRINTED:
            continue
        record = measure(name, folder, epochs=epochs, fine_epochs=epochs, batch=32, augment=augment)
        print(name, {k: v for k, v in record.items() if k.endswith("seconds") or k == "skipped"})
        found[name] = mean_of(found[name], record) if name in found else record
    return found


def mean_of(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return a | {k: (a[k] + b[k]) / 2 for k in ("phase1_seconds", "phase2_seconds")}


def row(record: dict[str, Any], ours: dict[str, Any] | None, augment: bool) -> dict[str, object]:
    name = record["name"] + (", augmented" if augment else "")
    if "skipped" in record:
        return {"who": name, "skipped": record["skipped"]}
    shown: dict[str, object] = {
        "who": name,
        "phase 1, s": record["phase1_seconds"],
        "phase 2, s": record["phase2_seconds"],
        "both, s": both(record),
        "epoch of phase 2, s": epoch(record),
    }
    if ours is not None and "skipped" not in ours:
        shown |= {
            "both, times ours": both(record) / both(ours),
            "phase 1": record["phase1_seconds"] / ours["phase1_seconds"],
            "epoch": epoch(record) / epoch(ours),
        }
    return shown


def promises(found: Found, augment: bool) -> dict[str, object]:
    """What is asked for, and whether this run showed it."""
    ran = {name: r for name, r in found.items() if "skipped" not in r}
    if OURS not in ran:
        return {}
    ours, facts = ran[OURS], dict[str, object]()
    wanted = {name: 4.0 if augment else 6.0 for name in KERAS} | {PLAIN: 2.5 if augment else 4.0}
    for name, least in wanted.items():
        if name in ran:
            ratio = both(ran[name]) / both(ours)
            facts[f"{'augmented ' if augment else ''}{name} (at least {least})"] = ratio
            if not augment:
                phase = ran[name]["phase1_seconds"] / ours["phase1_seconds"]
                facts[f"phase 1, {name} (at least 20)"] = phase
    if PLAIN in ran and not augment:
        facts["epoch from the cut, against uncached (at least 2)"] = epoch(ran[PLAIN]) / epoch(ours)
    return facts


def both(record: dict[str, Any]) -> float:
    return float(record["phase1_seconds"] + record["phase2_seconds"])


def epoch(record: dict[str, Any]) -> float:
    """The median epoch of phase 2, validation included: first epochs hold compilation."""
    return statistics.median(record["epoch_seconds"][1])


if __name__ == "__main__":
    main()
