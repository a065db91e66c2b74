"""The built-in examples: real data from packages, and the job that `headstart demo` runs on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from headstart.base.errors import UnknownName
from headstart.data.dataset import Dataset
from headstart.heads.specs import PyramidSpec
from headstart.modalities.images.examples import solar_cells
from headstart.modalities.images.trees import tree_crowns
from headstart.modalities.text.examples import snippets
from headstart.models.specs import FeatureExtraction, FineTune
from headstart.runs.job import Job
from headstart.runs.recipes import CELLS

FEW = 2_500  # sentences of the demo, which takes three minutes at most on two cores


@dataclass(frozen=True)
class Demo:
    """A built-in example. about: the data and its licence, in a phrase. row: the name of a row.

    job: its `source` is what a run records in place of a path.
    """

    name: str
    about: str
    row: str
    read: Callable[[], Dataset]
    job: Job


def film_snippets() -> Dataset:
    """Return FEW rated sentences of film reviews, drawn at random."""
    data = snippets("film")
    return data.take(np.sort(np.random.default_rng(0).permutation(len(data))[:FEW]))


_NOT_SHIPPED = "ELPV data set, CC BY-NC-SA 4.0, not shipped"
_LISTED = (
    Demo(
        "images",
        f"solar cells, defective or not ({_NOT_SHIPPED})",
        "cell",
        solar_cells,
        CELLS,
    ),
    Demo(
        "text",
        "sentences of film reviews, negative or positive (Hutto and Gilbert 2014, MIT, not "
        "shipped)",
        "sentence",
        film_snippets,
        Job(
            source="the built-in film snippets",
            data_licence="MIT",
            finetune=FineTune(thaw="2", epochs=3),
            refit=False,  # fine-tuning twice would take more than three minutes
        ),
    ),
    Demo(
        "number",
        f"solar cells, the probability of a defect ({_NOT_SHIPPED})",
        "cell",
        partial(solar_cells, "number"),
        replace(
            CELLS,
            source="the built-in solar cells, the probability of a defect",
            # twice this rate made the loss leap; more epochs would take more than three minutes
            finetune=replace(CELLS.finetune, lr=1e-4, epochs=2),
            refit=False,
        ),
    ),
    Demo(
        "boxes",
        "aerial pictures of forests, a box around each tree's crown (package deepforest, MIT, not "
        "shipped); three pictures cut into tiles are little data for a hard task, so expect poor "
        "figures",
        "tile",
        tree_crowns,
        Job(
            source="the built-in tree crowns",
            data_licence="MIT",
            # the tiles as large as they are, nearly; 24 epochs would take more than three minutes
            recipe=FeatureExtraction(PyramidSpec(epochs=16), size=384),
        ),
    ),
)
DEMOS = {demo.name: demo for demo in _LISTED}
BUILT_IN = {demo.job.source: demo.read for demo in _LISTED}


def get_demo(name: str) -> Demo:
    """Return the demo of that name; raises UnknownName with the nearest name.

    >>> get_demo("text").job.data_licence
    'MIT'
    """
    if name not in DEMOS:
        raise UnknownName("demo", name, DEMOS)
    return DEMOS[name]
