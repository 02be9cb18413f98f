"""The networks as values: what `models.build` makes of each is decided here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convnext.config.base import Count, Decay, Frozen, Positive, Whole, about

Family = about("name", "kind of network; decides which other fields of model there are")
Name = about("name", "name of the network, as `convnext models` lists it")
Depths = Annotated[tuple[Whole, ...], about("blocks", "blocks of each stage; one stage makes the network isotropic")]
Widths = Annotated[tuple[Whole, ...], about("channels", "channels C of each stage")]
LayerScale = Annotated[
    float | None, about("factor", "initial gamma of every block's branch; none: the blocks have no gamma")
]
DropPath = Annotated[
    Decay,
    about("probability", "stochastic depth of the last block; rises linearly from 0 at the first"),
]
Channels = Annotated[Whole, about("channels", "channels of an image: 3 for colour, 1 for grey")]
Classes = Annotated[Count, about("classes", "outputs of the head; 0: no head, the network returns pooled features")]
GridSide = Annotated[
    Annotated[int, Field(ge=4)] | None,
    about("px", "side of the images that learnt positions or filters are made for; none: the published one"),
]


class ConvNeXtConfig(Frozen):
    """One ConvNeXt: V1 (arXiv 2201.03545), V2 with GRN (arXiv 2301.00808), or isotropic (2201.03545, section 3.3)."""

    family: Annotated[Literal["convnext"], Family] = "convnext"
    name: Annotated[str, Name] = "custom"
    depths: Depths
    widths: Widths
    patch: Annotated[Whole, about("px", "input pixels per position of stage 0")] = 4
    stem: Annotated[
        Literal["patch", "overlap", "pair"],
        about(
            "name",
            "first layer: patches that do not overlap; 3x3 convolutions of stride 2 with norms between them, for small "
            "data; or a pair of them without a norm, as timm's '_ols' networks have it",
        ),
    ] = "patch"
    stem_width: Annotated[
        Whole | None, about("channels", "pair: between the two convolutions; none: as many as stage 0 has")
    ] = None
    stem_activation: Annotated[bool, about("yes or no", "pair: GELU between the two convolutions")] = False
    stem_norm: Annotated[bool, about("yes or no", "a norm behind the stem; isotropic networks have none")] = True
    kernel: Annotated[Whole, about("positions", "side of the depthwise convolution")] = 7
    antialias: Annotated[
        bool, about("yes or no", "a map is blurred before a downsampling layer halves it (arXiv 1904.11486)")
    ] = False
    norm: Annotated[
        Literal["layer", "rms", "simple"],
        about(
            "name",
            "every norm: LayerNorm, or one that only scales: RMSNorm (arXiv 1910.07467), or timm's SimpleNorm, which "
            "divides by the standard deviation",
        ),
    ] = "layer"
    eps: Annotated[Positive, about("variance", "added under the root of every norm")] = 1e-6
    layer_scale: LayerScale = 1e-6
    grn: Annotated[bool, about("yes or no", "global response normalization after GELU, as V2 has it")] = False
    drop_path: DropPath = 0.0
    norm_first: Annotated[bool, about("yes or no", "the last norm comes before the mean over space, not behind it")] = (
        False
    )
    head_width: Annotated[
        Count, about("channels", "hidden layer with GELU between the last norm and the head; 0: none")
    ] = 0
    head_scale: Annotated[float, about("factor", "factor on the head's initial weight and bias")] = 1.0
    in_channels: Channels = 3
    classes: Classes = 1000
    checkpointing: Annotated[
        bool, about("yes or no", "compute blocks again in the backward pass: less memory, same values")
    ] = False

    @model_validator(mode="after")
    def _fits(self) -> "ConvNeXtConfig":
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths {self.depths} and widths {self.widths} name different numbers of stages")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even: padding cannot keep the size. Take {self.kernel + 1}")
        if self.stem == "overlap" and self.patch not in (2, 4, 8):
            raise ValueError(f"an overlap stem halves the image once or more: patch = {self.patch} is not 2, 4 or 8")
        if self.stem == "pair" and self.patch != 4:
            raise ValueError(f"a pair stem halves the image twice: patch = {self.patch} is not 4")
        if self.stem != "pair" and (self.stem_width is not None or self.stem_activation):
            name = "stem_activation" if self.stem_width is None else "stem_width"
            raise ValueError(f"{name} is for stem = pair, and the stem is '{self.stem}'. Leave it out")
        return self


class TimmConfig(Frozen):
    """A baseline network from timm, trained and evaluated by the same code."""

    family: Annotated[Literal["timm"], Family] = "timm"
    name: Annotated[str, about("name", "a name that timm knows, e.g. 'resnet18'")]
    size_px: GridSide = None
    drop_path: DropPath = 0.0
    in_channels: Channels = 3
    classes: Classes = 1000


class RoadmapConfig(Frozen):
    """One network between ResNet and ConvNeXt: a field for each decision of arXiv 2201.03545, section 2.

    The defaults are ResNet-50; `recipes.roadmap` changes one decision after the other. Any combination can be built.
    """

    family: Annotated[Literal["roadmap"], Family] = "roadmap"
    name: Annotated[str, Name] = "custom"
    depths: Depths = (3, 4, 6, 3)
    width: Annotated[Whole, about("channels", "w; stage s works with w * 2^s channels")] = 64
    stem: Annotated[
        Literal["conv7", "patch"],
        about("name", "7x7 of stride 2 and a max pool, or patches that do not overlap"),
    ] = "conv7"
    patch: Annotated[
        Literal[2, 4], about("px", "input pixels per position of stage 0, with either stem; 2 is for small images")
    ] = 4
    depthwise: Annotated[bool, about("yes or no", "the spatial convolution sees one channel at a time")] = False
    bottleneck: Annotated[
        Literal["narrow", "inverted"],
        about("name", "a block's output is 4x wider, or 4x narrower, than its inside"),
    ] = "narrow"
    order: Annotated[
        Literal["spatial_second", "spatial_first"],
        about("name", "place of the spatial convolution among the block's three"),
    ] = "spatial_second"
    kernel: Annotated[Whole, about("positions", "side of the spatial convolution")] = 3
    activation: Annotated[Literal["relu", "gelu"], about("name", "activation of blocks and stem")] = "relu"
    activations_per_block: Annotated[
        Literal[3, 1], about("layers", "1: only behind the block's second convolution, and none in the stem")
    ] = 3
    norms_per_block: Annotated[Literal[3, 1], about("layers", "1: only behind the spatial convolution")] = 3
    norm: Annotated[Literal["batch", "layer"], about("name", "batch norm or LayerNorm")] = "batch"
    downsample: Annotated[
        Literal["block", "layer"], about("name", "a stage's first block halves the map, or a layer of its own does")
    ] = "block"
    bias: Annotated[bool, about("yes or no", "convolutions have a bias; the head always has one")] = False
    layer_scale: LayerScale = None
    drop_path: DropPath = 0.0
    in_channels: Channels = 3
    classes: Classes = 1000

    @model_validator(mode="after")
    def _fits(self) -> "RoadmapConfig":
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even: padding cannot keep the size. Take {self.kernel + 1}")
        if not self.depths:
            raise ValueError("depths = () names no stage: give the blocks of each, e.g. 3, 3, 9, 3")
        return self


class GFNetConfig(Frozen):
    """A global filter network (arXiv 2107.00645): of one stage, or of several with downsampling layers between them."""

    family: Annotated[Literal["gfnet"], Family] = "gfnet"
    name: Annotated[str, Name] = "custom"
    depths: Depths
    widths: Widths
    patch: Annotated[Whole, about("px", "input pixels per position of stage 0")] = 16
    size_px: GridSide = None
    layer_scale: LayerScale = None
    drop_path: DropPath = 0.0
    in_channels: Channels = 3
    classes: Classes = 1000

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
