"""Other people's names: backslashes, accents of two forms, endings, zips and tables of other systems and encodings."""

import codecs
import json
import os
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convnext.data.dataset import DenseDataset
from convnext.data.formats.files import ImageFinder
from convnext.data.formats.yolo_yaml import read_yaml
from convnext.data.names import Names
from convnext.data.opening import open_dense, open_dense_splits, open_labelled, open_parts, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.data.store import ZipStore, tree_of
from convnext.data.written import decoded, member_codec, stored_name
from convnext.errors import DataError
from dense_images import coco, write_coco, write_image

COLOURS = {"cat": (200, 40, 40), "dog": (40, 180, 60), "Äpfel": (50, 60, 210), "猫": (90, 90, 10), "кот": (9, 90, 90)}
Counts = dict[str, int]


def write(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3, ending: str = ".png") -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        colour = COLOURS.get(unicodedata.normalize("NFC", name), (1, 2, 3))
        for n in range(count):
            Image.new("RGB", (6, 6), (*colour[:2], n)).save(folder / name / f"{name}{n}{ending}")
    return folder


def read(data: Path) -> Counts:
    """Class -> images, train and val together; every image can be read."""
    splits = open_splits(recognise(data))
    found: Counter[str] = Counter()
    for part in (splits.train, splits.val):
        found.update(part.classes[entry.label] for entry in part.entries)
    assert not preflight(splits).broken
    return dict(sorted(found.items()))


def pack(folder: Path, archive: Path, name: str = "{}", codec: str = "", backslashes: bool = False) -> Path:
    """A zip whose names are written as `name`, in `codec` without the mark of UTF-8, or with backslashes."""
    marks: dict[bytes, bytes] = {}
    with zipfile.ZipFile(archive, "w") as file:
        for number, image in enumerate(sorted(folder.rglob("*.png"))):
            written = name.format(str(image.relative_to(folder)))
            written = written.replace("/", "\\") if backslashes else written
            info = zipfile.ZipInfo("x")
            info.filename = written
            if codec:
                raw = written.encode(codec)
                info.filename = f"{number:03d}".ljust(len(raw), "@")
                marks[info.filename.encode()] = raw
            file.writestr(info, image.read_bytes())
    data = archive.read_bytes()
    for mark, raw in marks.items():
        data = data.replace(mark, raw)
    archive.write_bytes(data)
    return archive


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("a\\b\\1.png", "a/b/1.png"),
        ("./a/1.png", "a/1.png"),
        ("/a//1.png", "a/1.png"),
        ("C:\\data\\1.png", "data/1.png"),
        ("../../a/1.png", "a/1.png"),
        ("a/../b/1.png", "b/1.png"),
        ("..\\..\\..\\etc\\passwd", "etc/passwd"),
        ("a b/ü.png", "a b/ü.png"),
    ],
)
def test_a_written_path_is_a_name_below_the_folder(written, stored):
    assert stored_name(written) == stored


@given(st.text("ab./\\:C%", max_size=30))
def test_no_written_path_leads_out_of_the_folder(written):
    name = stored_name(written)
    assert (not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))) or name == ""
    assert stored_name(name) == name or name[1:2] == ":"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"backslashes": True},
        {"name": "./{}"},
        {"name": "/{}"},
        {"name": "./set/{}"},
        {"name": "set/{}", "backslashes": True},
        {"name": ".\\{}"},
    ],
)
def test_zips_of_other_tools_hold_what_their_folders_hold(tmp_path, kwargs):
    data = write(tmp_path / "set")
    archive = pack(data, tmp_path / "set.zip", **kwargs)
    assert read(archive) == read(data) == {"cat": 3, "dog": 3}
    assert list(open_splits(recognise(archive)).train.entries) == list(open_splits(recognise(data)).train.entries)


def test_a_member_that_leads_out_of_the_zip_is_left_alone(tmp_path):
    archive = pack(write(tmp_path / "set"), tmp_path / "set.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../../cat/out.png", b"x")
        file.writestr("..\\dog\\out.png", b"x")
    assert read(archive) == {"cat": 3, "dog": 3}


