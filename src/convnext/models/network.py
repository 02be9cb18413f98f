"""What every network of this package is to its users.

Axes: N images, C channels, H W pixel rows and columns, K classes.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from convnext.errors import ConvNeXtError


class Network(nn.Module):
    """Takes (N, in_channels, H, W) images and returns (N, K) logits; `config` is the value that it was built from."""

    config: Any

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def embed(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C), the vector that the head sees."""
        raise NotImplementedError

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every stage's output by name. Raises ConvNeXtError for a network that does not give them."""
        raise ConvNeXtError(f"'{self.config.name}' does not give the maps of its stages, only `embed`.")
