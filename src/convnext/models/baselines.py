"""Baseline networks from timm behind the contract of our own: logits from forward, `embed`, and a `config`.

A file of its own, because timm takes seconds to import.
"""

from typing import Any

import timm
from torch import Tensor, nn

from convnext.config import TimmConfig
from convnext.errors import ConvNeXtError, nearest


class Baseline(nn.Module):
    """The timm network `config.name`, randomly initialised; its tensors carry timm's names after 'network.'.

    Takes (N, in_channels, H, W) and returns (N, K) logits; with classes = 0, its pooled features.
    Raises ConvNeXtError for a name that timm does not know.
    """

    def __init__(self, config: TimmConfig):
        super().__init__()
        if not timm.is_model(config.name):
            raise ConvNeXtError(f"timm has no model called '{config.name}'.{nearest(config.name, timm.list_models())}")
        drop_path: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
        self.config = config
        try:
            network: Any = timm.create_model(
                config.name, num_classes=config.classes, in_chans=config.in_channels, **drop_path
            )
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            raise ConvNeXtError(
                f"timm's '{config.name}' has no stochastic depth: drop_path = {config.drop_path:g} is refused. Set 0."
            ) from None
        self.network = network
        classifier = network.pretrained_cfg["classifier"]  # one name, or two where a network is distilled
        names = (classifier,) if isinstance(classifier, str) else classifier
        self.head_prefixes = tuple(f"network.{name}." for name in names)  # these tensors depend on the classes

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, K)
        return self.network(x)

    def embed(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C)
        """The vector that the head sees."""
        network: Any = self.network
        return network.forward_head(network.forward_features(x), pre_logits=True)
