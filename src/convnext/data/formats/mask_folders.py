"""Which image and which mask belong together, by the folders and names that people and tools give them.

A mask is known by a word of its folder (masks/, gtFine/, trainannot/) or an ending of its name (x_mask.png); the image
is then the file of the same path and name, the words that say 'image' and 'mask' left out.
"""

import os
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from convnext.data.band_store import first_files, found_bands, named, without_band
from convnext.data.codecs import band_suffixes, image_suffixes
from convnext.data.parts import part_of_name, part_of_word
from convnext.data.problems import MISSING, NO_MAP, Problem
from convnext.data.store import Store, Tree, printable
from convnext.data.written import listed_names

IMAGE_WORDS = frozenset(
    {
        "images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "leftimg8bit", "rgb", "image_2", "input",
        "inputs", "original", "originals",
    }
)  # fmt: skip
MASK_WORDS = frozenset(
    {
        "labels", "label", "masks", "mask", "annotations", "annotation", "annots", "segmentationclass",
        "segmentationclassraw", "gt", "gtfine", "gtcoarse", "semantic", "segmentation", "segmentations", "groundtruth",
        "ground_truth", "ground-truth", "seg", "segs", "target", "targets",
    }
)  # fmt: skip
_MASK_FOLDER_ENDS = ("annot", "_labels", "_masks", "_annotations")  # train/ with trainannot/
_MASK_NAME_ENDS = (
    "_gtFine_labelIds", "_gtFine_labelTrainIds", "_gtCoarse_labelIds", "_gtCoarse_labelTrainIds", "_labelIds",
    "_labelTrainIds", "_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_L",
)  # fmt: skip
_IMAGE_NAME_ENDS = ("_leftImg8bit", "_image", "_img", "_rgb", "_sat")
_MASK_NAME_STARTS = re.compile(r"(?i)(masks?|labels?|gt|seg|annotation)[_-]?(?=\d)")
_IMAGE_NAME_STARTS = re.compile(r"(?i)(images?|imgs?|im|rgb|frame|photo|pic)[_-]?(?=\d)")
_ASIDE_WORDS = re.compile(
    r"(?i)segmentationobject|(segmentationclass|segmentationobject)(visualization|npy|png)|instances?"
)
_ASIDE_ENDS = ("_color", "_instanceIds", "_instanceTrainIds", "_viz")  # shown beside the masks, for people
LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_LOSSY = (".jpg", ".jpeg")


class Pairs(NamedTuple):
    """Images with their masks, in the order of the images, and how many other image files there are."""

    found: list[tuple[str, str]]  # (image, mask)
    alone: int
    problems: list[Problem]
    bands: tuple[str, ...] = ()  # ends of names, where each image is that of its first band, and has a file for each


def paired(tree: Tree, *, lossy: bool = False, bands: Sequence[str] | None = None) -> Pairs:
    """Every image of a tree that has a mask. `lossy`: masks are JPEG, which can only be named.

    `bands` that are ends of names: each image is a file for each of them. None: where no mask has the name of an image, and
    names of files speak of bands, these.
    """
    if named(bands or ()):
        return _paired(tree, lossy, tuple(bands or ()))
    found = _paired(tree, lossy, ())
    if bands is not None or found.found or lossy:
        return found
    apart = found_bands(_images_of(tree, _masks_of(tree, LOSSLESS)), tree.store)
    return _paired(tree, lossy, apart) if apart else found


def _masks_of(tree: Tree, endings: Sequence[str]) -> dict[str, list[str]]:
    """Files that their folder or their name calls masks -> what the keys of their images can be."""
    files = tree.files.take(tree.files.ending_in(image_suffixes()))
    return {file: keys for file in files if file.lower().endswith(tuple(endings)) and (keys := _mask_keys(file))}


def _images_of(tree: Tree, masks: Collection[str], *, arrays: bool = True) -> list[str]:
    """Files that are no masks and nothing aside; `arrays`: those of many bands where there are no others."""
    own = [
        file
        for file in tree.files.take(tree.files.ending_in(image_suffixes()))
        if file not in masks and not _aside(file)
    ]
    if not own and arrays:
        kept = tree.files.take(tree.files.ending_in(band_suffixes() - image_suffixes()))
        own = [file for file in kept if not _aside(file) and not _mask_keys(file)]
    return own


