"""The parts of a folded network on the compiled kernels of the CPU: as many in one call as can be.

Packed once, and again as soon as anything of them has changed: a layer, its values, a hook. Axes as in folded.py.
"""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from convnext.errors import ConvNeXtError
from convnext.kernels import cpu
from convnext.models.away import Away, send_away


class Compiled:
    """What `parts`, one after the other, make of an image; a part that cannot be packed answers itself.

    `holders`: the modules that hold the parts. `once`: the plain matrices of a part are let go of as soon as it is packed, so
    that the next one is packed into their memory, and made again of the packed ones when anybody asks; `rounded`: also those
    that no packed ones can be made into again, and who asks is refused.
    """

    def __init__(
        self, parts: Sequence[Any], holders: Sequence[nn.Module], *, once: bool = False, rounded: bool = False
    ):
        modules = [module for part in parts for module in part.modules()]
        layers = [_packed(part, once=once, rounded=rounded) for part in parts]
        inside = [held for each in modules for held in (each._modules, _own(each), each._buffers)]
        self._held = [*(each._modules for each in holders), *inside]
        self._hooks = [hooks for each in modules for hooks in (each._forward_hooks, each._forward_pre_hooks)]
        self._tensors = [each for held in inside for each in held.values() if isinstance(each, Tensor)]
        self._counted = [tensor for tensor in self._tensors if not tensor.is_inference()]  # those that count changes
        self._members, self._state = self._now()
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


def _own(module: nn.Module) -> dict[str, Any]:
    """A module's dictionary of parameters, in which those that are away are None."""
    held = module.__dict__["_parameters"]
    return held.held if isinstance(held, Away) else held


def _packed(part: Any, *, once: bool, rounded: bool) -> cpu.Packed | None:
    """A part for the kernels; None where it answers itself."""
    layer: cpu.Packed | None = part.packed() if _plain(part) else None
    if layer is not None and once:
        for module, matrices in part.matrices().items():
            if layer.exact or rounded:
                send_away(module, {own: partial(_back, layer, name) for own, name in matrices.items()})
    return layer


def _back(layer: Any, name: str) -> Tensor:
    """A plain matrix of a packed part."""
    if layer.exact:
        return layer.matrix(name)
    raise ConvNeXtError(
        "This network holds packed weights alone, rounded to fewer bits: optimize() what it was made of to move or copy it."
    )


def _plain(part: nn.Module) -> bool:
    """Whether all tensors of a part are parameters of one dtype, beside integers, and nobody has hooked in."""
    kinds = {(type(tensor), tensor.dtype) for tensor in part.parameters() if tensor.is_floating_point()}
    hooked = any(each._forward_hooks or each._forward_pre_hooks for each in part.modules())
    return not hooked and kinds in ({(nn.Parameter, torch.float32)}, {(nn.Parameter, torch.bfloat16)})
