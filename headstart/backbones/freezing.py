"""Make a backbone one that is shipped: its graph, which runs without PyTorch."""

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen


def as_frozen(backbone: Backbone | Frozen) -> Frozen:
    """Return a backbone as shipped; exporting PyTorch's takes seconds."""
    if isinstance(backbone, Frozen):
        return backbone
    from headstart.backbones.graph import exported

    return exported(backbone)
