"""Check the data before training: `check` returns findings, `good_rows` the rows to train on."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import rows_of
from headstart.base.errors import DataError, SpecError
from headstart.base.grouping import Pair, confirmed, groups
from headstart.data.content import two_labels_warning
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.findings import AlikePair, Findings, Group, OddSize, TwoLabels
from headstart.data.readers import EMPTY_CLASS
from headstart.data.survey import CONTENT, Survey
from headstart.data.walking import about_links

UNEVEN = 10.0  # ratio of largest to smallest class from which accuracy alone misleads
FEW = 5  # examples named in a message


@dataclass(frozen=True)
class CheckPlan:
    """The limits that a data set must keep."""

    max_bad: Annotated[float, "share of a class's files that may be unreadable"] = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise SpecError(f"max_bad is a share from 0 to 1; got {self.max_bad}.")


def good_rows(dataset: Dataset, seen: Survey, plan: CheckPlan | None = None) -> Dataset:
    """Return the readable rows, and only the classes that have one.

    Raises DataError for no rows, a single class, or more than `plan.max_bad` bad files in a class.
    """
    plan = plan or CheckPlan()
    if len(seen.good) == 0:
        raise DataError(
            f"None of the {len(dataset)} images can be read. The first: "
            f"{dataset.ids[0]} ({seen.errors[0]})."
        )
    _refuse_bad_classes(dataset, seen, plan.max_bad)
    rows = _readable(dataset, seen)
    if len(names := rows.target.stratum_names) == 1:
        raise DataError(
            f"At least two classes with readable images are needed to tell them apart; "
            f"there is {names[0]!r} only.{_about_inner_folders(rows)}"
            f"{about_links(dataset.left_out)}"
        )
    rows.target.check_names()
    return rows


def _about_inner_folders(rows: Dataset) -> str:
    """Return a hint, after a blank, that the only class's subfolders may be the classes, or ""."""
    tops = {Path(name).parts[:-2] for name in rows.ids}
    inner = sorted({Path(name).parts[-2] for name in rows.ids if len(Path(name).parts) > 2})
    if len(tops) > 1 or len(inner) < 2:
        return ""
    named = ", ".join(inner[:3]) + (", …" if len(inner) > 3 else "")
    return f" If the folders in it are the classes ({named}), name the folder that holds them."


def with_contents(dataset: Dataset, seen: Survey) -> Dataset:
    """Return the dataset with the content digests of its files, empty for unreadable ones."""
    return replace(dataset, contents=tuple(map(seen.content, range(len(dataset)))))


def _refuse_bad_classes(dataset: Dataset, seen: Survey, max_bad: float) -> None:
    """Raise DataError for too many bad files in a class; missing files of a manifest are bad."""
    bad = defaultdict[str, list[str]](list)
    labels = _stratum_of_rows(dataset)
    for row in sorted(seen.errors):
        bad[labels[row]].append(f"{dataset.ids[row]} ({seen.errors[row]})")
    for item in dataset.left_out:
        if item.label:
            bad[item.label].append(f"{item.path} ({item.reason})")
    announced = Counter(item.label for item in dataset.left_out if item.label)
    there = Counter(labels)
    for label, named in bad.items():
        total = there[label] + announced[label]
        if len(named) > max_bad * total:
            share = np.ceil(1000 * len(named) / total) / 1000
            raise DataError(
                f"At most {max_bad:.1%} of {'a class' if label else 'the images'} may be "
                f"unreadable, but {len(named)} of {total} "
                f"{f'images of {label!r}' if label else 'images'} are. The first: "
                f"{'; '.join(named[:FEW])}. Repair or remove them, or allow this with "
                f"--max-bad {share:.3g}."
            )


def _readable(dataset: Dataset, seen: Survey) -> Dataset:
    rows = with_contents(dataset, seen).take(seen.good)
    target, labels = rows.target.present(rows.labels)
    return replace(rows, target=target, labels=labels)


def _stratum_of_rows(dataset: Dataset) -> list[str]:
    """Return the name of each row's stratum, such as its class; "" if strata have no names."""
    names = dataset.target.stratum_names
    return [names[s] if names else "" for s in dataset.target.strata(dataset.y)]


