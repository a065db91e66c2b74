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
    from headstart.api import check as check
    from headstart.api import classify as classify
    from headstart.api import compare as compare
    from headstart.api import demo as demo
    from headstart.api import evaluate as evaluate
    from headstart.api import extract as extract
    from headstart.api import fit as fit
    from headstart.api import load as load
    from headstart.api import predict as predict
    from headstart.api import report as report
    from headstart.api import save as save
    from headstart.api import split as split
    from headstart.api import track as track
    from headstart.api import train as train
    from headstart.backbones.backbone import Backbone as Backbone
    from headstart.base.errors import HeadstartError as HeadstartError
    from headstart.base.listener import Listener as Listener
    from headstart.base.runtime import Runtime as Runtime
    from headstart.base.store import Store as Store
    from headstart.data.dataset import CheckedFile as CheckedFile
    from headstart.data.dataset import Dataset as Dataset
    from headstart.data.dataset import LeftOut as LeftOut
    from headstart.data.splits import Splits as Splits
    from headstart.evaluation.evaluation import Estimate as Estimate
    from headstart.evaluation.evaluation import Evaluation as Evaluation
    from headstart.explaining.neighbours import Neighbour as Neighbour
    from headstart.explaining.neighbours import nearest as nearest
    from headstart.explaining.pixels.explanation import Explanation as Explanation
    from headstart.explaining.pixels.explanation import explain_run as explain_run
    from headstart.explaining.pixels.explanation import explained as explained
    from headstart.explaining.pixels.explanation import rows_to_explain as rows_to_explain
    from headstart.explaining.pixels.fooling import Fooling as Fooling
    from headstart.explaining.pixels.fooling import fool as fool
    from headstart.explaining.pixels.grad_model import GradModel as GradModel
    from headstart.explaining.pixels.grad_model import grad_model_of as grad_model_of
    from headstart.explaining.pixels.grad_model import source_grad_model as source_grad_model
    from headstart.explaining.pixels.ideal import Ideal as Ideal
    from headstart.explaining.pixels.ideal import ascend as ascend
    from headstart.explaining.pixels.ideal import total_variation as total_variation
    from headstart.explaining.pixels.ideal_plan import IdealPlan as IdealPlan
    from headstart.explaining.pixels.overlay import draw_explanation as draw_explanation
    from headstart.explaining.pixels.overlay import png_of as png_of
    from headstart.explaining.pixels.probed_model import probed_model_of as probed_model_of
    from headstart.explaining.pixels.robust import Robustness as Robustness
    from headstart.explaining.pixels.robust import drawn as drawn
    from headstart.explaining.pixels.robust import robustness_rows as robustness_rows
    from headstart.explaining.pixels.robust import trials as trials
    from headstart.explaining.pixels.robust_plan import RobustnessPlan as RobustnessPlan
    from headstart.explaining.pixels.squares import Squared as Squared
    from headstart.explaining.pixels.squares import squared as squared
    from headstart.explaining.pixels.triptych import triptych_path as triptych_path
    from headstart.explaining.pixels.triptych import write_fooling as write_fooling
    from headstart.features.extract import FeatureTable as FeatureTable
    from headstart.modalities.images.augment import Augment as Augment
    from headstart.modalities.images.decoding import Pixels as Pixels
    from headstart.modalities.images.decoding import decode as decode
    from headstart.modalities.images.examples import solar_cells as solar_cells
    from headstart.modalities.images.film import check_film as check_film
    from headstart.modalities.images.film import write_film as write_film
    from headstart.modalities.images.film import write_picture as write_picture
    from headstart.modalities.images.views import draw_views as draw_views
    from headstart.modalities.images.wrapping import wrap as wrap
    from headstart.modalities.reading import find as find
    from headstart.modalities.reading import read as read
    from headstart.modalities.sources import list_backbones as list_backbones
    from headstart.modalities.sources import load_backbone as load_backbone
    from headstart.models.bundle import load_bundle as load_bundle
    from headstart.models.model import Model as Model
    from headstart.models.predictor import Answer as Answer
    from headstart.models.predictor import Answerer as Answerer
    from headstart.models.predictor import answerer as answerer
    from headstart.reporting.page import write_report as write_report
    from headstart.runs.folder import recorded_contents as recorded_contents
    from headstart.runs.folder import recorded_parts as recorded_parts
    from headstart.runs.folder import recorded_source as recorded_source
    from headstart.runs.recipes import get_recipe as get_recipe
    from headstart.runs.recipes import list_recipes as list_recipes
    from headstart.runs.run import Run as Run
    from headstart.targets.predictions import Predictions as Predictions
    from headstart.training.attack import RESTARTS as RESTARTS
    from headstart.training.attack import Attack as Attack

