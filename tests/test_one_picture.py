"""One picture, saved in every way it may come, is the same to the network."""

from pathlib import Path

from pictures import variants
from PIL import Image
from sklearn.datasets import load_sample_images

import headstart as hs
from headstart.modalities.reading import find
from headstart.modalities.sources import DEFAULT_BACKBONE
from headstart.models.model import classify


def test_one_picture_saved_24_ways_is_of_one_class(tmp_path: Path) -> None:
    """In greys, since some formats hold nothing else: 16 bits, floats, LA."""
    grey = Image.fromarray(load_sample_images().images[0]).convert("L").convert("RGB")
    paths = []
    for name, data in variants(grey).items():
        paths.append(tmp_path / name.replace("/", "-").replace(" ", "_"))
        paths[-1].write_bytes(data)
    files, left_out = find(paths)
    said, unreadable = classify(hs.load_backbone(DEFAULT_BACKBONE), files)
    assert (left_out, unreadable) == ((), ())
    assert len(said.ids) == 24
    assert len(set(said.predicted.tolist())) == 1
    assert said.scores.max(axis=1).min() > 0.1  # a hundred times chance: it means something
