"""The block of convnext.py on the compiled kernels of kernels/cpu: same parameters, same numbers, less time and memory.

fuse(model) changes the class of the blocks and nothing else: names, state dict, optimizer and average stay what they are.
Where the kernels do not fit (another dtype or device, autocast, tracing, hooks, V2) a block runs as it always did.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convnext.kernels.cpu import training, unavailable
from convnext.models.convnext import Block


class FusedBlock(Block):
    """A V1 block that keeps only its input for the way back; see Block for the parameters."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if not fits(self, x):
            return super().forward(x)
        scale = None
        if self.training and self.drop_path.rate:
            scale = self.drop_path(x.new_ones(x.shape[0], 1, 1, 1)).flatten()  # the draws of the plain block
        weights = (
            *(self.spatial.weight, self.spatial.bias, self.norm.weight, self.norm.bias),
            *(self.expand.weight, self.expand.bias, self.project.weight, self.project.bias, self.gamma),
        )
        y = _Fused.apply(x.permute(0, 2, 3, 1).contiguous(), scale, self.norm.eps, *weights)
        return y.permute(0, 3, 1, 2)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, eps: float, *weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale, *weights)
        ctx.eps = eps
        return training.forward(weights, x, scale, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        x, scale, *weights = ctx.saved_tensors
        by_x, by_weights = training.backward(weights, x, scale, ctx.eps, slope.contiguous())
        return (by_x, None, None, *by_weights)


def fuse(model: nn.Module) -> int:
    """Run the V1 blocks of a model on the compiled kernels from now on; returns how many. 0 where there are none.

    Why not, when the kernels are missing: `convnext.kernels.cpu.unavailable()`.
    """
    blocks = [module for module in model.modules() if type(module) is Block and isinstance(module.grn, nn.Identity)]
    if not blocks or unavailable():
        return 0
    for block in blocks:
        block.__class__ = FusedBlock
    return len(blocks)


def unfuse(model: nn.Module) -> int:
    """Undo fuse: the blocks are plain ones again, for whoever looks inside them; returns how many."""
    blocks = [module for module in model.modules() if type(module) is FusedBlock]
    for block in blocks:
        object.__setattr__(block, "__class__", Block)
    return len(blocks)


def fits(block: Block, x: Tensor) -> bool:
    """Whether the kernels compute this block for this input: float32 on the CPU, eager, nothing hooked in between."""
    if type(x) not in (Tensor, nn.Parameter) or x.ndim != 4 or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    if torch.compiler.is_compiling() or torch._C._is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._functorch.maybe_current_level() is not None or torch._C._is_torch_function_mode_enabled():
        return False
    layers = (block.spatial, block.norm, block.expand, block.project)
    if [type(layer) for layer in layers] != [nn.Conv2d, nn.LayerNorm, nn.Linear, nn.Linear]:
        return False
    if any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
        for layer in (*layers, block.drop_path)
    ):
        return False
    return unavailable() is None and all(
        p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous() for p in block.parameters()
    )
