"""Headstart: a folder of labelled examples and a pretrained network become a tested model."""

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
    from headstart.backbones.backbone import Backbone as Backbone
    from headstart.backbones.backbone import Card as Card
    from headstart.base.listener import Listener as Listener
    from headstart.base.runtime import Runtime as Runtime
    from headstart.base.store import Store as Store
    from headstart.data.checks import CheckPlan as CheckPlan
    from headstart.data.checks import check as check
    from headstart.data.checks import good_rows as good_rows
    from headstart.data.checks import with_contents as with_contents
    from headstart.data.dataset import CheckedFile as CheckedFile
    from headstart.data.dataset import Dataset as Dataset
    from headstart.data.dataset import LeftOut as LeftOut
    from headstart.data.splits import SplitPlan as SplitPlan
    from headstart.data.splits import Splits as Splits
    from headstart.data.splits import split as split
    from headstart.evaluation.comparison import comparison_rows as comparison_rows
    from headstart.evaluation.evaluation import Estimate as Estimate
    from headstart.evaluation.evaluation import Evaluation as Evaluation
    from headstart.evaluation.evaluation import compare as compare
    from headstart.evaluation.evaluation import evaluate as evaluate
    from headstart.evaluation.evaluation import evaluation_rows as evaluation_rows
    from headstart.evaluation.source_distance import Unlike as Unlike
    from headstart.evaluation.source_distance import unlike as unlike
    from headstart.explaining.neighbours import Neighbour as Neighbour
    from headstart.explaining.neighbours import nearest as nearest
    from headstart.explaining.pixels.attributing import attribute as attribute
    from headstart.explaining.pixels.attribution import Attribution as Attribution
    from headstart.explaining.pixels.deletion import Deletion as Deletion
    from headstart.explaining.pixels.deletion import deletion as deletion
    from headstart.explaining.pixels.explanation import Effort as Effort
    from headstart.explaining.pixels.explanation import Explanation as Explanation
    from headstart.explaining.pixels.explanation import explain as explain
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
    from headstart.explaining.pixels.ideal import ideal as ideal
    from headstart.explaining.pixels.ideal import total_variation as total_variation
    from headstart.explaining.pixels.ideal_plan import IdealPlan as IdealPlan
    from headstart.explaining.pixels.overlay import draw_explanation as draw_explanation
    from headstart.explaining.pixels.overlay import png_of as png_of
    from headstart.explaining.pixels.probed_model import ProbedModel as ProbedModel
    from headstart.explaining.pixels.probed_model import probed_model_of as probed_model_of
    from headstart.explaining.pixels.robust import ConditionResult as ConditionResult
    from headstart.explaining.pixels.robust import Robustness as Robustness
    from headstart.explaining.pixels.robust import drawn as drawn
    from headstart.explaining.pixels.robust import robustness as robustness
    from headstart.explaining.pixels.robust import robustness_rows as robustness_rows
    from headstart.explaining.pixels.robust import trials as trials
    from headstart.explaining.pixels.robust_plan import RobustnessPlan as RobustnessPlan
    from headstart.explaining.pixels.squares import Squared as Squared
    from headstart.explaining.pixels.squares import squared as squared
    from headstart.explaining.pixels.triptych import triptych as triptych
    from headstart.explaining.pixels.triptych import triptych_path as triptych_path
    from headstart.explaining.pixels.triptych import write_fooling as write_fooling
    from headstart.features.extract import FeatureTable as FeatureTable
    from headstart.features.extract import extract as extract
    from headstart.heads.specs import LinearSpec as LinearSpec
    from headstart.heads.specs import LogisticSpec as LogisticSpec
    from headstart.heads.specs import MlpSpec as MlpSpec
    from headstart.heads.specs import NearestSpec as NearestSpec
    from headstart.heads.specs import RidgeSpec as RidgeSpec
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
    from headstart.modalities.reading import survey as survey
    from headstart.modalities.sources import DEFAULT_BACKBONE as DEFAULT_BACKBONE
    from headstart.modalities.sources import Listing as Listing
    from headstart.modalities.sources import list_backbones as list_backbones
    from headstart.modalities.sources import load_backbone as load_backbone
    from headstart.models.bundle import Bundle as Bundle
    from headstart.models.bundle import load_bundle as load_bundle
    from headstart.models.bundle import save as save
    from headstart.models.fitting import fit as fit
    from headstart.models.fitting_limits import with_limits as with_limits
    from headstart.models.limits import TrustPlan as TrustPlan
    from headstart.models.model import Model as Model
    from headstart.models.model import classify as classify
    from headstart.models.predictor import Answer as Answer
    from headstart.models.predictor import Answerer as Answerer
    from headstart.models.predictor import answerer as answerer
    from headstart.models.results import FitResult as FitResult
    from headstart.models.specs import FeatureExtraction as FeatureExtraction
    from headstart.models.specs import FineTune as FineTune
    from headstart.models.specs import TwoPhaseSpec as TwoPhaseSpec
    from headstart.reporting.page import write_report as write_report
    from headstart.runs.comparison import compare_runs as compare_runs
    from headstart.runs.folder import recorded_contents as recorded_contents
    from headstart.runs.folder import recorded_parts as recorded_parts
    from headstart.runs.folder import recorded_source as recorded_source
    from headstart.runs.job import Job as Job
    from headstart.runs.recipes import RECIPES as RECIPES
    from headstart.runs.recipes import recipe as recipe
    from headstart.runs.run import Run as Run
    from headstart.runs.run import train as train
    from headstart.runs.seeds import spread as spread
    from headstart.runs.seeds import spread_rows as spread_rows
    from headstart.runs.seeds import train_seeds as train_seeds
    from headstart.runs.tracking import TensorBoardListener as TensorBoardListener
    from headstart.runs.tracking import check_tracker as check_tracker
    from headstart.runs.tracking import track as track
    from headstart.targets.predictions import Predictions as Predictions
    from headstart.targets.predictions import read_predictions as read_predictions
    from headstart.training.attack import RESTARTS as RESTARTS
    from headstart.training.attack import Attack as Attack

