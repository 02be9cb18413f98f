"""Region proposals: where something is, whatever it is (arXiv 1506.01497, section 3.1).

Axes: N images, A anchors of an image over all levels, a anchors of a position, H W rows and columns of a level,
P proposals of an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, nms

from convnext.config import DetectorHeadConfig
from convnext.kernels import transfer
from convnext.kernels.transfer import constant
from convnext.tasks.convolution import Convolution, convolved
from convnext.tasks.detection.anchors import Anchors
from convnext.tasks.detection.assign import match, places, sample
from convnext.tasks.detection.boxes import clip, decode, encode
from convnext.tasks.detection.found import Size
from convnext.tasks.detection.types import Images, Targets

STDS = (1.0, 1.0, 1.0, 1.0)  # its deltas are not scaled
ONE_PIXEL = (0.0, 0.0, 1.0, 1.0)
AT_ONCE = 25_000  # boxes of some images that are suppressed together: memory grows with the square, 80 MB here


class RPN(nn.Module):
    """One small network that slides over every level: is there an object at each anchor, and how does its box differ?"""

    def __init__(self, config: DetectorHeadConfig, strides: Sequence[int]):
        super().__init__()
        self.config = config
        self.anchors = Anchors(strides, scale=config.anchor_scale, ratios=config.anchor_ratios)
        each = len(config.anchor_ratios)
        self.conv = Convolution(config.channels, config.channels)
        self.relu = nn.ReLU()
        self.score = nn.Conv2d(config.channels, each, 1)
        self.delta = nn.Conv2d(config.channels, 4 * each, 1)
        for layer in (self.conv, self.score, self.delta):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level, (N, H * W * a) logits and (N, H * W * a, 4) deltas, float32, in the anchors' order."""
        scores, deltas = [], []
        for level in pyramid:
            y = convolved(level, self.conv, None, self.relu)
            scores.append(self.score(y).permute(0, 2, 3, 1).flatten(1).float())
            deltas.append(self.delta(y).permute(0, 2, 3, 1).reshape(len(y), -1, 4).float())
        return scores, deltas

    def losses(
        self,
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        shapes: Sequence[tuple[int, int]],
        sizes: Sequence[Size],
        targets: Sequence[Targets],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """'rpn_score' and 'rpn_box': sums over a sample of each image's anchors, over the number of all samples."""
        device = scores[0].device
        anchors = torch.cat(self.anchors.grid(shapes, device))  # (A, 4)
        all_scores, all_deltas = torch.cat(list(scores), 1), torch.cat(list(deltas), 1)  # (N, A), (N, A, 4)
        score_loss, box_loss, samples = all_scores.sum() * 0, all_deltas.sum() * 0, 0
        matches = [
            self._matched(anchors, torch.cat(self.anchors.inside(shapes, size, device)), target)
            for size, target in zip(sizes, targets, strict=True)
        ]
        found = sample(matches, self.config.rpn_samples, self.config.rpn_positive_share, generator)
        for i, (objects, background) in enumerate(found):
            chosen, goals = torch.cat([objects, background]), targets[i].single().boxes[matches[i][objects]]
            ground_truth = (torch.arange(len(chosen), device=device) < len(objects)).float()
            score_loss = score_loss + F.binary_cross_entropy_with_logits(
                all_scores[i, chosen], ground_truth, reduction="sum"
            )
            wanted = encode(anchors[objects], goals, STDS)
            box_loss = box_loss + F.smooth_l1_loss(
                all_deltas[i, objects], wanted, reduction="sum", beta=self.config.rpn_beta
            )
            samples += len(chosen)
        return {"rpn_score": score_loss / max(1, samples), "rpn_box": box_loss / max(1, samples)}

    def _matched(self, anchors: Tensor, inside: Tensor, target: Targets) -> Tensor:
        """(A,) match of each anchor; ignored where it is not one of those (A,) `inside` the image."""
        config = self.config
        return match(
            anchors,
            target.single().boxes,
            positive=config.rpn_positive_iou,
            negative=config.rpn_negative_iou,
            least=config.rpn_negative_iou,
            crowds=target.crowds(),
            crowd_cover=config.crowd_cover,
            among=inside,
        )

    @torch.no_grad()
    def proposals(
        self,
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        shapes: Sequence[tuple[int, int]],
        images: Images,
        *,
        training: bool,
    ) -> list[Tensor]:
        """(P, 4) boxes of each image inside it, best first and less overlapping within each level; at least one."""
        config = self.config
        before = config.candidates_train if training else config.candidates_test
        after = config.proposals_train if training else config.proposals_test
        best_scores, boxes, levels = [], [], []
        for level, anchors in enumerate(self.anchors.grid(shapes, scores[0].device)):
            best, places = scores[level].topk(min(before, len(anchors)))  # (N, B) each
            chosen = deltas[level].gather(1, places[..., None].expand(-1, -1, 4))  # (N, B, 4)
            best_scores.append(best)
            boxes.append(decode(anchors[places].flatten(0, 1), chosen.flatten(0, 1), STDS).view_as(chosen))
            levels.append(torch.full_like(places[0], level))
        of_score, of_box, of_level = torch.cat(best_scores, 1), torch.cat(boxes, 1), torch.cat(levels)
        clipped = [clip(boxes, size) for boxes, size in zip(of_box, images.sizes, strict=True)]
        if transfer.queued(of_score.device):
            return _suppressed_together(torch.stack(clipped), of_score, of_level, config.proposal_nms_iou, after)
        pairs = zip(clipped, of_score, strict=True)
        return [_suppressed(boxes, scores, of_level, config.proposal_nms_iou, after) for boxes, scores in pairs]


def _suppressed(boxes: Tensor, scores: Tensor, levels: Tensor, iou: float, most: int) -> Tensor:
    """The best `most` of (B, 4) boxes that have an area; where none has, one pixel, so that no head goes without."""
    real = torch.nonzero((boxes[:, 2:] > boxes[:, :2]).all(1)).flatten()
    if not len(real):
        return boxes.new_tensor([ONE_PIXEL])
    boxes, scores, levels = boxes[real], scores[real], levels[real]
    return boxes[batched_nms(boxes, scores, levels, iou)[:most]]


def _suppressed_together(boxes: Tensor, scores: Tensor, levels: Tensor, iou: float, most: int) -> list[Tensor]:
    """The same of each image, from (N, B, 4) boxes and (N, B) scores; the device is looked at twice for some images.

    Boxes without an area overlap none: they stay, behind all others, until the places of those that are wanted are known.
    """
    real = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    boxes, scores = boxes.masked_fill(~real[..., None], 0), scores.masked_fill(~real, -torch.inf)
    groups = torch.arange(len(boxes), device=boxes.device)[:, None] * (levels.amax() + 1) + levels  # (N, B)
    apart = (
        boxes.double() + (groups * (boxes.amax() + 1).double())[..., None]
    )  # exact: float32 would round at such places
    found, each = [], max(1, AT_ONCE // boxes.shape[1])
    for first in range(0, len(boxes), each):
        some = slice(first, first + each)
        kept = nms(apart[some].flatten(0, 1), scores[some].flatten().double(), iou)  # (K,) places, best first
        image = kept.div(boxes.shape[1], rounding_mode="floor")
        wanted = real[some].flatten()[kept]
        own = places([wanted & (image == number) for number in range(len(boxes[some]))])
        flat = boxes[some].flatten(0, 1)
        found += [flat[kept[rows[:most]]] if len(rows) else constant(ONE_PIXEL, boxes.device)[None] for rows in own]
    return found
