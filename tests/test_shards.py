"""Shards hold the data set that they were made of, for this package to the bit and for others as plain tar files."""

import gc
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import foreign
from commands import convnext, trained
from convnext.data.annotated import Objects
from convnext.data.opening import open_parts, open_splits, recognise
from convnext.data.shards import again, arrays, index, write
from convnext.data.shards.plan import planned
from convnext.data.shards.tar import TarWriter
from convnext.data.shards.target import FolderTarget
from convnext.data.shards.write import write_shards
from convnext.data.stores.place import FolderPlace
from convnext.data.unlabelled import open_unlabelled
from convnext.errors import DataError
from images import COLOURS, write_colours, zipped
from runs import bits
from test_data_once import CASES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "data")


def shards_of(data: Path, out: Path, **how: Any) -> Path:
    write_shards(recognise(data), out, **how)
    return out


def contents(place: Path, **how: Any) -> Any:
    """All that a data set says, with the bytes of its images and masks."""
    source = recognise(place, **how)
    if source.task == "classification":
        splits = open_splits(source)
        rows = [[(entry, part.store.read(entry.path)) for entry in part.entries] for part in (splits.train, splits.val)]
        return splits.train.classes, rows, splits.notes, splits.left_out
    found = {}
    for part, held in open_parts(source).items():
        rows = [
            (
                entry.path, entry.image_id, entry.size, entry.semantic, _plain(entry.objects), held.store.read(entry.path),
                entry.semantic and held.store.read(entry.semantic),
            )
            for entry in held.entries
        ]  # fmt: skip
        found[part] = rows, held.classes, held.category_ids, held.values, held.ignored, held.notes, held.problems
    return found


def _plain(objects: Objects | None) -> Any:
    if objects is None:
        return None
    shapes = [
        [points.tolist() for points in each] if isinstance(each, tuple) else repr(each) for each in objects.shapes
    ]
    return [repr(getattr(objects, name).tolist()) for name in ("boxes", "labels", "crowd", "area", "ids")], shapes


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_shards_say_what_the_data_said_in_every_form(tmp_path, case, packed):
    write_it, form = CASES[case]
    write_it(tmp_path / "data")
    place = zipped(tmp_path / "data", tmp_path / "data.zip") if packed else tmp_path / "data"
    before = contents(place, form=form)
    write_shards(recognise(place, form=form), tmp_path / "out", per_shard=3)
    shutil.rmtree(tmp_path / "data")
    assert contents(tmp_path / "out") == before
    assert recognise(tmp_path / "out").form == form


def test_outlines_are_learnt_as_masks_too(tmp_path):
    foreign.write_coco(tmp_path / "data", foreign.small("polygons"))
    before = contents(tmp_path / "data", task="segmentation")
    shards_of(tmp_path / "data", tmp_path / "out")
    assert contents(tmp_path / "out", task="segmentation") == before


def test_a_table_may_name_images_that_lie_anywhere(tmp_path, data):
    files = sorted(data.rglob("*.png"))
    rows = [
        f"{file if n % 2 else os.path.relpath(file, tmp_path / 'deep')},{file.parent.name}"
        for n, file in enumerate(files)
    ]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "all.csv").write_text("\n".join(["path,label", *rows]))
    before = contents(tmp_path / "deep" / "all.csv")
    shards_of(tmp_path / "deep" / "all.csv", tmp_path / "out")
    shutil.rmtree(data)
    assert contents(tmp_path / "out") == before


