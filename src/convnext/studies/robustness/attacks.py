"""Images changed a little on purpose, so that the network errs: FGSM (Goodfellow et al. 2015, arXiv 1412.6572) and
PGD (Madry et al. 2018, arXiv 1706.06083), without a target, in the maximum norm.

A change is measured and limited where people see it, in grey levels of 255, before normalisation: no value moves by more
than `eps`, and none leaves 0..255. Adversarial images stay floating point; they are not rounded to whole levels.
Axes: N images, C channels, H W rows and columns.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import InputConfig
from convnext.data.labelled import UNKNOWN
from convnext.errors import ConvNeXtError


@dataclass(frozen=True)
class Attack:
    """Steps of the gradient's sign that raise the loss; a pure function of the network, the images and these fields.

    `fgsm`: one step of `eps` from the image. `pgd`: `steps` of `step` from a random start within `eps`, each followed
    by a return into the limits.
    """

    name: Literal["fgsm", "pgd"]
    eps: float = 4.0  # of 255
    steps: int = 10  # of PGD
    step: float = 1.0  # of 255, of PGD
    random_start: bool = True  # of PGD; from (seed, index of the image)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in ("fgsm", "pgd"):
            raise ConvNeXtError(f"There is no attack '{self.name}'. There are fgsm and pgd.")
        if not 0 < self.eps <= 255 or self.steps < 1 or not 0 < self.step <= 255:
            raise ConvNeXtError(
                f"attack {self.name} with eps = {self.eps:g}, steps = {self.steps}, step = {self.step:g}: eps and step "
                "are grey levels above 0 and up to 255, steps at least 1."
            )

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, indices: Tensor, config: InputConfig
    ) -> Tensor:
        """(N, H, W, C) uint8 images -> (N, C, H, W) normalised adversarial ones, on the same device.

        `labels` (N,), or (N, K) marks of several labels an image, whose unknown entries push nowhere; `indices` (N,) into
        the data set. The gradient is taken in float32 whatever the precision around.
        """
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            return _normalised(self.pixels(model, images, labels, indices, config), config)

    def pixels(self, model: nn.Module, images: Tensor, labels: Tensor, indices: Tensor, config: InputConfig) -> Tensor:
        """The same before normalisation: (N, C, H, W) float32 in 0..1, within eps / 255 of the images."""
        clean = images.clone().permute(0, 3, 1, 2).float() / 255  # a clone: tensors of inference mode take no gradient
        eps = self.eps / 255
        low, high = (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)
        steps, step, x = (1, eps, clean) if self.name == "fgsm" else (self.steps, self.step / 255, clean)
        if self.name == "pgd" and self.random_start:
            x = (clean + eps * self._chance(clean, indices)).clamp(0, 1)
        ground_truth = labels.to(images.device).clone()
        for _ in range(steps):
            x = x.detach().requires_grad_()
            loss = _loss(model(_normalised(x, config)).float(), ground_truth)
            (gradient,) = torch.autograd.grad(loss, x)
            x = torch.clamp(x.detach() + step * gradient.sign(), low, high)
        return x.detach()

    def _chance(self, clean: Tensor, indices: Tensor) -> Tensor:
        """Uniform in -1..1 for each value, from (seed, index): batches and workers change nothing."""
        words = self.seed & 0xFFFF_FFFF_FFFF_FFFF
        rows = [np.random.default_rng([words, i]).random(clean.shape[1:], np.float32) for i in indices.tolist()]
        return torch.from_numpy(np.stack(rows) * 2 - 1).to(clean.device)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What an attack raises, summed over the images: cross-entropy; of (N, K) marks the binary one of each known entry."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    each = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits), reduction="none")
    return torch.where(labels == UNKNOWN, 0.0, each).sum()


def _normalised(x: Tensor, config: InputConfig) -> Tensor:
    """(N, C, H, W) in 0..1 -> as the network sees it, in channels-last memory; gradients pass."""
    mean, std = (torch.tensor(values, device=x.device).view(1, -1, 1, 1) for values in (config.mean, config.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)