@pytest.mark.parametrize(
    ("name", "codec", "noted"),
    [
        ("Äpfel", "cp437", ""),
        ("Äpfel", "cp850", ""),
        ("Äpfel", "utf-8", ""),
        ("猫", "gbk", "gb2312"),
        ("猫", "utf-8", ""),
        ("кот", "cp866", "cp866"),
        ("ねこ", "cp932", "cp932"),
        ("Äpfel", "cp1252", "cp1252"),
    ],
)
def test_names_in_a_zip_of_an_old_tool_are_the_names_of_the_folder(tmp_path, name, codec, noted):
    data = write(tmp_path / "set", (name, "dog"))
    archive = pack(data, tmp_path / "set.zip", codec=codec)
    assert read(archive) == read(data) == dict(sorted({name: 3, "dog": 3}.items()))
    notes = open_splits(recognise(archive)).notes
    assert notes == (
        (f"Names in the zip are not marked as UTF-8: their encoding was taken for {noted}.",) if noted else ()
    )


def test_the_encoding_of_a_zip_is_settled_by_all_its_names():
    assert member_codec([]) == member_codec([b"plain"]) == "utf-8"
    assert member_codec(["Österreich".encode("cp850"), "São".encode("cp850")]) == "cp850"
    assert member_codec(["Käfer".encode("cp437"), "кот".encode("cp866")]) not in ("utf-8", "cp437")


