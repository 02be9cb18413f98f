"""What a run ran on: versions, processor, memory, device. Written into every run, printed by `convnext doctor`."""

import torch

from convnext.engine.machine import machine, processor
from convnext.engine.precision import fast_format, float32_here
from convnext.kernels.cpu import bf16_matmuls, origin
from convnext.kernels.dispatch import gpu_path, without_compiled


def environment(device: torch.device, *, triton: bool = False) -> dict[str, str]:
    """Everything about this machine and installation that a reader of a result may ask for.

    `triton`: the run asks for the Triton block itself, whatever the environment says.
    """
    told = machine()
    command = told.pop("command")
    return {
        **told,
        "torch_threads": str(torch.get_num_threads()),
        "cpu_kernels": without_compiled() or f"{origin()}; {'fp32 and bf16' if bf16_matmuls() else 'fp32'}",
        "gpu_kernels": gpu_path(device, triton),
        "device": str(device),
        **abilities(device),
        **({"float32_matmuls": float32_here(device)} if device.type == "cuda" else {}),
        "command": command,
    }


def abilities(device: torch.device) -> dict[str, str]:
    """What a device calls itself, and the numbers that it multiplies fastest."""
    return {"device_name": device_name(device), "fast_precision": fast_format(device) or "fp32"}


def device_name(device: torch.device) -> str:
    """What a GPU or the processor calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