def test_images_whose_bands_are_files_keep_them_together(tmp_path):
    for n in range(6):
        place = tmp_path / "data" / ("low", "high")[n % 2] / f"tile{n}"
        place.mkdir(parents=True)
        for band in ("B02", "B03", "B8A"):
            Image.fromarray(np.full((8, 8), 20 * n, np.uint8)).save(place / f"{band}.tif")
    before = contents(tmp_path / "data")
    assert len(before[1][0]) + len(before[1][1]) == 6
    shards_of(tmp_path / "data", tmp_path / "out")
    shutil.rmtree(tmp_path / "data")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "name", ["a.b.c.png", "straße.png", "a b.png", "日本.png", "a\nb.png", "no ending", "x" * 200 + ".png", "A.PNG"]
)
def test_any_name_will_do(tmp_path, data, name):
    odd = data / "train" / "red" / name
    shutil.copy(data / "train" / "red" / "000.png", odd)
    (data / "train" / "red" / "000.jpg").write_bytes(odd.read_bytes())  # beside 000.png
    before = contents(data)
    shards_of(data, tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_a_name_that_is_no_text_comes_back(tmp_path, data):
    os.rename(data / "train" / "red" / "000.png", os.fsencode(data / "train" / "red") + b"/\xff.png")
    before = contents(data)
    assert contents(shards_of(data, tmp_path / "out")) == before
    assert any("\udcff" in entry.path for entry, _ in before[1][0])


QUIET = pytest.mark.filterwarnings(  # others leave their files open
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@QUIET
def test_the_tar_files_are_plain_and_read_by_webdataset(tmp_path, data):
    webdataset = pytest.importorskip("webdataset")
    out = shards_of(data, tmp_path / "out", per_shard=10)
    names = [f"train-{number:06d}.tar" for number in range(4)]
    read = webdataset.WebDataset([str(out / name) for name in names], shardshuffle=False)
    samples = list(read)
    del read
    gc.collect()
    assert len(samples) == 36 and len({sample["__key__"] for sample in samples}) == 36
    classes = sorted(COLOURS.keys() - {"grey"})
    for sample in samples:
        about = json.loads(sample["json"])
        assert sample["png"] == (data / about["path"]).read_bytes()
        assert classes[int(sample["cls"])] == about["class"] == about["path"].split("/")[1]
    assert len({sample["cls"] for sample in samples[:10]}) == 3  # who reads from the front sees all classes


@QUIET
def test_timm_reads_them(tmp_path, data):
    pytest.importorskip("webdataset")
    from timm.data import create_dataset

    out = shards_of(data, tmp_path / "out", per_shard=10)
    for part, count in (("train", 36), ("val", 12)):
        images = create_dataset("wds/", root=str(out), split=part, batch_size=1, seed=0)
        found = [(np.asarray(image).mean((0, 1)).argmax(), target) for image, target in images]
        assert len(found) == len(images) == count
        assert {(2, 0), (1, 1), (0, 2)} == set(found)  # blue, green, red: classes in the order of their names
        del images
        gc.collect()


def test_boxes_are_told_to_others_as_coco_has_them(tmp_path):
    content = foreign.small("polygons")
    foreign.write_coco(tmp_path / "data", content)
    out = shards_of(tmp_path / "data", tmp_path / "out")
    held = [pair for file in out.glob("[!f]*.tar") for pair in members(file).items()]
    said = [json.loads(text) for name, text in held if name.endswith(".json")]
    boxes = sorted((each["category"], *each["bbox"]) for image in said for each in image["annotations"])
    wanted = sorted(
        (thing.label, *thing.box[:2], thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
        for image in content
        for thing in image.things
    )
    assert np.allclose([box[1:] for box in boxes], [box[1:] for box in wanted], atol=0.01)
    assert [box[0] for box in boxes] == [box[0] for box in wanted]
    files = members(out / "files-000000.tar")
    assert files and all(json.loads(held)["images"] for held in files.values())  # the annotations as they were
    for kept in (False, True):
        done = write_shards(recognise(tmp_path / "data"), tmp_path / "counted")
        assert done.shards == len(list(out.glob("[!f]*.tar"))) and done.kept == done.shards * kept
        assert done.bytes == sum(file.stat().st_size for file in out.glob("*.tar"))


def test_the_parts_of_the_data_are_those_of_the_shards(tmp_path, data):
    shutil.copytree(data / "val", data / "test")
    done = write_shards(recognise(data), tmp_path / "out", per_shard=7)
    assert done.parts == {"train": 36, "val": 12, "test": 12}
    record = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert [each["images"] for each in record["shards"]] == [7] * 5 + [1] + [7, 5] * 2
    assert sorted(file.name for file in (tmp_path / "out").glob("val*")) == ["val-000000.tar", "val-000001.tar"]


def test_a_run_on_shards_is_the_run_on_the_folder_to_the_bit_also_where_it_stopped(tmp_path, data):
    assert convnext("shard", data, tmp_path / "out", "--images-per-shard", 8).status == 0
    trained(data, tmp_path / "folder", "--schedule.steps", 10)
    for out, more in (("shards", ("--workers", 2)), ("resumed", ())):
        trained(tmp_path / "out", tmp_path / out, "--schedule.steps", 10, *more)
    assert bits(tmp_path / "shards") == bits(tmp_path / "folder") == bits(tmp_path / "resumed")
    digests = [(tmp_path / name / "images.digests").read_bytes() for name in ("folder", "shards")]
    assert digests[0] == digests[1]
    scored = convnext("evaluate", tmp_path / "folder", tmp_path / "out", "--json", "--workers", 0)
    assert json.loads(scored.out) == json.loads(
        convnext("evaluate", tmp_path / "folder", data, "--json", "--workers", 0).out
    )


def test_the_same_data_give_the_same_bytes_and_a_second_call_writes_nothing(tmp_path, data):
    first, again = shards_of(data, tmp_path / "first"), shards_of(data, tmp_path / "again")
    names = sorted(file.name for file in first.iterdir())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)
    stamps = [(first / name).stat().st_mtime_ns for name in names]
    said = convnext("shard", data, first)
    assert said.status == 0 and "all of them were there already" in said.out
    assert stamps == [(first / name).stat().st_mtime_ns for name in names]


@pytest.mark.parametrize("at", [1, 30, 95, 152])
def test_shards_that_a_killed_process_left_are_no_data_and_are_finished_by_the_next(tmp_path, data, at):
    whole = shards_of(data, tmp_path / "whole", per_shard=10)
    code = (
        "import os, sys\nfrom convnext.data.opening import recognise\nfrom convnext.data.shards import tar, target, write\n"
        "left, add, put = [int(sys.argv[1])], tar.TarWriter.add, target.write_bytes\n"
        "def counted(do):\n"
        "    def call(*given):\n        left[0] -= 1\n        os._exit(9) if left[0] < 0 else None\n        return do(*given)\n"
        "    return call\n"
        "tar.TarWriter.add, target.write_bytes = counted(add), counted(put)\n"
        "from pathlib import Path\n"
        "write.write_shards(recognise(sys.argv[2]), Path(sys.argv[3]), per_shard=10)\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, str(at), str(data), str(out)], check=False, env=dict(os.environ))
    assert done.returncode == 9
    line = convnext("train", out, "--out", tmp_path / "run").line
    assert "shards.json, which is written last, is not there" in line and line.endswith("copy all files.")
    half = len(list(out.glob("*.tar")))
    again = write_shards(recognise(data), out, per_shard=10)
    assert again.kept in (half - 1, half) or half == 0
    names = sorted(file.name for file in whole.iterdir())
    assert sorted(file.name for file in out.iterdir()) == names
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in names)


def test_an_image_that_changed_while_nobody_wrote_is_written_anew(tmp_path, data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(write, "packed", _fail)
        with pytest.raises(KeyboardInterrupt):
            shards_of(data, tmp_path / "out", per_shard=10)
    Image.new("RGB", (9, 9)).save(data / "train" / "red" / "003.png")
    assert write_shards(recognise(data), tmp_path / "out", per_shard=10).kept == 5
    assert contents(tmp_path / "out") == contents(data)


def _overwrite(data: Path, name: str = "red/003") -> None:
    """Another image, of the same number of bytes."""
    file = data / "train" / f"{name}.png"
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)


def test_an_image_that_changed_since_shards_are_whole_is_written_anew_and_nothing_else(tmp_path, data):
    out = shards_of(data, tmp_path / "out", per_shard=10)
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("*.tar")}
    _overwrite(data)
    said = convnext("shard", data, out, "--images-per-shard", 10)
    assert said.status == 0 and "; 5 shards of them were there already" in said.out
    assert sum(file.stat().st_mtime_ns != before[file.name] for file in out.glob("*.tar")) == 1
    assert contents(out) == contents(data) and convnext("verify", out).status == 0
    assert "all of them" in convnext("shard", data, out, "--images-per-shard", 10).out
    new = shards_of(data, tmp_path / "new", per_shard=10)
    names = {file.name for file in new.iterdir()}
    assert {file.name for file in out.iterdir()} - {".lock"} == names
    assert all((out / name).read_bytes() == (new / name).read_bytes() for name in names)


@pytest.mark.parametrize("times", [True, False])
def test_images_with_other_times_are_compared_once_and_nothing_is_written(tmp_path, data, monkeypatch, times):
    out = shards_of(data, tmp_path / "out", per_shard=10)
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir() if file.name != "times.npz"}
    for file in data.rglob("*.png"):
        os.utime(file, (1, 1))
    if not times:
        (out / "times.npz").write_bytes(b"PK")
    assert write_shards(recognise(data), out, per_shard=10).kept == 6
    assert before == {file.name: file.stat().st_mtime_ns for file in out.iterdir() if file.name != "times.npz"}
    monkeypatch.setattr(again, "_same_bytes", _fail)
    assert write_shards(recognise(data), out, per_shard=10).kept == 6


