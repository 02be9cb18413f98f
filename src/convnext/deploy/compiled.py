"""The parts of a folded network on the compiled kernels of the CPU: as many in one call as can be.

Packed once, and again as soon as anything of them has changed: a layer, its values, a hook. Axes as in folded.py.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from convnext.kernels import cpu


class Compiled:
    """What `parts`, one after the other, make of an image; a part that cannot be packed answers itself.

    `holders`: the modules that hold the parts. `release`: the plain weights of a part are let go of as soon as it is packed,
    so that the next one is packed into their memory; it then never is `current`.
    """

    def __init__(self, parts: Sequence[Any], holders: Sequence[nn.Module], *, release: bool = False):
        modules = [module for part in parts for module in part.modules()]
        inside = [held for each in modules for held in (each._modules, each._parameters, each._buffers)]
        self._held = [*(each._modules for each in holders), *inside]
        self._hooks = [hooks for each in modules for hooks in (each._forward_hooks, each._forward_pre_hooks)]
        self._tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
        self._counted = [tensor for tensor in self._tensors if not tensor.is_inference()]  # those that count changes
        self._members, self._state = self._now()
        layers = [_packed(part, release=release) for part in parts]
        self.any = any(layer is not None for layer in layers)  # whether a part is for the kernels
        self._runs: list[tuple[int, cpu.PackedLayers | nn.Module]] = []  # each with the place of its first part
        place = 0
        for packable, run in groupby(layers, lambda layer: layer is not None):
            together: list[Any] = list(run)
            places = range(place, place := place + len(together))
            if packable:
                self._runs.append((places[0], cpu.PackedLayers(together)))
            else:
                self._runs += [(each, parts[each]) for each in places]

    def __call__(self, x: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """The answers (N, C, H, W) of the parts at these rising places to x (N, in_channels, H, W)."""
        found: list[Tensor] = []
        for first, run in self._runs:
            if first > wanted[-1]:
                break
            if isinstance(run, nn.Module):
                maps = {first: run(x)}
            else:
                last = min(first + len(run.layers) - 1, wanted[-1])
                places = sorted({last, *(place for place in wanted if first <= place < last)})
                made = run(x.permute(0, 2, 3, 1), [place - first for place in places])
                maps = {place: each.permute(0, 3, 1, 2) for place, each in zip(places, made, strict=True)}
            found += [each for place, each in maps.items() if place in wanted]
            x = maps[max(maps)]
        return found

    def current(self) -> bool:
        """Whether these are still the same parts with the same values; asked at every call."""
        members, state = self._now()
        return state == self._state and len(members) == len(self._members) and all(map(is_, members, self._members))

    def _now(self) -> tuple[list[Any], list[Any]]:
        places = [tensor.data_ptr() for tensor in self._tensors]
        state = [places, [tensor._version for tensor in self._counted], [bool(hooks) for hooks in self._hooks]]
        return [member for held in self._held for member in held.values()], state


def _packed(part: Any, *, release: bool) -> cpu.Packed | None:
    """A part for the kernels; None where it answers itself."""
    layer: cpu.Packed | None = part.packed() if _plain(part) else None
    if layer is not None and release:
        with torch.inference_mode(False), torch.no_grad():
            for parameter in part.parameters():
                parameter.data = torch.empty(0, dtype=parameter.dtype)
    return layer


def _plain(part: nn.Module) -> bool:
    """Whether all tensors of a part are parameters of one dtype, beside integers, and nobody has hooked in."""
    kinds = {(type(tensor), tensor.dtype) for tensor in part.parameters() if tensor.is_floating_point()}
    hooked = any(each._forward_hooks or each._forward_pre_hooks for each in part.modules())
    return not hooked and kinds in ({(nn.Parameter, torch.float32)}, {(nn.Parameter, torch.bfloat16)})
