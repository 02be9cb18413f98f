"""Every kind of image becomes the same honest 8-bit pixels, and everything else becomes one line."""

import contextlib
import io
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext.data import decode as decoding
from convnext.data.decode import decode, read_size
from convnext.data.jpeg import reduction
from convnext.errors import DataError

pytest.importorskip("simplejpeg", reason="the extra 'fast' is compared with Pillow")


def scene(height: int = 40, width: int = 60, channels: int = 3) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width))
    planes = [rows * 200 / height + noise, columns * 200 / width + noise, 127 + 90 * np.sin(rows / 5 + columns / 7)]
    return np.stack(planes[:channels], -1).clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("least_px", [None, 4, 8, 16])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "grey", "rgb"])
@pytest.mark.parametrize("size", [(64, 64), (37, 53), (101, 33), (9, 9)])
def test_simplejpeg_and_pillow_give_the_same_pixels(monkeypatch, size, kind, progressive, least_px):
    image = Image.fromarray(scene(*size))
    options: dict[str, object] = {"subsampling": kind} if ":" in kind else {"keep_rgb": kind == "rgb"}
    data = saved(image.convert("L") if kind == "grey" else image, "JPEG", progressive=progressive, **options)
    for channels in (1, 3):
        fast = decode(data, channels=channels, least_px=least_px)
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "simplejpeg", None)
            plain = decode(data, channels=channels, least_px=least_px)
        divisor = reduction(*size, least_px)
        assert fast.shape == (-(-size[0] // divisor), -(-size[1] // divisor), channels)
        np.testing.assert_array_equal(fast, plain)


@pytest.mark.parametrize(
    ("least_px", "divisor"), [(None, 1), (101, 1), (51, 1), (50, 2), (26, 2), (25, 4), (12, 8), (1, 8)]
)
def test_a_reduced_decode_keeps_the_shorter_side(least_px, divisor):
    data = saved(Image.fromarray(scene(101, 140)), "JPEG")
    assert reduction(101, 140, least_px) == divisor
    assert decode(data, least_px=least_px).shape == (-(-101 // divisor), -(-140 // divisor), 3)


def test_only_jpeg_is_decoded_at_a_reduced_scale():
    assert decode(saved(Image.fromarray(scene()), "PNG"), least_px=4).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(monkeypatch, kind, turn):
    image = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {} if kind in ("PNG", "TIFF") else {"quality": 100}
    data = saved(image, kind, exif=exif, **options)
    stored = decode(saved(image, kind, **options))
    turned = {  # what EXIF 2.3 says of row 0 and column 0
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: stored.transpose(1, 0, 2)[::-1],
    }[turn]
    np.testing.assert_array_equal(decode(data), turned)
    assert read_size(data) == turned.shape[:2]
    monkeypatch.setattr(decoding, "simplejpeg", None)
    np.testing.assert_array_equal(decode(data), turned)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG, by ISO/IEC 15948."""
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("kind", ["eXIf", "profile", "xmp", "none"])
def test_how_a_png_is_turned_is_found_wherever_it_stands_and_its_pixels_stay_packed_until_asked_for(kind, behind):
    data = saved(Image.fromarray(scene()), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    raw = exif.tobytes()
    words = {
        "eXIf": chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")),
        "profile": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())),
        "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "none": chunk(b"tIME", b"\x07\xea\x0b\x1a\0\0\0"),
    }[kind]
    place = data.rindex(b"IEND") - 4 if behind else data.index(b"IDAT") - 4
    told = data[:place] + words + data[place:]
    size = (40, 60) if kind == "none" else (60, 40)
    assert read_size(told) == decode(told).shape[:2] == size
    if not behind:
        opened = decoding.Opened(told)
        assert opened.header[:2] == size and opened.image._im is None
        assert read_size(told[: told.index(b"IDAT") + 20]) == size  # the pixels are another question
        with pytest.raises(DataError):
            decode(told[: told.index(b"IDAT") + 20])


def test_grey_palette_and_one_bit_images_become_the_colours_they_show():
    grey = scene(channels=1)[..., 0]
    np.testing.assert_array_equal(decode(saved(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, 2))
    palette = Image.fromarray(scene()).quantize(16)
    np.testing.assert_array_equal(decode(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = grey > 100
    assert decode(saved(Image.fromarray(bits), "PNG"), channels=1)[..., 0].tolist() == (bits * 255).tolist()


def test_luma_is_taken_for_one_channel():
    image = Image.fromarray(scene())
    np.testing.assert_array_equal(decode(saved(image, "PNG"), channels=1)[..., 0], np.asarray(image.convert("L")))


def test_transparency_is_laid_over_white():
    clear = np.zeros((2, 2, 4), np.uint8)  # black and invisible, as many logos are stored
    clear[0, 0] = (10, 20, 30, 255)
    clear[0, 1] = (0, 0, 0, 128)
    shown = decode(saved(Image.fromarray(clear), "PNG"))
    assert shown[0, 0].tolist() == [10, 20, 30]
    assert shown[0, 1].tolist() == [127, 127, 127]
    assert shown[1].tolist() == [[255] * 3] * 2


def test_a_transparent_palette_colour_is_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    for transparency in (1, bytes([255, 0])):
        assert decode(saved(palette, "PNG", transparency=transparency))[0].tolist() == [[200, 0, 0], [255, 255, 255]]
    assert decode(saved(palette, "GIF", transparency=1))[0].tolist() == [[200, 0, 0], [255, 255, 255]]


def test_grey_with_alpha_and_a_transparent_grey_level_are_laid_over_white():
    both = Image.merge("LA", [Image.new("L", (1, 1), 50), Image.new("L", (1, 1), 0)])
    assert decode(saved(both, "PNG"))[0, 0].tolist() == [255] * 3
    assert decode(saved(Image.new("L", (1, 1), 50), "PNG", transparency=50), channels=1).tolist() == [[[255]]]


def test_cmyk_is_not_inverted():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):  # Pillow writes Adobe's inverted inks into a JPEG, plain ones into a TIFF
        pixel = decode(saved(red, kind))[8, 8].astype(int)
        assert abs(pixel - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257  # 8-bit v is v * 257 in 16 bits
    shown = decode(saved(Image.fromarray(levels), kind), channels=1)[..., 0]
    assert shown.ravel().tolist() == list(range(256))


@pytest.mark.parametrize(("top", "scale"), [(1.0, 255), (255.0, 1), (65535.0, 255 / 65535)])
def test_float_tiffs_are_read_by_their_range(top, scale):
    values = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
    shown = decode(saved(Image.fromarray(values), "TIFF"), channels=1)[..., 0]
    np.testing.assert_array_equal(shown, np.rint(values.astype(np.float64) * scale))


def test_a_float_tiff_with_negative_values_is_stretched_and_one_with_nan_is_refused():
    values = np.array([[-2.0, 0.0, 2.0]], np.float32)
    assert decode(saved(Image.fromarray(values), "TIFF"), channels=1).ravel().tolist() == [0, 128, 255]
    values[0, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        decode(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_an_image_of_one_pixel_is_an_image(kind):
    assert decode(saved(Image.new("RGB", (1, 1), "white"), kind), least_px=1)[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_truncated_image_is_refused_with_the_reason(monkeypatch, kind, fast):
    if not fast:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    data = saved(Image.fromarray(scene(200, 300)), kind)
    with pytest.raises(DataError) as error:
        decode(data[: len(data) // 2])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"hello, I am not an image\n" * 9, b"\xff\xd8\xff\xe0", b"%!PS-Adobe-3.0\n"]
)
def test_what_is_not_an_image_is_refused_in_one_line(data):
    for read in (decode, read_size):
        with pytest.raises(DataError) as error:
            read(data)
        assert "\n" not in str(error.value)


def test_a_very_wide_image_works_and_a_bomb_is_refused_before_it_is_decoded():
    wide = saved(Image.new("L", (20_000, 3), 9), "PNG")
    assert read_size(wide) == (3, 20_000)
    assert decode(wide).shape == (3, 20_000, 3)
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    for read in (decode, read_size):
        with pytest.raises(DataError, match="more than 178,956,970 pixels"):
            read(bomb)


def test_a_large_image_below_the_limit_makes_no_warning():
    large = saved(Image.new("1", (10_000, 10_000)), "PNG")  # Pillow would warn from 89 million pixels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_size(large) == (10_000, 10_000)
    assert not caught


def test_images_have_one_or_three_channels():
    with pytest.raises(DataError, match="4 were asked"):
        decode(saved(Image.new("RGB", (1, 1)), "PNG"), channels=4)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]), st.data())
def test_damaged_bytes_never_raise_anything_but_a_data_error(kind, data):
    whole = bytearray(saved(Image.fromarray(scene(24, 24)), kind))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        assert decode(bytes(whole), least_px=8).dtype == np.uint8
