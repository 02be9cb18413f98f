"""Tables of images: the same data set as CSV, JSON lines, Parquet and Arrow, as paths and as bytes, is the same data set."""

import io
import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from children import PATIENCE_S
from commands import convnext, trained
from convnext.data import arrow
from convnext.data.decode import decode
from convnext.data.opening import open_labelled, open_splits, recognise
from convnext.data.preflight import preflight
from convnext.errors import ConvNeXtError, DataError
from images import write_colours, zipped

pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")


class Picture(NamedTuple):
    part: str
    label: str
    number: int

    @property
    def path(self) -> str:
        return f"{self.part}/{self.label}/{self.number}.png"


def png(number: int, side: int = 5) -> bytes:
    """An image that no other number has."""
    out = io.BytesIO()
    Image.new("RGB", (side, side + 1), (number % 256, number // 256, 77)).save(out, "PNG")
    return out.getvalue()


def pictures(*parts: str, labels: Sequence[str] = ("cat", "dog"), each: int = 2) -> list[Picture]:
    wanted = [(part, label) for part in parts for label in labels for _ in range(each)]
    return [Picture(part, label, number) for number, (part, label) in enumerate(wanted)]


def write_images(folder: Path, made: Sequence[Picture]) -> Path:
    for picture in made:
        file = folder / picture.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(picture.number))
    return folder


def lines(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def held(made: Sequence[Picture], names: Sequence[str] = (), group: int = 3, **more: Any) -> Any:
    """A table of images as the `datasets` library writes it; `names` make numbers of the labels."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    labels: list[Any] = [picture.label for picture in made]
    if names:
        features["label"] = {"names": list(names), "_type": "ClassLabel"}
        labels = [names.index(label) if label else -1 for label in labels]
    images = [{"bytes": png(picture.number), "path": f"{picture.number}.png"} for picture in made]
    table = pa.table({"image": images, "label": labels, **more})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(file: Path, table: Any, group: int = 3) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=group)
    return file


def stream(file: Path, table: Any, group: int = 3) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=group)
    return file


def opened(data: Path, **how: Any) -> dict[str, list[tuple[str, bytes]]]:
    """Part -> (class, pixels) of each image, in an order that depends on nothing but these."""
    splits = open_splits(recognise(data, **how))
    assert splits.train.classes == splits.val.classes
    found = {}
    for part, dataset in (("train", splits.train), ("val", splits.val)):
        shown = ((dataset.classes[entry.label], dataset.store.read(entry.path)) for entry in dataset.entries)
        found[part] = sorted((label, decode(data).tobytes()) for label, data in shown)
    return found


def refusal(data: Path, **how: Any) -> str:
    with pytest.raises(ConvNeXtError) as error:
        open_splits(recognise(data, **how))
    assert "\n" not in str(error.value)
    return str(error.value)


def wanted(made: Sequence[Picture]) -> dict[str, list[tuple[str, bytes]]]:
    return {
        part: sorted((each.label, decode(png(each.number)).tobytes()) for each in made if each.part == part)
        for part in ("train", "val")
    }


# --- one data set in every form


def as_csv(folder: Path, made: Sequence[Picture]) -> Path:
    rows = [f"{each.path},{each.label},{each.part}" for each in made]
    (write_images(folder, made) / "all.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    return folder / "all.csv"


def as_lines(folder: Path, made: Sequence[Picture]) -> Path:
    rows = [{"file_name": each.path, "label": each.label, "split": each.part} for each in made]
    return lines(write_images(folder, made) / "all.jsonl", rows)


def as_urls(folder: Path, made: Sequence[Picture]) -> Path:
    write_images(folder, made)
    rows = [{"image": (folder / each.path).as_uri(), "label": each.label, "part": each.part} for each in made]
    return lines(folder / "all.jsonl", rows)


def as_paths(folder: Path, made: Sequence[Picture]) -> Path:
    columns = {"path": [each.path for each in made], "label": [each.label for each in made]}
    return parquet(
        write_images(folder, made) / "all.parquet", pa.table(columns | {"split": [each.part for each in made]})
    )


def as_bytes(folder: Path, made: Sequence[Picture]) -> Path:
    return parquet(folder / "all.parquet", held(made, split=[each.part for each in made]))


def as_plain_bytes(folder: Path, made: Sequence[Picture]) -> Path:
    columns = {"image_bytes": [png(each.number) for each in made], "class": [each.label for each in made]}
    return parquet(folder / "all.parquet", pa.table(columns | {"subset": [each.part for each in made]}))


def as_shards(folder: Path, made: Sequence[Picture]) -> Path:
    names = sorted({each.label for each in made}, reverse=True)
    for part, word in (("train", "train"), ("val", "validation")):
        own = [each for each in made if each.part == part]
        for number, some in enumerate((own[::2], own[1::2])):
            if some:
                parquet(folder / "data" / f"{word}-{number:05d}-of-00002-0a1b.parquet", held(some, names), 2)
    return folder


def as_saved(folder: Path, made: Sequence[Picture]) -> Path:
    names = sorted({each.label for each in made})
    for part in ("train", "val"):
        place = folder / {"val": "validation"}.get(part, part)
        stream(place / "data-00000-of-00001.arrow", held([each for each in made if each.part == part], names))
        for name in ("state.json", "dataset_info.json"):
            (place / name).write_text("{}")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    return folder


def as_metadata(folder: Path, made: Sequence[Picture]) -> Path:
    write_images(folder, made)
    for part in ("train", "val"):
        own = [each for each in made if each.part == part]
        rows = [{"file_name": f"{each.label}/{each.number}.png", "label": each.label} for each in own]
        lines(folder / part / "metadata.jsonl", rows)
    return folder


def as_metadata_zip(folder: Path, made: Sequence[Picture]) -> Path:
    return zipped(as_metadata(folder / "in", made), folder / "all.zip")


def as_folders(folder: Path, made: Sequence[Picture]) -> Path:
    return write_images(folder, made)


def as_zip(folder: Path, made: Sequence[Picture]) -> Path:
    return zipped(write_images(folder / "in", made), folder / "all.zip", below="wrap/")


def as_table_zip(folder: Path, made: Sequence[Picture]) -> Path:
    as_paths(folder / "in", made)
    return zipped(folder / "in", folder / "all.zip")


FORMS: tuple[Callable[[Path, Sequence[Picture]], Path], ...] = (
    as_csv, as_lines, as_urls, as_paths, as_bytes, as_plain_bytes, as_shards, as_saved, as_metadata, as_metadata_zip,
    as_folders, as_zip, as_table_zip,
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=2, max_size=3),
    words=st.permutations(["cat", "café au lait", "7", "Dog_2"]),
)
def test_a_data_set_is_the_same_in_every_form(tmp_path_factory, counts, words):
    made = [
        (part, label)
        for label, both in zip(words, counts, strict=False)
        for part, count in zip(("train", "val"), both, strict=True)
        for _ in range(count)
    ]
    made = [Picture(part, label, number) for number, (part, label) in enumerate(made)]
    for form in FORMS:
        folder = tmp_path_factory.mktemp(form.__name__) / "data"
        folder.mkdir()
        assert opened(form(folder, made)) == wanted(made), form.__name__


@pytest.mark.parametrize("ending", ["parquet", "pq", "arrow", "feather"])
@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_images_are_read_out_of_their_rows(tmp_path, ending, kind):
    made, file = pictures("train", "val", each=4), tmp_path / f"x.{ending}"
    table = held(made, split=[each.part for each in made])
    if kind != "struct":
        column = pa.array([png(each.number) for each in made], getattr(pa, kind)())
        table = table.set_column(0, "image", column).replace_schema_metadata(None)
    if ending in ("parquet", "pq"):
        parquet(file, table, 2)
    elif ending == "arrow":
        stream(file, table, 2)
    else:
        with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    assert opened(file) == wanted(made)


def test_a_row_may_name_its_image_instead_of_holding_it(tmp_path):
    made = pictures("train", "val")
    write_images(tmp_path, made)
    images = [
        {"bytes": None if each.number % 2 else png(each.number), "path": str(tmp_path / each.path)} for each in made
    ]
    split, label = [each.part for each in made], [each.label for each in made]
    file = parquet(tmp_path / "x.parquet", pa.table({"image": images, "label": label, "split": split}))
    assert opened(file) == wanted(made)


# --- reading in any order, by many


def store_of(file: Path) -> tuple[Any, list[str]]:
    data = open_labelled(recognise(file))
    return data.store, [entry.path for entry in data.entries]


def _read_elsewhere(store: Any, path: str, out: Any) -> None:
    out.put(store.read(path))


def test_rows_are_read_by_threads_by_forks_and_after_pickling(tmp_path):
    made = pictures("train", each=30)
    store, paths = store_of(parquet(tmp_path / "x.parquet", held(made), 7))
    right = [png(each.number) for each in made]
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda place: store.read(paths[place]), order)) == [right[place] for place in order]
    assert pickle.loads(pickle.dumps(store)).read(paths[41]) == right[41]
    fork = multiprocessing.get_context("fork")
    out = fork.Queue()
    child = fork.Process(target=_read_elsewhere, args=(store, paths[17], out))
    child.start()
    assert out.get(timeout=PATIENCE_S) == right[17]
    child.join(PATIENCE_S)
    assert child.exitcode == 0


def test_a_process_keeps_one_row_group_or_as_many_as_it_may(tmp_path, monkeypatch):
    made = pictures("train", each=30)
    file = parquet(tmp_path / "x.parquet", held(made), 5)
    monkeypatch.setattr(arrow, "_KEPT", 1)
    store, paths = store_of(file)
    assert [store.read(path) for path in paths] == [png(each.number) for each in made]
    kept = store._kept()
    assert list(kept.groups) == [(str(file), 11)] and kept.size == kept.groups[str(file), 11][1]
    monkeypatch.setattr(arrow, "_KEPT", 10**9)
    again, _ = store_of(file)
    assert [again.read(path) for path in reversed(paths)] == [png(each.number) for each in reversed(made)]
    assert len(again._kept().groups) == 12


def test_opening_reads_no_image(tmp_path, monkeypatch):
    file = parquet(tmp_path / "x.parquet", held(pictures("train", "val")))
    read: list[list[str]] = []
    plain = arrow._Parquet.group
    monkeypatch.setattr(
        arrow._Parquet, "group", lambda self, number, columns: read.append(columns) or plain(self, number, columns)
    )
    open_splits(recognise(file))
    assert {column for columns in read for column in columns} == {"image.path", "label"}


def test_large_row_groups_are_named(tmp_path, monkeypatch):
    made = pictures("train", "val", each=3)
    file = parquet(tmp_path / "x.parquet", held(made, split=[each.part for each in made]), 6)
    assert open_splits(recognise(file)).notes == ()
    monkeypatch.setattr(arrow, "_KEPT", 100)
    monkeypatch.setattr(arrow, "_SLOW", 100)
    (note,) = open_splits(recognise(file)).notes
    assert "row groups of up to 0 MB" in note and "about 100 rows a group" in note


def test_a_run_trains_on_rows_and_scores_each_part_by_name(tmp_path):
    colours = write_colours(tmp_path / "colours", train=6, val=2, size=8)
    rows = [(file.read_bytes(), file.parent.name, file.parent.parent.name) for file in sorted(colours.rglob("*.png"))]
    for part, word, some in (("train", "train", slice(None)), ("val", "validation", slice(None)), ("val", "test", 3)):
        own = [row for row in rows if row[2] == part]
        own = own[:some] if isinstance(some, int) else own
        images = [{"bytes": data, "path": None} for data, _, _ in own]
        table = pa.table({"image": images, "label": [label for _, label, _ in own]})
        parquet(tmp_path / "set" / "data" / f"{word}-00000-of-00001.parquet", table, 4)
    done = trained(tmp_path / "set", tmp_path / "run", "--epochs", 1, "--workers", 2)
    assert "3 images of the test part" in done.err
    for part, count in (("test", 3), ("val", 6), ("train", 18)):
        found = json.loads(convnext("evaluate", tmp_path / "run", tmp_path / "set", "--part", part, "--json").out)
        assert found["n"] == count
    files = json.loads(trained(colours, tmp_path / "other", "--epochs", 1, "--json").out)
    table_run = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert table_run["top1"] == files["top1"] and table_run["loss"] == files["loss"]


# --- the columns


LABELS: list[tuple[list[Any], tuple[str, ...]]] = [
    (["cat", "dog"], ("cat", "dog")),
    ([3, 11], ("11", "3")),
    ([3.0, 11.0], ("11", "3")),
    ([True, False], ("false", "true")),
    ([" cat", "dog "], ("cat", "dog")),
]


@pytest.mark.parametrize(
    ("ending", "labels", "names", "right"),
    [
        *((ending, labels, (), right) for ending in ("jsonl", "parquet") for labels, right in LABELS),
        ("parquet", [1, 0], ("zebra", "ant"), ("ant", "zebra")),
    ],
)
def test_labels_are_texts_numbers_or_names_behind_numbers(tmp_path, ending, labels, names, right):
    made = write_images(tmp_path, pictures("train", each=3))
    paths = [f"train/{label}/{number}.png" for number, label in enumerate(["cat"] * 3 + ["dog"] * 3)]
    columns = {"path": paths, "label": [labels[0]] * 3 + [labels[1]] * 3}
    if ending == "jsonl":
        file = lines(
            made / "x.jsonl", [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )
    else:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}} if names else {}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        file = parquet(made / "x.parquet", pa.table(columns).replace_schema_metadata(about))
    data = open_labelled(recognise(file))
    assert data.classes == right
    first = names[labels[0]] if names else str(labels[0]).strip().lower().removesuffix(".0")
    assert [data.classes[entry.label] for entry in data.entries[:3]] == [first] * 3


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            [{"path": "https://a.org/b.png", "label": "x"}],
            "line 1 names 'https://a.org/b.png', and nothing is downloaded",
        ),
        ([{"url": "s3://bucket/b.png", "label": "x"}], "Download the images and write their paths"),
        ([{"path": "file://server/b.png", "label": "x"}], "a file of another machine ('server')"),
        ([{"image": "data:image/png;base64,iVBO", "label": "x"}], "holds its image as text"),
        ([{"image": {"path": None, "bytes": "iVBO"}, "label": "x"}], "holds its image as text"),
        ([{"path": "a.png", "label": {"x": "y"}}], "label is several values"),
        ([{"path": "a.png", "label": 0.25}], "label 0.25 is a fraction"),
        ([{"path": "a.png", "label": "x"}, {"path": "b.png"}], "line 2 has no label"),
        ([{"path": "", "label": "x"}], "line 1 has no path"),
        ([{"path": "a.png", "label": "x", "split": "trian"}], "Did you mean 'train'?"),
        ([{"path": "a.png", "kind": "x"}], "no column 'label' (path, kind)"),
        ([{"path": "a.png", "class": "x", "category": "y"}], "'class' and 'category', and any could be the label"),
        ([{"file_name": "a.png", "class": "x", "bbox": [1, 2, 3, 4]}], "has boxes (column 'bbox')"),
        ([{"file_name": "a.png", "mask_file_name": "b.png"}], "names a mask for each image (column 'mask_file_name')"),
        ([{"path": f"{k}.png", "text": f"photo {k} of a cat"} for k in range(4)], "are captions"),
        ([{"image": [[0, 1], [1, 0]], "label": 1}], "holds the pixels of its image as lists of numbers"),
        ([], "has no rows"),
        ([1], "is no JSON object"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line_with_the_way_out(tmp_path, rows, reason):
    assert reason in refusal(lines(tmp_path / "x.jsonl", rows))


def test_damaged_tables_are_one_line(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"path": "a.png", "label": "x"}\n{"path": "b.png", \n')
    assert "line 2 is not JSON" in refusal(tmp_path / "x.jsonl")
    for name in ("x.parquet", "x.arrow", "x.feather"):
        (tmp_path / name).write_bytes(b"PAR1 and no more")
        assert f"{name}' is damaged" in refusal(tmp_path / name)
    good = parquet(tmp_path / "y.parquet", held(pictures("train", "val", each=20)))
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-40])
    assert "is damaged" in refusal(tmp_path / "cut.parquet")


def test_a_damaged_row_group_costs_its_images_alone(tmp_path):
    made = pictures("train", "val", each=20)
    table = held(made, split=[each.part for each in made])
    file = tmp_path / "x.parquet"
    pq.write_table(table, file, row_group_size=10, compression="gzip", use_dictionary=False)
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    place = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[place : place + 40] = bytes(40)
    file.write_bytes(bytes(data))
    found = preflight(open_splits(recognise(file)))
    assert len(found.broken) == 10 and all("row group" in reason for reason in found.broken.values())
    assert "x.parquet/10-10.png" in found.broken


def test_a_label_by_another_name_is_taken_and_said(tmp_path):
    made = pictures("train", "val")
    rows = [{"image": each.path, "category": each.label, "partition": each.part} for each in made]
    splits = open_splits(recognise(lines(write_images(tmp_path, made) / "x.jsonl", rows)))
    assert splits.train.classes == ("cat", "dog") and len(splits.val.entries) == 4
    (note,) = splits.notes
    assert "its column 'category' was taken" in note


def test_the_only_column_of_named_classes_is_the_label(tmp_path):
    table = held(pictures("train", "val"), ("dog", "cat")).rename_columns(["image", "breed"])
    about = {"image": {"_type": "Image"}, "breed": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    about = {"huggingface": json.dumps({"info": {"features": about}})}
    splits = open_splits(recognise(parquet(tmp_path / "x.parquet", table.replace_schema_metadata(about))))
    assert splits.train.classes == ("cat", "dog") and "'breed' was taken" in splits.notes[0]


def test_images_in_two_columns_are_data_for_segmentation_and_named(tmp_path):
    table = held(pictures("train"))
    for other in ("annotation", "label"):
        own = pa.table({"image": table["image"], other: table["image"]})
        assert f"two columns, 'image' and '{other}'" in refusal(parquet(tmp_path / "x.parquet", own))
    own = pa.table({"image": table["image"], "label": table["label"], "hash": [b"12"] * 4})
    assert open_labelled(recognise(parquet(tmp_path / "y.parquet", own))).classes == ("cat", "dog")


# --- which files are the tables


def test_images_of_a_test_part_without_labels_are_left_out_and_counted(tmp_path):
    parquet(tmp_path / "data/train-0.parquet", held(pictures("train", each=5), ("cat", "dog")))
    parquet(tmp_path / "data/test-0.parquet", held([Picture("test", "", k) for k in range(3)], ("cat", "dog")))
    splits = open_splits(recognise(tmp_path))
    assert (len(splits.train.entries), len(splits.val.entries)) == (8, 2)
    assert splits.left_out == {"rows of the test part without a label": 3}
    parquet(tmp_path / "data/test-0.parquet", held(pictures("test")).select(["image"]))
    splits = open_splits(recognise(tmp_path))
    assert len(splits.train.entries) == 8 and "was not read" in splits.notes[0]
    parquet(tmp_path / "data/train-1.parquet", held([Picture("train", "", 9)], ("cat", "dog")))
    assert "row 1 has no label" in refusal(tmp_path)


def test_two_data_sets_of_parquet_are_told_apart(tmp_path):
    for folder in ("fine", "coarse"):
        parquet(tmp_path / "x" / folder / "train-0.parquet", held(pictures("train")))
    assert "several data sets lie in 'coarse' and 'fine'" in refusal(tmp_path)
    assert len(open_labelled(recognise(tmp_path / "x" / "fine"), split="train").entries) == 4
    for part in ("train", "validation"):
        parquet(tmp_path / "y" / "default" / part / "0000.parquet", held(pictures(part)))
    assert {part: len(rows) for part, rows in opened(tmp_path / "y").items()} == {"train": 4, "val": 4}


def test_caches_of_what_was_computed_are_no_data(tmp_path):
    stream(tmp_path / "beans-train.arrow", held(pictures("train")))
    stream(tmp_path / "beans-validation.arrow", held(pictures("val")))
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes(b"what map() left")
    assert {part: len(rows) for part, rows in opened(tmp_path).items()} == {"train": 4, "val": 4}


def test_class_folders_with_captions_beside_them_stay_class_folders(tmp_path):
    made = pictures("train", "val")
    write_images(tmp_path, made)
    for part in ("train", "val"):
        own = [each for each in made if each.part == part]
        rows = [{"file_name": f"{each.label}/{each.number}.png", "text": f"no. {each.number}"} for each in own]
        lines(tmp_path / part / "metadata.jsonl", rows)
    parquet(tmp_path / "features.parquet", pa.table({"x": [1.0]}))
    assert opened(tmp_path) == wanted(made)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_flat_parts_with_metadata_are_read_by_it(tmp_path, ending):
    for part, numbers in (("train", range(4)), ("validation", range(4, 6))):
        for number in numbers:
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"{number % 4}.png").write_bytes(png(number))
        rows = [{"file_name": f"{number % 4}.png", "label": "ab"[number % 2]} for number in numbers]
        if ending == "csv":
            text = ["file_name,label", *(",".join(row.values()) for row in rows)]
            (tmp_path / part / "metadata.csv").write_text("\n".join(text))
        elif ending == "jsonl":
            lines(tmp_path / part / "metadata.jsonl", rows)
        else:
            columns = {key: [row[key] for row in rows] for key in rows[0]}
            parquet(tmp_path / part / "metadata.parquet", pa.table(columns))
    right = [Picture("train" if number < 4 else "val", "ab"[number % 2], number) for number in range(6)]
    assert opened(tmp_path) == wanted(right)
    assert open_splits(recognise(tmp_path)).left_out == {}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_in_other_words_counts_where_no_class_folders_are(tmp_path, ending):
    rows = [{"filename": f"{k}.png", "class": "ab"[k % 2]} for k in range(6)]
    for place in (tmp_path / "flat" / "images", tmp_path / "classes" / "a", tmp_path / "classes" / "b"):
        place.mkdir(parents=True)
        for k in range(6):
            (place / f"{k}.png").write_bytes(png(k))
    for place in (tmp_path / "flat", tmp_path / "classes"):
        text = ["filename,class", *(",".join(row.values()) for row in rows)]
        (place / f"list.{ending}").write_text("\n".join(text if ending == "csv" else map(json.dumps, rows)))
    assert recognise(tmp_path / "flat").form == "table" and recognise(tmp_path / "classes").form == "folders"
    assert [len(rows) for rows in opened(tmp_path / "flat").values()] == [4, 2]


def test_parquet_that_holds_images_is_not_read_out_of_a_zip(tmp_path):
    as_bytes(tmp_path / "in", pictures("train", "val"))
    assert "Unzip it" in refusal(zipped(tmp_path / "in", tmp_path / "x.zip"))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "has boxes (column 'xmin')"),
        ("ImageID,LabelName,BBox", "has boxes (column 'bbox')"),
        ("file_name,mask_file_name", "names a mask for each image (column 'mask_file_name')"),
    ],
)
def test_flat_images_with_a_table_that_is_not_read_are_refused_by_it(tmp_path, columns, reason):
    for part in ("train", "valid"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "0.png").write_bytes(png(0))
        (tmp_path / part / "_annotations.csv").write_text(columns + "\n")
    assert reason in refusal(tmp_path)
    assert "Write COCO JSON" in refusal(tmp_path) or "masks/" in refusal(tmp_path)


def test_a_missing_package_is_one_line_where_it_is_needed_and_none_where_it_is_not(tmp_path):
    file = parquet(tmp_path / "x" / "x.parquet", held(pictures("train", "val")))
    write_images(tmp_path / "y", pictures("train", "val"))
    parquet(tmp_path / "y" / "features.parquet", pa.table({"label": ["a"]}))
    code = "import sys; sys.modules['pyarrow'] = None\nfrom convnext.cli import main\nsys.exit(main(sys.argv[1:]))"
    for data in (file, file.parent):
        call = [sys.executable, "-c", code, "train", str(data), "--out", str(tmp_path / "run")]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "needs pyarrow, which is not installed: pip install 'convnext[parquet]'" in done.stderr
    code = (
        "import sys; sys.modules['pyarrow'] = None\nfrom convnext.data.opening import open_splits, recognise\n"
        "print(len(open_splits(recognise(sys.argv[1])).train.entries))"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "y")]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "4\n"


# --- the test part


@pytest.mark.parametrize("form", ["folders", "csv", "jsonl", "parquet"])
def test_the_test_part_is_scored_by_name(tmp_path, form):
    made = [*pictures("train", "val", "test"), Picture("test", "owl", 90)]
    write_images(tmp_path, made)
    rows = [{"path": each.path, "label": each.label, "split": each.part} for each in made]
    data = tmp_path
    if form == "csv":
        text = ["path,label,split", *(",".join(row.values()) for row in rows)]
        data = tmp_path / "x.csv"
        data.write_text("\n".join(text))
    elif form == "jsonl":
        data = lines(tmp_path / "x.jsonl", rows)
    elif form == "parquet":
        data = parquet(tmp_path / "x.parquet", pa.table({key: [row[key] for row in rows] for key in rows[0]}))
    splits = open_splits(recognise(data))
    assert splits.train.classes == ("cat", "dog") and splits.left_out["images of the test part"] == 5
    assert [len(open_labelled(recognise(data), split=part).entries) for part in ("train", "val", "test")] == [4, 4, 5]
    assert len(open_labelled(recognise(data)).entries) == 4 and open_labelled(recognise(data)).classes == ("cat", "dog")
    with pytest.raises(DataError, match="has class 'owl', which the model does not know"):
        open_labelled(recognise(data), classes=("cat", "dog"), split="test")
    known = open_labelled(recognise(data), classes=("cat", "dog", "owl"), split="test")
    assert [known.classes[entry.label] for entry in known.entries].count("owl") == 1


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    write_images(tmp_path, pictures("train", "test"))
    with pytest.raises(DataError, match="no images in its val part, only in train and test"):
        open_labelled(recognise(tmp_path), split="val")
    assert len(open_labelled(recognise(tmp_path)).entries) == 4
