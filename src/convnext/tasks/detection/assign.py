"""Which candidate learns which object: matching by overlap, and a random sample of the matches.

Axes: A candidates (anchors or proposals), M objects. A match is the object's number, BACKGROUND or IGNORED.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext.config import DetectorHeadConfig, StageConfig
from convnext.kernels import transfer
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
    among: Tensor | None = None,
) -> Tensor:
    """(A,) match of each of (A, 4) candidates with (M, 4) objects (arXiv 1506.01497, section 3.1.2).

    Its best object from an IoU of `positive` on; background where the best is below `negative`; ignored between.
    `least`, where given: whatever its other matches, the candidate that overlaps an object most is that object's, if
    only by `least`; among equals all are, and among objects that claim one candidate the last. Background with at least
    `crowd_cover` of its area inside one of (L, 4) `crowds` is ignored. Where (A,) `among` is given and false there is no
    candidate: it is ignored.
    """
    matches = torch.full((len(candidates),), BACKGROUND, device=candidates.device)
    if len(objects):
        overlaps = ious(candidates, objects)  # (A, M)
        if among is not None:
            overlaps = overlaps.masked_fill(~among[:, None], -1)
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
    return matches if among is None else matches.masked_fill(~among, IGNORED)


def places(masks: Sequence[Tensor]) -> list[Tensor]:
    """Where each of the (A,) `masks` is true, in order; a device that works through a queue is looked at once for all."""
    if not masks or not transfer.queued(masks[0].device):
        return [torch.nonzero(mask).flatten() for mask in masks]
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    return [torch.nonzero_static(mask, size=count).flatten() for mask, count in zip(masks, counts, strict=True)]


def sample(
    matches: Sequence[Tensor], count: int, positive_share: float, generator: torch.Generator | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Of each image, places of a random sample of its (A,) matches: (P,) objects, at most int(count * positive_share),
    and (B,) background.

    Background fills up to `count`; fewer than that are there only where candidates lack. A generator on the device of
    `matches` decides; without one, torch's own.
    """
    found = places([mask for each in matches for mask in (each >= 0, each == BACKGROUND)])
    chosen = []
    for of_objects, of_background in zip(found[::2], found[1::2], strict=True):
        objects = _choose(of_objects, int(count * positive_share), generator)
        chosen.append((objects, _choose(of_background, count - len(objects), generator)))
    return chosen


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
    matches = [_matched(*pair, config, stage) for pair in zip(proposals, targets, strict=True)]
    chosen = sample(matches, config.roi_samples, config.roi_positive_share, generator)
    parts = zip(proposals, targets, matches, chosen, strict=True)
    return [_sampled(*part, classes=config.classes) for part in parts]


def _matched(proposals: Tensor, target: Targets, config: DetectorHeadConfig, stage: StageConfig) -> Tensor:
    """The matches of the objects' own boxes, then of the proposals."""
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
    return torch.cat([torch.arange(len(known.boxes), device=matches.device), matches])


def _sampled(
    proposals: Tensor, target: Targets, matches: Tensor, places_of: tuple[Tensor, Tensor], *, classes: int
) -> Sampled:
    known, (objects, background) = target.single(), places_of
    candidates, chosen = torch.cat([known.boxes, proposals]), torch.cat([objects, background])
    which = matches[objects]
    labels = torch.full((len(chosen),), classes, device=matches.device)
    labels[: len(objects)] = known.labels[which]
    if not len(chosen):  # a crowd hides everything, but norms over a batch need something
        chosen, labels = matches.new_zeros(1), matches.new_full((1,), NEUTRAL)
    return Sampled(candidates[chosen], labels, which, known.boxes[which], chosen < len(known.boxes))
