"""Read DICOM pictures, such as X-rays, with pydicom (extra `dicom`).

The steps are those of a viewer (DICOM PS3.3, C.7.6.3 and C.11): stored values become units such as
Hounsfield's (modality LUT), the first window or table of the file gives black and white (VOI LUT),
MONOCHROME1 is inverted. Only pixels are read; patients' data stays in the file.
"""

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.errors import DataError, MissingPackage
from headstart.modalities.images.levels import check_finite, to_levels

Values = NDArray[Any]
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the whole file is compressed, to any size
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "PALETTE COLOR")
# python-gdcm decodes all of JPEG, but is not in the extra: hostile files have broken it before, and
# a server decodes the files of strangers.
MORE_JPEG = "pip install python-gdcm reads more of them, or write it uncompressed (gdcmconv --raw)"
LEVELS = 8  # bits of a picture whose values are levels from 0 to 255


def open_dicom(data: bytes) -> Any:
    """Return the data set of a DICOM file; raises DataError, and MissingPackage without pydicom."""
    try:
        import pydicom
    except ImportError:
        raise MissingPackage("pydicom", purpose="A DICOM picture", extra="dicom") from None
    if DEFLATED in data:
        raise DataError(
            "a DICOM file compressed as a whole (deflated), which is not read: write it "
            "uncompressed, such as with dcmconv +te"
        )
    if not (logger := logging.getLogger("pydicom")).handlers:
        logger.addHandler(logging.NullHandler())  # it would print of odd values in a header
    file = pydicom.dcmread(io.BytesIO(data), force=True)
    if not any(name in file for name in PIXELS):
        what = getattr(getattr(file, "SOPClassUID", None), "name", "")
        raise DataError(f"a DICOM file without a picture{f' ({what})' if what else ''}")
    return file


def size(file: Any) -> tuple[int, int]:
    """Return width and height of a DICOM picture by its header."""
    return int(getattr(file, "Columns", 0)), int(getattr(file, "Rows", 0))


def frames(file: Any) -> int:
    """Return the number of frames of a DICOM picture by its header."""
    return int(getattr(file, "NumberOfFrames", 1) or 1)


def read_levels(file: Any) -> NDArray[np.uint8]:
    """Return the first frame as levels (H, W, 3), or (H, W, 1) of a grey one.

    Black and white are those of the file's first VOI LUT or window; without one, those of 8 bits
    are read as they are, and of others the lowest and highest value are black and white, without
    the padding around the picture. Raises DataError for a picture that is not read.
    """
    colours = str(getattr(file, "PhotometricInterpretation", "MONOCHROME2")).strip()
    stored = _frame(file)
    if colours == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        return _colour_levels(apply_color_lut(stored, file))
    if stored.ndim == 3 and stored.shape[2] >= 3:
        return _colour_levels(stored[..., :3])
    if stored.ndim != 2 or colours not in GREY:
        raise DataError(f"a DICOM picture of {colours or 'unknown colours'}, which is not read")
    levels = _grey_levels(stored, file)
    levels = 255 - levels if colours == "MONOCHROME1" else levels
    outside = _padding(stored, file)
    if outside is not None:
        levels[outside] = 0
    return levels[..., None]


def _frame(file: Any) -> Values:
    """Return the stored values of the first frame: (H, W), or (H, W, 3) as RGB."""
    from pydicom.pixels import pixel_array

    syntax = getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:  # a file without its head: pydicom found how it is encoded
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

        implicit, little = file.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        file.ensure_file_meta()
        file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    try:
        return np.asarray(pixel_array(file, index=0))
    except Exception as error:  # of any of the decoders that pydicom tries
        if syntax is None or not syntax.is_compressed:
            raise
        name = str(getattr(syntax, "name", syntax))
        remedy = MORE_JPEG if "JPEG" in name else "write it uncompressed"
        raise DataError(
            f"a DICOM picture compressed as {name}, which cannot be decoded here: {remedy}"
        ) from error


def _colour_levels(values: Values) -> NDArray[np.uint8]:
    """Return the upper 8 bits of colours."""
    if values.dtype == np.uint8:
        return np.array(values)
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    raise DataError(f"a DICOM picture in colours of type {values.dtype}, which is not read")


def _grey_levels(stored: Values, file: Any) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(stored, file), np.float64)
    check_finite(values)
    tables = getattr(file, "VOILUTSequence", None)
    if tables and getattr(tables[0], "LUTDescriptor", None) is not None:
        top = 2.0 ** int(tables[0].LUTDescriptor[2]) - 1
        return to_levels(apply_voi(values.astype(np.int64), file).clip(0, top), 0.0, top)
    if window := _window(file):
        return to_levels(_windowed(values, *window), 0.0, 1.0)
    unsigned = not int(getattr(file, "PixelRepresentation", 0))
    if int(getattr(file, "BitsStored", 16)) <= LEVELS and unsigned and stored.dtype.kind == "u":
        if np.array_equal(values, stored):
            return to_levels(values, 0.0, 2.0 ** int(file.BitsStored) - 1)
    outside = _padding(stored, file)
    inside = values if outside is None or outside.all() else values[~outside]
    low, high = float(inside.min()), float(inside.max())
    return to_levels(values.clip(low, high), low, high)


def _window(file: Any) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window, or None."""
    centre, width = getattr(file, "WindowCenter", None), getattr(file, "WindowWidth", None)
    if centre is None or width is None:
        return None
    first = [
        v[0] if hasattr(v, "__len__") and not isinstance(v, str) else v for v in (centre, width)
    ]
    try:
        c, w = float(first[0]), float(first[1])
    except (TypeError, ValueError):
        return None
    how = str(getattr(file, "VOILUTFunction", "LINEAR") or "LINEAR").strip().upper()
    if not (np.isfinite(c) and w >= (1 if how == "LINEAR" else 0) and w > 0):
        return None  # PS3.3 C.11.2.1.2: such a width is not allowed
    return c, w, how


def _windowed(values: Values, centre: float, width: float, how: str) -> Values:
    """Return 0..1 by a window (DICOM PS3.3, C.11.2.1.2.1 and C.11.2.1.3)."""
    if how == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp((-4.0 * (values - centre) / width).clip(-500, 500))))
    if how == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    if not width:
        return np.asarray(values > centre, np.float64)
    return np.asarray(((values - centre) / width + 0.5).clip(0.0, 1.0))


def _padding(stored: Values, file: Any) -> NDArray[np.bool_] | None:
    """Return which stored values are padding around the picture, or None (PS3.3, C.7.5.1.1.2)."""
    value = getattr(file, "PixelPaddingValue", None)
    if value is None:
        return None
    last = getattr(file, "PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(last)))
    return np.asarray((stored >= low) & (stored <= high))
