"""Data sets that are installed as packages, for the demo and for benchmarks."""

import csv
from importlib.util import find_spec
from pathlib import Path

from headstart.base.errors import DataError, MissingPackage
from headstart.data.dataset import Dataset


def solar_cells() -> Dataset:
    """Return 2,624 photographs of solar cells, "functional" or "defective".

    They are electroluminescence pictures, 300x300 grey. An expert gave each a probability of a
    defect: 0, 1/3, 2/3 or 1; from 1/2 on the label is "defective". Strata: "mono" and "poly".

    Data: ELPV, licence CC BY-NC-SA 4.0 (not for commercial use), installed from the package
    elpv-dataset, never shipped with Headstart. Buerhop-Lutz et al., "A Benchmark for Visual
    Identification of Defective Solar Cells in Electroluminescence Imagery", EU PVSEC 2018; Deitsch
    et al., "Automatic classification of defective photovoltaic module cells in
    electroluminescence images", Solar Energy 185 (2019).

    Raises MissingPackage if the package is not installed, DataError if files of it are missing.
    """
    root = _package_folder("elpv_dataset") / "data"
    classes = ("defective", "functional")
    ids, labels, strata = list[str](), list[int](), list[str]()
    try:
        with open(root / "labels.csv", encoding="utf-8", newline="") as f:
            for path, probability, kind in csv.reader(f, delimiter=" ", skipinitialspace=True):
                ids.append(path)
                labels.append(0 if float(probability) >= 0.5 else 1)
                strata.append(kind)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The list of solar cells in {root} cannot be read: {error}. "
            f"Install it again with: pip install --force-reinstall elpv-dataset"
        ) from error
    sources = tuple(root / path for path in ids)
    return Dataset(tuple(ids), sources, tuple(labels), classes, strata=tuple(strata))


def _package_folder(package: str) -> Path:
    """Return the folder of a package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage("elpv-dataset", purpose="The solar cell example", extra="demo")
    return Path(spec.submodule_search_locations[0])
