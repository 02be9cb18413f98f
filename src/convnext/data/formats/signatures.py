"""Forms that are known by their content and not read: what each is called, and the way to one that is."""

import os
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from convnext.data.codecs import image_suffixes
from convnext.data.formats.columns import not_read
from convnext.data.formats.json_kinds import json_kind
from convnext.data.formats.mask_folders import IMAGE_WORDS
from convnext.data.parts import wraps
from convnext.data.store import Tree, printable
from convnext.data.written import decoded
from convnext.errors import DataError

_PART = re.compile("train|test|val(?:id)?", re.IGNORECASE)
_LOOKS = 3  # files of an ending
_HEAD = 65536  # bytes of a file that are looked at
_CLASSES = 2  # folders of images, from which on they may be classes


class Signature(NamedTuple):
    """What a file is, and what to do with it."""

    name: str
    way: str


_JSON = {
    "panoptic": Signature(
        "COCO's panoptic JSON", "Name instances_*.json, or save a PNG of class numbers for each image."
    ),
    "cityscapes": Signature(
        "a file of Cityscapes' polygons", "Make the *_labelIds.png with cityscapesscripts (csCreateTrainIdLabelImgs)."
    ),
    "superannotate": Signature("SuperAnnotate's JSON", "Convert it to COCO with SuperAnnotate's own export."),
    "fiftyone": Signature("FiftyOne's JSON of objects", "Export it as fiftyone.types.COCODetectionDataset from there."),
    "labelbox": Signature("an export of Labelbox", "Convert it to COCO with Labelbox's own converter."),
    "label studio": Signature(
        "an export of Label Studio", "Export 'COCO with images' or 'YOLO with images' from there."
    ),
    "label studio min": Signature(
        "Label Studio's short JSON", "Export 'COCO with images' or 'YOLO with images' from there."
    ),
    "createml": Signature("CreateML's JSON", "Export COCO JSON or Pascal VOC from the tool that wrote it."),
    "bdd": Signature("JSON of BDD100K", "Convert it to COCO with BDD100K's own tools (bdd100k.label.to_coco)."),
    "labelme": Signature("labelme's file of one image", "Name the folder that it lies in."),
    "supervisely": Signature("Supervisely's file of one image", "Name the folder of the project."),
}
_TO_CLASSES = "Extract the images into a folder for each class, or beside COCO JSON."
_TO_BOXES = "Write COCO JSON, or an XML of Pascal VOC for each image."


def of_json(data: bytes) -> Signature | None:
    """What a JSON file is, where it is one of those that are not read."""
    return _JSON.get(json_kind(data))


def _csv(data: bytes) -> Signature | None:
    columns = set(_columns(data))
    if "region_shape_attributes" in columns:
        return Signature("a CSV of the VGG Image Annotator", "Export the annotations as JSON from there.")
    if {"imageid", "labelname", "xmin"} <= columns:
        return Signature("a CSV of Open Images", "Load it with FiftyOne, and export COCO from there.")
    if {"imageid", "labelname", "confidence"} <= columns:
        return Signature(
            "a CSV of Open Images",
            "Write a CSV of path and labels from its rows of Confidence 1, the names joined by ';'.",
        )
    if "encodedpixels" in columns:
        return Signature("a CSV of run lengths (Kaggle)", "Save them as a PNG mask for each image.")
    return None


def _columns(data: bytes) -> list[str]:
    """The words of the first line in small letters."""
    return [word.strip(" \"'\r\ufeff").lower() for word in re.split("[,;\t]", decoded(data)[0].split("\n", 1)[0])]


def _lines(data: bytes) -> Signature | None:
    return _JSON["labelbox"] if json_kind(data) == "labelbox" else None


def _text(data: bytes) -> Signature | None:
    text = decoded(data)[0]
    lines = [line for line in text.splitlines() if line.strip()]
    if text.startswith(("imagesource", "gsd")):
        lines = lines[2:]
    words = lines[0].replace(",", " ").split() if lines else []
    numeric = [is_number(word) for word in words]
    if len(words) in (15, 16) and not numeric[0] and all(numeric[1:]):
        return Signature("a text of KITTI's boxes", _TO_BOXES)
    if len(words) in (9, 10) and all(numeric[:8]) and not numeric[8]:
        return Signature("a text of DOTA's turned boxes", "Convert it to YOLO's form of turned boxes (yolo-obb).")
    if len(words) in (8, 9, 10) and "," in lines[0] and all(numeric):
        return Signature("a text of boxes as VisDrone and MOT have it", _TO_BOXES)
    return None


