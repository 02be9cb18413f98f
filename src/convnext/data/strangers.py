"""Files that people take for images, or name like ones, by their first bytes: what each is, and what to do with it."""

import re
from typing import NamedTuple

_HEAD = 1024  # bytes of a file that are looked at


class _Stranger(NamedTuple):
    """How a file begins, as a regular expression, what it is and the way to an image."""

    begins: bytes
    name: str
    way: str


_PNG = "save it as PNG or JPEG"
_STRANGERS = (
    _Stranger(rb".{0,1000}?%PDF-\d", "a PDF, not an image", "save its pages as PNG or JPEG"),
    _Stranger(
        rb"(?i)\W{0,8}<(?:!doctype html|html|head)\b",
        "a web page, as a failed download leaves",
        "download the image again",
    ),
    _Stranger(rb"(?i)\W{0,8}<(?:svg|.*?<svg)[\s>]", "an SVG, a drawing without pixels", "save it as PNG"),
    _Stranger(rb"version https://git-lfs", "a pointer of Git LFS, not the image", "`git lfs pull` brings it"),
    _Stranger(
        rb"\x00\x05\x16\x07", "what macOS keeps beside a file, not an image", "take the file without ._ before it"
    ),
    _Stranger(rb"FUJIFILMCCD-RAW|II\*\x00.{4}CR|IIRO|IIRS|IIU\x00|.{4}ftypcrx", "a raw file of a camera", _PNG),
    _Stranger(
        rb".{4}(?:ftyp|moov|mdat)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\x00\x00\x01[\xba\xb3]|FLV\x01|\x30\x26\xb2\x75",
        "a video, not an image",
        "save its frames as PNG or JPEG",
    ),
    _Stranger(
        rb"PK[\x03\x05]|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ",
        "an archive, not an image",
        "unpack it, and name its images",
    ),
    _Stranger(rb"8BP[SB]", "a file of Photoshop, which is not read", _PNG),
    _Stranger(rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript, which is a program and not run", _PNG),
    _Stranger(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000, which is not read", _PNG),
    _Stranger(rb"\x00\x00[\x01\x02]\x00", "an icon, which is not read", _PNG),
    _Stranger(rb".{128}DICM", "DICOM, which is not read", "save its image as PNG or TIFF of 16 bit"),
    _Stranger(rb"\x76\x2f\x31\x01|#\?RAD", "an image of high dynamic range, which is not read", _PNG),
    _Stranger(
        rb"\x89HDF|CDF[\x01\x02\x05]|SIMPLE  =", "a file of arrays, not an image", "save its images as PNG or TIFF"
    ),
    _Stranger(rb"\s{0,8}[\[{]\s{0,8}[\"\[{\]}]", "JSON, not an image", "name the images themselves"),
    _Stranger(rb"\x00{64}", "a row of zeros in place of a header, as a copy that broke off leaves", "copy it again"),
)


def what_it_is(data: bytes) -> str:
    """The reason for which bytes that no reader knows are refused; '' where nothing is known of them."""
    head = data[:_HEAD]
    found = next((each for each in _STRANGERS if re.match(each.begins, head, re.DOTALL)), None)
    return f"it is {found.name}: {found.way}" if found else ""
