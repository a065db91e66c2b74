"""The content of explained.json of texts. No PyTorch: the report reads it."""

from dataclasses import dataclass, field

from headstart.base.values import Record, as_key
from headstart.explaining.saved import DeletionCurves, NearestExample


@dataclass(frozen=True)
class MarkedWord(Record):
    """start, end: the word's characters in the text (end exclusive). adds: to the evidence."""

    start: int
    end: int
    adds: float


@dataclass(frozen=True, kw_only=True)
class ExplainedText(Record):
    """Why a text gets an answer.

    name: the class or label that is explained. score: its probability; of a number or a grade, the
    place on a scale of 0 to 1. answer: the number or the grade, else "". difference: of the
    evidence between the text and the same text with all words hidden; the words add up to it, apart
    from `error`.
    """

    path: str
    name: str = field(metadata=as_key("class"))
    score: float
    answer: str = ""
    text: str
    words: tuple[MarkedWord, ...]
    windows: int = 1
    difference: float = 0.0
    error: float = 0.0
    deletion: DeletionCurves
    nearest: tuple[NearestExample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExplainedTextRow(ExplainedText):
    """A test row of a run. label: the true one. right: whether the answer is one of the good ones,
    otherwise one of the worst."""

    label: str
    right: bool


@dataclass(frozen=True)
class ExplainedTexts(Record):
    rows: tuple[ExplainedTextRow, ...] = ()