_BY_ENDING: dict[str, Callable[[bytes], Signature | None]] = {  # in the order of what is surest
    ".json": of_json,
    ".ndjson": _lines,
    ".jsonl": _lines,
    ".csv": _csv,
    ".txt": _text,
}
_UNPACK = "Unpack it, and name the folder."
_TO_PNG = "Save the images as PNG or TIFF of 16 bit, with pydicom or 3D Slicer."
_DICOM = Signature("a file of DICOM", _TO_PNG)
_DICOM_MARK = slice(128, 132)  # where b"DICM" stands
_RAW = Signature("a raw file of a camera", "Save the images as JPEG, TIFF or PNG.")
_VIDEO = Signature("a video", "Save its frames as images, those of one video in one part alone.")
_MATLAB = Signature("a file of MATLAB", "Write a CSV of path and label from it: scipy.io.loadmat reads it.")
_PACKED = {  # known by the name alone, where there are no images
    **dict.fromkeys((".zip", ".7z", ".rar", ".tgz", ".gz", ".bz2", ".xz"), Signature("an archive", _UNPACK)),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf"), _RAW),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv"), _VIDEO),
    ".dcm": _DICOM,
    ".nii": Signature("a volume of NIfTI", _TO_PNG),
    ".tfrecord": Signature("a TFRecord", _TO_CLASSES),
    ".tfrecords": Signature("a TFRecord", _TO_CLASSES),
    ".tfrec": Signature("a TFRecord", _TO_CLASSES),
    ".record": Signature("a TFRecord", _TO_CLASSES),
    ".tar": Signature("a tar, such as a shard of WebDataset", _TO_CLASSES),
    ".mdb": Signature("an LMDB", _TO_CLASSES),
    ".mat": _MATLAB,
    ".h5": Signature("a file of HDF5", _TO_CLASSES),
    ".npz": Signature("a file of NumPy", "Save the images as PNG, into a folder for each class."),
}


def unread(tree: Tree) -> str:
    """What a tree holds that is known and not read, as a sentence and the way out; '' where there is nothing."""
    for ending in _BY_ENDING:
        for file in tree.files.take(tree.files.ending_in({ending}))[:_LOOKS]:
            if file not in tree.once.passed_over and (known := _told(file, ending, tree)):
                return known
    if tree.files.ending_in(image_suffixes()).any():
        return next((_sentence(file, _MATLAB) for file in tree.files.take(tree.files.ending_in({".mat"}))), "")
    for file in tree.files:
        name = file.rsplit("/", 1)[-1].lower()
        ending = ".tfrecord" if ".tfrecord-" in name else os.path.splitext(name)[1]
        if ending in _PACKED:
            return _sentence(file, _PACKED[ending])
    bare = tree.files.take(tree.files.ending_in({""}))[:_LOOKS]
    return next((_sentence(file, found) for file in bare if (found := _bare(tree, file))), "")


def _bare(tree: Tree, file: str) -> Signature | None:
    """What a file without an ending is."""
    try:
        data = tree.store.read(file)
    except (DataError, OSError):
        return None
    if data[_DICOM_MARK] == b"DICM":
        return _DICOM
    if data[:1] == b"\x80" and data[1:2] in b"\2\3\4\5" and data[-1:] == b".":
        return Signature("a pickle of Python, as CIFAR's batches are", _TO_CLASSES)
    return Signature("a file of MNIST's", _TO_CLASSES) if data[:3] == b"\0\0\x08" else None


def unread_file(tree: Tree) -> str:
    """The same of one file that somebody names, a tree of its own."""
    [file] = tree.files
    ending = os.path.splitext(file)[1].lower()
    if ending in _PACKED:
        return _sentence(file, _PACKED[ending])
    return _told(file, ending, tree) if ending in _BY_ENDING else ""


def _told(file: str, ending: str, tree: Tree) -> str:
    data = tree.once.read(file)[:_HEAD]
    if found := _BY_ENDING[ending](data):
        return _sentence(file, found)
    return not_read(_columns(data), printable(file)) if ending == ".csv" else ""


def may_be_classes(tree: Tree) -> bool:
    """Whether images lie in folders of two names or more that are no words for images or parts."""
    which = np.unique(tree.files.prefix[tree.files.ending_in(image_suffixes())]).tolist()
    names = {tree.files.prefixes[number].rstrip("/").rsplit("/", 1)[-1] for number in which}
    able = [name for name in names if name.lower() not in IMAGE_WORDS and name != "" and not wraps(name)]
    if (
        tree.files.ending_in({".mat"}).any() and len({_PART.sub("", name) for name in able}) == 1
    ):  # cars_train, cars_test
        return False
    return len(able) >= _CLASSES


def _sentence(file: str, found: Signature) -> str:
    return f"'{printable(file)}' is {found.name}, which is not read. {found.way}"


def is_number(word: str) -> bool:
    """Whether a text can be read as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True
