"""The registry of head families: the built-in ones, and those of packages and scripts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, get_type_hints

from numpy.typing import NDArray

from headstart.base.durations import spoken
from headstart.base.errors import SpecError, UnknownName
from headstart.base.extensions import Extensions
from headstart.heads.head import FeatureRows, Fitted, Head
from headstart.heads.specs import (
    HeadSpec,
    LinearSpec,
    LogisticSpec,
    MeanSpec,
    MlpSpec,
    NearestSpec,
    PyramidSpec,
    RidgeSpec,
    UsualSpec,
)
from headstart.targets.target import Link, Target

Fit = Callable[[Any, FeatureRows, FeatureRows], Fitted]  # (spec, training rows, validation rows)
Load = Callable[[Mapping[str, NDArray[Any]], Mapping[str, Any]], Head]


def _late(where: str) -> Any:
    """Return the function "module:name", imported when it is called: `--help` needs none."""

    def call(*args: Any) -> Any:
        module, _, name = where.partition(":")
        return getattr(import_module(module), name)(*args)

    return call


fit_head: Fit = _late("headstart.heads.fit:fit_head")
fit_mean: Fit = _late("headstart.heads.mean:fit_mean")
load_linear: Load = _late("headstart.heads.linear:load_linear")
load_mlp: Load = _late("headstart.heads.mlp:load_mlp")
load_given: Load = _late("headstart.heads.given:load_given")
load_module: Load = _late("headstart.heads.module:load_module")
load_nearest: Load = _late("headstart.heads.nearest:load_nearest")


@dataclass(frozen=True)
class HeadFamily:
    """One kind of head.

    spec: the class of its settings; `spec.family` is the registered name. load: rebuilds a head
    from its `tensors()` and `settings()`; a head's `kind` is the family that loads it. fit: fits a
    head without epochs; None if heads are trained by epochs, with the target's loss. links: `fit`
    can be called for targets with these links. targets: or only for targets of these kinds.
    residual_losses: `fit` minimises a target's `residual_loss`, too. weighs: `fit` uses what
    `FeatureRows.supervision` says, such as case weights.
    """

    spec: type[HeadSpec]
    load: Load
    fit: Fit | None = fit_head
    targets: tuple[str, ...] | None = None
    links: tuple[Link, ...] = ("softmax",)
    residual_losses: bool = False
    weighs: bool = False

    def __post_init__(self) -> None:
        if (self.fit is None) != self.spec.by_epochs:
            raise SpecError(
                f"A family of heads has a fit unless its spec is trained by epochs; "
                f"{self.spec.__name__} says by_epochs={self.spec.by_epochs}."
            )

    def supports(self, target: Target) -> bool:
        """Return whether the head can predict a target.

        It must read the outputs of a backbone that the target needs (`takes`). A family with
        `targets` predicts these alone; else heads trained by epochs predict any target.
        """
        if self.spec.takes != target.takes:
            return False
        if self.targets is not None:
            return target.kind in self.targets
        if self.fit is None:
            return True
        solved = target.solvable or (self.residual_losses and target.residual_loss is not None)
        return solved and target.link in self.links


HEADS: Extensions[HeadFamily] = Extensions("head", "heads")
LIMIT_S = 300.0  # seconds of one core; a slower head is reported before it is fitted
RARE = " (--class-weights balanced lets rare ones count more)"
PROBABLE: tuple[Link, ...] = ("softmax", "sigmoid", "cumulative")
HEADS.add("logistic", HeadFamily(LogisticSpec, load_linear, links=PROBABLE, weighs=True))
ANY_LINK: tuple[Link, ...] = (*PROBABLE, "identity")
RIDGE = HeadFamily(RidgeSpec, load_linear, links=ANY_LINK, residual_losses=True, weighs=True)
HEADS.add("ridge", RIDGE)
HEADS.add("nearest", HeadFamily(NearestSpec, load_nearest, links=ANY_LINK, weighs=True))
HEADS.add("mean", HeadFamily(MeanSpec, load_linear, fit_mean, weighs=True))
HEADS.add("linear", HeadFamily(LinearSpec, load_linear, None))
HEADS.add("mlp", HeadFamily(MlpSpec, load_mlp, None))
# It is shipped inside its network, after which nothing is fitted; `models.detection` trains it.
HEADS.add("pyramid", HeadFamily(PyramidSpec, load_given, None, targets=("boxes",)))


def load_head(kind: str, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Head:
    """Rebuild a head from its `kind`, `tensors()` and `settings()`.

    Raises UnknownName for an unknown kind, Mismatch for tensors that don't fit the kind.
    """
    if kind == "module":  # no name of a family: it needs a user's module
        return load_module(tensors, settings)
    if kind == "given":  # nor is this one: nothing is fitted
        return load_given(tensors, settings)
    try:
        family = HEADS[kind]
    except UnknownName as error:
        raise UnknownName("kind of head", kind, error.known) from error
    return family.load(tensors, settings)


def head_for(spec: HeadSpec, target: Target) -> tuple[HeadSpec, str]:
    """Return the head to use for a target, and why it is another than logistic, or "".

    If no head was named it is the first family in the table that can predict the target.
    """
    if not isinstance(spec, UsualSpec) or HEADS[spec.family].supports(target):
        return spec, ""
    family = next(name for name in HEADS.names() if HEADS[name].supports(target))
    known = target.link in HEADS[spec.family].links and not target.solvable
    lacking = "minimise the loss asked for" if known else f"predict {target.noun}"
    why = f"{family}, since logistic regression does not {lacking}"
    return spec_named(family, spec), why


def head_within(spec: HeadSpec, target: Target, rows: int, features: int) -> tuple[HeadSpec, str]:
    """Return the head to use for so many training rows, and a sentence on its time; "" if short.

    Past 5 minutes of one core the sentence names heads that take less; if no head was named, it is
    ridge then, whose time hardly depends on the number of classes.
    """
    seconds = spec.seconds(rows, features, target.outputs)
    if seconds < LIMIT_S:
        return spec, ""
    size = f"{rows:,} rows of {features:,} features and {target.outputs:,} outputs"
    slow = f"{spec.family} takes about {spoken(seconds)} of one core for {size}"
    if isinstance(spec, UsualSpec) and HEADS["ridge"].supports(target):
        return spec_named("ridge", spec), f"ridge, since {slow}; --head logistic asks for it"
    return spec, f"{slow}; --head ridge reads them once, and --head linear in small batches"


def check_supports(spec: HeadSpec, target: Target) -> None:
    """Raise SpecError for a head that cannot predict this kind of target."""
    if not _can_answer(spec, target):
        others = [name for name in HEADS.names() if HEADS[name].supports(target)]
        known = not spec.by_epochs and target.link in HEADS[spec.family].links
        if known and not target.solvable:
            raise SpecError(
                f"A {spec.family} head is solved for the usual loss of {target.noun}. Leave --loss "
                f"out{RARE if target.link != 'identity' else ''}, or name another --head: "
                f"{', '.join(others)}."
            )
        raise SpecError(
            f"The head must be one that can answer {target.noun}; {spec.family} cannot. Name "
            f"another --head: {', '.join(others)}."
        )
    if not target.accepts(spec.width(target.outputs)):
        raise SpecError(
            f"One logit (output=sigmoid) tells two classes apart; the data has {target.described}."
        )


def _can_answer(spec: HeadSpec, target: Target) -> bool:
    if spec.family not in HEADS.names():  # a module of a user's
        return spec.takes == target.takes
    return HEADS[spec.family].supports(target)


def solve_head(spec: HeadSpec, train: FeatureRows, val: FeatureRows) -> Fitted:
    """Fit a head of a family whose heads are not trained by epochs.

    Raises SpecError for case weights or probabilities that the family does not use.
    """
    family = HEADS[spec.family]
    assert family.fit is not None, f"a {spec.family} head is trained by epochs"
    if not (family.weighs or train.supervision.plain):
        raise SpecError(
            f"A {spec.family} head takes rows that count alike, under one label each; this data "
            f"has weights or probabilities. Leave the column out, or name --head logistic."
        )
    return family.fit(spec, train, val)


def spec_named(family: str, like: HeadSpec | None = None, **settings: Any) -> HeadSpec:
    """Return the spec of a family with these settings, and the settings that it shares with `like`.

    Raises UnknownName with the nearest family.
    """
    kind = HEADS[family].spec
    own, others = (get_type_hints(k, include_extras=True) for k in (kind, type(like)))
    names = [f.name for f in fields(kind)]
    shared = {n: getattr(like, n) for n in names if n in others and own[n] == others[n]}
    return kind(**(shared | settings))
