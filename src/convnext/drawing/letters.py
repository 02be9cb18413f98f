"""Names written on images: in letters that a font has, cut to the room that there is, dark on light or light on dark."""

from collections.abc import Sequence
from functools import lru_cache

from PIL import ImageDraw, ImageFont

from convnext.drawing.palette import Colour
from convnext.errors import on_one_line

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_OF_SYSTEMS = (  # of Linux, macOS and Windows, tried in this order for names that Pillow's own font has not the letters of
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf", "segoeui.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf", "msyh.ttc", "malgun.ttf", "Nirmala.ttf"),
)
_ANY_PX = 20  # a font has a letter in every size
_NOWHERE = "\U0010fffe"  # no font has it: what is drawn in its place is drawn for every letter that is missing


def letters_px(shape: Sequence[int]) -> int:
    """The size of letters that suits an image of (H, W, ...) `shape`."""
    return max(10, round(min(shape[:2]) / 28))


def lettered(text: str, size_px: int) -> tuple[str, Font]:
    r"""`text` on one line, and a font for it: Pillow's own, else the one of the system that has most of its letters.

    The letters that are missing in it are spelt out, as in '\u732b', so that two names stay two.
    """
    text = on_one_line(text)
    fewest, chosen = "", -1
    for place in range(-1, len(_OF_SYSTEMS)):
        lacks = "".join(sign for sign in dict.fromkeys(text) if not _has(place, sign))
        if place < 0 or len(lacks) < len(fewest):
            fewest, chosen = lacks, place
        if not fewest:
            break
    font = _font(chosen, size_px)
    assert font is not None
    return "".join(_spelt(sign) if sign in fewest else sign for sign in text), font


def fitted(text: str, font: Font, width_px: float) -> str:
    """`text`, or as much of it as `width_px` has room for, with an ellipsis."""
    if font.getlength(text) <= width_px:
        return text
    least, most = 0, len(text)  # letters that fit, letters that do not
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if font.getlength(f"{text[:middle]}…") <= width_px else (least, middle)
    return f"{text[:least]}…" if least else ""


def write_name(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: Colour,
    size_px: int,
    width_px: int,
) -> None:
    """On a plate of `colour` above the corner, or below where there is no room above, inside the image's width."""
    text, font = lettered(text, size_px)
    text = fitted(text, font, width_px - 5)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    x, y = corner
    height, width = bottom - top + 4, right - left + 4
    x, y = max(0, min(x, width_px - 1 - width)), y - height if y >= height else y
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.text((x + 2 - left, y + 2 - top), text, font=font, fill=(0, 0, 0) if dark else (255, 255, 255))


@lru_cache(maxsize=64)
def _font(place: int, size_px: int) -> Font | None:
    """Font number `place` of the system's, Pillow's own for -1; None where it is not installed."""
    if place < 0:
        return ImageFont.load_default(size=size_px)
    file = _file(place)
    return None if file is None else ImageFont.truetype(file, size_px)


@lru_cache
def _file(place: int) -> str | None:
    """Where a font of the system is; found once, for all folders of fonts are searched."""
    try:
        return str(ImageFont.truetype(_OF_SYSTEMS[place]).path)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(place: int, sign: str) -> bool:
    font = _font(place, _ANY_PX)
    return sign == " " or (font is not None and bytes(font.getmask(sign)) != bytes(font.getmask(_NOWHERE)))


def _spelt(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode()
