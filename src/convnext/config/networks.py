"""The networks as values: what `models.build` makes of each is decided here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convnext.config.base import Frozen


class ConvNeXtConfig(Frozen):
    """One ConvNeXt: V1 (arXiv 2201.03545), V2 with GRN (arXiv 2301.00808), or isotropic (2201.03545, section 3.3)."""

    family: Literal["convnext"] = "convnext"
    name: str = "custom"
    depths: tuple[Annotated[int, Field(ge=1)], ...]  # blocks in each stage; one stage makes it isotropic
    widths: tuple[Annotated[int, Field(ge=1)], ...]  # channels C of each stage
    patch: Annotated[int, Field(ge=1)] = 4  # input pixels per position of stage 0
    stem: Literal["patch", "overlap"] = "patch"  # 'overlap': 3x3 convolutions of stride 2, for small data
    stem_norm: bool = True  # isotropic networks have none
    kernel: Annotated[int, Field(ge=1)] = 7
    layer_scale: float | None = 1e-6  # initial gamma; None: the block has no gamma
    grn: bool = False  # global response normalisation after GELU (V2)
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # rate of the last block; rises linearly from 0 at the first
    head_scale: float = 1.0  # factor on the head's initial weight and bias
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000  # 0: no head, the model returns its normed, pooled features
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, same values

    @model_validator(mode="after")
    def _fits(self) -> "ConvNeXtConfig":
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths {self.depths} and widths {self.widths} name different numbers of stages")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even: padding cannot keep the size. Take {self.kernel + 1}")
        if self.stem == "overlap" and self.patch not in (2, 4, 8):
            raise ValueError(f"an overlap stem halves the image once or more: patch = {self.patch} is not 2, 4 or 8")
        return self


class TimmConfig(Frozen):
    """A baseline network from timm, trained and evaluated by the same code."""

    family: Literal["timm"] = "timm"
    name: str  # a name that timm knows, e.g. 'resnet18'
    size_px: Annotated[int, Field(ge=4)] | None = None  # side that a fixed grid (ViT, Swin) is built for; None: timm's
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000


class RoadmapConfig(Frozen):
    """One network between ResNet and ConvNeXt: a field for each decision of arXiv 2201.03545, section 2.

    The defaults are ResNet-50; `recipes.roadmap` changes one decision after the other. Any combination can be built.
    """

    family: Literal["roadmap"] = "roadmap"
    name: str = "custom"
    depths: tuple[Annotated[int, Field(ge=1)], ...] = (3, 4, 6, 3)  # blocks in each stage
    width: Annotated[int, Field(ge=1)] = 64  # w; stage s works with w * 2^s channels
    stem: Literal["conv7", "patch"] = "conv7"  # 7x7 of stride 2 and a max pool, or patches that do not overlap
    patch: Literal[2, 4] = 4  # input pixels per position of stage 0, with either stem; 2 is for small images
    depthwise: bool = False  # the spatial convolution sees one channel at a time
    bottleneck: Literal["narrow", "inverted"] = (
        "narrow"  # a block's output is 4x wider, or 4x narrower, than its inside
    )
    order: Literal["spatial_second", "spatial_first"] = "spatial_second"  # place among the block's three convolutions
    kernel: Annotated[int, Field(ge=1)] = 3
    activation: Literal["relu", "gelu"] = "relu"
    activations_per_block: Literal[3, 1] = 3  # 1: only behind the block's second convolution, and none in the stem
    norms_per_block: Literal[3, 1] = 3  # 1: only behind the spatial convolution
    norm: Literal["batch", "layer"] = "batch"
    downsample: Literal["block", "layer"] = "block"  # a stage's first block halves the map, or a layer of its own does
    bias: bool = False  # of convolutions; the head always has one
    layer_scale: float | None = None  # initial gamma; None: the block has no gamma
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # rate of the last block; rises linearly from 0 at the first
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000  # 0: no head, the model returns its pooled features

    @model_validator(mode="after")
    def _fits(self) -> "RoadmapConfig":
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even: padding cannot keep the size. Take {self.kernel + 1}")
        if not self.depths:
            raise ValueError("depths = () names no stage: give the blocks of each, e.g. 3, 3, 9, 3")
        return self


class GFNetConfig(Frozen):
    """A global filter network (arXiv 2107.00645): of one stage, or of several with downsampling layers between them."""

    family: Literal["gfnet"] = "gfnet"
    name: str = "custom"
    depths: tuple[Annotated[int, Field(ge=1)], ...]  # blocks in each stage
    widths: tuple[Annotated[int, Field(ge=1)], ...]  # channels C of each stage
    patch: Annotated[int, Field(ge=1)] = 16  # input pixels per position of stage 0
    size_px: Annotated[int, Field(ge=4)] | None = None  # side of the images that the filters are made for; None: 224
    layer_scale: float | None = None  # initial gamma; None: the block has no gamma
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # rate of the last block; rises linearly from 0 at the first
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000  # 0: no head, the model returns its normed, pooled features

    @model_validator(mode="after")
    def _fits(self) -> "GFNetConfig":
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ValueError(
                f"depths {self.depths} and widths {self.widths} must name one or more stages, as many each"
            )
        smallest = self.patch * 2 ** (len(self.depths) - 1)
        if self.size_px is not None and self.size_px < smallest:
            raise ValueError(f"size_px = {self.size_px} leaves the last stage no position: take {smallest} or more")
        return self


ModelConfig = Annotated[ConvNeXtConfig | TimmConfig | RoadmapConfig | GFNetConfig, Field(discriminator="family")]
