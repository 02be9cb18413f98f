"""From what the user names to a `Source`, recognised once, and from a source to its images and labels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from convnext.data.annotated import select
from convnext.data.annotated_forms import ANNOTATED, OF_JSON, READ, annotated_form, is_sure, task_of
from convnext.data.dataset import DenseDataset, agreed, with_classes
from convnext.data.formats.band_trees import opened
from convnext.data.formats.class_words import doubtful_classes, unlabelled
from convnext.data.formats.cvat import is_cvat
from convnext.data.formats.files import open_tree
from convnext.data.formats.folders import class_form, inside_wrappers, listed
from convnext.data.formats.json_kinds import json_kind
from convnext.data.formats.masks import refuse_misread
from convnext.data.formats.objects import has_objects
from convnext.data.formats.painted import painted
from convnext.data.formats.records import is_label_json
from convnext.data.formats.shards import as_asked, has_shards, open_shards
from convnext.data.formats.signatures import may_be_classes, unread, unread_file
from convnext.data.formats.table import around
from convnext.data.formats.table_files import TABLES
from convnext.data.formats.tags import tagged
from convnext.data.labelled import Dataset, Splits, present
from convnext.data.parts import wraps
from convnext.data.source import Form, Labels, Source
from convnext.data.split import held_out, held_out_of_classes, require_share
from convnext.data.store import Tree, is_zip, printable, require, tree_of, tree_of_file
from convnext.data.written import matched
from convnext.errors import DataError, nearest, number_of

Parts = dict[str, DenseDataset]
_TEST_HELD = (
    "There is no val part: the test part is held out, and decides which weights are kept; `--part test` scores the same "
    "images."
)


@dataclass(frozen=True)
class DenseSplits:
    """The two parts of a data set, with the same classes."""

    train: DenseDataset
    val: DenseDataset
    val_share: float | None = None  # what was held out of data without a val part
    fold: tuple[int, int] | None = None  # of a cross-validation: which fold is held out, from 1, and of how many


def recognise(
    path: str | Path,
    images: str | Path | None = None,
    *,
    form: str | None = None,
    annotated: bool | None = None,
    colours: str | Path | None = None,
    task: str | None = None,
    labels: Labels | None = None,
) -> Source:
    """What `path` holds, its files listed once; `images`: the folder or zip of the images, where that is another.

    `annotated`: True where there must be boxes or masks, False for classes alone; None: both may be. Class folders may
    hold a text beside each image, a list of names, or one image twice: they stay class folders. `form` settles it.
    `colours`: a file of the colours of the masks' classes. `task`: what is to be learnt where the annotations allow
    several. `labels`: whether an image has one or several, where a person says so.
    Raises DataError when nothing of that kind is there.
    """
    known = get_args(Form)
    if form is not None and form not in known:
        raise DataError(f"no form of data is called '{form}'.{nearest(form, known)} There are {', '.join(known)}.")
    if form is not None:
        annotated = form in ANNOTATED
    elif annotated is None and (colours or (images and Path(path).suffix not in (".json", ".xml", *TABLES))):
        annotated = True
    found = _recognised(path, images, form, annotated, task)
    if labels is not None:
        if found.task != "classification":
            raise DataError(
                f"--labels {labels} is for classification; '{found.name}' is for {found.task}. Leave it out."
            )
        found = replace(found, labels=labels)
    if colours is None:
        return found
    if found.task != "segmentation":
        raise DataError(f"colours of masks are for segmentation; '{found.name}' is for {found.task}.")
    return replace(found, colours=colours)


def _recognised(
    path: str | Path, images: str | Path | None, form: str | None, annotated: bool | None, task: str | None
) -> Source:
    """Shards, a folder, a zip or a file."""
    if has_shards(path):
        return as_asked(open_shards(path), images, form, annotated, task)
    path = Path(path)
    require(path)
    if path.is_dir() or is_zip(path):
        return _of_tree(path, tree_of(path), images, form, annotated, task)
    found = _of_file(path, images, form, annotated)
    if images is not None and found.task == "classification":
        found = replace(found, images=open_tree(images, what="the images"))
    return replace(found, task=task_of(found.form, task)) if found.form in ANNOTATED else found


def _of_file(path: Path, images: str | Path | None, form: str | None, annotated: bool | None) -> Source:
    """A JSON, an XML of CVAT, a data.yaml or a table."""
    name, ending, tree = printable(str(path)), path.suffix.lower(), tree_of_file(path)
    found: Form | None = next((known for known in get_args(Form) if known == form), None)
    above = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    if not annotated and ending in (".json", ".xml") and tagged(tree, alone=annotated is None):
        shown = tree_of(above) if images is None else tree
        return Source(path, "classification", "tags", tree, shown, path.name)
    if ending == ".json" and not annotated and found is None and is_label_json(tree.once.read(path.name)):
        return Source(path, "classification", "table", tree, tree, path.name)
    if annotated is not False and found in (None, *OF_JSON, "cvat"):
        if ending == ".json":
            kind = json_kind(tree.once.read(path.name))
            found = found or next((known for known in OF_JSON if known == kind), None)
            if found is None and not unread_file(tree):
                found = "coco"  # which says what is missing
        elif ending == ".xml" and is_cvat(tree.once.read(path.name)):
            found = "cvat"
        if found is not None:
            shown = open_tree(images, what="the images") if images is not None else tree_of(above)
            return Source(path, "detection", found, tree, shown, path.name)
    if annotated is not False and ending in (".yaml", ".yml") and found in (None, "yolo"):
        tree = tree_of(path.parent)
        return Source(path, "detection", "yolo", tree, tree, path.name)
    if annotated is not False and found in (None, "objects") and has_objects(tree):
        shown = tree_of(path.parent) if images is None else open_tree(images, what="the images")
        return Source(path, "detection", "objects", tree, shown, path.name)
    if found in ANNOTATED:
        open_tree(path, what=ANNOTATED[found].holds)  # which says that this is one file
    if known := unread_file(tree):
        raise DataError(known)
    if annotated:
        raise DataError(f"'{name}' is neither COCO JSON nor a YOLO data.yaml. It can be {READ}.")
    if ending not in TABLES:
        raise DataError(
            f"'{name}' is one file. Name a folder, a table of path and label (CSV, JSON lines, Parquet), or a zip."
        )
    return Source(path, "classification", "table", tree, around(tree, path.name), path.name)


def _of_tree(
    path: Path, tree: Tree, images: str | Path | None, form: str | None, annotated: bool | None, task: str | None
) -> Source:
    """A folder or a zip."""
    name = printable(str(path))
    found: Form | None = next((known for known in get_args(Form) if known == form), None)
    if found == "voc" and task == "segmentation":
        found = "masks"
    if found is None and annotated is not False:
        try:
            found = annotated_form(tree, apart=images is not None, task=task)
        except DataError:
            if annotated:
                raise
        if found is None and annotated:
            refuse_misread(tree, name)
            raise DataError(_nothing_annotated(name, tree))
        if annotated is None and found is not None and (not is_sure(found, tree) or tagged(tree, alone=True)):
            found = None
        if annotated is None and found is None:
            refuse_misread(tree, name)
    if found in ANNOTATED:
        shown = open_tree(images, what="the images") if images is not None else tree
        return Source(path, task_of(found, task), found, tree, shown)
    if found == "tags" or (found is None and not may_be_classes(tree) and tagged(tree, alone=False)):
        shown = open_tree(images, what="the images") if images is not None else tree
        return Source(path, "classification", "tags", tree, shown)
    if images is not None:
        raise DataError(f"'{name}' holds its own images, so '{printable(str(images))}' says nothing. Leave it out.")
    inside = inside_wrappers(tree)
    shape = found or class_form(inside)
    if shape == "folders" and found is None and not may_be_classes(tree) and (known := unread(tree)):
        raise DataError(f"'{name}': {known}")
    return Source(path, "classification", shape, inside, inside)


def _nothing_annotated(name: str, tree: Tree) -> str:
    return f"'{name}' has no annotations that are known. {unread(tree) or f'It can be {READ}.'}"


def open_splits(source: Source, *, val_share: float = 0.2, seed: int = 0) -> Splits:
    """The train and val images of class folders or a table.

    Data without a val part is split by class: `val_share` of each, at least one of two, by a hash of (seed, path), so
    that the same files give the same split on every machine and in a zip. Raises DataError when nothing can be trained.
    """
    require_share(val_share)
    whole = listed(source)
    listing = whole.trained_on()
    val = listing.in_part("val")
    parted = bool(val.any())
    if not parted:
        val = held_out_of_classes(listing.paths, listing.labels, val_share, seed, repeated=source.form == "table")
    if val.all():
        raise DataError(f"'{source.name}' has no images in its train part. Put them into train/<class>/.", listing.said)
    found = present(listing.labels[~val])
    if len(found) < 2 and listing.labels.ndim == 1:
        if wraps(listing.classes[found[0]]):
            raise DataError(unlabelled(source.name, listing.paths), listing.said)
        raise DataError(
            f"'{source.name}' has images of one class only ('{printable(listing.classes[found[0]])}'); training needs two "
            "or more. Add a second class folder.",
            listing.said,
        )
    if not len(found):
        raise DataError(f"no image of '{source.name}' to train on has any label.", listing.said)
    share = None if parted else val_share
    doubted = source.form == "folders" and listing.labels.ndim == 1
    notes = (*listing.notes, *doubtful_classes(listing)) if doubted else listing.notes
    if parted and not whole.in_part("val").any():
        notes = (*notes, _TEST_HELD)
    return Splits(listing.dataset(~val), listing.dataset(val), listing.left_out, share, notes)


def open_labelled(source: Source, *, classes: tuple[str, ...] | None = None, split: str | None = None) -> Dataset:
    """Labelled images to evaluate on: the `split` part where the source has parts, else all of it.

    `split` None: val where there is one, else test. `classes`, usually a checkpoint's, fixes the indices; a class it
    lacks raises DataError with the nearest one.
    """
    listing, chosen = listed(source, only=True).scored(split, source.name)
    if classes is not None:
        listing = replace(listing, classes=matched(listing.classes, classes))
    known = listing.classes if classes is None else classes
    shown = {listing.classes[label] for label in present(listing.labels[chosen]).tolist()}
    unknown = sorted(shown - set(known))
    if unknown:
        raise DataError(
            f"'{source.name}' has class '{printable(unknown[0])}', which the model does not know."
            f"{nearest(unknown[0], known)} It knows {number_of(len(known), 'class', 'classes')}."
        )
    return listing.dataset(chosen, known)


def open_dense(source: Source, *, part: str | None = None, classes: tuple[str, ...] | None = None) -> DenseDataset:
    """Annotated images to evaluate on or to look at: one part of the source.

    `part`: 'train', 'val' or 'test'; None: val where there is one, else test, else all there is. `classes`, usually a
    checkpoint's, fixes what labels mean. Raises DataError when nothing can be read, or a class is not known.
    """
    parts = open_parts(source)
    if part is not None and part not in parts and set(parts) != {"all"}:
        raise DataError(
            f"'{source.name}' has no part '{part}'.{nearest(part, parts)} It has {', '.join(sorted(parts))}."
        )
    chosen = next(parts[name] for name in (part, "val", "test", "all", "train") if name in parts)
    return chosen if classes is None else with_classes(chosen, classes, source.name)


def open_dense_splits(
    source: Source, *, val: Source | None = None, val_share: float = 0.2, seed: int = 0
) -> DenseSplits:
    """The train and val images of the source, or of it and of `val`, another with the held-out images.

    Data without a val part is split: `val_share` of the images, at least one of two, by a hash of (seed, path).
    Raises DataError when nothing can be trained.
    """
    require_share(val_share)
    parts = open_parts(source)
    if val is not None:
        train = parts.get("train") or parts.get("all") or next(iter(parts.values()))
        return DenseSplits(train, with_classes(open_dense(val), train.classes, val.name))
    whole = parts.get("train") or parts.get("all")
    if whole is None:
        raise DataError(
            f"'{source.name}' has no train part, only {', '.join(sorted(parts))}. Name the images to train on."
        )
    if "train" in parts and "all" in parts:
        left = number_of(len(parts["all"].entries), "image")
        whole = replace(whole, notes=(*whole.notes, f"{left} of no part are left out: '{_first(parts['all'])}', ..."))
    if "val" in parts:
        return DenseSplits(whole, parts["val"])
    if "train" in parts and "test" in parts:
        return DenseSplits(replace(whole, notes=(*whole.notes, _TEST_HELD)), parts["test"])
    return _split(whole, val_share, seed)


def _first(dataset: DenseDataset) -> str:
    return printable(dataset.entries[0].path)


def open_parts(source: Source) -> Parts:
    """All parts of annotated images: of 'train', 'val', 'test' those there are, or 'all'. They share their classes."""
    if source.form not in ANNOTATED:
        raise DataError(_nothing_annotated(source.name, source.tree))
    if not source.opened:
        parts = opened(source, ANNOTATED[source.form].opens)
        if notes := source.tree.store.notes:
            parts = {part: replace(dataset, notes=(*dataset.notes, *notes)) for part, dataset in parts.items()}
        parts = parts if source.form == "yolo" else agreed(parts)  # YOLO lists classes once for all parts
        if source.task == "segmentation" and ANNOTATED[source.form].outlines:
            parts = painted(parts, source.name)
        source.opened.update(parts)
    return dict(source.opened)


def _split(whole: DenseDataset, val_share: float, seed: int) -> DenseSplits:
    chosen = np.zeros(len(whole.entries), bool)
    chosen[held_out((entry.path for entry in whole.entries), val_share, seed)] = True
    return DenseSplits(
        replace(whole, entries=select(whole.entries, ~chosen)),
        replace(whole, entries=select(whole.entries, chosen), problems=()),
        val_share,
    )
