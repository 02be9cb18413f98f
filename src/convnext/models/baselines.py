"""Baseline networks from timm behind the contract of our own: logits from forward, `embed`, and a `config`.

A file of its own, because timm takes seconds to import.
"""

from typing import Any

import timm
from timm.layers.drop import DropPath as TimmDropPath
from timm.models import model_entrypoint
from torch import Tensor, nn

from convnext.config import TimmConfig
from convnext.errors import ConvNeXtError, nearest
from convnext.models.convnext import DropPath
from convnext.models.network import Network

_FLEXIBLE = {  # file in timm: what lets its networks take images of another size than the one they are built for
    "vision_transformer": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False},
}


class Baseline(Network):
    """The timm network `config.name`, randomly initialised; its tensors carry timm's names after 'network.'.

    Takes (N, in_channels, H, W) and returns (N, K) logits; with classes = 0, its pooled features.
    Raises ConvNeXtError for a name that timm does not know, and for a size or depth rate that the network does not take.
    """

    def __init__(self, config: TimmConfig):
        super().__init__()
        if not timm.is_model(config.name):
            raise ConvNeXtError(f"timm has no model called '{config.name}'.{nearest(config.name, timm.list_models())}")
        self.config = config
        network = _create(config)
        take_own_drop_path(network)
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


def take_own_drop_path(network: nn.Module) -> None:
    """Replace timm's drop path by ours, which does the same and whose chances training can give."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, TimmDropPath):
                assert child.scale_by_keep
                setattr(module, name, DropPath(child.drop_prob))


def _create(config: TimmConfig) -> Any:
    """timm's network of `config`, its refusals in one line."""
    wanted: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    published = timm.get_pretrained_cfg(config.name)
    if config.size_px is not None and published and published.fixed_input_size:
        library = model_entrypoint(config.name).__module__.rpartition(".")[2]
        wanted |= {"img_size": config.size_px, **_FLEXIBLE.get(library, {})}
    try:
        network: Any = timm.create_model(config.name, num_classes=config.classes, in_chans=config.in_channels, **wanted)
    except TypeError as error:
        if "drop_path_rate" in str(error):
            raise ConvNeXtError(
                f"timm's '{config.name}' has no stochastic depth: drop_path = {config.drop_path:g} is refused. Set 0."
            ) from None
        if published and "img_size" in str(error):
            px = published.input_size[-1]
            raise ConvNeXtError(
                f"timm's '{config.name}' takes images of {px} px only, not of {config.size_px}. Train with --size {px}."
            ) from None
        raise
    if "img_size" in wanted:
        _refuse_size(config.name, config.size_px or 0, network)
    return network


def _refuse_size(name: str, size_px: int, network: Any) -> None:
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    patch = patch_size if isinstance(patch_size, int) else patch_size[0]
    if size_px % patch:
        below = max(1, size_px // patch) * patch
        raise ConvNeXtError(
            f"'{name}' cuts images into patches of {patch} px, and {size_px} px is no multiple of that. "
            f"Train with --size {below} or {below + patch}."
        )
