"""Detectors and segmenters on a GPU: what is the same work for all images of a size is replayed, as classifiers are.

Axes: N images, C channels, H W rows and columns of the padded batch.
"""

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from convnext.config import AnnotatedInput
from convnext.deploy.optimize import foldable, optimize
from convnext.engine.room import images_together
from convnext.errors import ConvNeXtError
from convnext.kernels import transfer
from convnext.kernels.graphs import Graphs
from convnext.models.convnext import ConvNeXt
from convnext.streams import tell
from convnext.tasks.detection.detector import Detector
from convnext.tasks.detection.types import Detections, Images, Targets
from convnext.tasks.segmentation.segmenter import Segmenter
from convnext.tasks.together import TOGETHER

Dense = TypeVar("Dense", Detector, Segmenter)


class ReplayedDetector(nn.Module):
    """A detector whose backbone, pyramid and proposal network are recorded; which boxes there are, each image says anew."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector, self._look = detector, Graphs(detector.look, tell)

    def detect(self, images: Images | Sequence[Tensor]) -> list[Detections]:
        """As `Detector.detect`."""
        return self.detector.detect(images, self._look)

    def judge(
        self,
        images: Images | Sequence[Tensor],
        targets: Sequence[Targets],
        generator: torch.Generator | None = None,
    ) -> tuple[dict[str, Tensor], list[Detections]]:
        """As `Detector.judge`."""
        return self.detector.judge(images, targets, generator, self._look)


def folded(network: Dense, device: torch.device) -> Dense:
    """`network` with a folded backbone where it answers on a GPU, else itself; all other parts are shared with it."""
    given: Any = network.backbone.network
    if not transfer.queued(device) or not isinstance(given, ConvNeXt) or not foldable(given):
        return network
    whole = copy.deepcopy(given)
    whole.norm = nn.LayerNorm(network.backbone.widths[-1], device=device)  # of classification; no stage goes through it
    try:
        made = optimize(whole)
    except ConvNeXtError:  # someone put other layers into it
        return network
    backbone: Any = _sharing(network.backbone)
    backbone.network = made
    answering = _sharing(network)
    answering.backbone = backbone
    return answering


def images_of_a_pass(device: torch.device, config: AnnotatedInput) -> int:
    """How many images are answered together: on a GPU as many as fit, few; else one."""
    values = config.eval_short_px * config.eval_long_px * len(config.mean)
    return min(TOGETHER, images_together(device, values, 1))


def _sharing(module: Any) -> Any:
    """A copy of `module` that holds the same parts."""
    return copy.deepcopy(module, {id(part): part for part in module.children()})