@pytest.mark.parametrize("kind", ["zip", "shards"])
def test_an_image_that_changed_in_a_zip_or_in_shards_is_noticed_without_reading_any(tmp_path, data, monkeypatch, kind):
    def made() -> Path:
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        return zipped(data, tmp_path / "a.zip") if kind == "zip" else shards_of(data, tmp_path / "source")

    out = shards_of(made(), tmp_path / "out", per_shard=10)
    monkeypatch.setattr(again, "_same_bytes", lambda *_: False)
    assert write_shards(recognise(made()), out, per_shard=10).kept == 6
    _overwrite(data)
    assert write_shards(recognise(made()), out, per_shard=10).kept == 5
    assert contents(out)[1] == contents(data)[1]


@pytest.mark.parametrize("at", [0, 3, 5, 6, 7, 9])
def test_whole_shards_that_are_mended_are_never_a_mixture(tmp_path, data, monkeypatch, at):
    out = shards_of(data, tmp_path / "out", per_shard=10)
    old = contents(data)
    _overwrite(data)
    calls = [at]

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            calls[0] -= 1
            return do(*given) if calls[0] >= 0 else _fail()

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "remove"):
            patch.setattr(FolderTarget, name, counted(getattr(FolderTarget, name)))
        with pytest.raises(KeyboardInterrupt):
            write_shards(recognise(data), out, per_shard=10)
    if (out / "shards.json").exists():
        assert contents(out) == old and convnext("verify", out).status == 0
    else:
        with pytest.raises(DataError, match="which is written last, is not there"):
            recognise(out)
    write_shards(recognise(data), out, per_shard=10)
    assert contents(out) == contents(data) != old
    assert not (out / ".unfinished-shards").exists()


