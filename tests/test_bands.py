"""Files of many bands: TIFF, NPY, NPZ and files of one band each become the channels that they hold, or are refused."""

import contextlib
import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from band_images import interleaved, pixels, planar, tifffile
from convnext.config import Bands, InputConfig
from convnext.data.band_files import kind_of, opened, settled_order, turned
from convnext.data.band_store import BandStore, band_of, first_files, found_bands
from convnext.data.bands import for_eyes, holds_bands, pixels_of_array, read_pixels
from convnext.data.decode import decode
from convnext.data.evaluation import eval_transform, normalised
from convnext.data.store import FolderStore
from convnext.data.transforms import normalise
from convnext.errors import DataError


def reading(count: int, kind: str = "integer", arrays: str = "last", **more: object) -> Bands:
    names = tuple(str(number + 1) for number in range(count))
    given = {"bands": names, "file_bands": count, "pixels": kind, "arrays": arrays} | more
    size = len(given["bands"])
    return Bands(**{"mean": (0.5,) * size, "std": (1.0,) * size} | given)


TIFFS = {
    "interleaved": (interleaved, {}),
    "planar": (planar, {}),
    "tiled": (interleaved, {"tile": (16, 16)}),
    "planar and tiled": (planar, {"tile": (16, 16)}),
    "deflated": (interleaved, {"compression": "zlib"}),
    "deflated with a predictor": (interleaved, {"compression": "zlib", "predictor": True}),
    "LZW": (interleaved, {"compression": "lzw"}),
    "big-endian": (interleaved, {"byteorder": ">"}),
    "BigTIFF": (interleaved, {"bigtiff": True}),
    "strips of three rows": (planar, {"rowsperstrip": 3}),
}
KINDS = (np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64)


@pytest.mark.parametrize("form", TIFFS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_of_any_layout_holds_the_numbers_that_were_written(tmp_path, form, dtype):
    write, how = TIFFS[form]
    values = pixels(1, 5, dtype)
    write(tmp_path / "a.tif", values, **how)
    found = read_pixels((tmp_path / "a.tif").read_bytes(), reading(5, kind_of(np.dtype(dtype))))
    assert found.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(found, values.astype(found.dtype))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("order", ["last", "first"])
@pytest.mark.parametrize("fortran", [False, True])
def test_an_array_of_numpy_holds_the_numbers_that_were_written(tmp_path, dtype, order, fortran):
    values = pixels(2, 5, dtype)
    array = values if order == "last" else values.transpose(2, 0, 1)
    config = reading(5, kind_of(np.dtype(dtype)), order)
    np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else np.ascontiguousarray(array))
    np.savez_compressed(tmp_path / "a.npz", image=array, label=np.int64(3))
    for name in ("a.npy", "a.npz"):
        found = read_pixels((tmp_path / name).read_bytes(), config)
        np.testing.assert_array_equal(found, values.astype(found.dtype))


def test_an_npz_with_an_array_a_band_is_one_image(tmp_path):
    values = pixels(3, 3)
    np.savez(tmp_path / "a.npz", red=values[:, :, 0], green=values[:, :, 1], nir=values[:, :, 2])
    np.testing.assert_array_equal(read_pixels((tmp_path / "a.npz").read_bytes(), reading(3)), values)


@pytest.mark.parametrize(("bands", "places"), [("3,2,1,5", (2, 1, 0, 4)), ("5", (4,)), ("2,2", (1, 1))])
def test_bands_pick_and_order(tmp_path, bands, places):
    values = pixels(4)
    planar(tmp_path / "a.tif", values)
    config = reading(5, bands=tuple(bands.split(",")))
    np.testing.assert_array_equal(read_pixels((tmp_path / "a.tif").read_bytes(), config), values[:, :, places])
    np.testing.assert_array_equal(pixels_of_array(values, config), values[:, :, places])


def test_where_arrays_have_their_bands_follows_from_all_of_them():
    assert settled_order([(5, 16, 18), (5, 20, 12)]) == "first"
    assert settled_order([(16, 18, 5), (20, 12, 5)]) == "last"
    assert settled_order([(64, 64, 13), (64, 64, 13)]) == "last"
    assert settled_order([(13, 64, 64), (13, 64, 64)]) == "first"
    assert turned((13, 64, 32), "first") == (64, 32, 13)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_an_image_of_pillow_has_the_bands_that_it_has(mode):
    values = pixels(5, {"RGB": 3, "RGBA": 4}.get(mode, 1), np.uint16 if mode == "I;16" else np.uint8)
    file = io.BytesIO()
    Image.fromarray(values if values.shape[2] > 1 else values[:, :, 0]).save(file, "PNG")
    kind = "integer" if mode == "I;16" else "uint8"
    np.testing.assert_array_equal(read_pixels(file.getvalue(), reading(values.shape[2], kind)), values)


