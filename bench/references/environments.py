"""A virtual environment for each competitor, made once, and its script run there.

    from references.environments import NAMES, measure
    measure("keras_jax", folder, epochs=10, fine_epochs=10, batch=32, augment=False)
    measure_texts("setfit_texts", task)

Environments lie in ~/.cache/headstart-bench/NAME and are made anew when their requirements here
change. Nothing is ever installed into the environment that runs this.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "headstart-bench"
MADE = "recipe.txt"  # in an environment; written last, so that half of one is never used


@dataclass(frozen=True)
class Environment:
    """What pip installs; what it installs `bare`, without its dependencies; whether it `borrows`.

    One that borrows also sees the packages of the Python running now (torch, timm, torchvision):
    PyPI's torch is 5.5 GB, and sharing it also means that all run the same one. Its own packages
    come first on the path.
    """

    requirements: tuple[str, ...]
    bare: tuple[str, ...] = ()
    borrows: bool = False

    @property
    def recipe(self) -> str:
        lent = [f"borrows {_site_packages()}"] if self.borrows else []
        lines = [sys.version, *self.requirements, *(f"bare {r}" for r in self.bare), *lent]
        return "\n".join(lines) + "\n"


KERAS = ("keras==3.15.1", "tensorflow-cpu==2.21.0")  # TensorFlow reads the files for all three
FASTAI_NEEDS = (
    "fastcore==2.2.39",
    "fastdownload==0.0.8",
    "fastprogress==1.1.6",
    "fasttransform==0.0.5",
    "matplotlib==3.11.2",
    "pandas==3.1.1",
    "plum-dispatch==2.9.0",
    "requests==2.34.2",
)
SETFIT_NEEDS = ("datasets==5.2.0", "evaluate==0.4.6")
ENVIRONMENTS: dict[str, Environment | None] = {
    "keras_tensorflow": Environment(KERAS),
    "keras_torch": Environment(KERAS, borrows=True),
    "keras_jax": Environment((*KERAS, "jax[cpu]==0.10.2")),
    "torch_channels_last": None,  # Headstart's own environment has all it needs
    "headstart_two_phase": None,
    # bare: fastai also asks for spacy, which pictures never import, and for a torch of its own
    "fastai_finetune": Environment(FASTAI_NEEDS, bare=("fastai==2.8.12",), borrows=True),
    "mlflow_server": Environment(("mlflow==3.17.2", "onnx==1.23.2", "onnxruntime==1.31.1")),
    "headstart_texts": None,
    "trainer_texts": None,
    "setfit_texts": Environment(
        SETFIT_NEEDS, bare=("setfit==1.2.0", "sentence-transformers==6.2.0"), borrows=True
    ),
}
TEXTS = tuple(name for name in ENVIRONMENTS if name.endswith("_texts"))
SERVERS = ("mlflow_server",)
NAMES = tuple(name for name in ENVIRONMENTS if name not in TEXTS + SERVERS)


class InstallFailed(RuntimeError):
    """An environment could not be made; the message ends with pip's last lines."""


def measure(
    name: str,
    data_dir: Path,
    *,
    epochs: int,
    fine_epochs: int,
    batch: int,
    augment: bool,
    network: str = "mobilenetv2",
    bfloat16: bool = False,
) -> dict[str, Any]:
    """What the competitor's script prints, or {"name": ..., "skipped": why} where it can't run."""
    try:
        python = python_of(name)
    except InstallFailed as error:
        return {"name": name, "skipped": str(error)}
    flags = [f"--epochs={epochs}", f"--fine-epochs={fine_epochs}", f"--batch={batch}", "--json"]
    flags += [f"--network={network}", *(["--bfloat16"] if bfloat16 else [])]
    command = [str(python), str(HERE / f"{name}.py"), str(data_dir), *flags]
    return _record(name, [*command, "--augment"] if augment else command)


def measure_texts(name: str, task: Path) -> dict[str, Any]:
    """What the script of a competitor for texts prints, or why it can't run; see `texts.py`."""
    try:
        python = python_of(name)
    except InstallFailed as error:
        return {"name": name, "skipped": str(error)}
    return _record(name, [str(python), str(HERE / f"{name}.py"), str(task)])


def _record(name: str, command: list[str]) -> dict[str, Any]:
    """The record in the last line that a script prints, or {"name": ..., "skipped": why}."""
    done = _run(command)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"name": name, "skipped": f"exit code {done.returncode}: {_end(done.stderr)}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def python_of(name: str) -> Path:
    """The Python of the competitor's environment, which is made if it is missing or out of date.

    Raises KeyError for a name not in `NAMES`, InstallFailed when pip can't install it.
    """
    environment = ENVIRONMENTS[name]
    if environment is None:
        return Path(sys.executable)
    folder = CACHE / name
    if not installed(name):
        _make(environment, folder)
        (folder / MADE).write_text(environment.recipe)
    return _python(folder)


def installed(name: str) -> bool:
    """Whether a competitor's environment is there, by the requirements above."""
    environment, made = ENVIRONMENTS[name], CACHE / name / MADE
    return environment is None or (made.exists() and made.read_text() == environment.recipe)


def _make(environment: Environment, folder: Path) -> None:
    began = time.perf_counter()
    _say(f"installing {', '.join(environment.requirements + environment.bare)} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _must([sys.executable, "-m", "venv", str(folder)])
    pip = [str(_python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _must([*pip, *environment.requirements])
    if environment.bare:
        _must([*pip, "--no-deps", *environment.bare])
    if environment.borrows:  # after pip has run, which would else count and upgrade what is lent
        own = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
        Path(own, "borrowed.pth").write_text(_site_packages() + "\n")
    _say(f"{folder.name}: {time.perf_counter() - began:.0f} s, {_megabytes(folder):,.0f} MB")


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _site_packages() -> str:
    return sysconfig.get_path("purelib")


def _must(command: list[str]) -> None:
    done = _run(command)
    if done.returncode:
        raise InstallFailed(f"'{' '.join(command[1:])}' failed: {_end(done.stderr)}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=offline)


def _end(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:])[-400:]


def _megabytes(folder: Path) -> float:
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
