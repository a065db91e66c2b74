"""Turn a backbone into its shipped form, a graph that runs without PyTorch."""

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen


def as_frozen(backbone: Backbone | Frozen) -> Frozen:
    """Return a backbone in its shipped form; exporting one of PyTorch takes seconds."""
    if isinstance(backbone, Frozen):
        return backbone
    from headstart.backbones.graph import exported

    return exported(backbone)
