"""What the user names becomes the same lists of images, whatever it is wrapped in."""

import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from convnext.data.decode import decode
from convnext.data.labelled import Dataset
from convnext.data.opening import open_labelled, open_splits, recognise
from convnext.data.store import MixedStore, printable
from convnext.data.unlabelled import open_unlabelled
from convnext.errors import DataError
from images import write_colours, zipped


def labels(dataset: Dataset) -> list[tuple[str, str]]:
    return [(entry.path, dataset.classes[entry.label]) for entry in dataset.entries]


def refusal(data: Path | str) -> str:
    with pytest.raises(DataError) as error:
        open_splits(recognise(data, annotated=False))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "data", train=5, val=2, size=6)


@pytest.fixture
def plain(folder: Path) -> Path:
    """Class folders without a split."""
    return folder / "train"


@pytest.mark.parametrize("val_name", ["val", "valid", "validation", "test"])
def test_a_folder_with_train_and_val_is_taken_as_it_is(folder, val_name):
    (folder / "val").rename(folder / val_name)
    splits = open_splits(recognise(folder, annotated=False))
    assert splits.train.classes == splits.val.classes == ("blue", "green", "red")
    assert len(splits.train.entries) == 15
    assert labels(splits.val)[0] == (f"{val_name}/blue/000.png", "blue")
    assert [entry.path for entry in splits.train.entries] == sorted(entry.path for entry in splits.train.entries)


def test_classes_are_the_union_of_both_parts(folder):
    (folder / "val" / "red").rename(folder / "val" / "amber")
    splits = open_splits(recognise(folder, annotated=False))
    assert splits.train.classes == splits.val.classes == ("amber", "blue", "green", "red")


def test_one_folder_of_classes_is_split_by_class_and_always_the_same_way(plain):
    splits = open_splits(recognise(plain, annotated=False), val_share=0.2, seed=3)
    assert sorted(name for _, name in labels(splits.val)) == ["blue", "green", "red"]
    assert sorted(labels(splits.train) + labels(splits.val)) == labels(open_labelled(recognise(plain, annotated=False)))
    assert open_splits(recognise(plain, annotated=False), seed=3).val.entries == splits.val.entries
    assert {open_splits(recognise(plain, annotated=False), seed=seed).val.entries for seed in range(5)} != {
        splits.val.entries
    }


def test_every_class_with_two_images_keeps_one_for_each_part(tmp_path):
    folder = write_colours(tmp_path, train=2, val=0, size=4) / "train"
    (folder / "red" / "000.png").unlink()
    for share in (0.01, 0.99):
        splits = open_splits(recognise(folder, annotated=False), val_share=share)
        assert [name for _, name in labels(splits.val)] == ["blue", "green"]
        assert [name for _, name in labels(splits.train)] == ["blue", "green", "red"]


def test_a_val_share_of_zero_keeps_everything_for_training(plain):
    splits = open_splits(recognise(plain, annotated=False), val_share=0)
    assert (len(splits.train.entries), len(splits.val.entries)) == (15, 0)
    with pytest.raises(DataError, match="val_share = 1"):
        open_splits(recognise(plain, annotated=False), val_share=1)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("below", ["", "wrap/", "wrap/twice/"])
@pytest.mark.parametrize("part", ["", "train"])
def test_a_zip_holds_what_its_folder_holds(folder, tmp_path, part, below, method):
    place = folder / part
    archive = zipped(place, tmp_path / "data.zip", below=below, method=method)
    on_disk, packed = open_splits(recognise(place, annotated=False)), open_splits(recognise(archive, annotated=False))
    for left, right in ((on_disk.train, packed.train), (on_disk.val, packed.val)):
        assert (left.classes, left.entries) == (right.classes, right.entries)
        for entry in left.entries:
            assert (decode(left.store.read(entry.path)) == decode(right.store.read(entry.path))).all()


