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
    from headstart.backbones.registry import DEFAULT_BACKBONE as DEFAULT_BACKBONE
    from headstart.backbones.registry import Listing as Listing
    from headstart.backbones.registry import list_backbones as list_backbones
    from headstart.backbones.registry import load_backbone as load_backbone
    from headstart.bundle import Bundle as Bundle
    from headstart.bundle import load as load
    from headstart.bundle import save as save
    from headstart.comparing import compare_runs as compare_runs
    from headstart.comparing import comparison_rows as comparison_rows
    from headstart.data.augment import Augment as Augment
    from headstart.data.checks import CheckPlan as CheckPlan
    from headstart.data.checks import check as check
    from headstart.data.checks import good_rows as good_rows
    from headstart.data.checks import survey as survey
    from headstart.data.checks import with_contents as with_contents
    from headstart.data.dataset import CheckedFile as CheckedFile
    from headstart.data.dataset import Dataset as Dataset
    from headstart.data.dataset import LeftOut as LeftOut
    from headstart.data.decoding import Pixels as Pixels
    from headstart.data.decoding import decode as decode
    from headstart.data.examples import solar_cells as solar_cells
    from headstart.data.finding import find as find
    from headstart.data.readers import read as read
    from headstart.data.splits import SplitPlan as SplitPlan
    from headstart.data.splits import Splits as Splits
    from headstart.data.splits import split as split
    from headstart.data.views import draw_views as draw_views
    from headstart.doubting import with_limits as with_limits
    from headstart.evaluation import Estimate as Estimate
    from headstart.evaluation import Evaluation as Evaluation
    from headstart.evaluation import compare as compare
    from headstart.evaluation import evaluate as evaluate
    from headstart.evaluation import evaluation_rows as evaluation_rows
    from headstart.explaining.answering import Answer as Answer
    from headstart.explaining.answering import Answerer as Answerer
    from headstart.explaining.answering import answerer as answerer
    from headstart.explaining.attributing import attribute as attribute
    from headstart.explaining.attribution import Attribution as Attribution
    from headstart.explaining.deletion import Deletion as Deletion
    from headstart.explaining.deletion import deletion as deletion
    from headstart.explaining.explanation import Effort as Effort
    from headstart.explaining.explanation import Explanation as Explanation
    from headstart.explaining.explanation import explain as explain
    from headstart.explaining.explanation import explain_run as explain_run
    from headstart.explaining.explanation import explained as explained
    from headstart.explaining.explanation import told_rows as told_rows
    from headstart.explaining.film import check_film as check_film
    from headstart.explaining.film import write_film as write_film
    from headstart.explaining.film import write_picture as write_picture
    from headstart.explaining.fooling import Fooling as Fooling
    from headstart.explaining.fooling import fool as fool
    from headstart.explaining.ideal import Ideal as Ideal
    from headstart.explaining.ideal import ascend as ascend
    from headstart.explaining.ideal import ideal as ideal
    from headstart.explaining.ideal import total_variation as total_variation
    from headstart.explaining.ideal_plan import IdealPlan as IdealPlan
    from headstart.explaining.lens import Lens as Lens
    from headstart.explaining.lens import lens_of as lens_of
    from headstart.explaining.lens import source_lens as source_lens
    from headstart.explaining.looker import Looker as Looker
    from headstart.explaining.looker import looker_of as looker_of
    from headstart.explaining.neighbours import Neighbour as Neighbour
    from headstart.explaining.neighbours import nearest as nearest
    from headstart.explaining.overlay import draw_explanation as draw_explanation
    from headstart.explaining.overlay import png_of as png_of
    from headstart.explaining.robust import Held as Held
    from headstart.explaining.robust import Robustness as Robustness
    from headstart.explaining.robust import drawn as drawn
    from headstart.explaining.robust import robustness as robustness
    from headstart.explaining.robust import robustness_rows as robustness_rows
    from headstart.explaining.robust import trials as trials
    from headstart.explaining.robust_plan import RobustnessPlan as RobustnessPlan
    from headstart.explaining.squares import Squared as Squared
    from headstart.explaining.squares import squared as squared
    from headstart.explaining.triptych import triptych as triptych
    from headstart.explaining.triptych import triptych_path as triptych_path
    from headstart.explaining.triptych import write_fooling as write_fooling
    from headstart.features import FeatureTable as FeatureTable
    from headstart.features import Watch as Watch
    from headstart.features import extract as extract
    from headstart.fitting import fit as fit
    from headstart.insights.unlike import Unlike as Unlike
    from headstart.insights.unlike import unlike as unlike
    from headstart.jobs import Job as Job
    from headstart.model import Model as Model
    from headstart.model import classify as classify
    from headstart.phases import Talk as Talk
    from headstart.predictions import Predictions as Predictions
    from headstart.predictions import read_predictions as read_predictions
    from headstart.recipes import RECIPES as RECIPES
    from headstart.recipes import recipe as recipe
    from headstart.report.page import write_report as write_report
    from headstart.run_folder import recorded_contents as recorded_contents
    from headstart.run_folder import recorded_parts as recorded_parts
    from headstart.run_folder import recorded_source as recorded_source
    from headstart.runs import Run as Run
    from headstart.runs import train as train
    from headstart.runtime import Runtime as Runtime
    from headstart.seeds import spread as spread
    from headstart.seeds import spread_rows as spread_rows
    from headstart.seeds import train_seeds as train_seeds
    from headstart.specs import FeatureExtraction as FeatureExtraction
    from headstart.specs import FineTune as FineTune
    from headstart.store import Store as Store
    from headstart.tracking import check_tracker as check_tracker
    from headstart.tracking import track as track
    from headstart.training.attack import RESTARTS as RESTARTS
    from headstart.training.attack import Attack as Attack
    from headstart.trust.limits import TrustPlan as TrustPlan