def test_an_image_that_can_be_read_by_now_is_written_and_one_that_cannot_is_named_each_time(tmp_path, data):
    (data / "train" / "red" / "gone.png").symlink_to(tmp_path / "nothing")
    out = tmp_path / "out"
    for kept in (0, 6):
        done = write_shards(recognise(data), out, per_shard=10)
        assert done.kept == kept and list(done.left_out) == ["train/red/gone.png"]
    shutil.copy(data / "train" / "red" / "000.png", tmp_path / "nothing")
    done = write_shards(recognise(data), out, per_shard=10)
    assert done.kept == 5 and not done.left_out
    assert contents(out) == contents(data)


def test_a_tar_file_that_is_gone_or_cut_is_written_anew(tmp_path, data):
    out = shards_of(data, tmp_path / "out", per_shard=10)
    (out / "train-000001.tar").unlink()
    os.truncate(out / "val-000000.tar", 512)
    assert write_shards(recognise(data), out, per_shard=10).kept == 4
    assert convnext("verify", out).status == 0


def test_an_image_that_changes_while_it_is_written_is_noticed_by_the_next(tmp_path, data, monkeypatch):
    whole, changed = TarWriter.add, []

    def add(self: TarWriter, name: str, held: bytes) -> tuple[int, int, int]:
        if held == before and not changed:
            changed.append(name)
            _overwrite(data, "red/003")
        return whole(self, name, held)

    Image.new("RGB", (9, 9), (1, 2, 3)).save(data / "train" / "red" / "003.png")
    before = (data / "train" / "red" / "003.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(TarWriter, "add", add)
        out = shards_of(data, tmp_path / "out", per_shard=10)
    assert changed and write_shards(recognise(data), out, per_shard=10).kept == 5
    assert contents(out) == contents(data)


def _fail(*_: object) -> bytes:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_line_and_what_is_finished_stays(tmp_path, data, monkeypatch):
    left = [60]

    def add(self: TarWriter, name: str, held: bytes) -> tuple[int, int, int]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return whole(self, name, held)

    whole = TarWriter.add
    with monkeypatch.context() as patch:
        patch.setattr(TarWriter, "add", add)
        line = convnext("shard", data, tmp_path / "out", "--images-per-shard", 10).line
    assert "No space left on device. Make room and give the same command again" in line
    assert sorted(file.name for file in (tmp_path / "out").glob("*.tar")) == ["train-000000.tar", "train-000001.tar"]
    assert "2 shards of them" in convnext("shard", data, tmp_path / "out", "--images-per-shard", 10).out
    assert contents(tmp_path / "out") == contents(data)


def test_verify_names_a_damaged_shard_and_the_images_in_it(tmp_path, data):
    out = shards_of(data, tmp_path / "out", per_shard=10)
    assert convnext("verify", out).status == 0
    file = out / "train-000001.tar"
    held = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        image = tar.next()
        about = json.loads(tar.extractfile(image.name.replace(".png", ".json")).read())  # type: ignore[union-attr]
    held[image.offset_data + 30] ^= 4  # type: ignore[union-attr]
    file.write_bytes(held)
    said = convnext("verify", out)
    assert said.status == 1
    assert f"{file}: Its checksum is wrong: 1 file in it damaged, {about['path']}. Copy it again." in said.out
    run = trained(out, tmp_path / "run")
    assert f"{about['path']} (its shard 'train-000001.tar' is damaged" in run.err
    file.write_bytes(held[:20000])
    assert "It has 20,000 bytes, and 51,200 were written" in convnext("verify", out).out
    file.unlink()
    assert "train-000001.tar: It cannot be read: No such file or directory" in convnext("verify", out).out
    with pytest.raises(DataError, match=r"its shard 'train-000001\.tar' is missing"):
        contents(out)


def _edited(out: Path, **values: Any) -> None:
    record = json.loads((out / "shards.json").read_text())
    (out / "shards.json").write_text(json.dumps(record | values))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda out: (out / "shards.json").write_text("{"), "shards.json' cannot be read: it is not JSON"),
        (lambda out: (out / "shards.json").write_text("[]"), "shards.json' is damaged. Copy it again"),
        (lambda out: _edited(out, version=2), "a newer version, 2. Install a newer convnext"),
        (lambda out: _edited(out, form="cubes"), "shards.json' is damaged"),
        (lambda out: _edited(out, shards=[{"name": "../x"}]), "shards.json' is damaged"),
        (lambda out: (out / "index.npz").write_bytes(b"PK"), "it is not what was written (wrong checksum)"),
        (lambda out: (out / "index.npz").unlink(), "index.npz' cannot be used: No such file or directory"),
    ],
)
def test_a_damaged_record_or_index_is_one_line(tmp_path, data, harm: Callable[[Path], Any], says):
    out = shards_of(data, tmp_path / "out")
    harm(out)
    assert says in convnext("train", out, "--out", tmp_path / "run").line
    assert convnext("verify", out).status == 1