def test_what_holds_nothing_becomes_the_mean_of_its_channel(tmp_path):
    values = pixels(6, 3, np.float32)
    values[2, 3, 1], values[4, 5, 2] = np.nan, np.inf
    np.save(tmp_path / "a.npy", values)
    found = read_pixels((tmp_path / "a.npy").read_bytes(), reading(3, "float", mean=(1.0, 2.5, -3.0)))
    assert found[2, 3, 1] == 2.5 and found[4, 5, 2] == -3.0
    assert np.isfinite(found).all() and (found != values).sum() == 2
    whole = pixels(7, 2, np.int16)
    whole[0, 0, 0] = -9999
    interleaved(tmp_path / "a.tif", whole, extratags=[(42113, "s", 0, "-9999", True)])  # as GDAL writes it
    found = read_pixels((tmp_path / "a.tif").read_bytes(), reading(2, mean=(100.0, 7.0)))
    assert found[0, 0, 0] == 100.0 and (found != whole).sum() == 1
    wide = pixels(7, 2, np.float64)
    wide[1, 1, 0] = -1.79769313486232e308  # as GDAL writes it for float64: float32 does not hold it
    np.save(tmp_path / "c.npy", wide)
    assert read_pixels((tmp_path / "c.npy").read_bytes(), reading(2, "float", mean=(4.0, 7.0)))[1, 1, 0] == 4.0
    np.save(tmp_path / "b.npy", np.full((4, 4, 2), np.nan, np.float32))
    with pytest.raises(DataError, match="it holds no data"):
        read_pixels((tmp_path / "b.npy").read_bytes(), reading(2, "float"))


# damage


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header_of(shape: str, descr: str = "'<u2'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


REFUSED = {
    "objects": (saved(np.array([[object()]], object)), "Python objects"),
    "objects among bands": (saved(np.array([[1, None]], object)), "Python objects"),
    "complex numbers": (saved(np.zeros((4, 4, 2), np.complex64)), "complex numbers"),
    "text": (saved(np.array([["a"]])), "pixels are whole numbers or floats"),
    "a structure": (saved(np.zeros((4, 4), [("red", "u1"), ("nir", "u2")])), "pixels are whole numbers or floats"),
    "four axes": (saved(np.zeros((2, 4, 4, 3), np.uint8)), "2 x 4 x 4 x 3 is no image"),
    "no pixels": (saved(np.zeros((0, 4, 3), np.uint8)), "no pixels"),
    "a declared bomb": (header_of("(1000000, 1000000, 13)"), "MiB"),
    "a negative size": (header_of("(-4, 4, 3)"), "no pixels"),
    "a header that is code": (header_of("__import__('os').getcwd()"), "header"),
    "half a header": (header_of("(4, 4, 3)")[:30], "header"),
    "half its pixels": (saved(np.zeros((4, 4, 3), np.uint16))[:-10], "it ends after 86 of 96 bytes"),
    "a zip of nothing": (b"PK\3\4" + bytes(40), "NPZ"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_array_that_is_no_image_is_refused_with_the_reason(case):
    data, reason = REFUSED[case]
    with pytest.raises(DataError, match=reason) as refusal:
        read_pixels(data, reading(3))
    assert "\n" not in str(refusal.value)


def test_an_npz_that_unpacks_without_end_is_refused_before_it_is_unpacked():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header_of("(9000, 9000, 3)") + bytes(9000 * 9000))
    with pytest.raises(DataError, match="would unpack to"):
        read_pixels(file.getvalue(), reading(3))


def test_an_npz_of_many_members_is_refused_by_all_of_them_together():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header_of("(4, 4, 3)") + bytes(96))
    data = bytearray(file.getvalue())
    entry = data.rfind(b"PK\1\2")  # what the directory says of the member's size
    struct.pack_into("<I", data, entry + 20, 2**31)
    struct.pack_into("<I", data, entry + 24, 2**31)
    with pytest.raises(DataError, match="would unpack to 2,147,483,648 bytes"):
        read_pixels(bytes(data), reading(3))


def test_an_npz_with_several_images_names_them(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4, 3)), masks=np.zeros((4, 4)), more=np.zeros((5, 4)))
    with pytest.raises(DataError, match=r"masks \(4 x 4\), more \(5 x 4\)"):
        read_pixels((tmp_path / "a.npz").read_bytes(), reading(3))


