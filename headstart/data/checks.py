"""Check the data before training: `check` returns findings, `good_rows` the rows to train on."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.inputs import Input, has_parts
from headstart.base.display import by_reason
from headstart.base.errors import DataError, SpecError
from headstart.base.grouping import Pair, confirmed, groups
from headstart.base.store import Store
from headstart.data.content import copies, two_labels_warning, with_two_labels
from headstart.data.dataset import Dataset, LeftOut
from headstart.data.findings import (
    EMPTY_CLASS,
    AlikePair,
    Fact,
    Findings,
    Group,
    OddSize,
    Remark,
    TwoLabels,
)
from headstart.data.walking import about_links
from headstart.targets.soft_labels import soft_of_present
from headstart.targets.target import Noticed

if TYPE_CHECKING:
    from headstart.data.survey import Survey


FEW = 5  # reasons named in a message, and examples of different ones
SHOWN = 3  # examples of one reason, where there are many


@dataclass(frozen=True)
class CheckPlan:
    """The limits that a data set must keep."""

    max_bad: Annotated[float, "share of a class's files that may be unreadable"] = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise SpecError(f"max_bad is a share from 0 to 1; got {self.max_bad}.")


def good_rows(dataset: Dataset, survey: "Survey", plan: CheckPlan | None = None) -> Dataset:
    """Return the readable rows, and only the classes that have one.

    Raises DataError for no rows, a single class, or more than `plan.max_bad` bad files in a class.
    """
    plan = plan or CheckPlan()
    if len(survey.good) == 0:
        raise DataError(
            f"None of the {len(dataset)} {dataset.noun} can be read. The first: "
            f"{dataset.ids[0]} ({survey.errors[0]})."
        )
    _refuse_bad_classes(dataset, survey, plan.max_bad)
    rows = _readable(dataset, survey)
    if len(names := rows.target.stratum_names) == 1:
        raise DataError(
            f"At least two classes with readable {rows.noun} are needed to tell them apart; "
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


def with_contents(dataset: Dataset, survey: "Survey") -> Dataset:
    """Return the dataset with the content digests of its files, empty for unreadable ones."""
    return replace(dataset, contents=survey.contents)


def _refuse_bad_classes(dataset: Dataset, survey: "Survey", max_bad: float) -> None:
    """Raise DataError for too many bad files in a class; missing files of a manifest are bad.

    Without class names, or if a row names none, files are a share of all.
    """
    names, noun = dataset.target.stratum_names, dataset.noun
    labels = [names[s] if names else "" for s in dataset.target.strata(dataset.y)]
    missing = [item for item in dataset.left_out if item.label or item.missing]
    own = [item.label if names else "" for item in missing]
    totals = Counter([*labels, *own])
    totals[""] = len(labels) + len(missing)
    bad = defaultdict[str, list[tuple[str, str]]](list)
    for row, why in sorted(survey.errors.items()):
        bad[labels[row]].append((dataset.ids[row], why))
    for item, name in zip(missing, own, strict=True):
        bad[name].append((item.path, item.reason))
    for label, named in bad.items():
        total = totals[label]
        if len(named) > max_bad * total:
            share = np.ceil(1000 * len(named) / total) / 1000
            raise DataError(
                f"At most {max_bad:.1%} of {'a class' if label else f'the {noun}'} may be "
                f"unreadable, but {len(named)} of {total} "
                f"{f'{noun} of {label!r}' if label else noun} are. The first: "
                f"{_first(named)}. Repair or remove them, or allow this with "
                f"--max-bad {share:.3g}."
            )


def _first(named: Sequence[tuple[str, str]]) -> str:
    """Return the first names with their reasons, each reason once."""
    if len(named) <= FEW:
        return "; ".join(f"{name} ({why})" for name, why in named)
    texts = []
    for names, why in by_reason(named)[:FEW]:
        more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        texts.append(f"{', '.join(names[:SHOWN])}{more} ({why})")
    return "; ".join(texts)


def _readable(dataset: Dataset, survey: "Survey") -> Dataset:
    rows = with_contents(dataset, survey).take(survey.good)
    target, labels = rows.target.present(rows.labels)
    soft = soft_of_present(rows.soft, rows.target, target, labels)
    return replace(rows, target=target, labels=labels, soft=soft)


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
    remarks: tuple[Remark, ...] = ()

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
    def warning(self) -> str:
        """Sentences on pictures with several labels, and on how all labels were read; or ""."""
        about_all = (f"{mark.reason}." for mark in self.dataset.remarks if not mark.path)
        return " ".join(filter(None, (two_labels_warning(self.dataset, self.exact), *about_all)))

    @property
    def findings(self) -> Findings:
        """All findings, by id instead of row number."""
        labels, counts = self.dataset.labels, self.dataset.counts
        two_exact = with_two_labels(self.dataset, self.exact)
        absent = [out.path for out in self.skipped if out.reason == EMPTY_CLASS]
        unlike = self.dataset.target.unlike
        two_near = [pair for pair in self.near if unlike(labels[pair.a], labels[pair.b])]
        return Findings(
            rows=len(self.dataset),
            counts=self.counts,
            readable=counts,
            unreadable=self.unreadable,
            left_out=self.skipped,
            exact_duplicates=self._named(self.exact),
            near_duplicates=self._named(groups([(p.a, p.b) for p in self.near])),
            near_pairs=self._alike(self.near),
            two_labels=TwoLabels(self._named(two_exact), self._alike(two_near)),
            empty_classes=(*absent, *(name for name in self.counts if name not in counts)),
            one_image_classes=tuple(name for name, n in counts.items() if n == 1),
            imbalance=round(max(counts.values()) / min(counts.values()), 3) if counts else 1.0,
            odd_sizes=self.odd_sizes,
            remarks=self.remarks,
        )

    def _named(self, groups: Sequence[Sequence[int]]) -> tuple[Group, ...]:
        return tuple(tuple(self.dataset.ids[i] for i in group) for group in groups)

    def _alike(self, pairs: Sequence[Pair]) -> tuple[AlikePair, ...]:
        return tuple((self.dataset.ids[p.a], self.dataset.ids[p.b], p.likeness) for p in pairs)


def check(dataset: Dataset, survey: "Survey", *, threads: int = 1) -> Checks:
    """Return the findings of a survey, even for data that no model can be trained on."""
    rows = _readable(dataset, survey)
    exact = tuple(copies(rows))
    facts = survey.facts_of(survey.good)
    return Checks(
        dataset=rows,
        counts=dataset.counts,
        unreadable=tuple(LeftOut(dataset.ids[i], why) for i, why in sorted(survey.errors.items())),
        skipped=dataset.left_out,
        exact=exact,
        near=_near(survey, exact, threads),
        odd_sizes=tuple(survey.surveyor.odd(rows.ids, facts)),
        remarks=(
            *rows.remarks,
            *_about_labels(rows),
            *_about_counting(rows),
            *survey.surveyor.remarks(rows, facts),
        ),
    )


def _about_labels(rows: Dataset) -> Iterator[Remark]:
    """Yield what the target finds remarkable in the labels."""
    for found in rows.target.remarks(rows.y):
        seen = Noticed(*found)
        yield Remark("" if seen.row is None else rows.ids[seen.row], *seen[1:])


def _about_counting(rows: Dataset) -> Iterator[Remark]:
    """Yield how the loss of training uses case weights and probabilities, if the rows have any."""
    if rows.weights:
        none = sum(not weight for weight in rows.weights)
        least, most = min(rows.weights), max(rows.weights)
        some = f"; {none:,} of {len(rows):,} rows have 0" if none else ""
        why = f"rows count in training by {least:g} to {most:g}{some}"
        facts: tuple[Fact, ...] = (("least", least), ("most", most), ("n", none), ("of", len(rows)))
        text = "weights_none" if none else "weights"
        yield Remark("", "weights", why, text, facts if none else facts[:2])
    if rows.soft:
        unsure = sum(max(shares) < 1 for shares in rows.soft)
        why = f"{unsure:,} of {len(rows):,} rows are of no certain class"
        yield Remark("", "probabilities", why, "unsure", (("n", unsure), ("of", len(rows))))


def with_parts(
    checks: Checks,
    input: Input[Any],
    *,
    store: Store | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Checks:
    """Return the checks with a remark on the parts that a backbone's input makes of the examples.

    Every example is prepared once; a store remembers the number of its parts.
    """
    rows = checks.dataset
    if not has_parts(input) or rows.input is None or rows.input.kind != input.kind:
        return checks
    counts = parts_of(rows, input, store=store, threads=threads, progress=progress)
    why = input.about_parts(counts)
    remarks = (Remark("", "windows", why, *input.parts_facts(counts)),) if why else ()
    return replace(checks, remarks=(*remarks, *checks.remarks))


def parts_of(
    rows: Dataset,
    input: Input[Any],
    *,
    store: Store | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.int64]:
    """Return how many parts a backbone's input makes of each readable example, (N,)."""
    from headstart.data.survey import PartSurveyor, survey

    surveyor = PartSurveyor(input)
    seen = survey(rows, input, store=store, threads=threads, progress=progress, surveyor=surveyor)
    return np.asarray(seen.facts["parts"][seen.good], np.int64)


def _near(survey: "Survey", exact: tuple[tuple[int, ...], ...], threads: int) -> tuple[Pair, ...]:
    """Return near duplicates among the readable rows, each group of exact copies taken once."""
    copies = {i for _, *others in exact for i in others}
    distinct = np.ones(len(survey.good), bool)
    distinct[list(copies)] = False
    rows = np.flatnonzero(distinct)
    pairs = survey.surveyor.near(survey.facts_of(survey.good[rows]), threads)
    return tuple(Pair(int(rows[p.a]), int(rows[p.b]), p.likeness) for p in pairs)
