"""What a person chooses of training: the two recipes, as values that any file can keep."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from headstart.backbones.backbone import Backbone
from headstart.backbones.views import NoChange, ViewSpec
from headstart.base.errors import SpecError
from headstart.features.extract import Precision
from headstart.heads.head import HeadSpec, check_word
from headstart.modalities.images.inputs import Fit
from headstart.training.plan import Plan


@dataclass(frozen=True)
class FeatureExtraction(HeadSpec):
    """A head on a frozen backbone: every choice that can change the result."""

    fit: Annotated[
        Fit | Literal["card"],
        "how a picture becomes a square; card is as the backbone was trained; don't crop where "
        "edges matter",
    ] = "card"
    draft: Annotated[bool, "decode large JPEGs at a fraction of their size"] = True
    size: Annotated[int, "side of the square, in pixels; 0 is as the backbone was trained"] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fit not in ("card", *get_args(Fit)):
            raise SpecError(f"fit is one of card, {', '.join(get_args(Fit))}; got {self.fit!r}.")
        if self.size and not 32 <= self.size <= 2048:
            raise SpecError(f"size is from 32 to 2048 pixels, or 0; got {self.size}.")

    def resolved(self, backbone: Backbone) -> "FeatureExtraction":
        """The same recipe with "card" replaced by what this backbone's card says."""
        own = self.prepared(backbone).card.input
        return replace(self, **{n: getattr(own, n) for n in ("fit", "size") if hasattr(own, n)})

    def prepared(self, backbone: Backbone) -> Backbone:
        """The backbone with its preprocessing as the recipe wants it."""
        asked = {"fit": self.fit != "card", "size": self.size > 0, "draft": not self.draft}
        own = backbone.card.input
        wanted = {n: getattr(self, n) for n, chosen in asked.items() if chosen}
        if hasattr(own, "draft"):
            wanted["draft"] = self.draft
        changed = backbone.changed(**wanted)
        if self.size:
            _check_size(backbone, changed, self.size)
        return changed


def _check_size(backbone: Backbone, changed: Backbone, size: int) -> None:
    """Raises SpecError if the network can't be given examples of the size in `changed`."""
    import torch

    from headstart.backbones.entry import blank_for_network

    own = getattr(backbone.card.input, "size", 0)
    if backbone.card.architecture.startswith("keras:") and size != own:
        raise SpecError(
            f"A Keras network is built for one size, which its name tells: "
            f"--backbone {backbone.card.name.partition('@')[0]}@{size}."
        )
    try:
        with torch.inference_mode():
            backbone.module(blank_for_network(changed.card.input, 1))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise SpecError(
            f"{backbone.card.name} can't be given {size} pixels, being built for "
            f"{own}: leave --size out, or name another --backbone."
        ) from error


@dataclass(frozen=True)
class FineTune(Plan):
    """The second phase: every choice that can change the result."""

    thaw: Annotated[
        str,
        "layers that learn: a number of blocks from the top, all, none; or a name or pattern of "
        "blocks, layers or parameters; auto is the upper half of the blocks, or all where "
        "training is adversarial",
    ] = "auto"
    thaw_from: Annotated[
        int | None,
        "instead, all layers from this one on, counted as Keras counts them; below 0 from the top",
    ] = None
    dropout: Annotated[float, "share of the head's inputs that are dropped in training"] = 0.0
    wise: Annotated[
        bool,
        "average the weights before and after fine-tuning, the share chosen on validation "
        "(Wortsman et al. 2022)",
    ] = False
    cut_precision: Annotated[
        Literal["auto", "float32", "float16"],
        "precision of the stored activations; auto is float16 beyond 1 GiB",
    ] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thaw_from is not None and self.thaw != "auto":
            raise SpecError(
                f"What is thawed is said once; got thaw={self.thaw!r} and "
                f"thaw_from={self.thaw_from}. Leave one of them out."
            )
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is a share from 0 to below 1; got {self.dropout}.")
        check_word("precision", self.cut_precision, ("auto", *get_args(Precision)))

    @property
    def thaws(self) -> bool:
        """Whether anything of the backbone is to learn."""
        return self.thaw not in ("none", "0")

    def resolved(self, backbone: Backbone, head_lr: float) -> "FineTune":
        """The same with "auto" and 0 replaced by what they come to."""
        thaw = self.thaw
        if thaw == "auto":
            usual = "all" if self.adversarial else str(max(1, len(backbone.blocks) // 2))
            thaw = "" if self.thaw_from is not None else usual
        return replace(self, thaw=thaw or "auto", lr=self.lr or head_lr / 10)

    def from_scratch(self, head_lr: float) -> "FineTune":
        """The same schedule for a network that starts from nothing: all of it learns, norms too."""
        return replace(
            self, thaw="all", thaw_from=None, lr=self.lr or head_lr, norms="trained", wise=False
        )


@dataclass(frozen=True)
class TwoPhaseSpec:
    """A head on a frozen backbone, then fine-tuning from it: every choice that can change a result.

    head: the first phase. finetune: the second one, or None. views: what training examples are
    changed into. keep: the better of both on validation, or the phase of this name.
    """

    head: FeatureExtraction = FeatureExtraction()
    finetune: FineTune | None = FineTune()
    views: ViewSpec = NoChange()
    keep: Literal["best", "head", "finetune"] = "best"

    def __post_init__(self) -> None:
        check_word("keep", self.keep, ("best", "head", "finetune"))

    @property
    def same_views(self) -> bool:
        """Whether both phases draw the same views, so that they are extracted once."""
        return self.finetune is None or self.head.seed == self.finetune.seed


# The tutorials' schedule for a network that starts from nothing.
SCRATCH = FineTune(
    thaw="all",
    epochs=10,
    batch_size=64,
    optimizer="adam",
    lr=1e-3,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.0,
    keep="last",
)
