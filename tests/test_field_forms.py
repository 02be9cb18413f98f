"""Other people's annotations: what tools draw and write, what of it is read, and what is refused by its name."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import foreign
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.opening import open_dense_splits, open_parts, open_splits, recognise
from convnext.data.sample import IGNORE
from convnext.errors import DataError
from dense_images import coco, write_coco, write_image
from foreign import put
from images import write_colours, zipped

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself

HEIGHT, WIDTH = 24, 32


def only(place: Path, **how: Any) -> DenseDataset:
    [dataset] = open_parts(recognise(place, **how)).values()
    return dataset


def kinds(dataset: DenseDataset) -> list[str]:
    return [problem.kind for problem in dataset.problems]


def boxes(dataset: DenseDataset, place: int = 0) -> list[list[float]]:
    return dataset.entries[place].objects.boxes.tolist()


def labels(dataset: DenseDataset, place: int = 0) -> list[str]:
    return [dataset.classes[label] for label in dataset.entries[place].objects.labels]


# labelme


def labelme(folder: Path, *shapes: dict[str, Any], name: str = "a", image: bool = True, **more: Any) -> Path:
    """One file, with its image beside it; each shape is a polygon called cat if it says nothing else."""
    rows = [{"label": "cat", "group_id": None, "shape_type": "polygon", "flags": {}} | shape for shape in shapes]
    content = {"version": "5.4.1", "flags": {}, "shapes": rows, "imagePath": f"{name}.jpg", "imageData": None}
    content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more
    put(folder / f"{name}.json", json.dumps(content))
    if image:
        write_image(folder / f"{name}.jpg")
    return folder


TRIANGLE = [[2, 3], [12, 3], [2, 13]]


def test_the_shapes_of_labelme_become_boxes_and_outlines(tmp_path):
    labelme(
        tmp_path,
        {"points": TRIANGLE},
        {"points": [[20, 14], [10, 4]], "shape_type": "rectangle"},
        {"points": [[10, 4], [20, 4], [20, 14], [10, 14]], "shape_type": "rectangle"},
        {"points": [[15, 12], [18, 16]], "shape_type": "circle"},
        {"points": [[10, 2], [18, 10], [10, 18], [2, 10]], "shape_type": "rotation", "label": "dog"},
    )
    dataset = only(tmp_path)
    assert dataset.classes == ("cat", "dog") and kinds(dataset) == [] and dataset.category_ids == (1, 2)
    wanted = [[2, 3, 12, 13], [10, 4, 20, 14], [10, 4, 20, 14], [10, 7, 20, 17], [2, 2, 18, 18]]
    assert np.abs(np.array(boxes(dataset)) - wanted).max() < 0.06  # the circle has a centre 15 12 and a radius of 5
    assert dataset.entries[0].objects.outlined.tolist() == [True, False, False, True, True]
    circle = read_sample(dataset, 0).instances.masks[3].sum()
    assert abs(int(circle) - math.pi * 25) < 4


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_points_and_lines_have_no_area_and_are_named(tmp_path, kind):
    labelme(tmp_path, {"points": TRIANGLE}, {"points": [[1, 1], [9, 9]], "shape_type": kind})
    dataset = only(tmp_path)
    assert boxes(dataset) == [[2, 3, 12, 13]] and kinds(dataset) == ["no area"]
    assert dataset.problems[0].where == "a.json shape 2" and dataset.problems[0].what == kind
    labelme(tmp_path, {"points": TRIANGLE}, name="b")
    lines = preflight_dense(open_dense_splits(recognise(tmp_path))).lines
    assert f"1 object drawn as points or lines, which have no area, is left out: a.json shape 2 ({kind})." in lines


def test_shapes_of_one_group_and_label_are_one_object(tmp_path):
    apart = [[20, 3], [28, 3], [20, 10]]
    labelme(
        tmp_path, {"points": TRIANGLE, "group_id": 1}, {"points": TRIANGLE, "label": "dog", "group_id": 1},
        {"points": apart, "group_id": 1}, {"points": apart},
    )  # fmt: skip
    dataset = only(tmp_path)
    assert boxes(dataset) == [[2, 3, 28, 13], [2, 3, 12, 13], [20, 3, 28, 10]] and labels(dataset) == [
        "cat",
        "dog",
        "cat",
    ]


@pytest.mark.parametrize(
    "points", [[], [[1, 2]], [[1, 2], [3, 4]], [[1, 1], [5, 5], [9, 9]], "none", [["a", 1]] * 3, [[1]] * 3, None]
)
def test_a_shape_that_cannot_be_used_is_named_and_the_others_kept(tmp_path, points):
    dataset = only(labelme(tmp_path, {"points": points}, {"points": TRIANGLE}))
    assert boxes(dataset) == [[2, 3, 12, 13]] and len(dataset.problems) == 1
    assert dataset.problems[0].where == "a.json shape 1"


@pytest.mark.parametrize(
    "path", ["a.jpg", "..\\images\\a.jpg", "C:\\Users\\me\\a.jpg", "/home/me/a.jpg", "../a.JPG", "", None, "gone.png"]
)
def test_the_image_of_a_file_is_found_wherever_it_was_made(tmp_path, path):
    dataset = only(labelme(tmp_path, {"points": TRIANGLE}, imagePath=path))
    assert [entry.path for entry in dataset.entries] == ["a.jpg"] and kinds(dataset) == []


def test_an_image_inside_the_file_is_used_where_there_is_no_other(tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (200, 10, 10)).save(image, "PNG")
    text = base64.b64encode(image.getvalue()).decode()
    labelme(tmp_path / "data", {"points": TRIANGLE}, image=False, imageData=text, imageHeight=None)
    labelme(tmp_path / "data", {"points": TRIANGLE}, name="b", imageData=text)
    for place in (tmp_path / "data", zipped(tmp_path / "data", tmp_path / "data.zip")):
        dataset = only(place)
        assert [entry.path for entry in dataset.entries] == ["a.json", "b.jpg"] and dataset.entries[0].size == (24, 32)
        assert (read_sample(dataset, 0).image == (200, 10, 10)).all() and not (
            read_sample(dataset, 1).image == 200
        ).all()
        assert "The image of 1 file is inside its JSON and was read from there." in dataset.notes


def test_an_image_that_nobody_annotated_is_named_and_one_without_a_shape_is_empty(tmp_path):
    labelme(tmp_path, {"points": TRIANGLE})
    labelme(tmp_path, name="b")
    write_image(tmp_path / "c.jpg")
    dataset = only(tmp_path)
    assert [len(entry.objects) for entry in dataset.entries] == [1, 0] and kinds(dataset) == ["no annotations"]
    assert dataset.problems[0].where == "c.jpg"


def test_flags_alone_are_classes_of_images_and_refused_as_objects(tmp_path):
    labelme(tmp_path, flags={"good": True})
    with pytest.raises(DataError, match=r"flags for 1 whole image and no shapes: .* say --task classification\.$"):
        open_parts(recognise(tmp_path, form="labelme"))


def test_folders_say_the_parts_of_labelme_and_very_many_files_are_not_taken_for_coco(tmp_path):
    for part in ("train", "valid"):
        for n in range(5):
            labelme(tmp_path / part, {"points": TRIANGLE}, name=f"{part}{n}")
    write_coco(tmp_path / "other")  # COCO in the same tree is surer
    assert recognise(tmp_path).form == "coco"
    parts = open_parts(recognise(tmp_path, form="labelme"))
    assert {part: len(dataset.entries) for part, dataset in parts.items()} == {"train": 5, "val": 5}


def test_a_broken_file_is_named(tmp_path):
    labelme(tmp_path, {"points": TRIANGLE})
    labelme(tmp_path, {"points": TRIANGLE}, name="b")
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text()[:-9])
    dataset = only(tmp_path)
    assert len(dataset.entries) == 1 and kinds(dataset) == ["damaged file"]


# Outlines as masks


def test_outlines_are_painted_in_their_order_for_segmentation(tmp_path):
    labelme(
        tmp_path, {"points": [[4, 4], [20, 4], [20, 20], [4, 20]]},
        {"points": [[10, 10], [30, 22]], "shape_type": "rectangle", "label": "dog"},
        {"points": [[0, 0], [3, 0], [3, 3], [0, 3]], "label": "__ignore__"},
    )  # fmt: skip
    assert recognise(tmp_path).task == "detection" and only(tmp_path).classes == ("cat", "dog")
    dataset = only(tmp_path, task="segmentation")
    assert (dataset.task, dataset.classes) == ("segmentation", ("background", "cat", "dog"))
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[4:20, 4:20] = 1
    wanted[10:22, 10:30] = 2
    wanted[:3, :3] = IGNORE
    assert np.array_equal(read_sample(dataset, 0).semantic, wanted)
    assert "painted as masks in the order of their file; what none covers is 'background'" in " ".join(dataset.notes)


def test_the_masks_of_cvat_are_painted_by_their_z_order_and_a_class_called_background_is_the_background(tmp_path):
    square = "4,4;20,4;20,20;4,20"
    shapes = f"""<polygon label="cat" points="{square}" z_order="2"/>
        <polygon label="dog" points="10,10;30,10;30,22;10,22" z_order="1"/>
        <polygon label="Background" points="4,4;6,4;6,6;4,6" z_order="3"/>"""
    dataset = only(cvat(tmp_path, shapes), task="segmentation")
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[10:22, 10:30] = 2
    wanted[4:20, 4:20] = 1
    wanted[4:6, 4:6] = 0
    assert dataset.classes == ("Background", "cat", "dog")
    assert np.array_equal(read_sample(dataset, 0).semantic, wanted)


@pytest.mark.parametrize("form", ["labelme", "cvat", "supervisely", "datumaro", "coco", "yolo"])
def test_the_outlines_of_any_form_are_painted_as_cocos_tools_draw_them(tmp_path, form):
    shown = foreign.small("polygons", single=True)
    getattr(foreign, f"write_{form}")(tmp_path, shown)
    splits = open_dense_splits(recognise(tmp_path, task="segmentation"))
    classes = splits.train.classes
    assert sorted(classes[1:]) == foreign.classes_of(shown) and classes[0] == "background"
    for image in shown:
        dataset = {"train": splits.train, "val": splits.val}[image.part]
        place = [Path(entry.path).name for entry in dataset.entries].index(image.name)
        wanted = np.zeros(image.size, np.uint8)
        for thing in image.things:
            wanted[thing.pixels(*image.size) > 0] = classes.index(thing.label)
        different = np.count_nonzero(read_sample(dataset, place).semantic != wanted)
        assert different <= (30 if form in ("yolo", "cvat") else 0)  # those round the points
    assert not preflight_dense(splits).broken


def test_a_box_among_outlines_says_nothing_about_its_pixels(tmp_path):
    content = coco(2)
    content["annotations"][0]["segmentation"] = []
    dataset = only(write_coco(tmp_path, content).parents[1], task="segmentation")
    found = read_sample(dataset, 0).semantic
    assert (found[4:12, 2:10] == IGNORE).all() and np.count_nonzero(found == IGNORE) == 64
    assert "1 object without an outline: the pixels in the box do not count." in dataset.notes


def test_boxes_alone_are_nothing_to_segment_by(tmp_path):
    foreign.write_yolo(tmp_path, foreign.small("boxes"))
    with pytest.raises(DataError, match=r"has boxes and no outlines: .* or say --task detection\.$"):
        open_parts(recognise(tmp_path, task="segmentation"))


# CVAT


def cvat(folder: Path, shapes: str, *, name: str = "a.jpg", file: str = "annotations.xml", labels: str = "") -> Path:
    """annotations.xml and images/a.jpg."""
    text = f"""<?xml version="1.0" encoding="utf-8"?>
    <annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>
      <image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>
    </annotations>"""
    put(folder / file, text)
    write_image(folder / "images" / name)
    return folder


def test_turned_boxes_and_ellipses_of_cvat_are_outlines(tmp_path):
    dataset = only(
        cvat(
            tmp_path,
            """<box label="cat" xtl="10" ytl="8" xbr="18" ybr="12" rotation="90"/>
            <ellipse label="cat" cx="16" cy="12" rx="8" ry="4" rotation="90.0"/>
            <box label="cat" xtl="10" ytl="8" xbr="18" ybr="12" rotation="0.0"/>""",
        )
    )
    assert np.abs(np.array(boxes(dataset)) - [[12, 6, 16, 14], [12, 4, 20, 20], [10, 8, 18, 12]]).max() < 0.06
    assert dataset.entries[0].objects.outlined.tolist() == [True, True, False]
    ellipse = read_sample(dataset, 0).instances.masks[1].sum()
    assert abs(int(ellipse) - math.pi * 32) < 4


def test_a_box_turns_clockwise_as_cvat_shows_it(tmp_path):
    dataset = only(cvat(tmp_path, '<box label="cat" xtl="4" ytl="10" xbr="24" ybr="12" rotation="30"/>'))
    mask = read_sample(dataset, 0).instances.masks[0]
    assert mask[15, 21] and not mask[7, 21]  # the right end goes down


def test_the_labels_of_cvat_are_the_classes_in_their_order(tmp_path):
    labels = "".join(
        f"<label><name>{name}</name><type>{kind}</type></label>"
        for name, kind in (("zebra", "any"), ("cat", "rectangle"), ("night", "tag"), ("nose", "points"))
    )
    dataset = only(
        cvat(tmp_path, '<box label="cat" xtl="1" ytl="2" xbr="9" ybr="8"/><tag label="night"/>', labels=labels)
    )
    assert dataset.classes == ("zebra", "cat") and labels_and_boxes(dataset) == [("cat", [1, 2, 9, 8])]
    assert kinds(dataset) == []


def labels_and_boxes(dataset: DenseDataset) -> list[tuple[str, list[float]]]:
    return list(zip(labels(dataset), boxes(dataset), strict=True))


def test_lines_points_and_damaged_masks_of_cvat_are_named(tmp_path):
    dataset = only(
        cvat(
            tmp_path,
            """<polyline label="cat" points="1,1;5,5"/><points label="cat" points="1,1"/>
            <mask label="cat" rle="3, 9" left="1" top="1" width="4" height="4"/>
            <mask label="cat" rle="a" left="1" top="1" width="4" height="4"/>
            <polygon label="cat" points="1,1;x,5;7,7"/><box label="cat" xtl="1" ytl="2" xbr="nan" ybr="8"/>
            <box xtl="1" ytl="2" xbr="9" ybr="8"/><box label="cat" xtl="1" ytl="2" xbr="9"/>
            <box label="cat" xtl="1" ytl="2" xbr="9" ybr="8"/>""",
        )
    )
    assert labels_and_boxes(dataset) == [("cat", [1, 2, 9, 8])]
    assert kinds(dataset) == ["no area"] * 2 + ["unreadable"] * 6


def test_a_mask_of_cvat_that_reaches_out_of_the_image_is_cut(tmp_path):
    dataset = only(cvat(tmp_path, '<mask label="cat" rle="0, 16" left="30" top="-2" width="4" height="4"/>'))
    assert boxes(dataset) == [[30, 0, 32, 2]] and read_sample(dataset, 0).instances.masks.sum() == 4


def test_several_files_of_cvat_are_one_set_and_an_image_in_two_is_named(tmp_path):
    box = '<box label="{}" xtl="1" ytl="2" xbr="9" ybr="8"/>'
    cvat(tmp_path, box.format("dog"), file="job_1.xml")
    cvat(tmp_path, box.format("cat"), name="b.jpg", file="job_2.xml")
    cvat(tmp_path, box.format("cat"), file="job_3.xml")
    dataset = only(tmp_path)
    assert [labels(dataset, n) for n in (0, 1)] == [["dog"], ["cat"]] and kinds(dataset) == ["double image"]


def test_one_file_of_cvat_with_its_images_elsewhere_is_read(tmp_path):
    cvat(tmp_path / "data", '<box label="cat" xtl="1" ytl="2" xbr="9" ybr="8"/>')
    (tmp_path / "data" / "images").rename(tmp_path / "pictures")
    dataset = only(tmp_path / "data" / "annotations.xml", images=tmp_path / "pictures")
    assert labels_and_boxes(dataset) == [("cat", [1, 2, 9, 8])]
    with pytest.raises(DataError, match=r"none of the 1 images .* the first is 'a.jpg'. Name their folder .* --images"):
        open_parts(recognise(tmp_path / "data"))


@pytest.mark.parametrize("named", [False, True])
def test_tracks_of_cvat_are_refused_with_the_way_out(tmp_path, named):
    write_image(tmp_path / "images" / "a.jpg")
    track = '<track id="0" label="car"><box frame="0" xtl="1" ytl="1" xbr="5" ybr="5"/></track>'
    put(tmp_path / "annotations.xml", f"<annotations><version>1.1</version>{track}</annotations>")
    with pytest.raises(
        DataError, match=r"form for video, with tracks\. Export .* 'CVAT for images 1\.1' or 'COCO 1\.0'"
    ):
        open_parts(recognise(tmp_path / "annotations.xml" if named else tmp_path))


def test_tags_alone_are_refused_as_objects(tmp_path):
    with pytest.raises(
        DataError, match=r"tags at most and no shapes\. Tags are classes of whole images: leave out --form"
    ):
        open_parts(recognise(cvat(tmp_path, '<tag label="night"/>'), form="cvat"))


def test_entities_are_refused(tmp_path):
    cvat(tmp_path, "")
    text = (tmp_path / "annotations.xml").read_text().replace("<annotations>", "<!DOCTYPE x><annotations>", 1)
    put(tmp_path / "annotations.xml", text)
    with pytest.raises(DataError):
        open_parts(recognise(tmp_path))


# VIA, Supervisely, Datumaro


def test_regions_of_via_without_an_attribute_are_one_class(tmp_path):
    write_image(tmp_path / "a.jpg")
    shapes = [
        {"name": "circle", "cx": 12, "cy": 10, "r": 5}, {"name": "point", "cx": 1, "cy": 1},
        {"name": "ellipse", "cx": 12, "cy": 12, "rx": 8, "ry": 4, "theta": math.pi / 2},
        {"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 5, 3]},
    ]  # fmt: skip
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes]
    content = {"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": regions, "file_attributes": {}}}
    put(tmp_path / "via.json", json.dumps(content))
    for place in (tmp_path, tmp_path / "via.json"):
        dataset = only(place)
        assert dataset.classes == ("object",) and "are of one class, 'object'" in " ".join(dataset.notes)
        assert np.abs(np.array(boxes(dataset)) - [[7, 5, 17, 15], [8, 4, 16, 20]]).max() < 0.06
        assert kinds(dataset) == ["no area"] * 2


def test_the_holes_of_supervisely_are_left_open(tmp_path):
    write_image(tmp_path / "ds" / "img" / "a.png")
    points = {"exterior": [[2, 2], [22, 2], [22, 22], [2, 22]], "interior": [[[6, 6], [16, 6], [16, 16], [6, 16]]]}
    rows = [{"classTitle": "cat", "geometryType": "polygon", "points": points}]
    rows.append({"classTitle": "cat", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}})
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": rows, "tags": []}
    put(tmp_path / "ds" / "ann" / "a.png.json", json.dumps(content))
    put(tmp_path / "meta.json", json.dumps({"classes": [{"title": "cat", "shape": "polygon"}]}))
    dataset = only(tmp_path)
    mask = read_sample(dataset, 0).instances.masks[0]
    assert mask.sum() == 400 - 100 and not mask[6:16, 6:16].any() and kinds(dataset) == ["no area"]


# Pascal VOC with masks


def voc(folder: Path) -> Path:
    """Boxes of four images, masks of two of them."""
    shown = foreign.small("boxes")
    foreign.write_voc(folder, shown)
    for image in (shown[1], shown[5]):
        mask = np.zeros(image.size, np.uint8)
        mask[3:9, 4:12] = 1
        palette = Image.fromarray(mask)
        palette.putpalette([0, 0, 0, 128, 0, 0])
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        palette.save(folder / "SegmentationClass" / f"{Path(image.name).stem}.png")
    for part, image in (("train", shown[1]), ("val", shown[5])):
        put(folder / "ImageSets" / "Segmentation" / f"{part}.txt", f"{Path(image.name).stem}\n")
    put(folder / "classes.txt", "background\ncat\n")
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_of_voc_the_task_says_whether_boxes_or_masks_are_read(tmp_path, packed):
    place = voc(tmp_path / "VOC2012")
    place = zipped(place, tmp_path / "VOC2012.zip", below="VOC2012/") if packed else place
    for task in (None, "detection"):
        source = recognise(place, task=task, annotated=True if task else None)
        parts = open_parts(source)
        assert (source.form, source.task) == ("voc", "detection") and not parts["train"].problems
        assert {part: len(dataset.entries) for part, dataset in parts.items()} == {"train": 4, "val": 3}
        assert "--task segmentation reads those" in " ".join(parts["train"].notes)
    for how in ({}, {"form": "voc"}):
        source = recognise(place, task="segmentation", **how)
        parts = open_parts(source)
        assert source.form == "masks" and parts["train"].classes == ("background", "cat")
        assert {part: len(dataset.entries) for part, dataset in parts.items()} == {"train": 1, "val": 1}
        assert np.count_nonzero(read_sample(parts["val"], 0).semantic == 1) == 48


def test_the_masks_of_pascal_voc_itself_have_its_classes(tmp_path):
    place = voc(tmp_path / "VOC2012")
    (place / "classes.txt").unlink()
    named = (
        "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant"
    )
    for number, name in enumerate([*named.split(), "sheep", "sofa", "train", "tvmonitor"]):
        numbered = open_parts(recognise(place, task="segmentation"))["train"]
        assert numbered.classes == ("0", "1"), f"{number} of its lists are not enough"
        put(place / "ImageSets" / "Main" / f"{name}_train.txt", "im 1  1\n")
    dataset = open_parts(recognise(place, task="segmentation"))["train"]
    assert len(dataset.classes) == 21 and dataset.classes[1] == "aeroplane" and dataset.classes[20] == "tvmonitor"


@pytest.mark.parametrize(
    "line", ["{}", "{}  1", "{} -1", "JPEGImages/{}.jpg SegmentationClass/{}.png", "/JPEGImages/{}.jpg"]
)
@pytest.mark.parametrize("name", ["im 1", "im", "2007_000032"])
def test_lists_of_voc_may_name_an_image_in_any_of_their_ways(tmp_path, line, name):
    for number, part in enumerate(("train", "val")):
        stem = name if part == "train" else "other one"
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
        mask = tmp_path / "SegmentationClass" / f"{stem}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH), number, np.uint8)).save(mask)
        put(tmp_path / "ImageSets" / "Segmentation" / f"{part}.txt", line.format(stem, stem) + "\n")
    parts = open_parts(recognise(tmp_path))
    assert {part: len(dataset.entries) for part, dataset in parts.items()} == {"train": 1, "val": 1}


def test_turned_boxes_of_yolo_are_outlines_of_four_corners(tmp_path):
    write_image(tmp_path / "images" / "a.jpg")
    put(tmp_path / "labels" / "a.txt", "1 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n")
    put(tmp_path / "data.yaml", "names: [plane, ship]\n")
    dataset = only(tmp_path)
    objects = dataset.entries[0].objects.in_pixels(HEIGHT, WIDTH)
    assert objects.boxes.tolist() == [[8, 6, 24, 18]] and labels(dataset) == ["ship"] and kinds(dataset) == []
    assert objects.shapes[0][0].tolist() == [[16, 6], [24, 12], [16, 18], [8, 12]]


# What is known and not read


UNREAD: dict[str, tuple[str, str, str]] = {  # file, its content, what is said of it
    "label studio": (
        "project.json",
        json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": []}]}]),
        "'project.json' is an export of Label Studio, which is not read. Export 'COCO with images' or 'YOLO with images'",
    ),
    "label studio, short": (
        "min.json", json.dumps([{"image": "a.jpg", "annotation_id": 1, "annotator": 2, "label": []}]), "Label Studio's short"
    ),
    "createml": (
        "_annotations.createml.json",
        json.dumps([{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}]),
        "CreateML's JSON, which is not read. Export COCO JSON or Pascal VOC",
    ),
    "kitti": ("label_2/a.txt", "Car 0.00 0 -1.5 1 2 30 20 1.5 1.6 3.7 0 1.5 9 0.1\n", "KITTI's boxes"),
    "dota": ("labelTxt/a.txt", "imagesource:x\ngsd:0.1\n1 2 9 2 9 8 1 8 plane 0\n", "DOTA's turned boxes"),
    "visdrone": ("annotations/a.txt", "1,2,30,20,1,4,0,0\n", "VisDrone and MOT"),
    "via csv": (
        "via.csv", "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n",
        "a CSV of the VGG Image Annotator, which is not read. Export the annotations as JSON",
    ),
    "open images": ("b.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n", "a CSV of Open Images"),
    "boxes csv": ("b.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n", "'b.csv' has boxes (column 'xmin'), which"),
    "run lengths csv": ("train.csv", "ImageId,EncodedPixels\n", "a CSV of run lengths"),
    "labelbox": ("x.ndjson", json.dumps({"data_row": {"id": "x"}, "projects": {}}), "an export of Labelbox"),
    "superannotate": (
        "a.jpg.json", json.dumps({"metadata": {}, "instances": [{"className": "x", "type": "bbox"}]}), "SuperAnnotate"
    ),
    "panoptic": (
        "panoptic.json",
        json.dumps({"images": [], "annotations": [{"segments_info": []}], "categories": []}),
        "COCO's panoptic JSON, which is not read. Name instances_",
    ),
    "bdd": ("det.json", json.dumps([{"name": "a.jpg", "labels": [{"category": "x", "box2d": {}}]}]), "BDD100K"),
    "cityscapes": (
        "gtFine/a_polygons.json", json.dumps({"imgHeight": 9, "objects": [{"label": "x", "polygon": []}]}), "Cityscapes"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", [{}, {"annotated": True}], ids=["nothing", "task"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("case", UNREAD)
def test_a_form_that_is_known_and_not_read_is_called_by_its_name(tmp_path, case, packed, how):
    file, text, said = UNREAD[case]
    write_image(tmp_path / "data" / "images" / "a.jpg")
    put(tmp_path / "data" / file, text)
    place = zipped(tmp_path / "data", tmp_path / "data.zip") if packed else tmp_path / "data"
    with pytest.raises(DataError) as error:
        open_parts(recognise(place, **how))
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("case", ["label studio", "createml", "boxes csv", "panoptic", "labelbox"])
def test_the_same_where_the_file_itself_is_named(tmp_path, case):
    file, text, said = UNREAD[case]
    put(tmp_path / file, text)
    for how in ({}, {"annotated": True}):
        with pytest.raises(DataError) as error:
            open_parts(recognise(tmp_path / file, **how))
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train-00000-of-00010.tfrecord", "b.tfrecord"], "is a TFRecord"),
        (["train.tfrecord-00000-of-00010"], "is a TFRecord"),
        (["shard-000.tar", "shard-001.tar"], "a shard of WebDataset"),
        (["labels.mat"], "a file of MATLAB"),
    ],
)
@pytest.mark.parametrize("how", [{}, {"annotated": False}, {"annotated": True}], ids=["nothing", "classes", "boxes"])
def test_images_packed_in_other_files_are_called_by_their_name(tmp_path, names, said, how):
    for name in names:
        put(tmp_path / name, "\0" * 99)
    with pytest.raises(DataError, match=said):
        recognise(tmp_path, **how)


def test_class_folders_beside_an_export_stay_classes(tmp_path):
    write_colours(tmp_path, train=3, val=1, size=8)
    for case in ("label studio", "boxes csv", "createml"):
        put(tmp_path / UNREAD[case][0], UNREAD[case][1])
    assert open_splits(recognise(tmp_path)).train.classes == ("blue", "green", "red")


def test_a_file_of_one_image_leads_to_its_folder(tmp_path):
    labelme(tmp_path, {"points": TRIANGLE})
    with pytest.raises(DataError, match=r"labelme's file of one image, which is not read\. Name the folder"):
        recognise(tmp_path / "a.json")
