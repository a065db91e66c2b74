"""The specs of training: feature extraction, fine-tuning, and both."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from headstart.backbones.backbone import Backbone
from headstart.backbones.frozen import Frozen
from headstart.backbones.views import NoChange, ViewSpec
from headstart.base.context import Precision
from headstart.base.errors import SpecError, UnknownName
from headstart.base.listener import Listener
from headstart.base.values import check_seed, from_plain, later, to_plain
from headstart.heads.families import HEADS, fit_head, head_for, head_within, spec_named
from headstart.heads.head import MOST, check_word
from headstart.heads.specs import HEAD_LR, HeadSpec, UsualSpec
from headstart.modalities.images.inputs import Fit
from headstart.targets.target import Target
from headstart.training.plan import Plan

Choose = Literal["auto", "folds", "validation"]
MOST_MEMBERS = 100  # fine-tunings of an ensemble
ENOUGH = 1000  # rows of validation from which on they choose a setting as well as folds do
AnyBackbone = TypeVar("AnyBackbone", bound=Backbone | Frozen)


@dataclass(frozen=True)
class FeatureExtraction:
    """A head on a frozen backbone: every choice that can change the result.

    head: the spec of a family; the family's name means its default settings.
    """

    head: Annotated[
        HeadSpec,
        "logistic, ridge and nearest are solved, linear and mlp trained by epochs; ridge is ridge"
        " regression, nearest the nearest neighbours; the strength of what is solved is chosen on"
        " validation",
    ] = UsualSpec()
    seed: Annotated[int, "random seed; of the split, the start and the order of rows"] = 0
    fit: Annotated[
        Fit | Literal["card"],
        "how a picture becomes a square; card is as the backbone was trained; don't crop where "
        "edges matter",
    ] = "card"
    draft: Annotated[bool, "decode large JPEGs at a fraction of their size"] = True
    size: Annotated[int, "side of the square, in pixels; 0 is as the backbone was trained"] = 0
    choose: Annotated[
        Choose,
        "rows by which the strength of a solved head is chosen: folds of all rows outside the "
        "test part, or validation alone; auto takes folds below 1,000 rows of validation",
    ] = field(default="auto", kw_only=True, metadata=later())

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if isinstance(self.head, str):
            object.__setattr__(self, "head", spec_named(self.head))
        if not isinstance(self.head, HeadSpec):
            raise SpecError(
                f"head is the spec of a head, such as LinearSpec(epochs=5); got {self.head!r}."
            )
        if self.fit not in ("card", *get_args(Fit)):
            raise SpecError(f"fit is one of card, {', '.join(get_args(Fit))}; got {self.fit!r}.")
        check_word("choose", self.choose, get_args(Choose))
        if self.size and not 32 <= self.size <= 2048:
            raise SpecError(f"size is from 32 to 2048 pixels, or 0; got {self.size}.")

    def for_target(self, target: Target, listener: Listener) -> "FeatureExtraction":
        """Return the spec with a head that can predict the target, if none was named."""
        head, why = head_for(self.head, target)
        if why:
            listener.stage("head", why)
        return replace(self, head=head)

    def for_rows(
        self, target: Target, rows: int, features: int, listener: Listener
    ) -> "FeatureExtraction":
        """Return the spec with a head that so many training rows leave time for, if none was named;
        the listener hears of one that takes long."""
        head, why = head_within(self.head, target, rows, features)
        if why:
            listener.stage("head", why)
        return replace(self, head=head)

    @property
    def head_lr(self) -> float:
        """The head's learning rate, or HEAD_LR if solved; fine-tuning's default derives from it."""
        return float(getattr(self.head, "lr", HEAD_LR))

    def by_folds(self, validation: int) -> bool:
        """Return whether folds choose the head's setting, with so many rows of validation."""
        few = 0 < validation < ENOUGH
        asked = self.choose == "folds" or (self.choose == "auto" and few)
        return asked and self.chooses

    @property
    def chooses(self) -> bool:
        """Whether the head has a setting that folds can choose, as solved heads but `mean` have."""
        return not self.head.by_epochs and HEADS[self.head.family].fit is fit_head

    def resolved(self, backbone: Backbone | Frozen) -> "FeatureExtraction":
        """Return the spec with "card" replaced by the settings of the backbone's card."""
        own = self.prepared(backbone).card.input
        return replace(self, **{n: getattr(own, n) for n in ("fit", "size") if hasattr(own, n)})

    def prepared(self, backbone: AnyBackbone) -> AnyBackbone:
        """Return the backbone with the spec's preprocessing.

        Raises SpecError for a size that the network can't take, MissingPackage for one that an
        exported graph was not made for.
        """
        asked = {"fit": self.fit != "card", "size": self.size > 0, "draft": not self.draft}
        own = backbone.card.input
        wanted = {n: getattr(self, n) for n, chosen in asked.items() if chosen}
        if hasattr(own, "draft"):
            wanted["draft"] = self.draft
        changed = cast(AnyBackbone, backbone.changed(**wanted))
        if self.size and isinstance(backbone, Backbone) and isinstance(changed, Backbone):
            _check_size(backbone, changed, self.size)
        return changed


