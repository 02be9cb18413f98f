"""An exported network behind the calls of a torch module, for what compares and scores networks of every kind.

Axes: N images, C channels, H W pixel rows and columns, K classes.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from convnext.deploy.exported import Exported, open_exported


class ExportedModule(nn.Module):
    """The network in a file, answering (N, C, H, W) float32 of any device with (N, K) float32 logits on the CPU."""

    def __init__(self, exported: Exported):
        super().__init__()
        self.exported, self.backend = exported, exported.backend
        self.place = nn.Parameter(
            torch.empty(0), requires_grad=False
        )  # on the CPU, for those who ask a network where it is

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        return torch.from_numpy(self.exported.run(x.detach().to("cpu", torch.float32).contiguous().numpy()))

    def extra_repr(self) -> str:
        return f"'{self.exported.path}', {self.backend}"


def module_of(source: str | Path, *, backend: str = "auto") -> ExportedModule:
    """The network in an exported file, on as many threads as torch uses. Raises what `open_exported` raises."""
    return ExportedModule(open_exported(source, backend=backend, threads=torch.get_num_threads()))
