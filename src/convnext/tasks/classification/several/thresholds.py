"""From which score on a class is an answer: one number a class, kept in checkpoints and exported files. No torch here.

Axes: K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnext.errors import CheckpointError
from convnext.tasks.classification.several.metrics import MIDDLE

KEY = "thresholds"  # of the metadata of checkpoints, of the description of exported files, and of evaluation.json


@dataclass(frozen=True)
class Thresholds:
    """Those of a network, and which images chose them."""

    values: tuple[float, ...]  # (K,) a score that reaches it is an answer
    images: str = ""  # fingerprint of the images that chose them, whose figures they flatter; '': none did

    @classmethod
    def of(cls, metadata: Mapping[str, Any], classes: int, source: str | Path) -> "Thresholds":
        """Those of the metadata of the file `source`; MIDDLE where it has none. Raises CheckpointError for other values."""
        held = metadata.get(KEY)
        if held is None:
            return cls((MIDDLE,) * classes)
        values, images = (held.get(name) for name in ("values", "images")) if isinstance(held, dict) else (None, None)
        if (
            not isinstance(images, str)
            or not isinstance(values, list)
            or len(values) != classes
            or not all(map(_share, values))
        ):
            raise CheckpointError(
                f"'{source}' is damaged: {KEY} in its header are not {classes} numbers from 0 to 1. Restore it."
            )
        return cls(tuple(values), images)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"values": list(self.values), "images": self.images}

    def array(self) -> NDArray[np.float64]:
        """(K,)."""
        return np.array(self.values, np.float64)


def _share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
