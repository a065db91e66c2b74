"""Headstart: a folder of labelled examples and a pretrained network become a tested model.

>>> import headstart as hs
>>> run = hs.train("photos", "runs/flowers")  # doctest: +SKIP
>>> run.model.predict("new/").to_frame()  # doctest: +SKIP
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Libraries that report their use to their makers unless these variables are set. They read them
# when they are imported, so the variables are set here, which runs before any other file of ours.
# A value that the user has set stays as it is, and child processes inherit all of them.
_TELEMETRY_OFF = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}
for _name, _value in _TELEMETRY_OFF.items():
    os.environ.setdefault(_name, _value)

if TYPE_CHECKING:
    from headstart import errors as errors
    from headstart import extend as extend
    from headstart import specs as specs
    from headstart.api import advise as advise
    from headstart.api import check as check
    from headstart.api import classify as classify
    from headstart.api import compare as compare
    from headstart.api import demo as demo
    from headstart.api import evaluate as evaluate
    from headstart.api import extract as extract
    from headstart.api import fit as fit
    from headstart.api import index as index
    from headstart.api import load as load
    from headstart.api import predict as predict
    from headstart.api import report as report
    from headstart.api import save as save
    from headstart.api import search as search
    from headstart.api import serve as serve
    from headstart.api import split as split
    from headstart.api import track as track
    from headstart.api import train as train
    from headstart.backbones.backbone import Backbone as Backbone
    from headstart.base.errors import HeadstartError as HeadstartError
    from headstart.base.listener import Listener as Listener
    from headstart.base.store import Store as Store
    from headstart.data.dataset import Dataset as Dataset
    from headstart.data.splits import Splits as Splits
    from headstart.evaluation.evaluation import Estimate as Estimate
    from headstart.evaluation.evaluation import Evaluation as Evaluation
    from headstart.explanations import explain as explain
    from headstart.features.extract import FeatureTable as FeatureTable
    from headstart.modalities.images.wrapping import wrap as wrap
    from headstart.modalities.reading import read as read
    from headstart.modalities.sources import list_backbones as list_backbones
    from headstart.modalities.sources import load_backbone as load_backbone
    from headstart.models.model import Model as Model
    from headstart.pixels import attack as attack
    from headstart.pixels import ideal as ideal
    from headstart.pixels import robustness as robustness
    from headstart.pixels import views as views
    from headstart.runs.recipes import get_recipe as get_recipe
    from headstart.runs.recipes import list_recipes as list_recipes
    from headstart.runs.run import Run as Run
    from headstart.shipping import export as export
    from headstart.shipping import verify as verify
    from headstart.targets.predictions import Predictions as Predictions

_HOME = {  # the public names of each module
    "api": "advise check classify compare demo evaluate extract fit index load predict report save "
    "search serve split track train",
    "explanations": "explain",
    "pixels": "attack ideal robustness views",
    "backbones.backbone": "Backbone",
    "base.errors": "HeadstartError",
    "base.listener": "Listener",
    "base.store": "Store",
    "data.dataset": "Dataset",
    "data.splits": "Splits",
    "evaluation.evaluation": "Estimate Evaluation",
    "features.extract": "FeatureTable",
    "modalities.images.wrapping": "wrap",
    "modalities.reading": "read",
    "modalities.sources": "list_backbones load_backbone",
    "models.model": "Model",
    "runs.recipes": "get_recipe list_recipes",
    "runs.run": "Run",
    "shipping": "export verify",
    "targets.predictions": "Predictions",
}
_WHERE = {name: f"headstart.{home}" for home, names in _HOME.items() for name in names.split()}
_MODULES = ("errors", "extend", "specs")
__all__ = sorted([*_WHERE, *_MODULES])


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Public names are loaded when first asked for: importing Headstart loads nothing else."""
    if name in _MODULES:
        return import_module(f"headstart.{name}")
    if name not in _WHERE:
        raise AttributeError(f"headstart has no {name!r}; its public names are {__all__}")
    try:
        return getattr(import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        from headstart.base.errors import MissingPackage

        purpose = f"headstart.{name}"
        raise MissingPackage(str(error.name), purpose=purpose, extra="train") from error
