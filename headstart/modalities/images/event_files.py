"""Pictures in the event files of TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.modalities.images.thumbnails import Album


def add_file(writer: Any, name: str, path: Path) -> None:
    """Add a picture file to a SummaryWriter of tensorboardX."""
    with Image.open(path) as image:
        writer.add_image(name, np.asarray(image.convert("RGB")), 0, dataformats="HWC")


def add_example(writer: Any, name: str, album: Album, path: str) -> None:
    """Add a thumbnail of an example; nothing for one that can't be read or is no picture."""
    if album.picture(path):
        writer.add_image(name, album.square(path), 0, dataformats="HWC")
