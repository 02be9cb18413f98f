"""From which score on a class is an answer, and a sure one: numbers for each class, kept in checkpoints and exported files.

No torch here.

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
from convnext.tasks.classification.several.promise import LabelsPromise

KEY = "thresholds"  # of the metadata of checkpoints, of the description of exported files, and of evaluation.json


@dataclass(frozen=True)
class Thresholds:
    """Those of a network, and which images chose them."""

    values: tuple[float, ...]  # (K,) a score that reaches it is an answer
    images: str = ""  # fingerprint of the images that chose them, whose figures they flatter; '': none did
    promise: LabelsPromise | None = (
        None  # from which score on answers are right as often as was asked; None: nothing was
    )

    @classmethod
    def of(cls, metadata: Mapping[str, Any], classes: int, source: str | Path) -> "Thresholds":
        """Those of the metadata of the file `source`; MIDDLE where it has none. Raises CheckpointError for other values."""
        held = metadata.get(KEY)
        if held is None:
            return cls((MIDDLE,) * classes)
        values, images, promised = (
            (held.get(name) for name in ("values", "images", "promise"))
            if isinstance(held, dict)
            else (None, None, None)
        )
        if not isinstance(images, str) or not _shares(values, classes):
            raise CheckpointError(
                f"'{source}' is damaged: {KEY} in its header are not {classes} numbers from 0 to 1. Restore it."
            )
        return cls(tuple(values or ()), images, None if promised is None else _promise_of(promised, classes, source))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        promise = {} if self.promise is None else {"promise": self.promise.to_dict()}
        return {"values": list(self.values), "images": self.images, **promise}

    def array(self) -> NDArray[np.float64]:
        """(K,)."""
        return np.array(self.values, np.float64)

    def sure(self) -> NDArray[np.float64]:
        """(K,) the scores of the promise; beyond 1 of a class without one."""
        values = (None,) * len(self.values) if self.promise is None else self.promise.values
        return np.array([2.0 if value is None else value for value in values], np.float64)


def _promise_of(held: Any, classes: int, source: str | Path) -> LabelsPromise:
    """A promise as JSON holds it. Raises CheckpointError for other values."""
    fields = held if isinstance(held, dict) else {}
    accuracy, values, n, part = (fields.get(name) for name in ("accuracy", "values", "n", "part"))
    whole = isinstance(n, int) and not isinstance(n, bool) and n >= 0
    if not (_share(accuracy) and _shares(values, classes, empty=True) and whole and isinstance(part, str)):
        raise CheckpointError(
            f"'{source}' is damaged: {KEY}.promise in its header is not a share, and {classes} numbers from 0 to 1 or null. "
            "Restore it."
        )
    return LabelsPromise(float(accuracy), tuple(values), n, part)  # type: ignore[arg-type]


def _shares(values: object, classes: int, *, empty: bool = False) -> bool:
    """Whether they are so many numbers from 0 to 1; `empty`: or nothing in place of one."""
    listed = isinstance(values, list) and len(values) == classes
    return listed and all(_share(value) or (empty and value is None) for value in values)  # type: ignore[attr-defined]


def _share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