def test_what_cannot_be_is_refused_before_it_is_written(tmp_path, data):
    assert "is among the images" in convnext("shard", data, data / "out").line
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "is not empty: it holds 'mine.txt'. Name a new folder." in convnext("shard", data, tmp_path / "full").line
    out = shards_of(data, tmp_path / "out")
    assert "holds shards of other images" in convnext("shard", data, out, "--images-per-shard", 5).line
    assert "does not exist" in convnext("shard", tmp_path / "dta", tmp_path / "x").line
    assert not (tmp_path / "x").exists()
    assert "its shards are of form folders" in convnext("train", out, "--form", "coco", "--out", tmp_path / "run").line
    said = convnext("train", out, "--task", "detection", "--out", tmp_path / "run").line
    assert "for classification, and --task is detection. Leave it out" in said


def test_an_image_that_cannot_be_read_is_named_and_lies_in_no_shard(tmp_path, data):
    (data / "train" / "red" / "gone.png").symlink_to(tmp_path / "nothing")
    said = convnext("shard", data, tmp_path / "out")
    assert "1 image could not be read and lie" not in said.out or said.status == 0
    assert "train/red/gone.png': No such file or directory" in said.out
    assert (
        "could not be read, or was not needed, when the shards were written"
        in trained(tmp_path / "out", tmp_path / "run").err
    )


