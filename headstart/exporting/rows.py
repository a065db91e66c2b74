"""The rows of a model's data that an export uses."""

from dataclasses import dataclass

from headstart.data.dataset import Dataset
from headstart.heads.specs import HeadSpec, UsualSpec


@dataclass(frozen=True)
class ExportRows:
    """Rows of a model's data. train: what ranges and heads are fitted on. val: what answers are
    compared on. head: the spec by which a head is fitted again."""

    train: Dataset
    val: Dataset
    head: HeadSpec = UsualSpec()
