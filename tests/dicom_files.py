"""DICOM files made on the spot, by pydicom's writer."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)


def dicom(
    values: NDArray[Any],
    colours: str = "MONOCHROME2",
    *,
    bits: int = 0,
    syntax: UID = ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """Return a DICOM file of (H, W), (frames, H, W) or (H, W, 3) integers.

    bits: stored, 0 for all of the type. tags: further elements, by keyword.
    """
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = DigitalXRayImageStorageForPresentation
    file.SOPInstanceUID = generate_uid(entropy_srcs=[values.tobytes().hex()])
    file.Modality, file.PatientID, file.PatientName = "DX", "p1", "Doe^Jane"
    file.set_pixel_data(values, colours, bits or 8 * values.dtype.itemsize)
    for name, value in tags.items():
        setattr(file, name, value)
    if syntax.is_compressed:
        file.compress(syntax)
    else:
        file.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def ramp(bits: int = 12, signed: bool = False) -> NDArray[Any]:
    """24 x 32 values over all of these bits."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 24 * 32)
    return np.rint(values).astype("i2" if signed else "u2" if bits > 8 else "u1").reshape(24, 32)
