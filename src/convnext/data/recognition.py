"""What lies at a path, recognised by its content: shards, a folder, a zip or a file, and the form of its labels."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from convnext.data.annotated_forms import ANNOTATED, OF_JSON, READ, annotated_form, is_sure, task_of
from convnext.data.formats.cvat import is_cvat
from convnext.data.formats.files import open_tree
from convnext.data.formats.folders import class_form, inside_wrappers
from convnext.data.formats.json_kinds import json_kind
from convnext.data.formats.lists import has_lists
from convnext.data.formats.masks import refuse_misread
from convnext.data.formats.objects import has_objects
from convnext.data.formats.records import is_label_json
from convnext.data.formats.shards import as_asked, has_shards, open_shards
from convnext.data.formats.signatures import may_be_classes, unread, unread_file
from convnext.data.formats.table import around
from convnext.data.formats.table_files import TABLES
from convnext.data.formats.tags import tagged
from convnext.data.source import Form, NamedColumns, Source
from convnext.data.store import Tree, is_zip, printable, require, tree_of, tree_of_file
from convnext.errors import DataError


class Asked(NamedTuple):
    """What a person says of data beside where they are, by the words of `opening.recognise`."""

    images: str | Path | None
    form: Form | None
    annotated: bool | None
    task: str | None
    columns: NamedColumns


def recognised(path: str | Path, asked: Asked) -> Source:
    """The source at `path`. Raises DataError when nothing of the kind that is asked for is there."""
    images, form, annotated, task, columns = asked
    if has_shards(path):
        if columns:
            raise DataError(f"'{printable(str(path))}' are shards, and they have no columns. Leave the option out.")
        return as_asked(open_shards(path), images, form, annotated, task)
    path = Path(path)
    require(path)
    if path.is_dir() or is_zip(path):
        return _of_tree(path, tree_of(path), asked)
    found = _of_file(path, asked)
    if images is not None and found.task == "classification":
        found = replace(found, images=open_tree(images, what="the images"))
    return replace(found, task=task_of(found.form, task)) if found.form in ANNOTATED else found


def _of_file(path: Path, asked: Asked) -> Source:
    """A JSON, an XML of CVAT, a data.yaml or a table."""
    images, found, annotated, _, columns = asked
    name, ending, tree = printable(str(path)), path.suffix.lower(), tree_of_file(path)
    above = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    if columns and (ending in TABLES or ending == ".json"):
        shown = around(tree, path.name, columns)
        return Source(path, "classification", "table", tree, shown, path.name, columns=columns)
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


def _of_tree(path: Path, tree: Tree, asked: Asked) -> Source:
    """A folder or a zip."""
    images, found, annotated, task, columns = asked
    name = printable(str(path))
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
            raise DataError(nothing_annotated(name, tree))
        if annotated is None and found is not None and (not is_sure(found, tree) or tagged(tree, alone=True)):
            found = None
        if annotated is None and found is None and not has_lists(tree):
            refuse_misread(tree, name)
    if found in ANNOTATED:
        shown = open_tree(images, what="the images") if images is not None else tree
        return Source(path, task_of(found, task), found, tree, shown)
    if found == "tags" or (found is None and not may_be_classes(tree) and tagged(tree, alone=False)):
        shown = open_tree(images, what="the images") if images is not None else tree
        return Source(path, "classification", "tags", tree, shown)
    if images is not None:
        raise DataError(f"'{name}' holds its own images, so '{printable(str(images))}' says nothing. Leave it out.")
    inside = inside_wrappers(tree, columns)
    shape = class_form(inside, columns) if columns else found or class_form(inside)
    if shape == "folders" and found is None and not may_be_classes(tree) and (known := unread(tree)):
        raise DataError(f"'{name}': {known}")
    return Source(path, "classification", shape, inside, inside, columns=columns)


def nothing_annotated(name: str, tree: Tree) -> str:
    """That there are no annotations, with what there is instead, or what there could be."""
    return f"'{name}' has no annotations that are known. {unread(tree) or f'It can be {READ}.'}"
