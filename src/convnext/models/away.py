"""Parameters of a layer that are held elsewhere in another form, and come back as soon as anybody asks for them.

A network on the compiled kernels answers from packed weights. The plain ones beside them would only take memory, but a
state dict, a copy, a move, an export or a look at a layer must find them.
"""

import sys
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

Back = Callable[[], Tensor]  # makes a value again, or raises a ConvNeXtError that says why it cannot


class Away(MutableMapping[str, Any]):
    """What a layer has in place of its dictionary of parameters while some of them are away.

    Its names are those of the layer. Who asks for a parameter that is away, or for all, has all put back into the layer first,
    where they stay; parameters that are not away are given as they are.
    """

    def __init__(self, layer: nn.Module, backs: dict[str, Back]):
        held: Any = layer._parameters
        self.held: dict[str, Any] = held  # the layer's own, in which those that are away are None meanwhile
        self._layer, self._backs = weakref.ref(layer), backs
        self._like = {name: (self.held[name].dtype, self.held[name].requires_grad) for name in backs}
        for name in backs:
            self.held[name] = None
        layer.__dict__["_parameters"] = self

    def __getitem__(self, name: str) -> Any:
        return self._whole()[name] if name in self._backs else self.held[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._whole()[name] = value

    def __delitem__(self, name: str) -> None:
        del self._whole()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def __contains__(self, name: object) -> bool:
        return name in self.held

    def __reduce__(self) -> Any:
        return dict, (self.held | self._made(),)  # a copy is whole, and this stays away

    def _whole(self) -> dict[str, Any]:
        """The layer's own dictionary, with all that was away."""
        if self._backs:
            self.held |= self._made()
            self._backs = {}
            layer = self._layer()
            if layer is not None and layer.__dict__["_parameters"] is self:
                layer.__dict__["_parameters"] = self.held
        return self.held

    def _made(self) -> dict[str, nn.Parameter]:
        made = {}
        with torch.inference_mode(False), torch.no_grad():
            for name, back in self._backs.items():
                dtype, trained = self._like[name]
                made[name] = nn.Parameter(back().to(dtype), requires_grad=trained)
        return made


def send_away(layer: nn.Module, backs: dict[str, Back]) -> None:
    """Let go of those parameters of `layer`, unless somebody else holds one, who would miss what is done to it later."""
    own = layer.__dict__["_parameters"]
    if not isinstance(own, Away) and all(_nobody_holds(own, name) for name in backs):
        Away(layer, backs)


def away(network: nn.Module) -> list[str]:
    """The names of the parameters of a network that are away; nothing is put back."""
    found = [(name, module.__dict__["_parameters"]) for name, module in network.named_modules()]
    return [f"{name}.{each}".lstrip(".") for name, own in found if isinstance(own, Away) for each in own._backs]


def _nobody_holds(own: dict[str, Any], name: str) -> bool:
    """Whether only this dictionary holds a parameter and its memory: no name, no view, no array."""
    alone = {name: nn.Parameter(torch.empty(1), requires_grad=False)}
    return _counts(own, name) == _counts(alone, name)


def _counts(own: dict[str, Any], name: str) -> tuple[int, int]:
    return sys.getrefcount(own[name]), torch._C._storage_Use_Count(own[name].untyped_storage()._cdata)
