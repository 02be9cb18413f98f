"""Every published ConvNeXt as a value.

V1 tiny to xlarge and isotropic: arXiv 2201.03545, section 3 and appendix. V2: arXiv 2301.00808, appendix.
V1 atto to nano keep the widths of V2's small models, with V1's block (layer scale, no GRN).
VARIANTS are those of timm's own, under its names; 'xxlarge' is the image tower of CLIP (arXiv 2212.07143).
"""

from typing import Any

from convnext.config import ConvNeXtConfig, ModelConfig, TimmConfig
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.baselines import BASELINES
from convnext.recipes.roadmap import REGIMES, chosen_steps

_SHAPES = {  # name: (depths, width of stage 0); widths double from stage to stage
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
    "huge": ((3, 3, 27, 3), 352),
}
_V1 = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")
_V2 = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
_ISOTROPIC = {"small": (18, 384, None), "base": (18, 768, None), "large": (36, 1024, 1e-6)}


def _staged(prefix: str, size: str, *, layer_scale: float | None, grn: bool) -> ConvNeXtConfig:
    depths, width = _SHAPES[size]
    widths = tuple(width * 2**stage for stage in range(4))
    return ConvNeXtConfig(name=prefix + size, depths=depths, widths=widths, layer_scale=layer_scale, grn=grn)


def _isotropic(size: str) -> ConvNeXtConfig:
    depth, width, layer_scale = _ISOTROPIC[size]
    return ConvNeXtConfig(
        name=f"iso_{size}", depths=(depth,), widths=(width,), patch=16, stem_norm=False, layer_scale=layer_scale
    )


ARCHITECTURES: dict[str, ConvNeXtConfig] = {
    **{size: _staged("", size, layer_scale=1e-6, grn=False) for size in _V1},
    **{f"v2_{size}": _staged("v2_", size, layer_scale=None, grn=True) for size in _V2},
    **{f"iso_{size}": _isotropic(size) for size in _ISOTROPIC},
}


def _variant(name: str, size: str, **fields: Any) -> ConvNeXtConfig:
    return ConvNeXtConfig.model_validate(ARCHITECTURES[size].model_dump() | {"name": name} | fields)


_ZEPTO: dict[str, Any] = {"depths": (2, 2, 4, 2), "widths": (32, 64, 128, 256), "norm": "simple"}
VARIANTS: dict[str, ConvNeXtConfig] = {
    each.name: each
    for each in (
        _variant("zepto_rms", "atto", **_ZEPTO),
        _variant("zepto_rms_ols", "atto", **_ZEPTO, stem="pair", stem_activation=True),
        _variant("atto_rms", "atto", norm="rms"),
        _variant("atto_ols", "atto", stem="pair", stem_width=24),
        _variant("femto_ols", "femto", stem="pair", stem_width=24),
        _variant("pico_ols", "pico", stem="pair", stem_width=32),
        _variant("nano_ols", "nano", stem="pair"),
        _variant("tiny_hnf", "tiny", norm_first=True),
        _variant("large_mlp", "large", head_width=1536),
        _variant("xxlarge", "xlarge", depths=(3, 4, 30, 3), widths=(384, 768, 1536, 3072), eps=1e-5),
        _variant("v2_small", "small", layer_scale=None, grn=True),
    )
}


def architecture(name: str) -> ModelConfig:
    """The network called `name`: of ARCHITECTURES, VARIANTS, BASELINES, 'roadmap_t:STEP', 'roadmap_b:STEP', 'timm:NAME'.

    Raises ConvNeXtError for an unknown name, with the nearest valid one.
    """
    if name.startswith("timm:"):
        plain, tag, _ = name.partition(".")
        if tag:
            raise ConvNeXtError(
                f"'{name}' names weights of timm, and a network starts from random ones. Give --weights {name} to start "
                f"from them (with --model {plain} where it is no ConvNeXt), or --model {plain} to start from random ones."
            )
        return TimmConfig(name=name.removeprefix("timm:"))
    for regime in REGIMES:
        if name.startswith(f"roadmap_{regime}:"):
            return chosen_steps(regime, (name.partition(":")[2],))[0].config
    plain = name.lower().removeprefix("convnext_").removeprefix("convnext-").replace("-", "_")
    plain = plain.replace("convnextv2_", "v2_").replace("isotropic_", "iso_")
    if plain in BASELINES:
        return BASELINES[plain].config
    named = ARCHITECTURES | VARIANTS
    if plain not in named:
        raise ConvNeXtError(
            f"No model is called '{name}'.{nearest(plain, [*named, *BASELINES])} `convnext models` lists them "
            "all; 'timm:NAME' takes any other from timm."
        )
    return named[plain]
