"""A folded network with 8-bit matmuls: its blocks and downsampling layers in int8, calibrated on images.

Stem, head, convolutions, norms and residuals stay in float32. On a CPU with the compiled kernels the answers take a third
of the time of float32; elsewhere plain torch computes the same integers, slowly.
Axes: N images, C channels, H W feature rows and columns.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convnext.deploy.folded import Folded, FoldedBlock, FoldedDownsample
from convnext.errors import ConvNeXtError
from convnext.kernels import cpu
from convnext.kernels.int8 import BlockRanges, Int8Block, Int8Patch, int8_block, int8_patch, plain_block, plain_patch


class Int8Part(nn.Module):
    """A block or a downsampling layer in int8, its tensors under the names of their fields."""

    def __init__(self, value: Int8Block | Int8Patch):
        super().__init__()
        self._kind, self.eps = type(value), value.eps
        for name, tensor in value._asdict().items():
            if isinstance(tensor, Tensor):
                self.register_parameter(name, nn.Parameter(tensor.clone(), requires_grad=False))

    @property
    def value(self) -> Int8Block | Int8Patch:
        """Its tensors as the kernels take them."""
        return self._kind(**{name: each.detach() for name, each in self.named_parameters()}, eps=self.eps)

    def forward(
        self, x: Tensor
    ) -> Tensor:  # (N, C, H, W) -> as the float part: (N, C, H, W) or (N, 2C, H // 2, W // 2)
        value = self.value
        return plain_block(x, value) if isinstance(value, Int8Block) else plain_patch(x, value)

    def matrices(self) -> dict[nn.Module, dict[str, str]]:
        """Its own parameters."""
        return {self: {name: name for name in self._parameters}}

    def packed(self) -> cpu.PackedInt8Block | cpu.PackedInt8Patch:
        """For the compiled kernels."""
        value = self.value
        return cpu.PackedInt8Block(value) if isinstance(value, Int8Block) else cpu.PackedInt8Patch(value)


def quantized(network: Folded, images: Iterable[Tensor], *, downsampling: bool = True) -> Folded:
    """A copy of a folded network in int8, the ranges of its activations from `images`, (N, in_channels, H, W) each.

    `downsampling`: the layers between stages too. Raises ConvNeXtError where a part cannot be in int8.
    """
    made = copy.deepcopy(network)
    for name, part in _parts(made):
        if not isinstance(part, FoldedBlock | FoldedDownsample) or part.packed() is None:
            raise ConvNeXtError(f"'{name}' of this network has no int8 form: it is not the layer that was built.")
    with _ranges(made) as found:
        for batch in images:
            made(batch)
    for name, part in list(_parts(made)):
        if isinstance(part, FoldedBlock):
            _put(made, name, Int8Part(int8_block(part.weights(), BlockRanges(*found[name]))))
        elif downsampling:
            _put(made, name, Int8Part(int8_patch(part.conv.weight, part.conv.bias, found[name][0], part.eps)))
    return made


def with_int8(network: Folded, tensors: Mapping[str, Tensor]) -> Folded:
    """`network`, its parts replaced by those that `tensors`, the state of such a network, holds in int8."""
    for name, part in list(_parts(network)):
        held = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        if "normed" in held:
            kind = Int8Block if isinstance(part, FoldedBlock) else Int8Patch
            _put(network, name, Int8Part(kind(**held, eps=part.eps)))
    return network


@contextmanager
def _ranges(network: Folded) -> Iterator[dict[str, list[Tensor]]]:
    """By the name of a part: least and most, (2,), of what its matmuls and GELU take while the network runs in here."""
    found: dict[str, list[Tensor]] = {}

    def noting(name: str, place: int) -> Any:
        def note(layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
            seen = answer if place == 1 else given[0]
            edges, known = torch.stack(seen.detach().aminmax()), found.setdefault(name, [])
            if len(known) <= place:
                known.append(edges)
            else:
                known[place] = torch.stack(
                    [torch.minimum(known[place], edges)[0], torch.maximum(known[place], edges)[1]]
                )

        return note

    with ExitStack() as leaving, torch.inference_mode():
        for name, part in _parts(network):
            block = isinstance(part, FoldedBlock)
            layers = [part.expand, part.expand] if block else [part.conv]
            layers += [part.project] if block and part.grn is not None else []
            for place, layer in enumerate(layers):
                leaving.callback(layer.register_forward_hook(noting(name, place)).remove)
        fused, network.fused = network.fused, False
        leaving.callback(setattr, network, "fused", fused)
        yield found


def _parts(network: Folded) -> Iterator[tuple[str, Any]]:
    stages: Any = network.stages
    for i, stage in enumerate(stages):
        for j, part in enumerate(stage):
            yield f"stages.{i}.{j}", part


def _put(network: Folded, name: str, part: nn.Module) -> None:
    _, i, j = name.split(".")
    stages: Any = network.stages
    stages[int(i)][int(j)] = part
