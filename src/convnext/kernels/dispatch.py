"""Which of the block's fused forms the user asked for, and which one a GPU runs.

The Triton block is written and tested in Triton's interpreter, but its speed on a GPU is not measured yet. It therefore
runs only for those who ask: CONVNEXT_KERNELS=triton, or `--kernels triton` for a training run.
"""

import os

import torch

SWITCH = "CONVNEXT_KERNELS"  # "plain": no kernels anywhere; "triton": the Triton block on a GPU; else those of the CPU


def on_gpu(device: torch.device) -> bool:
    """Whether Triton's kernels are for tensors on `device`: one place to say so, for tests in Triton's interpreter."""
    return device.type == "cuda"


def without_triton(device: torch.device, asked: bool = False) -> str | None:
    """Why the Triton block does not run on `device`, in words for a person; None where it does.

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


def _unasked(asked: bool) -> str | None:
    value = os.environ.get(SWITCH, "")
    if value == "plain":
        return f"{SWITCH}=plain turns the kernels off"
    if asked or value == "triton":
        return None
    told = f"{SWITCH}={value} is neither plain nor triton" if value else "the Triton block is not measured yet"
    return f"{told}; {SWITCH}=triton, or train --kernels triton, asks for it"


def _hindered(device: torch.device) -> str | None:
    if not on_gpu(device):
        return f"{device.type} is no GPU of CUDA"
    from convnext.kernels.gpu.available import place  # brings torch's compiler: a second

    return place(device.type, device.index or 0)
