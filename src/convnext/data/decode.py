"""Bytes of an image file to pixels. Axes: H W pixel rows and columns, C channels.

Pillow reads every header and most images; simplejpeg, where installed, decodes plain JPEG. Both use the accurate
transforms of libjpeg-turbo, so the pixels are the same and a run does not depend on what is installed.
"""

import contextlib
import io
import threading

import numpy as np
from PIL import Image, UnidentifiedImageError

from convnext.data.codecs import formats_read, why_unknown
from convnext.data.frames import frames_of
from convnext.data.jpeg import above_cap, is_jpeg, reduction
from convnext.data.limits import MAX_PIXELS, USUAL_COST, require_pixels
from convnext.data.png import is_png, tells_late
from convnext.data.quiet import Quiet
from convnext.data.upright import SWAPPED, turned_pixels
from convnext.errors import DataError

try:  # the extra 'fast'
    import simplejpeg
except ImportError:
    simplejpeg = None

_ORIENTATION = 0x0112  # EXIF tag
_COSTS = {"WEBP": 20, "AVIF": 17, "F": 17, "I": 30}  # bytes of a pixel, by format or mode, if not as usual
_LARGE = 1 << 28  # bytes, from which on an image is decoded by one thread at a time
_BAND = 1 << 22  # pixels that are converted at once
_MAX_16_BIT = 65_535
_MAX_12_BIT = 4095  # of cameras and scanners, which files of 16 bits often hold


def decode(data: bytes, *, channels: int = 3, least_px: int | None = None) -> np.ndarray:
    """The image as people see it: (H, W, channels) uint8, EXIF rotation applied, transparency over white.

    `channels`: 1 for luma, 3 for RGB. `least_px` allows a JPEG to come back at 1/2, 1/4 or 1/8 of its size, the
    smallest whose shorter side is still `least_px`. A JPEG above the cap of memory always comes so, at the largest that
    fits. Raises DataError with the reason for anything that cannot be shown.
    """
    return Opened(data).pixels(channels=channels, least_px=least_px)


class Opened:
    """An image whose header was read, once; its pixels come when they are asked for. Raises DataError as `decode` does."""

    def __init__(self, data: bytes):
        with _QUIET:
            self.data, self.image = data, _opened(data)

    @property
    def header(self) -> tuple[int, int, bool]:
        """(height, width, whether a reduced decode is possible), after EXIF rotation."""
        with _QUIET:
            width, height = self.image.size
            reducible = self.image.format in ("JPEG", "MPO")
            return (
                (width, height, reducible)
                if _orientation(self.image, self.data) in SWAPPED
                else (height, width, reducible)
            )

    @property
    def orientation(self) -> int:
        """EXIF's, 1 to 8: how the pixels of the file are still to be turned until people see them upright."""
        with _QUIET:
            return _orientation(self.image, self.data)

    @property
    def frames(self) -> int:
        """Those of the file, or its pages: the first is what is read."""
        return frames_of(self.image, self.data)

    def pixels(self, *, channels: int = 3, least_px: int | None = None) -> np.ndarray:
        """What `decode` returns. To be asked once: the image is closed afterwards."""
        if channels not in (1, 3):
            raise DataError(f"images have 1 (grey) or 3 (colour) channels; {channels} were asked for")
        large = self.image.width * self.image.height * _cost(self.image) > _LARGE
        with _QUIET, self.image as image, _ONE_BY_ONE if large else contextlib.nullcontext():
            try:
                pixels = _pixels(image, self.data, channels, least_px)
            except DataError:
                raise
            except MemoryError:
                raise DataError(f"there is no memory for its {image.width} x {image.height} pixels") from None
            except Exception as error:  # noqa: BLE001 # decoders raise almost anything on damaged bytes; a run must survive them all
                raise DataError(f"it cannot be decoded: {_reason(error)}") from None
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def decode_pillow(image: Image.Image, *, channels: int = 3) -> np.ndarray:
    """What `decode` gives for the file of an image that Pillow has opened or made. Raises DataError as `decode` does."""
    if min(image.size) < 1:
        raise DataError(f"it has no pixels ({image.width} x {image.height})")
    with _QUIET:
        try:
            image.load()
            pixels = _upright(image, channels, _orientation(image))
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 # as in `Opened.pixels`
            raise DataError(f"it cannot be decoded: {_reason(error)}") from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def to_pillow(pixels: np.ndarray) -> Image.Image:
    """(H, W, 1 or 3) uint8 as an image of Pillow's."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def from_pillow(shown: Image.Image) -> np.ndarray:
    """(H, W, C) uint8 of a grey or coloured image of Pillow's."""
    pixels = np.array(shown)  # a copy: what Pillow lends cannot be written to
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def decode_indices(data: bytes) -> np.ndarray:
    """The values that an image keeps for its pixels, untouched: (H, W) uint8 palette places or grey values.

    Raises DataError where there are none: several channels that differ, values above 255, lossy JPEG.
    """
    values = decode_mask(data)
    if values.ndim == 3:
        raise DataError("it shows colours; each pixel must hold the number of its class")
    return values


def decode_mask(data: bytes, *, colours: bool = False) -> np.ndarray:
    """The same, and of an image that shows colours these: (H, W, 3) uint8 RGB.

    `colours`: always colours, also those of a palette and of greys.
    """
    with _QUIET, _opened(data) as image:
        if image.format in ("JPEG", "MPO"):
            raise DataError("a JPEG does not keep the values of its pixels; save it as PNG")
        try:
            values = np.array(image.convert("RGB") if colours else image)
        except Exception as error:  # noqa: BLE001 # as above
            raise DataError(f"it cannot be decoded: {_reason(error)}") from None
        mode = "RGB" if colours else image.mode
    if values.ndim == 3:
        shown = values[:, :, :3] if mode in ("RGB", "RGBA") else values[:, :, :1]
        if colours or (shown != shown[:, :, :1]).any():
            return np.ascontiguousarray(shown, np.uint8)
        if mode in ("RGBA", "LA") and (shown == shown[0, 0]).all() and (values[..., -1] != values[0, 0, -1]).any():
            raise DataError("it shows its classes by transparency; each pixel must hold the number of its class")
        values = values[:, :, 0]
    if values.dtype.kind not in "bui" or values.min() < 0 or values.max() > 255:
        raise DataError("its pixels are not whole numbers from 0 to 255")
    return values.astype(np.uint8)


