"""COCO, VOC, YOLO and label maps: the same images and objects come out, in a folder and in a zip."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as theirs

from convnext.data.dataset import DenseDataset, read_sample, with_classes
from convnext.data.decode import decode_indices
from convnext.data.formats.coco import open_coco
from convnext.data.formats.export import results, to_coco
from convnext.data.formats.masks import open_masks
from convnext.data.formats.voc import open_voc
from convnext.data.formats.yolo import open_yolo
from convnext.data.formats.yolo_yaml import read_yaml
from convnext.data.masks import compress
from convnext.data.opening import open_dense, open_dense_splits, recognise
from convnext.data.sample import IGNORE
from convnext.errors import DataError
from dense_images import HEIGHT, WIDTH, coco, square, write_coco, write_image, write_maps
from images import zipped

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself


def boxes(dataset: DenseDataset, index: int = 0) -> list[list[float]]:
    return read_sample(dataset, index).instances.boxes.tolist()


def names(dataset: DenseDataset) -> list[str]:
    return [entry.path.rsplit("/", 1)[-1] for entry in dataset.entries]


# COCO


def test_coco_boxes_become_corners_and_categories_become_labels_in_the_order_of_their_numbers(tmp_path):
    dataset = open_coco(recognise(write_coco(tmp_path)))["all"]
    assert dataset.classes == ("cat", "dog") and dataset.category_ids == (3, 7)
    sample = read_sample(dataset, 0)
    assert sample.image.shape == (HEIGHT, WIDTH, 3) and sample.image_id == 10 and sample.size == (HEIGHT, WIDTH)
    assert sample.instances.boxes.tolist() == [[2, 4, 10, 12], [15, 4, 23, 12]]
    assert sample.instances.labels.tolist() == [1, 0] and sample.instances.ids.tolist() == [1, 2]
    assert sample.instances.masks.sum(axis=(1, 2)).tolist() == [64, 64] == sample.instances.area.tolist()
    assert sample.instances.masks[0, 4:12, 2:10].all()


def test_an_image_without_objects_is_kept_and_can_be_left_out(tmp_path):
    dataset = open_coco(recognise(write_coco(tmp_path)))["all"]
    empty = read_sample(dataset, 3)
    assert len(dataset.entries) == 4 and len(empty.instances) == 0
    assert empty.instances.masks.shape == (0, HEIGHT, WIDTH) and empty.instances.boxes.shape == (0, 4)
    assert len(dataset.annotated().entries) == 3


def test_all_forms_of_a_mask_give_the_same_pixels(tmp_path):
    content = coco(3)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 2:10] = 1
    runs = [4 + 2 * HEIGHT, *[8, HEIGHT - 8] * 7, 8, HEIGHT * WIDTH - 2 * HEIGHT - 4 - 8 * 8 - 7 * (HEIGHT - 8)]
    packed = theirs.encode(np.asfortranarray(mask))["counts"].decode()
    forms = [
        {"size": [HEIGHT, WIDTH], "counts": runs},
        {"size": [HEIGHT, WIDTH], "counts": packed},
        [square(2, 4, 8)],
        square(2, 4, 8),  # not in a list of its own, as some tools write it
    ]
    for annotation, form in zip(content["annotations"], forms, strict=True):
        annotation["segmentation"] = form
        annotation["bbox"] = [2, 4, 8, 8]
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    assert not dataset.problems
    masks = np.concatenate([read_sample(dataset, n).instances.masks for n in (0, 1)])
    assert (masks == mask).all()
    assert dataset.entries[0].objects.shapes[0].counts == compress(np.array(runs))


def test_a_box_or_an_area_or_a_number_that_is_missing_is_made(tmp_path):
    content = coco(3)
    first, second, third, fourth = content["annotations"]
    del first["bbox"], first["area"], second["id"]
    third["id"] = 0  # COCO's evaluation takes it for none
    fourth["id"] = 1  # taken
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    assert boxes(dataset)[0] == [2, 4, 10, 12]
    assert read_sample(dataset, 0).instances.area[0] == 64
    ids = [int(number) for entry in dataset.entries for number in entry.objects.ids]
    assert ids[0] == 1 and len(set(ids)) == 4 and min(ids) > 0
    assert dataset.notes == ("3 annotations without a number of their own got a new one.",)


def test_crowds_are_marked_and_boxes_alone_have_no_masks(tmp_path):
    content = coco(2)
    content["annotations"][0]["iscrowd"] = 1
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    dataset = open_coco(recognise(write_coco(tmp_path, content)))["all"]
    found = read_sample(dataset, 0).instances
    assert found.crowd.tolist() == [True, False] and found.masks is None and not dataset.has_masks


def test_among_masks_a_box_alone_is_its_own_mask(tmp_path):
    content = coco(2)
    content["annotations"][0]["segmentation"] = []
    found = read_sample(open_coco(recognise(write_coco(tmp_path, content)))["all"], 0).instances
    assert found.masks[0].sum() == 64 and found.masks[0, 4:12, 2:10].all()


def test_masks_need_not_be_drawn(tmp_path):
    assert read_sample(open_coco(recognise(write_coco(tmp_path)))["all"], 0, masks=False).instances.masks is None


def test_a_coco_zip_with_two_files_has_two_parts_with_the_same_classes(tmp_path):
    write_coco(tmp_path / "data", name="instances_train2017.json")
    content = coco(3)
    content["categories"].append({"id": 5, "name": "emu"})
    (tmp_path / "data" / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    (tmp_path / "data" / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    for place in (tmp_path / "data", zipped(tmp_path / "data", tmp_path / "data.zip")):
        splits = open_dense_splits(recognise(place))
        assert recognise(place).form == "coco"
        assert (len(splits.train.entries), len(splits.val.entries)) == (4, 3)
        assert splits.train.classes == splits.val.classes == ("cat", "dog", "emu")
        assert splits.train.category_ids == splits.val.category_ids == (3, 7, 5)
        assert read_sample(splits.val, 0).instances.labels.tolist() == [1, 0]
        assert boxes(pickle.loads(pickle.dumps(splits.train))) == boxes(splits.val)


def test_images_are_found_wherever_they_are_and_the_part_decides_between_two_of_one_name(tmp_path):
    content = coco(2)
    content["images"].pop()
    write_coco(tmp_path, content, name="instances_val.json")
    for part in ("train", "val"):
        write_image(tmp_path / part / "deep" / "1.png", seed=5)
    (tmp_path / "images" / "1.png").unlink()
    assert [entry.path for entry in open_coco(recognise(tmp_path))["val"].entries] == ["val/deep/1.png"]
    apart = open_coco(recognise(tmp_path / "annotations" / "instances_val.json", tmp_path / "train"))["all"]
    assert [entry.path for entry in apart.entries] == ["deep/1.png"]


def test_coco_written_again_is_the_same_coco(tmp_path):
    content = coco()
    content["annotations"][1]["iscrowd"] = 1
    content["annotations"][1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": "0"}
    content["annotations"][1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
    dataset = open_coco(recognise(write_coco(tmp_path / "a", content)))["all"]
    written = to_coco(dataset)
    again = to_coco(open_coco(recognise(write_coco(tmp_path / "b", written)))["all"])
    assert again["annotations"] == written["annotations"] and again["categories"] == written["categories"]
    for ours, given in zip(written["annotations"], content["annotations"], strict=True):
        assert {key: ours[key] for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")} == {
            key: given[key] for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        }
    assert len(to_coco(dataset, [0, 3])["annotations"]) == 2


def test_results_are_cocos_rows(tmp_path):
    dataset = open_coco(recognise(write_coco(tmp_path)))["all"]
    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    mask[0, :3, :2] = 1
    row = results(dataset.category_ids, 10, np.array([[1, 2, 5, 9]]), [1], [0.5], mask)[0]
    assert row | {"segmentation": 0} == {
        "image_id": 10, "category_id": 7, "bbox": [1, 2, 4, 7], "score": 0.5, "segmentation": 0,
    }  # fmt: skip
    assert theirs.area(row["segmentation"]) == 6
    json.dumps(row)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "as COCO results are"),
        ('{"images": [], "annotations": []}', "no list of 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "has no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "lists no images"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1}]}',
            "none of the 1",
        ),
    ],
)
def test_a_file_that_is_no_coco_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        open_coco(recognise(tmp_path / "a.json"))
    assert "\n" not in str(error.value)


# Pascal VOC


def page(name: str, objects: list[tuple[str, tuple[float, ...], int]]) -> str:
    things = "".join(
        f"<object><name>{kind}</name><difficult>{hard}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><name>head</name></part></object>"
        for kind, box, hard in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{things}</annotation>"


def write_voc(folder: Path, first: int = 1) -> Path:
    for n in range(4):
        write_image(folder / "JPEGImages" / f"p{n}.jpg", seed=n)
        file = folder / "Annotations" / f"p{n}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = "dog" if n % 2 else "cat"
        file.write_text(page(f"p{n}.jpg", [(kind, (first, first, 8, 9), 0), ("dog", (5, 6, 10, 12), 1)]))
    return folder


def test_voc_counts_pixels_from_one_and_its_last_pixel_is_inside(tmp_path):
    dataset = open_voc(recognise(write_voc(tmp_path), form="voc"))["all"]
    assert dataset.classes == ("cat", "dog") and dataset.category_ids == (1, 2)
    found = read_sample(dataset, 0).instances
    assert found.boxes.tolist() == [[0, 0, 8, 9], [4, 5, 10, 12]]
    assert found.labels.tolist() == [0, 1] and found.crowd.tolist() == [False, True] and found.masks is None
    assert dataset.notes == ("Boxes count pixels from 1.",)


def test_a_voc_box_at_zero_shows_that_its_tool_counts_from_zero(tmp_path):
    dataset = open_voc(recognise(write_voc(tmp_path, first=0), form="voc"))["all"]
    assert boxes(dataset) == [[0, 0, 8, 9], [5, 6, 10, 12]]
    assert dataset.notes == ("Boxes count pixels from 0.",)


def test_voc_lists_name_the_parts(tmp_path):
    lists = write_voc(tmp_path) / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("p0\np2\np1\n")
    (lists / "val.txt").write_text("p3\n")
    (lists / "dog_val.txt").write_text("p0 -1\n")  # one of the lists of a class
    splits = open_dense_splits(recognise(tmp_path))
    assert recognise(tmp_path).form == "voc"
    assert (names(splits.train), names(splits.val)) == (["p0.jpg", "p1.jpg", "p2.jpg"], ["p3.jpg"])


# YOLO


def write_yolo(folder: Path, yaml: str = "") -> Path:
    for part, count in (("train", 3), ("val", 2)):
        for n in range(count):
            write_image(folder / "images" / part / f"{part}{n}.jpg", seed=n)
            file = folder / "labels" / part / f"{part}{n}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{n % 2} 0.5 0.5 0.25 0.5\n1 0.125 0.25 0.125 0.75 0.375 0.75 0.375 0.25\n\n")
    (folder / "labels" / "train" / "train2.txt").unlink()
    (folder / "data.yaml").write_text(yaml or "path: .\ntrain: images/train\nval: images/val\nnames: [cat, 'a dog']\n")
    return folder


def test_yolo_shares_become_pixels(tmp_path):
    dataset = open_yolo(recognise(write_yolo(tmp_path), form="yolo"))["train"]
    assert dataset.classes == ("cat", "a dog")
    found = read_sample(dataset, 0).instances
    assert found.boxes.tolist() == [[12, 6, 20, 18], [4, 6, 12, 18]]
    assert found.labels.tolist() == [0, 1] and found.area.tolist() == [96, 96]
    assert found.masks[1, 6:18, 4:12].all() and found.masks.sum() == 192
    assert len(read_sample(dataset, 2).instances) == 0  # no file: no object
    assert [annotation["bbox"] for annotation in to_coco(dataset)["annotations"][:2]] == [[12, 6, 8, 12], [4, 6, 8, 12]]


def test_yolo_is_the_same_by_its_yaml_its_folder_and_its_zip(tmp_path):
    write_yolo(tmp_path / "data")
    archive = zipped(tmp_path / "data", tmp_path / "data.zip")
    for place in (tmp_path / "data", tmp_path / "data" / "data.yaml", archive):
        splits = open_dense_splits(recognise(place))
        assert (recognise(place).form, recognise(place).task) == ("yolo", "detection")
        assert (names(splits.train), names(splits.val)) == (
            ["train0.jpg", "train1.jpg", "train2.jpg"],
            ["val0.jpg", "val1.jpg"],
        )
        assert boxes(splits.val, 1) == [[12, 6, 20, 18], [4, 6, 12, 18]]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/../images/train\nval: ../images/val\nnc: 2\nnames:\n  0: cat\n  1: a dog  # a comment\n",
        'path: /somewhere/else\ntrain:\n  - images/train\nval: images/val # held out\nnames:\n- cat\n- "a dog"\n',
        "names: {0: cat, 1: 'a dog'}\n",
        "train: train.txt\nval: [images/val]\nnames: ['cat',\n  'a dog']\n",
    ],
)
def test_a_data_yaml_is_read_in_the_ways_that_people_write_it(tmp_path, yaml):
    write_yolo(tmp_path, yaml)
    (tmp_path / "train.txt").write_text(
        "./images/train/train0.jpg\n./images/train/train1.jpg\nimages/train/train2.jpg\n"
    )
    parts = open_yolo(recognise(tmp_path, form="yolo"))
    assert parts["train"].classes == ("cat", "a dog")
    assert (len(parts["train"].entries), len(parts["val"].entries)) == (3, 2)


def test_yolo_names_come_from_classes_txt_and_are_numbers_without(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    assert open_yolo(recognise(tmp_path, form="yolo"))["val"].classes == ("0", "1")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert open_yolo(recognise(tmp_path, form="yolo"))["val"].classes == ("cat", "dog")


def test_quotes_and_marks_inside_names_are_kept():
    sheet = read_yaml("names: [\"it's\", 'a, b', c#d, 'e: f']\nother: 'x''y' # z\n")
    assert sheet == {"names": ["it's", "a, b", "c#d", "e: f"], "other": "x'y"}


# Label maps


MAP = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 4


def test_maps_beside_images_are_read_with_their_classes_and_what_does_not_count(tmp_path):
    write_maps(tmp_path, {f"{n}": MAP for n in range(5)})
    (tmp_path / "classes.json").write_text('{"classes": ["sky", "road", "car"], "ignore_index": 3}')
    dataset = open_masks(recognise(tmp_path, form="masks"))["all"]
    sample = read_sample(dataset, 0)
    assert dataset.classes == ("sky", "road", "car") and sample.instances is None
    assert np.array_equal(sample.semantic, np.where(MAP == 3, IGNORE, MAP))
    assert sample.semantic.dtype == np.uint8
    assert (recognise(tmp_path).form, recognise(tmp_path).task) == ("masks", "segmentation")


def test_reduce_zero_label_makes_class_one_the_first_and_zero_not_count(tmp_path):
    write_maps(tmp_path, {"a": MAP}, images="images/training", labels="annotations/training")
    dataset = open_masks(recognise(tmp_path, form="masks"), classes=("wall", "floor", "tree"), reduce_zero_label=True)[
        "train"
    ]
    assert np.array_equal(read_sample(dataset, 0).semantic, np.where(MAP == 0, IGNORE, MAP - 1))


def test_ade20k_is_known_by_its_table(tmp_path):
    write_maps(tmp_path / "ADE", {"a": MAP}, images="images/validation", labels="annotations/validation")
    table = ["Idx\tRatio\tTrain\tVal\tName"] + [f"{n}\t0.1\t1\t1\tthing {n}" for n in range(1, 151)]
    (tmp_path / "ADE" / "objectInfo150.txt").write_text("\n".join(table))
    dataset = open_dense(recognise(tmp_path))
    assert len(dataset.classes) == 150 and dataset.classes[0] == "thing 1"
    assert np.array_equal(read_sample(dataset, 0).semantic, np.where(MAP == 0, IGNORE, MAP - 1))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "masks"),
        ("train/images", "train/labels"),
        ("train", "trainannot"),
        ("", "annotations"),
        ("same", "same"),
        ("JPEGImages", "SegmentationClass"),
    ],
)
def test_an_image_and_its_map_find_each_other(tmp_path, images, labels):
    write_maps(tmp_path / "data", {"a": MAP, "b": MAP}, images=images, labels=labels)
    for place in (tmp_path / "data", zipped(tmp_path / "data", tmp_path / "data.zip")):
        [dataset] = open_masks(recognise(place, form="masks")).values()
        assert len(dataset.entries) == 2 and not dataset.problems
        assert dataset.classes == ("0", "1", "2", "3")
        assert np.array_equal(read_sample(dataset, 1).semantic, MAP)


def test_a_map_may_be_named_after_its_image_with_an_ending(tmp_path):
    write_image(tmp_path / "a.png")
    Image.fromarray(MAP.astype(np.uint8)).save(tmp_path / "a_mask.png")
    [entry] = open_masks(recognise(tmp_path, form="masks"))["all"].entries
    assert (entry.path, entry.semantic) == ("a.png", "a_mask.png")


def test_images_and_maps_may_be_in_two_places(tmp_path):
    write_maps(tmp_path, {"a": MAP, "b": MAP + 1})
    for images in (tmp_path / "images", zipped(tmp_path / "images", tmp_path / "images.zip")):
        dataset = open_dense(recognise(tmp_path / "labels", images, form="masks"))
        assert np.array_equal(read_sample(dataset, 1).semantic, MAP + 1)
        assert pickle.loads(pickle.dumps(dataset)).store.read("a.jpg") == (tmp_path / "images" / "a.jpg").read_bytes()


def test_palettes_keep_their_numbers_and_colours_are_refused(tmp_path):
    shown = Image.fromarray(MAP.astype(np.uint8))
    shown.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    assert shown.mode == "P"
    for mode, expected in (("P", MAP), ("L", None), ("RGB", None)):
        shown.convert(mode).save(tmp_path / "x.png")
        if expected is not None:
            assert np.array_equal(decode_indices((tmp_path / "x.png").read_bytes()), expected)
    with pytest.raises(DataError, match="colours"):
        decode_indices((tmp_path / "x.png").read_bytes())
    Image.fromarray(np.repeat(MAP[:, :, None], 3, 2).astype(np.uint8)).save(tmp_path / "x.png")
    assert np.array_equal(decode_indices((tmp_path / "x.png").read_bytes()), MAP)
    Image.fromarray((MAP * 1000).astype(np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="from 0 to 255"):
        decode_indices((tmp_path / "x.png").read_bytes())
    with pytest.raises(DataError, match="PNG"):
        decode_indices(write_image(tmp_path / "x.jpg").read_bytes())


def test_maps_of_0_and_255_are_background_and_foreground(tmp_path):
    write_maps(tmp_path, {"a": (MAP > 1) * 255})
    dataset = open_masks(recognise(tmp_path, form="masks"))["all"]
    assert dataset.classes == ("background", "foreground") and dataset.notes
    assert np.array_equal(read_sample(dataset, 0).semantic, MAP > 1)


# Opening


def test_data_without_a_val_part_are_split_by_a_hash_the_same_everywhere(tmp_path):
    write_coco(tmp_path / "data", coco(20))
    splits = open_dense_splits(recognise(tmp_path / "data"), val_share=0.25, seed=3)
    again = open_dense_splits(recognise(zipped(tmp_path / "data", tmp_path / "data.zip")), val_share=0.25, seed=3)
    other = open_dense_splits(recognise(tmp_path / "data"), val_share=0.25, seed=4)
    assert (len(splits.train.entries), len(splits.val.entries)) == (15, 5)
    assert names(splits.val) == names(again.val) != names(other.val)
    assert not set(names(splits.train)) & set(names(splits.val))


def test_held_out_images_may_be_named_apart_and_must_not_have_classes_of_their_own(tmp_path):
    train = write_coco(tmp_path / "train")
    content = coco(3)
    val = write_coco(tmp_path / "held_out", content)
    splits = open_dense_splits(
        recognise(train, tmp_path / "train" / "images"), val=recognise(val, tmp_path / "held_out")
    )
    assert (len(splits.train.entries), len(splits.val.entries)) == (4, 3)
    content["categories"][0]["name"] = "dogs"
    with pytest.raises(DataError, match=r"'dogs', which the model does not know\. Did you mean 'dog'"):
        open_dense_splits(recognise(train), val=recognise(write_coco(tmp_path / "held_out", content)))


def test_labels_follow_the_classes_of_a_checkpoint(tmp_path):
    dataset = open_coco(recognise(write_coco(tmp_path)))["all"]
    moved = with_classes(dataset, ("dog", "emu", "cat"), "x")
    assert read_sample(moved, 0).instances.labels.tolist() == [0, 2]
    assert moved.category_ids[0] == 7 and moved.category_ids[2] == 3 and len(set(moved.category_ids)) == 3
    maps = write_maps(tmp_path / "maps", {"a": MAP})
    known = open_dense(recognise(maps), classes=("3", "2", "1", "0"))
    assert np.array_equal(read_sample(known, 0).semantic, 3 - MAP)


@pytest.mark.parametrize("case", ["empty", "file", "form", "part", "no_val", "missing"])
def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path, case):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    write_coco(tmp_path / "train", name="train.json")
    write_coco(tmp_path / "val", name="val.json")
    calls = {
        "empty": (lambda: open_dense(recognise(tmp_path / "empty")), "no annotations that are known"),
        "file": (lambda: open_dense(recognise(tmp_path / "file.txt", annotated=True)), "neither COCO JSON"),
        "form": (lambda: open_dense(recognise(tmp_path / "train", form="cocoo")), "Did you mean 'coco'"),
        "part": (lambda: open_dense(recognise(tmp_path / "train"), part="val"), "has no part 'val'"),
        "no_val": (lambda: open_dense_splits(recognise(tmp_path / "val")), "no train part"),
        "missing": (lambda: open_dense(recognise(tmp_path / "trian")), "Did you mean 'train'"),
    }
    call, message = calls[case]
    with pytest.raises(DataError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
