"""Headstart: a folder of labelled examples and a pretrained network become a tested model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

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
    from headstart.explaining.lens import Lens as Lens
    from headstart.explaining.lens import lens_of as lens_of
    from headstart.explaining.lens import source_lens as source_lens
    from headstart.features import FeatureTable as FeatureTable
    from headstart.features import Watch as Watch
    from headstart.features import extract as extract
    from headstart.fitting import fit as fit
    from headstart.jobs import Job as Job
    from headstart.model import Model as Model
    from headstart.model import classify as classify
    from headstart.phases import Talk as Talk
    from headstart.predictions import Predictions as Predictions
    from headstart.predictions import read_predictions as read_predictions
    from headstart.recipes import RECIPES as RECIPES
    from headstart.recipes import recipe as recipe
    from headstart.report.page import write_report as write_report
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
    "headstart.data.checks": ["CheckPlan", "check", "good_rows", "survey"],
    "headstart.data.dataset": ["Dataset", "LeftOut"],
    "headstart.data.decoding": ["Pixels", "decode"],
    "headstart.data.examples": ["solar_cells"],
    "headstart.data.finding": ["find"],
    "headstart.data.readers": ["read"],
    "headstart.data.splits": ["SplitPlan", "Splits", "split"],
    "headstart.data.views": ["draw_views"],
    "headstart.doubting": ["with_limits"],
    "headstart.evaluation": ["Estimate", "Evaluation", "compare", "evaluate", "evaluation_rows"],
    "headstart.explaining.lens": ["Lens", "lens_of", "source_lens"],
    "headstart.features": ["FeatureTable", "Watch", "extract"],
    "headstart.fitting": ["fit"],
    "headstart.jobs": ["Job"],
    "headstart.model": ["Model", "classify"],
    "headstart.phases": ["Talk"],
    "headstart.predictions": ["Predictions", "read_predictions"],
    "headstart.recipes": ["RECIPES", "recipe"],
    "headstart.report.page": ["write_report"],
    "headstart.run_folder": ["recorded_parts", "recorded_source"],
    "headstart.runs": ["Run", "train"],
    "headstart.runtime": ["Runtime"],
    "headstart.seeds": ["spread", "spread_rows", "train_seeds"],
    "headstart.specs": ["FeatureExtraction", "FineTune"],
    "headstart.store": ["Store"],
    "headstart.tracking": ["check_tracker", "track"],
    "headstart.trust.limits": ["TrustPlan"],
}
_WHERE = {name: home for home, names in _HOME.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Public names are loaded when first asked for: importing Headstart loads nothing else."""
    if name not in _WHERE:
        raise AttributeError(f"headstart has no {name!r}; its public names are {__all__}")
    return getattr(import_module(_WHERE[name]), name)