def test_a_zip_can_be_read_from_threads_forks_and_pickled_copies(folder, tmp_path):
    dataset = open_splits(recognise(zipped(folder, tmp_path / "data.zip"), annotated=False)).train
    paths = [entry.path for entry in dataset.entries]
    expected = [(folder / path).read_bytes() for path in paths]
    assert [dataset.store.read(path) for path in paths] == expected
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(dataset.store.read, paths * 8)) == expected * 8
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy.store.read(path) for path in paths] == expected


def test_a_damaged_member_and_a_damaged_zip_are_refused(folder, tmp_path):
    archive = zipped(folder, tmp_path / "data.zip", method=zipfile.ZIP_STORED)
    dataset = open_splits(recognise(archive, annotated=False)).train
    data = bytearray(archive.read_bytes())
    place = data.index((folder / dataset.entries[0].path).read_bytes())
    data[place + 20] ^= 255
    archive.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        dataset.store.read(dataset.entries[0].path)
    archive.write_bytes(data[: len(data) // 2])
    assert "cannot be read as a zip" in refusal(archive)


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("wrap", ["file", "folder", "zip"])
def test_a_csv_names_paths_labels_and_splits(folder, tmp_path, wrap, delimiter):
    rows = [["label", "path", "split"]]
    rows += [[f.parent.name, str(f.relative_to(folder)), f.parts[-3]] for f in sorted(folder.rglob("*.png"))]
    (folder / "all.csv").write_text("\ufeff" + "\n".join(delimiter.join(row) for row in rows))
    (folder / "train").rename(folder / "a")  # or the folders would be the split
    text = (folder / "all.csv").read_text(encoding="utf-8").replace("train/", "a/")
    (folder / "all.csv").write_text(text, encoding="utf-8")
    data = {"file": folder / "all.csv", "folder": folder, "zip": tmp_path / "all.zip"}[wrap]
    if wrap == "zip":
        zipped(folder, data, below="wrap/")
    splits = open_splits(recognise(data, annotated=False))
    assert splits.train.classes == ("blue", "green", "red")
    assert (len(splits.train.entries), len(splits.val.entries)) == (15, 6)
    assert labels(splits.train)[0] == ("a/blue/000.png", "blue")
    assert splits.val.store.read("val/red/001.png") == (folder / "val/red/001.png").read_bytes()


def test_a_csv_without_split_is_split_here(folder):
    rows = [f"{file.relative_to(folder)},{file.parent.name}" for file in sorted((folder / "train").rglob("*.png"))]
    (folder / "all.csv").write_text("\n".join(["path,label", *rows]))
    splits = open_splits(recognise(folder / "all.csv", annotated=False))
    assert (len(splits.train.entries), len(splits.val.entries)) == (12, 3)
    assert len(open_labelled(recognise(folder / "all.csv", annotated=False)).entries) == 15


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("paths,label\na,b\n", "no column 'path' in its first line (paths, label). Did you mean 'paths'?"),
        ("path,label\na.png,\n", "line 2 has no label"),
        ("path,label,split\na.png,x,trian\n", "split 'trian' is not 'train', 'val' or 'test'. Did you mean 'train'?"),
        ("path,label\n", "has a header and no rows"),
    ],
)
def test_a_wrong_csv_is_one_line_that_says_what_and_where(tmp_path, text, reason):
    (tmp_path / "all.csv").write_text(text)
    assert reason in refusal(tmp_path / "all.csv")


def test_other_files_are_left_out_and_counted(folder):
    (folder / "classes.json").write_text("{}")
    (folder / "train" / "red" / "notes.TXT").write_text("")
    (folder / "train" / "red" / "more.txt").write_text("")
    (folder / "train" / "red" / ".hidden.png").write_bytes(b"")
    (folder / "train" / "stray.png").write_bytes(b"")
    (folder / "__MACOSX" / "train").mkdir(parents=True)
    (folder / "__MACOSX" / "train" / "x.png").write_bytes(b"")
    splits = open_splits(recognise(folder, annotated=False))
    assert len(splits.train.entries) == 15
    assert splits.left_out == {".json": 1, ".txt": 2, "images outside class folders": 1}


