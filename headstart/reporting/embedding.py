"""Section: the map of the pictures by their features."""

from headstart.reporting.blocks import Key, Map, PageBlock, Text
from headstart.reporting.charts import mark, scatter, shade
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data
from headstart.targets.tallies import MANY

POINTS = 1500  # points on the map, at most


def map_section(facts: Facts, w: Words) -> list[PageBlock]:
    found = facts.insights.map
    if found is None or not found.maps or not found.paths:
        return [Text(w("map.none"), "empty")] if facts.of_classes else []
    paths, labels = found.paths[:POINTS], found.labels[:POINTS]
    classes = facts.classes if len(facts.classes) <= MANY else sorted({*labels})
    names = list(dict.fromkeys([*classes, *found.groups, *labels]))
    place = {name: i for i, name in enumerate(names)}
    groups = [place[label] for label in labels]
    ordered = bool(found.groups) and facts.evaluation.test.target.ordered
    styles = [shade(i, len(names)) if ordered else mark(i) for i in range(len(names))]
    shown_names = names if facts.of_classes else [w.label(name) for name in names]
    drawn = {name: points[:POINTS] for name, points in found.maps.items()}
    views = [(name, scatter(points, groups, name, styles)) for name, points in drawn.items()]
    sheet = facts.album.sheet(paths)
    shown = {
        "paths": paths,
        "labels": groups,
        "names": shown_names,
        "parts": [str(w.texts.get("part." + p, p)) for p in found.parts[:POINTS]],
        "sheet": sheet.uri if sheet else "",
        "held": [int(h) for h in sheet.held] if sheet else [],
    }
    keys = [Key(style, data(name)) for style, name in zip(styles, shown_names, strict=True)]
    lead = Text(w("map.lead", n=len(paths)), "lead")
    return [lead, Map(views, keys, shown, w("map.hint" if facts.of_classes else "map.hint_groups"))]
