"""Parameter groups: how deep each parameter sits, and the weight decay and the learning rate that follow.

Weight decay and layer-wise decay as in the code released with arXiv 2201.03545. Works on the parameter names of
ConvNeXt ('stem.', 'stages.s.blocks.b.', 'norm.', 'head.'), because the engine knows no models. In detection and
segmentation they come after 'backbone.'; what lies outside of it counts as head.
"""

import re
from typing import Any

from torch import nn

from convnext.config import OptimConfig
from convnext.errors import ConvNeXtError

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
_STAGE = re.compile(r"stages\.(\d+)\.")
_BACKBONE = re.compile(r"backbone\.(network\.)?")
_HEADS = ("norm.", "norm_maps.", "norms.", "hidden.", "head.")  # 'norms.s': behind stage s, for a dense head


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """Groups of {'params', 'names', 'weight_decay', 'lr_scale'}: one for each depth, with and without weight decay.

    No weight decay for 1-D parameters (norms, layer scale) and for every name that ends in '.bias'.
    lr_scale = layer_decay ** (distance from the head), times backbone_lr in a backbone, whose own norms are new.
    Frozen parameters are left out.
    Raises ConvNeXtError when layer_decay is below 1 and the model does not have ConvNeXt's names.
    """
    every = dict(model.named_parameters())  # frozen ones count as layers too
    scales = dict.fromkeys(every, 1.0)
    if optim.layer_decay < 1:
        scales = layer_scales(list(every), optim.layer_decay, by=optim.decay_by)
    scales = {
        name: scale * optim.backbone_lr if name.startswith("backbone.network.") else scale
        for name, scale in scales.items()
    }
    named = {name: value for name, value in every.items() if value.requires_grad}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, value in named.items():
        plain = value.ndim <= 1 or name.endswith(".bias")
        empty = {
            "params": [],
            "names": [],
            "weight_decay": 0.0 if plain else optim.weight_decay,
            "lr_scale": scales[name],
        }
        group = groups.setdefault((scales[name], plain), empty)
        group["params"].append(value)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def layer_scales(names: list[str], decay: float, *, by: str = "layer") -> dict[str, float]:
    """decay ** (last - id) for each parameter, by the ids of `layer_ids` or `stage_ids`; 1 for the head."""
    ids = stage_ids(names) if by == "stage" else layer_ids(names)
    last = max(ids.values())
    return {name: decay ** (last - ids[name]) for name in names}


def stage_ids(names: list[str]) -> dict[str, int]:
    """The numbering published for ADE20K: 0 the stem and all downsampling layers, s + 1 stage s, the largest id the head.

    That largest id is the one of `layer_ids`, 13 where there are 27 blocks in a stage, although four stages take but
    four ids: so no stage of such a backbone learns faster than decay ** 9.
    """
    return {name: _stage_id(name, place) for name, place in layer_ids(names).items()}


def _stage_id(name: str, place: int) -> int:
    own = inside(name)
    if match := _BLOCK.match(own):
        return int(match[1]) + 1
    return 0 if own.startswith(("stem.", "stages.")) else place


def layer_ids(names: list[str]) -> dict[str, int]:
    """How deep each parameter sits: 0 the stem, the largest id the final norm and the head.

    Four stages: each of the first two is one id, the third is cut into groups of consecutive blocks, the last is one
    id; a downsampling layer belongs to the first blocks behind it. 27 blocks make nine groups of three, which is the
    published numbering up to 13; 9 or fewer make three, which is the published one of 'tiny' in detection, up to 7.
    Networks of two or three stages drop the early ones; one stage (isotropic) is cut into groups of three.
    """
    dense = any(_BACKBONE.match(name) for name in names)
    stages: dict[int, int] = {}
    for name in names:
        if match := _BLOCK.match(inside(name)):
            stage, block = int(match[1]), int(match[2])
            stages[stage] = max(stages.get(stage, 0), block + 1)
    ids = _block_ids([stages[i] for i in sorted(stages)])
    last = ids[-1][-1] + 1 if ids else 1
    return {name: last if dense and not _BACKBONE.match(name) else _layer_id(inside(name), ids, last) for name in names}


def inside(name: str) -> str:
    """A parameter's name in its backbone."""
    match = _BACKBONE.match(name)
    return name[match.end() :] if match else name


def _block_ids(depths: list[int]) -> list[list[int]]:
    if len(depths) == 1:
        return [[1 + block // 3 for block in range(depths[0])]]
    ids, first = [], 1
    for stage, depth in enumerate(depths):
        groups = 1
        if stage == len(depths) - 2:
            groups = min(depth, 9 if depth > 9 else 3)
        ids.append([first + block * groups // depth for block in range(depth)])
        first += groups
    return ids


def _layer_id(name: str, ids: list[list[int]], last: int) -> int:
    if match := _BLOCK.match(name):
        return ids[int(match[1])][int(match[2])]
    if match := _STAGE.match(name):  # the downsampling layer
        return ids[int(match[1])][0]
    if name.startswith("stem."):
        return 0
    if name.startswith(_HEADS):
        return last
    raise ConvNeXtError(
        f"optim.layer_decay below 1 needs a ConvNeXt of this package, and parameter '{name}' is none of its. "
        "Set --optim.layer_decay 1."
    )