def test_images_deep_in_a_class_folder_belong_to_it_and_endings_may_be_large(plain):
    (plain / "red" / "2024" / "may").mkdir(parents=True)
    shutil.move(plain / "red" / "000.png", plain / "red" / "2024" / "may" / "PHOTO.PNG")
    assert ("red/2024/may/PHOTO.PNG", "red") in labels(open_labelled(recognise(plain, annotated=False)))


def test_links_are_followed_and_a_circle_ends(folder, plain):
    (plain / "grey").symlink_to(folder / "val" / "red")
    (plain / "red" / "circle").symlink_to(plain / "red")
    found = labels(open_labelled(recognise(plain, annotated=False)))
    assert ("grey/000.png", "grey") in found
    assert len(found) == 17


def test_names_that_are_not_utf_8_can_be_read_and_shown(plain):
    odd = os.fsencode(plain / "red") + b"/caf\xe9.png"
    try:
        os.rename(plain / "red" / "000.png", odd)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    dataset = open_labelled(recognise(plain, annotated=False))
    entry = next(entry for entry in dataset.entries if "caf" in entry.path)
    assert decode(dataset.store.read(entry.path)).shape == (6, 6, 3)
    assert printable(entry.path) == "red/caf\\xe9.png"
    assert printable("schön.png") == "schön.png"
    assert open_splits(recognise(plain, annotated=False)).train.entries
    predicted = open_unlabelled([os.fsdecode(odd)])
    assert predicted.store.read(predicted.entries[0].path)


def test_a_missing_path_is_answered_with_its_nearest_sibling(folder):
    assert "does not exist. Did you mean 'data'?" in refusal(folder.parent / "dat")
    assert f"('{folder.parent / 'dta'}' is missing). Did you mean 'data'?" in refusal(folder.parent / "dta" / "train")


def test_what_cannot_be_trained_on_is_refused_with_the_reason(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    assert "is empty" in refusal(tmp_path / "empty")
    assert "holds 2 images directly, without class folders" in refusal(folder / "val" / "red")
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "x.txt").write_text("")
    assert "holds no images (only 1 .txt)" in refusal(tmp_path / "texts")
    assert "is one file" in refusal(folder / "val" / "red" / "000.png")
    for name in ("green", "blue"):
        shutil.rmtree(folder / "train" / name)
    assert "images of one class only ('red')" in refusal(folder)
    shutil.rmtree(folder / "train" / "red")
    assert "no images in its train part" in refusal(folder)
    (folder / "train").rename(folder / "trian")
    assert "no folder 'train'. Did you mean 'trian'?" in refusal(folder)


def test_an_empty_class_folder_is_still_a_class(plain):
    (plain / "violet").mkdir()
    assert open_splits(recognise(plain, annotated=False)).train.classes == ("blue", "green", "red", "violet")


def test_evaluation_takes_the_val_part_or_all_and_the_indices_of_the_checkpoint(folder, plain):
    known = ("red", "amber", "green", "blue")
    dataset = open_labelled(recognise(folder, annotated=False), classes=known)
    assert dataset.classes == known
    assert len(dataset.entries) == 6
    assert all(known[entry.label] in entry.path for entry in dataset.entries)
    assert len(open_labelled(recognise(plain, annotated=False), classes=known).entries) == 15
    assert len(open_labelled(recognise(folder, annotated=False), classes=known, split="train").entries) == 15
    shutil.rmtree(plain)
    assert len(open_labelled(recognise(folder, annotated=False), classes=known).entries) == 6