_HOME = {  # the public names of each module
    "api": "check classify compare demo evaluate extract fit load predict report save split track "
    "train",
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
    "targets.predictions": "Predictions",
}
_WHERE = {name: f"headstart.{home}" for home, names in _HOME.items() for name in names.split()}
_MODULES = ("errors", "extend", "specs")
__all__ = sorted([*_WHERE, *_MODULES])
_WHERE |= {
    "Answer": "headstart.models.predictor",
    "Answerer": "headstart.models.predictor",
    "Attack": "headstart.training.attack",
    "Augment": "headstart.modalities.images.augment",
    "CheckedFile": "headstart.data.dataset",
    "Explanation": "headstart.explaining.pixels.explanation",
    "Fooling": "headstart.explaining.pixels.fooling",
    "GradModel": "headstart.explaining.pixels.grad_model",
    "Ideal": "headstart.explaining.pixels.ideal",
    "IdealPlan": "headstart.explaining.pixels.ideal_plan",
    "LeftOut": "headstart.data.dataset",
    "Neighbour": "headstart.explaining.neighbours",
    "Pixels": "headstart.modalities.images.decoding",
    "RESTARTS": "headstart.training.attack",
    "Robustness": "headstart.explaining.pixels.robust",
    "RobustnessPlan": "headstart.explaining.pixels.robust_plan",
    "Runtime": "headstart.base.runtime",
    "Squared": "headstart.explaining.pixels.squares",
    "answerer": "headstart.models.predictor",
    "ascend": "headstart.explaining.pixels.ideal",
    "check_film": "headstart.modalities.images.film",
    "decode": "headstart.modalities.images.decoding",
    "draw_explanation": "headstart.explaining.pixels.overlay",
    "draw_views": "headstart.modalities.images.views",
    "drawn": "headstart.explaining.pixels.robust",
    "explain_run": "headstart.explaining.pixels.explanation",
    "explained": "headstart.explaining.pixels.explanation",
    "find": "headstart.modalities.reading",
    "fool": "headstart.explaining.pixels.fooling",
    "grad_model_of": "headstart.explaining.pixels.grad_model",
    "load_bundle": "headstart.models.bundle",
    "nearest": "headstart.explaining.neighbours",
    "png_of": "headstart.explaining.pixels.overlay",
    "probed_model_of": "headstart.explaining.pixels.probed_model",
    "recorded_contents": "headstart.runs.folder",
    "recorded_parts": "headstart.runs.folder",
    "recorded_source": "headstart.runs.folder",
    "robustness_rows": "headstart.explaining.pixels.robust",
    "rows_to_explain": "headstart.explaining.pixels.explanation",
    "solar_cells": "headstart.modalities.images.examples",
    "source_grad_model": "headstart.explaining.pixels.grad_model",
    "squared": "headstart.explaining.pixels.squares",
    "total_variation": "headstart.explaining.pixels.ideal",
    "trials": "headstart.explaining.pixels.robust",
    "triptych_path": "headstart.explaining.pixels.triptych",
    "write_film": "headstart.modalities.images.film",
    "write_fooling": "headstart.explaining.pixels.triptych",
    "write_picture": "headstart.modalities.images.film",
    "write_report": "headstart.reporting.page",
}  # noqa: E501 TRANSITIONAL


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
