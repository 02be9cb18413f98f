"""What a frozen network makes of a data set: the vectors that its head would see, kept in files so that a kill costs little.

Axes: V views of an image (as it is, then mirrored), N images, C features.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convnext.config import ClassificationRecipe
from convnext.data.batch import Batch
from convnext.data.labelled import Dataset
from convnext.data.loader import eval_batches
from convnext.data.store import printable
from convnext.data.transforms import normalise
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.records import Meter
from convnext.engine.run import save_whole
from convnext.errors import CheckpointError, TrainingError, number_of
from convnext.kernels.transfer import fetched, sent
from convnext.tasks.classification.scoring import eval_batch
from convnext.tasks.evaluate import answering
from convnext.tasks.skipped import note_skipped

CHUNK = 1024  # images of a file


@dataclass(frozen=True)
class Features:
    """Those of all readable images of a data set, on the CPU."""

    values: Tensor  # (V, N, C) float32
    labels: Tensor  # (N,) int64
    indices: Tensor  # (N,) int64, into the data set's entries

    def at(self, places: Tensor) -> "Features":
        """Those of the images at `places`, numbers or a bool for each."""
        return Features(self.values[:, places], self.labels[places], self.indices[places])


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are made, and where they are kept."""

    model: nn.Module  # in evaluation mode, with `embed`, on its device
    recipe: ClassificationRecipe
    folder: Path
    digest: str  # of the weights: features of others are made again
    workers: int
    world: World
    progress: bool

    def of(self, dataset: Dataset, name: str, *, fingerprint: str, views: int, skipped: dict[str, str]) -> Features:
        """The features of every readable image, under the run's evaluation transform; each chunk is a file of `folder`.

        `views` 2: also those of the mirrored image. Files that are there are read, unless their digest is another one.
        """
        shown = self.recipe.input
        known = f"{self.digest} {fingerprint} {views} {shown.model_dump_json()}"
        total = len(dataset.entries)
        parts = []
        shows = self.progress and self.world.first
        with closing(Meter(total, 0, label=f"frozen features, {name}", shown=shows)) as meter:
            for number, first in enumerate(range(0, total, CHUNK)):
                file = self.folder / f"{name}-{number:05d}.safetensors"
                part = self.world.from_first(_read(file, known, skipped) if self.world.first else None)
                if part is None:
                    last = min(total, first + CHUNK)
                    part = self._chunk(dataset, range(first, last), views, file, known, skipped)
                parts.append(part)
                meter.advance("", min(total, first + CHUNK))
        return Features(
            torch.cat([part.values for part in parts], 1),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.indices for part in parts]),
        )

    def _chunk(
        self, dataset: Dataset, places: range, views: int, file: Path, known: str, skipped: dict[str, str]
    ) -> Features:
        entries = dataset.entries[places.start : places.stop]
        broken: dict[str, str] = {}
        with answering(self.recipe, next(self.model.parameters()).device):
            rows = list(self._rows(Dataset(dataset.classes, entries, dataset.store), views, broken))
        gathered = [row for rows in self.world.gather(rows) for row in rows]
        for found in self.world.gather(broken):
            note_skipped(found.items(), skipped)
            broken |= found
        values = [torch.from_numpy(vectors) for vectors, _, _ in gathered]
        columns = [np.concatenate([row[i] for row in gathered]) if gathered else np.zeros(0, np.int64) for i in (1, 2)]
        labels, indices = map(torch.from_numpy, columns)
        width = self.recipe.model.model_dump().get("widths", (0,))[-1]
        part = Features(
            torch.cat(values, 1) if values else torch.zeros(views, 0, width), labels, indices + places.start
        )
        broken_rows = (~part.values.isfinite().all(2).all(0)).nonzero().flatten().tolist()
        if broken_rows:
            path = printable(dataset.entries[int(part.indices[broken_rows[0]])].path)
            raise TrainingError(
                f"The network that these weights make answers '{path}' with nan or inf, and "
                f"{number_of(len(broken_rows) - 1, 'other image')} as well. Give other weights, or --precision fp32."
            )
        if self.world.writes():
            tensors = {"values": part.values, "labels": part.labels, "indices": part.indices}
            save_whole(file, tensors, {"known": known, "skipped": broken})
        self.world.wait()
        return part

    def _rows(
        self, dataset: Dataset, views: int, broken: dict[str, str]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        device = next(self.model.parameters()).device
        share = (self.world.rank, self.world.size)
        config, batch = self.recipe.input, eval_batch(self.recipe)

        def asked() -> Iterator[tuple[Batch, Tensor]]:
            for raw in eval_batches(dataset, config, batch=batch, share=share, workers=self.workers):
                broken.update(raw.skipped)
                if len(raw.labels):
                    x = normalise(sent(raw.images, device), config)
                    vectors = [self.model.embed(view) for view in (x, x.flip(-1))[:views]]  # type: ignore[operator]
                    yield raw, torch.stack(vectors).float()

        for raw, found in fetched(asked()):
            yield found.numpy(), raw.labels.numpy(), raw.indices.numpy()


def _read(file: Path, known: str, skipped: dict[str, str]) -> Features | None:
    """The features of a file; None where it is not there, damaged or of something else: they are made again."""
    try:
        tensors, metadata = checkpoint.read(file)
    except CheckpointError:
        return None
    if metadata.get("known") != known:
        return None
    note_skipped(metadata["skipped"].items(), skipped)
    return Features(tensors["values"], tensors["labels"], tensors["indices"])


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """16 digits of a hash of the names and values of all tensors."""
    found = hashlib.blake2b()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
