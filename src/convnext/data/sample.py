"""One image with everything that is known about it. Axes: H W pixel rows and columns, C channels, M objects.

Boxes are x0 y0 x1 y1 in pixels of the image they belong to; a pixel is one wide, so a box round the first pixel is
(0, 0, 1, 1).
"""

from dataclasses import dataclass, field

import numpy as np

IGNORE = 255  # in a label map: a pixel that does not count


@dataclass(frozen=True)
class Instances:
    """The objects of one image."""

    boxes: np.ndarray  # (M, 4) float32
    labels: np.ndarray  # (M,) int64, 0 to classes - 1
    masks: np.ndarray | None  # (M, H, W) uint8, 0 or 1; None where the data have boxes alone
    crowd: np.ndarray  # (M,) bool: many objects in one, or one that need not be found
    area: np.ndarray  # (M,) float32, pixels of this image
    ids: np.ndarray  # (M,) int64, of the annotation file

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: np.ndarray) -> "Instances":
        """Those objects that `which`, a bool for each or their places, names."""
        masks = None if self.masks is None else self.masks[which]
        return Instances(
            self.boxes[which], self.labels[which], masks, self.crowd[which], self.area[which], self.ids[which]
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the original image lies in this one: x = scale_x * x_original + shift_x, and y alike.

    A negative scale is a flip. It holds for the edges of pixels, as boxes have them.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def then(self, scale_x: float, scale_y: float, shift_x: float, shift_y: float) -> "Frame":
        """This frame after one more step."""
        return Frame(
            self.scale_x * scale_x,
            self.scale_y * scale_y,
            self.shift_x * scale_x + shift_x,
            self.shift_y * scale_y + shift_y,
        )

    def forward(self, boxes: np.ndarray) -> np.ndarray:
        """(M, 4) boxes of the original image -> the same in this one."""
        return self._sorted(boxes * self._scales + self._shifts)

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """(M, 4) boxes of this image -> the same in the original one."""
        return self._sorted((boxes - self._shifts) / self._scales)

    @property
    def _scales(self) -> np.ndarray:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float64)

    @property
    def _shifts(self) -> np.ndarray:
        return np.array([self.shift_x, self.shift_y, self.shift_x, self.shift_y], np.float64)

    def _sorted(self, boxes: np.ndarray) -> np.ndarray:
        low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
        return np.concatenate([low, high], axis=1)


@dataclass(frozen=True)
class Sample:
    """An image on its way into the network, with its objects, or a class for every pixel, or both."""

    image: np.ndarray  # (H, W, C) uint8
    instances: Instances | None
    semantic: np.ndarray | None  # (H, W) uint8, IGNORE where a pixel does not count
    path: str
    image_id: int
    size: tuple[int, int]  # (H, W) of the original image
    frame: Frame = field(default_factory=Frame)

    @property
    def content(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of the pixels here that show the original image; the others are padding."""
        height, width = self.image.shape[:2]
        whole = self.frame.forward(np.array([[0.0, 0.0, self.size[1], self.size[0]]]))[0]
        x0, y0, x1, y1 = (round(float(edge)) for edge in whole)
        return max(0, x0), max(0, y0), min(width, x1), min(height, y1)