def _paired(tree: Tree, lossy: bool, bands: tuple[str, ...]) -> Pairs:
    endings = _LOSSY if lossy else LOSSLESS
    if not tree.files.ending_in(endings).any():
        return Pairs([], 0, [])
    files = list(tree.files.take(tree.files.ending_in(image_suffixes())))
    masks = _masks_of(tree, endings)
    if not lossy:
        stems = {_stem(file) for file in files if not file.lower().endswith(LOSSLESS)}
        beside = [
            file for file in files if file.lower().endswith(LOSSLESS) and file not in masks and _stem(file) in stems
        ]
        masks |= {file: [image_key(file)] for file in beside}
    shown = _images_of(tree, masks, arrays=not lossy)
    firsts = [shown[place] for place in first_files(shown, bands)] if bands else shown
    others = len(shown) - len(firsts)
    own = {image_key(without_band(file, bands)): file for file in firsts}
    images = _with_fewer_words(own)
    problems, found = [], dict[str, str]()
    for file, keys in masks.items():
        image = next((images[key] for key in keys if images.get(key)), None)
        if image is None:
            problems.append(Problem(MISSING, printable(file)))
        elif not (image in found and _order(found[image]) < _order(file)):
            found[image] = file
    if found:
        problems += [Problem(NO_MAP, printable(file)) for file in own.values() if file not in found]
    alone = len(files) - sum(map(_aside, files)) - 2 * len(found) - others
    return Pairs(sorted(found.items()), alone, problems, bands)


def paired_apart(shown: Sequence[str], masks: Sequence[str], store: Store, bands: Sequence[str] | None = None) -> Pairs:
    """The same for images, in `store`, and masks of two places: by path without ending, else by name alone."""
    if not named(bands or ()):
        found = _paired_apart(shown, masks, ())
        apart = found_bands(shown, store) if bands is None and not found.found else ()
        return _paired_apart(shown, masks, apart) if apart else found
    return _paired_apart(shown, masks, tuple(bands or ()))


def _paired_apart(shown: Sequence[str], masks: Sequence[str], bands: tuple[str, ...]) -> Pairs:
    shown = [shown[place] for place in first_files(shown, bands)] if bands else shown
    stems = {_stem(file): file for file in masks if file.lower().endswith(LOSSLESS)}
    names: dict[str, str] = {}
    for stem, file in stems.items():
        name = stem.rsplit("/", 1)[-1]
        names[name] = file
        for end in _MASK_NAME_ENDS:
            if name.endswith(end) and name != end:
                names.setdefault(name.removesuffix(end), file)
    found, problems = [], []
    for file in shown:
        stem = _stem(without_band(file, bands))
        name = stem.rsplit("/", 1)[-1]
        mask = stems.get(stem) or names.get(name) or names.get(_bare_image(name))
        if mask is None:
            problems.append(Problem(NO_MAP, printable(file)))
        else:
            found.append((file, mask))
    return Pairs(found, len(problems), problems, bands)


def named_as_masks(tree: Tree) -> tuple[list[str], list[str]]:
    """(images, masks) where the folders of all images say 'image' or 'mask', and both are there; else nothing."""
    kinds = {prefix: _kind(prefix) for prefix in _folders(tree)}
    if not {"image", "mask"} <= set(kinds.values()) <= {"image", "mask", "aside"}:
        return [], []
    files = list(tree.files.take(tree.files.ending_in(image_suffixes())))
    images, masks = (
        [file for file in files if kinds[file[: file.rfind("/") + 1]] == kind] for kind in ("image", "mask")
    )
    return images, masks


def may_be_masks(tree: Tree) -> bool:
    """Whether a folder of images is called as those of masks are."""
    return any(_kind(prefix) == "mask" for prefix in _folders(tree))


def _folders(tree: Tree) -> list[str]:
    """Those that hold images, each with its '/'."""
    which = np.unique(tree.files.prefix[tree.files.ending_in(image_suffixes())])
    return [tree.files.prefixes[number] for number in which.tolist()]


def _kind(prefix: str) -> str:
    words = prefix.split("/")[:-1]
    if any(_ASIDE_WORDS.fullmatch(word) for word in words):
        return "aside"
    if any(word.lower() in MASK_WORDS or _annotated_folder(word) for word in words):
        return "mask"
    return "image" if any(word.lower() in IMAGE_WORDS for word in words) else ""


