"""Which files of images can be read: by Pillow itself, and by plugins of Pillow where they are installed."""

import contextlib
from collections.abc import Iterable
from functools import cache
from importlib import import_module

from PIL import features

from convnext.data.strangers import what_it_is
from convnext.data.tiff_header import read_tiff_header

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # never one that starts a program, as EPS
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
_ARRAYS = frozenset({".npy", ".npz"})  # images where there are no others: beside some they are features, or masks
_MORE = {  # name in messages -> (Pillow's name, endings, the package that reads it)
    "AVIF": ("AVIF", {".avif"}, "pillow-avif-plugin"),
    "HEIC": ("HEIF", {".heic", ".heif"}, "pillow-heif"),
    "JPEG XL": ("JXL", {".jxl"}, "pillow-jxl-plugin"),
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands, ISO/IEC 23008-12
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")


@cache
def image_suffixes() -> frozenset[str]:
    """Endings that are taken for images, lower case with the dot."""
    return frozenset(_SUFFIXES.union(*(endings for name, (_, endings, _) in _MORE.items() if name in _plugins())))


def endings_of_images() -> str:
    """The endings that are read, for messages."""
    return " ".join(sorted(image_suffixes()))


def band_suffixes() -> frozenset[str]:
    """Endings of files that may hold other bands than grey or colour."""
    return _ARRAYS | {".tif", ".tiff"}


def suffixes_in(endings: Iterable[str]) -> frozenset[str]:
    """Endings that are taken for images among files with these: arrays of NumPy only where nothing else is one."""
    known = image_suffixes()
    return known if any(ending.lower() in known for ending in endings) else known | _ARRAYS


@cache
def formats_read() -> tuple[str, ...]:
    """What Pillow may take a file for. Its JPEG reader also opens the two-image files of phones, as 'MPO'."""
    return (*_FORMATS, *(_MORE[name][0] for name in _plugins()))


@cache
def _plugins() -> tuple[str, ...]:
    """Those of _MORE that can be read. A plugin tells Pillow of itself when it is imported, pillow-heif when asked to."""
    found = []
    with contextlib.suppress(ImportError):
        if "avif" not in features.modules or not features.check("avif"):  # before 11.3 Pillow warns of the word
            import_module("pillow_avif")
        found.append("AVIF")
    with contextlib.suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
        found.append("HEIC")
    with contextlib.suppress(ImportError):
        import_module("pillow_jxl")
        found.append("JPEG XL")
    return tuple(found)


def plugin_for(ending: str) -> str:
    """The package that would read files of this ending, '.heic'; '' for others and where it is installed."""
    missing = (more for name, more in _MORE.items() if name not in _plugins())
    return next((package for _, endings, package in missing if ending.lower() in endings), "")


def why_unknown(data: bytes) -> str:
    """Why nothing opens these bytes: the name of the format, and the way to one that is read, where it is known."""
    header = read_tiff_header(data)
    if header is not None and not header.shows_colours:
        many = f"{header.samples} bands of {'/'.join(map(str, dict.fromkeys(header.bits)))} bit"
        return f"it is a TIFF of {many}, which is no image in grey or colour"
    if data.startswith(b"\x93NUMPY"):
        return "it is an array of NumPy, whatever its ending, and no image in grey or colour"
    name = ""
    if data[4:8] == b"ftyp":
        brands = data[8 : min(64, int.from_bytes(data[:4], "big"))]
        name = "AVIF" if b"avif" in brands or b"avis" in brands else ""
        name = name or ("HEIC" if any(brand in brands for brand in _HEIC) else "")
    elif data.startswith(_JPEG_XL):
        name = "JPEG XL"
    if name in _plugins():
        return f"it is {name}, whatever its ending, and damaged"
    if name:
        return f"it is {name}, whatever its ending: save it as JPEG or PNG, or `pip install {_MORE[name][2]}` reads it"
    return what_it_is(data) or "not an image, or damaged in its first bytes"
