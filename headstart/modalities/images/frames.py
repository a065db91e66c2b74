"""The size of a picture when it is upright, from the head of its file."""

import io
from pathlib import Path

from PIL import Image

from headstart.base.errors import DataError
from headstart.data.boxes.annotated import TURNED, Frame
from headstart.modalities.images import decoding, formats

HEAD = 2**20  # bytes in which nearly every file has its size and orientation


def frame_of(path: Path) -> Frame:
    """Return the upright size and EXIF orientation of a picture, without decoding it.

    Raises DataError for other files and damaged ones, OSError if the file cannot be read. Only
    formats of `decoding.UPRIGHT_BY_DECODING` are decoded.
    """
    data = decoding.read_file(path) if not path.is_file() else b""
    if not data:
        with open(path, "rb") as f:
            data = f.read(HEAD)
    kind = formats.readable(data[: formats.HEAD_BYTES])
    if not kind:
        raise DataError("not a picture in a format read here")
    if kind in decoding.UPRIGHT_BY_DECODING:
        height, width, _ = decoding.decode(path).shape
        return Frame(width, height)
    try:
        return _frame(data, kind)
    except Exception:  # cut off before the head ends
        pass
    try:
        return _frame(decoding.read_file(path), kind)
    except Exception as error:  # hostile bytes raise any error in the parsers
        raise DataError(f"its size cannot be read: {error}") from error


def _frame(data: bytes, kind: str) -> Frame:
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        turned = decoding.orientation(image)
        width, height = image.size[::-1] if turned in TURNED else image.size
    return Frame(width, height, turned)
