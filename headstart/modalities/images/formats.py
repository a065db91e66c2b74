"""Recognise a file's format by its first bytes or its name, to report files that are not read.

A table of our own rather than a library: it is short, keeps the core install small, and needs only
formats that people keep among pictures.
"""

import codecs
import re
from pathlib import Path

READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
HEAD_BYTES = 1024  # enough for the signature of every format below
NOT_AN_IMAGE = "not an image"
MEDIA = ("picture", "video", "sound")  # last word of the description of a medium

_READ_STARTS = (
    *((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n", "PNG"), (b"GIF8", "GIF")),
    *((b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF")),
)
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of the header after the file header's 14

# (offset, signature, description); longer signatures before shorter ones that begin alike
_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftypcrx ", "a Canon CR3 raw picture"),
    *((4, b"ftyp" + b, "an AVIF picture") for b in (b"avif", b"avis")),
    *(
        (4, b"ftyp" + b, "a HEIC picture")
        for b in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
    ),
    *((4, b"ftyp" + b, "a HEIF picture") for b in (b"mif1", b"mif2", b"msf1", b"miaf")),
    *((4, b"ftyp" + b, "an M4A sound") for b in (b"M4A ", b"M4B ", b"M4P ")),
    *((4, b, "a QuickTime video") for b in (b"ftypqt  ", b"moov", b"mdat", b"wide")),
    (4, b"ftyp3g", "a 3GP video"),
    (4, b"ftyp", "an MP4 video"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    *((0, b"II\xbc" + b, "a JPEG XR picture") for b in (b"\0", b"\1")),
    (0, b"II*\0\x10\0\0\0CR", "a Canon CR2 raw picture"),
    (0, b"II\x1a\0\0\0HEAPCCDR", "a Canon CRW raw picture"),
    (0, b"FUJIFILMCCD-RAW", "a Fujifilm RAF raw picture"),
    *((0, b, "an Olympus ORF raw picture") for b in (b"IIRO", b"IIRS", b"MMOR")),
    (0, b"IIU\0", "a Panasonic RW2 raw picture"),
    (0, b"FOVb", "a Sigma X3F raw picture"),
    (0, b"\0MRM", "a Minolta MRW raw picture"),
    (0, b"8BPS\0", "a Photoshop PSD picture"),
    (0, b"gimp xcf", "a GIMP XCF picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    *((0, b, "a Radiance HDR picture") for b in (b"#?RADIANCE", b"#?RGBE")),
    (0, b"DDS |\0", "a DDS picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"FLIF", "a FLIF picture"),
    (0, b"BPG\xfb", "a BPG picture"),
    *((0, b, "a DPX picture") for b in (b"SDPX", b"XPDS")),
    *((0, b"\xabKTX " + b, "a KTX picture") for b in (b"1", b"2")),
    (0, b"\x97JB2\r\n", "a JBIG2 picture"),
    (0, b"NRRD000", "an NRRD picture"),
    (0, b"ObjectType = Image", "a MetaImage picture"),
    (0, b"ZISRAWFILE", "a Zeiss CZI picture"),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 picture"),
    (0, b"\x8aMNG\r\n", "an MNG picture"),
    (0, b"\x8bJNG\r\n", "a JNG picture"),
    (0, b"AT&TFORM", "a DjVu picture"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF picture"),
    (40, b" EMF", "an EMF picture"),
    (0, b"SIMPLE  =", "a FITS picture"),
    (128, b"DICM", "a DICOM picture"),
    *((344, b, "a NIfTI picture") for b in (b"n+1\0", b"ni1\0")),
    (0, b"icns\0", "an Apple icon picture"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster picture"),
    (0, b"/* XPM */", "an XPM picture"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript picture"),
    (8, b"AVI ", "an AVI video"),
    (8, b"WAVE", "a WAV sound"),
    *((8, b, "an AIFF sound") for b in (b"AIFF", b"AIFC")),
    (0, b".RMF\0", "a RealMedia video"),
    (0, b"YUV4MPEG2 ", "a YUV4MPEG2 video"),
    (0, b".snd\0", "an AU sound"),
    (0, b"Creative Voice File\x1a", "a VOC sound"),
    (0, b"wvpk", "a WavPack sound"),
    (0, b"MAC ", "a Monkey's Audio sound"),
    (0, b"DSD ", "a DSF sound"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a Windows Media video"),
    *((0, b, "an MPEG video") for b in (b"\0\0\1\xba", b"\0\0\1\xb3")),
    (0, b"FLV\1", "a Flash video"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"OggS\0", "an Ogg sound"),
    *((0, b"ID3" + v, "an MP3 sound") for v in (b"\2", b"\3", b"\4")),
    (0, b"MThd\0", "a MIDI sound"),
    (0, b"caff\0", "a CAF sound"),
    (0, b"#!AMR", "an AMR sound"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"PK\5\6", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89HDF\r\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"SQLite format 3\0", "a SQLite database"),
    (0, b"\0\5\x16\7", "the macOS metadata of another file (AppleDouble)"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file (run: git lfs pull)"),
)

_CONTAINERS: dict[str, bytes | tuple[bytes, ...]] = {  # start of a file whose signature comes later
    "an AVI video": b"RIFF",
    "a WAV sound": (b"RIFF", b"RF64"),
    "an AIFF sound": b"FORM",
    "an EMF picture": b"\1\0\0\0",
}
# Formats that begin with text. A text that begins with any other signature is just a text.
_TEXTUAL = frozenset(
    {
        "a FITS picture",
        "a MetaImage picture",
        "a PDF document",
        "an NRRD picture",
        "a Radiance HDR picture",
        "an XPM picture",
        "a YUV4MPEG2 video",
        "a Git LFS pointer instead of the file (run: git lfs pull)",
    }
)
# Formats stored in another one: the first bytes give the container, the name gives the content.
_STORED_IN = {
    "a NIfTI picture": "a gzip archive",
    "an SVG picture": "a gzip archive",
    "a Krita picture": "a ZIP archive",
    "an OpenRaster picture": "a ZIP archive",
    "an Ogg video": "an Ogg sound",
    "a Windows Media sound": "a Windows Media video",
    "an M4A sound": "an MP4 video",
}

_NAMES = {
    "a HEIC picture": "heic heif heics heifs hif",
    "an AVIF picture": "avif avifs",
    "a JPEG 2000 picture": "jp2 j2k jpf jpx jpm j2c jpc jph jhc mj2",
    "a JPEG XL picture": "jxl",
    "a JPEG XR picture": "jxr wdp hdp",
    "a camera's raw picture": "cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw x3f 3fr fff "
    "iiq rwl mrw erf kdc dcr mos",
    "a Photoshop PSD picture": "psd psb",
    "a GIMP XCF picture": "xcf",
    "a Krita picture": "kra",
    "an OpenEXR picture": "exr",
    "a DDS picture": "dds",
    "a QOI picture": "qoi",
    "a FLIF picture": "flif",
    "a BPG picture": "bpg",
    "an MNG picture": "mng",
    "a JNG picture": "jng",
    "a DjVu picture": "djvu djv",
    "a WMF picture": "wmf",
    "an EMF picture": "emf",
    "a FITS picture": "fits",
    "a DICOM picture": "dcm dicom",
    "a NIfTI picture": "nii nii.gz",
    "an SVG picture": "svg svgz",
    "an icon picture": "ico cur icns",
    "a Targa picture": "tga",
    "a PCX picture": "pcx",
    "a PNM picture": "pnm pbm pgm ppm pam pfm",
    "a Sun raster picture": "ras",
    "an SGI picture": "sgi rgb rgba",
    "a DPX picture": "dpx",
    "a KTX picture": "ktx ktx2",
    "a JBIG2 picture": "jb2 jbig2",
    "an NRRD picture": "nrrd nhdr",
    "a MetaImage picture": "mha mhd",
    "a Zeiss CZI picture": "czi",
    "a Nikon ND2 picture": "nd2",
    "a Leica LIF picture": "lif",
    "an Olympus microscope's picture": "vsi oib oif oir",
    "an OpenRaster picture": "ora",
    "a PICT picture": "pict pct",
    "an ECW picture": "ecw",
    "a MrSID picture": "sid",
    "an XBM picture": "xbm",
    "an XPM picture": "xpm",
    "a WBMP picture": "wbmp",
    "a PostScript picture": "eps",
    "an MP4 video": "mp4 m4v",
    "a QuickTime video": "mov qt",
    "an AVI video": "avi",
    "a Matroska or WebM video": "mkv webm",
    "an MPEG video": "mpg mpeg m2v mts m2ts vob",
    "a Windows Media video": "wmv asf",
    "a Flash video": "flv",
    "a 3GP video": "3gp 3g2",
    "an Ogg video": "ogv",
    "a RealMedia video": "rm rmvb",
    "a YUV4MPEG2 video": "y4m",
    "an H.264 or H.265 video": "h264 264 h265 265 hevc",
    "a WAV sound": "wav",
    "an MP3 sound": "mp3",
    "a FLAC sound": "flac",
    "an Ogg sound": "ogg oga opus",
    "an M4A sound": "m4a m4b",
    "an AAC sound": "aac",
    "an AIFF sound": "aif aiff aifc",
    "a Windows Media sound": "wma",
    "an AMR sound": "amr",
    "a CAF sound": "caf",
    "an AU sound": "au snd",
    "a VOC sound": "voc",
    "a WavPack sound": "wv",
    "a Monkey's Audio sound": "ape",
    "a DSF sound": "dsf dff",
    "an AC-3 sound": "ac3",
    "a MIDI sound": "mid midi",
}
_BY_SUFFIX = {f".{s}": what for what, suffixes in _NAMES.items() for s in suffixes.split()}


def why_not_decoded(path: Path) -> str:
    """Return why a file in a folder is not decoded: "" if it is, NOT_AN_IMAGE if it is no example,
    or else the message about its format, by its first bytes or its name.

    Raises OSError if the file cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return ""
    head = _head(path)
    if readable(head):
        return ""
    what, named = described(head), _by_name(path.name)
    if named and _STORED_IN.get(named) == what:
        return refusal(named)
    if what.endswith(MEDIA):
        return refusal(what)
    if named and what:
        return f"{refusal(what)}, though its name is that of {named}"
    return refusal(named) if named else NOT_AN_IMAGE


def refusal(what: str) -> str:
    """Return why a file is not decoded, and what to do; what: its format, from `described`."""
    if what.endswith("picture"):
        return f"{what}, a format that is not read here: convert it to JPEG or PNG"
    return f"not a picture but {what}"


def readable(head: bytes) -> str:
    """Return which of the formats READ a file has, by its first bytes, or ""."""
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:10] == b"II*\0\x10\0\0\0CR":  # Canon CR2: the first page is a thumbnail
        return ""
    kind = next((name for start, name in _READ_STARTS if head.startswith(start)), "")
    return "" if kind == "GIF" and _is_text(head) else kind  # a text about GIF89a


def described(head: bytes) -> str:
    """Return the format of a file not read, with its article, by its first HEAD_BYTES; or ""."""
    text = _is_text(head)
    for at, mark, what in _MARKS:
        if head.startswith(mark, at) and head.startswith(_CONTAINERS.get(what, b"")):
            if not text or what in _TEXTUAL:
                return _brand(head, what)
    return _described_loosely(head) or _described_text(head)


def _brand(head: bytes, what: str) -> str:
    """Return the format inside HEIF and MP4 containers, by the brands after the first."""
    brands = head[16 : int.from_bytes(head[:4], "big")]
    still = any(brand in brands for brand in (b"mif1", b"miaf"))
    if what != "a HEIF picture" and not (what == "an MP4 video" and still):
        return what
    if b"avif" in brands:
        return "an AVIF picture"
    return "a HEIC picture" if b"heic" in brands or b"heix" in brands else "a HEIF picture"


def _described_text(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text:
        return "an SVG picture"
    if text.startswith(b"%!ps-adobe"):
        return f"a PostScript {'picture' if b'epsf' in text[:40] else 'document'}"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if text.startswith(b"<?xml"):
        return "an XML file"
    if re.match(rb"(/\*.*?\*/\s*)?#define \w+_width \d", text, re.DOTALL):
        return "an XBM picture"
    return "a text file" if _is_text(head) else ""


def _described_loosely(head: bytes) -> str:
    """Recognise signatures of two or three bytes by the bytes that follow as well."""
    if re.match(rb"P[1-6]\s(#[^\n]*\n|\s)*\d+\s+\d+\s|P7\nWIDTH \d|P[Ff]\s\d+\s\d+\s", head):
        return "a PNM picture"
    if re.match(rb"\0\0[\1\2]\0[\1-\x40]\0.{3}[\0\1]", head, re.DOTALL):
        return "an icon picture"
    if re.match(rb"\x01\xda[\0\1][\1\2]\0[\1-\3]", head):
        return "an SGI picture"
    if re.match(rb"\x0a[\0\2-\5]\x01[\1\2\4\x08].{60}\0", head, re.DOTALL):
        return "a PCX picture"
    if re.match(rb"\xff[\xfa\xfb\xf2\xf3][\x10-\xeb]", head):
        return "an MP3 sound"
    if re.match(rb"\xff[\xf0\xf1\xf8\xf9][\x40-\xaf]", head):
        return "an AAC sound"
    if len(head) == HEAD_BYTES and not _is_text(head) and set(head[::188]) == {ord("G")}:
        return "an MPEG video"
    if head and not head.strip(b"\0"):
        return "a file of zero bytes only"
    return ""


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the end may cut a character
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c.isspace() for c in text)


def _by_name(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return _BY_SUFFIX[".nii.gz"]
    return _BY_SUFFIX.get(Path(lower).suffix, "")


def _head(path: Path) -> bytes:
    with open(path, "rb") as f:
        return f.read(HEAD_BYTES)
