"""The model that some benches look at, and the solar cells that it knows and does not."""

from pathlib import Path

import headstart as hs
from headstart.data.splits import split
from headstart.explaining.pixels.squares import stratified_rows
from headstart.modalities.images.examples import solar_cells
from headstart.models.bundle import save
from headstart.models.fitting import fit
from headstart.models.fitting_limits import with_limits
from headstart.runs.folder import recorded_parts, recorded_source
from headstart.specs import FeatureExtraction, TrustPlan


def demo(
    run: Path | None, folder: Path, backbone: str, most: int
) -> tuple[Path, hs.Dataset, hs.Dataset]:
    """The bundle of a run on the built-in solar cells, its training cells and its test cells.

    Without a run a head of `backbone` is fitted on `most` cells at most, and saved in `folder`.
    """
    data = solar_cells()
    if run is None:
        data = data.take(stratified_rows(data.y, most))
        parts = split(data)
        model = fit(FeatureExtraction(fit="squash"), backbone, parts).model
        save(with_limits(model, parts, TrustPlan()), folder / "bundle")
        return folder / "bundle", parts.train, parts.test
    recorded = recorded_parts(run, recorded_source(run), data)
    rows = {part: [i for i, p in enumerate(recorded) if p == part] for part in ("train", "test")}
    return run / "model", data.take(rows["train"]), data.take(rows["test"])
