"""What the readers of installed data sets share."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.base.errors import HeadstartError
from headstart.data.choosing import planned, with_kind
from headstart.data.dataset import Dataset
from headstart.targets.plan import TargetPlan


def package_folder(package: str, missing: HeadstartError) -> Path:
    """Return the folder of a package, without importing it; raises `missing` if there is none."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing
    return Path(spec.submodule_search_locations[0])


def labelled(
    labels: Sequence[str],
    target: str,
    ids: Sequence[str],
    sources: Sequence[Any],
    *,
    grades: Sequence[str] = (),
    **columns: Any,
) -> Dataset:
    """Return the data set whose row i has the label `labels[i]`, read as this kind of target.

    grades: the names of all grades, the lowest first. columns: further columns of a Dataset.
    """
    names = tuple(sorted(set(labels)))
    number = {name: c for c, name in enumerate(names)}
    own = tuple(number[label] for label in labels)
    data = Dataset(tuple(ids), tuple(sources), own, names, **columns)
    there = [grade for grade in grades if grade in number]
    plan = TargetPlan(target, ",".join(there) if target == "grades" else "")
    return planned(with_kind(data, plan.kind), plan)
