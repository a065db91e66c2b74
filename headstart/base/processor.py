"""What the processor of this machine can compute fast."""

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # Linux; elsewhere no flags are known


@cache
def processor_flags() -> frozenset[str]:
    """Return the instruction sets that the kernel lists, such as "avx2"; empty if unknown."""
    return frozenset(_field("flags").split())


@cache
def processor_name() -> str:
    """Return the name of the processor's model, or of its architecture."""
    return _field("model name") or platform.machine()


def has_matrix_unit() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 in a unit of their own: AMX."""
    return "amx_bf16" in processor_flags()


def _field(name: str) -> str:
    """Return the value of the first line "name : value" of CPUINFO; "" if there is none."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")
