"""From what the user names to a `Source`, recognised once, and from a source to its images and labels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from convnext.data.annotated import select
from convnext.data.annotated_forms import ANNOTATED
from convnext.data.dataset import DenseDataset, agreed, with_classes
from convnext.data.drawn import Drawn, draw, torn_note
from convnext.data.formats.band_trees import opened
from convnext.data.formats.class_words import doubtful_classes, unlabelled
from convnext.data.formats.folders import listed
from convnext.data.formats.painted import painted
from convnext.data.formats.table_files import TABLES
from convnext.data.labelled import Dataset, Splits, present
from convnext.data.names import Names
from convnext.data.parts import wraps
from convnext.data.recognition import Asked, nothing_annotated, recognised
from convnext.data.source import GUESSED, Form, Labels, NamedColumns, Source
from convnext.data.split import require_share
from convnext.data.store import printable
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
    drawn: str = ""  # what was held out, as a checkpoint keeps it, where that does not follow from the paths


def recognise(
    path: str | Path,
    images: str | Path | None = None,
    *,
    form: str | None = None,
    annotated: bool | None = None,
    colours: str | Path | None = None,
    task: str | None = None,
    labels: Labels | None = None,
    columns: NamedColumns = GUESSED,
) -> Source:
    """What `path` holds, its files listed once; `images`: the folder or zip of the images, where that is another.

    `annotated`: True where there must be boxes or masks, False for classes alone; None: both may be. Class folders may
    hold a text beside each image, a list of names, or one image twice: they stay class folders. `form` settles it.
    `colours`: a file of the colours of the masks' classes. `task`: what is to be learnt where the annotations allow
    several. `labels`: whether an image has one or several, where a person says so; `columns`: those of a table that they
    name.
    Raises DataError when nothing of that kind is there.
    """
    known: tuple[Form, ...] = get_args(Form)
    chosen = next((each for each in known if each == form), None)
    if form is not None and chosen is None:
        raise DataError(f"no form of data is called '{form}'.{nearest(form, known)} There are {', '.join(known)}.")
    if columns:
        chosen, annotated = _table_alone(columns, form, task), False
    elif chosen is not None:
        annotated = chosen in ANNOTATED
    elif annotated is None and (colours or (images and Path(path).suffix not in (".json", ".xml", *TABLES))):
        annotated = True
    found = recognised(path, Asked(images, chosen, annotated, task, columns))
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


def _table_alone(columns: NamedColumns, form: str | None, task: str | None) -> Form:
    """The form of what has named columns. Raises DataError where another is asked for, or another task."""
    (option, name), *_ = columns.given.items()
    if form not in (None, "table") or task not in (None, "classification"):
        raise DataError(
            f"--{option.replace('_', '-')} {name} is for tables of images in classes, not for {form or task}. Leave it out."
        )
    return "table"


def open_splits(source: Source, *, val_share: float = 0.2, seed: int = 0, drawn: str | None = "") -> Splits:
    """The train and val images of class folders or a table.

    Data without a val part is split by class: `val_share` of each, at least one of two, by a hash of (seed, path), so
    that the same files give the same split on every machine and in a zip. `drawn`: what a run has drawn before, as its
    checkpoint keeps it; None: nothing yet, and series of images and the groups that a table names stay whole. Raises
    DataError when nothing can be trained.
    """
    require_share(val_share)
    whole = listed(source)
    listing = whole.trained_on()
    val = listing.in_part("val")
    parted = bool(val.any())
    found = Drawn(val, np.zeros(len(val), np.int32), torn_note(listing.groups, val))
    if not parted:
        found = draw(
            listing.paths, listing.labels, listing.store, groups=listing.groups, val_share=val_share, seed=seed,
            repeated=source.form == "table", known=drawn,
        )  # fmt: skip
        val = found.held
    if val.all():
        raise DataError(f"'{source.name}' has no images in its train part. Put them into train/<class>/.", listing.said)
    shown = present(listing.labels[~val])
    if len(shown) < 2 and listing.labels.ndim == 1:
        if wraps(listing.classes[shown[0]]):
            raise DataError(unlabelled(source.name, listing.paths), listing.said)
        raise DataError(
            f"'{source.name}' has images of one class only ('{printable(listing.classes[shown[0]])}'); training needs two "
            "or more. Add a second class folder.",
            listing.said,
        )
    if not len(shown):
        raise DataError(f"no image of '{source.name}' to train on has any label.", listing.said)
    share = None if parted else val_share
    doubted = source.form == "folders" and listing.labels.ndim == 1
    notes = (*listing.notes, *doubtful_classes(listing)) if doubted else listing.notes
    if parted and not whole.in_part("val").any():
        notes = (*notes, _TEST_HELD)
    notes, units = (*notes, *found.notes), found.units[~val] if found.units.any() else None
    about: dict[str, Any] = {"drawn": found.text, "units": units, "columns": source.columns.kept_by_run}
    return Splits(listing.dataset(~val), listing.dataset(val), listing.left_out, share, notes, **about)


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
    source: Source, *, val: Source | None = None, val_share: float = 0.2, seed: int = 0, drawn: str | None = ""
) -> DenseSplits:
    """The train and val images of the source, or of it and of `val`, another with the held-out images.

    Data without a val part is split: `val_share` of the images, at least one of two, by a hash of (seed, path);
    `drawn`: as of `open_splits`. Raises DataError when nothing can be trained.
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
    return _split(whole, val_share, seed, drawn)


def _first(dataset: DenseDataset) -> str:
    return printable(dataset.entries[0].path)


def open_parts(source: Source) -> Parts:
    """All parts of annotated images: of 'train', 'val', 'test' those there are, or 'all'. They share their classes."""
    if source.form not in ANNOTATED:
        raise DataError(nothing_annotated(source.name, source.tree))
    if not source.opened:
        parts = opened(source, ANNOTATED[source.form].opens)
        if notes := source.tree.store.notes:
            parts = {part: replace(dataset, notes=(*dataset.notes, *notes)) for part, dataset in parts.items()}
        parts = parts if source.form == "yolo" else agreed(parts)  # YOLO lists classes once for all parts
        if source.task == "segmentation" and ANNOTATED[source.form].outlines:
            parts = painted(parts, source.name)
        source.opened.update(parts)
    return dict(source.opened)


def _split(whole: DenseDataset, val_share: float, seed: int, drawn: str | None) -> DenseSplits:
    paths, labels = Names.of(entry.path for entry in whole.entries), np.zeros(len(whole.entries), np.int64)
    how: dict[str, Any] = {"val_share": val_share, "seed": seed, "repeated": False, "known": drawn}
    found = draw(paths, labels, whole.store, groups=None, **how)
    train = replace(whole, entries=select(whole.entries, ~found.held), notes=(*whole.notes, *found.notes))
    val = replace(whole, entries=select(whole.entries, found.held), problems=())
    return DenseSplits(train, val, val_share, drawn=found.text)
