"""`explain` for models of every kind of input, each by its own explainer."""

from importlib import import_module
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import card_from_plain
from headstart.base.errors import HeadstartError
from headstart.base.listener import Listener
from headstart.base.paths import user_path
from headstart.base.runtime import Device
from headstart.base.store import USUAL, Store
from headstart.base.values import read_json
from headstart.data.dataset import Dataset
from headstart.explainer import BEST, AnyFiles, AnyModel, Asked, Explainer, Results, all_of
from headstart.in_python import as_listener, as_store, run_folder, speaks_python, tell_left_out
from headstart.modalities.reading import find
from headstart.modalities.sources import load_backbone
from headstart.models.model import Model
from headstart.models.results import FitResult
from headstart.runs.run import Run

MAKERS = {  # of explainers, by the kind of input
    "image": ("headstart.pixels", "PictureExplainer"),
    "text": ("headstart.texts", "TextExplainer"),
    "letterboxed image": ("headstart.boxes", "BoxExplainer"),
}


@speaks_python
def explain(
    model: AnyModel,
    files: AnyFiles | None = None,
    *,
    class_name: str | None = None,
    method: str = BEST,
    out: str | Path | None = None,
    data: str | Path | None = None,
    store: Store | str | Path | None = USUAL,
    device: Device = "auto",
    listener: Listener | None = None,
) -> "Results[Any]":
    """Explain why examples get an answer: pictures by maps, texts by marked words.

    model: the folder of a run or bundle, a `Model`, a `Backbone`, or the name of a pretrained one.
    files: a path or several, or examples in memory; None explains the worst mistakes of a run and a
        few of its right answers.
    class_name: the class or label to explain; None for the one that the model predicts.
    method: of pictures, how maps are made; best tries several and keeps the one whose deletion
        curve falls soonest.
    out: a folder for a file per example. data: where a run's examples are now. store: for features
        of its training examples. device: "auto" takes an accelerator if there is one.

    Returns an explanation per example, with `score`, `deletion` and `nearest`: an `Explanation` of
    a picture has `map.values` (h, w) float32, a `TextExplanation` has `words`, with what each adds.
    Examples that can't be read are reported to `listener.stage("left out", …)`. Raises DataError if
    none can be read, UnknownName for an unknown class or method, SpecError for other models.

    >>> (why,) = explain("runs/flowers", "photo.jpg")  # doctest: +SKIP
    >>> why.save("why.png")  # doctest: +SKIP
    """
    listener = as_listener(listener)
    place = None if data is None else user_path(data)
    asked = Asked(class_name, method, place, as_store(store), device)
    explainer = explainer_of(model, asked, listener)
    folder = None if out is None else user_path(out)
    if files is None:
        return all_of(explainer.of_run(folder), "explain", listener, (), explainer.noun)
    rows, left_out = (
        (files, ()) if isinstance(files, Dataset) else find(files, input=explainer.input)
    )
    tell_left_out(left_out, listener)
    return all_of(explainer.of_files(rows, folder), "explain", listener, left_out, explainer.noun)


def explainer_of(
    given: AnyModel, asked: Asked, listener: Listener, name: str = ""
) -> Explainer[Any]:
    """Return the explainer for a model's kind of input. name: for messages, by default its own."""
    if isinstance(given, str) and ":" in given and not user_path(given).exists():
        given = load_backbone(given)
    module, maker = MAKERS.get(_kind_of(given), MAKERS["image"])  # which refuses other kinds
    found: Explainer[Any] = getattr(import_module(module), maker).open(given, asked, listener, name)
    return found


def _kind_of(given: AnyModel) -> str:
    """Return the kind of a model's input; "" for a folder whose card can't be read."""
    if isinstance(given, FitResult):
        given = given.model
    if isinstance(given, Model):
        given = given.backbone  # type: ignore[assignment]
    if not isinstance(given, str | Path | Run):
        return given.card.input.kind  # type: ignore[union-attr]
    folder = run_folder(given)
    path = folder / "model" / "card.json"
    try:
        return card_from_plain(
            read_json(path if path.is_file() else folder / "card.json")
        ).input.kind
    except (OSError, ValueError, HeadstartError):
        return ""
