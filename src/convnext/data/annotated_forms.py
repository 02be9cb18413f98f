"""The forms of annotations: how each is known, how it is opened, and what can be learnt from it. A row a form."""

from collections.abc import Callable
from typing import NamedTuple

from convnext.data.dataset import DenseDataset
from convnext.data.formats.band_trees import as_shown
from convnext.data.formats.coco import coco_files, open_coco
from convnext.data.formats.cvat import cvat_files, open_cvat
from convnext.data.formats.datumaro import datumaro_files, open_datumaro
from convnext.data.formats.labelme import has_labelme, open_labelme
from convnext.data.formats.mask_folders import paired
from convnext.data.formats.masks import has_masks, open_masks, shows_masks
from convnext.data.formats.objects import object_tables, open_objects
from convnext.data.formats.signatures import may_be_classes
from convnext.data.formats.supervisely import has_supervisely, open_supervisely
from convnext.data.formats.via import open_via, via_files
from convnext.data.formats.voc import has_annotations, open_voc
from convnext.data.formats.yolo import has_boxes, label_files, open_yolo, yaml_file
from convnext.data.source import Form, Source, Task
from convnext.data.store import Tree
from convnext.errors import DataError

READ = "COCO JSON, Pascal VOC or CVAT XML, labelme, VIA, Supervisely or Datumaro JSON, YOLO text, or images with masks"


class AnnotatedForm(NamedTuple):
    """A row of the table."""

    holds: str  # what it is called
    opens: Callable[[Source], dict[str, DenseDataset]]
    check: Callable[[Tree], object]
    sure: Callable[[Tree], object] = bool  # whether these are annotations, and not class folders that look like it
    outlines: bool = True  # whether objects may have outlines, which can be painted as masks


def _by_text(asked: Callable[[Tree], object], tree: Tree) -> object:
    """What `asked` says of a tree of texts; where that is nothing, of its images whose bands are files."""
    texts = tree.files.ending_in({".txt"}).any()
    return asked(tree) or (asked(shown) if texts and (shown := as_shown(tree)) is not None else None)


def _has_boxes(tree: Tree) -> object:
    return _by_text(has_boxes, tree)


ANNOTATED: dict[Form, AnnotatedForm] = {  # the surest first
    "coco": AnnotatedForm("COCO annotations", open_coco, coco_files),
    "objects": AnnotatedForm("a table with a column 'objects'", open_objects, object_tables),
    "cvat": AnnotatedForm("CVAT annotations", open_cvat, cvat_files),
    "voc": AnnotatedForm("VOC annotations", open_voc, has_annotations, outlines=False),
    "labelme": AnnotatedForm("labelme annotations", open_labelme, has_labelme),
    "via": AnnotatedForm("VIA annotations", open_via, via_files),
    "supervisely": AnnotatedForm("Supervisely annotations", open_supervisely, has_supervisely),
    "datumaro": AnnotatedForm("Datumaro annotations", open_datumaro, datumaro_files),
    "yolo": AnnotatedForm(
        "YOLO labels", open_yolo, lambda tree: yaml_file(tree) or _by_text(label_files, tree), _has_boxes
    ),
    "masks": AnnotatedForm("images and masks", open_masks, lambda tree: paired(tree).found, has_masks, outlines=False),
}
OF_JSON: tuple[Form, ...] = ("coco", "via", "datumaro")  # one file of many images


def annotated_form(tree: Tree, *, apart: bool, task: str | None) -> Form | None:
    """The form of a tree, None where it has none. `apart`: the images are in another place.

    Where there are masks beside boxes, as in Pascal VOC, `task` decides; None: boxes.
    """
    if task == "segmentation" and is_sure("masks", tree):
        return "masks"
    found = next((form for form, row in ANNOTATED.items() if row.check(tree)), None)
    if found is not None or not apart:
        return found
    classes = task is None and may_be_classes(tree) and not shows_masks(tree)  # folders of photographs are no masks
    return None if classes else "masks"


def is_sure(form: Form, tree: Tree) -> bool:
    """Whether these are annotations, and not class folders that look like it."""
    try:
        return bool(ANNOTATED[form].sure(tree))
    except DataError:
        return False


def task_of(form: Form, task: str | None) -> Task:
    """What is learnt from a form: `task` where it can be, else what the form is for."""
    if form == "masks" or (form == "voc" and task == "segmentation"):
        return "segmentation"
    return "segmentation" if task == "segmentation" and ANNOTATED[form].outlines else "detection"
