"""What the loader hands over. Axes: N images, H W pixel rows and columns, C channels, K classes."""

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images of one step on this rank, as they were decoded: they travel small and are normalised where they are used."""

    images: Tensor  # (N, H, W, C) uint8, float32 of wide bands
    labels: Tensor  # (N,) int64, -1 where unknown; of several labels (N, K) int8: 1, 0, -1 where unknown
    indices: Tensor  # (N,) int64 into dataset.entries
    skipped: tuple[tuple[str, str], ...] = ()  # (path, reason) of images that broke while this batch was read

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; the DataLoader calls it by this name."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            indices=self.indices.pin_memory(),
        )
