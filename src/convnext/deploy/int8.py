"""Eight-bit integers for a network that is to run on a processor: calibrated on images, then judged on others.

A variant says which layers stay as they are. The first whose accuracy is within the limit is taken.
Axes: N images, C channels, H W pixel rows and columns, K classes.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnext.config import InputConfig
from convnext.data.evaluation import framed
from convnext.data.labelled import Dataset, present
from convnext.data.loader import eval_batches
from convnext.data.opening import open_splits, recognise
from convnext.deploy.exported.opened import Pixels
from convnext.errors import ConvNeXtError, DataError, nearest
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.several import metrics as several
from convnext.tasks.splits import as_trained

_RESAMPLES = 100  # of the images, for the error of a mean average precision
CERTAIN = 1.96  # standard errors: 19 times of 20
VARIANTS = {  # what stays in floating point, from the fastest to the most faithful
    "int8": (),
    "int8, the stem, the downsampling layers and the head in float": ("first", "dense", "head"),
    "int8 in the expanding and projecting layers alone": ("first", "dense", "head", "spatial"),
}


@dataclass(frozen=True)
class Comparison:
    """The same labelled images seen by two networks."""

    n: int
    before: float  # top-1, of several labels mean average precision: a rate
    after: float
    agreement: float  # share of images with the same answer
    error: float  # standard error of `before - after`, of the pairs
    figure: str = "top-1"  # what they are, for people

    @classmethod
    def of(cls, before: Outcomes, after: Outcomes) -> "Comparison":
        """From the outcomes of both, over the images that both have seen."""
        _, one, two = np.intersect1d(before.index, after.index, return_indices=True)
        right = before.rank[one] == 0, after.rank[two] == 0
        change = right[0].astype(float) - right[1].astype(float)
        n = len(change)
        same = float((before.predicted[one] == after.predicted[two]).mean())
        return cls(n, float(right[0].mean()), float(right[1].mean()), same, float(change.std() / math.sqrt(n)))

    @classmethod
    def of_labels(cls, before: several.Outcomes, after: several.Outcomes, thresholds: several.Floats) -> "Comparison":
        """The same where an image may have several labels, which (K,) `thresholds` name; the error by resampling the images."""
        _, one, two = np.intersect1d(before.index, after.index, return_indices=True)
        pair = before.at(one), after.at(two)
        n, rng = len(one), np.random.default_rng(0)
        told = [each.score >= thresholds for each in pair]
        changes = []
        for _ in range(_RESAMPLES):
            some = rng.integers(n, size=n)
            changes.append(_mean_precision(pair[0].at(some)) - _mean_precision(pair[1].at(some)))
        same = float((told[0] == told[1]).all(1).mean())
        first, second = map(_mean_precision, pair)
        return cls(n, first, second, same, float(np.std(changes)), "mAP")

    @property
    def loss(self) -> float:
        """Points of the figure that were lost."""
        return 100 * (self.before - self.after)

    @property
    def doubt(self) -> float:
        """How far from `loss` the loss on endless images of this kind may well be, in points; at least one image."""
        return 100 * max(CERTAIN * self.error, 1 / self.n)

    def text(self, limit: float) -> str:
        """One line for people, and a second where the images are too few to tell `limit` points."""
        line = (
            f"{self.figure} {self.before:.2%} -> {self.after:.2%} ({-self.loss:+.2f} points, give or take {self.doubt:.2f}) on "
            f"{self.n:,} images; the same answer on {self.agreement:.1%}"
        )
        if self.loss + self.doubt > limit:
            changed = max(self.error**2 * self.n, 1e-3)
            wanted = math.ceil(max(changed * (100 * CERTAIN / limit) ** 2, 100 / limit)) if limit else 0
            line += f"\ntoo few images to be sure that fewer than {limit:g} points are lost"
            line += f": about {wanted:,} would tell" if wanted > self.n else ""
        return line


def _mean_precision(outcomes: several.Outcomes) -> float:
    """Mean average precision over the classes that some image has."""
    found = several.average_precisions(outcomes)
    known = found[~np.isnan(found)]
    return float(known.mean()) if len(known) else 0.0


def parts_for(data: str | Path, classes: Sequence[str], metadata: dict[str, Any]) -> tuple[Dataset, Dataset]:
    """Images to calibrate on and labelled ones to judge by, none in both, labels by the network's `classes`.

    Of a folder without parts the run's own share is held out, by the run's seed: what it has not learnt judges it.
    Raises DataError where nothing is held out or a class is unknown to the network.
    """
    share = metadata.get("val_share")
    bands = tuple(metadata["recipe"]["input"].get("bands", ()))
    source = as_trained(recognise(data, annotated=False), metadata["recipe"].get("labels"), metadata)
    how = {"seed": metadata["recipe"]["seed"], "drawn": metadata.get("drawn", "")}
    splits = open_splits(source.with_bands(bands), val_share=0.2 if share is None else share, **how)
    if not splits.val.entries:
        raise DataError(f"'{data}' has no images apart from those to calibrate on. Add a val part with its labels.")
    number = {name: i for i, name in enumerate(classes)}
    held = splits.val
    for label in present(held.labels()).tolist():
        if held.classes[label] not in number:
            name = held.classes[label]
            raise DataError(
                f"'{data}' has class '{name}', which the model does not know.{nearest(name, classes)} "
                f"It knows {len(classes)} classes."
            )
    return splits.train, held.relabelled(tuple(classes), [number.get(name, -1) for name in held.classes])


def calibration(dataset: Dataset, config: InputConfig, count: int, seed: int) -> list[Pixels]:
    """`count` images of `dataset`, sampled by `seed`, as an exported graph takes them: (1, H, W, C) each. Broken ones drop out.

    Raises DataError where none can be read.
    """
    sampled = np.random.default_rng(seed).permutation(len(dataset.entries))[:count]
    some = Dataset(dataset.classes, tuple(dataset.entries[i] for i in sampled), dataset.store)
    found = [
        framed(batch.images[i : i + 1].numpy(), config)
        for batch in eval_batches(some, config, batch=32)
        for i in range(len(batch.images))
    ]
    if not found:
        raise DataError(f"None of {len(sampled)} images to calibrate on could be read.")
    return found


def first_within(
    variants: Sequence[str], judged: Callable[[str], Comparison], limit: float, info: Callable[[str], None]
) -> tuple[str, Comparison]:
    """The first variant that costs at most `limit` points. Raises ConvNeXtError where none does."""
    tried = []
    for variant in variants:
        found = judged(variant)
        if found.loss <= limit:
            return variant, found
        info(f"{variant}: {found.loss:.2f} points of {found.figure} lost, more than {limit:g}.")
        tried.append(found)
    best = min(tried, key=lambda each: each.loss)
    raise ConvNeXtError(
        f"int8 costs {best.loss:.2f} points of {best.figure} at best ({best.before:.2%} -> {best.after:.2%} on {best.n:,} "
        f"images), more than --max-loss {limit:g}: no file is kept. Calibrate on more images, or allow a larger --max-loss."
    )


def in_turn(runs: Mapping[str, Callable[[], object]], *, rounds: int = 7) -> dict[str, list[float]]:
    """Seconds of each of `runs`, measured in turn (A B A B) after one call each that does not count."""
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - started)
    return found


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster `fast` is: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


Layers = list[tuple[str, str]]  # (name of the operation, 'first' | 'spatial' | 'dense' | 'pointwise' | 'head')


def kept(layers: Layers, variant: str) -> list[str]:
    """Names of the layers that `variant` leaves in floating point."""
    return [name for name, kind in layers if kind in VARIANTS[variant]]


def kinds(found: Iterator[tuple[str, bool, int]]) -> Layers:
    """Sort layers by (name, whether grouped, positions of the kernel), as they follow each other."""
    layers = list(found)
    by_kind: Layers = []
    for i, (name, grouped, positions) in enumerate(layers):
        kind = "first" if i == 0 else "head" if i == len(layers) - 1 else "pointwise"
        if kind == "pointwise" and positions > 1:
            kind = "spatial" if grouped else "dense"
        by_kind.append((name, kind))
    return by_kind
