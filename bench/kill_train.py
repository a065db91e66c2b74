"""Trainings killed and resumed: are their results bitwise those of an uninterrupted one?

    python bench/kill_train.py [--runs 20] [--kills 3] [--seed 0] [--target boxes]
    python bench/kill_train.py --flips 200

A child process trains a head by epochs and fine-tunes a small ResNet on augmented views, or with
--target boxes trains what finds boxes and fine-tunes below it, from stored activations, writing a
checkpoint after every step. Its parent kills it (SIGKILL) a random moment after a random step,
looks whether each checkpoint that is there can be read, and lets another child go on with --resume;
after the last kill one runs to its end. Weights, history (but for the seconds), split and
predictions must be byte for byte those of a run that nobody disturbed. The same harness must catch
a trainer that forgets the optimiser's memory.

With --flips, a run is killed once, in fine-tuning, and then resumed from a copy in which one random
bit of one of its checkpoints is flipped, so many times. It must be refused in a sentence, or end as
the unbroken run does. The control trusts every checkpoint.
"""

import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import captum.attr  # noqa: F401  # imported once here, and not by every child
import numpy as np
import scipy.stats  # noqa: F401
import torch
from harness import Bench
from made_boxes import make_boxes
from PIL import Image

import headstart as hs
import headstart.backbones.graph
import headstart.runs.run
from headstart.base.errors import HeadstartError
from headstart.specs import (
    Augment,
    FeatureExtraction,
    FineTune,
    Job,
    LinearSpec,
    PyramidSpec,
    Runtime,
)
from headstart.training import checkpoints, loop

PHASES = ("head", "finetune")
BOXES = "boxes"  # the folder of pictures with boxes
SAME = ("model/weights.safetensors", "model/model.json", "splits.csv", "predictions.csv")
LONGEST_S = 0.05  # between the step that is waited for and the kill
HALF = 30  # steps after which the run whose checkpoints are flipped is killed: in fine-tuning
ENDED, FAILED, REFUSED = 0, 1, 3  # exit codes of a child


@dataclass
class Tally:
    runs: int = 0
    equal: int = 0
    kills: int = 0
    in_training: int = 0  # kills that found a checkpoint
    unreadable: int = 0

    def shown(self, trainer: str) -> dict[str, object]:
        return {
            "trainer": trainer,
            "runs": self.runs,
            "kills": self.kills,
            "kills in training": self.in_training,
            "ended bitwise equal": self.equal,
            "unreadable checkpoints": self.unreadable,
        }


def main() -> None:
    bench = Bench("kill_train", __doc__)
    bench.flag("--runs", type=int, default=20, quick=1)
    bench.flag("--kills", type=int, default=3, quick=1, help="of each run")
    bench.flag("--pictures", type=int, default=60, quick=24, help="of each class")
    bench.flag("--flips", type=int, default=0, help="flip bits instead, so many times")
    bench.flag("--seed", type=int, default=0)
    bench.flag("--target", choices=("classes", "boxes"), default="classes")
    args = bench.arguments()
    if args.flips and args.target == "boxes":
        bench.parser.error("--flips is for classes: leave --target boxes out")
    torch.set_num_threads(1)  # forked children have no threads of their parent's
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.target == "boxes":
            make_boxes(root / BOXES, args.pictures)
        else:
            make_pictures(root / "pictures", args.pictures)
        if args.flips:
            sys.exit(flip_main(bench, root, args.flips, args.seed))
        steps = wait_for_end(*start(root, root / "whole", False, False))
        few = max(args.runs // 10, min(args.runs, 2))
        real = hunt(root, Kills(steps, args.runs, args.kills), args.seed, forgetful=False)
        naive = hunt(root, Kills(steps, few, args.kills), args.seed, forgetful=True)
    rows = [real.shown("headstart"), naive.shown("forgets the optimiser")]
    bench.report(rows)
    in_training = real.in_training > real.kills / 2  # or little was put to the test
    good = real.equal == real.runs and not real.unreadable and in_training
    print("headstart:", "every run ended as an unbroken one" if good else "WRONG")
    caught = naive.equal < naive.runs
    print("forgetful:", "caught" if caught else "NOT CAUGHT: this harness proves nothing")
    sys.exit(not (good and caught))


def make_pictures(folder: Path, each: int) -> None:
    """Two classes that overlap, so that training has something to do."""
    rng = np.random.default_rng(0)
    for name, level in {"dark": 110, "bright": 140}.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.normal(level + rng.normal(0, 15), 40, size=(48, 48, 3))
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / name / f"{i}.png")