def test_a_class_of_two_forms_of_accents_is_one(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Übung") for form in ("NFC", "NFD"))
    write(tmp_path / "train", (composed, "dog"))
    write(tmp_path / "val", (apart, "dog"))
    splits = open_splits(recognise(tmp_path))
    assert splits.train.classes == splits.val.classes == ("dog", composed)
    assert Counter(entry.label for entry in splits.val.entries) == {0: 3, 1: 3}
    assert not preflight(splits).broken


def test_evaluation_knows_a_class_in_the_other_form_of_accents(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    data = write(tmp_path / "set", (apart, "dog"))
    dataset = open_labelled(recognise(data), classes=(composed, "dog"))
    assert Counter(dataset.classes[entry.label] for entry in dataset.entries) == {composed: 3, "dog": 3}
    assert open_splits(recognise(data)).train.classes == (apart, "dog")  # alone, it stays as it is written


def test_objects_of_a_class_in_two_forms_of_accents_are_one_class(tmp_path):
    for part, form in (("train", "NFC"), ("val", "NFD")):
        content = coco()
        content["categories"][0]["name"] = unicodedata.normalize(form, "Käfer")
        write_coco(tmp_path / part, content)
    splits = open_dense_splits(recognise(tmp_path))
    assert splits.train.classes == splits.val.classes == ("cat", "Käfer")
    assert open_dense(recognise(tmp_path / "val"), classes=("Käfer", "cat")).classes == ("Käfer", "cat")


def rows(folder: Path) -> list[tuple[str, str]]:
    return [(str(file.relative_to(folder)), file.parent.name) for file in sorted(folder.rglob("*.png"))]


def table(
    folder: Path,
    *,
    first: str = "path,label",
    separator: str = ",",
    codec: str = "utf-8",
    change=lambda path: path,
    end: str = "\n",
    tail: str = "",
) -> Path:
    lines = [first, *(f"{change(path)}{separator}{label}" for path, label in rows(folder))]
    (folder / "labels.csv").write_bytes((end.join(lines) + tail).encode(codec))
    return folder / "labels.csv"


TABLES = {
    "backslashes": {"change": lambda path: path.replace("/", "\\")},
    "./": {"change": lambda path: f"./{path}"},
    ".\\": {"change": lambda path: ".\\" + path.replace("/", "\\")},
    "/": {"change": lambda path: f"/{path}"},
    "another machine": {"change": lambda path: f"/content/drive/My Drive/set/{path}"},
    "another Windows": {"change": lambda path: "D:\\work\\" + path.replace("/", "\\")},
    "%20": {"change": lambda path: path.replace(" ", "%20")},
    "a query": {"change": lambda path: f"{path}?token=1"},
    "an ending in another case": {"change": lambda path: path.replace(".png", ".PNG")},
    "sep=": {"first": "sep=;\npath;label", "separator": ";"},
    "sep= in quotes, CRLF": {"first": '"sep=;"\r\npath;label', "separator": ";", "end": "\r\n"},
    "empty rows": {"tail": "\n,\n , \n\n"},
    "old line ends": {"end": "\r"},
    "UTF-16": {"codec": "utf-16"},
    "UTF-16 without a mark": {"codec": "utf-16-le"},
    "UTF-8 with a mark": {"codec": "utf-8-sig"},
    "tabs": {"first": "path\tlabel", "separator": "\t"},
    "spaces": {"first": " Path , LABEL ", "separator": " , "},
}


@pytest.mark.parametrize("place", ["file", "folder", "zip"])
@pytest.mark.parametrize("case", TABLES)
def test_a_table_of_another_system_names_the_same_images(tmp_path, case, place):
    data = write(tmp_path / "set" / "images", ("cat", "my dog")).parent
    file = table(data, **TABLES[case])
    if place == "zip":
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for one in sorted(data.rglob("*")):
                archive.write(one, one.relative_to(data))
    assert read({"file": file, "folder": data, "zip": tmp_path / "set.zip"}[place]) == {"cat": 3, "my dog": 3}


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_table_in_cp1252_is_read_and_named(tmp_path, place):
    data = write(tmp_path / "images", ("Bär", "dog")).parent
    file = table(data, codec="cp1252")
    source = file if place == "file" else data
    assert read(source) == {"Bär": 3, "dog": 3}
    assert "is not UTF-8: its encoding was taken for cp1252." in open_splits(recognise(source)).notes[0]


def test_a_table_names_images_in_the_other_form_of_accents(tmp_path):
    data = write(tmp_path / "images", (unicodedata.normalize("NFD", "Bär"), "dog")).parent
    file = table(data, change=lambda path: unicodedata.normalize("NFC", path))
    assert sum(read(file).values()) == 6


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,Label\na.png,cat,1\n")
    for place in (tmp_path, tmp_path / "labels.csv"):
        with pytest.raises(DataError, match=r"has two columns 'label'\. Remove one"):
            open_splits(recognise(place))


def test_of_two_images_with_one_name_a_table_takes_neither(tmp_path):
    data = write(tmp_path / "a", ("cat",)).parent
    write(tmp_path / "b", ("cat",))
    (data / "labels.csv").write_text("path,label\ncat0.png,x\na/cat/cat1.png,x\nb/cat/cat2.png,y\n")
    splits = open_splits(recognise(data), val_share=0)
    assert [entry.path for entry in splits.train.entries] == ["cat0.png", "a/cat/cat1.png", "b/cat/cat2.png"]
    assert list(preflight(splits).broken) == ["cat0.png"]


def test_a_table_does_not_lead_to_an_image_outside_its_zip(tmp_path):
    data = write(tmp_path / "set")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (data / "labels.csv").write_text("path,label\n../secret.png,cat\n/cat/cat0.png,cat\ndog/dog0.png,dog\n")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for one in sorted(data.rglob("*")):
            archive.write(one, one.relative_to(data))
    assert list(preflight(open_splits(recognise(tmp_path / "set.zip"), val_share=0)).broken) == ["../secret.png"]


@pytest.mark.parametrize(
    "written",
    [
        "images/my Bär.JPG",
        "IMAGES\\my Bär.jpg",
        "/data/local-files/?d=x/my Bär.jpg",
        "http://host:80/x/my%20B%C3%A4r.jpg",
        "./my Bär.jpg?sig=1",
        "..\\..\\up\\4\\my Bär.jpg",
        unicodedata.normalize("NFD", "my Bär.jpg"),
    ],
)
def test_an_image_is_found_however_its_name_was_written(written):
    assert ImageFinder(Names.of(["images/my Bär.jpg", "images/b.jpg"])).find(written) == "images/my Bär.jpg"


def test_a_name_that_is_there_as_it_is_written_comes_first():
    finder = ImageFinder(Names.of(["a%20b.png", "a b.png", "A.png", "a.png", "q?1.png"]))
    for name in ("a%20b.png", "a b.png", "A.png", "a.png", "q?1.png"):
        assert finder.find(name) == name
    assert finder.find("c.png") is None


def test_coco_names_of_other_systems_are_found(tmp_path):
    content = coco()
    write_coco(tmp_path, content)
    for image, change in zip(
        content["images"], ("..\\media\\{}", "/data/?d=x/{}", "http://host:80/a/{}?b=c", "./images/{}"), strict=True
    ):
        image["file_name"] = change.format(image["file_name"].replace(".png", ".PNG"))
    (tmp_path / "annotations" / "instances.json").write_text(json.dumps(content))
    whole = open_parts(recognise(tmp_path))["all"]
    assert [entry.path for entry in whole.entries] == [f"images/{n}.png" for n in (1, 2, 3, 4)] and whole.problems == ()


YOLO = "0 0.5 0.5 0.4 0.4\n"


def write_yolo(folder: Path, yaml: str, parts: dict[str, int], ending: str = ".txt", codec: str = "utf-8") -> Path:
    for part, count in parts.items():
        for n in range(count):
            write_image(folder / part / "images" / f"{part}{n}.png", seed=n)
            label = folder / part / "labels" / f"{part}{n}{ending}"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(YOLO.encode(codec))
    (folder / "data.yaml").write_text(yaml)
    return folder


def shown(parts: dict[str, DenseDataset]) -> dict[str, tuple[int, int]]:
    """Part -> (images, objects)."""
    return {
        part: (len(data.entries), sum(len(entry.objects) for entry in data.entries)) for part, data in parts.items()
    }


@pytest.mark.parametrize(
    ("yaml", "noted"),
    [
        ("path: /content/x\ntrain: /content/x/train/images\nval: C:\\Users\\me\\valid\\images\nnames: [cat]\n", 2),
        ("train: train/images\nval: /content/other/val_imgs\nnames: [cat]\n", 1),
        ('train: "D:\\\\set\\\\train\\\\images"\nval: ../valid/images\nnames: [cat]\n', 1),
        ('train: "C:\\test\\train"\nval: "C:\\test\\valid"\nnames: [cat]\n', 2),
        ("train: Train/Images\nval: VALID/images\nnames: [cat]\n", 0),
    ],
)
def test_places_of_another_machine_in_a_yaml_are_found_by_their_part(tmp_path, yaml, noted):
    parts = open_parts(recognise(write_yolo(tmp_path, yaml, {"train": 3, "valid": 2})))
    assert shown(parts) == {"train": (3, 3), "val": (2, 2)}
    assert sum("is not here" in note for note in parts["train"].notes) == noted and parts["train"].problems == ()


def test_a_place_that_is_nowhere_is_named(tmp_path):
    parts = open_parts(
        recognise(write_yolo(tmp_path, "train: train/images\ntest: ../gone\nnames: [cat]\n", {"train": 3}))
    )
    assert shown(parts) == {"train": (3, 3)}
    assert [(problem.kind, problem.where) for problem in parts["train"].problems] == [("missing file", "../gone")]


@pytest.mark.parametrize(("ending", "codec"), [(".TXT", "utf-8"), (".txt", "utf-16"), (".txt", "utf-8-sig")])
def test_yolo_labels_of_windows_are_read(tmp_path, ending, codec):
    data = write_yolo(tmp_path, "names: [cat]\n", {"train": 3, "dev": 2}, ending, codec)
    parts = open_parts(recognise(data))
    assert shown(parts) == {"train": (3, 3), "val": (2, 2)} and parts["train"].problems == ()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"caf\xE9"', "café"),
        (r'"\u732B"', "猫"),
        (r'"\U0001F431 cat"', "🐱 cat"),
        (r'"a \"big\" cat"', 'a "big" cat'),
        ("'it''s'", "it's"),
        (r'"a\\b"', "a\\b"),
        (r"'C:\new'", "C:\\new"),
        (r'"C:\new\x41"', r"C:\new\x41"),
        (r'"tab\there"', "tab\there"),
        (r'"a # b"', "a # b"),
        (r"plain \xE9", r"plain \xE9"),
    ],
)
def test_escapes_of_yaml_are_read_within_double_quotes_alone(written, read):
    text = f"names:\n- {written}\n- dog  # a dog\nother: [{written}, b]\nnc: 2\n"
    assert read_yaml(text) == {"names": [read, "dog"], "other": [read, "b"], "nc": "2"}


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""])
def test_text_is_decoded_by_its_mark_or_as_utf_8_else_as_windows_writes_it(mark):
    assert decoded(mark + "für".encode()) == ("für", "")
    assert decoded("für".encode("utf-16")) == decoded("für".encode("utf-32")) == ("für", "")
    assert decoded(b"f\xfcr\x81") == ("für\x81", "cp1252") and decoded(b"") == ("", "")


def test_a_zip_names_its_members_as_its_tree_does(tmp_path):
    archive = pack(write(tmp_path / "set", ("猫",)), tmp_path / "set.zip", codec="gbk")
    tree = tree_of(archive)
    assert isinstance(tree.store, ZipStore) and all(tree.store.has(name) for name in tree.files)
    assert [tree.store.read(name) for name in tree.files] == [
        (tmp_path / "set" / name).read_bytes() for name in tree.files
    ]
    assert os.path.basename(tree.files[0]) == "猫0.png"
