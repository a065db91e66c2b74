"""Section: how the model was made: settings, versions, machine, times and licences."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from headstart.base.engine_choice import EngineChoice
from headstart.base.values import Settings
from headstart.reporting.blocks import Bar, Heading, PageBlock, TableBlock, Text
from headstart.reporting.facts import Facts
from headstart.reporting.run_files import WeightsOrigin
from headstart.reporting.words import Words, code, data

SETTINGS = ("recipe", "finetune", "augment", "trust", "split", "checks")  # the specs in recipe.json
LONGEST = 120  # characters shown of a setting


def how_section(facts: Facts, w: Words) -> list[PageBlock]:
    specs = {name: getattr(facts.recipe, name) for name in SETTINGS}
    return [
        _summary(facts, w),
        *(Heading(w("how.time")), _times(facts, w)),
        *(Heading(w("how.settings")), Text(w("how.settings_note"), "note")),
        *(
            _settings(w, spec.values, "how.setting", w("how.spec." + name))
            for name, spec in specs.items()
            if spec and spec.values
        ),
        *(Heading(w("how.versions")), _settings(w, facts.recipe.versions, "how.package")),
    ]


def _summary(facts: Facts, w: Words) -> TableBlock:
    recipe, card, timings = facts.recipe, facts.card, facts.timings
    peak = timings.peak_rss_bytes
    values: dict[str, Any] = {
        "backbone": recipe.backbone,
        "weights": _weights(recipe.weights, w),
        "fingerprint": recipe.weights.fingerprint,
        "licence": card.licence if card else "",
        "source_task": card.source_task if card else "",
        "data": recipe.data,
        **{name: value for name, value in _made(facts).items() if value},
        "data_licence": recipe.data_licence,
        "kept": w.named("phase", facts.evaluation.kept),
        **({"tta": _test_views(facts, w)} if recipe.tta != "none" else {}),
        **({"members": _members(facts, w)} if recipe.members > 1 else {}),
        "learned_from": w("how.of_both" if recipe.strategy.refitted else "how.of_train"),
        "seed": str(recipe.seed),
        "device": recipe.device,
        "engine": _engine(timings.engine, w),
        "machine": timings.machine,
        "memory": w("how.gb", v=w.number(peak / 1e9, 1)) if peak else "",
    }
    rows = [[w("how." + key), _known(value, w)] for key, value in values.items()]
    return TableBlock([w("how.what"), w("how.value")], rows, left=(0, 1))


def _made(facts: Facts) -> dict[str, str]:
    """Return what the run came from, in full; empty for a run of an earlier version."""
    made = facts.timings.made
    origins = {"data_sha256": made.data_sha256, "commit": made.commit, "parent": made.parent}
    return {name: code(value) if value else "" for name, value in origins.items()}


def _engine(engine: EngineChoice | None, w: Words) -> str:
    """Describe what computed the features; runs of earlier releases did not record it."""
    if engine is None:
        return ""
    if engine.rate is None:
        return engine.name
    return w("how.engine_rate", engine=engine.name, rate=w.number(engine.rate, 0))


def _test_views(facts: Facts, w: Words) -> str:
    """Describe the asked test-time views and how many the kept model averages."""
    chosen = facts.recipe.chosen.get(facts.evaluation.kept, Settings())
    return w("how.tta_kept", asked=facts.recipe.tta, views=chosen.values.get("tta", 1))


def _members(facts: Facts, w: Words) -> str:
    """Describe how many fine-tunings were asked for, and how many the kept model averages."""
    return w("how.members_kept", asked=facts.recipe.members, members=facts.averaged)


def _weights(weights: WeightsOrigin, w: Words) -> Markup | str:
    """Describe the origin of the weights; runs of earlier releases recorded a text."""
    if weights.described or not weights.origin:
        return weights.described
    if weights.origin == "given":
        return w("how.given", file=data(weights.asked))
    return w.named("how.origin", weights.origin)


def _known(value: str, w: Words) -> Markup:
    if isinstance(value, Markup):
        return value
    return data(value) if value else w("how.unknown")


def _times(facts: Facts, w: Words) -> TableBlock:
    seconds = facts.timings.seconds
    most = max(seconds.values(), default=0) or 1
    rows = [[w.named("stage", name), w.seconds(s), Bar([s / most])] for name, s in seconds.items()]
    if total := facts.timings.total_seconds:
        rows.append([Markup("<strong>{}</strong>").format(w("how.total")), w.seconds(total), ""])
    return TableBlock([w("how.stage"), w("how.took"), w("how.share")], rows, left=(0, 2))


def _settings(w: Words, plain: Mapping[str, Any], first: str, caption: str = "") -> TableBlock:
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        inner = isinstance(value, Mapping) and "kind" in value  # a nested spec: that of the head
        flat |= {f"{key}.{k}": v for k, v in value.items()} if inner else {key: value}
    rows = [[code(k), code(_short(v))] for k, v in flat.items() if k != "kind"]
    return TableBlock([w(first), w("how.value")], rows, left=(0, 1), caption=caption)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
