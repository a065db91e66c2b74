"""Settings by name, as flags and keywords give them, put into the specs that hold them."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_origin, get_type_hints

import numpy as np

from headstart.backbones.views import UserViews
from headstart.base.cells import as_text
from headstart.base.errors import SpecError, UnknownName
from headstart.base.synonyms import IN_PYTHON, SETTINGS
from headstart.base.values import entry
from headstart.heads.families import HEADS, spec_named
from headstart.heads.specs import HeadSpec, UsualSpec
from headstart.modalities.images.augment import CHANGES, AutoViews, named_views

if TYPE_CHECKING:  # loads the sources of backbones, which predicting does not need
    from headstart.runs.job import Job

T = TypeVar("T")
SPECS = (
    "target",
    "recipe",
    "finetune",
    "augment",
    "trust",
    "split",
    "checks",
    "runtime",
)  # of a job


def with_settings(spec: T, settings: Mapping[str, Any]) -> T:
    """Return `spec` with the settings that are its fields; others are ignored.

    Raises SpecError, which names the setting, for a value of another type or out of range.

    >>> from headstart.data.splits import SplitPlan
    >>> with_settings(SplitPlan(), {"val": 0.2, "epochs": 5})
    SplitPlan(val=0.2, test=0.15, seed=0)
    """
    hints, given = get_type_hints(type(spec)), dict[str, Any]()
    for field in fields(spec):  # type: ignore[arg-type]
        if isinstance(head := getattr(spec, field.name), HeadSpec):
            given[field.name] = _head(head, settings)
        elif field.name in settings:
            given[field.name] = _value(settings, field.name, hints[field.name])
    both = "thaw_from" in hints  # each of the two resets the other
    if both and ("thaw" in given) != ("thaw_from" in given):
        given = {"thaw": "auto", "thaw_from": None} | given
    return replace(spec, **given)  # type: ignore[type-var]


def _head(spec: HeadSpec, settings: Mapping[str, Any]) -> HeadSpec:
    """Return a head's spec with its settings; `head` is the name of a family, or a spec."""
    from headstart.runs.job import setting_of_head

    family = settings.get("head", spec.family)
    if hasattr(family, "state_dict") and not isinstance(family, type):  # a torch.nn.Module
        from headstart.heads.module import ModuleSpec

        own: HeadSpec = ModuleSpec(module=family)
    elif isinstance(family, HeadSpec):
        own = family
    elif "head" not in settings or (family == spec.family and not isinstance(spec, UsualSpec)):
        own = spec
    else:
        own = spec_named(family, spec)
    hints, names = get_type_hints(type(own)), {f.name: setting_of_head(f.name) for f in fields(own)}
    return replace(
        own, **{n: _value(settings, s, hints[n]) for n, s in names.items() if s in settings}
    )


def _value(settings: Mapping[str, Any], name: str, hint: Any) -> Any:
    value = settings[name]
    value = value.item() if isinstance(value, np.generic) else value
    if name == "class_weights" and isinstance(value, Mapping):
        value = {as_text(label): weight for label, weight in value.items()}
    if name in ("thaw", "tta") and hint is str and type(value) is int:
        value = str(value)
    if name == "ordered" and isinstance(value, list | tuple):
        value = ",".join(map(as_text, value))
    if get_origin(hint) is tuple and not isinstance(value, list | tuple):
        value = (value,)  # hidden=64
    return entry({name: value}, name, hint)


def known_settings(job: "Job") -> set[str]:
    """Return the names that `job_with` takes: of the job, its specs, and heads' settings."""
    from headstart.runs.job import Job

    own = {f.name for f in fields(Job)} - {*SPECS, "source", "given", "parent"}
    own |= _settings_of(job.recipe.head)
    own |= _of_built_in_heads() | {"augment"}
    own |= CHANGES if isinstance(job.spec.views, AutoViews) else set()  # refused by name
    specs = [spec for name in SPECS if not isinstance(spec := getattr(job, name), UserViews)]
    return own.union(*({f.name for f in fields(spec)} for spec in specs))


def check_known(settings: Mapping[str, Any], known: set[str], what: str = "setting") -> None:
    """Raise UnknownName, with the nearest name, for a setting that is not known."""
    if unknown := sorted(settings.keys() - known):
        word = unknown[0].lower().replace("_", "-")
        ours = SETTINGS.get(word) or IN_PYTHON.get(word, "")
        usual = f"Here it is called {ours!r}." if ours else ""
        raise UnknownName(what, unknown[0], known, usual)


