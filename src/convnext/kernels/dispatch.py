"""Who may use which kernels, and why not.

What holds for a device, and what the user asked for, is found out once: when a network is fused, folded or moved
(`allowed`). A call is left with what only its input can tell (`fits_*`); where it does not fit, plain torch answers.

The Triton block runs only for those who ask: CONVNEXT_KERNELS=triton, or `--kernels triton` for a training run. Its inference
was timed on an H100 (docs/log.md); its training was not, and its tests on a GPU have not passed in full.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convnext.kernels.build import compiled
from convnext.kernels.instructions import PLAIN, SWITCH, TRITON, switch

GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYERS = {"spatial": nn.Conv2d, "norm": nn.LayerNorm, "expand": nn.Linear, "project": nn.Linear}  # of a block


@dataclass(frozen=True)
class Allowed:
    """The kernels that a network may use; whether the CPU's can be had is asked when they are first needed."""

    compiled: bool  # the CPU's
    triton: bool


def allowed(device: torch.device, asked: bool = False) -> Allowed:
    """For a network on `device`. `asked`: for Triton, by other means than the environment.

    Raises ConvNeXtError where the switch names what is not there.
    """
    return Allowed(switch() != PLAIN, without_triton(device, asked) is None)


def without_kernels(device: torch.device, asked: bool = False) -> str | None:
    """Why no kernels run on `device`, in words for a person; None where they do. Compiles the CPU's if need be."""
    return without_triton(device, asked) if on_gpu(device) else without_compiled()


def without_compiled() -> str | None:
    """Why the compiled kernels of the CPU are not used; None where they are. Compiles them if need be."""
    return f"{SWITCH}={PLAIN} turns them off" if switch() == PLAIN else compiled().reason


def at_hand() -> bool:
    """Whether the CPU's kernels are loaded already and may be used: nothing is compiled to know."""
    return compiled.cache_info().currsize > 0 and without_compiled() is None


def without_triton(device: torch.device, asked: bool = False) -> str | None:
    """Why the Triton block does not run on `device`; None where it does.

    `asked`: by other means than the environment, which can still turn it off.
    """
    return _unasked(asked) or _hindered(device)


def gpu_path(device: torch.device, asked: bool = False) -> str:
    """What runs the block on this machine's GPU and why, in one line: 'triton', or 'plain torch: ...'.

    `device`: which GPU is meant; any other device means the first one.
    """
    if not torch.cuda.is_available():
        return "plain torch: there is no CUDA device here"
    reason = _hindered(device if device.type == "cuda" else torch.device("cuda", 0)) or _unasked(asked)
    return f"plain torch: {reason}" if reason else "triton"


def on_gpu(device: torch.device) -> bool:
    """Whether Triton's kernels are for tensors on `device`: one place to say so, for tests in Triton's interpreter."""
    return device.type == "cuda"


@functools.cache
def compiled_dtypes() -> tuple[torch.dtype, ...]:
    """Of the networks that the CPU's kernels run: none where there are no kernels."""
    library = compiled().library
    if library is None:
        return ()
    return (torch.float32, torch.bfloat16) if library.cn_bf16() else (torch.float32,)


def fits_compiled(block: nn.Module, x: Tensor, allowed: Allowed) -> bool:
    """Whether the CPU's kernels compute this block for this input, with its gradients.

    Under autocast to bfloat16 their matmuls take bf16 values where that is faster, and all else is float32: more exact than
    the plain block there.
    """
    if not allowed.compiled or not _eager(x) or x.ndim != 4 or x.device.type != "cpu":
        return False
    low = torch.is_autocast_enabled("cpu")
    if x.dtype != torch.float32 and not (low and x.dtype == torch.bfloat16):
        return False
    if low and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    return (
        _as_built(block)
        and torch.float32 in compiled_dtypes()
        and all(p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous() for p in block.parameters())
    )


def fits_folded(x: Tensor, patch: int, dtype: torch.dtype, allowed: Allowed) -> bool:
    """Whether the CPU's kernels compute a folded network of that dtype and stem for `x`: without gradients."""
    return (
        allowed.compiled
        and _eager(x)
        and x.ndim == 4
        and min(x.shape[2:]) >= patch
        and x.dtype is dtype
        and x.device.type == "cpu"
        and not on_gpu(x.device)
        and not torch.is_autocast_enabled("cpu")
        and not (x.requires_grad and torch.is_grad_enabled())
        and dtype in compiled_dtypes()
    )


def fits_pooling(maps: Tensor, allowed: Allowed) -> bool:
    """Whether the CPU's kernel pools boxes of these maps: float32, without gradients."""
    return (
        allowed.compiled
        and _eager(maps)
        and maps.device.type == "cpu"
        and maps.dtype == torch.float32
        and not (maps.requires_grad and torch.is_grad_enabled())
        and torch.float32 in compiled_dtypes()
    )


def fits_convolution(x: Tensor, weight: Tensor, allowed: Allowed) -> bool:
    """Whether the CPU's kernel convolves x (N, I, H, W) with weight (O, I, 3, 3): float32, where gradients are off."""
    return (
        fits_pooling(x, allowed)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
    )


def fits_triton(block: nn.Module, x: Tensor, allowed: Allowed) -> bool:
    """Whether the Triton kernels compute this block of V1 for this input; also under autocast and in torch.compile."""
    if not allowed.triton:
        return False
    from convnext.kernels.gpu.available import exporting, unavailable  # brings torch's compiler: a second

    if torch.compiler.is_compiling():
        if exporting():
            return False  # a file for others holds no kernels of ours
    elif not _eager(x):
        return False
    if not _as_built(block) or unavailable(x) is not None:
        return False
    dtypes: tuple[torch.dtype, ...] = (x.dtype,)
    if torch.is_autocast_enabled(x.device.type):
        dtypes = GPU_DTYPES
        if torch.get_autocast_dtype(x.device.type) not in dtypes:
            return False
    return all(p.dtype in dtypes and p.device == x.device and p.is_contiguous() for p in block.parameters())


def _eager(x: Tensor) -> bool:
    """Whether nobody records or transforms what happens to `x`, to whom a kernel would be a black box."""
    if type(x) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    return torch._C._functorch.maybe_current_level() is None and not torch._C._is_torch_function_mode_enabled()


def _as_built(block: nn.Module) -> bool:
    """Whether its layers are those that were built, with the norm or with it folded away, and nobody has hooked in."""
    for name, layer in block.named_children():
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
            return False
        if name in LAYERS and type(layer) is not LAYERS[name]:
            return False
    return True


def _unasked(asked: bool) -> str | None:
    value = switch()
    if value == PLAIN:
        return f"{SWITCH}={PLAIN} turns the kernels off"
    if asked or value == TRITON:
        return None
    return f"the Triton block is opt-in; {SWITCH}={TRITON}, or train --kernels triton, asks for it"


def _hindered(device: torch.device) -> str | None:
    if not on_gpu(device):
        return f"{device.type} is no GPU of CUDA"
    from convnext.kernels.gpu.available import place  # brings torch's compiler: a second

    return place(device.type, device.index or 0)
