"""Networks of which only some parts are compiled: what lies between them depends on values, not on shapes alone."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class InParts(nn.Module):
    """Calls `network` with its `parts` compiled, each by itself.

    A part is compiled for its first shapes, and once more with sizes as symbols when they change. Whoever calls the
    network itself, as evaluation does, finds it as it was.
    """

    def __init__(self, network: nn.Module, parts: Sequence[nn.Module]):
        super().__init__()
        self.network = network
        self._parts = [(part, torch.compile(part.forward)) for part in parts]  # a list: they are modules of `network`

    def forward(self, *inputs: Any, **named: Any) -> Any:  # as the network
        for part, compiled in self._parts:
            part.forward = compiled
        try:
            with warnings.catch_warnings():  # the compiler looks at what comes out of the part before
                warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
                return self.network(*inputs, **named)
        finally:
            for part, _ in self._parts:
                del part.forward
