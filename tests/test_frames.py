"""Files that hold more than one image: the first is read, and every answer says that there are others."""

import contextlib
import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from checkpoints import checkpoint_of
from commands import convnext
from convnext.data.decode import Opened, decode
from convnext.data.labelled import Dataset, Entry
from convnext.data.preflight import preflight
from convnext.data.store import FolderStore
from convnext.deploy.load import load
from convnext.deploy.serve.models import open_models
from convnext.errors import DataError
from serving import one

COLOURS = ("red", "lime", "blue", "white", "black")


def frames(kind: str, count: int, **how: object) -> bytes:
    """A file of `count` frames, each of another colour, as Pillow writes it."""
    first, *others = (Image.new("RGB", (40, 30), colour) for colour in COLOURS[:count])
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=others, **how)
    return stream.getvalue()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_frames_of_a_file_are_counted_and_the_first_is_read(kind, count):
    data = frames(kind, count)
    opened = Opened(data)
    assert opened.frames == count
    assert np.abs(decode(data)[15, 20].astype(int) - (254 if kind == "WEBP" else 255, 0, 0)).max() < 3


def test_pages_of_big_tiff_count_too():
    assert Opened(frames("TIFF", 4, big_tiff=True)).frames == 4


def test_what_belongs_to_a_page_is_no_page_and_the_second_image_of_a_photograph_no_frame():
    data = bytearray(frames("TIFF", 3, tiffinfo={254: 0}))
    tag = struct.pack("<HHI", 254, 4, 1)
    places = [place for place in range(len(data)) if data[place : place + 8] == tag]
    for place, kind in zip(places, (0, 1, 4), strict=True):  # a page, a smaller copy, a mask: TIFF 6.0, NewSubfileType
        struct.pack_into("<I", data, place + 8, kind)
    assert Opened(bytes(data)).frames == 1
    assert Opened(frames("MPO", 2)).frames == 1


def test_a_chain_of_pages_that_leads_back_ends():
    data = bytearray(frames("TIFF", 1))
    (first,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * tags, first)
    assert Opened(bytes(data)).frames == 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["GIF", "TIFF", "PNG", "WEBP"]), st.data())
def test_damaged_files_have_one_frame_or_more(kind, data):
    whole = bytearray(frames(kind, 3))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        assert Opened(bytes(whole[: data.draw(st.integers(0, len(whole)))])).frames >= 1


def test_predict_and_the_server_say_that_there_are_others(tmp_path):
    run = checkpoint_of("classification", tmp_path)
    file = tmp_path / "several.gif"
    file.write_bytes(frames("GIF", 3))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "one.png")
    several, alone = load(run, device="cpu").predict([file, tmp_path / "one.png"])
    assert several.frames == 3 and several.to_dict()["frames"] == 3 and several.scored == alone.scored
    assert alone.frames == 1 and "frames" not in alone.to_dict()
    done = convnext("predict", run, file, tmp_path / "one.png", "--json", "--device", "cpu")
    assert [json.loads(line).get("frames") for line in done.out.splitlines()] == [3, None]
    assert (
        f"1 image has more frames or pages than the first, which alone is read: {file} (3). "
        "Save the others as images of their own to predict them too." in done.err
    )
    (row,) = one(open_models([str(run)], device="cpu"), "POST", "/v1/predict", content=file.read_bytes()).json()[
        "results"
    ]
    assert row["frames"] == 3


def test_the_look_before_training_says_so(tmp_path):
    (tmp_path / "a.tif").write_bytes(frames("TIFF", 2))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "b.png")
    entries = (Entry("a.tif", 0), Entry("b.png", 1))
    found = preflight(Dataset(("a", "b"), entries, FolderStore(str(tmp_path))))
    assert "1 image has more frames or pages than the first, which alone is read: a.tif (2)." in found.lines
