"""Parameter groups, optimizers, and their state as named tensors.

Weight decay and layer-wise decay as in the code released with arXiv 2201.03545. Works on the parameter names of
ConvNeXt ('stem.', 'stages.s.blocks.b.', 'norm.', 'head.'), because the engine knows no models. In detection and
segmentation they come after 'backbone.'; what lies outside of it counts as head.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import OptimConfig
from convnext.engine.muon import ShardedMuon
from convnext.engine.parts import is_part
from convnext.errors import CheckpointError, ConvNeXtError

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
_STAGE = re.compile(r"stages\.(\d+)\.")
_BETWEEN = re.compile(r"stem\.layers\.|stages\.\d+\.downsample\.conv\.")
_BACKBONE = re.compile(r"backbone\.(network\.)?")
_HEADS = ("norm.", "norm_maps.", "norms.", "hidden.", "head.")  # 'norms.s': behind stage s, for a dense head
_STATE = {  # what each optimizer remembers of a parameter
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
    "SGD": ("momentum_buffer",),
    "Muon": ("momentum_buffer",),
    "ShardedMuon": ("momentum_buffer",),
}


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
    inside = _inside(name)
    if match := _BLOCK.match(inside):
        return int(match[1]) + 1
    return 0 if inside.startswith(("stem.", "stages.")) else place


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
        if match := _BLOCK.match(_inside(name)):
            stage, block = int(match[1]), int(match[2])
            stages[stage] = max(stages.get(stage, 0), block + 1)
    ids = _block_ids([stages[i] for i in sorted(stages)])
    last = ids[-1][-1] + 1 if ids else 1
    return {
        name: last if dense and not _BACKBONE.match(name) else _layer_id(_inside(name), ids, last) for name in names
    }


def _inside(name: str) -> str:
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


class Optimizers:
    """The optimizer of a run. It is two with 'muon': Muon for the matrices inside blocks, AdamW for the rest.

    Muon (Jordan 2024) orthogonalises the momentum of a matrix. Its rate is `muon_ratio` times `lr`, so it follows the same
    schedule, on the scale of the original: update times sqrt(max(1, rows / columns)). A convolution is a matrix to it,
    (C_out, rows * columns * C_in) in the order of its memory.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig):
        self.config = optim
        groups = parameter_groups(model, optim)
        matrices = _matrices(groups, optim) if optim.name == "muon" else []
        taken = {name for group in matrices for name in group["names"]}
        rest = [_only(group, [n for n in group["names"] if n not in taken]) for group in groups]
        rest = [group for group in rest if group["params"]]
        self.all: list[torch.optim.Optimizer] = []
        self.flat = [  # (convolution, the same memory as a matrix)
            (value, nn.Parameter(_as_matrix(value.detach(), _memory_of(value))))
            for group in matrices
            for value in group["params"]
            if value.ndim == 4
        ]
        if matrices:
            seen = {id(value): matrix for value, matrix in self.flat}
            for group in matrices:
                group["params"] = [seen.get(id(value), value) for value in group["params"]]
            self.all.append(_muon(matrices, optim))
        if rest:
            self.all.append(_sgd(rest, optim) if optim.name == "sgd" else _adamw(rest, optim))

    def take_gradients(self) -> None:
        """Hand the gradients that the network has now to the matrices that stand for its convolutions."""
        for value, matrix in self.flat:
            memory = _memory_of(value)
            if value.grad is not None:
                value.grad = value.grad.contiguous(memory_format=memory)  # as it is, save where a kernel left another
            matrix.grad = None if value.grad is None else _as_matrix(value.grad, memory)

    def step(self) -> None:
        """Change the weights by their gradients."""
        self.take_gradients()
        for optimizer in self.all:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)
        for value, _ in self.flat:
            value.grad = None

    def set_lr(self, lr: float) -> None:
        """Give every group its share of the schedule's rate `lr`, which is `optim.lr` at its peak."""
        for optimizer in self.all:
            peak = self.config.muon_ratio if isinstance(optimizer, torch.optim.Muon) else 1.0
            for group in optimizer.param_groups:
                group["lr"] = lr * peak * group["lr_scale"]

    def tensors(self) -> dict[str, Tensor]:
        """All state as '<parameter>/<key>', e.g. 'head.weight/exp_avg'; zeros where no step was made yet."""
        found = {}
        for optimizer, name, parameter in self._parameters():
            state = optimizer.state.get(parameter, {})
            for key in _keys(optimizer):
                value = state.get(key)
                found[f"{name}/{key}"] = _fresh(key, parameter) if value is None else value
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave, to the bit. Raises CheckpointError unless names and shapes are the same."""
        mine = self.tensors()
        wrong = sorted(set(mine) ^ set(tensors)) or [n for n in mine if mine[n].shape != tensors[n].shape]
        if wrong:
            raise CheckpointError(
                f"The optimizer's state does not fit '{self.config.name}' on this model; first at '{wrong[0]}'."
            )
        for optimizer in self.all:
            state = optimizer.state_dict()
            names = [name for group in optimizer.param_groups for name in group["names"]]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state["state"] = {
                i: {key: _like(tensors[f"{name}/{key}"], key, parameter) for key in _keys(optimizer)}
                for i, (name, parameter) in enumerate(zip(names, parameters, strict=True))
            }
            optimizer.load_state_dict(state)

    def _parameters(self) -> Iterator[tuple[torch.optim.Optimizer, str, Tensor]]:
        for optimizer in self.all:
            for group in optimizer.param_groups:
                for name, parameter in zip(group["names"], group["params"], strict=True):
                    yield optimizer, name, parameter


def _adamw(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.Optimizer:
    kinds = {p.device.type for group in groups for p in group["params"]}
    fused = True if kinds <= {"cpu", "cuda"} else None  # None: torch chooses
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=fused)


def _sgd(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)


def _muon(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.Optimizer:
    kind = ShardedMuon if is_part(groups[0]["params"][0]) else torch.optim.Muon
    return kind(groups, lr=optim.muon_ratio * optim.lr, momentum=optim.momentum, adjust_lr_fn="original")


def _matrices(groups: list[dict[str, Any]], optim: OptimConfig) -> list[dict[str, Any]]:
    """What Muon takes: the 2-D weights inside blocks and, where asked, convolutions in stem and downsampling layers.

    A head's rows are classes, and AdamW serves those better; a depthwise filter is a row by itself.
    """
    found = []
    for group in groups:
        pairs = zip(group["names"], group["params"], strict=True)
        inside = [name for name, value in pairs if _is_matrix(name, value, optim)]
        if inside:
            found.append(_only(group, inside))
    return found


def _is_matrix(name: str, value: Tensor, optim: OptimConfig) -> bool:
    if not name.endswith(".weight"):
        return False
    if value.ndim == 2:
        return ".blocks." in f".{name}"
    return optim.muon_convolutions and value.ndim == 4 and bool(_BETWEEN.match(_inside(name)))


def _as_matrix(value: Tensor, memory: torch.memory_format) -> Tensor:
    """A convolution (O, I, H, W) as the (O, I * H * W) matrix that Muon sees; the same memory if it has that format."""
    value = value.contiguous(memory_format=memory)
    return (value.permute(0, 2, 3, 1) if memory == torch.channels_last else value).view(len(value), -1)


def _memory_of(value: Tensor) -> torch.memory_format:
    return torch.contiguous_format if value.is_contiguous() else torch.channels_last


def _only(group: dict[str, Any], names: list[str]) -> dict[str, Any]:
    by_name = dict(zip(group["names"], group["params"], strict=True))
    return {**group, "names": names, "params": [by_name[name] for name in names]}


def _keys(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    kind = type(optimizer).__name__
    return () if kind == "SGD" and not optimizer.defaults["momentum"] else _STATE[kind]


def _fresh(key: str, parameter: Tensor) -> Tensor:
    return torch.zeros(()) if key == "step" else torch.zeros_like(parameter)


def _like(value: Tensor, key: str, parameter: Tensor) -> Tensor:
    """A copy that no one else holds, in the parameter's memory format: fused kernels walk both in storage order."""
    return value.clone() if key == "step" else torch.empty_like(parameter).copy_(value)
