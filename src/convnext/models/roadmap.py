"""One residual network that can be every step from ResNet to ConvNeXt (Liu et al. 2022, arXiv 2201.03545, section 2).

Axes: N images, C channels, H W feature rows and columns, w the width of the first stage, K classes.
`RoadmapConfig` names the decisions; here each is one line. What the paper leaves open, and what was chosen:

- The shortcut's 1x1 convolution keeps its norm in every step, and so does the stem. Only blocks lose norms.
- The activation behind the stem, which ResNet has, goes together with those of the blocks ("fewer activations").
- "LayerNorm" replaces every norm, in the blocks and outside of them.
- The last step brings what the released ConvNeXt has besides its downsampling layers: the norm behind the pooling (the paper
  names it there), biases of convolutions and layer scale.
- Every step starts from weights of std 0.02, as the released code does, ResNet too: the norms hide the scale.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from convnext.config import RoadmapConfig
from convnext.models.convnext import ChannelNorm, Downsample, DropPath, initialise
from convnext.models.network import Network


class Roadmap(Network):
    """Stem, stages of residual blocks, mean over space and a linear head, as ResNet and ConvNeXt have in common.

    Takes (N, in_channels, H, W) and returns (N, K) logits; with classes = 0, (N, C) features.
    """

    def __init__(self, config: RoadmapConfig):
        super().__init__()
        self.config = config
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        ends = list(accumulate(config.depths, initial=0))
        self.stem = Stem(config)
        self.stages = nn.ModuleList()
        width = self.stem.width
        for i in range(len(config.depths)):
            own = rates[ends[i] : ends[i + 1]]
            self.stages.append(Stage(config, width, config.width * 2**i, own, first=i == 0))
            width = _width_out(config, config.width * 2**i)
        # ResNet's last block ends in a norm and an activation; a pure residual sum wants a norm before the head
        self.norm = _norm(config, width) if config.downsample == "layer" else nn.Identity()
        self.head = nn.Linear(width, config.classes) if config.classes else nn.Identity()
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, K)
        return self.head(self.embed(x))

    def embed(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, C)
        """The vector that the head sees: the last stage, averaged over space."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.pooled(x)

    def pooled(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
        """What `embed` makes of the last stage's maps."""
        return self.norm(x.mean((2, 3), keepdim=True)).flatten(1)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every stage's output by name, as `ConvNeXt.features` has them."""
        x = self.stem(x)
        maps = {}
        for i, stage in enumerate(self.stages):
            maps[f"stage{i}"] = x = stage(x)
        return maps


class Block(nn.Module):
    """Three convolutions, one spatial and two pointwise, beside a shortcut.

    y = last(shortcut(x) + drop_path(gamma * branch(x))); `width` is ResNet's m: the inside of a narrow bottleneck, the
    outside of an inverted one.
    """

    gamma: nn.Parameter | None

    def __init__(self, config: RoadmapConfig, width_in: int, width: int, *, stride: int, drop_path: float):
        super().__init__()
        width_out = _width_out(config, width)
        inside = width if config.bottleneck == "narrow" else 4 * width
        seen = width_in if config.order == "spatial_first" else inside  # channels that are mixed over space
        convolutions = [
            ("expand", nn.Conv2d(width_in, inside, 1, bias=config.bias)),
            ("spatial", _spatial(config, seen, stride)),
            ("project", nn.Conv2d(inside, width_out, 1, bias=config.bias)),
        ]
        if config.order == "spatial_first":
            convolutions[:2] = reversed(convolutions[:2])
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        for place, (name, convolution) in enumerate(convolutions):
            branch[name] = convolution
            if config.norms_per_block == 3 or name == "spatial":
                branch[f"{name}_norm"] = _norm(config, convolution.out_channels)
            if place == 1 or (place == 0 and config.activations_per_block == 3):
                branch[f"{name}_activation"] = _activation(config)
        self.branch = nn.Sequential(branch)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or width_in != width_out:
            resize = nn.Conv2d(width_in, width_out, 1, stride=stride, bias=config.bias)
            self.shortcut = nn.Sequential(resize, _norm(config, width_out))
        gamma = None if config.layer_scale is None else nn.Parameter(torch.full((width_out,), config.layer_scale))
        self.register_parameter("gamma", gamma)
        self.drop_path = DropPath(drop_path)
        self.last = _activation(config) if config.activations_per_block == 3 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)
        y = self.branch(x)
        if self.gamma is not None:
            y = self.gamma[:, None, None] * y
        return self.last(self.shortcut(x) + self.drop_path(y))


class Stage(nn.Module):
    """Blocks of one size, one for each of their drop path rates.

    All stages but the first begin by downsampling the map, in a layer of its own or in a block.
    """

    def __init__(self, config: RoadmapConfig, width_in: int, width: int, rates: Sequence[float], *, first: bool):
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        stride = 1 if first else 2
        if config.downsample == "layer" and not first:
            width_out = _width_out(config, width)
            self.downsample = Downsample(width_in, width_out, norm=_norm(config, width_in), bias=config.bias)
            width_in, stride = width_out, 1
        blocks = [Block(config, width_in, width, stride=stride, drop_path=rates[0])]
        width_in = _width_out(config, width)
        blocks += [Block(config, width_in, width, stride=1, drop_path=rate) for rate in rates[1:]]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C_out, H / 2, W / 2), the first: -> (.., H, W)
        return self.blocks(self.downsample(x))


class Stem(nn.Module):
    """From pixels to positions: ResNet's convolution and pooling, or one patch of `patch` x `patch` pixels each."""

    def __init__(self, config: RoadmapConfig):
        super().__init__()
        pooled = config.stem == "conv7"
        self.width = config.width
        kernel, stride, padding = (7, 2, 3) if pooled else (config.patch, config.patch, 0)
        self.conv = nn.Conv2d(config.in_channels, self.width, kernel, stride, padding, bias=config.bias)
        self.norm = _norm(config, self.width)
        self.activation = _activation(config) if config.activations_per_block == 3 else nn.Identity()
        self.pool = nn.MaxPool2d(3, 2, 1) if pooled and config.patch == 4 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, w, H / patch, W / patch)
        return self.pool(self.activation(self.norm(self.conv(x))))


def as_convnext(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the roadmap's last step under the names and in the shapes of `models.convnext.ConvNeXt`."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^stem\.conv\.", "stem.layers.0.", name)
        name = name.replace(".branch.spatial_norm.", ".norm.").replace(".branch.", ".")
        pointwise = name.endswith(("expand.weight", "project.weight"))
        renamed[name] = tensor[:, :, 0, 0] if pointwise else tensor  # a 1x1 convolution is a Linear over channels
    return renamed


def _width_out(config: RoadmapConfig, width: int) -> int:
    return 4 * width if config.bottleneck == "narrow" else width


def _spatial(config: RoadmapConfig, width: int, stride: int) -> nn.Conv2d:
    groups = width if config.depthwise else 1
    padding = config.kernel // 2
    return nn.Conv2d(width, width, config.kernel, stride, padding, groups=groups, bias=config.bias)


def _norm(config: RoadmapConfig, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if config.norm == "batch" else ChannelNorm(width)


def _activation(config: RoadmapConfig) -> nn.Module:
    return nn.ReLU() if config.activation == "relu" else nn.GELU()
