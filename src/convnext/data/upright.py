"""Pixels turned as EXIF's orientation says, 1 to 8, from how they are stored to how people see them.

Axes: H W pixel rows and columns, C channels.
"""

import numpy as np

SWAPPED = (5, 6, 7, 8)  # orientations with rows for columns
MIRRORED_X, MIRRORED_Y = (2, 3, 6, 7), (3, 4, 7, 8)  # those mirrored left to right, top to bottom, after that


def turned_pixels(stored: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) pixels as they lie on the disk -> upright, W before H where the orientation swaps the sides."""
    shown = stored.swapaxes(0, 1) if orientation in SWAPPED else stored
    shown = shown[:, ::-1] if orientation in MIRRORED_X else shown
    return np.ascontiguousarray(shown[::-1] if orientation in MIRRORED_Y else shown)
