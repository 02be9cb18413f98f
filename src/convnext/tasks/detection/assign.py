"""Which candidate learns which object: matching by overlap, and a random sample of the matches.

Axes: A candidates (anchors or proposals), M objects. A match is the object's number, BACKGROUND or IGNORED.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext.config import DetectorHeadConfig, StageConfig
from convnext.tasks.detection.boxes import covers, ious
from convnext.tasks.detection.types import Targets

BACKGROUND, IGNORED = -1, -2
NEUTRAL = -100  # label of a proposal that no loss sees; cross_entropy leaves this one out


def match(
    candidates: Tensor,
    objects: Tensor,
    *,
    positive: float,
    negative: float,
    least: float | None = None,
    crowds: Tensor | None = None,
    crowd_cover: float | None = 0.5,
) -> Tensor:
    """(A,) match of each of (A, 4) candidates with (M, 4) objects (arXiv 1506.01497, section 3.1.2).

    Its best object from an IoU of `positive` on; background where the best is below `negative`; ignored between.
    `least`, where given: whatever its other matches, the candidate that overlaps an object most is that object's, if
    only by `least`; among equals all are, and among objects that claim one candidate the last. Background with at least
    `crowd_cover` of its area inside one of (L, 4) `crowds` is ignored.
    """
    matches = torch.full((len(candidates),), BACKGROUND, device=candidates.device)
    if len(objects):
        overlaps = ious(candidates, objects)  # (A, M)
        best, which = overlaps.max(1)
        matches = matches.masked_fill(best >= negative, IGNORED)
        matches = torch.where(best >= positive, which, matches)
        if least is not None and len(candidates):
            most = overlaps.max(0).values  # (M,)
            numbers = torch.arange(len(objects), device=matches.device)
            last = torch.where((overlaps == most) & (most >= least), numbers, BACKGROUND).amax(1)
            matches = torch.where(last >= 0, last, matches)
    if crowds is not None and len(crowds) and crowd_cover is not None:
        hidden = (covers(candidates, crowds) >= crowd_cover).any(1)
        matches = matches.masked_fill(hidden & (matches == BACKGROUND), IGNORED)
    return matches


def sample(
    matches: Tensor, count: int, positive_share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Places of a random sample of `matches`: (P,) objects, at most int(count * positive_share), and (B,) background.

    Background fills up to `count`; fewer than that are there only where candidates lack. A generator on the device of
    `matches` decides; without one, torch's own.
    """
    objects = _choose(torch.nonzero(matches >= 0).flatten(), int(count * positive_share), generator)
    background = _choose(torch.nonzero(matches == BACKGROUND).flatten(), count - len(objects), generator)
    return objects, background


def _choose(places: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    if len(places) <= most:
        return places
    return places[torch.randperm(len(places), generator=generator, device=places.device)[:most]]


@dataclass(frozen=True)
class Sampled:
    """Proposals of one image that a head learns from; the P with an object come first.

    Axes: R of them in all, P with an object.
    """

    boxes: Tensor  # (R, 4)
    labels: Tensor  # (R,) the object's, K for background, or NEUTRAL
    objects: Tensor  # (P,) number of the object
    goals: Tensor  # (P, 4) box of the object
    given: Tensor  # (R,) bool: the box is an annotated one, not a proposal

    def __len__(self) -> int:
        return len(self.boxes)


def sample_proposals(
    proposals: Sequence[Tensor],
    targets: Sequence[Targets],
    config: DetectorHeadConfig,
    stage: StageConfig,
    generator: torch.Generator | None = None,
) -> list[Sampled]:
    """For each image, what a stage learns from; its objects' own boxes are proposals too, so that none goes unseen."""
    return [_sample_image(*pair, config, stage, generator) for pair in zip(proposals, targets, strict=True)]


def _sample_image(
    proposals: Tensor,
    target: Targets,
    config: DetectorHeadConfig,
    stage: StageConfig,
    generator: torch.Generator | None,
) -> Sampled:
    known = target.single()
    matches = match(
        proposals,
        known.boxes,
        positive=stage.iou,
        negative=stage.iou,
        least=stage.iou if config.match_low_quality else None,
        crowds=target.crowds(),
        crowd_cover=config.crowd_cover,
    )
    own = torch.arange(len(known.boxes), device=matches.device)
    candidates, matches = torch.cat([known.boxes, proposals]), torch.cat([own, matches])
    objects, background = sample(matches, config.roi_samples, config.roi_positive_share, generator)
    chosen = torch.cat([objects, background])
    which = matches[objects]
    labels = torch.full((len(chosen),), config.classes, device=matches.device)
    labels[: len(objects)] = known.labels[which]
    if not len(chosen):  # a crowd hides everything, but norms over a batch need something
        chosen, labels = own.new_zeros(1), own.new_full((1,), NEUTRAL)
    return Sampled(candidates[chosen], labels, which, known.boxes[which], chosen < len(own))
