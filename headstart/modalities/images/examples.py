"""Data sets that are installed as packages, for the demo and for benchmarks."""

import csv
from collections.abc import Callable

from headstart.base.errors import DataError, MissingPackage, UnknownName
from headstart.data.dataset import Dataset
from headstart.modalities.examples import labelled, package_folder

GRADES = ("0", "1/3", "2/3", "1")  # probabilities of a defect
LABELS: dict[str, Callable[[float], str]] = {  # of a probability, by kind of target
    "class": lambda p: "defective" if p >= 0.5 else "functional",
    "number": repr,
    "grades": lambda p: GRADES[round(3 * p)],
}


def solar_cells(target: str = "class") -> Dataset:
    """Return 2,624 photographs of solar cells, "functional" or "defective".

    They are electroluminescence pictures, 300x300 grey. An expert gave each a probability of a
    defect: 0, 1/3, 2/3 or 1. target: "class" ("defective" from 1/2 on), "number" (the probability)
    or "grades" (the probability as a grade). Strata: "mono" and "poly".

    Data: ELPV, licence CC BY-NC-SA 4.0 (not for commercial use), installed from the package
    elpv-dataset, never shipped with Headstart. Buerhop-Lutz et al., "A Benchmark for Visual
    Identification of Defective Solar Cells in Electroluminescence Imagery", EU PVSEC 2018; Deitsch
    et al., "Automatic classification of defective photovoltaic module cells in
    electroluminescence images", Solar Energy 185 (2019).

    Raises MissingPackage if the package is not installed, DataError if files of it are missing.
    """
    if target not in LABELS:
        raise UnknownName("kind of target of the solar cells", target, LABELS)
    missing = MissingPackage("elpv-dataset", purpose="The solar cell example", extra="demo")
    root = package_folder("elpv_dataset", missing) / "data"
    try:
        with open(root / "labels.csv", encoding="utf-8", newline="") as f:
            rows = list(csv.reader(f, delimiter=" ", skipinitialspace=True))
        labels = [LABELS[target](float(probability)) for _, probability, _ in rows]
    except (OSError, ValueError) as error:
        raise DataError(
            f"The list of solar cells in {root} cannot be read: {error}. "
            f"Install it again with: pip install --force-reinstall elpv-dataset"
        ) from error
    ids, sources = [row[0] for row in rows], [root / row[0] for row in rows]
    strata = tuple(row[2] for row in rows)
    return labelled(labels, target, ids, sources, grades=GRADES, strata=strata)