@pytest.mark.parametrize("form", ["interleaved", "planar and tiled", "deflated", "LZW", "BigTIFF"])
def test_a_tiff_that_is_cut_off_or_changed_anywhere_never_ends_otherwise_than_in_a_refusal_or_in_pixels(tmp_path, form):
    write, how = TIFFS[form]
    write(tmp_path / "a.tif", pixels(8), **how)
    data = (tmp_path / "a.tif").read_bytes()
    rng = np.random.default_rng(0)
    damaged = [data[:at] for at in (*range(0, 400, 23), *np.linspace(400, len(data) - 1, 12).astype(int))]
    for _ in range(25):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 500), 3):
            changed[place] = rng.integers(256)
        damaged.append(bytes(changed))
    for cut in damaged:
        with contextlib.suppress(DataError):  # any other error fails the test
            found = read_pixels(cut, reading(5))
            assert found.dtype == np.float32 and np.isfinite(found).all()
    for at in (200, len(data) // 2, len(data) - 3):
        with pytest.raises(DataError):
            read_pixels(data[:at], reading(5))


def test_a_tiff_that_declares_more_than_memory_holds_is_refused_before_it_is_read(tmp_path):
    interleaved(tmp_path / "a.tif", pixels(1), compression="zlib")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (256, 257):  # its width and height, TIFF 6.0
            struct.pack_into("<I" if kind == 4 else "<H", data, entry + 8, 64_000)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match="MiB"):
        read_pixels((tmp_path / "a.tif").read_bytes(), reading(5))


def test_a_stack_of_depths_or_times_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 16, 16), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match="stack of 4"):
        read_pixels((tmp_path / "a.tif").read_bytes(), reading(4))


def test_the_channels_of_a_microscope_are_bands(tmp_path):
    values = np.ascontiguousarray(pixels(9, 4).transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "ij.tif", values, imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "ome.ome.tif", values, ome=True, metadata={"axes": "CYX"})
    for name in ("ij.tif", "ome.ome.tif"):
        data = (tmp_path / name).read_bytes()
        assert holds_bands(data)
        np.testing.assert_array_equal(read_pixels(data, reading(4)), values.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("values", "how", "bands"),
    [
        (pixels(1, 1, np.uint8)[:, :, 0], {"photometric": "minisblack"}, False),
        (pixels(1, 1, np.uint16)[:, :, 0], {"photometric": "minisblack"}, False),
        (pixels(1, 3, np.uint8), {"photometric": "rgb"}, False),
        (pixels(1, 4, np.uint8), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, False),
        (pixels(1, 4, np.uint8), {"photometric": "rgb", "extrasamples": ["unspecified"]}, True),
        (pixels(1, 3, np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, True),
        (pixels(1, 3, np.float32), {"photometric": "rgb"}, True),
        (pixels(1, 13, np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}, True),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_that_pillow_shows_whole_is_no_file_of_bands_and_every_other_is(tmp_path, values, how, bands, big):
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, bigtiff=big, **how)
    assert holds_bands((tmp_path / "a.tif").read_bytes()) is bands


# bands that are files


def spread(root, image: str, values: np.ndarray, names: tuple[str, ...]) -> None:
    for channel, name in enumerate(names):
        path = root / f"{image}{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, values[:, :, channel], metadata=None)


def test_files_of_one_band_each_are_one_image_in_the_order_of_its_bands(tmp_path):
    values = pixels(11, 4)
    spread(tmp_path, "s2/tile_", values, ("B02", "B03", "B08", "B8A"))
    store = BandStore(FolderStore(str(tmp_path)), ("B08", "B03"))
    for path in ("s2/tile_B08.tif", "s2/tile_B03.tif"):
        found = read_pixels(store.read(path), reading(2, bands=("B08", "B03"), file_bands=0))
        np.testing.assert_array_equal(found, values[:, :, [2, 1]])
    (tmp_path / "s2/tile_B03.tif").unlink()
    with pytest.raises(DataError, match="band 'B03' cannot be read"):
        store.read("s2/tile_B08.tif")


def test_a_band_of_half_the_resolution_is_repeated_and_one_of_another_shape_refused(tmp_path):
    fine, coarse = pixels(12, 1, side=16), pixels(13, 1, side=16)[::2, ::2]
    spread(tmp_path, "", fine, ("B02",))
    spread(tmp_path, "", coarse, ("B05",))
    spread(tmp_path, "", fine[:8], ("B07",))
    config = reading(2, bands=("B02", "B05"), file_bands=0)
    found = read_pixels(BandStore(FolderStore(str(tmp_path)), ("B02", "B05")).read("B02.tif"), config)
    np.testing.assert_array_equal(found[:, :, 1], coarse[:, :, 0].repeat(2, 0).repeat(2, 1))
    with pytest.raises(DataError, match="do not show the same place"):
        read_pixels(BandStore(FolderStore(str(tmp_path)), ("B02", "B07")).read("B02.tif"), config)


def test_each_file_of_an_image_marks_nothing_by_its_own_value(tmp_path):
    values = pixels(19, 3, np.int16)
    values[0, 0], values[1, 1] = -9999, 0
    for channel, (name, mark) in enumerate({"B02": "-9999", "B03": "0", "B04": ""}.items()):
        tags = [(42113, "s", 0, mark, True)] if mark else []
        tifffile.imwrite(tmp_path / f"{name}.tif", values[:, :, channel], metadata=None, extratags=tags)
    names = ("B04", "B03", "B02")
    config = reading(3, bands=names, file_bands=0, mean=(1.0, 2.0, 3.0))
    found = read_pixels(BandStore(FolderStore(str(tmp_path)), names).read("B02.tif"), config)
    assert found[0, 0].tolist() == [-9999, -9999, 3.0] and found[1, 1].tolist() == [0, 2.0, 0]


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("B02", "B03", "B11", "B8A"), ("B02", "B03", "B8A", "B11")),
        (("w1", "w2", "w10"), ("w1", "w2", "w10")),
        (("yellow", "green", "blue", "red"), ("red", "green", "blue", "yellow")),
        (("VH", "VV"), ("VV", "VH")),
        (("front", "back"), ()),
        (("1", "2", "3"), ()),
    ],
)
def test_names_that_speak_of_bands_are_understood_where_every_image_has_the_same(tmp_path, names, bands):
    for image in ("a/x_", "a/y_", "b/z_"):
        spread(tmp_path, image, pixels(1, len(names)), names)
    paths = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.tif"))
    store = FolderStore(str(tmp_path))
    assert found_bands(paths, store) == bands
    assert found_bands([*paths, "b/photo.jpg"], store) == ()
    if bands:
        assert [paths[place] for place in first_files(paths, bands)] == sorted(
            f"{image}{bands[0]}.tif" for image in ("a/x_", "a/y_", "b/z_")
        )


