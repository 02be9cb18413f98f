"""The number format of a run for which nobody has chosen one."""

from typing import Literal

from convnext.recipes import FITTED

_BF16_MATMULS, _FP16_MATMULS = (8, 0), (7, 0)  # compute capability: Ampere; Volta, whose matmul units know fp16 alone


def fitting_precision(name: str | None, capability: tuple[int, int] | None) -> Literal["fp32", "bf16", "fp16"] | None:
    """For the recipe that is asked for by `name`; None: what it says itself, as every published one does.

    `capability`: the compute capability of a GPU of CUDA; None for any other device. bf16 where the GPU multiplies it, on
    older ones fp16 with a scaled loss, and fp32 on those that multiply neither faster. No `name` is a task's default.
    """
    if capability is None or not (name is None or any(name in made for made in FITTED.values())):
        return None
    if capability >= _BF16_MATMULS:
        return "bf16"
    return "fp16" if capability >= _FP16_MATMULS else "fp32"