def pictures_in(root: Path) -> Path:
    return next(path for path in (root / BOXES, root / "pictures") if path.exists())


def job_in(root: Path, name: str, resume: bool = False) -> Job:
    store = hs.Store(root / f"store-{name}")
    runtime = Runtime(device="cpu", threads=1, decode_threads=1)
    if (root / BOXES).exists():
        return Job(
            backbone="timm:test_resnet",
            weights="random",
            strategy="finetune",
            recipe=FeatureExtraction(PyramidSpec(epochs=6), size=96),
            finetune=FineTune(thaw="2", epochs=4, batch_size=8, lr=1e-3),
            augment=Augment(flip="horizontal", resized_crop=0.6, views=2),
            runtime=runtime,
            store=store,
            checkpoint_s=0.0,
            resume=resume,
        )
    return Job(
        backbone="timm:test_resnet",
        weights="random",
        strategy="finetune",
        recipe=FeatureExtraction(LinearSpec(epochs=4, dropout=0.2)),
        finetune=FineTune(thaw="2", epochs=6, batch_size=8, lr=1e-3, mixup=0.2, dropout=0.2),
        augment=Augment(flip="both", rotation=0.1, views=2),
        runtime=runtime,
        store=store,
        checkpoint_s=0.0,
        resume=resume,
    )


@dataclass
class Flips:
    """What came of resuming from checkpoints with a flipped bit."""

    flips: int = 0
    refused: int = 0  # in a sentence
    equal: int = 0  # to the unbroken run
    different: int = 0  # without a word
    failed: int = 0  # otherwise
    seconds: float = 0.0


