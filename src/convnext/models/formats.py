"""How others name and shape the tensors of a ConvNeXt: one literal table for each format.

Left our module or parameter, right theirs; '.weight' and '.bias' follow both. {s} is the stage, {b} the block, and
{2s}, {2s+1} are places in a flat list of stages. The first row that matches wins. A new format is one more row in
FORMATS. Tensors of a dense backbone (detection, segmentation) have a norm after each stage, 'norms.{s}', instead of the
final norm and the head.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

from torch import Tensor

from convnext.errors import CheckpointError

OFFICIAL = {  # facebookresearch/ConvNeXt and ConvNeXt-V2
    "stem.layers.0": "downsample_layers.0.0",
    "stem.norm": "downsample_layers.0.1",
    "stages.{s}.downsample.norm": "downsample_layers.{s}.0",
    "stages.{s}.downsample.conv": "downsample_layers.{s}.1",
    "stages.{s}.blocks.{b}.spatial": "stages.{s}.{b}.dwconv",
    "stages.{s}.blocks.{b}.norm": "stages.{s}.{b}.norm",
    "stages.{s}.blocks.{b}.expand": "stages.{s}.{b}.pwconv1",
    "stages.{s}.blocks.{b}.grn.weight": "stages.{s}.{b}.grn.gamma",
    "stages.{s}.blocks.{b}.grn.bias": "stages.{s}.{b}.grn.beta",
    "stages.{s}.blocks.{b}.project": "stages.{s}.{b}.pwconv2",
    "stages.{s}.blocks.{b}.gamma": "stages.{s}.{b}.gamma",
    "norm": "norm",
    "head": "head",
    "norms.{s}": "norm{s}",
}
OFFICIAL_ISOTROPIC = {  # one stage, no norm after the stem
    "stem.layers.0": "stem",
    "stages.0.blocks.{b}.spatial": "blocks.{b}.dwconv",
    "stages.0.blocks.{b}.norm": "blocks.{b}.norm",
    "stages.0.blocks.{b}.expand": "blocks.{b}.pwconv1",
    "stages.0.blocks.{b}.project": "blocks.{b}.pwconv2",
    "stages.0.blocks.{b}.gamma": "blocks.{b}.gamma",
    "norm": "norm",
    "head": "head",
}
TIMM = {
    "stem.layers.0": "stem.0",
    "stem.norm": "stem.1",
    "stages.{s}.downsample.norm": "stages.{s}.downsample.0",
    "stages.{s}.downsample.conv": "stages.{s}.downsample.1",
    "stages.{s}.blocks.{b}.spatial": "stages.{s}.blocks.{b}.conv_dw",
    "stages.{s}.blocks.{b}.norm": "stages.{s}.blocks.{b}.norm",
    "stages.{s}.blocks.{b}.expand": "stages.{s}.blocks.{b}.mlp.fc1",
    "stages.{s}.blocks.{b}.grn": "stages.{s}.blocks.{b}.mlp.grn",
    "stages.{s}.blocks.{b}.project": "stages.{s}.blocks.{b}.mlp.fc2",
    "stages.{s}.blocks.{b}.gamma": "stages.{s}.blocks.{b}.gamma",
    "norm_maps": "norm_pre",  # the last norm where it comes before the mean over space
    "norm": "head.norm",
    "hidden": "head.pre_logits.fc",
    "head": "head.fc",
}
TIMM_OLS = {
    "stem.layers.0": "stem.0",
    "stem.layers.1": "stem.1",
    "stem.norm": "stem.2",
}  # '_ols': a pair of convolutions
TIMM_OLS_ACT = {"stem.layers.0": "stem.0", "stem.layers.2": "stem.2", "stem.norm": "stem.3"}  # with GELU between them
TORCHVISION = {  # V1 only; 'features' lists stem, stage, downsampling layer, stage, ...
    "stem.layers.0": "features.0.0",
    "stem.norm": "features.0.1",
    "stages.{s}.downsample.norm": "features.{2s}.0",
    "stages.{s}.downsample.conv": "features.{2s}.1",
    "stages.{s}.blocks.{b}.spatial": "features.{2s+1}.{b}.block.0",
    "stages.{s}.blocks.{b}.norm": "features.{2s+1}.{b}.block.2",
    "stages.{s}.blocks.{b}.expand": "features.{2s+1}.{b}.block.3",
    "stages.{s}.blocks.{b}.project": "features.{2s+1}.{b}.block.5",
    "stages.{s}.blocks.{b}.gamma": "features.{2s+1}.{b}.layer_scale",
    "norm": "classifier.0",
    "head": "classifier.2",
}
TRANSFORMERS = {  # V1; V2 puts grn in the place of the layer scale
    "stem.layers.0": "convnext.embeddings.patch_embeddings",
    "stem.norm": "convnext.embeddings.layernorm",
    "stages.{s}.downsample.norm": "convnext.encoder.stages.{s}.downsampling_layer.0",
    "stages.{s}.downsample.conv": "convnext.encoder.stages.{s}.downsampling_layer.1",
    "stages.{s}.blocks.{b}.spatial": "convnext.encoder.stages.{s}.layers.{b}.dwconv",
    "stages.{s}.blocks.{b}.norm": "convnext.encoder.stages.{s}.layers.{b}.layernorm",
    "stages.{s}.blocks.{b}.expand": "convnext.encoder.stages.{s}.layers.{b}.pwconv1",
    "stages.{s}.blocks.{b}.project": "convnext.encoder.stages.{s}.layers.{b}.pwconv2",
    "stages.{s}.blocks.{b}.gamma": "convnext.encoder.stages.{s}.layers.{b}.layer_scale_parameter",
    "norm": "convnext.layernorm",
    "head": "classifier",
}
TRANSFORMERS_V2 = {
    **{
        ours: theirs.replace("convnext.", "convnextv2.") for ours, theirs in TRANSFORMERS.items() if "gamma" not in ours
    },
    "stages.{s}.blocks.{b}.grn": "convnextv2.encoder.stages.{s}.layers.{b}.grn",
}
_NORMS = {"norms.{s}": "hidden_states_norms.stage{s+1}"}  # of ConvNextBackbone
TRANSFORMERS_BARE, TRANSFORMERS_V2_BARE = (  # ConvNextModel and ConvNextBackbone: the network without its classifier
    {ours: theirs.removeprefix(prefix) for ours, theirs in table.items() if ours != "head"} | _NORMS
    for table, prefix in ((TRANSFORMERS, "convnext."), (TRANSFORMERS_V2, "convnextv2."))
)
DINOV3_BARE = {  # DINOv3ConvNextModel, as its files have been released; the stem is the first stage's downsampling
    "stem.layers.0": "stages.0.downsample_layers.0",
    "stem.norm": "stages.0.downsample_layers.1",
    "stages.{s}.downsample.norm": "stages.{s}.downsample_layers.0",
    "stages.{s}.downsample.conv": "stages.{s}.downsample_layers.1",
    "stages.{s}.blocks.{b}.spatial": "stages.{s}.layers.{b}.depthwise_conv",
    "stages.{s}.blocks.{b}.norm": "stages.{s}.layers.{b}.layer_norm",
    "stages.{s}.blocks.{b}.expand": "stages.{s}.layers.{b}.pointwise_conv1",
    "stages.{s}.blocks.{b}.project": "stages.{s}.layers.{b}.pointwise_conv2",
    "stages.{s}.blocks.{b}.gamma": "stages.{s}.layers.{b}.gamma",
    "norm": "layer_norm",
}
DINOV3 = {ours: theirs if ours == "norm" else f"model.{theirs}" for ours, theirs in DINOV3_BARE.items()}  # since 5.0
MMPRETRAIN_DENSE = {  # open-mmlab/mmpretrain, whose backbone mmdetection 3 and mmsegmentation 1 build on
    ours: theirs.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv")
    for ours, theirs in OFFICIAL.items()
    if ours not in ("norm", "head")
}
MMPRETRAIN = {
    **{ours: f"backbone.{theirs}" for ours, theirs in MMPRETRAIN_DENSE.items() if ours != "norms.{s}"},
    "norm": "backbone.norm3",
    "head": "head.fc",
}
KERAS = {  # keras.applications, in PyTorch's layout: see keras_layout.py
    "stem.layers.0": "stem_conv",
    "stem.norm": "stem_layernorm",
    "stages.{s}.downsample.norm": "downsampling_layernorm_{s-1}",
    "stages.{s}.downsample.conv": "downsampling_conv_{s-1}",
    "stages.{s}.blocks.{b}.spatial": "stage_{s}_block_{b}_depthwise_conv",
    "stages.{s}.blocks.{b}.norm": "stage_{s}_block_{b}_layernorm",
    "stages.{s}.blocks.{b}.expand": "stage_{s}_block_{b}_pointwise_conv_1",
    "stages.{s}.blocks.{b}.project": "stage_{s}_block_{b}_pointwise_conv_2",
    "stages.{s}.blocks.{b}.gamma": "stage_{s}_block_{b}_layer_scale",
    "norm": "head_layernorm",
    "head": "head_dense",
}
CONVNEXT = {"stem.layers.{i}": "stem.layers.{i}", **{ours: ours for ours in (*OFFICIAL, "norm_maps", "hidden")}}

AXES = {  # of our own tensors, by the ends of their names
    **{"gamma": 1, "grn.weight": 1, "grn.bias": 1, "expand.weight": 2, "project.weight": 2},
    **{"stem.norm.weight": 1, "stem.layers.0.weight": 4},
}


@dataclass(frozen=True)
class Format:
    """One way to write a ConvNeXt down."""

    name: str
    names: dict[str, str]
    ones: dict[str, tuple[int, int]] = field(default_factory=dict)  # axes of size 1 that theirs has before, after ours


_FLAT_GRN = {"grn.weight": (3, 0), "grn.bias": (3, 0)}  # (1, 1, 1, E)
_CONVOLUTIONS = {"expand.weight": (0, 2), "project.weight": (0, 2)}  # (E, C, 1, 1)
FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("convnext", CONVNEXT),
        Format("official", OFFICIAL, _FLAT_GRN),
        Format("official_isotropic", OFFICIAL_ISOTROPIC),
        Format("timm", TIMM),
        Format("timm_conv", TIMM, _CONVOLUTIONS),  # atto to nano, whose linears timm writes as 1x1 convolutions
        Format("timm_ols", TIMM | TIMM_OLS),
        Format("timm_ols_conv", TIMM | TIMM_OLS, _CONVOLUTIONS),
        Format("timm_ols_act", TIMM | TIMM_OLS_ACT),
        Format("timm_ols_act_conv", TIMM | TIMM_OLS_ACT, _CONVOLUTIONS),
        Format("torchvision", TORCHVISION, {"gamma": (0, 2)}),  # (C, 1, 1)
        Format("transformers", TRANSFORMERS),
        Format("transformers_v2", TRANSFORMERS_V2, _FLAT_GRN),
        Format("transformers_bare", TRANSFORMERS_BARE),
        Format("transformers_v2_bare", TRANSFORMERS_V2_BARE, _FLAT_GRN),
        Format("transformers_dinov3", DINOV3),
        Format("transformers_dinov3_bare", DINOV3_BARE),
        Format("mmpretrain", MMPRETRAIN),
        Format("mmpretrain_dense", MMPRETRAIN_DENSE),
        Format("keras", KERAS),
    )
}


def recognise(state: Mapping[str, Tensor]) -> str:
    """Name of the format in FORMATS that most tensors of `state` are written in.

    Raises CheckpointError where fewer than half of them belong to any.
    """
    best, score = best_format(state)
    if not state or 2 * score < len(state):
        raise CheckpointError(
            f"its {len(state)} tensors ({', '.join(list(state)[:3])}, ...) are not named as in any ConvNeXt. "
            "Give those of the official code, timm, torchvision, transformers, open_clip, mmpretrain, Keras or this package."
        )
    return best


def best_format(state: Mapping[str, Tensor]) -> tuple[str, int]:
    """The format that most tensors of `state` are written in, and how many those are."""
    scores = {name: sum(_fits(form, key, value) for key, value in state.items()) for name, form in FORMATS.items()}
    best = max(scores, key=lambda name: scores[name])  # 'convnext' is first, so it wins a tie
    return best, scores[best]


def first_tensors() -> set[str]:
    """What the first convolution is called in any of the formats: every ConvNeXt has it."""
    return {str(translate("stem.layers.0.weight", form, to_ours=False)) for form in FORMATS.values()}


def our_names(state: Mapping[str, Tensor], form: Format) -> dict[str, Tensor]:
    """`state` under our names and in our shapes; a tensor that the format does not know keeps its own name."""
    ours = {}
    for key, value in state.items():
        name = translate(key, form, to_ours=True)
        ours[name or key] = _without_ones(value, form, name) if name else value
    return ours


def their_names(state: Mapping[str, Tensor], form: Format) -> dict[str, Tensor]:
    """Our `state` under their names and in their shapes. Raises CheckpointError for a tensor without a place there."""
    theirs = {}
    for key, value in state.items():
        name = translate(key, form, to_ours=False)
        if name is None:
            raise CheckpointError(
                f"The format '{form.name}' has no place for '{key}'. Take 'convnext', which holds all."
            )
        before, after = form.ones.get(_leaf(key), (0, 0))
        theirs[name] = value.reshape((1,) * before + tuple(value.shape) + (1,) * after)
    return theirs


def translate(key: str, form: Format, *, to_ours: bool) -> str | None:
    """One tensor's name in the other language, or None where the format has no such tensor."""
    return _translated(key, form.name, to_ours)


