"""Protocols, registries and values for a user's package or script that adds new kinds.

Register a class or object in a registry, or name it as an entry point of that registry's group:
`headstart.inputs`, `headstart.targets`, `headstart.sources`, `headstart.heads`.

>>> from headstart.extend import HEADS, HeadFamily
>>> HEADS.register("mine", HeadFamily(MySpec, load_mine, fit_mine))  # doctest: +SKIP
"""

from headstart.backbones.backbone import Backbone as Backbone
from headstart.backbones.backbone import Block as Block
from headstart.backbones.backbone import Card as Card
from headstart.backbones.inputs import INPUTS as INPUTS
from headstart.backbones.inputs import Batch as Batch
from headstart.backbones.inputs import Input as Input
from headstart.backbones.sources import SOURCES as SOURCES
from headstart.backbones.sources import Listing as Listing
from headstart.backbones.sources import Source as Source
from headstart.backbones.weights import Weights as Weights
from headstart.base.listener import Listener as Listener
from headstart.heads.families import HEADS as HEADS
from headstart.heads.families import HeadFamily as HeadFamily
from headstart.heads.head import Fitted as Fitted
from headstart.heads.head import Head as Head
from headstart.heads.head import TunableHead as TunableHead
from headstart.heads.specs import HeadSpec as HeadSpec
from headstart.modalities import sources as _sources  # noqa: F401  # built-in names are taken
from headstart.runs.tensorboard import TensorBoardListener as TensorBoardListener
from headstart.targets import registry as _registry
from headstart.targets.target import Chart as Chart
from headstart.targets.target import Mean as Mean
from headstart.targets.target import Metric as Metric
from headstart.targets.target import Outputs as Outputs
from headstart.targets.target import Plain as Plain
from headstart.targets.target import Resampled as Resampled
from headstart.targets.target import Row as Row
from headstart.targets.target import Share as Share
from headstart.targets.target import Table as Table
from headstart.targets.target import Target as Target

register_target = _registry.register

__all__ = [name for name in dir() if not name.startswith("_")]