def holds_12_bit(data: bytes) -> bool:
    """Whether it is a grey image of 16 bits without a value above 4095, which `decode` takes for 12 bits."""
    if not (data[24:26] == b"\x10\0" or data[:2] in (b"II", b"MM")):  # PNG's bits and kind, ISO/IEC 15948; TIFF
        return False
    with _QUIET, _opened(data) as image:
        try:
            return image.mode.startswith("I") and 0 < int(np.asarray(image).max()) <= _MAX_12_BIT
        except Exception as error:  # noqa: BLE001 # as above
            raise DataError(f"it cannot be decoded: {_reason(error)}") from None


def read_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels after EXIF rotation, from the header alone. Raises DataError as `decode` does."""
    height, width, _ = read_header(data)
    return height, width


def read_header(data: bytes) -> tuple[int, int, bool]:
    """(height, width, whether a reduced decode is possible)."""
    return Opened(data).header


_QUIET = Quiet()
_ONE_BY_ONE = threading.Lock()


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise DataError("the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=formats_read())
    except Image.DecompressionBombError:
        if is_jpeg(data):
            return above_cap(data)
        raise DataError(f"it has more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise DataError(why_unknown(data)) from None
    except Exception as error:  # noqa: BLE001 # as above
        raise DataError(f"its header cannot be read: {_reason(error)}") from None
    if image.format not in ("JPEG", "MPO"):
        require_pixels(image.height, image.width, _cost(image))
    if min(image.size) < 1:
        raise DataError(f"it has no pixels ({image.width} x {image.height})")
    return image


def _pixels(image: Image.Image, data: bytes, channels: int, least_px: int | None) -> np.ndarray:
    turn = _orientation(image, data)
    plain = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
    divisor = reduction(image.height, image.width, least_px) if image.format in ("JPEG", "MPO") else 1
    pixels = _simplejpeg(data, image, divisor) if plain and simplejpeg is not None else None
    if pixels is not None:
        if pixels.shape[2] == channels:
            return turned_pixels(pixels, turn)
        shown = to_pillow(pixels)
    else:
        if divisor > 1:
            image.draft(None, (image.width // divisor, image.height // divisor))
        image.load()
        shown = image
    return _upright(shown, channels, turn)


def _cost(image: Image.Image) -> int:
    """Bytes that decoding takes for a pixel, measured."""
    return max(_COSTS.get(kind, USUAL_COST) for kind in (image.format or "", image.mode))


def _upright(image: Image.Image, channels: int, turn: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of a loaded image, turned as its EXIF says. A large one is converted in bands."""
    width, height = image.size
    mode, rows = "L" if channels == 1 else "RGB", max(1, _BAND // width)
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))  # by the range of all pixels
    if rows >= height:
        return turned_pixels(np.array(_flat(image).convert(mode)), turn)
    pixels = np.empty((height, width) if channels == 1 else (height, width, 3), np.uint8)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(height, top + rows)))
        pixels[top : top + rows] = np.asarray(_flat(band).convert(mode))
    return turned_pixels(pixels, turn)


def _simplejpeg(data: bytes, image: Image.Image, divisor: int) -> np.ndarray | None:
    """(H, W, 1 or 3) pixels, or None where Pillow should judge: odd colours and every kind of damage."""
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data,
            "GRAY" if image.mode == "L" else "RGB",
            min_height=-(-image.height // divisor),
            min_width=-(-image.width // divisor),
            min_factor=divisor,
        )
        return pixels
    except ValueError:
        return None


def _flat(image: Image.Image) -> Image.Image:
    """`image` in a mode that converts to 8 bit without loss of meaning: no transparency."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Wide grey values by their range: 16 bit keeps its high byte; 0..1, 0..255 and 0..65535 are known scales.

    No value of 16 bit above 4095: they are 12 bit, and keep the high byte of those.
    """
    if values.dtype.kind in "iu":
        top = int(values.max())
        if values.itemsize == 2 or (top <= _MAX_16_BIT and int(values.min()) >= 0):
            return (values.astype(np.uint16) >> (4 if 0 <= top <= _MAX_12_BIT else 8)).astype(np.uint8)
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("its pixels are not all finite")
    low, high = float(values.min()), float(values.max())
    for top in (1, 255, _MAX_16_BIT):
        if low >= 0 and high <= top:
            return np.rint(values * (255 / top)).astype(np.uint8)
    return np.rint((values - low) * (255 / (high - low))).astype(np.uint8)


def _orientation(image: Image.Image, data: bytes = b"") -> int:
    """EXIF orientation that is still to be applied, 1 to 8; Pillow's TIFF reader has applied it already.

    `data`: the file; of a PNG Pillow would unpack all pixels to see what may follow them.
    """
    if image.format == "TIFF":
        return 1
    try:
        at_once = is_png(data) and not tells_late(data)
        exif = Image.Image.getexif(image) if at_once else image.getexif()
        found = int(exif.get(_ORIENTATION, 1))
        return found if 1 <= found <= 8 else 1
    except Exception:  # noqa: BLE001 # damaged EXIF is no reason to lose the image
        return 1


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
