"""How labelled images pass a classifier: the one value that every evaluation of it takes. No torch here.

Axes: N images, C channels, H W pixel rows and columns.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from convnext.config import InputConfig
from convnext.data.evaluation import Change

if TYPE_CHECKING:
    from torch import Tensor, nn


class Attacker(Protocol):
    """What misleads a network by its gradients."""

    def __call__(
        self, model: "nn.Module", images: "Tensor", labels: "Tensor", indices: "Tensor", config: InputConfig, /
    ) -> "Tensor":
        """(N, H, W, C) uint8 images with (N,) labels and places in the dataset -> (N, C, H, W) normalised."""
        ...


@dataclass(frozen=True)
class Pass:
    """Every readable image of a dataset, once."""

    workers: int = 0  # readers beside this process; threads for an exported file
    batch: int = 0  # images together; 0: as many as are usual
    progress: bool = False  # show how far it is
    change: Change | None = None  # done to each image after the crop
    attack: Attacker | None = None  # done to each batch
    skipped: dict[str, str] | None = None  # takes the broken images: path -> reason


PLAIN = Pass()