def test_an_audit_reads_shards(tmp_path, data):
    out = shards_of(data, tmp_path / "out")
    run = tmp_path / "run"
    trained(data, run)
    how = ("--weights", run, "--folds", 2, "--workers", 0, "--json")
    found = [convnext("audit", place, "--out", tmp_path / f"audit{n}", *how) for n, place in enumerate((data, out))]
    assert [each.status for each in found] == [0, 0], found[1].err
    tables = [(tmp_path / f"audit{n}" / "audit.csv").read_text() for n in range(2)]
    assert tables[0] == tables[1]


def _spoilt(**columns: Any) -> bytes:
    files = index.files_of(["a/b", "c"], 2, (), {"c": index.Member(0, 0, 1, 2)})
    made = dict(np.load(io.BytesIO(index.packed([files]))))
    made |= {f"0.{key}": np.array(value, made[f"0.{key}"].dtype) for key, value in columns.items()}
    held = io.BytesIO()
    np.savez(held, **made)
    return held.getvalue()


@pytest.mark.parametrize(
    "columns",
    [
        {"prefix": [0, 9]}, {"prefix": [0]}, {"rows": [0, 5]}, {"rows": [-1, 0]}, {"ends": [0, 1, 99]}, {"ends": [0, -3, 2]},
        {"ends": [1, 1, 2]}, {"ends": [0, 5, 2]}, {"ends": [0, 2]}, {"first": [-9, 0]}, {"shard": [-2, 0]},
        {"size": [0, -1]}, {"text": []}, {"listed": []},
    ],
)  # fmt: skip
def test_an_index_that_leads_out_of_itself_is_no_index(columns):
    with pytest.raises(DataError, match="it is no index of shards"):
        index.unpacked(_spoilt(**columns))


def test_an_index_that_would_unpack_to_more_is_no_index():
    held = io.BytesIO()
    np.savez_compressed(held, **{"0.text": np.zeros(1 << 20, np.uint8)})
    for data in (held.getvalue(), b"", b"PK", index.packed([])[:-1]):
        with pytest.raises(DataError, match="it is no index of shards"):
            index.unpacked(data)


def test_a_file_of_that_name_in_class_folders_makes_no_shards(tmp_path, data):
    before = contents(data)
    (data / "shards.json").write_text('["mine"]')
    assert contents(data)[:2] == before[:2]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(max_size=9).filter(lambda name: "\0" not in name), unique=True, max_size=20),
    st.text(),
    st.booleans(),
)
def test_every_name_is_found_and_no_other_even_where_hashes_meet(names, other, meet):
    with pytest.MonkeyPatch.context() as patch:
        if meet:
            patch.setattr(index, "_hash", len)
        places = {name: index.Member(0, number, 1, 2) for number, name in enumerate(names)}
        files = index.files_of(names, len(names), ("a", "a/b"), places)
        (files,) = index.unpacked(index.packed([files]))
        files = pickle.loads(pickle.dumps(files))
        assert [files.member(files.find(name)) for name in names] == list(places.values())
        assert other in places or files.find(other) is None
        assert files.folders == ("a", "a/b") and list(files.names) == names


