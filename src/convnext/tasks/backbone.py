"""Any network with stages as a backbone: a map from every stage, each behind a norm of its own.

ConvNeXt's stages end in a plain sum, which the pyramid cannot use as it is: the code released with arXiv 2201.03545 adds
a LayerNorm over the channels of each output, new and apart from the final norm of classification. The same is done
for other networks that end so, such as Swin (arXiv 2103.14030). Those that end in an activation, as ResNet, get none.
"""

from collections.abc import Collection
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from convnext.config import ConvNeXtConfig, ModelConfig, RoadmapConfig, TimmConfig
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.convnext import ChannelNorm

_PROBE_PX = 256  # side of the image that widths and strides are measured with


class Backbone(nn.Module):
    """`config`'s network without its head; `widths` and `strides` say what its maps are.

    Takes (N, in_channels, H, W) and returns for each stage (N, widths[i], H / strides[i], W / strides[i]). `stages` are
    those that the head reads, -1 the last; None: all. The others get no norm, for its parameters would get no gradient.
    Raises ConvNeXtError for a network of fewer than two stages.
    """

    def __init__(self, config: ModelConfig, *, stages: Collection[int] | None = None, fixed_batch_norm: bool = False):
        super().__init__()
        self.network: Any = _network(config)
        self.fixed_batch_norm = fixed_batch_norm
        maps = _probe(self.network, config.in_channels)
        if len(maps) < 2:
            raise ConvNeXtError(
                f"'{config.name}' has one stage: there is nothing to build a pyramid from. Take one with stages, e.g. 'tiny'."
            )
        self.widths = tuple(each.shape[1] for each in maps)
        self.strides = tuple(_PROBE_PX // each.shape[-1] for each in maps)
        count = len(maps)
        read = [stages is None or i in stages or i - count in stages for i in range(count)]
        plain = _ends_in_a_sum(config, self.network)
        self.norms = nn.ModuleList(
            ChannelNorm(width) if plain and each else nn.Identity()
            for width, each in zip(self.widths, read, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:  # (N, in_channels, H, W) -> stages of (N, C, H / stride, W / stride)
        maps = self.network.features(x).values()
        return [norm(each) for norm, each in zip(self.norms, maps, strict=True)]

    def train(self, mode: bool = True) -> "Backbone":
        """As for every module, but batch norms keep their statistics where they are fixed."""
        super().train(mode)
        if self.fixed_batch_norm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class TimmStages(nn.Module):
    """The stages of a timm network, by its own `features_only`."""

    def __init__(self, config: TimmConfig):
        super().__init__()
        timm: Any = import_module("timm")  # it costs seconds, and a ConvNeXt does not need it
        if not timm.is_model(config.name):
            import_module("convnext.models.baselines").Baseline(config)  # refuses, and says what is near
        wanted: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
        if config.name.startswith("swin_"):
            wanted["strict_img_size"] = False  # images of any size
        try:
            self.network = timm.create_model(config.name, features_only=True, in_chans=config.in_channels, **wanted)
        except (TypeError, RuntimeError) as error:
            raise ConvNeXtError(
                f"timm's '{config.name}' gives no stages ({str(error).splitlines()[0]}). Take another backbone, e.g. 'tiny'."
            ) from None
        import_module("convnext.models.baselines").take_own_drop_path(self.network)
        reductions = self.network.feature_info.reduction()
        # what comes before the first downsampling by 4 is too large for a pyramid
        self.taken = [i for i, reduction in enumerate(reductions) if reduction >= 4]
        if len({reductions[i] for i in self.taken}) < len(self.taken):
            raise ConvNeXtError(
                f"timm's '{config.name}' keeps one resolution: there is nothing to build a pyramid from. "
                "Take a network with stages, e.g. 'tiny' or 'swin_tiny'."
            )
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """{'stage0': (N, C0, H / 4, W / 4), 'stage1': ...}."""
        maps = self.network(x)
        taken = [maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.taken]
        return {f"stage{i}": each for i, each in enumerate(taken)}


def _network(config: ModelConfig) -> nn.Module:
    """The fresh network of `config`, without what only classification uses: each parameter must get a gradient."""
    config = config.model_copy(update={"classes": 0})
    if isinstance(config, TimmConfig):
        return TimmStages(config)
    if isinstance(config, ConvNeXtConfig):
        config = config.model_copy(update={"norm_first": False, "head_width": 0})
    network = build_model(config)
    network.norm = nn.Identity()
    network.head = nn.Identity()
    return network


def _ends_in_a_sum(config: ModelConfig, network: nn.Module) -> bool:
    """Whether no activation is behind the last addition of a stage; in timm, networks of batch norms have one there."""
    if isinstance(config, RoadmapConfig):
        return config.activations_per_block == 1
    return not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _probe(network: nn.Module, in_channels: int) -> list[Tensor]:
    """Every stage's map of one image of 256 x 256, in shapes only; the network is left as it was."""

    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network: Any = network

        def forward(self, x: Tensor) -> list[Tensor]:
            return list(self.network.features(x).values())

    stages = Stages()
    state = {**dict(stages.named_parameters()), **dict(stages.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    was_training = network.training
    stages.eval()
    with torch.no_grad():
        maps = functional_call(stages, shapes, (torch.empty(1, in_channels, _PROBE_PX, _PROBE_PX, device="meta"),))
    network.train(was_training)
    return maps
