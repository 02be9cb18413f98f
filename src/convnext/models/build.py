"""From a network's value to the network."""

from importlib import import_module

from convnext.config import ConvNeXtConfig, GFNetConfig, ModelConfig, RoadmapConfig
from convnext.models.convnext import ConvNeXt
from convnext.models.gfnet import GFNet
from convnext.models.network import Network
from convnext.models.roadmap import Roadmap


def build_model(config: ModelConfig) -> Network:
    """The freshly initialised network that `config` describes; it carries the value as `.config`.

    Raises ConvNeXtError for a baseline that timm does not know.
    """
    if isinstance(config, ConvNeXtConfig):
        return ConvNeXt(config)
    if isinstance(config, RoadmapConfig):
        return Roadmap(config)
    if isinstance(config, GFNetConfig):
        return GFNet(config)
    baselines = import_module("convnext.models.baselines")  # timm costs seconds, and a ConvNeXt does not need it
    model: Network = baselines.Baseline(config)
    return model