def test_photos_in_colour_whose_names_end_like_bands_stay_photos(tmp_path):
    for image in ("cat_b1", "cat_b2", "dog_b1", "dog_b2"):
        Image.fromarray(pixels(1, 3, np.uint8)).save(tmp_path / f"{image}.png")
    assert found_bands(sorted(path.name for path in tmp_path.iterdir()), FolderStore(str(tmp_path))) == ()


def test_a_band_is_a_word_of_its_own_and_the_longest_that_fits():
    assert band_of("a/tile_B8A.tif", ("B8", "B8A", "A")) == "B8A"
    assert band_of("a/tileB8.tif", ("B8",)) is None
    assert band_of("a/B8.tif", ("B8",)) == "B8"


# from decoded bands to the network


def test_bands_one_by_one_are_resized_as_pillow_resizes_colours():
    values = pixels(14, 3, np.uint8, side=50)
    config = InputConfig(size_px=32, eval_size_px=32)
    four = np.concatenate([values, values[:, :, :1]], 2)
    for resize in ("crop", "warp"):
        chosen = config.model_copy(update={"eval_resize": resize})
        colours, bands = eval_transform(values, chosen), eval_transform(four, chosen)
        np.testing.assert_array_equal(bands[:, :, :3], colours)
        np.testing.assert_array_equal(bands[:, :, 3], colours[:, :, 0])


def test_wide_bands_are_normalised_in_their_own_units_alike_with_torch_and_without():
    values = pixels(15, 5).astype(np.float32)[None]
    config = reading(5, mean=tuple(range(400, 405)), std=(3.0, 4.0, 50.0, 0.5, 7.0))
    expected = (values.astype(np.float64) - config.mean) / config.std
    found = normalise(torch.from_numpy(values.copy()), config)
    np.testing.assert_allclose(found.numpy().transpose(0, 2, 3, 1), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(found.numpy(), normalised(values, config))
    kept = torch.from_numpy(values.copy())
    normalise(kept, config)
    np.testing.assert_array_equal(kept.numpy(), values)


def test_for_eyes_three_bands_are_stretched_between_percentiles():
    values = pixels(16, 5).astype(np.float32)
    shown = for_eyes(values, (4, 0, 2))
    low, high = np.percentile(values[:, :, 4], (2, 98))
    assert shown.shape == (*values.shape[:2], 3) and shown.dtype == np.uint8
    assert (shown[:, :, 0][values[:, :, 4] >= high] == 255).all() and (
        shown[:, :, 0][values[:, :, 4] <= low] == 0
    ).all()
    assert not for_eyes(np.full((4, 4, 1), 7.0, np.float32)).any()


def test_without_bands_a_file_is_decoded_as_before():
    file = io.BytesIO()
    Image.fromarray(pixels(17, 3, np.uint8)).save(file, "JPEG")
    np.testing.assert_array_equal(read_pixels(file.getvalue(), InputConfig()), decode(file.getvalue()))
    assert opened(file.getvalue()).shape == (16, 18, 3)