def listed_parts(tree: Tree) -> dict[str, str]:
    """Name without ending -> 'train', 'val' or 'test', as ImageSets/Segmentation/*.txt has them; {} without such files."""
    parts: dict[str, str] = {}
    for file in tree.files.take(tree.files.ending_in({".txt"})):
        folders = file.lower().split("/")[:-1]
        part = part_of_name(file)
        if folders[-2:] == ["imagesets", "segmentation"] and part:
            lines = tree.once.read(file).decode("utf-8-sig", "surrogateescape").splitlines()
            for first, *others in filter(None, map(listed_names, lines)):
                parts[_bare_name(first)] = part
                for other in map(_bare_name, others):
                    parts.setdefault(other, part)
    return parts


def _bare_name(name: str) -> str:
    """Without folders, and without the ending of an image."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return _stem(last) if last.lower().endswith(LOSSLESS + _LOSSY) else last


def _with_fewer_words(images: dict[str, str]) -> dict[str, str]:
    """Key -> image, and behind them keys without the words of its name; '' where two would have that."""
    fewer: dict[str, str] = {}
    for key, file in images.items():
        for bare in _bare_keys(key):
            fewer[bare] = "" if bare in fewer else file
    return {**fewer, **images}


def _bare_keys(key: str) -> set[str]:
    folder, slash, name = key.rpartition("/")
    bare = _bare_image(name)
    return {folder + slash + each for each in (bare, _IMAGE_NAME_STARTS.sub("", bare, count=1)) if each} - {key}


def _bare_image(name: str) -> str:
    end = next((end for end in _IMAGE_NAME_ENDS if name.endswith(end) and name != end), "")
    return name.removesuffix(end)


def image_key(file: str) -> str:
    """Its path without ending, the folder that says 'images' as '*'."""
    words = _stem(file).split("/")
    place = next((place for place in reversed(range(len(words) - 1)) if words[place].lower() in IMAGE_WORDS), None)
    if place is not None:
        words[place] = "*"
    return "/".join(words)


def _mask_keys(file: str) -> list[str]:
    """What the key of its image can be; [] when neither folder nor name says that it is a mask."""
    if _aside(file):
        return []
    words = _stem(file).split("/")
    ending = next((end for end in _MASK_NAME_ENDS if words[-1].endswith(end) and words[-1] != end), None)
    names = [words[-1]] + ([words[-1].removesuffix(ending)] if ending else [])
    start = _MASK_NAME_STARTS.match(names[-1])
    names += [names[-1][start.end() :]] if start else []
    for place in reversed(range(len(words) - 1)):
        folder = words[place].lower()
        if folder in MASK_WORDS:
            before, behind = words[:place], words[place + 1 : -1]
            return ["/".join([*before, *star, *behind, name]) for star in (["*"], []) for name in names]
        if stem := _annotated_folder(words[place]):
            renamed = [*words[:place], stem, *words[place + 1 : -1]]
            return ["/".join([*renamed, name]) for name in names] + [
                image_key("/".join([*renamed, name + ".png"])) for name in names
            ]
    return [image_key("/".join([*words[:-1], names[1] + ".png"]))] if ending else []


def _annotated_folder(folder: str) -> str:
    """'train' of trainannot, train_masks, train_gt; ''. A mask, a label or a gt alone only behind such a word."""
    low = folder.lower()
    for end in _MASK_FOLDER_ENDS:
        if low.endswith(end) and low != end:
            return folder[: -len(end)]
    stem, _, end = folder.rpartition("_")
    known = part_of_word(stem) or stem.lower() in IMAGE_WORDS
    return stem if known and end.lower() in MASK_WORDS else ""


def _aside(file: str) -> bool:
    """Whether a tool made it beside the masks, for people or for instances."""
    *folders, name = _stem(file).split("/")
    return any(_ASIDE_WORDS.fullmatch(folder) for folder in folders) or (
        name.endswith(_ASIDE_ENDS) and any(folder.lower() in MASK_WORDS for folder in folders)
    )


def _order(file: str) -> tuple[bool, bool]:
    """Of several masks of an image the one to take: labelIds before labelTrainIds, gtFine before gtCoarse."""
    return "gtcoarse" in file.lower(), file.lower().endswith("trainids.png")


def _stem(file: str) -> str:
    return os.path.splitext(file)[0]