def job_with(job: "Job", settings: Mapping[str, Any], spelt: Callable[[str], str] = str) -> "Job":
    """Return the job with settings of its own and of its specs.

    spelt: how a message spells the name of a setting. Raises SpecError for a wrong value, and for
    a setting that this job would not read.
    """
    from headstart.runs.job import Job

    hints = get_type_hints(Job)
    own = {f.name for f in fields(Job)} - set(SPECS)
    specs = {name: getattr(job, name) for name in SPECS}
    specs["augment"] = _views_of(job, settings, spelt)
    job = replace(
        job,
        **{name: with_settings(spec, settings) for name, spec in specs.items()},
        **{n: _own(settings, n, hints[n]) for n in own & settings.keys()},
        given=tuple(sorted({*job.given, *settings})),
    )
    _refuse_idle(job, settings, spelt)
    return _with_rate_of_head(job, settings)


def _views_of(job: "Job", settings: Mapping[str, Any], spelt: Callable[[str], str]) -> Any:
    """Return the views that the word `augment` stands for, else those of the job."""
    word, named = settings.get("augment"), [spelt(n) for n in sorted(CHANGES & settings.keys())]
    own = job.spec.views
    if named and (word is not None or isinstance(own, AutoViews)):
        raise SpecError(
            f"{spelt('augment')} {word or 'auto'} and {named[0]} both say how pictures are "
            f"changed: leave one of them out."
        )
    if word is None:
        return own
    return named_views(str(word), AutoViews.views if isinstance(own, UserViews) else own.views)


def _own(settings: Mapping[str, Any], name: str, hint: Any) -> Any:
    return settings[name] if name == "store" else _value(settings, name, hint)


def _settings_of(head: HeadSpec) -> set[str]:
    from headstart.runs.job import setting_of_head

    own = {"module", "name", "weights", "repeatable"} if head.family == "module" else set()
    return {setting_of_head(f.name) for f in fields(head) if f.name not in own}


def _of_built_in_heads() -> set[str]:
    return set[str]().union(*(_settings_of(HEADS[name].spec()) for name in HEADS.built_in))


def _refuse_idle(job: "Job", settings: Mapping[str, Any], spelt: Callable[[str], str]) -> None:
    """Raise SpecError for a given setting that this job would not read."""
    if "resample" in settings and "resample" in job.idle():
        raise SpecError(
            f"Rows are drawn anew by what is trained by epochs, and a {job.recipe.head.family} "
            f"head is solved: name {spelt('class_weights')} balanced instead of "
            f"{spelt('resample')}."
        )
    if "draws" in settings and not job.shots:
        raise SpecError(
            f"{spelt('draws')} would change nothing: it counts the draws of {spelt('shots')}, "
            f"which is not asked for. Leave it out."
        )
    if job.folds and "test" in settings:
        raise SpecError(
            f"{spelt('folds')} judges every row and leaves no test part: leave {spelt('test')} out."
        )
    others = _of_built_in_heads() - _settings_of(job.recipe.head)
    others -= {f.name for f in fields(job.finetune)}
    others -= {"head_lr"} if job.strategy == "scratch" or job.tunes else set()
    idle = [spelt(name) for name in sorted({*job.idle(), *others}) if name in settings]
    if idle:
        how = f"{spelt('strategy')} {job.strategy}"
        owners = [spelt("head"), spelt("strategy")]
        if job.shots:
            how, owners = f"{spelt('shots')} {job.shots}", owners[:1]
        raise SpecError(
            f"{' and '.join(idle)} would change nothing, with {how} "
            f"and {spelt('head')} {job.recipe.head.family}: leave out what you don't need, or name "
            f"the {' or '.join(owners)} that it belongs to."
        )
    changes = [spelt(name) for name in sorted({*CHANGES, "views"} & settings.keys())]
    if job.idle_views and changes:
        raise SpecError(
            f"{' and '.join(changes)} would change nothing: the heads that {spelt('shots')} "
            f"compares learn from examples as they are. Leave such changes out."
        )
    if "views" in settings and not job.spec.views.active:
        raise SpecError(
            f"{spelt('views')} would change nothing: it counts augmented views, and no "
            f"augmentation is asked for. Add one, such as {spelt('flip')} horizontal, or leave it "
            f"out."
        )


def _with_rate_of_head(job: "Job", settings: Mapping[str, Any]) -> "Job":
    """Set the fine-tuning rate from `head_lr` for a head that has no learning rate itself."""
    if "head_lr" not in settings or job.recipe.head.by_epochs or job.finetune.lr:
        return job
    rate = settings["head_lr"] if job.strategy == "scratch" else settings["head_lr"] / 10
    return replace(job, finetune=replace(job.finetune, lr=rate))
