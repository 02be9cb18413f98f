"""A trained network on a person's labelled images, for every task: never those that it has learnt, unless asked."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from convnext.config import Recipe
from convnext.data.source import Source
from convnext.engine.records import info, warn
from convnext.engine.update import autocast
from convnext.errors import DataError
from convnext.tasks.opening import Named, look, part_of, scored_source, splits_of
from convnext.tasks.result import Evaluation
from convnext.tasks.table import row_of


@contextlib.contextmanager
def answering(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Inside, networks run without gradients and in the recipe's precision."""
    with torch.inference_mode(), autocast(recipe.precision, device.type):
        yield


def evaluate(
    network: nn.Module,
    data: Named,
    recipe: Recipe,
    metadata: Mapping[str, Any],
    *,
    device: torch.device,
    part: str | None = None,
    workers: int = 0,
    progress: bool = False,
    **ways: Any,
) -> Evaluation:
    """Score any callable network of `recipe`, whose checkpoint says `metadata`, on the images of `data`.

    `part`: 'train', 'val' or 'test'; None: val where there is one, else test, else all; of data that the run parted
    itself, what it held out is val. `ways` are those of the task: `multi_scale` of segmentation, `batch` of
    classification. Raises DataError for data of another task, of unknown classes, or without that part.
    """
    dataset = open_scored(scored_source(data, recipe.task), recipe, metadata, part=part)
    if recipe.task != "classification":
        for line in look(dataset, workers=workers).lines:
            info(line)
    skipped: dict[str, str] = {}
    with answering(recipe, device):
        found = row_of(recipe.task).evaluation(
            network, dataset, recipe, workers=workers, skipped=skipped, progress=progress, **ways
        )
    if ways.get("multi_scale"):
        found = found.with_about(multi_scale=True)
    return found.with_about(skipped=skipped, weights=metadata.get("weights", "raw"))


def open_scored(source: Source, recipe: Recipe, metadata: Mapping[str, Any], *, part: str | None = None) -> Any:
    """The images to score a run on, with labels that index its classes; what is scored is logged where it surprises."""
    name, row = source.name, row_of(recipe.task)
    if source.task != recipe.task:
        raise DataError(
            f"'{name}' is annotated for {source.task}, and the run is for {recipe.task}. Name data of its kind."
        )
    held = held_out(source, recipe, metadata)
    if held is None:
        dataset = part_of(source, part=part, classes=tuple(metadata["classes"]))
    elif part == "test":
        raise DataError(f"'{name}' has no part 'test', only what the run was trained on and what it held out.")
    else:
        dataset = held.train if part == "train" else held.val
    if row.fingerprint(dataset, recipe) == metadata.get("images"):
        warn("The run was trained on these very images: the figures say little about others.")
    elif held is not None:
        info(
            f"The run was trained on {len(held.train.entries):,} of these images: scoring the "
            f"{len(held.val.entries):,} that it held out."
        )
    return dataset


def held_out(source: Source, recipe: Recipe, metadata: Mapping[str, Any]) -> Any:
    """The splits of the data as the run parted them, where it did and the images are still the same; else None.

    What it was trained on it has learnt by heart, so a score on that says nothing.
    """
    share = metadata.get("val_share")
    if share is None:
        return None
    with contextlib.suppress(DataError):  # data that could not be trained on may well be evaluated on
        splits = splits_of(source, val_share=share, seed=recipe.seed)
        if row_of(recipe.task).fingerprint(splits.train, recipe) == metadata["images"]:
            return splits
    return None
