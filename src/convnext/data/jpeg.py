"""JPEG at a part of its size: its cosine transform gives 1/2, 1/4 and 1/8 for less time and memory than all of it."""

import io

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from convnext.data.limits import MAX_MEMORY, USUAL_COST
from convnext.errors import DataError

_DIVISORS = (8, 4, 2)  # strongest first
_COEFFICIENT = 2  # bytes of each, in an image of several scans: of these libjpeg keeps all of the image


def is_jpeg(data: bytes) -> bool:
    """Whether these are the bytes of one."""
    return data[:2] == b"\xff\xd8"


def reduction(height: int, width: int, least_px: int | None) -> int:
    """The divisor (1, 2, 4 or 8) of a reduced decode that leaves the shorter side at least `least_px`.

    It is more where a whole one would take too much memory.
    """
    shorter, cost = min(height, width), height * width * USUAL_COST
    needed = next((divisor for divisor in (1, *_DIVISORS[::-1]) if cost <= MAX_MEMORY * divisor**2), _DIVISORS[0])
    if least_px is None:
        return needed
    return max(needed, next((divisor for divisor in _DIVISORS if shorter // divisor >= max(1, least_px)), 1))


def above_cap(data: bytes) -> Image.Image:
    """The first image of a file that Pillow refuses for its size, to be decoded at a part of that.

    Raises DataError, with a reason, where also this takes too much memory, or its header is damaged.
    """
    try:
        image = JpegImageFile(io.BytesIO(data))
    except Exception as error:  # noqa: BLE001 # readers raise almost anything on damaged bytes
        raise DataError(f"its header cannot be read: {str(error)[:200]}") from None
    pixels, channels = image.height * image.width, len(image.getbands())
    reduced = pixels * USUAL_COST // reduction(image.height, image.width, None) ** 2
    if not _of_one_scan(data, channels) and pixels * channels * _COEFFICIENT + reduced > MAX_MEMORY:
        raise DataError(
            f"{image.width} x {image.height} is more than is read of a progressive JPEG; `jpegtran -copy all` makes a "
            "plain one of it, which is read at a part of its size"
        )
    return image


def _of_one_scan(data: bytes, channels: int) -> bool:
    """Whether it can be decoded from the top to the bottom, by its markers (ITU-T T.81, annex B)."""
    place, plain = 2, False
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        kind = data[place + 1]
        if kind == 0xDA:  # the first scan: how many of the channels it has
            return plain and data[place + 4 : place + 5] == bytes([channels])
        plain = kind in (0xC0, 0xC1) or (plain and kind != 0xC2)
        place += 1 if kind == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4])  # 0xFF fills
    return False
