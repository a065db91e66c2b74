"""The tutorial's two phases, full runs in turn: Headstart, and Keras and PyTorch in two formats.

    python bench/finetune.py [--network resnet50] [--images 600] [--epochs 10] [--only NAME …]
                             [--augmented] [--float32]

MobileNetV2 at 160 pixels with random weights (these are for time), on 600 JPEGs of 500x375, 480 of
them for training: 10 epochs of a head on the frozen network, 10 more from layer 100 on. With
--network resnet50 the recipe resnet50-last5, at 224 pixels, on 300 JPEGs. Each is a process of its
own in an environment of its own, with nothing else running; those that offer it run in bfloat16 too
(not with --float32). --augmented: with flips and rotation, where Headstart stores 4 views of each
picture. bench/references/README.md says what each competitor is, and what the seconds hold.
"""

import statistics
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import Bench
from references.environments import NAMES, installed, measure
from references.pictures import make_pictures

OURS = "headstart_two_phase"
KERAS = ("keras_tensorflow", "keras_torch")
PLAIN = "torch_channels_last"
REDUCED = ", bfloat16"  # behind the name of what computes in it
OFFER_BFLOAT16 = (PLAIN, "keras_tensorflow")  # and gain by it; the others are slower at that
WANTED = {"keras_tensorflow": 8.0, PLAIN: 6.0}  # times as long as ours; in float32
WANTED_AUGMENTED = {"keras_tensorflow": 5.0, PLAIN: 4.0}
IMAGES = {"mobilenetv2": 600, "resnet50": 300}
Found = dict[str, dict[str, Any]]


def main() -> None:
    bench = Bench("finetune", __doc__)
    every = [OURS, PLAIN, KERAS[0]]
    bench.flag("--network", choices=IMAGES, default="mobilenetv2")
    bench.flag("--images", type=int, default=0, quick=40, help="0: 600; of resnet50 300")
    bench.flag("--epochs", type=int, default=10, quick=1, help="of each phase")
    bench.flag("--only", nargs="+", choices=NAMES, default=every)
    bench.flag("--augmented", action="store_true")
    bench.flag("--float32", action="store_true", help="leave out the runs in bfloat16")
    args = bench.arguments()
    rows: list[dict[str, object]] = []
    facts: dict[str, object] = {}
    names = [name for name in args.only if not args.quick or installed(name)]
    rows += [{"who": n, "skipped": "not installed"} for n in args.only if n not in names]
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), images=args.images or IMAGES[args.network])
        found = run(Path(folder), names, args)
    rows += [row(who, record, found.get(OURS)) for who, record in found.items()]
    bench.report(rows, facts | promises(found, args.augmented))


def run(folder: Path, names: list[str], args: Namespace) -> Found:
    """Each competitor once, one after the other; Headstart twice, first and last, the mean kept.

    The machine may be slower at the end than at the beginning: the two runs show by how much.
    """
    found: Found = {}
    reduced = [] if args.float32 else [n + REDUCED for n in names if n in OFFER_BFLOAT16]
    for who in [*names, *reduced, *([OURS] if OURS in names and len(names) > 1 else [])]:
        record = measure(
            who.removesuffix(REDUCED),
            folder,
            epochs=args.epochs,
            fine_epochs=args.epochs,
            batch=32,
            augment=args.augmented,
            network=args.network,
            bfloat16=who.endswith(REDUCED),
        )
        print(who, {k: v for k, v in record.items() if k.endswith("seconds") or k == "skipped"})
        found[who] = mean_of(found[who], record) if who in found else record
    return found


def mean_of(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    if "skipped" in a or "skipped" in b:
        return a | b
    return a | {k: (a[k] + b[k]) / 2 for k in ("phase1_seconds", "phase2_seconds")}


def row(name: str, record: dict[str, Any], ours: dict[str, Any] | None) -> dict[str, object]:
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
    for name, least in (WANTED_AUGMENTED if augment else WANTED).items():
        if name in ran:
            facts[f"{name} (wanted {least:.0f})"] = both(ran[name]) / both(ours)
            if not augment:
                phase = ran[name]["phase1_seconds"] / ours["phase1_seconds"]
                facts[f"phase 1, {name} (wanted 20)"] = phase
        if name + REDUCED in ran:
            facts[name + REDUCED] = both(ran[name + REDUCED]) / both(ours)
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