_HOME = {
    "headstart.backbones.backbone": ["Backbone", "Card"],
    "headstart.backbones.registry": [
        "DEFAULT_BACKBONE",
        "Listing",
        "list_backbones",
        "load_backbone",
    ],
    "headstart.bundle": ["Bundle", "load", "save"],
    "headstart.comparing": ["compare_runs", "comparison_rows"],
    "headstart.data.augment": ["Augment"],
    "headstart.data.checks": ["CheckPlan", "check", "good_rows", "survey", "with_contents"],
    "headstart.data.dataset": ["CheckedFile", "Dataset", "LeftOut"],
    "headstart.data.decoding": ["Pixels", "decode"],
    "headstart.data.examples": ["solar_cells"],
    "headstart.data.finding": ["find"],
    "headstart.data.readers": ["read"],
    "headstart.data.splits": ["SplitPlan", "Splits", "split"],
    "headstart.data.views": ["draw_views"],
    "headstart.doubting": ["with_limits"],
    "headstart.evaluation": ["Estimate", "Evaluation", "compare", "evaluate", "evaluation_rows"],
    "headstart.explaining.answering": ["Answer", "Answerer", "answerer"],
    "headstart.explaining.fooling": ["Fooling", "fool"],
    "headstart.explaining.film": ["check_film", "write_film", "write_picture"],
    "headstart.explaining.ideal": ["Ideal", "ascend", "ideal", "total_variation"],
    "headstart.explaining.ideal_plan": ["IdealPlan"],
    "headstart.explaining.attributing": ["attribute"],
    "headstart.explaining.attribution": ["Attribution"],
    "headstart.explaining.deletion": ["Deletion", "deletion"],
    "headstart.explaining.explanation": [
        "Effort",
        "Explanation",
        "explain",
        "explain_run",
        "explained",
        "told_rows",
    ],
    "headstart.explaining.neighbours": ["Neighbour", "nearest"],
    "headstart.explaining.overlay": ["draw_explanation", "png_of"],
    "headstart.explaining.lens": ["Lens", "lens_of", "source_lens"],
    "headstart.explaining.looker": ["Looker", "looker_of"],
    "headstart.explaining.robust": [
        "Held",
        "Robustness",
        "drawn",
        "robustness",
        "robustness_rows",
        "trials",
    ],
    "headstart.explaining.robust_plan": ["RobustnessPlan"],
    "headstart.explaining.squares": ["Squared", "squared"],
    "headstart.explaining.triptych": ["triptych", "triptych_path", "write_fooling"],
    "headstart.features": ["FeatureTable", "Watch", "extract"],
    "headstart.fitting": ["fit"],
    "headstart.insights.unlike": ["Unlike", "unlike"],
    "headstart.jobs": ["Job"],
    "headstart.model": ["Model", "classify"],
    "headstart.phases": ["Talk"],
    "headstart.predictions": ["Predictions", "read_predictions"],
    "headstart.recipes": ["RECIPES", "recipe"],
    "headstart.report.page": ["write_report"],
    "headstart.run_folder": ["recorded_contents", "recorded_parts", "recorded_source"],
    "headstart.runs": ["Run", "train"],
    "headstart.runtime": ["Runtime"],
    "headstart.seeds": ["spread", "spread_rows", "train_seeds"],
    "headstart.specs": ["FeatureExtraction", "FineTune"],
    "headstart.store": ["Store"],
    "headstart.tracking": ["check_tracker", "track"],
    "headstart.training.attack": ["RESTARTS", "Attack"],
    "headstart.trust.limits": ["TrustPlan"],
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
        from headstart.errors import MissingPackage

        purpose = f"headstart.{name}"
        raise MissingPackage(str(error.name), purpose=purpose, extra="train") from error
