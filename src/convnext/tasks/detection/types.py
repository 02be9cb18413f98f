"""What goes into a detector and what comes out of it.

Axes: N images, C channels, H W rows and columns of the padded batch, h w those of one image, M objects,
D detections, S rows and columns of a predicted mask. Boxes are (x0, y0, x1, y1) in pixels of the image they belong to;
labels count from 0, and the background is none of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext.tasks.detection.found import Size


class NoNumbers(ArithmeticError):
    """What a detector makes of some image is inf or nan; whoever knows the image says its name."""


def require_finite(*values: Tensor) -> None:
    """Raise NoNumbers: scores that are none are above no threshold, and a detector would find nothing, in silence."""
    if not bool(torch.stack([each.isfinite().all() for each in values]).all()):
        raise NoNumbers


@dataclass(frozen=True)
class Images:
    """Normalised images of different sizes in one tensor, zeros right of and below each, with their true sizes."""

    x: Tensor  # (N, C, H, W)
    sizes: tuple[Size, ...]  # (h, w) of each image, without the padding

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def of(cls, images: Sequence[Tensor], multiple: int = 32) -> "Images":
        """A batch of (C, h, w) images, H and W the largest of each, rounded up to whole `multiple`s."""
        sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
        height, width = (multiple * math.ceil(max(side) / multiple) for side in zip(*sizes, strict=True))
        padded = [F.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2])) for p in images]
        return cls(torch.stack(padded), sizes)


@dataclass(frozen=True)
class Targets:
    """The objects of one image; M may be 0."""

    boxes: Tensor  # (M, 4) float32
    labels: Tensor  # (M,) int64, 0 .. K-1
    masks: Tensor | None = None  # (M, h, w) uint8, 1 inside; None where only boxes are known
    crowd: Tensor | None = (
        None  # (M,) bool: a box around many, that is neither learnt nor background; None: there is none
    )

    parted: tuple["Targets", Tensor] | None = None  # `single` and `crowds`, where they are known already

    def single(self) -> "Targets":
        """The objects that are learnt: all but crowds, and boxes that a crop left without area."""
        if self.parted:
            return self.parted[0]
        keep = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        if self.crowd is not None:
            keep &= ~self.crowd
        return Targets(self.boxes[keep], self.labels[keep], None if self.masks is None else self.masks[keep])

    def crowds(self) -> Tensor:
        """(L, 4) boxes of crowds."""
        if self.parted:
            return self.parted[1]
        return self.boxes[:0] if self.crowd is None else self.boxes[self.crowd]

    def parts(self) -> list[Tensor]:
        """What is learnt of them, and crowds, for `of_parts`; told apart here, where nobody waits for their number."""
        own = self.single()
        return [own.boxes, own.labels, self.crowds(), *([] if own.masks is None else [own.masks])]

    @classmethod
    def of_parts(cls, boxes: Tensor, labels: Tensor, crowds: Tensor, masks: Tensor | None = None) -> "Targets":
        """Wherever the `parts` are now."""
        single = cls(boxes, labels, masks)
        return replace(single, parted=(single, crowds))


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first."""

    boxes: Tensor  # (D, 4) float32
    scores: Tensor  # (D,) float32, 0 .. 1
    labels: Tensor  # (D,) int64
    masks: Tensor | None = None  # (D, S, S) float32 probabilities inside each box; `found.paste` brings them to pixels

    def __len__(self) -> int:
        return len(self.boxes)

    def resized(self, size: Size, original: Size) -> "Detections":
        """Boxes of an image of `size` in pixels of the `original` one that it was resized from."""
        (height, width), (rows, columns) = size, original
        scale = self.boxes.new_tensor([columns / width, rows / height] * 2)
        return Detections(self.boxes * scale, self.scores, self.labels, self.masks)

    def parts(self) -> list[Tensor]:
        """Their tensors, in the order that makes them."""
        return [self.boxes, self.scores, self.labels, *([] if self.masks is None else [self.masks])]
