"""Section: the map of the pictures by their features."""

from headstart.modalities.images.thumbnails import Album
from headstart.reporting.blocks import (
    Key,
    Map,
    Section,
    Text,
)
from headstart.reporting.charts import mark, scatter
from headstart.reporting.facts import Facts
from headstart.reporting.words import Words, data

POINTS = 1500  # points on the map, at most


def map_section(facts: Facts, w: Words, album: Album) -> Section:
    found = facts.insights.map
    if found is None or not found.maps or not found.paths:
        return Section("map", w("map.title"), [Text(w("map.none"), "empty")])
    paths, labels = found.paths[:POINTS], found.labels[:POINTS]
    names = list(dict.fromkeys([*facts.classes, *labels]))
    groups = [names.index(label) for label in labels]
    views = [(name, scatter(points[:POINTS], groups, name)) for name, points in found.maps.items()]
    sheet = album.sheet(paths)
    shown = {
        "paths": paths,
        "labels": [names.index(label) for label in labels],
        "names": names,
        "parts": [str(w.texts.get("part." + p, p)) for p in found.parts[:POINTS]],
        "sheet": sheet.uri if sheet else "",
        "held": [int(h) for h in sheet.held] if sheet else [],
    }
    keys = [Key(mark(i), data(name)) for i, name in enumerate(names)]
    blocks = [
        Text(w("map.lead", n=len(paths)), "lead"),
        Map(views, keys, shown, w("map.hint")),
    ]
    return Section("map", w("map.title"), blocks)
