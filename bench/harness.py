"""What every bench shares: the flags --quick and --out, and the record that it leaves.

    bench = Bench("extract", __doc__)
    bench.flag("--images", type=int, default=1000, quick=40)
    args = bench.arguments()
    bench.report(rows, {"images/s": 70.3})

A record is kept in bench/results/NAME.json, beside those of other commands and other processors;
`make figures` writes docs/figures.md from all of them. With --quick every flag that was given a
`quick` value takes it, which shows that the bench runs; its record goes to a temporary folder.
"""

import json
import math
import os
import platform
import subprocess
import tempfile
from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tables import Row, shown, table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "imagecodecs",
    "numpy",
    "onnxruntime",
    "pillow",
    "pyvips-binary",
    "safetensors",
    "scikit-learn",
    "simplejpeg",
    "tifffile",
    "timm",
    "torch",
)
MAY_LACK = ("figures", "rows", "more", "note", "versions")  # left out of the file where empty


@dataclass(frozen=True)
class Measurement:
    """The figures of one command, and where they come from.

    command: with the flags that differ from their defaults; "" if it was measured by hand.
    commit: of the code; of the text that told the figures, where the code's is not known.
    processor: model and vector instructions; "" where nobody wrote them down. Figures that do not
    depend on it, such as accuracies, have one all the same.
    figures: single figures by what they tell. rows: a table. more: further tables by title.
    """

    command: str
    commit: str
    date: str
    processor: str
    cores: int
    figures: Mapping[str, object] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    more: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    note: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def supersedes(self, other: "Measurement") -> bool:
        """Whether it takes the place of another: the same command on the same processor, or on
        one of which less was noted."""
        same = (self.command, self.cores) == (other.command, other.cores)
        return same and self.processor.startswith(other.processor)


class Bench:
    """The command line of a bench, and the end of it."""

    def __init__(self, name: str, description: str | None) -> None:
        self.name = name
        self.parser = ArgumentParser(description=description, formatter_class=RawTextHelpFormatter)
        self.quick_values: dict[str, object] = {"quick": True}
        self.own: list[tuple[Action, object]] = []  # flags and their usual values
        self.parser.add_argument(
            "--quick", action="store_true", help="smaller data, a minute at most"
        )
        self.parser.add_argument(
            "--out", type=Path, help="folder of the record; else bench/results"
        )

    def flag(self, name: str, *, quick: object = None, **settings: Any) -> None:
        """Add a flag (or an operand); quick: its value with --quick, unless one is given."""
        action = self.parser.add_argument(name, **settings)
        self.own.append((action, action.default))
        if quick is not None:
            self.quick_values[action.dest] = quick

    def arguments(self) -> Namespace:
        self.args = self.parser.parse_args()
        if self.args.quick:
            self.parser.set_defaults(**self.quick_values)
            self.args = self.parser.parse_args()
        return self.args

    def report(
        self,
        rows: Sequence[Row],
        figures: Mapping[str, object] | None = None,
        *,
        more: Mapping[str, Sequence[Row]] | None = None,
    ) -> None:
        """Print the tables and figures, and record them with commit, processor, cores and date."""
        print(table(rows))
        for title, others in (more or {}).items():
            print(f"\n{title}\n{table(others)}")
        for key, value in (figures or {}).items():
            print(f"{key}: {shown(value)}")
        done = Measurement(
            command=self.command(),
            **circumstances(),
            figures=plain(figures or {}),
            rows=plain(rows),
            more=plain(more or {}),
        )
        path = self.folder / f"{self.name}.json"
        write(path, [*(m for m in read(path) if not done.supersedes(m)), done])
        print(f"recorded in {path}")

    def command(self) -> str:
        words = [f"bench/{self.name}.py"]
        for action, usual in self.own:
            value = getattr(self.args, action.dest)
            if value == usual or action.help == SUPPRESS:
                continue
            words += action.option_strings[:1]
            if value is not True:
                many = value if isinstance(value, list) else [value]
                words += [_word(v, action) for v in many]
        return " ".join(words)

    @cached_property
    def folder(self) -> Path:
        """Where the record goes."""
        if self.args.out:
            return Path(self.args.out)
        return Path(tempfile.mkdtemp(prefix="headstart-bench-")) if self.args.quick else RESULTS


def _word(value: object, action: Action) -> str:
    """A value as it was typed; of a path only what it stands for, as in the help."""
    return str(action.metavar or action.dest.upper()) if isinstance(value, Path) else str(value)


def read(path: Path) -> list[Measurement]:
    return [Measurement(**m) for m in json.loads(path.read_text())] if path.exists() else []


def write(path: Path, measurements: Iterable[Measurement]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{k: v for k, v in asdict(m).items() if v or k not in MAY_LACK} for m in measurements]
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def circumstances() -> dict[str, Any]:
    """Commit, date, processor, cores that this process may use, and versions of packages."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
        "versions": {p: found for p in PACKAGES if (found := _version(p))},
    }


def processor() -> str:
    """The model that lscpu names, and its widest vector instructions: what decides a speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags, levels = set(facts.get("flags", "").split()), list[str]()
    levels += ["AVX-512"] if "avx512f" in flags else ["AVX2"] if "avx2" in flags else []
    levels += [n for f, n in (("avx512_bf16", "BF16"), ("amx_tile", "AMX")) if f in flags]
    return ", ".join([facts.get("model name", platform.processor()), " ".join(levels)])


def _commit() -> str:
    """The commit that is checked out; with a + if the package differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "headstart")
    return git("rev-parse", "--short=7", "HEAD") + ("+" if changed else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def plain(value: Any) -> Any:
    """As JSON has it: NumPy's numbers as Python's, fractions to five digits, the rest as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
