"""Segmentation: images, and beside each a mask of the same size whose pixels say the class.

Masks are lossless images: grey or with a palette, where the numbers count, or in colours, which a legend names.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from convnext.data.annotated import AnnotatedImage
from convnext.data.band_store import BandStore, named, no_such_files, together_note, without_band
from convnext.data.codecs import suffixes_in
from convnext.data.colours import colour_text
from convnext.data.dataset import DenseDataset
from convnext.data.decode import decode_mask
from convnext.data.formats.mask_classes import BINARY, Coding, coding_of_values, names_by_value, of_cityscapes, of_voc
from convnext.data.formats.mask_colours import Legend, labelled, legend_at, legend_of, require_few, voc_legend
from convnext.data.formats.mask_folders import (
    LOSSLESS,
    Pairs,
    listed_parts,
    may_be_masks,
    named_as_masks,
    paired,
    paired_apart,
)
from convnext.data.formats.mask_values import held, in_colours, is_mask, show_colours, values_in_few, was_mask
from convnext.data.parts import part_of
from convnext.data.problems import whole
from convnext.data.sample import IGNORE
from convnext.data.source import Source
from convnext.data.store import Store, Tree, printable
from convnext.data.written import json_in
from convnext.errors import DataError, number_of, reason_of

_ADE = "objectInfo150.txt"  # its table of classes: tab-separated, the names last
_ADE_CLASSES = 150
_ADE_FOLDER = "adechallengedata2016"
_NAMES = ("classes.txt", "class_names.txt")
_BY_VALUE = "_classes.csv"  # Roboflow's
_LOOKS = 5  # masks that may be broken
_NAMED = 6  # colours in a message
_AS_CLASSES = "If these folders are classes, say --task classification."


class _Meaning(NamedTuple):
    """What files beside the masks, or the caller, say about their values."""

    classes: tuple[str, ...] | None
    ignore_index: int | None
    reduce_zero_label: bool


def open_masks(
    source: Source,
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool | None = None,
) -> dict[str, DenseDataset]:
    """The data sets of images and masks, by part: 'train', 'val', 'test', 'all'.

    `ignore_index`: the value of pixels that do not count,
    beside 255. `reduce_zero_label`: 0 does not count and 1 is the first class, as in ADE20K. What is None is taken from
    files beside the masks, else from the masks. Raises DataError when nothing can be read.
    """
    name, tree = source.name, source.tree
    store: Store = tree.store
    if source.images is tree:
        pairs = paired(tree, bands=source.bands)
    else:
        store = _TwoStores(source.store, tree.store)
        pairs = _apart(source.images, tree, source.bands)
    if not pairs.found and named(source.bands or ()):
        raise DataError(no_such_files(name, source.bands or ()))
    if not pairs.found:
        refuse_misread(tree, name)
        raise DataError(f"'{name}' has no images with masks: images/*.jpg and masks/*.png with the same names.")
    masks = [semantic.removeprefix(_TwoStores.PREFIX) for _, semantic in pairs.found]
    coding = _coding(source, masks, _meaning(tree, name, classes, ignore_index, reduce_zero_label))
    parts, problems, notes = listed_parts(tree), tuple(pairs.problems), coding.notes
    if pairs.bands:
        store = BandStore(store, pairs.bands, frozenset(image for image, _ in pairs.found))
        notes = notes if source.bands else (*notes, together_note(pairs.bands))
    entries: dict[str, list[AnnotatedImage]] = {}
    for place, (image, semantic) in enumerate(pairs.found, 1):
        entry = AnnotatedImage(image, place, semantic=semantic)
        listed = parts.get(without_band(image, pairs.bands).rsplit("/", 1)[-1].rsplit(".", 1)[0])
        entries.setdefault(listed or part_of(image) or part_of(semantic) or "all", []).append(entry)
    return {
        part: DenseDataset(
            "segmentation", coding.classes, tuple(rows), store, (), coding.values, coding.ignored, coding.colours,
            problems, notes,
        )
        for part, rows in entries.items()
    }  # fmt: skip


def has_masks(tree: Tree) -> bool:
    """Whether images have masks: half of them, or as folders say; and what a mask shows is few values, or areas."""
    pairs = paired(tree)
    if not pairs.found or (pairs.alone > len(pairs.found) and not named_as_masks(tree)[1]):
        return False
    for _, mask in pairs.found[:_LOOKS]:
        try:
            return is_mask(tree.once.read(mask))
        except (DataError, OSError):
            continue
    return False


def shows_masks(tree: Tree) -> bool:
    """Whether files that could be masks show few values, or areas: the first ones that can be read."""
    files = list(tree.files.take(tree.files.ending_in(LOSSLESS)))[:_LOOKS]
    return any(_shows(tree, file, is_mask) for file in files)


def refuse_misread(tree: Tree, name: str) -> None:
    """Raise DataError where folders hold images and masks that cannot be read so, and would be taken for classes."""
    if not may_be_masks(tree):
        return
    lossy = paired(tree, lossy=True)
    if len(lossy.found) >= max(1, lossy.alone) and _shows(tree, lossy.found[0][1], was_mask):
        raise DataError(
            f"'{name}' has masks saved as JPEG, as '{printable(lossy.found[0][1])}': JPEG does not keep the values of "
            f"pixels, so that classes run into each other. Save the masks as PNG. {_AS_CLASSES}"
        )
    images, masks = named_as_masks(tree)
    if masks and not paired(tree).found and (_shows(tree, masks[0], is_mask) or _shows(tree, masks[0], was_mask)):
        raise DataError(
            f"'{name}' looks like images and their masks, and their names do not agree, as '{printable(images[0])}' "
            f"and '{printable(masks[0])}'. Give each mask the name of its image. {_AS_CLASSES}"
        )


def _shows(tree: Tree, file: str, check: Any) -> bool:
    try:
        return bool(check(tree.once.read(file)))
    except (DataError, OSError):
        return False


def _apart(shown: Tree, masks: Tree, bands: Sequence[str] | None) -> Pairs:
    known = suffixes_in(os.path.splitext(file)[1] for file in shown.files)
    images = [file for file in shown.files if os.path.splitext(file)[1].lower() in known]
    pairs = paired_apart(images, list(masks.files), shown.store, bands)
    return pairs._replace(found=[(image, _TwoStores.PREFIX + mask) for image, mask in pairs.found])


class _TwoStores:
    """Images in one place, masks in another."""

    PREFIX = "maps: "

    def __init__(self, images: Store, maps: Store):
        self.images, self.maps = images, maps

    def read(self, path: str) -> bytes:
        if path.startswith(self.PREFIX):
            return self.maps.read(path.removeprefix(self.PREFIX))
        return self.images.read(path)


def _coding(source: Source, masks: list[str], meaning: _Meaning) -> Coding:
    """How the pixels of the masks become labels: by the legend of their colours, else by their values."""
    tree, name = source.tree, source.name
    if source.colours is not None:
        return _by_colours(legend_at(source.colours, lambda: held(tree, masks, colours=True).colours, name))
    coloured, legend = show_colours(tree, masks), legend_of(tree)
    if legend is not None:
        found = held(tree, masks, colours=True).colours
        if coloured or set(found) <= set(legend.colours):
            return _by_colours(legend)
    if (
        not coloured
        and meaning.classes is None
        and (known := of_cityscapes(masks) or of_voc(masks, list(tree.files.take(tree.files.ending_in({".txt"})))))
    ):
        return known
    seen = None
    if (
        not coloured
        and meaning.classes is not None
        and not meaning.reduce_zero_label
        and _from_one(tree, masks, meaning)
    ):
        coding = coding_of_values(meaning.classes, meaning.ignore_index, True, None, name)
        last = len(meaning.classes)
        note = f"No mask that was looked at holds 0, and some hold {last}: the {last} classes were counted from 1."
        return coding._replace(notes=(*coding.notes, note))
    if not coloured and (meaning.classes is None or len(meaning.classes) <= BINARY):
        seen = held(tree, masks)
        coloured = bool(seen.colours)
        if not coloured and not seen.values.any():
            raise DataError(f"no mask of '{name}' can be read; the first is {_reason(tree, masks[0])}.")
    if coloured:
        return _by_colours(_unnamed(tree, masks, meaning.classes, name))
    return coding_of_values(meaning.classes, meaning.ignore_index, meaning.reduce_zero_label, seen, name)


def _from_one(tree: Tree, masks: list[str], meaning: _Meaning) -> bool:
    """Whether the values of masks with names count from 1, as a few of them show."""
    last = len(meaning.classes or ())
    seen = values_in_few(tree, masks) - {IGNORE, meaning.ignore_index}
    return last > 1 and 0 not in seen and max(seen, default=0) == last


def _reason(tree: Tree, mask: str) -> str:
    try:
        decode_mask(tree.store.read(mask))
    except (DataError, OSError) as error:
        return f"'{printable(mask)}': {reason_of(error)}"
    return f"'{printable(mask)}'"


def _by_colours(legend: Legend) -> Coding:
    names, values, ignored = labelled(legend)
    return Coding(names, values, ignored, legend.colours)


def _unnamed(tree: Tree, masks: list[str], classes: tuple[str, ...] | None, name: str) -> Legend:
    """Names in the order of Pascal VOC's palette where that explains the colours. Raises DataError otherwise."""
    found = held(tree, masks, colours=True).colours
    if classes is not None and set(found) <= set(voc_legend(classes).colours):
        return voc_legend(classes)
    _refuse_mixed(tree, masks, name)
    require_few(found, name)
    most = [f"{colour_text(colour)} ({count / found.total():.0%})" for colour, count in found.most_common(_NAMED)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise DataError(
        f"the masks of '{name}' show {len(found)} colours, {', '.join(most)}{more}, and no file says which class each is. "
        "Give --colours FILE with lines as 'cat:255,0,0'; a FILE that is not there yet is written with these colours."
    )


def _refuse_mixed(tree: Tree, masks: list[str], name: str) -> None:
    """Raise DataError where some masks are in colours and others hold numbers, with those that are fewer."""
    kinds = in_colours(tree, masks)
    coloured, numbered = ([mask for mask, shown in kinds.items() if shown is kind] for kind in (True, False))
    if not coloured or not numbered:
        return
    colours_are_odd = len(coloured) <= len(numbered)
    odd, others = (coloured, numbered) if colours_are_odd else (numbered, coloured)
    named = ", ".join(f"'{printable(mask)}'" for mask in odd[:_NAMED])
    more = f" and {len(odd) - _NAMED:,} more" if len(odd) > _NAMED else ""
    holds = ("RGB", "one number for each pixel") if colours_are_odd else ("one number for each pixel", "RGB")
    raise DataError(
        f"{number_of(len(odd), 'mask')} of '{name}' with {holds[0]} among {len(others):,} with {holds[1]}: {named}{more}. "
        "Save all masks in one way."
    )


def _meaning(
    tree: Tree, name: str, classes: Sequence[str] | None, ignore_index: int | None, reduce_zero_label: bool | None
) -> _Meaning:
    """The caller's arguments first, then what files beside the masks say."""
    tables = {file.rsplit("/", 1)[-1]: file for file in reversed(tree.files)}
    named, ignored, reduced = None, None, False
    if "classes.json" in tables:
        content = _json(tree.once.read(tables["classes.json"]), name)
        named = content.get("classes", _named_by_colours(tree)) if isinstance(content, dict) else content
        ignored = whole(content.get("ignore_index")) if isinstance(content, dict) else None
        reduced = isinstance(content, dict) and content.get("reduce_zero_label") is True
        if not isinstance(named, list) or not named:
            raise DataError(f"classes.json of '{name}' has no list of 'classes'.")
        if any(isinstance(each, dict) for each in named):
            named = [
                str(each.get("name", place)) if isinstance(each, dict) else each for place, each in enumerate(named)
            ]
    elif names := next((tables[each] for each in _NAMES if each in tables), None):
        named = [line.strip() for line in _text(tree, names).splitlines() if line.strip()]
    elif _BY_VALUE in tables and (numbered := names_by_value(_text(tree, tables[_BY_VALUE]))):
        named = numbered
    elif _ADE in tables:
        named = [row.split("\t")[-1].strip() for row in _text(tree, tables[_ADE]).splitlines()[1:] if row.strip()]
        reduced = len(named) == _ADE_CLASSES
    elif any(_ADE_FOLDER in place.lower() for place in (name, *tree.folders)):
        named, reduced = [str(number) for number in range(1, _ADE_CLASSES + 1)], True
    chosen = classes if classes is not None else named
    return _Meaning(
        None if chosen is None else tuple(printable(str(word)) for word in chosen),
        ignored if ignore_index is None else ignore_index,
        reduced if reduce_zero_label is None else reduce_zero_label,
    )


def _named_by_colours(tree: Tree) -> list[str] | None:
    legend = legend_of(tree)
    return None if legend is None else list(dict.fromkeys(legend.names))


def _json(data: bytes, name: str) -> Any:
    try:
        return json_in(data)
    except DataError as error:
        raise DataError(f"classes.json of '{name}' cannot be read ({error}).") from None


def _text(tree: Tree, file: str) -> str:
    return tree.once.read(file).decode("utf-8-sig", "surrogateescape")
