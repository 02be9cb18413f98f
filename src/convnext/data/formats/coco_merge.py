"""Several COCO files of one part become one data set: classes by their names, each image and object with its own number."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convnext.data.annotated import AnnotatedImages, Outlines, Pool
from convnext.data.dataset import DenseDataset, with_classes
from convnext.data.names import Names
from convnext.data.parts import part_of
from convnext.data.problems import DOUBLE, Problem
from convnext.data.store import printable


def merged(parts: Sequence[DenseDataset], files: Sequence[str]) -> DenseDataset:
    """One data set of those that `files` hold. Of an image in two of them the first file's objects count.

    Classes come in the order of the files; an image or an object keeps its number where no other has it.
    """
    names: dict[str, int] = {}
    for part in parts:
        for name, number in zip(part.classes, part.category_ids, strict=True):
            if name not in names:
                names[name] = number if number not in names.values() else max((*names.values(), number)) + 1
    classes, problems, kept = tuple(names), list[Problem](), list[AnnotatedImages]()
    seen: dict[str, str] = {}
    for part, file in zip(parts, files, strict=True):
        problems += part.problems
        entries = with_classes(part, classes, file).entries
        assert isinstance(entries, AnnotatedImages)
        paths = list(entries.paths)
        fresh = np.array([path not in seen for path in paths], bool)
        problems += [Problem(DOUBLE, printable(path), f"in {seen[path]} and {file}") for path in paths if path in seen]
        kept.append(entries.take(fresh))
        seen |= {path: file for path in paths if path not in seen}
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    together = f"Read together: {', '.join(files[:5])}{' ...' if len(files) > 5 else ''}."
    return replace(
        parts[0],
        classes=classes,
        entries=_joined(kept),
        category_ids=tuple(names.values()),
        problems=tuple(problems),
        notes=(*notes, together),
    )


def by_folders(whole: DenseDataset) -> dict[str, DenseDataset]:
    """Images that one file lists, by the parts that their folders say; 'all' where not all of them say one."""
    entries = whole.entries
    assert isinstance(entries, AnnotatedImages)
    said = np.array([part_of(path) for path in entries.paths])
    found = set(said.tolist())
    if "" in found or "train" not in found or len(found) < 2:
        return {"all": whole}
    whole = replace(whole, notes=(*whole.notes, "Folders of the images say which part they belong to."))
    parts = {part: replace(whole, entries=entries.take(said == part), problems=()) for part in sorted(found)}
    return parts | {"train": replace(parts["train"], problems=whole.problems)}


def _joined(parts: Sequence[AnnotatedImages]) -> AnnotatedImages:
    text, borders, first, last, objects = list[bytes](), list[np.ndarray](), list[np.ndarray](), list[np.ndarray](), 0
    place = 0
    for part in parts:
        outlines = part.pool.outlines
        text += outlines.texts
        first.append(outlines.first + place)
        last.append(outlines.last + place)
        borders.append(part.borders + objects)
        place += sum(map(len, outlines.texts))
        objects += len(part.pool.labels)
    pools = [part.pool for part in parts]
    numbers = np.concatenate([pool.ids for pool in pools])
    pool = Pool(
        np.concatenate([pool.boxes for pool in pools]),
        np.concatenate([pool.labels for pool in pools]),
        np.concatenate([pool.crowd for pool in pools]),
        np.concatenate([pool.area for pool in pools]),
        numbered(numbers, int(numbers.max(initial=0)))[0],
        Outlines((b"".join(text), b""), np.concatenate(first), np.concatenate(last)),
    )
    images = np.concatenate([part.ids for part in parts])
    ids = images if len(set(images.tolist())) == len(images) else np.arange(1, len(images) + 1)
    paths = Names.of(path for part in parts for path in part.paths)
    return AnnotatedImages(paths, ids, np.concatenate([part.sizes for part in parts]), np.concatenate(borders), pool)


def numbered(given: np.ndarray, highest: int) -> tuple[np.ndarray, int]:
    """Numbers for annotations, and how many are new: their own where it is above 0 and not taken, else a free one.

    `highest` of all numbers of the file. COCO's evaluation takes an annotation numbered 0 for none.
    """
    own = np.zeros(len(given), bool)
    own[np.unique(given, return_index=True)[1]] = True
    own &= given > 0
    ids = given.copy()
    ids[~own] = highest + 1 + np.arange(np.count_nonzero(~own))
    return ids, int(np.count_nonzero(~own))