def test_more_files_than_rows_are_refused_before_anything_is_written(tmp_path, data, monkeypatch):
    monkeypatch.setattr(index, "MOST", 47)
    line = convnext("shard", data, tmp_path / "out").line
    assert line.startswith("These are 48 files, and 47 are the most in one data set of shards. Write parts of them")
    assert not list(tmp_path.glob("out/*.tar"))


def test_memory_of_an_entry_is_a_few_bytes(tmp_path):
    names = [f"train/n{k % 1000:08d}/n{k % 1000:08d}_{k}.JPEG" for k in range(20_000)]
    files = index.files_of(names, len(names), (), {name: index.Member(0, 0, 1, 2) for name in names})
    assert len(pickle.dumps(files)) < 90 * len(names)


def test_the_index_is_a_file_of_numpy_whose_arrays_are_used_where_they_lie(tmp_path):
    names = [f"train/n{k % 1000:08d}/n{k % 1000:08d}_{k}.JPEG" for k in range(20_000)]
    files = index.files_of(
        names, len(names), ("train",), {name: index.Member(3, k, 1, 2) for k, name in enumerate(names)}
    )
    (tmp_path / "index.npz").write_bytes(index.packed([files, index.files_of([], 0, (), {})]))
    assert all(np.array_equal(one, other) for one, other in arrays_of_both(tmp_path / "index.npz"))
    tracemalloc.start()
    held = FolderPlace(str(tmp_path)).mapped("index.npz", 0)
    (same, empty) = index.unpacked(held)
    taken = tracemalloc.get_traced_memory()
    assert [same.member(same.find(name)).first for name in names[::99]] == list(range(0, 20_000, 99))
    after = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    columns = [getattr(same, key) for key in ("shard", "first", "size", "crc", "hashes", "rows")]
    columns += [same.names.prefix, same.names.first, same.names.last]
    within = np.frombuffer(held, np.uint8)
    for column in columns:
        assert column.flags.aligned and not column.flags.writeable and np.shares_memory(column, within)
    assert taken[0] < 200_000 and after[1] < 20_000 * 12  # 1,000 folders; none of 8 arrays is copied
    assert len(empty.names) == 0 and empty.find("c") is None


def arrays_of_both(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    ours = arrays.arrays_of(path.read_bytes())
    with np.load(path) as theirs:
        assert set(theirs.files) == set(ours)
        for name in theirs.files:
            yield theirs[name], ours[name]


def test_shards_of_shards_know_their_files_where_more_lie_in_them_than_a_listing_shows(tmp_path):
    files = index.files_of(["a/b.jpg", "a/c.jpg", "more"], 2, ("a",), {"more": index.Member(0, 1, 2, 3)})
    again = index.named(files.names.take(slice(0, files.listed)), 2, files.folders)
    (same,) = index.unpacked(index.packed([again]))
    assert list(same.names) == ["a/b.jpg", "a/c.jpg"] and same.find("more") is None


def test_what_is_planned_is_mixed_and_always_the_same(tmp_path, data):
    first, again = (planned(recognise(data), 10).shards for _ in range(2))
    assert [shard.places.tolist() for shard in first] == [shard.places.tolist() for shard in again]
    train = [place for shard in first if shard.part == "train" for place in shard.places.tolist()]
    assert sorted(train) == list(range(36)) != train


def test_images_in_shards_are_predicted_and_calibrate_as_those_in_the_folder(tmp_path, data):
    out = shards_of(data, tmp_path / "out")
    listed, files = open_unlabelled([str(out)]), open_unlabelled([str(data)])
    assert len(listed.entries) == len(files.entries) > 0
    held = {listed.store.read(entry.path) for entry in listed.entries}
    assert held == {files.store.read(entry.path) for entry in files.entries}


def test_shards_without_their_record_are_refused_by_name(tmp_path, data):
    out = shards_of(data, tmp_path / "out")
    (out / "shards.json").unlink()
    missing = "shards.json, which is written last, is not there"
    found = convnext("verify", out)
    assert found.status == 1 and missing in found.out
    assert missing in convnext("train", out).line
