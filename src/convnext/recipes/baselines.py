"""The networks that ConvNeXt is measured against, by plain names: their values, and the image size they are known at.

Most come from timm; global filter networks (arXiv 2107.00645) are in no library, so they are written here.
"""

from dataclasses import dataclass

from convnext.config import GFNetConfig, Recipe, TimmConfig, override

_SWIN, _DEIT, _VIT = "arXiv 2103.14030", "arXiv 2012.12877", "arXiv 2010.11929"
_RESNET, _RESNEXT, _GFNET = "arXiv 1512.03385", "arXiv 1611.05431", "arXiv 2107.00645"


@dataclass(frozen=True)
class Published:
    """A network as its authors describe it."""

    config: TimmConfig | GFNetConfig
    size_px: int  # side of the images that its published numbers are for
    source: str


_TIMM = {  # our name: (timm's name, px, source)
    "swin_tiny": ("swin_tiny_patch4_window7_224", 224, _SWIN),
    "swin_small": ("swin_small_patch4_window7_224", 224, _SWIN),
    "swin_base": ("swin_base_patch4_window7_224", 224, _SWIN),
    "swin_large": ("swin_large_patch4_window7_224", 224, _SWIN),
    "swin_base_384": ("swin_base_patch4_window12_384", 384, f"{_SWIN}; windows of 12"),
    "swin_large_384": ("swin_large_patch4_window12_384", 384, f"{_SWIN}; windows of 12"),
    "deit_small": ("deit_small_patch16_224", 224, f"{_DEIT}; not distilled"),
    "deit_base": ("deit_base_patch16_224", 224, f"{_DEIT}; not distilled"),
    "vit_small": ("vit_small_patch16_224", 224, f"{_VIT} at the width of {_DEIT}"),
    "vit_base": ("vit_base_patch16_224", 224, _VIT),
    "vit_large": ("vit_large_patch16_224", 224, _VIT),
    "resnet50": ("resnet50", 224, f"{_RESNET}; stride in the 3x3 convolution"),
    "resnet101": ("resnet101", 224, f"{_RESNET}; stride in the 3x3 convolution"),
    "resnet152": ("resnet152", 224, f"{_RESNET}; stride in the 3x3 convolution"),
    "resnet200": ("resnet200", 224, "arXiv 1603.05027, depths 3, 24, 36, 3; activation behind the addition"),
    "resnext101_32x4d": ("resnext101_32x4d", 224, _RESNEXT),
    "resnext101_64x4d": ("resnext101_64x4d", 224, _RESNEXT),
    "mobilenet_v2": ("mobilenetv2_100", 224, "arXiv 1801.04381, width 1.0"),
    "convmixer": ("convmixer_1536_20", 224, "arXiv 2201.09792, ConvMixer-1536/20: kernel 9, patch 7"),
    "efficientnet_b7": ("efficientnet_b7", 600, "arXiv 1905.11946"),
    "efficientnetv2_l": ("efficientnetv2_l", 480, "arXiv 2104.00298"),
    "regnety_16g": ("regnety_160", 224, "arXiv 2003.13678, RegNetY-16GF"),
}
_FILTERS = {  # name: (depths, widths, patch, layer scale)
    "gfnet_tiny": ((12,), (256,), 16, None),
    "gfnet_xsmall": ((12,), (384,), 16, None),
    "gfnet_small": ((19,), (384,), 16, None),
    "gfnet_base": ((19,), (512,), 16, None),
    "gfnet_h_tiny": ((3, 3, 10, 3), (64, 128, 256, 512), 4, 1e-3),
    "gfnet_h_small": ((3, 3, 10, 3), (96, 192, 384, 768), 4, 1e-5),
    "gfnet_h_base": ((3, 3, 27, 3), (96, 192, 384, 768), 4, 1e-6),
}


def _gfnet(name: str) -> Published:
    depths, widths, patch, layer_scale = _FILTERS[name]
    config = GFNetConfig(name=name, depths=depths, widths=widths, patch=patch, layer_scale=layer_scale)
    return Published(config, 224, _GFNET)


BASELINES: dict[str, Published] = {
    **{name: Published(TimmConfig(name=timm), px, source) for name, (timm, px, source) in _TIMM.items()},
    **{name: _gfnet(name) for name in _FILTERS},
}


def plain_name(name: str) -> str:
    """Our name of the network that timm calls `name`; any other name as it is."""
    return next((ours for ours, (theirs, _, _) in _TIMM.items() if theirs == name), name)


def with_grid(recipe: Recipe) -> Recipe:
    """`recipe`, its network built for the size it trains at: patches with learnt places (ViT, Swin, GFNet) need that.

    A `model.size_px` that is set already stays, and a network without a grid does not look at it.
    """
    if getattr(recipe.model, "size_px", recipe.input.side_px) is not None:
        return recipe
    return override(recipe, {"model.size_px": recipe.input.side_px})
