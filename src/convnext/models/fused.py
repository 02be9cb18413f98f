"""The block of convnext.py on the kernels of `kernels`: same parameters, same values, less time and memory.

fuse(model) sets `Block.kernels` and nothing else: names, state dict, optimizer and EMA stay what they are. On a CPU the
compiled kernels answer, on a GPU Triton's where they were asked for (see kernels/dispatch.py). Where neither fits (another
dtype or device, tracing, hooks; on a CPU also torch.compile, on a GPU V2) a block runs as it always did.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convnext.kernels import dispatch
from convnext.kernels.block import BlockWeights
from convnext.kernels.cpu import bf16_matmuls, training
from convnext.models.convnext import Block, GlobalResponseNorm


@dataclass(frozen=True)
class OnKernels:
    """A block's forward on the kernels that it may use, and its plain one where they do not fit."""

    allowed: dispatch.Allowed

    def __call__(self, block: Block, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if self.allowed.triton and dispatch.on_gpu(x.device):
            fits = _known_to_triton(block) and dispatch.fits_triton(block, x, self.allowed)
            return _on_gpu(block, x) if fits else block.plain(x)
        return _on_cpu(block, x) if dispatch.fits_compiled(block, x, self.allowed) else block.plain(x)


def fuse(model: nn.Module, *, triton: bool = False, device: torch.device | None = None) -> int:
    """Run the blocks of a model on kernels from now on; returns how many. 0 where there are none, or no kernels.

    `triton`: on a GPU, as CONVNEXT_KERNELS=triton asks; `device`: where the model is going to be (where it lies).
    Why not, when the kernels are missing: `dispatch.without_kernels(device, triton)`.
    """
    blocks = [
        module
        for module in model.modules()
        if type(module) is Block
        and module.kernels is None
        and type(module.grn) in (nn.Identity, GlobalResponseNorm)
        and type(module.norm) is nn.LayerNorm  # the kernels know no other norm
    ]
    if not blocks:
        return 0
    device = device or blocks[0].spatial.weight.device
    if dispatch.without_kernels(device, triton):
        return 0
    if dispatch.on_gpu(device):
        blocks = [block for block in blocks if _known_to_triton(block)]
    for block in blocks:
        block.kernels = OnKernels(dispatch.allowed(device, triton))
    return len(blocks)


def unfuse(model: nn.Module) -> int:
    """Undo fuse: the blocks are plain ones again; returns how many."""
    blocks = [module for module in model.modules() if isinstance(module, Block) and module.kernels is not None]
    for block in blocks:
        block.kernels = None
    return len(blocks)


def weights_of(block: Block) -> BlockWeights:
    """Its parameters as the kernels take them."""
    gamma: Any = block.gamma
    grn: Any = block.grn if isinstance(block.grn, GlobalResponseNorm) else None
    return BlockWeights(
        spatial=block.spatial.weight,
        spatial_bias=block.spatial.bias,
        norm=block.norm.weight,
        norm_bias=block.norm.bias,
        expand=block.expand.weight,
        expand_bias=block.expand.bias,
        project=block.project.weight,
        project_bias=block.project.bias,
        gamma=gamma,
        grn=None if grn is None else grn.weight,
        grn_bias=None if grn is None else grn.bias,
        eps=block.norm.eps,
    )


def _on_cpu(block: Block, x: Tensor) -> Tensor:
    bf16 = torch.is_autocast_enabled("cpu") and bf16_matmuls()
    y = _Step.apply(x.permute(0, 2, 3, 1).contiguous(), _sampled(block, x), bf16, *weights_of(block))
    return y.permute(0, 3, 1, 2).to(_answered(block, x))


def _on_gpu(block: Block, x: Tensor) -> Tensor:
    from convnext.kernels import gpu  # brings torch's compiler: only for those who asked

    x = x.to(_answered(block, x))
    return gpu.block(x, weights_of(block), _sampled(block, x))


class _Step(torch.autograd.Function):
    """x (N, H, W, C) of any dtype, which is all that is kept -> float32 of the same shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor | None, bf16: bool, *weights: Any) -> Tensor:
        *tensors, ctx.eps = weights
        ctx.bf16 = bf16
        ctx.save_for_backward(x, keep, *tensors)
        return training.forward(BlockWeights(*weights), x.float(), keep, bf16=bf16)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, keep, *tensors = ctx.saved_tensors
        weights = BlockWeights(*(*tensors, ctx.eps))
        by_x, by_weights = training.backward(weights, x.float(), keep, gradient.contiguous(), bf16=ctx.bf16)
        return by_x.to(x.dtype), None, None, *by_weights, None


def _known_to_triton(block: Block) -> bool:
    """Whether it is one of V1."""
    return isinstance(block.grn, nn.Identity)


def _sampled(block: Block, x: Tensor) -> Tensor | None:
    """(N,) factors of the branch, the plain block's to the bit; None where nothing is dropped."""
    if not block.training or not block.drop_path.rate:
        return None
    return block.drop_path(x.new_ones(x.shape[0], 1, 1, 1, dtype=torch.float32)).flatten()


def _answered(block: Block, x: Tensor) -> torch.dtype:
    """The dtype that the plain block answers in: autocast decides that of the matmuls, layer scale keeps its own."""
    kind = x.device.type
    branch = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if isinstance(block.gamma, Tensor):
        branch = torch.promote_types(branch, block.gamma.dtype)
    return torch.promote_types(x.dtype, branch)
