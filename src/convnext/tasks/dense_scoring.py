"""Which annotated images a trained detector or segmenter is scored on: never those that it has learnt, unless asked."""

import contextlib
from collections.abc import Mapping
from typing import Any

from convnext.config import Recipe
from convnext.data.dataset import DenseDataset
from convnext.data.opening import DenseSplits, open_dense, open_dense_splits
from convnext.data.source import Source
from convnext.engine.records import info, warn
from convnext.errors import DataError
from convnext.tasks.train_dense import TASKS


def open_scored(data: Source, recipe: Recipe, metadata: Mapping[str, Any], *, part: str | None = None) -> DenseDataset:
    """The images of `data` to score a run on, with labels that index its classes.

    `recipe` and `metadata` are its checkpoint's. `part`: 'train', 'val' or 'test'; None: val where there is one, else
    test, else all. Of data that the run parted itself, what it held out is val. What is scored is logged where it is not
    what one would think. Raises DataError for data of another task, of unknown classes, or without that part.
    """
    if data.task != recipe.task:
        raise DataError(
            f"'{data.name}' is annotated for {data.task}, and the run is for {recipe.task}. Name data of its kind."
        )
    held = _held_out(data, recipe, metadata)
    if held is None:
        dataset = open_dense(data, part=part, classes=tuple(metadata["classes"]))
    elif part == "test":
        raise DataError(f"'{data.name}' has no part 'test', only what the run was trained on and what it held out.")
    else:
        dataset = held.train if part == "train" else held.val
    if TASKS[recipe.task].fingerprint(dataset, recipe) == metadata.get("images"):
        warn("The run was trained on these very images: the figures say little about others.")
    elif held is not None:
        info(
            f"The run was trained on {len(held.train.entries):,} of these images: scoring the "
            f"{len(held.val.entries):,} that it held out."
        )
    return dataset


def _held_out(data: Source, recipe: Recipe, metadata: Mapping[str, Any]) -> DenseSplits | None:
    """`data` as the run parted it, where it did, and the images are still the same."""
    share = metadata.get("val_share")
    if share is None:
        return None
    with contextlib.suppress(DataError):  # data that could not be trained on may well be evaluated on
        splits = open_dense_splits(data, val_share=share, seed=recipe.seed)
        if TASKS[recipe.task].fingerprint(splits.train, recipe) == metadata["images"]:
            return splits
    return None
