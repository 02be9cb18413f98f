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
