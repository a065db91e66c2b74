"""Read the settings of a run from a recipe.json, which may hold only some of the keys."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import weights_asked
from headstart.backbones.views import UserViews
from headstart.base.errors import HeadstartError, SpecError, UnknownName
from headstart.base.values import entry, from_plain, read_json, to_plain
from headstart.modalities.images.augment import AutoViews
from headstart.models.specs import FeatureExtraction, recipe_from_plain
from headstart.runs.job import Job

SPECS = ("target", "recipe", "finetune", "augment", "trust", "split", "checks")
CHOICES = ("backbone", "baseline", "tta", "data_licence", "language", "insights")
COUNTS = ("folds", "shots", "draws", "members")  # whole numbers
NAMED = "head_named"  # true if the head was given, which is the usual one all the same
TIME = "budget"  # of a run it is a record: its settings are those that were planned
ASKED = ("strategy", "weights")  # a string, or a dict with the string and the run's result
# Keys that a run records beside its settings.
RECORDED = ("chosen", "tried", "seed", "device", "phases", "versions")
SEARCHES = ("backbone_search", "view_search")  # and tables of what it chose by itself


def read_config(path: Path, job: Job | None = None) -> Job:
    """Read a job from a recipe.json or a run folder; keys that are missing keep `job`'s values.

    Raises SpecError for a file that is missing or is no recipe.
    """
    file = path / "recipe.json" if path.is_dir() else path
    try:
        plain = read_json(file)
        if not isinstance(plain, dict):
            raise SpecError(f"there must be a JSON object in it; got a {type(plain).__name__}.")
        found = _job(plain, job or Job())
        return replace(found, parent=str(file.resolve().parent)) if "phases" in plain else found
    except OSError as error:
        raise SpecError(f"There is no config {file}: {error.strerror}. Check the path.") from error
    except (HeadstartError, TypeError) as error:
        raise SpecError(f"{file}: {error}") from error


def _job(plain: dict[str, Any], job: Job) -> Job:
    known = {*SPECS, *CHOICES, *COUNTS, *ASKED, TIME, NAMED, "data", "refit"}
    if unknown := sorted(plain.keys() - known - {*RECORDED, *SEARCHES}):
        raise UnknownName("setting", unknown[0], known)
    own = {name: plain[name] for name in CHOICES if name in plain}
    own |= {name: _asked(plain[name], name) for name in ASKED if name in plain}
    counts = {name: entry(plain, name, int) for name in COUNTS if name in plain}
    specs = {name: _spec(getattr(job, name), plain[name]) for name in SPECS if plain.get(name)}
    if TIME in plain and "phases" not in plain:
        counts[TIME] = entry(plain, TIME, float | str)
    if NAMED in plain and entry(plain, NAMED, bool):
        job = replace(job, given=tuple(sorted({*job.given, "head"})))
    if "data" in plain:
        own["source"] = plain["data"]
    if wrong := [name for name, value in own.items() if not isinstance(value, str)]:
        raise SpecError(f"{wrong[0]} is a text; got {own[wrong[0]]!r}.")
    if "phases" in plain and "refit" not in plain:  # a run of a version that knew neither
        recipe = specs.get("recipe", job.recipe)
        specs["recipe"] = replace(recipe, choose="validation")
        return replace(job, **own, **counts, **specs, refit=False)
    refit = plain.get("refit", job.refit)
    if not isinstance(refit, bool):
        raise SpecError(f"refit is true or false; got {refit!r}.")
    return replace(job, **own, **counts, **specs, refit=refit)


def _asked(value: Any, name: str) -> Any:
    """Return the requested string, also from a run's record.

    Earlier versions recorded the card's description of the weights, under the key `from`.
    """
    if not isinstance(value, dict):
        return value
    words = value.get("from", value)
    return value.get("asked", weights_asked(words) if isinstance(words, str) else words)


def _spec(usual: Any, given: Any) -> Any:
    """Return `usual` with the given settings; raises UnknownName for an unknown setting."""
    kind = type(usual)
    if not isinstance(given, dict):
        raise SpecError(f"{kind.__name__} is a JSON object; got {given!r}.")
    if given.get("kind") == UserViews.__name__:
        return from_plain(given, UserViews)  # raises SpecError: no file holds the function
    if given.get("kind") == AutoViews.__name__:
        return from_plain(given, AutoViews)
    if isinstance(usual, FeatureExtraction):
        return recipe_from_plain(given, usual)
    names = {f.name for f in fields(usual)}
    if unknown := sorted(given.keys() - names - {"kind"}):
        raise UnknownName(f"setting of {kind.__name__}", unknown[0], names)
    return from_plain({**to_plain(usual), **given}, kind)