@lru_cache(maxsize=1 << 16)
def _translated(key: str, format_name: str, to_ours: bool) -> str | None:
    for pattern, tokens, target in _rows(format_name, to_ours):
        match = pattern.fullmatch(key)
        numbers = match and _numbers(tokens, match.groups())
        if match and numbers is not None:
            return _fill(target, numbers) + match["suffix"]
    return None


_TOKENS = {  # each is: letter, factor, offset
    "{s}": ("s", 1, 0),
    "{s+1}": ("s", 1, 1),
    "{s-1}": ("s", 1, -1),
    "{2s}": ("s", 2, 0),
    "{2s+1}": ("s", 2, 1),
    "{b}": ("b", 1, 0),
    "{i}": ("i", 1, 0),
}
_TOKEN = re.compile("|".join(re.escape(token) for token in _TOKENS))


@cache
def _rows(name: str, to_ours: bool) -> list[tuple[re.Pattern[str], list[str], str]]:
    """The format's table as patterns: (regular expression of the source, its tokens in order, target template)."""
    rows = []
    for ours, theirs in FORMATS[name].names.items():
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        digits = r"(\d+)".join(re.escape(text) for text in _TOKEN.split(source))
        rows.append((re.compile(digits + r"(?P<suffix>(\.weight|\.bias)?)"), _TOKEN.findall(source), target))
    return rows


