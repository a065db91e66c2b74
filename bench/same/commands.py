"""The commands that both sides run, in turn, in one folder: DATA is data/, runs go to runs/."""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

KEEP_GOING = ("--threads", "1", "--decode-threads", "1")
HELPED = (
    "demo train check evaluate compare report predict classify backbones recipes views track "
    "explain attack ideal robustness"
).split()


@dataclass(frozen=True)
class Command:
    """One call of the command line.

    name: of the files that its output goes to. argv: after `headstart`. code: it must end with.
    quick: part of the short list as well. stopped: instead, it is sent this signal when it is about
    to rename a file for the `after`-th time onto a checkpoint.
    """

    name: str
    argv: tuple[str, ...]
    code: int = 0
    quick: bool = False
    stdin: str = ""
    stopped: int = 0
    after: int = 5
    env: dict[str, str] = field(default_factory=dict)


def commands(quick: bool = False) -> tuple[Command, ...]:
    """All commands, or those of the short list."""
    listed = [*_training(), *_stopped(), *_models(), *_pictures(), *_others(), *_refused()]
    return tuple(c for c in listed if c.quick or not quick)


def _made(name: str, line: str, **more: object) -> Command:
    return Command(name, tuple(line.split()), **more)  # type: ignore[arg-type]


def _train(name: str, line: str, data: str = "data/shapes", **more: object) -> Command:
    out, threads = f"runs/{name}", " ".join(KEEP_GOING)
    chosen = line if "--backbone" in line else f"--backbone tiny:16 {line}"
    return _made(f"train-{name}", f"train {data} --out {out} {threads} {chosen}", **more)


def _training() -> Iterator[Command]:
    """Every kind of head, of fine-tuning, of data, and each recipe that needs no download."""
    yield _train(
        "auto", "--epochs 3 --precision 0.6 --false-alarms 0.2 --data-licence CC0", quick=True
    )
    extract = "--strategy extract --head"
    yield _train("ridge", f"{extract} ridge --class-weights balanced --no-calibrate", quick=True)
    yield _train("nearest", f"{extract} nearest --neighbours 1 3 5 --coverage 0.8 --seed 3")
    yield _train(
        "linear", f"{extract} linear --head-epochs 3 --dropout 0.2 --head-optimizer sgd --views 2 "
        "--flip both --rotation 0.1"
    )  # fmt: skip
    yield _train(
        "mlp", f"{extract} mlp --hidden 16 8 --head-epochs 3 --language ru --head-keep last"
    )
    yield _train(
        "weights", f"{extract} logistic --weights random --l2 1 0.1 --fit squash --size 48"
    )
    yield _train(
        "cut", "--strategy finetune --thaw 1 --epochs 3 --views 2 --flip both --rotation 0.1 "
        "--mixup 0.2 --label-smoothing 0.1 --clip 1 --cut-precision float16 --wise --patience 2 "
        "--threads 2 --decode-threads 2", quick=True,
    )  # fmt: skip
    yield _train(
        "pixels", "--strategy finetune --thaw all --norms trained --epochs 2 --optimizer sgd "
        "--lr 0.001 --layer-decay 0.7 --keep last --schedule constant",
    )  # fmt: skip
    yield _train(
        "fresh", "--strategy finetune --thaw 1 --epochs 2 --views 0 --flip horizontal "
        "--trivial-augment --random-erasing 0.5 --colour-jitter 0.3 --resized-crop 0.5 "
        "--quarter-turns --optimizer rmsprop",
    )  # fmt: skip
    yield _train(
        "adversarial",
        "--strategy finetune --adversarial 2/255 --adversarial-steps 2 --epochs 2 --optimizer adam",
        quick=True,
    )
    yield _train(
        "scratch", "--strategy scratch --epochs 2 --backbone scratch:cnn --class-weights balanced"
    )
    yield _train(
        "cnn", "--recipe cnn-from-scratch --backbone scratch:cnn --epochs 2 --flip horizontal"
    )
    yield _train("vgg", "--recipe vgg16-frozen --head-epochs 2")
    yield _train(
        "timm",
        "--recipe resnet18-head --backbone timm:test_resnet --weights random --head-epochs 2",
    )
    yield _train(
        "two-phase", "--recipe mobilenetv2-two-phase --backbone timm:test_resnet --weights random "
        "--thaw-from -5 --head-epochs 2 --epochs 2", "data/two.csv",
    )  # fmt: skip
    yield _train("baseline-cnn", f"{extract} logistic --baseline cnn")
    yield _train("baseline-same", f"{extract} logistic --baseline backbone", "data/parts")
    yield _train("table", f"{extract} logistic --val 0.2 --test 0.2", "data/two.csv")
    yield _train("faulty", f"{extract} logistic --max-bad 0.5", "data/faulty", code=3)
    yield _train("seeds", f"{extract} logistic --seeds 2")
    yield _train("tracked", f"{extract} logistic --track tensorboard")
    yield _train(
        "packaged", "--backbone packaged:efficientnet_lite0 --thaw 1 --epochs 1 --views 2 "
        "--flip horizontal --size 96", quick=True,
    )  # fmt: skip


