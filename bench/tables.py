"""What every bench ends with: an aligned table on the screen and the same figures in a file.

    from tables import report
    report("extract", rows, {"images": 1000})

Each row is a mapping from column to value; bench/out/NAME.json also says on which machine, with
which versions and when, so that a figure quoted later can be traced.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OUT = Path(__file__).parent / "out"
PACKAGES = (
    "headstart",
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

Row = Mapping[str, object]


def report(
    name: str, rows: Sequence[Row], facts: Mapping[str, object] | None = None, *, out: Path = OUT
) -> None:
    """Print the rows as a table, then the facts; write both, with `machine()`, to out/NAME.json."""
    print(table(rows))
    for key, value in (facts or {}).items():
        print(f"{key}: {_shown(value)}")
    out.mkdir(parents=True, exist_ok=True)
    record = {"name": name, "machine": machine(), "facts": dict(facts or {}), "rows": list(rows)}
    (out / f"{name}.json").write_text(json.dumps(record, indent=2, default=_plain) + "\n")


def table(rows: Sequence[Row]) -> str:
    """Columns in the order they first appear, numbers to the right, nothing where there is none.

    >>> print(table([{"what": "a", "ms": 1.5}, {"what": "bc", "ms": 20.0}]))
    what    ms
    a     1.50
    bc    20.0
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_shown(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left = [not any(_is_number(row.get(c)) for row in rows) for c in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if to_left else cell.rjust(w)
            for cell, w, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    )


def machine() -> dict[str, object]:
    """Processor, cores this process may use, system, versions and date."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {p: found for p in PACKAGES if (found := _version(p))},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Three digits that count: 0.00123, 1.23, 12.3, 123, 12345."""
    if not isinstance(value, float):
        return f"{value:,}" if _is_number(value) else str(value)
    if (size := abs(value)) < 1:
        return f"{value:.3g}"
    return f"{value:,.{2 if size < 10 else 1 if size < 100 else 0}f}"


def _plain(value: object) -> object:
    """NumPy's numbers as Python's, anything else as text."""
    item = getattr(value, "item", None)
    return item() if item else str(value)