def flip_main(bench: Bench, root: Path, count: int, seed: int) -> bool:
    """Flip bits with the check and without; whether something is wrong."""
    whole, half = root / "whole", root / "half"
    wait_for_end(*start(root, whole, False, False))
    steps = len(wait_for_kill(*start(root, half, False, False), HALF))
    assert steps >= HALF
    assert len(list(half.glob("checkpoint-*.safetensors"))) == 2
    real = flip(root, count, seed)
    blind = flip(root, max(4, count // 25), seed, blind=True)
    rows = [{"check": "seals", **vars(real)}, {"check": "none", **vars(blind)}]
    bench.report(rows)
    good = real.different == 0 and real.failed == 0 and real.refused > 0
    print("headstart:", "no silent difference" if good else "WRONG")
    caught = blind.different > 0
    print("none:", "caught" if caught else "NOT CAUGHT: this harness proves nothing")
    return not (good and caught)


def wait_for_kill(pid: int, pipe: int, steps: int) -> bytes:
    """Kill a child right after so many steps; what it said until then."""
    said = b""
    while len(said) < steps and (more := os.read(pipe, steps - len(said))):
        said += more
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pipe)
    return said


def flip(root: Path, count: int, seed: int, *, blind: bool = False) -> Flips:
    """Flip so many bits of the checkpoints of a run that was cut off, each in a copy of its own."""
    rng, tally, began = random.Random(seed), Flips(), time.perf_counter()
    for number in range(count):
        out = root / f"flipped-{blind}-{number}"
        shutil.copytree(root / "half", out)
        path = rng.choice(sorted(out.glob("checkpoint-*.safetensors")))
        if blind:
            path = out / "checkpoint-finetune.safetensors"
        elif number % 10 == 9:
            path = out / "checkpoint-cut.json"
        data = bytearray(path.read_bytes())
        bit = a_number_halved(data, rng) if blind else rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        tally.flips += 1
        came = resumed(root, out, blind=blind)
        if came == "ended":
            came = "equal" if equal(root / "whole", out) else "different"
        setattr(tally, came, getattr(tally, came) + 1)
        shutil.rmtree(out)
    tally.seconds = time.perf_counter() - began
    return tally


def a_number_halved(data: bytes | bytearray, rng: random.Random) -> int:
    """The highest bit of the mantissa of a float32: rounding does not swallow it."""
    header = 8 + int.from_bytes(data[:8], "little")
    return 8 * (header + 4 * rng.randrange((len(data) - header) // 4) + 2) + 6


def resumed(root: Path, out: Path, *, blind: bool) -> str:
    """What comes of going on in `out` in a forked child: ended, refused or failed."""
    pid = os.fork()
    if not pid:
        code = FAILED
        try:
            if blind:
                setattr(checkpoints, "seal_holds", lambda data, name: True)  # noqa: B010
            hs.train(hs.read(root / "pictures"), out, job_in(root, "half", True))
            code = ENDED
        except HeadstartError as error:
            code = REFUSED if "Remove it" in str(error) else FAILED
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    ends = {ENDED: "ended", REFUSED: "refused"}
    return ends.get(os.waitstatus_to_exitcode(status), "failed")


@dataclass(frozen=True)
class Kills:
    """How much is killed: so many runs, each of so many steps, so many times."""

    steps: int
    runs: int
    each: int


def hunt(root: Path, kills: Kills, seed: int, *, forgetful: bool) -> Tally:
    """Disturb runs, and compare how they end with the unbroken one."""
    tally, rng = Tally(), random.Random(seed)
    latest = max(2, kills.steps // (kills.each + 1))
    for number in range(kills.runs):
        out = root / f"run-{forgetful}-{number}"
        for kill in range(kills.each):
            pid, pipe = start(root, out, kill > 0 and out.exists(), forgetful)
            kill_after(pid, pipe, rng.randrange(1, latest), rng)
            tally.kills += 1
            look(out, tally)
        wait_for_end(*start(root, out, True, forgetful))
        tally.runs += 1
        tally.equal += equal(root / "whole", out)
        print(f"run {number + 1}: {tally.equal} of {tally.runs} equal", flush=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(root / f"store-{out.name}", ignore_errors=True)
    return tally


def start(root: Path, out: Path, resume: bool, forgetful: bool) -> tuple[int, int]:
    """A forked child that trains into `out`, and says a byte on a pipe after every step."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writes)
        return pid, reads
    try:
        if forgetful:
            setattr(loop, "unpack_optimizer", lambda optimizer, tensors: None)  # noqa: B010

        class Steps(hs.Listener):
            def progress(self, stage: str, done: int, total: int) -> None:
                if stage in PHASES:
                    os.write(writes, b".")

        job = job_in(root, out.name, resume)
        hs.train(hs.read(pictures_in(root)), out, job, Steps())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def wait_for_end(pid: int, pipe: int) -> int:
    """How many steps a child took to its end; raises RuntimeError if it failed."""
    with open(pipe, "rb") as f:
        steps = len(f.read())
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"A run that nobody killed ended with status {status}.")
    return steps


def kill_after(pid: int, pipe: int, steps: int, rng: random.Random) -> None:
    seen = 0
    while seen < steps and select.select([pipe], [], [])[0]:
        if not (more := os.read(pipe, steps - seen)):
            break
        seen += len(more)
    time.sleep(rng.uniform(0, LONGEST_S))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pipe)


def look(out: Path, tally: Tally) -> None:
    """Whether every checkpoint that lies there is whole."""
    there = list(out.glob("checkpoint-*.safetensors"))
    tally.in_training += bool(there)
    for path in there:
        try:
            checkpoints.read_checkpoint(path)
        except HeadstartError:
            tally.unreadable += 1


def equal(whole: Path, out: Path) -> bool:
    lines = [
        [line.rpartition(",")[0] for line in (run / "history.csv").read_text().splitlines()]
        for run in (whole, out)
    ]
    same = all((whole / name).read_bytes() == (out / name).read_bytes() for name in SAME)
    return same and lines[0] == lines[1]


if __name__ == "__main__":
    main()
