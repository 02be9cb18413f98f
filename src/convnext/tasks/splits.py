"""Which images a run trains on and which it holds out: drawn now, or as it has drawn them before."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from convnext.config import Recipe
from convnext.data.corrections import corrected, read_corrections
from convnext.data.formats.folders import listed
from convnext.data.opening import open_dense_splits, open_splits
from convnext.data.source import Labels, NamedColumns, Source
from convnext.errors import DataError

Fingerprint = Callable[[Any, Any], str]  # (dataset, recipe) -> of what is trained on, as a checkpoint has it


def splits_of(source: Source, *, val: Source | None = None, val_share: float, seed: int, drawn: str | None = "") -> Any:
    """The train and val images; `val`: another source, with the held-out ones; `drawn`: what was drawn before, None: nothing.

    Raises DataError when there are none.
    """
    if source.task == "classification":
        return open_splits(source, val_share=val_share, seed=seed, drawn=drawn)
    return open_dense_splits(source, val=val, val_share=val_share, seed=seed, drawn=drawn)


def corrected_splits(source: Source, splits: Any, table: str) -> Any:
    """The splits of classified images as the table of corrections wants them. Raises DataError where it does not fit."""
    if source.task != "classification":
        raise DataError(f"Corrections are for classification; '{source.name}' is for {source.task}. Leave them out.")
    return corrected(splits, read_corrections(table), listed(source).paths)


def as_trained(source: Source, labels: Labels, metadata: Mapping[str, Any]) -> Source:
    """The same read as a run has read its own, whatever these data look like: by its columns, where a table has them."""
    kept = metadata.get("columns")
    if source.form == "table" and not source.columns and kept:
        source = replace(source, columns=replace(NamedColumns.of(**kept), kept=True))
    return replace(source, labels=labels)


def held_out(source: Source, recipe: Recipe, metadata: Mapping[str, Any], fingerprint: Fingerprint) -> Any:
    """The splits of the data as the run parted them, where it did and the images are still the same; else None.

    What it was trained on it has learnt by heart, so a score on that says nothing.
    """
    share = metadata.get("val_share")
    if share is None:
        return None
    with contextlib.suppress(DataError):  # data that could not be trained on may well be evaluated on
        splits = splits_of(source, val_share=share, seed=recipe.seed, drawn=metadata.get("drawn", ""))
        if fingerprint(splits.train, recipe) == metadata.get("given", metadata.get("images")):
            return splits
    return None