_HOME = {
    "headstart.backbones.backbone": ["Backbone", "Card"],
    "headstart.modalities.sources": [
        "DEFAULT_BACKBONE",
        "Listing",
        "list_backbones",
        "load_backbone",
    ],
    "headstart.models.bundle": ["Bundle", "load_bundle", "save"],
    "headstart.evaluation.comparison": ["comparison_rows"],
    "headstart.runs.comparison": ["compare_runs"],
    "headstart.modalities.images.augment": ["Augment"],
    "headstart.data.checks": ["CheckPlan", "check", "good_rows", "with_contents"],
    "headstart.data.dataset": ["CheckedFile", "Dataset", "LeftOut"],
    "headstart.modalities.images.decoding": ["Pixels", "decode"],
    "headstart.modalities.images.examples": ["solar_cells"],
    "headstart.modalities.reading": ["find", "read", "survey"],
    "headstart.data.splits": ["SplitPlan", "Splits", "split"],
    "headstart.modalities.images.views": ["draw_views"],
    "headstart.modalities.images.wrapping": ["wrap"],
    "headstart.models.fitting_limits": ["with_limits"],
    "headstart.evaluation.evaluation": [
        "Estimate",
        "Evaluation",
        "compare",
        "evaluate",
        "evaluation_rows",
    ],
    "headstart.models.predictor": ["Answer", "Answerer", "answerer"],
    "headstart.explaining.pixels.fooling": ["Fooling", "fool"],
    "headstart.modalities.images.film": ["check_film", "write_film", "write_picture"],
    "headstart.explaining.pixels.ideal": ["Ideal", "ascend", "ideal", "total_variation"],
    "headstart.explaining.pixels.ideal_plan": ["IdealPlan"],
    "headstart.explaining.pixels.attributing": ["attribute"],
    "headstart.explaining.pixels.attribution": ["Attribution"],
    "headstart.explaining.pixels.deletion": ["Deletion", "deletion"],
    "headstart.explaining.pixels.explanation": [
        "Effort",
        "Explanation",
        "explain",
        "explain_run",
        "explained",
        "rows_to_explain",
    ],
    "headstart.explaining.neighbours": ["Neighbour", "nearest"],
    "headstart.explaining.pixels.overlay": ["draw_explanation", "png_of"],
    "headstart.explaining.pixels.grad_model": ["GradModel", "grad_model_of", "source_grad_model"],
    "headstart.explaining.pixels.probed_model": ["ProbedModel", "probed_model_of"],
    "headstart.explaining.pixels.robust": [
        "ConditionResult",
        "Robustness",
        "drawn",
        "robustness",
        "robustness_rows",
        "trials",
    ],
    "headstart.explaining.pixels.robust_plan": ["RobustnessPlan"],
    "headstart.explaining.pixels.squares": ["Squared", "squared"],
    "headstart.explaining.pixels.triptych": ["triptych", "triptych_path", "write_fooling"],
    "headstart.heads.specs": [
        "LinearSpec",
        "LogisticSpec",
        "MlpSpec",
        "NearestSpec",
        "RidgeSpec",
    ],
    "headstart.features.extract": ["FeatureTable", "extract"],
    "headstart.models.fitting": ["fit"],
    "headstart.evaluation.source_distance": ["Unlike", "unlike"],
    "headstart.runs.job": ["Job"],
    "headstart.models.model": ["Model", "classify"],
    "headstart.targets.predictions": ["Predictions", "read_predictions"],
    "headstart.runs.recipes": ["RECIPES", "recipe"],
    "headstart.reporting.page": ["write_report"],
    "headstart.runs.folder": ["recorded_contents", "recorded_parts", "recorded_source"],
    "headstart.runs.run": ["Run", "train"],
    "headstart.base.listener": ["Listener"],
    "headstart.base.runtime": ["Runtime"],
    "headstart.runs.seeds": ["spread", "spread_rows", "train_seeds"],
    "headstart.models.results": ["FitResult"],
    "headstart.models.specs": ["FeatureExtraction", "FineTune", "TwoPhaseSpec"],
    "headstart.base.store": ["Store"],
    "headstart.runs.tracking": ["TensorBoardListener", "check_tracker", "track"],
    "headstart.training.attack": ["RESTARTS", "Attack"],
    "headstart.models.limits": ["TrustPlan"],
}
_WHERE = {name: home for home, names in _HOME.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Public names are loaded when first asked for: importing Headstart loads nothing else."""
    if name not in _WHERE:
        raise AttributeError(f"headstart has no {name!r}; its public names are {__all__}")
    try:
        return getattr(import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        from headstart.base.errors import MissingPackage

        purpose = f"headstart.{name}"
        raise MissingPackage(str(error.name), purpose=purpose, extra="train") from error
