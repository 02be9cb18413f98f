"""Classes of whole images in the files of annotation tools: an image has one, or several.

Tags of CVAT and Supervisely, flags of labelme, attributes of files of VIA, choices of Label Studio. An image that nobody
tagged is left out: nothing is said of it.
"""

import io
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from convnext.data.formats.band_trees import finder_of
from convnext.data.formats.columns import Marks, Row
from convnext.data.formats.cvat import cvat_files
from convnext.data.formats.files import is_image
from convnext.data.formats.json_kinds import json_files, json_kind
from convnext.data.formats.listing import Listing
from convnext.data.formats.several import settled
from convnext.data.formats.table import listing_of_rows
from convnext.data.formats.via import via_files
from convnext.data.limits import require_plain_xml
from convnext.data.parts import part_of, part_of_file, part_of_folder
from convnext.data.source import Source
from convnext.data.store import Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError

_PROBED = 10  # files that show what is in the others
_WITHOUT = "images without a tag"
_CLASS_WORDS = ("class", "label", "category", "type")  # of VIA's attributes
_SHAPES = ("box", "polygon", "mask", "ellipse", "polyline", "points", "cuboid", "skeleton", "track")  # of CVAT
_DRAWN = tuple(f'{word}labels"'.encode() for word in ("rectangle", "polygon", "brush", "ellipse", "keypoint"))  # there
_SHORT = frozenset(  # of Label Studio's short form, what is no choice
    ("image", "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "file_upload")
)
_VIA_OWN = frozenset({"caption", "public_domain", "image_url"})  # its attributes of files until somebody adds others


class Tagged(NamedTuple):
    """An image as a tool's file has it."""

    name: str
    yes: tuple[str, ...]
    part: str = ""
    known: bool = False  # whether an image without a tag is one that has no class


class Tool(NamedTuple):
    """What writes such files."""

    what: str  # says the class
    files: Callable[[Tree], Sequence[str]]
    read: Callable[[bytes, str], Iterator[Tagged]]  # (a file, its path)
    objects: tuple[bytes, ...]  # in a file that shows objects as well


def _cvat(data: bytes, file: str) -> Iterator[Tagged]:
    require_plain_xml(data)
    inside = 0
    for event, element in ElementTree.iterparse(io.BytesIO(data), ("start", "end")):
        inside += 1 if event == "start" else -1
        if event == "end" and element.tag == "image" and inside == 1:
            labels = (tag.get("label") or "" for tag in element.iter("tag"))
            yield Tagged(element.get("name") or "", tuple(labels), part_of_folder(element.get("subset") or ""))
            element.clear()


def _labelme(data: bytes, file: str) -> Iterator[Tagged]:
    if json_kind(data) != "labelme" or not isinstance(content := json_in(data), dict):
        return
    flags = content.get("flags")
    flags = flags if isinstance(flags, dict) else {}
    name = str(content.get("imagePath") or file.rsplit("/", 1)[-1].removesuffix(".json"))
    yield Tagged(name, tuple(word for word, said in flags.items() if said is True), known=bool(flags))


def _via(data: bytes, file: str) -> Iterator[Tagged]:
    content = json_in(data)
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    items = [item for item in content.values() if isinstance(item, dict) and "filename" in item]
    said = [attributes if isinstance(attributes := item.get("file_attributes"), dict) else {} for item in items]
    keys = [key for key in dict.fromkeys(key for each in said for key in each) if key.lower() not in _VIA_OWN]
    usual = [key for word in _CLASS_WORDS for key in keys if key.lower() == word]
    for item, attributes in zip(items, said, strict=True):
        yield Tagged(str(item["filename"]), _ticked(attributes.get((usual or keys or [""])[0])))


def _ticked(value: object) -> tuple[str, ...]:
    """A text, or of boxes to tick those that are."""
    if isinstance(value, dict):
        return tuple(str(word) for word, ticked in value.items() if ticked)
    return (str(value),) if value is not None else ()


def _supervisely(data: bytes, file: str) -> Iterator[Tagged]:
    content = json_in(data)
    tags = content.get("tags") if isinstance(content, dict) else None
    names, part = [], ""
    for tag in tags if isinstance(tags, list) else []:
        if isinstance(tag, dict) and (word := str(tag.get("name") or "")):
            own = part_of_folder(word) if tag.get("value") is None else ""
            part = part or own
            names += [] if own else [str(tag["value"]) if isinstance(tag.get("value"), str) else word]
    yield Tagged(file.rsplit("/", 1)[-1].removesuffix(".json"), tuple(names), part)


def _supervisely_files(tree: Tree) -> list[str]:
    files = [file for file in tree.files.take(tree.files.ending_in({".json"})) if "/ann/" in f"/{file}"]
    keys = (b'"tags"', b'"objects"', b'"size"')
    return files if any(all(key in tree.once.read(file) for key in keys) for file in files[:_PROBED]) else []


def _label_studio(data: bytes, file: str) -> Iterator[Tagged]:
    content = json_in(data)
    tasks = [task for task in content if isinstance(task, dict)] if isinstance(content, list) else []
    for task in tasks:
        if "annotation_id" in task:  # the short form
            choices = [
                value for key, value in task.items() if key not in _SHORT and isinstance(value, str | dict | list)
            ]
            texts = [value for value in task.values() if isinstance(value, str)]
            images = [task["image"]] if isinstance(task.get("image"), str) else list(filter(is_image, texts))
            yield Tagged(str((images or [""])[0]), _chosen([value for value in choices if value not in images]))
            continue
        shown = task.get("data")
        texts = [value for value in shown.values() if isinstance(value, str)] if isinstance(shown, dict) else []
        name = next(filter(is_image, texts), str(task.get("file_upload") or ""))
        given = task.get("annotations") or task.get("completions")
        done = [one for one in given or [] if isinstance(one, dict) and not one.get("was_cancelled")]
        results = done[-1].get("result") if done else []
        values = [one.get("value") for one in results or [] if isinstance(one, dict) and one.get("type") == "choices"]
        yield Tagged(name, _chosen(values))


def _chosen(values: Sequence[Any]) -> tuple[str, ...]:
    """What choices say: a text, a list, or an object of such a list."""
    found: list[str] = []
    for value in values:
        value = value.get("choices") if isinstance(value, dict) else value
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return tuple(found)


def _label_studio_files(tree: Tree) -> list[str]:
    return [*json_files(tree, "label studio"), *json_files(tree, "label studio min")]


def _labelme_files(tree: Tree) -> list[str]:
    return list(tree.files.take(tree.files.ending_in({".json"}))) if json_files(tree, "labelme") else []


_TOOLS = (
    Tool("tags of CVAT", cvat_files, _cvat, tuple(f"<{word} ".encode() for word in _SHAPES)),
    Tool("flags of labelme", _labelme_files, _labelme, (b'"points"',)),
    Tool("attributes of VIA's files", via_files, _via, (b'"shape_attributes"',)),
    Tool("tags of Supervisely", _supervisely_files, _supervisely, (b'"geometryType"',)),
    Tool("choices of Label Studio", _label_studio_files, _label_studio, _DRAWN),
)


def tagged(tree: Tree, *, alone: bool) -> bool:
    """Whether files of a tool say which classes whole images have; `alone`: and show no objects."""
    return _tool_of(tree, alone) is not None


def _tool_of(tree: Tree, alone: bool) -> Tool | None:
    for tool in _TOOLS:
        files = tool.files(tree)
        probed = [(tree.once.read(file), file) for file in files[:: max(1, len(files) // _PROBED)][:_PROBED]]
        if alone and any(word in data for data, _ in probed for word in tool.objects):
            continue
        if any(each.yes for data, file in probed for each in _read(tool, data, file, strict=False)):
            return tool
    return None


def _read(tool: Tool, data: bytes, file: str, *, strict: bool = True) -> list[Tagged]:
    """The images of one file. Raises DataError where it is damaged, if `strict`."""
    try:
        return list(tool.read(data, file))
    except (ElementTree.ParseError, DataError, LookupError, ValueError, AttributeError) as error:
        if strict:
            raise DataError(f"'{printable(file)}' cannot be read ({error}). Is it complete?") from None
        return []


def listing_of_tags(source: Source, left_out: dict[str, int]) -> Listing:
    """Every tagged image. Raises DataError where there is none, or none of them is there."""
    tree, tool = source.tree, _tool_of(source.tree, alone=False)
    if tool is None:
        raise DataError(f"'{source.name}' has no tags of images. Name class folders, or a table of path and label.")
    finder, rows, without, found = finder_of(source.images), list[Row](), 0, 0
    for file in [source.file] if source.file is not None else tool.files(tree):
        beside = file.rpartition("/")[0] if source.images is tree else ""
        said = "" if source.file is not None else part_of_file(file)
        for each in _read(tool, tree.once.read(file), file):
            if not each.yes and not each.known:
                without += 1
                continue
            stem = os.path.splitext(each.name.replace("\\", "/").rsplit("/", 1)[-1])[0]
            path = finder.find(each.name, each.part or said, beside=beside) or finder.find_stem(stem, each.part or said)
            found += path is not None
            names = tuple(dict.fromkeys(printable(name.strip()) for name in each.yes if name.strip()))
            rows.append(Row(path or each.name, "", each.part or said or part_of(path or ""), Marks(names)))
    if not found:
        raise DataError(
            f"none of the {len(rows):,} images that '{source.name}' tags is there; the first is "
            f"'{printable(rows[0].path)}'. Where they are elsewhere, add --images DIR."
        )
    kept, notes = settled(rows, source.labels, plural=True)
    left_out = {ending: count for ending, count in left_out.items() if ending not in (".json", ".xml")}
    left_out |= {_WITHOUT: without} if without else {}
    said = f"The classes are the {tool.what}."
    return listing_of_rows(kept, source.images.store, left_out, (*source.images.store.notes, said, *notes))
