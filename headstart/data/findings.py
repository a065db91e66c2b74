"""The findings of the checks of a data set, as saved in checks.json."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.base.display import Verbatim
from headstart.base.values import Record
from headstart.data.dataset import Fact as Fact
from headstart.data.dataset import LeftOut
from headstart.data.dataset import Remark as Remark

Group = tuple[str, ...]  # paths of the same picture
UNEVEN = 10.0  # ratio of largest to smallest class from which accuracy alone misleads
AlikePair = tuple[str, str, float]  # two paths and their likeness from 0 to 1


NAMES_ALONE = (
    *("exact duplicates", "near duplicates", "exact, two labels", "near, two labels"),
    *("empty classes", "one-image classes"),
)  # the kinds of findings whose examples are names of files or classes
EMPTY_CLASS = "class folder holds no images"


@dataclass(frozen=True)
class OddSize(Record):
    """A picture of an unusual size, in pixels, and the reason."""

    path: str
    width: int
    height: int
    reason: str


@dataclass(frozen=True)
class TwoLabels(Record):
    """Duplicates with more than one label: exact groups and near pairs."""

    exact: tuple[Group, ...] = ()
    near: tuple[AlikePair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings(Record):
    """The findings of `checks.Checks`.

    counts, readable: all and readable rows of each class. empty_classes: class folders without an
    image, and classes without a readable image. one_image_classes: a split refuses them; named
    parts leave them unmeasured. imbalance: the ratio of the largest class to the smallest.
    """

    rows: int = 0
    counts: dict[str, int]
    readable: dict[str, int] = field(default_factory=dict)
    unreadable: tuple[LeftOut, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    exact_duplicates: tuple[Group, ...] = ()
    near_duplicates: tuple[Group, ...]
    near_pairs: tuple[AlikePair, ...] = ()
    two_labels: TwoLabels
    empty_classes: tuple[str, ...] = ()
    one_image_classes: tuple[str, ...] = ()
    imbalance: float = 1.0
    odd_sizes: tuple[OddSize, ...] = ()
    remarks: tuple[Remark, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return the plain dict of checks.json, without remarks if there are none."""
        plain = super().to_plain()
        return plain if self.remarks else {k: v for k, v in plain.items() if k != "remarks"}

    def table(self, noun: str = "images") -> list[tuple[str, str, str]]:
        """Return one row per kind of finding: its name, the count, and examples.

        noun: of the rows of data.
        """
        examples: dict[str, Sequence[str]] = {
            "unreadable": [f"{o.path}: {o.reason}" for o in self.unreadable],
            "not used": [f"{o.path}: {o.reason}" for o in self.left_out],
            "exact duplicates": [_same(group) for group in self.exact_duplicates],
            "near duplicates": [_same(group) for group in self.near_duplicates],
            "exact, two labels": [_same(group) for group in self.two_labels.exact],
            "near, two labels": [_same((a, b)) for a, b, _ in self.two_labels.near],
            "empty classes": self.empty_classes,
            "one-image classes": self.one_image_classes,
            "odd sizes": [f"{s.path}: {s.width}x{s.height}, {s.reason}" for s in self.odd_sizes],
        }
        of_kind = defaultdict[str, list[str]](list)
        for remark in self.remarks:
            of_kind[remark.kind].append(str(remark))
        examples |= of_kind
        about_all = {str(remark) for remark in self.remarks if not remark.path}
        rows = [
            (
                kind,
                "" if len(texts) == 1 and texts[0] in about_all else f"{len(texts):,}",
                _examples(kind, texts),
            )
            for kind, texts in examples.items()
            if texts or kind == "unreadable"
        ]
        return [(noun, f"{self.rows:,}", self._balance()), *rows]

    def _balance(self) -> str:
        if not (counts := self.readable):
            return ""
        text = f"in {len(counts)} classes: {counts_text(counts)}"
        small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        if counts[large] / counts[small] < UNEVEN:
            return text
        return (
            f"{text}; uneven, {counts[large]:,} of {large!r} and {counts[small]:,} of {small!r}: "
            f"look at balanced accuracy"
        )


def counts_text(counts: Mapping[str, int], most: int = 6) -> str:
    """Return the largest classes with their counts, and the number of the others."""
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {n:,}" for name, n in largest[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _examples(kind: str, texts: Sequence[str]) -> str:
    """Return the first texts of a kind of finding as a cell; those without a reason are names."""
    shown = "; ".join(texts[:2]) + ("; …" if len(texts) > 2 else "")
    return Verbatim(shown) if kind in NAMES_ALONE else shown


def _same(group: Sequence[str]) -> str:
    more = f" = … ({len(group)})" if len(group) > 2 else ""
    return " = ".join(group[:2]) + more
