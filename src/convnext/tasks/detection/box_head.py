"""Box heads: what is in a proposal, and where exactly; their losses, and the choice of what is shown.

Axes: R proposals of all images, C channels, S = 7 side of a pooled map, K classes, P proposals with an object.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from convnext.config import DetectorHeadConfig, StageConfig
from convnext.tasks.convolution import convolution
from convnext.tasks.detection.assign import Sampled
from convnext.tasks.detection.boxes import clip, decode, encode, gious
from convnext.tasks.detection.found import Size
from convnext.tasks.detection.types import Detections, require_finite

POOLED = 7
CONVOLUTIONS, LINEARS = 4, 2  # of a convolutional head (and one linear), of a linear one


class BoxHead(nn.Module):
    """Two linears, or four convolutions and one linear (arXiv 1711.07240), then a class and a box for each class."""

    def __init__(self, config: DetectorHeadConfig):
        super().__init__()
        self.classes = config.classes
        convolutional = config.box_head == "convolutional"
        count = CONVOLUTIONS if convolutional else 0
        self.convolutions = nn.Sequential(
            *(convolution(config.channels, config.channels, config.head_norm) for _ in range(count))
        )
        flat = config.channels * POOLED**2
        widths = [flat, config.hidden] if convolutional else [flat, *[config.hidden] * LINEARS]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.relu = nn.ReLU()
        self.score = nn.Linear(config.hidden, config.classes + 1)  # the background comes last
        self.delta = nn.Linear(config.hidden, 4 * config.classes)
        for linear in self.linears:
            nn.init.xavier_uniform_(linear.get_parameter("weight"))
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.delta.weight, std=0.001)
        for linear in (*self.linears, self.score, self.delta):
            nn.init.zeros_(linear.get_parameter("bias"))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (R, C, S, S) -> (R, K + 1) logits, (R, K, 4) deltas
        x = self.convolutions(x).flatten(1)
        for linear in self.linears:
            x = self.relu(linear(x))
        return self.score(x).float(), self.delta(x).float().unflatten(1, (self.classes, 4))


def box_losses(
    scores: Tensor, deltas: Tensor, sampled: Sequence[Sampled], config: DetectorHeadConfig, stage: StageConfig
) -> dict[str, Tensor]:
    """'score', cross-entropy over all R samples, and 'box', a sum over those with an object, over R as well.

    'l1' compares deltas, 'giou' (arXiv 1902.09630) decoded boxes. Each is times the stage's weight.
    """
    labels = torch.cat([each.labels for each in sampled])
    boxes = torch.cat([each.boxes for each in sampled])
    goals = torch.cat([each.goals for each in sampled])
    firsts = accumulate((len(each) for each in sampled[:-1]), initial=0)
    starts = zip(firsts, (len(each.objects) for each in sampled), strict=True)  # objects come first in each image
    positive = torch.cat([torch.arange(first, first + count, device=labels.device) for first, count in starts])
    chosen = deltas[positive, labels[positive]]  # (P, 4)
    if config.box_loss == "giou":
        box = (1 - gious(decode(boxes[positive], chosen, stage.stds), goals)).sum()
    else:
        box = (chosen - encode(boxes[positive], goals, stage.stds)).abs().sum()
    score = F.cross_entropy(scores, labels, reduction="sum")
    count = max(1, len(labels))
    return {"score": score * stage.weight / count, "box": box * config.box_loss_weight * stage.weight / count}


def select(
    boxes: Tensor, scores: Tensor, deltas: Tensor, size: Size, config: DetectorHeadConfig, stage: StageConfig
) -> Detections:
    """What is shown of one image: above the least score, suppressed within each class, the best `most`.

    (R, 4) proposals, (R, K + 1) logits and (R, K, 4) deltas; every class of a proposal is a candidate of its own.
    """
    require_finite(scores, deltas)
    probabilities = scores.softmax(-1)[:, :-1]  # (R, K)
    which, labels = torch.nonzero(probabilities > config.score, as_tuple=True)
    likely = probabilities[which, labels]
    found = clip(decode(boxes[which], deltas[which, labels], stage.stds), size)
    keep = batched_nms(found, likely, labels, config.nms_iou)[: config.most]
    return Detections(found[keep], likely[keep], labels[keep])
