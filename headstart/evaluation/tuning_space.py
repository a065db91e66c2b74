"""The settings of fine-tuning that `headstart search --trials` tries, and between which values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from headstart.base.errors import SpecError
from headstart.models.specs import FineTune

Setting = int | float
Scale = Literal["log", "linear", "whole", "choice"]


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched. values: its least and largest; of a choice, all of them."""

    name: str
    scale: Scale
    values: tuple[Setting, ...]

    def nearest(self, value: Setting) -> Setting:
        """Return the value of the dimension that is nearest to another one."""
        if self.scale == "choice":
            return min(self.values, key=lambda own: abs(own - value))
        return min(max(value, self.values[0]), self.values[1])

    def rounded(self, value: Setting) -> Setting:
        """Return a drawn value as a trial takes it: with three significant digits."""
        return value if self.scale in ("whole", "choice") else float(f"{value:.3g}")

    def __str__(self) -> str:
        shown = [f"{value:g}" for value in self.values]
        name = self.name.replace("_", " ")
        if self.scale == "choice":
            return f"{name} {', '.join(shown)}"
        return f"{name} {shown[0]} to {shown[1]}{' (log)' if self.scale == 'log' else ''}"


@dataclass(frozen=True)
class TuningSpace:
    """Between which values each setting of fine-tuning is searched; one value fixes it.

    >>> print(TuningSpace(lr=(1e-4, 1e-3), ema=(0.0,)).dimensions(blocks=8)[0])
    lr 0.0001 to 0.001 (log)
    """

    lr: Annotated[tuple[float, ...], "least and largest learning rate; one value fixes it"] = (
        1e-5,
        1e-2,
    )
    epochs: Annotated[tuple[int, ...], "least and largest number of passes"] = (3, 15)
    weight_decay: Annotated[tuple[float, ...], "least and largest strength of weight decay"] = (
        1e-4,
        0.3,
    )
    label_smoothing: Annotated[
        tuple[float, ...], "least and largest share of labels that is spread; not of numbers"
    ] = (0.0, 0.2)
    thaw: Annotated[
        tuple[int, ...],
        "least and largest number of blocks that learn; without it 1 to half of them",
    ] = ()
    dropout: Annotated[
        tuple[float, ...], "least and largest share of the head's inputs that are dropped"
    ] = (0.0, 0.5)
    layer_decay: Annotated[
        tuple[float, ...], "least and largest learning rate of a block, as a share of the next one"
    ] = (0.5, 1.0)
    ema: Annotated[
        tuple[float, ...], "all decays of the average of the weights to try; 0 is no average"
    ] = (0.0, 0.9, 0.99)

    def __post_init__(self) -> None:
        for name, values in self._given():
            if not values and name != "thaw":
                raise SpecError(f"{name} is one value or several; got none.")
            if name != "ema" and (len(values) > 2 or list(values) != sorted(values)):
                raise SpecError(
                    f"{name} is searched from a least to a largest value, or fixed by one; got "
                    f"{' '.join(f'{value:g}' for value in values)}."
                )
            for value in values:
                _check(name, value)

    def dimensions(self, blocks: int, *, smooths: bool = True) -> tuple[Dimension, ...]:
        """Return what is searched for a backbone with so many blocks, in the order of drawing.

        smooths: whether the target's labels can be smoothed. Raises SpecError for more blocks to
        thaw than there are.
        """
        own = replace(self, thaw=self.thaw or (1, max(1, blocks // 2)))
        if own.thaw[-1] > blocks:
            raise SpecError(
                f"The backbone has {blocks} blocks to thaw, and thaw goes up to {own.thaw[-1]}. "
                f"Name a smaller number."
            )
        searched = [(name, values) for name, values in own._given() if len(set(values)) > 1]
        return tuple(
            Dimension(name, _scale(name, values[0]), values)
            for name, values in searched
            if smooths or name != "label_smoothing"
        )

    def fixed(self, *, smooths: bool = True) -> dict[str, Setting]:
        """Return the settings that have one value."""
        found = {name: values[0] for name, values in self._given() if len(set(values)) == 1}
        return {n: value for n, value in found.items() if smooths or n != "label_smoothing"}

    def _given(self) -> Iterator[tuple[str, tuple[Setting, ...]]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))


def tuned_by(settings: Mapping[str, Setting], usual: FineTune | None = None) -> FineTune:
    """Return the spec of fine-tuning with settings of a space; others stay as in `usual`."""
    given = {name: str(value) if name == "thaw" else value for name, value in settings.items()}
    return replace(usual or FineTune(), **given)  # type: ignore[arg-type]


def settings_of(spec: FineTune) -> dict[str, Setting]:
    """Return the settings of a resolved spec that a space searches.

    Layers that are named by no number of blocks are left out.
    """
    found = {field.name: getattr(spec, field.name) for field in fields(TuningSpace)}
    thaw = found.pop("thaw")
    return found | ({"thaw": int(thaw)} if thaw.isdecimal() else {})


def _check(name: str, value: Setting) -> None:
    """Raise SpecError for a value that fine-tuning does not take."""
    if name in ("lr", "thaw") and value <= 0:
        raise SpecError(f"{name} is searched above 0; got {value:g}.")
    tuned_by({name: value})


def _scale(name: str, least: Setting) -> Scale:
    if name in ("epochs", "thaw"):
        return "whole"
    if name == "ema":
        return "choice"
    return "log" if name in ("lr", "weight_decay") and least > 0 else "linear"
