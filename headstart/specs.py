"""Settings as values: every choice that can change a result is a field of one of these.

They are frozen, check their values when they are made, and are saved with a run.

>>> from headstart.specs import FineTune, LinearSpec, TwoPhaseSpec
>>> FineTune(epochs=3).epochs
3
"""

from headstart.base.runtime import Runtime as Runtime
from headstart.data.checks import CheckPlan as CheckPlan
from headstart.data.splits import SplitPlan as SplitPlan
from headstart.explaining.pixels.ideal_plan import IdealPlan as IdealPlan
from headstart.explaining.pixels.robust_plan import RobustnessPlan as RobustnessPlan
from headstart.heads.specs import LinearSpec as LinearSpec
from headstart.heads.specs import LogisticSpec as LogisticSpec
from headstart.heads.specs import MeanSpec as MeanSpec
from headstart.heads.specs import MlpSpec as MlpSpec
from headstart.heads.specs import NearestSpec as NearestSpec
from headstart.heads.specs import PyramidSpec as PyramidSpec
from headstart.heads.specs import RidgeSpec as RidgeSpec
from headstart.modalities.images.augment import Augment as Augment
from headstart.modalities.images.augment import AutoViews as AutoViews
from headstart.models.limits import TrustPlan as TrustPlan
from headstart.models.specs import FeatureExtraction as FeatureExtraction
from headstart.models.specs import FineTune as FineTune
from headstart.models.specs import TwoPhaseSpec as TwoPhaseSpec
from headstart.runs.job import Job as Job
from headstart.serving.settings import ServeSpec as ServeSpec
from headstart.training.attack import Attack as Attack

__all__ = [name for name in dir() if not name.startswith("_")]