def _stopped() -> Iterator[Command]:
    """Training that is killed or interrupted between two checkpoints, and goes on."""
    line = (
        "--strategy finetune --head linear --head-epochs 3 --dropout 0.1 --epochs 3 --thaw 1 "
        "--checkpoint-s 0 --batch-size 8 --head-batch-size 8"
    )
    killed = int(signal.SIGKILL)
    yield _train("resumed", line, code=-killed, stopped=killed, after=5)
    yield _again("resumed", f"{line} --resume")
    yield _train("resumed-late", line, code=-killed, stopped=killed, after=26)
    yield _again("resumed-late", f"{line} --resume")
    yield _train("interrupted", line, code=130, stopped=int(signal.SIGINT), after=20)
    yield _again("interrupted", line)


def _again(name: str, line: str) -> Command:
    first = _train(name, line)
    return Command(f"{first.name}-again", first.argv)


def _models() -> Iterator[Command]:
    """What is asked of finished runs and their bundles."""
    for name in ("auto", "ridge", "nearest", "mlp", "two-phase", "cnn", "packaged"):
        short = name in ("auto", "packaged")
        yield _made(f"predict-{name}", f"predict runs/{name} data/new --json", quick=short)
    yield _made("predict", "predict runs/auto/model data/new data/shapes/dark/00.png --top 3")
    yield _made("predict-stdin", "predict runs/cut -", stdin="data/new/0.png\ndata/new/1.png\n")
    yield _made("predict-faulty", "predict runs/auto data/faulty/dark", code=3)
    yield _made("evaluate", "evaluate runs/auto data/shapes", quick=True)
    yield _made("evaluate-json", "evaluate runs/cut data/shapes --json")
    yield _made("evaluate-all", "evaluate runs/auto data/shapes --part all")
    yield _made("evaluate-parts", "evaluate runs/table/model data/parts --json")
    yield _made("evaluate-strangers", "evaluate runs/table data/shapes --part all", code=3)
    yield _made("evaluate-predictions", "evaluate runs/ridge/predictions.csv --json")
    yield _made("compare", "compare runs/auto runs/ridge runs/cut runs/pixels", quick=False)
    yield _made("compare-json", "compare runs/auto runs/ridge --json", quick=True)
    yield _made("report-ru", "report runs/ridge --language ru", quick=True)
    yield _made("report-faulty", "report runs/faulty --data data/faulty")
    for name in ("cut", "adversarial"):
        few = "--rows 6 --steps 2 --corruptions fog gaussian_noise pixelate --epsilons 2/255"
        yield _made(f"robustness-{name}", f"robustness runs/{name} {few}", quick=name == "cut")
    yield _made("robustness-all", "robustness runs/auto --rows 4 --steps 1 --json --language ru")
    yield _made("track", "track runs/ridge tensorboard")
    yield _made("track-mlflow", "track runs/auto mlflow", env=MLFLOW)


MLFLOW = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_TRACKING_URI": "mlruns",
    "MLFLOW_EXPERIMENT_NAME": "net",
}


