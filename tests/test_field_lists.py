"""What trains also predicts: a table or a file of annotations stands for the images that it names or holds."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from convnext.data.unlabelled import open_unlabelled
from convnext.errors import DataError
from test_field_tables import image, kaggle, put
from test_field_tags import ONE, cvat

pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")


def read(*paths: Path) -> dict[str, bytes]:
    """The path of each image -> its bytes."""
    listing = open_unlabelled(paths)
    return {entry.path: listing.store.read(entry.path) for entry in listing.entries}


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("kind", ["struct", "bytes"])
def test_rows_of_parquet_are_images_with_labels_or_without(tmp_path, kind):
    held = [{"bytes": png(k), "path": f"{k}.png"} if kind == "struct" else png(k) for k in range(5)]
    for part, rows in (("train", held[:3]), ("test", held[3:])):
        (tmp_path / "data").mkdir(exist_ok=True)
        more = {"label": [0, 1, 0]} if part == "train" else {}
        pq.write_table(pa.table({"image": rows, **more}), tmp_path / "data" / f"{part}-0.parquet")
    file = tmp_path / "data" / "test-0.parquet"
    found = read(file)
    assert list(found.values()) == [png(3), png(4)]
    assert list(found) == [f"{file}/0-3.png", f"{file}/1-4.png"] if kind == "struct" else [f"{file}/0", f"{file}/1"]
    assert sorted(read(tmp_path).values()) == sorted(map(png, range(5)))
    assert read(tmp_path / "data") == read(*sorted((tmp_path / "data").iterdir()))


def test_a_table_of_names_stands_for_the_images_that_it_names(tmp_path):
    data = kaggle(tmp_path / "aptos")
    for name, folder in (("test.csv", "test_images"), ("train.csv", "train_images")):
        assert read(data / name) == {str(file): file.read_bytes() for file in sorted((data / folder).iterdir())}
    put(data / "list.jsonl", "\n".join(json.dumps({"file_name": f"test_images/{k:03}.png"}) for k in (2, 1)))
    assert [Path(path).name for path in read(data / "list.jsonl")] == ["002.png", "001.png"]
    put(data / "list.json", json.dumps([{"image": "test_images/003.png", "label": "x"}]))
    assert [Path(path).name for path in read(data / "list.json")] == ["003.png"]
    both = read(data / "test.csv", data / "test_images" / "000.png")
    assert len(both) == 12  # each image once


def test_a_file_of_annotations_stands_for_its_images(tmp_path):
    data = cvat(tmp_path / "tags", ONE)
    assert len(read(data / "annotations.xml")) == 6
    image(tmp_path / "coco" / "a.jpg")
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 3], "area": 12, "iscrowd": 0}]
    images = [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}]
    about = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    put(tmp_path / "coco" / "instances.json", json.dumps(about))
    assert list(read(tmp_path / "coco" / "instances.json")) == [str(tmp_path / "coco" / "a.jpg")]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("urls.csv", b"url,label\nhttps://example.org/a.jpg,cat\n", "nothing is downloaded (https)"),
        ("sales.csv", b"month,sum\n1,2\n", "names no images (month, sum). Call the column of their paths 'path'"),
        ("gone.csv", b"path\na.jpg\n", "none of the 1 images that"),
        ("frames.tgz", b"\x1f\x8b", "is an archive, which is not read"),
        ("clip.mp4", b"\0", "is a video, which is not read"),
        ("x.json", b"{}", "'x.json'"),
    ],
)
def test_what_train_refuses_predict_refuses_in_the_same_words(tmp_path, name, data, said):
    put(tmp_path / name, data)
    with pytest.raises(DataError) as error:
        open_unlabelled([tmp_path / name])
    assert said in str(error.value).replace(f"{tmp_path}/", "") and "\n" not in str(error.value)
    image(tmp_path / "a.png")
    if name != "gone.csv":  # among other files it is one that cannot be read
        assert len(open_unlabelled([tmp_path / name, tmp_path / "a.png"]).entries) == 2


def test_an_archive_within_an_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as pack:
        pack.writestr("inner.zip", b"PK")
    with pytest.raises(DataError, match=r"'inner.zip' is an archive, which is not read\. Unpack it"):
        open_unlabelled([tmp_path / "outer.zip"])