# Head settings that older specs held directly, before each family had a spec.
FLAT = {
    *("class_weights", "l2", "neighbours", "hidden", "dropout", "output", "head_epochs"),
    *("head_lr", "head_optimizer", "head_batch_size", "head_keep"),
}


def recipe_from_plain(
    plain: Mapping[str, Any], usual: FeatureExtraction | None = None
) -> FeatureExtraction:
    """Rebuild a spec from `to_plain` or from some of its keys; missing ones stay as in `usual`.

    `plain` may hold settings of the head directly, as files of earlier versions do. Raises
    UnknownName for an unknown head or setting.
    """
    usual = usual or FeatureExtraction()
    own = {f.name for f in fields(FeatureExtraction)}
    if unknown := sorted(plain.keys() - own - FLAT - {"kind"}):
        raise UnknownName("setting of FeatureExtraction", unknown[0], own)
    flat = {k.removeprefix("head_"): v for k, v in plain.items() if k in FLAT}
    head = usual.head
    if "head" in plain or flat:
        head = _head_from_plain(plain.get("head", usual.head.family), usual.head, flat)
    rest = {k: v for k, v in plain.items() if k in own | {"kind"}}
    whole = {**to_plain(usual), **rest, "head": to_plain(head)}
    return cast(FeatureExtraction, from_plain(whole, FeatureExtraction, type(head)))


def _head_from_plain(given: Any, usual: HeadSpec, flat: Mapping[str, Any]) -> HeadSpec:
    """Rebuild a head's spec from its family name and flat settings, or from its own dict."""
    if isinstance(given, Mapping):
        kinds = {HEADS[name].spec.__name__: HEADS[name] for name in HEADS.names()}
        kind = str(given.get("kind", type(usual).__name__))
        if kind == "ModuleSpec":
            from headstart.heads.module import ModuleSpec

            return from_plain(dict(given), ModuleSpec)  # raises SpecError: no file holds the module
        if kind not in kinds:
            raise UnknownName("kind of head", kind, kinds)
        given, flat = kinds[kind].spec.family, {k: v for k, v in given.items() if k != "kind"}
        names = set(flat)
    else:
        names = {f.name for f in fields(HEADS[str(given)].spec)}  # ignore other families' settings
    spec = spec_named(str(given), usual)
    settings = {k: v for k, v in flat.items() if k in names}
    return from_plain({**to_plain(spec), **settings}, type(spec))