def _pictures() -> Iterator[Command]:
    """What looks into pictures: explain, ideal, attack."""
    one, two = "data/new/0.png", "data/new/0.png data/shapes/mid/01.png"
    yield _made("explain", f"explain runs/auto {two} --out explained/auto --json", quick=True)
    for method in ("places", "hiding", "gradcam", "pixels"):
        yield _made(
            f"explain-{method}",
            f"explain runs/cut {one} --method {method} --class mid --out explained/{method}",
        )
    yield _made("explain-run", "explain runs/ridge")
    yield _made(
        "explain-faulty",
        "explain runs/faulty data/faulty/dark/cut.png data/new/1.png --out explained/f",
        code=3,
    )
    yield _made(
        "explain-source",
        f"explain --backbone packaged:efficientnet_lite0 {one} --out explained/source",
    )
    ideal = "--steps 8 --octaves 2 --judge none"
    yield _made(
        "ideal",
        f"ideal runs/auto --class dark --class mid --out ideal.png --json {ideal}",
        quick=True,
    )
    yield _made(
        "ideal-film",
        f"ideal runs/cut --class dark --out film.png --film film.gif --start {one} "
        f"--space pixels {ideal}",
    )
    yield _made(
        "ideal-judged",
        "ideal runs/packaged --class dark --out judged.png --judge runs/packaged --steps 4 "
        "--octaves 1 --tv 0",
    )
    yield _made("attack", f"attack runs/auto {two} --out attack/auto --steps 4", quick=True)
    yield _made(
        "attack-l2",
        f"attack runs/cut {two} --norm l2 --epsilon 2 --steps 4 --target dark --json "
        "--out attack/l2",
    )
    yield _made(
        "attack-source",
        f"attack --backbone packaged:efficientnet_lite0 {one} --steps 2 --restarts 1 "
        "--out attack/source",
    )
    yield _made("classify", f"classify {two}")
    yield _made("classify-json", f"classify {one} --json --top 5")


def _others() -> Iterator[Command]:
    """What needs no run."""
    yield _made("check", "check data/shapes --backbone none", quick=True)
    yield _made("check-json", "check data/shapes --json")
    yield _made("check-faulty", "check data/faulty --backbone tiny:16 --max-bad 0.5 --json", code=3)
    yield _made("check-table", "check data/two.csv --backbone none")
    yield _made(
        "views", "views data/new/noise.png --out views.png --flip both --rotation 0.2 --size 64"
    )
    yield _made(
        "views-all",
        "views data/new/0.png --out all.png --seed 2 --trivial-augment --random-erasing 0.5 "
        "--resized-crop 0.4",
    )
    yield _made("backbones", "backbones packaged:*")
    yield _made("backbones-all", "backbones")
    yield _made("backbones-json", "backbones timm:*vit_small* --json")
    yield _made("recipes", "recipes", quick=True)
    yield _made("recipes-json", "recipes --json")
    yield _made("version", "--version")
    yield _made("completion", "completion bash")
    yield _made("help", "--help", quick=True)
    yield from (_made(f"help-{name}", f"{name} --help") for name in HELPED)


def _refused() -> Iterator[Command]:
    """What is wrong is refused in the same words and with the same code."""
    yield _made(
        "refused-again", "train data/shapes --out runs/auto --backbone tiny:16", code=2, quick=True
    )
    yield _made("refused-command", "trian data/shapes", code=2)
    yield _made("refused-flag", "train data/shapes --out runs/none --epohcs 3", code=2)
    yield _made(
        "refused-idle", "train data/shapes --out runs/none --strategy extract --epochs 3", code=2
    )
    yield _made("refused-data", "train data/nothing --out runs/none", code=1)
    yield _made("refused-run", "predict runs/none data/new", code=1)
    yield _made(
        "refused-backbone", "train data/shapes --out runs/none --backbone tiny:resnet", code=2
    )
    yield _made("refused-recipe", "train data/shapes --out runs/none --recipe vgg", code=2)
    yield _made("refused-class", "explain runs/auto data/new/0.png --class nobody", code=2)
    yield _made("refused-compare", "compare runs/auto runs/table", code=1)


def needed(listed: Iterable[Command]) -> set[str]:
    """The names, each of which must be there once."""
    names = [c.name for c in listed]
    assert len(set(names)) == len(names), "Names of commands must differ."
    return set(names)