def _numbers(tokens: list[str], groups: tuple[str | None, ...]) -> dict[str, int] | None:
    """('{2s+1}', '{b}'), ('3', '0') -> {'s': 1, 'b': 0}; None where a number does not fit its token."""
    numbers = {}
    for token, text in zip(tokens, groups, strict=False):  # the suffix comes last
        letter, factor, offset = _TOKENS[token]
        numbers[letter], rest = divmod(int(text or 0) - offset, factor)
        if rest or numbers[letter] < 0:
            return None
    return numbers


def _fill(template: str, numbers: dict[str, int]) -> str:
    def fill(match: re.Match[str]) -> str:
        letter, factor, offset = _TOKENS[match[0]]
        return str(factor * numbers[letter] + offset)

    return _TOKEN.sub(fill, template)


def _leaf(key: str) -> str:
    return next((leaf for leaf in AXES if f".{key}".endswith(f".{leaf}")), "")


def _fits(form: Format, key: str, value: Tensor) -> bool:
    name = translate(key, form, to_ours=True)
    leaf = _leaf(name or "")
    return name is not None and (not leaf or value.ndim == AXES[leaf] + sum(form.ones.get(leaf, (0, 0))))


def _without_ones(value: Tensor, form: Format, name: str) -> Tensor:
    """`value` less their extra axes; left alone where it has none, so that a wrong shape is reported as it is."""
    before, after = form.ones.get(_leaf(name), (0, 0))
    inner = tuple(value.shape)[before : value.ndim - after]
    ones = (1,) * before + inner + (1,) * after == tuple(value.shape)
    return value.reshape(inner) if before + after and ones and len(inner) == AXES[_leaf(name)] else value
