"""The settings of an export, and the values that exporting and verifying return."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from headstart.base.errors import SpecError
from headstart.base.values import Record, as_key

Engine = Literal["onnx", "openvino"]
Width = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ExportPlan:
    """What an export is for."""

    to: Annotated[Engine, "the program that will run it: ONNX Runtime and others, or OpenVINO"] = (
        "onnx"
    )
    precision: Annotated[
        Width,
        "fp32 gives the model's scores; fp16 halves the file; int8 is a quarter of it and faster, "
        "calibrated and with its head fitted again on the run's rows",
    ] = "fp32"
    max_changed: Annotated[
        float, "refuse fp16 or int8 if a larger share of validation answers changes"
    ] = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.max_changed <= 1:
            raise SpecError(f"max_changed is a share from 0 to 1; got {self.max_changed}.")

    @property
    def narrow(self) -> bool:
        return self.precision != "fp32"


@dataclass(frozen=True)
class Exported(Record):
    """An export. difference: the largest between its answers and those of the model that it was
    made of, on the same pixels. examples: how many that was measured on. changed: the share of
    `rows` validation answers that changed; None if there were no rows. refitted: whether its
    head was fitted again. size: of the files of the network, bytes.
    """

    folder: Path = field(metadata=as_key("folder", written=False))
    precision: str
    difference: float
    examples: int
    changed: float | None
    rows: int
    refitted: bool
    size: int

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {self.precision}, {self.size / 1e6:.1f} MB",
            f"largest difference of an answer {self.difference:.1e} on {self.examples:,} examples",
        ]
        if self.changed is not None:
            head = "; its head was fitted again" if self.refitted else ""
            lines.append(f"{self.changed:.2%} of {self.rows:,} validation answers changed{head}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Verified(Record):
    """The golden examples of an export, run again. difference: the largest of an answer."""

    folder: Path = field(metadata=as_key("folder", written=False))
    examples: int
    difference: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.examples} golden examples are answered as when it was made "
            f"(largest difference {self.difference:.1e}, allowed {self.tolerance:g})"
        )