@dataclass(frozen=True, eq=False)
class Checks:
    """The findings, by row number in `dataset`, which has the readable rows only.

    counts: rows of each class, unreadable ones included. exact: groups of rows with the same
    decoded content. near: near duplicates, an exact group represented by its first row.
    skipped: the files that the reader left out.
    """

    dataset: Dataset
    counts: dict[str, int]
    unreadable: tuple[LeftOut, ...]
    skipped: tuple[LeftOut, ...]
    exact: tuple[tuple[int, ...], ...]
    near: tuple[Pair, ...]
    odd_sizes: tuple[OddSize, ...]

    def confirmed(self, features: NDArray[np.float32]) -> "Checks":
        """Return a copy with only the near duplicates whose features (N, D) agree."""
        return replace(self, near=confirmed(self.near, features))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return (*self.unreadable, *self.skipped)

    @property
    def together(self) -> tuple[tuple[int, ...], ...]:
        """Groups of rows that a split keeps together: `split(dataset, together=…)`."""
        return groups([*self.exact, *((p.a, p.b) for p in self.near)])

    @property
    def near_groups(self) -> tuple[tuple[int, ...], ...]:
        return groups([(p.a, p.b) for p in self.near])

    @property
    def exact_two_labels(self) -> tuple[tuple[int, ...], ...]:
        """Groups of exact duplicates with more than one label."""
        return tuple(g for g in self.exact if len({self.dataset.labels[i] for i in g}) > 1)

    @property
    def warning(self) -> str:
        """A sentence that names the pictures with several labels; "" if there are none."""
        return two_labels_warning(self.dataset, self.exact_two_labels)

    @property
    def near_two_labels(self) -> tuple[Pair, ...]:
        """Near duplicates with two labels."""
        labels = self.dataset.labels
        return tuple(p for p in self.near if labels[p.a] != labels[p.b])

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Class folders without an image, and classes without a readable image."""
        empty = [out.path for out in self.skipped if out.reason == EMPTY_CLASS]
        return (*empty, *(name for name in self.counts if name not in self.dataset.counts))

    @property
    def one_image_classes(self) -> tuple[str, ...]:
        """Classes with one image: a split refuses them; named parts leave them unmeasured."""
        return tuple(name for name, n in self.dataset.counts.items() if n == 1)

    @property
    def imbalance(self) -> float:
        """The ratio of the largest class to the smallest."""
        counts = self.dataset.counts.values()
        return max(counts) / min(counts) if counts else 1.0

    @property
    def findings(self) -> Findings:
        """All findings, by id instead of row number."""
        return Findings(
            rows=len(self.dataset),
            counts=self.counts,
            readable=self.dataset.counts,
            unreadable=self.unreadable,
            left_out=self.skipped,
            exact_duplicates=self._named(self.exact),
            near_duplicates=self._named(self.near_groups),
            near_pairs=self._alike(self.near),
            two_labels=TwoLabels(
                self._named(self.exact_two_labels), self._alike(self.near_two_labels)
            ),
            empty_classes=self.empty_classes,
            one_image_classes=self.one_image_classes,
            imbalance=round(self.imbalance, 3),
            odd_sizes=self.odd_sizes,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the findings, ready for JSON."""
        return self.findings.to_plain()

    def table(self) -> list[tuple[str, str, str]]:
        """Return one row per kind of finding: its name, the count, and examples."""
        ids = self.dataset.ids
        rows = [
            ("images", f"{len(self.dataset):,}", _balance(self)),
            ("unreadable", *_examples([f"{o.path}: {o.reason}" for o in self.unreadable])),
            ("not used", *_examples([f"{o.path}: {o.reason}" for o in self.skipped])),
            ("exact duplicates", *_examples([_same(ids, g) for g in self.exact])),
            ("near duplicates", *_examples([_same(ids, g) for g in self.near_groups])),
            ("exact, two labels", *_examples([_same(ids, g) for g in self.exact_two_labels])),
            (
                "near, two labels",
                *_examples([_same(ids, (p.a, p.b)) for p in self.near_two_labels]),
            ),
            ("empty classes", *_examples(self.empty_classes)),
            ("one-image classes", *_examples(self.one_image_classes)),
            (
                "odd sizes",
                *_examples([f"{s.path}: {s.width}x{s.height}, {s.reason}" for s in self.odd_sizes]),
            ),
        ]
        return [row for row in rows if row[1] != "0" or row[0] in ("images", "unreadable")]

    def _named(self, groups: Sequence[Sequence[int]]) -> tuple[Group, ...]:
        return tuple(tuple(self.dataset.ids[i] for i in group) for group in groups)

    def _alike(self, pairs: Sequence[Pair]) -> tuple[AlikePair, ...]:
        return tuple((self.dataset.ids[p.a], self.dataset.ids[p.b], p.likeness) for p in pairs)


def check(dataset: Dataset, seen: Survey, *, threads: int = 1) -> Checks:
    """Return the findings of a survey, even for data that no model can be trained on."""
    rows = _readable(dataset, seen)
    exact = _exact(seen.facts[CONTENT][seen.good])
    return Checks(
        dataset=rows,
        counts=dataset.counts,
        unreadable=tuple(LeftOut(dataset.ids[i], why) for i, why in sorted(seen.errors.items())),
        skipped=dataset.left_out,
        exact=exact,
        near=_near(seen, exact, threads),
        odd_sizes=tuple(seen.surveyor.odd(rows.ids, rows_of(seen.facts, seen.good))),
    )


def _exact(pixels: NDArray[np.uint8]) -> tuple[tuple[int, ...], ...]:
    rows = defaultdict[bytes, list[int]](list)
    for i, name in enumerate(pixels):
        rows[name.tobytes()].append(i)
    return tuple(tuple(group) for group in rows.values() if len(group) > 1)


def _near(seen: Survey, exact: tuple[tuple[int, ...], ...], threads: int) -> tuple[Pair, ...]:
    """Return near duplicates among the readable rows, each group of exact copies taken once."""
    copies = {i for _, *others in exact for i in others}
    rows = np.array([i for i in range(len(seen.good)) if i not in copies], np.intp)
    pairs = seen.surveyor.near(rows_of(seen.facts, seen.good[rows]), threads)
    return tuple(Pair(int(rows[p.a]), int(rows[p.b]), p.likeness) for p in pairs)


def _balance(found: Checks) -> str:
    if not (counts := found.dataset.counts):
        return f"{len(found.dataset):,} rows"
    text = f"in {len(counts)} classes: {_counts(counts)}"
    if found.imbalance < UNEVEN:
        return text
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return (
        f"{text}; uneven, {counts[large]:,} of {large!r} and {counts[small]:,} of {small!r}: "
        f"look at balanced accuracy"
    )


def _counts(counts: dict[str, int], most: int = 6) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {n:,}" for name, n in largest[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _examples(found: Sequence[str]) -> tuple[str, str]:
    """Return the count and the first two."""
    more = "; …" if len(found) > 2 else ""
    return f"{len(found):,}", "; ".join(found[:2]) + more


def _same(ids: Sequence[str], group: Sequence[int]) -> str:
    more = f" = … ({len(group)})" if len(group) > 2 else ""
    return " = ".join(ids[i] for i in group[:2]) + more