def _check_size(backbone: Backbone, changed: Backbone, size: int) -> None:
    """Raise SpecError if the network can't take examples of the size in `changed`."""
    import torch

    from headstart.backbones.entry import blank_for_network

    own = getattr(backbone.card.input, "size", 0)
    if backbone.card.architecture.startswith("keras:") and size != own:
        raise SpecError(
            f"A Keras network is built for one size, which its name tells: "
            f"--backbone {backbone.card.name.partition('@')[0]}@{size}."
        )
    if backbone.card.architecture.startswith("wrapped:") and size != own:
        raise SpecError(
            f"{backbone.card.name} was wrapped for {own} pixels: wrap the module again with "
            f"size={size}, or leave size out of the recipe."
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
    lora: Annotated[
        int,
        "rank of adapters on the projections of attention in the thawed layers, which learn in "
        "place of these layers (Hu et al. 2022); 0 is none",
    ] = 0
    lora_alpha: Annotated[
        float, "the adapters' result is scaled by this over their rank; 0 is twice the rank"
    ] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thaw_from is not None and self.thaw != "auto":
            raise SpecError(
                f"thaw and thaw_from exclude each other; got thaw={self.thaw!r} and "
                f"thaw_from={self.thaw_from}. Leave one of them out."
            )
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is a share from 0 to below 1; got {self.dropout}.")
        check_word("precision", self.cut_precision, ("auto", *get_args(Precision)))
        if not (0 <= self.lora <= MOST and 0 <= self.lora_alpha <= MOST):
            raise SpecError(
                f"lora and lora_alpha are 0 or more, up to {MOST:,}; got {self.lora} and "
                f"{self.lora_alpha}."
            )
        if self.lora_alpha and not self.lora:
            raise SpecError("lora_alpha scales adapters: give their rank too, as with --lora 8.")

    @property
    def thaws(self) -> bool:
        """Whether any backbone layer is trained."""
        return self.thaw not in ("none", "0")

    def resolved(self, backbone: Backbone, head_lr: float) -> "FineTune":
        """Return the spec with "auto" and 0 replaced by their values."""
        thaw = self.thaw
        if thaw == "auto":
            usual = "all" if self.adversarial else str(max(1, len(backbone.blocks) // 2))
            thaw = "" if self.thaw_from is not None else usual
        return replace(self, thaw=thaw or "auto", lr=self.lr or head_lr / 10)

    def from_scratch(self, head_lr: float) -> "FineTune":
        """Return the schedule for training from random weights: everything learns, norms too."""
        whole = replace(self, thaw="all", thaw_from=None, norms="trained", wise=False)
        return replace(whole, lr=self.lr or head_lr, lora=0, lora_alpha=0.0)


@dataclass(frozen=True)
class TwoPhaseSpec:
    """A head on a frozen backbone, then fine-tuning: every choice that can change a result.

    head: the first phase. finetune: the second phase, or None. views: augmentation of the training
    examples. keep: "best" on validation, or the phase to keep. tta: test-time views, whose mean
    features stand for an example: "none", a number of them, or "auto", where validation gains.
    refit: fit what was kept again on the rows of training and validation together. members:
    how often to fine-tune from the same head, with seeds counted from that of `finetune`; their
    average is a candidate, too.
    """

    head: FeatureExtraction = FeatureExtraction()
    finetune: FineTune | None = FineTune()
    views: ViewSpec = NoChange()
    keep: Literal["best", "head", "finetune"] = "best"
    tta: str = field(default="none", metadata=later())
    refit: bool = field(default=True, kw_only=True, metadata=later())
    members: int = field(default=1, kw_only=True, metadata=later())

    def __post_init__(self) -> None:
        check_word("keep", self.keep, ("best", "head", "finetune"))
        check_tta(self.tta)
        check_members(self.members, self.finetune)

    @property
    def same_views(self) -> bool:
        """Whether both phases draw the same views, which are then extracted once."""
        return self.finetune is None or self.head.seed == self.finetune.seed


def check_tta(tta: str) -> None:
    """Raise SpecError unless `tta` is none, auto, or a number of views from 2 up."""
    if tta not in ("none", "auto") and not (tta.isdecimal() and 2 <= int(tta) <= MOST):
        raise SpecError(f"tta is none, auto, or a number of views from 2 up; got {tta!r}.")


def check_members(members: int, finetune: FineTune | None) -> None:
    """Raise SpecError for a number of fine-tunings that cannot be averaged."""
    if not 1 <= members <= MOST_MEMBERS:
        raise SpecError(
            f"An ensemble is of 2 to {MOST_MEMBERS} fine-tunings, and members=1 is none; got "
            f"{members}."
        )
    if members > 1 and finetune is None:
        raise SpecError(
            "An ensemble is of fine-tunings with several seeds, and this trains no layers: leave "
            "the ensemble out, or let layers learn (strategy auto or finetune)."
        )
    if members > 1 and finetune is not None and finetune.adversarial:
        raise SpecError(
            "An ensemble is chosen by its answers to clean pictures, which is not what adversarial "
            "training is for: leave one of the two out."
        )


# The tutorials' schedule for a network with random weights.
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
