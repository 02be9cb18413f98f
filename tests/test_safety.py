"""What hostile data do: one line, in bounded time and memory, and nothing is left open. The long form is in benchmarks/."""

import io
import json
import os
import socket
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import convnext
from convnext.data import decode as decoding
from convnext.data import limits
from convnext.data.decode import decode
from convnext.data.formats.yolo_yaml import read_yaml
from convnext.data.masks import rasterise
from convnext.data.opening import open_dense, recognise
from convnext.data.store import FolderStore, ZipStore, tree_of
from convnext.errors import ConvNeXtError, DataError

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
damage = pytest.importorskip("damage_data", reason="the benchmarks do not come with the package")


def test_a_damaged_image_is_read_or_refused_in_one_line():
    counts, failures = damage.attack_images(150, seed=5)
    assert not failures
    assert counts["read"] > 20 and counts["refused"] > 20


def test_a_damaged_annotation_is_read_or_refused_in_one_line(tmp_path):
    counts, failures = damage.attack_annotations(tmp_path, 60, seed=5)
    assert not failures
    assert counts["read"] > 10 and counts["refused"] > 10


def special(kind: str, path: Path) -> None:
    """Something that is no file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    else:
        path.mkdir()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none of these")
@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder"])
@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.xml", "data.yaml", "t.jsonl", "a.jpg"])
def test_what_is_no_file_is_named_and_never_waited_for(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    special(kind, Path(name))
    said = f"it is a {kind}, not a file" if kind in ("pipe", "device") else "."  # others the system refuses itself
    with pytest.raises((DataError, OSError), match=said):
        FolderStore(str(tmp_path)).read(name)
    if kind != "folder":
        line = convnext("train", name, "--out", "run").line
        assert "Traceback" not in line and name in line


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg"])
def test_a_name_that_no_file_can_have_is_a_reason(name, tmp_path):
    with pytest.raises(DataError, match="its name is none that a file can have"):
        FolderStore(str(tmp_path)).read(name)


def test_a_member_that_unpacks_to_far_more_than_it_takes_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.json", "w") as member:
        for _ in range(100):
            member.write(bytes(1 << 20))
    with pytest.raises(DataError, match="would unpack to 104,857,600"):
        ZipStore(str(file)).read("bomb.json")


@pytest.mark.parametrize(
    ("place", "value"), [(6, b"\xff\x00"), (10, b"\x0c\x00"), (20, b"\xff\xff\xff\x7f"), (42, b"\xff\xff\xff\x7f")]
)
def test_a_zip_of_an_unknown_version_or_method_or_with_wrong_sizes_is_one_line(place, value, tmp_path):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.png", b"x" * 50)
    data = bytearray(file.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + place : entry + place + len(value)] = value
    file.write_bytes(data)
    with pytest.raises(DataError) as refused:
        ZipStore(str(file)).read("a/1.png")
    assert "\n" not in str(refused.value)


def test_folders_in_folders_without_end_are_one_line(tmp_path):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/" * 20_000 + "1.png", b"x")
    with pytest.raises(DataError, match="more than 100 folders one in the other"):
        tree_of(file)
    deep = tmp_path / "deep"
    deep.joinpath(*["d"] * 150).mkdir(parents=True)
    with pytest.raises(DataError, match="more than 100 folders one in the other"):
        tree_of(deep)


def png(width: int, height: int) -> bytes:
    """A PNG that says that it is as large, with one line of pixels."""

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(bytes(100))) + piece(b"IEND", b"")


def test_an_image_that_says_that_it_is_too_large_is_refused_by_its_header():
    with pytest.raises(DataError, match="pixels"):
        decode(png(60_000, 60_000))


def test_a_format_that_takes_more_memory_may_have_fewer_pixels(monkeypatch):
    monkeypatch.setattr(limits, "MAX_MEMORY", 1 << 20)
    files = {}
    for form in ("PNG", "WEBP"):
        held = io.BytesIO()
        Image.new("RGB", (280, 280)).save(held, form)
        files[form] = held.getvalue()
    assert decode(files["PNG"]).shape == (280, 280, 3)
    with pytest.raises(DataError, match="280 x 280 is more than 52,428 pixels of this format"):
        decode(files["WEBP"])


def test_a_large_image_is_converted_in_bands_to_the_same_pixels(monkeypatch):
    for name, data in damage.images().items():
        for channels in (1, 3):
            whole = decode(data, channels=channels)
            monkeypatch.setattr(decoding, "_BAND", 300)
            assert np.array_equal(decode(data, channels=channels), whole), name
            monkeypatch.undo()


def test_an_outline_that_runs_to_and_fro_is_not_drawn():
    points = np.array([[0, 0], [90_000, 90_000]] * 200, np.float64)
    with pytest.raises(DataError, match="too long to be drawn"):
        rasterise((points,), 10, 10)


def coco(folder: Path, **changed: Any) -> Path:
    """One image with one object, some values of which are changed: 'image.height', 'annotation.id'..."""
    Image.new("RGB", (50, 40)).save(folder / "a.jpg")
    image: dict[str, Any] = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 50}
    row: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 8], "iscrowd": 0, "area": 72}
    for key, value in changed.items():
        where, _, name = key.partition("_")
        {"image": image, "row": row}[where][name] = value
    content = {"images": [image], "annotations": [row], "categories": [{"id": row["category_id"], "name": "x"}]}
    (folder / "c.json").write_text(json.dumps(content))
    return folder / "c.json"


@pytest.mark.parametrize("value", [10**30, 10**400, float("nan"), float("inf"), "\ud800", "\0", [], {}, None, -1])
@pytest.mark.parametrize(
    "key", ["image_id", "image_height", "image_file_name", "row_id", "row_area", "row_bbox", "row_category_id"]
)
def test_odd_values_of_coco_are_read_or_refused_in_one_line(key, value, tmp_path):
    said = ""
    try:
        assert len(open_dense(recognise(coco(tmp_path, **{key: value}))).entries) == 1
    except ConvNeXtError as refused:
        said = str(refused)
    assert "\n" not in said and len(said) < 1000


def test_a_number_in_yaml_does_not_make_up_a_billion_classes(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 .5 .5 .2 .2")
    (tmp_path / "data.yaml").write_text("names: {1000000000: a}")
    with pytest.raises(DataError, match="numbered up to 1,000,000,000, more than 1,000,000 classes"):
        open_dense(recognise(tmp_path))


@pytest.mark.parametrize(
    "text", ['"' * 300_000, "names: [" + "a,\n" * 100_000, "names: " + "\\" * 300_000 + '"', "a: '" * 100_000]
)
def test_yaml_is_read_in_time_that_grows_with_its_length(text):
    done = threading.Event()
    threading.Thread(target=lambda: (read_yaml(text), done.set()), daemon=True).start()
    assert done.wait(30)


@pytest.mark.parametrize("header", ["x" * 131_073, "path," + "y" * 131_073, ",".join(f"c{n}" for n in range(50_000))])
def test_a_header_of_great_length_is_one_line(header, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(header + "\na,b\n")
    line = convnext("train", file, "--out", tmp_path / "run").line
    assert len(line) < 5000


@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_entities_of_xml_are_refused(codec, tmp_path):
    ends = zip("abcdefgh", "bcdefghi", strict=True)
    grow = "".join(f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in ends)
    body = "<annotation><object><name>&i;</name></object></annotation>"
    (tmp_path / "a.xml").write_bytes(f'<!DOCTYPE annotation [<!ENTITY a "aaaa">{grow}]>{body}'.encode(codec))
    Image.new("RGB", (50, 40)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"no object|annotations|entities"):
        open_dense(recognise(tmp_path, form="voc"))


def opened() -> int:
    """Descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_nothing_that_is_opened_stays_open(tmp_path):
    sets = damage.data_sets(tmp_path)
    asks: list[Callable[[], object]] = [lambda path=path: damage.opened(path, None) for path in sets.values()]
    for ask in asks:
        ask()
    before, threads = opened(), threading.active_count()
    for _ in range(5):
        for ask in asks:
            ask()
    assert opened() <= before and threading.active_count() <= threads


def test_limits_are_those_that_the_page_promises():
    assert limits.MAX_PIXELS == 178_956_970 and limits.MAX_MEMORY == 2 << 30
