"""How a classifier is asked: logits of a batch, however little memory there is, and what they say of labelled images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.tasks.classification.answers import Answers, rescored
from convnext.tasks.classification.calibration import SOFTMAX, Scale
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.finite import NotFinite
from convnext.tasks.together import by_halves


def restricted(logits: Tensor, only: Sequence[int]) -> Tensor:
    """(N, K) logits with every class that is not in `only` at minus infinity; as they are where `only` is empty."""
    if not only:
        return logits
    out = torch.full_like(logits, -torch.inf)
    out[:, list(only)] = logits[:, list(only)]
    return out


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """`model(x)`, by halves where the whole does not fit in memory: evaluation must not end a run that trains."""
    parts = by_halves(x, lambda some: [model(some)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def outcomes_of(answers: Answers) -> Outcomes:
    """Of the logits of many images, as `judged` has those of a batch."""
    logits, labels, indices = (torch.from_numpy(each) for each in (answers.logits, answers.label, answers.index))
    return judged(logits, labels, indices)


def require_finite(logits: Tensor, paths: Sequence[str]) -> None:
    """Raise NotFinite, with the image's name, where (N, K) `logits` of the images at `paths` hold inf or nan."""
    finite = logits.isfinite().all(1)
    if not bool(finite.all()):
        raise NotFinite(paths[int(finite.int().argmin())])


def judged(logits: Tensor, labels: Tensor, indices: Tensor, scale: Scale = SOFTMAX) -> Outcomes:
    """Of (N, K) logits on the host, with (N,) labels and places in the dataset; `scale`: how logits become scores."""
    log_p = F.log_softmax(logits.float(), 1)
    found = Outcomes.of(*(column.numpy() for column in (log_p.exp(), log_p, labels, indices)))
    if scale == SOFTMAX:
        return found
    return rescored(found, scale.log_scores(logits.float().numpy()))
