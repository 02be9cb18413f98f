"""What a predictor scored on labelled images, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """The figures of one network on one set of labelled images."""

    values: Mapping[str, Any] = field(repr=False)

    @property
    def scores(self) -> dict[str, float]:
        """The figures that are one number: 'top1', 'loss', 'n', ...; 'box_ap', ...; 'miou', ..."""
        numbers = ((name, value) for name, value in self.values.items() if isinstance(value, int | float))
        return {name: value for name, value in numbers if not isinstance(value, bool)}

    @property
    def skipped(self) -> dict[str, str]:
        """Path -> reason of images that could not be read, and are not counted."""
        return dict(self.values["skipped"])

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def to_dict(self) -> dict[str, Any]:
        """What `convnext evaluate --json` prints."""
        return dict(self.values)
