"""Files that a plugin of Pillow reads: picked up where it is installed, named with the way out where it is not."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from convnext.data import codecs
from convnext.data.decode import decode
from convnext.data.unlabelled import open_unlabelled
from convnext.errors import DataError

HEIC = b"\0\0\0 ftypheic\0\0\0\0mif1heic" + b"\0" * 40
JXL = b"\xff\x0a" + b"\0" * 40
STRANGERS = {  # first bytes, by each format's own description -> what is said
    b"%PDF-1.7\n": "it is a PDF, not an image: save its pages as PNG or JPEG",
    b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='http://www.w3.org/2000/svg'>": "it is an SVG, a drawing",
    b"\xef\xbb\xbf<svg>": "it is an SVG, a drawing without pixels: save it as PNG",
    b"\n<!DOCTYPE html><html><svg >": "it is a web page, as a failed download leaves: download the image again",
    b"version https://git-lfs.github.com/spec/v1\n": "it is a pointer of Git LFS, not the image: `git lfs pull` brings it",
    b"\0\0\0\x20ftypisom\0\0\2\0": "it is a video, not an image: save its frames as PNG or JPEG",
    b"\x1a\x45\xdf\xa3\x9f": "it is a video, not an image",
    b"RIFF\0\1\0\0AVI LIST": "it is a video, not an image",
    b"PK\3\4\x14\0": "it is an archive, not an image: unpack it, and name its images",
    b"8BPS\0\1": "it is a file of Photoshop, which is not read: save it as PNG or JPEG",
    b"%!PS-Adobe-3.0": "it is PostScript, which is a program and not run",
    b"\0\0\0\x0cjP  \r\n\x87\n": "it is JPEG 2000, which is not read",
    b"\0" * 128 + b"DICM": "it is DICOM, which is not read: save its image as PNG or TIFF of 16 bit",
    b"\0\5\x16\7\0\2\0\0Mac OS X": "it is what macOS keeps beside a file, not an image",
    b'{"error": "no such file"}': "it is JSON, not an image",
    b"\0" * 200: "it is a row of zeros in place of a header, as a copy that broke off leaves: copy it again",
    b"hello, I am text\n": "not an image, or damaged in its first bytes",
    b"<" * 5000: "not an image, or damaged in its first bytes",
}
PLUGINS = {"pillow_heif": ("HEIF", ".heic"), "pillow_jxl": ("JXL", ".jxl")}


@pytest.fixture
def without_plugins(monkeypatch):
    """As where Pillow is alone."""
    for known in (codecs.image_suffixes, codecs.formats_read, codecs._plugins):
        known.cache_clear()
    monkeypatch.setattr(codecs, "_plugins", lambda: ())
    yield
    for known in (codecs.image_suffixes, codecs.formats_read):
        known.cache_clear()


@pytest.mark.parametrize(
    ("data", "name", "package"), [(HEIC, "HEIC", "pillow-heif"), (JXL, "JPEG XL", "pillow-jxl-plugin")]
)
def test_without_the_plugin_the_format_and_the_way_out_are_named(without_plugins, data, name, package):
    with pytest.raises(DataError) as refused:
        decode(data)
    says = f"it is {name}, whatever its ending: save it as JPEG or PNG, or `pip install {package}` reads it"
    assert str(refused.value) == says


def test_a_folder_of_such_files_names_what_would_read_them(without_plugins, tmp_path):
    (tmp_path / "IMG_0001.HEIC").write_bytes(HEIC)
    with pytest.raises(DataError, match=r"holds no images; .* `pip install pillow-heif` reads .HEIC"):
        open_unlabelled([str(tmp_path)])


@pytest.mark.parametrize("plugin", list(PLUGINS))
def test_with_the_plugin_files_are_read(plugin):
    if importlib.util.find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    form, ending = PLUGINS[plugin]
    assert form in codecs.formats_read() and ending in codecs.image_suffixes()
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:12] = 250
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, quality=95)
    shown = decode(file.getvalue())
    assert shown.shape == (24, 40, 3) and shown[:8].min() > 200 and shown[16:].max() < 50


@pytest.mark.parametrize("data", list(STRANGERS))
def test_what_people_take_for_an_image_is_named_with_the_way_to_one(data):
    with pytest.raises(DataError) as refused:
        decode(data)
    assert str(refused.value).startswith(STRANGERS[data])
