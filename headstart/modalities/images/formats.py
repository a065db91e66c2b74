"""Recognise a file's format by its first bytes or its name, to report files that are not read.

A table of our own rather than a library: it is short, keeps the core install small, and needs only
formats that people keep among pictures.
"""

import codecs
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import features

from headstart.base.errors import install_command
from headstart.data import zip_files

READ = {  # name and pattern of the first bytes; of a BMP see `readable`
    # before the others, whose first bytes its preamble may hold; a file without one begins with an
    # element
    "DICOM": rb".{128}DICM|\x02\0\0\0UL\x04\0"
    rb"|\x08\0[\0\x05\x08\x12-\x18]\0(CS|UI|DA|UL|[\x04-\x40]\0\0\0)",
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n",
    "WEBP": rb"RIFF.{4}WEBP",
    "GIF": rb"GIF8",
    "BMP": rb"BM",
    "TIFF": rb"(?!II\*\0\x10\0\0\0CR)(II[*+]\0|MM\0[*+])",  # in Canon's CR2, a thumbnail is first
    "HEIF": rb".{4}ftyp(hei[cxms]|hev[cxms]|mif[12]|msf1|miaf)",  # or AVIF: `readable`
    "AVIF": rb".{4}ftyp(avif|avis)",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
}
CERTAIN = frozenset(  # suffixes of files that are not opened to see whether they are pictures
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
SUFFIXES = CERTAIN | frozenset(
    {".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"}
    | {".dcm", ".dicom", ".dic"}
)
HEAD_BYTES = 1024  # enough for the signature of every format below
NOT_AN_IMAGE = "not an image"
MEDIA = ("picture", "video", "sound")  # last word of the description of a medium

_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of the header after the file header's 14


@dataclass(frozen=True)
class _Format:
    """A format that is not read.

    start: pattern of the first bytes, by default of none. text: whether a file that begins so can
    be text; a text that begins with any other signature is just a text.
    """

    what: str
    suffixes: str = ""
    start: bytes = rb"(?!)"
    text: bool = False


# The first whose start matches holds: longer signatures before shorter ones that begin alike.
_FORMATS = (
    _Format("a Canon CR3 raw picture", "", rb".{4}ftypcrx "),
    _Format("an AVIF picture", "avif avifs", rb".{4}ftyp(avif|avis)"),
    _Format("a HEIC picture", "heic heif heics heifs hif", rb".{4}ftyp(hei[cxms]|hev[cxms])"),
    _Format("a HEIF picture", "", rb".{4}ftyp(mif[12]|msf1|miaf)"),
    _Format("an M4A sound", "m4a m4b", rb".{4}ftypM4[ABP] "),
    _Format("a QuickTime video", "mov qt", rb".{4}(ftypqt  |moov|mdat|wide)"),
    _Format("a 3GP video", "3gp 3g2", rb".{4}ftyp3g"),
    _Format("an MP4 video", "mp4 m4v", rb".{4}ftyp"),
    _Format(
        "a JPEG 2000 picture",
        "jp2 j2k jpf jpx jpm j2c jpc jph jhc mj2",
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    ),
    _Format("a JPEG XL picture", "jxl", rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"),
    _Format("a JPEG XR picture", "jxr wdp hdp", rb"II\xbc[\0\x01]"),
    _Format("a Canon CR2 raw picture", "", rb"II\*\0\x10\0\0\0CR"),
    _Format("a Canon CRW raw picture", "", rb"II\x1a\0\0\0HEAPCCDR"),
    _Format("a Fujifilm RAF raw picture", "", rb"FUJIFILMCCD-RAW"),
    _Format("an Olympus ORF raw picture", "", rb"II(RO|RS)|MMOR"),
    _Format("a Panasonic RW2 raw picture", "", rb"IIU\0"),
    _Format("a Sigma X3F raw picture", "", rb"FOVb"),
    _Format("a Minolta MRW raw picture", "", rb"\0MRM"),
    _Format("a Photoshop PSD picture", "psd psb", rb"8BPS\0"),
    _Format("a GIMP XCF picture", "xcf", rb"gimp xcf"),
    _Format("an OpenEXR picture", "exr", rb"\x76\x2f\x31\x01"),
    _Format("a Radiance HDR picture", "", rb"#\?(RADIANCE|RGBE)", text=True),
    _Format("a DDS picture", "dds", rb"DDS \|\0"),
    _Format("a QOI picture", "qoi", rb"qoif"),
    _Format("a FLIF picture", "flif", rb"FLIF"),
    _Format("a BPG picture", "bpg", rb"BPG\xfb"),
    _Format("a DPX picture", "dpx", rb"SDPX|XPDS"),
    _Format("a KTX picture", "ktx ktx2", rb"\xabKTX [12]"),
    _Format("a JBIG2 picture", "jb2 jbig2", rb"\x97JB2\r\n"),
    _Format("an NRRD picture", "nrrd nhdr", rb"NRRD000", text=True),
    _Format("a MetaImage picture", "mha mhd", rb"ObjectType = Image", text=True),
    _Format("a Zeiss CZI picture", "czi", rb"ZISRAWFILE"),
    _Format("a Nikon ND2 picture", "nd2", rb"\xda\xce\xbe\x0a"),
    _Format("an MNG picture", "mng", rb"\x8aMNG\r\n"),
    _Format("a JNG picture", "jng", rb"\x8bJNG\r\n"),
    _Format("a DjVu picture", "djvu djv", rb"AT&TFORM"),
    _Format("a WMF picture", "wmf", rb"\xd7\xcd\xc6\x9a"),
    _Format("an EMF picture", "emf", rb"\x01\0\0\0.{36} EMF"),
    _Format("a FITS picture", "fits", rb"SIMPLE  =", text=True),
    _Format("a DICOM picture", "dcm dicom dic", READ["DICOM"]),
    _Format("a NIfTI picture", "nii nii.gz", rb".{344}n[+i]1\0"),
    _Format("an Apple icon picture", "", rb"icns\0"),
    _Format("a Sun raster picture", "ras", rb"\x59\xa6\x6a\x95"),
    _Format("an XPM picture", "xpm", rb"/\* XPM \*/", text=True),
    _Format("a PostScript picture", "eps", rb"\xc5\xd0\xd3\xc6"),
    _Format("an AVI video", "avi", rb"RIFF.{4}AVI "),
    _Format("a WAV sound", "wav", rb"(RIFF|RF64).{4}WAVE"),
    _Format("an AIFF sound", "aif aiff aifc", rb"FORM.{4}AIF[FC]"),
    _Format("a RealMedia video", "rm rmvb", rb"\.RMF\0"),
    _Format("a YUV4MPEG2 video", "y4m", rb"YUV4MPEG2 ", text=True),
    _Format("an AU sound", "au snd", rb"\.snd\0"),
    _Format("a VOC sound", "voc", rb"Creative Voice File\x1a"),
    _Format("a WavPack sound", "wv", rb"wvpk"),
    _Format("a Monkey's Audio sound", "ape", rb"MAC "),
    _Format("a DSF sound", "dsf dff", rb"DSD "),
    _Format("a Matroska or WebM video", "mkv webm", rb"\x1aE\xdf\xa3"),
    _Format("a Windows Media video", "wmv asf", rb"0&\xb2u\x8ef\xcf\x11"),
    _Format("an MPEG video", "mpg mpeg m2v mts m2ts vob", rb"\0\0\x01[\xba\xb3]"),
    _Format("a Flash video", "flv", rb"FLV\x01"),
    _Format("a FLAC sound", "flac", rb"fLaC"),
    _Format("an Ogg sound", "ogg oga opus", rb"OggS\0"),
    _Format("an MP3 sound", "mp3", rb"ID3[\x02-\x04]"),
    _Format("a MIDI sound", "mid midi", rb"MThd\0"),
    _Format("a CAF sound", "caf", rb"caff\0"),
    _Format("an AMR sound", "amr", rb"#!AMR"),
    _Format("a PDF document", "", rb"%PDF-", text=True),
    _Format("a ZIP archive", "", rb"PK(\x03\x04|\x05\x06)"),
    _Format("a gzip archive", "", rb"\x1f\x8b"),
    _Format("a bzip2 archive", "", rb"BZh"),
    _Format("an xz archive", "", rb"\xfd7zXZ\0"),
    _Format("a 7z archive", "", rb"7z\xbc\xaf\x27\x1c"),
    _Format("a RAR archive", "", rb"Rar!\x1a\x07"),
    _Format("a tar archive", "", rb".{257}ustar"),
    _Format("an HDF5 file", "", rb"\x89HDF\r\n"),
    _Format("a NumPy array", "", rb"\x93NUMPY"),
    _Format("a SQLite database", "", rb"SQLite format 3\0"),
    _Format("the macOS metadata of another file (AppleDouble)", "", rb"\0\x05\x16\x07"),
    _Format(
        "a Git LFS pointer instead of the file (run: git lfs pull)",
        start=rb"version https://git-lfs",
        text=True,
    ),
    # signatures of two or three bytes, recognised by the bytes that follow as well
    _Format(
        "a PNM picture",
        "pnm pbm pgm ppm pam pfm",
        rb"P[1-6]\s(#[^\n]*\n|\s)*\d+\s+\d+\s|P7\nWIDTH \d|P[Ff]\s\d+\s\d+\s",
        text=True,
    ),
    _Format("an icon picture", "ico cur icns", rb"\0\0[\x01\x02]\0[\x01-\x40]\0.{3}[\0\x01]"),
    _Format("an SGI picture", "sgi rgb rgba", rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"),
    _Format("a PCX picture", "pcx", rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08].{60}\0"),
    _Format("an MP3 sound", "", rb"\xff[\xfa\xfb\xf2\xf3][\x10-\xeb]"),
    _Format("an AAC sound", "aac", rb"\xff[\xf0\xf1\xf8\xf9][\x40-\xaf]"),
    _Format("an MPEG video", "", rb"(G.{187}){5}G.{83}"),  # a transport stream
    _Format("a file of zero bytes only", "", rb"\0+\Z"),
    # known by their names alone, or as a text (_TEXTS)
    _Format(
        "a camera's raw picture",
        "cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw x3f 3fr fff iiq rwl mrw erf kdc "
        "dcr mos",
    ),
    _Format("a Krita picture", "kra"),
    _Format("an SVG picture", "svg svgz"),
    _Format("a Targa picture", "tga"),
    _Format("a Leica LIF picture", "lif"),
    _Format("an Olympus microscope's picture", "vsi oib oif oir"),
    _Format("an OpenRaster picture", "ora"),
    _Format("a PICT picture", "pict pct"),
    _Format("an ECW picture", "ecw"),
    _Format("a MrSID picture", "sid"),
    _Format("an XBM picture", "xbm"),
    _Format("a WBMP picture", "wbmp"),
    _Format("an Ogg video", "ogv"),
    _Format("an H.264 or H.265 video", "h264 264 h265 265 hevc"),
    _Format("a Windows Media sound", "wma"),
    _Format("an AC-3 sound", "ac3"),
)
_BY_SUFFIX = {f".{suffix}": f.what for f in _FORMATS for suffix in f.suffixes.split()}

_TEXTS = {  # by a pattern of the text in lower case, without white space before it
    rb"(?=<svg|<\?xml|<!doctype svg|<!--).*<svg": "an SVG picture",
    rb"%!ps-adobe.{,26}epsf": "a PostScript picture",
    rb"%!ps-adobe": "a PostScript document",
    rb"<(!doctype html|html|head|body)": "an HTML page",
    rb"<\?xml": "an XML file",
    rb"(/\*.*?\*/\s*)?#define \w+_width \d": "an XBM picture",
}
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


def why_not_decoded(path: Path) -> str:
    """Return why a file in a folder is not decoded: "" if it is, NOT_AN_IMAGE if it is no example,
    or else the message about its format, by its first bytes or its name.

    Raises OSError if the file cannot be read, DataError for a member of an archive that is not
    read.
    """
    if path.suffix.lower() in CERTAIN:
        return ""
    if archive := zip_files.archive_of(path):
        head = zip_files.read_head(path, archive, HEAD_BYTES)
    else:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    name = path.name.lower()
    if kind := readable(head):
        return NOT_AN_IMAGE if name == "dicomdir" else why_missing(kind, head)
    suffix = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
    what, named = described(head), _BY_SUFFIX.get(suffix, "")
    if named and _STORED_IN.get(named) == what:
        return refusal(named)
    if what.endswith(MEDIA):
        return refusal(what)
    if named and what:
        return f"{refusal(what)}, though its name is that of {named}"
    if path.suffix.lower() in SUFFIXES:
        return f"named as {named}, and its first bytes are not those of one: a damaged file?"
    return refusal(named) if named else NOT_AN_IMAGE


def why_missing(kind: str, head: bytes) -> str:
    """Return why a file of a format READ can't be read on this machine, with the remedy, or "".

    kind: the format, from `readable`. head: its first HEAD_BYTES.
    """
    there, needs = _NEEDS.get(kind, (lambda: True, ""))
    return "" if there() else f"{described(head)}, which needs {needs}"


@cache
def _by_pillow(feature: str) -> bool:
    with warnings.catch_warnings(action="ignore"):  # a feature that an older Pillow does not know
        return bool(features.check(feature))


def _installed(*packages: str) -> bool:
    return any(find_spec(package) is not None for package in packages)


_NEEDS: dict[str, tuple[Callable[[], bool], str]] = {  # whether it is there; the need and remedy
    "HEIF": (
        lambda: _installed("pillow_heif", "pi_heif"),
        f"the package 'pillow-heif': {install_command('heif')}",
    ),
    "DICOM": (
        lambda: _installed("pydicom"),
        f"the package 'pydicom': {install_command('dicom')}",
    ),
    "AVIF": (lambda: _by_pillow("avif"), "Pillow 11.3 or later: pip install -U pillow"),
    "JPEG2000": (
        lambda: _by_pillow("jpg_2000"),
        "a Pillow that was built with OpenJPEG: pip install -U pillow",
    ),
}


def refusal(what: str) -> str:
    """Return why a file is not decoded, and what to do; what: its format, from `described`."""
    if what.endswith("picture"):
        return f"{what}, a format that is not read here: convert it to JPEG or PNG"
    return f"not a picture but {what}"


def readable(head: bytes) -> str:
    """Return which of the formats READ a file has, by its first bytes, or ""."""
    kind = next((kind for kind, start in READ.items() if re.match(start, head, re.DOTALL)), "")
    if kind == "HEIF" and _brand(head, "a HEIF picture") == "an AVIF picture":
        return "AVIF"
    if kind == "BMP" and int.from_bytes(head[14:18], "little") not in _BMP_HEADERS:
        return ""
    return "" if kind == "GIF" and _is_text(head) else kind  # a text about GIF89a


def described(head: bytes) -> str:
    """Return the format of a file not read, with its article, by its first HEAD_BYTES; or ""."""
    text = _is_text(head)
    if (start := _starts(text).match(head)) and start.lastgroup:
        return _brand(head, _FORMATS[int(start.lastgroup.removeprefix("format"))].what)
    words = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    found = (what for start, what in _TEXTS.items() if re.match(start, words, re.DOTALL))
    return next(found, "a text file" if text else "")


@cache
def _starts(text: bool) -> re.Pattern[bytes]:
    """Return one pattern for the start of all (or text) formats; group formatN is _FORMATS[N]."""
    wanted = ((n, known) for n, known in enumerate(_FORMATS) if known.text or not text)
    groups = (b"(?P<format%d>%s)" % (n, known.start) for n, known in wanted)
    return re.compile(b"|".join(groups), re.DOTALL)


def _brand(head: bytes, what: str) -> str:
    """Return the format inside HEIF and MP4 containers, by the brands after the first."""
    brands = head[16 : int.from_bytes(head[:4], "big")]
    still = any(brand in brands for brand in (b"mif1", b"miaf"))
    if what != "a HEIF picture" and not (what == "an MP4 video" and still):
        return what
    if b"avif" in brands:
        return "an AVIF picture"
    return "a HEIC picture" if b"heic" in brands or b"heix" in brands else "a HEIF picture"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the end may cut a character
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c.isspace() for c in text)
