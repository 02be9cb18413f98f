"""Annotated images for an exported network to be judged on, one at a time, read by threads. No torch here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext.config import Recipe
from convnext.data.dataset import DenseDataset, read_sample
from convnext.data.sample import Sample
from convnext.data.source import Source
from convnext.data.store import printable
from convnext.deploy.images import in_batches
from convnext.engine.records import info, watched
from convnext.errors import DataError, reason_of
from convnext.tasks.opening import look, open_scored
from convnext.tasks.skipped import note_skipped
from convnext.tasks.splits import Fingerprint


@dataclass(frozen=True)
class _Opened:
    """One annotated image, or why there is none."""

    indices: tuple[int, ...] = ()
    samples: tuple[Sample, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # path, reason


def opened(
    source: Source,
    recipe: Recipe,
    metadata: Mapping[str, Any],
    fingerprint: Fingerprint,
    *,
    part: str | None,
    run: Path,
    workers: int,
) -> tuple[DenseDataset, dict[str, str]]:
    """What `open_scored` gives, once it was looked at and what was found is said; path -> reason of images that are broken."""
    dataset: DenseDataset = open_scored(source, recipe, metadata, fingerprint, part=part, run=run)
    findings = look(dataset, workers=workers)
    for line in findings.lines:
        info(line)
    return dataset, dict(findings.broken)


def fitted_samples(
    dataset: DenseDataset,
    fit: Callable[[Sample], Sample],
    *,
    channels: int,
    masks: bool,
    workers: int,
    skipped: dict[str, str],
    progress: bool,
) -> Iterator[tuple[int, Sample]]:
    """(place in the dataset, sample after `fit`) of the images that can be read; the others are noted in `skipped`.

    `masks` and `channels` are those of `read_sample`. Raises DataError at the end where none could be read.
    """
    count, seen = len(dataset.entries), 0

    def read(places: range) -> _Opened:
        (index,) = places
        try:
            return _Opened((index,), (read_sample(dataset, index, channels=channels, masks=masks, change=fit),))
        except (DataError, OSError) as error:
            return _Opened(skipped=((printable(dataset.entries[index].path), reason_of(error)),))

    with watched(in_batches(read, count, 1, workers), count, shown=progress) as passing:
        for one in passing:
            note_skipped(one.skipped, skipped)
            seen += len(one.indices)
            yield from zip(one.indices, one.samples, strict=True)
    if not seen:
        raise DataError(f"None of the {count} images to evaluate on could be read.")