def test_a_class_that_the_model_does_not_know_is_refused_with_the_nearest(folder):
    with pytest.raises(DataError, match=r"class 'green', which the model does not know. Did you mean 'greenish'"):
        open_labelled(recognise(folder, annotated=False), classes=("blue", "greenish", "red"))


def test_prediction_takes_files_folders_globs_and_zips_each_image_once(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = zipped(folder / "val", tmp_path / "val.zip")
    (tmp_path / "photo").write_bytes((folder / "val" / "red" / "000.png").read_bytes())
    dataset = open_unlabelled(["photo", "data/val/red", "data/val/r*/*.png", "data/**/001.png", "val.zip"])
    paths = [entry.path for entry in dataset.entries]
    assert paths[:3] == ["photo", "data/val/red/000.png", "data/val/red/001.png"]
    assert len(paths) == len(set(paths)) == 1 + 2 + 5 + 6
    assert {entry.label for entry in dataset.entries} == {-1}
    assert dataset.store.read(f"{archive.name}/red/000.png") == dataset.store.read("photo")
    assert all(decode(dataset.store.read(path)).shape == (6, 6, 3) for path in paths)


def test_prediction_without_images_is_refused(tmp_path):
    for paths, reason in (
        ([], "No images to predict"),
        ([str(tmp_path / "*.jpg")], "does not exist"),
        ([str(tmp_path)], "no images"),
    ):
        with pytest.raises(DataError, match=reason):
            open_unlabelled(paths)


@pytest.mark.parametrize("val", [True, False])
def test_a_test_part_is_held_out_only_where_there_is_no_val(tmp_path, val):
    for part in ("train", "test", *(["val"] if val else [])):
        for label in ("blue", "red"):
            (tmp_path / part / label).mkdir(parents=True)
            Image.new("RGB", (4, 4), label).save(tmp_path / part / label / f"{part}.png")
    splits = open_splits(recognise(tmp_path, annotated=False))
    assert {Path(entry.path).stem for entry in splits.val.entries} == {"val" if val else "test"}
    assert ("images of the test part" in splits.left_out) == val
    rows = [f"{file.relative_to(tmp_path)},{file.parent.name},{file.stem}" for file in tmp_path.rglob("*.png")]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split", *rows]))
    table = open_splits(recognise(tmp_path / "all.csv", annotated=False))
    assert {Path(entry.path).stem for entry in table.val.entries} == {"val" if val else "test"}


def test_pipes_and_links_to_themselves_are_passed_over(tmp_path):
    for label in ("blue", "red"):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (4, 4), label).save(tmp_path / label / f"{number}.png")
    os.mkfifo(tmp_path / "red" / "pipe.png")
    (tmp_path / "red" / "self.png").symlink_to("self.png")
    (tmp_path / "blue" / "loop").symlink_to(tmp_path)
    assert len(open_labelled(recognise(tmp_path, annotated=False)).entries) == 4


class _Looked(dict):
    """Packs that nobody goes through one by one."""

    def __iter__(self):
        raise AssertionError("all packs were gone through for one image")

    items = keys = values = __iter__


def test_an_image_is_read_from_the_pack_of_its_folders_however_many_packs_there_are(tmp_path):
    class Named:
        def __init__(self, name: str):
            self.name = name

        def read(self, path: str) -> bytes:
            return f"{self.name}: {path}".encode()

    (tmp_path / "a.zip.d").mkdir()
    (tmp_path / "a.zip.d" / "1.jpg").write_bytes(b"disk")
    store = MixedStore(_Looked({name: Named(name) for name in ("/d/a.zip", "b.zip", "shards", "shards/in.zip")}))
    assert store.read("/d/a.zip/x/1.jpg") == b"/d/a.zip: x/1.jpg"
    assert store.read("b.zip/1.jpg") == b"b.zip: 1.jpg"
    assert store.read("shards/in.zip/1.jpg") == b"shards/in.zip: 1.jpg"
    assert store.read(f"{tmp_path}/a.zip.d/1.jpg") == b"disk"
