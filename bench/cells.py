"""The model that some benches look at, and the solar cells that it knows and does not."""

from pathlib import Path

import headstart as hs


def demo(
    run: Path | None, folder: Path, backbone: str, most: int
) -> tuple[Path, hs.Dataset, hs.Dataset]:
    """The bundle of a run on the built-in solar cells, its training cells and its test cells.

    Without a run a head of `backbone` is fitted on `most` cells at most, and saved in `folder`.
    """
    data = hs.solar_cells()
    if run is None:
        data = data.take(hs.drawn(data.y, most))
        parts = hs.split(data)
        model = hs.fit(hs.FeatureExtraction(fit="squash"), backbone, parts).model
        hs.save(hs.with_limits(model, parts, hs.TrustPlan()), folder / "bundle")
        return folder / "bundle", parts.train, parts.test
    recorded = hs.recorded_parts(run, hs.recorded_source(run), data)
    rows = {part: [i for i, p in enumerate(recorded) if p == part] for part in ("train", "test")}
    return run / "model", data.take(rows["train"]), data.take(rows["test"])
