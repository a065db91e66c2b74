"""How examples of each kind of input are explained: a table, so that nothing above knows the kinds.

PyTorch is loaded only with an explainer: the report reads what was saved.
"""

from importlib import import_module
from typing import Any

from headstart.backbones.inputs import Input
from headstart.base.errors import MissingPackage, SpecError
from headstart.base.values import Record

# Modules with EFFORTS, by what `train --insights` names, and with `explain_run` and `count_of_run`
# of (run, model, sources, effort).
EXPLAINERS = {
    "image": "headstart.explaining.pixels.explaining",
    "text": "headstart.explaining.tokens.explaining",
}
ONE_BY_ONE = ("letterboxed image",)  # kinds that `headstart explain` alone explains
# What explained.json of a run holds: a `Record` with `rows`.
RECORDS = {
    "image": ("headstart.explaining.pixels.saved", "ExplainedRows"),
    "text": ("headstart.explaining.tokens.saved", "ExplainedTexts"),
}


def explaining(input: Input[Any]) -> Any:
    """Return the module that explains examples of this kind.

    Raises SpecError if there is none, MissingPackage without PyTorch.
    """
    if input.kind not in EXPLAINERS:
        raise SpecError(
            f"Answers are explained for models of {' and '.join(EXPLAINERS)}s; this one takes "
            f"{input.noun}."
        )
    try:
        return import_module(EXPLAINERS[input.kind])
    except ModuleNotFoundError as error:
        package = str(error.name)
        raise MissingPackage(package, purpose="Explaining answers", extra="train") from error


def saved_as(input: Input[Any] | None) -> type[Record]:
    """Return the class of the content of explained.json for a kind of input."""
    module, name = RECORDS.get(input.kind if input else "image", RECORDS["image"])
    found: type[Record] = getattr(import_module(module), name)
    return found
