"""Read HEIC and HEIF pictures, as phones take them, with libheif (extra `heif`)."""

from typing import Any

from PIL import Image

from headstart.base.errors import MissingPackage


def library() -> Any:
    """Return pillow_heif, or pi_heif, which only decodes; raises MissingPackage without either."""
    try:
        import pillow_heif

        return pillow_heif
    except ImportError:
        pass
    try:
        import pi_heif

        return pi_heif
    except ImportError:
        raise MissingPackage("pillow-heif", purpose="A HEIC picture", extra="heif") from None


def open_heif(data: bytes) -> Any:
    """Return the file's primary picture, not decoded yet; its `size` is that of the upright one.

    Samples of 10 and 12 bits are read as their upper 8. Raises MissingPackage, and the errors of
    libheif for a damaged file.
    """
    return library().open_heif(data, convert_hdr_to_8bit=True)


def upright_image(picture: Any) -> Image.Image:
    """Decode a picture of `open_heif`.

    libheif turns and mirrors it as its properties `irot` and `imir` say, which are what counts in
    HEIF (ISO/IEC 23008-12, 6.5.10); the orientation in its EXIF block is not applied again.
    """
    image: Image.Image = picture.to_pillow()
    for name in ("exif", "xmp"):
        image.info.pop(name, None)
    return image
