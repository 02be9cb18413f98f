"""Optimizers, and their state as named tensors."""

import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import OptimConfig
from convnext.engine.depths import inside, parameter_groups
from convnext.engine.muon import RecordedMuon, ShardedMuon
from convnext.engine.parts import is_part
from convnext.errors import CheckpointError
from convnext.kernels.transfer import sent

_BETWEEN = re.compile(r"stem\.layers\.|stages\.\d+\.downsample\.conv\.")
_STATE = {  # what each optimizer remembers of a parameter
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
    "SGD": ("momentum_buffer",),
    "Muon": ("momentum_buffer",),
    "ShardedMuon": ("momentum_buffer",),
    "RecordedMuon": ("momentum_buffer",),
}


class Optimizers:
    """The optimizer of a run. It is two with 'muon': Muon for the matrices inside blocks, AdamW for the rest.

    Muon (Jordan 2024) orthogonalises the momentum of a matrix. Its rate is `muon_ratio` times `lr`, so it follows the same
    schedule, on the scale of the original: update times sqrt(max(1, rows / columns)). A convolution is a matrix to it,
    (C_out, rows * columns * C_in) in the order of its memory.

    `recorded`: steps are replayed from a CUDA graph, so the rates are tensors, which `set_lr` writes.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, *, recorded: bool = False):
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
            self.all.append(_muon(matrices, optim, recorded=recorded))
        if rest:
            self.all.append(_sgd(rest, optim) if optim.name == "sgd" else _adamw(rest, optim, recorded=recorded))
        self.one: Any = self.all[0] if len(self.all) == 1 else Together(self.all)  # for torch's scaler of losses
        self._rates: Tensor | None = None  # (groups,), which graphs read
        if recorded:
            self._rates = torch.zeros(
                sum(len(each.param_groups) for each in self.all), device=groups[0]["params"][0].device
            )

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
        self.one.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)
        for value, _ in self.flat:
            value.grad = None

    def set_lr(self, lr: float) -> None:
        """Give every group its share of the schedule's rate `lr`, which is `optim.lr` at its peak; a float32 number.

        Raises OverflowError where that is none.
        """
        groups, rates = [], []
        for optimizer in self.all:
            peak = self.config.muon_ratio if isinstance(optimizer, torch.optim.Muon) else 1.0
            groups += optimizer.param_groups
            rates += [_float32(lr * peak * group["lr_scale"]) for group in optimizer.param_groups]
        held: Iterable[float | Tensor] = rates
        if self._rates is not None:
            held = self._rates.copy_(sent(torch.tensor(rates, dtype=torch.float32), self._rates.device)).unbind()
        for group, rate in zip(groups, held, strict=True):
            group["lr"] = rate  # also a tensor: what was loaded has others

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


class Together:
    """Several optimizers as one, as far as `torch.amp.GradScaler` looks: a step of fp16 that does not count, counts for none.

    The scaler asks each optimizer's gradients by themselves whether they are finite. Clipping scales all by one norm, so one
    that is none would reach the weights of an optimizer whose own gradients were finite.
    """

    def __init__(self, every: Sequence[torch.optim.Optimizer]):
        self.every = every

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all."""
        return [group for optimizer in self.every for group in optimizer.param_groups]

    def step(self) -> None:
        """Change the weights by their gradients."""
        for optimizer in self.every:
            optimizer.step()


def _adamw(groups: list[dict[str, Any]], optim: OptimConfig, *, recorded: bool) -> torch.optim.Optimizer:
    if recorded:  # torch asks for this, and then warns of the steps before the first graph
        warnings.filterwarnings(
            "ignore", message="This instance was constructed with capturable=True", category=UserWarning
        )
    how: dict[str, Any] = {"fused": _fused(groups), "capturable": recorded}
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, **how)


def _sgd(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.Optimizer:
    fused = None if is_part(groups[0]["params"][0]) else _fused(groups)  # of parts torch has no such kernel
    made = torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=fused)
    for value in (p for group in groups for p in group["params"]) if fused and optim.momentum else ():
        made.state[value]["momentum_buffer"] = torch.zeros_like(
            value
        )  # a first step that fp16 skips would leave it unset
    return made


def _fused(groups: list[dict[str, Any]]) -> bool | None:
    """Whether one kernel does the whole step, which also takes its rate from the device; None: torch chooses."""
    kinds = {p.device.type for group in groups for p in group["params"]}
    return True if kinds <= {"cpu", "cuda"} else None


def _float32(value: float) -> float:
    """The nearest number of float32, in which every device multiplies by it."""
    if value > torch.finfo(torch.float32).max:
        raise OverflowError(value)
    found: float = struct.unpack("f", struct.pack("f", value))[0]
    return found


def _muon(groups: list[dict[str, Any]], optim: OptimConfig, *, recorded: bool) -> torch.optim.Optimizer:
    kind = RecordedMuon if recorded else torch.optim.Muon
    if is_part(groups[0]["params"][0]):
        kind = ShardedMuon
    return kind(groups, lr=optim.muon_ratio * optim.lr, momentum=optim.momentum, adjust_lr_fn="original")


def _matrices(groups: list[dict[str, Any]], optim: OptimConfig) -> list[dict[str, Any]]:
    """What Muon takes: the 2-D weights inside blocks and, where asked, convolutions in stem and downsampling layers.

    A head's rows are classes, and AdamW serves those better; a depthwise filter is a row by itself.
    """
    found = []
    for group in groups:
        pairs = zip(group["names"], group["params"], strict=True)
        taken = [name for name, value in pairs if _is_matrix(name, value, optim)]
        if taken:
            found.append(_only(group, taken))
    return found


def _is_matrix(name: str, value: Tensor, optim: OptimConfig) -> bool:
    if not name.endswith(".weight"):
        return False
    if value.ndim == 2:
        return ".blocks." in f".{name}"
    return optim.muon_convolutions and value.ndim == 4 and bool(_BETWEEN.match(inside(name)))


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
