"""The block of convnext.py on the kernels of `kernels`: same parameters, same values, less time and memory.

fuse(model) changes the class of the blocks and nothing else: names, state dict, optimizer and average stay what they are.
On a CPU the compiled kernels answer, on a GPU Triton's where they were asked for (see kernels/dispatch.py). Where neither
fits (another dtype or device, tracing, hooks, V2; on a CPU also torch.compile) a block runs as it always did.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convnext.kernels import dispatch
from convnext.kernels.cpu import training, unavailable
from convnext.models.convnext import Block

_GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LAYERS = {"spatial": nn.Conv2d, "norm": nn.LayerNorm, "expand": nn.Linear, "project": nn.Linear}


class FusedBlock(Block):
    """A V1 block that keeps only what it must for the way back; see Block for the parameters."""

    triton = False  # for tensors on a GPU: it was asked for when `fuse` was called

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if self.triton and dispatch.on_gpu(x.device):
            return self._on_gpu(x) if fits_gpu(self, x) else super().forward(x)
        if not fits(self, x):
            return super().forward(x)
        rows = x.float().permute(0, 2, 3, 1).contiguous()
        y = _Fused.apply(rows, self._draws(rows), self.norm.eps, *self._weights())
        return y.permute(0, 3, 1, 2).to(_answered(self, x))

    def _on_gpu(self, x: Tensor) -> Tensor:
        from convnext.kernels import gpu  # brings torch's compiler: only for those who asked

        weights, x = self._weights(), x.to(_answered(self, x))
        given: tuple[Any, ...] = (*weights[:4], self.norm.eps, *weights[4:], self._draws(x))
        return gpu.block(x, *given)

    def _draws(self, x: Tensor) -> Tensor | None:
        """(N,) factors of the branch, the plain block's to the bit; None where nothing is dropped."""
        if not self.training or not self.drop_path.rate:
            return None
        return self.drop_path(x.new_ones(x.shape[0], 1, 1, 1)).flatten()

    def _weights(self) -> tuple[Any, ...]:
        return (
            *(self.spatial.weight, self.spatial.bias, self.norm.weight, self.norm.bias),
            *(self.expand.weight, self.expand.bias, self.project.weight, self.project.bias, self.gamma),
        )


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, eps: float, *weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale, *weights)
        ctx.eps = eps
        return training.forward(weights, x, scale, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, scale, *weights = ctx.saved_tensors
        by_x, by_weights = training.backward(weights, x, scale, ctx.eps, gradient.contiguous())
        return (by_x, None, None, *by_weights)


def fuse(model: nn.Module, *, triton: bool = False, device: torch.device | None = None) -> int:
    """Run the V1 blocks of a model on kernels from now on; returns how many. 0 where there are none, or no kernels.

    `triton`: on a GPU, as CONVNEXT_KERNELS=triton asks; `device`: where the model is going to be (where it lies).
    Why not, when the kernels are missing: `hindrance(device)`.
    """
    blocks = [module for module in model.modules() if type(module) is Block and isinstance(module.grn, nn.Identity)]
    if not blocks:
        return 0
    device = device or blocks[0].spatial.weight.device
    if hindrance(device, triton):
        return 0
    for block in blocks:
        block.__class__ = FusedBlock
        if dispatch.on_gpu(device):
            block.triton = True  # type: ignore[assignment] # a plain value of the module, in no state dict
    return len(blocks)


def unfuse(model: nn.Module) -> int:
    """Undo fuse: the blocks are plain ones again, for whoever looks inside them; returns how many."""
    blocks = [module for module in model.modules() if type(module) is FusedBlock]
    for block in blocks:
        block.__dict__.pop("triton", None)
        object.__setattr__(block, "__class__", Block)
    return len(blocks)


def hindrance(device: torch.device, triton: bool = False) -> str | None:
    """Why `fuse` leaves the blocks of a model on `device` as they are, in words for a person; None where it does not."""
    return dispatch.without_triton(device, triton) if dispatch.on_gpu(device) else unavailable()


def fits(block: Block, x: Tensor) -> bool:
    """Whether the CPU kernels compute this block for this input: on the CPU, eager, nothing hooked in between.

    They compute in float32, under autocast to bfloat16 too: that is faster there than the plain block, and more exact.
    """
    if type(x) not in (Tensor, nn.Parameter) or x.ndim != 4 or x.device.type != "cpu":
        return False
    low = torch.is_autocast_enabled("cpu")
    if x.dtype != torch.float32 and not (low and x.dtype == torch.bfloat16):
        return False
    if (low and torch.get_autocast_dtype("cpu") != torch.bfloat16) or torch.compiler.is_compiling() or _watched():
        return False
    return (
        _as_built(block)
        and unavailable() is None
        and all(p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous() for p in block.parameters())
    )


def fits_gpu(block: nn.Module, x: Tensor) -> bool:
    """Whether the Triton kernels compute this block for this input; also under autocast and in torch.compile."""
    from convnext.kernels import gpu

    if torch.compiler.is_compiling():
        if torch.compiler.is_exporting():
            return False  # a file for others holds no kernels of ours
    elif type(x) not in (Tensor, nn.Parameter) or _watched():
        return False
    if not _as_built(block) or gpu.unavailable(x) is not None:
        return False
    if torch.is_autocast_enabled(x.device.type):
        known = torch.get_autocast_dtype(x.device.type) in _GPU_DTYPES
        dtypes: tuple[torch.dtype, ...] = _GPU_DTYPES
    else:
        known, dtypes = True, (x.dtype,)
    return known and all(p.dtype in dtypes and p.device == x.device and p.is_contiguous() for p in block.parameters())


def _answered(block: Block, x: Tensor) -> torch.dtype:
    """The dtype that the plain block answers in: autocast decides that of the matmuls, layer scale keeps its own."""
    kind = x.device.type
    branch = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if isinstance(block.gamma, Tensor):
        branch = torch.promote_types(branch, block.gamma.dtype)
    return torch.promote_types(x.dtype, branch)


def _as_built(block: nn.Module) -> bool:
    """Whether its layers are those that were built, with the norm or with it folded away, and nobody has hooked in."""
    for name, layer in block.named_children():
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
            return False
        if name in _LAYERS and type(layer) is not _LAYERS[name]:
            return False
    return True


def _watched() -> bool:
    """Whether somebody records or transforms what happens, to whom a kernel would be a black box."""
    if torch._C._is_tracing() or torch._C._functorch.maybe_current_level() is not None:
        return True
    return bool(torch._C._is_torch_function_mode_enabled())
