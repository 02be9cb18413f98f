"""Which places of an image speak for a class: Grad-CAM, LayerCAM, and the exact class activation map.

cam: what each position of the last maps adds to the logit (`convnext.models.cut.shares`), for and against.
gradcam: relu(sum over C of mean(gradient) * map), Selvaraju et al. 2017, arXiv 1610.02391, section 3.
layercam: relu(sum over C of relu(gradient) * map), Jiang et al. 2021, LayerCAM, IEEE TIP 30.

Axes: N images, C channels, h w positions of a map, K classes, M classes that are explained.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnext.config import ClassificationRecipe
from convnext.data.evaluation import seen_box
from convnext.data.transforms import normalise
from convnext.deploy.classifier import stacked
from convnext.deploy.explanation import Explanation, Method, View
from convnext.deploy.images import Read
from convnext.errors import ConvNeXtError, nearest
from convnext.models.cut import Cut, cut_at, inexact, shares

_LEAST = 7  # positions a side of the maps that 'auto' takes, as 224 px leave at the end; measured, see docs/explain.md
_TOGETHER = 16  # classes of an image whose gradients are taken at once


def explanations(
    model: Any,
    read: Sequence[Read],
    recipe: ClassificationRecipe,
    scores: NDArray[np.float32],
    names: Sequence[str],
    *,
    device: torch.device,
    classes: Sequence[int] = (),
    method: Method = "auto",
    stage: int | None = None,
) -> Iterable[Explanation]:
    """What speaks for `classes`, by default the likeliest, on each image; `scores` are the (N, K) probabilities.

    The network runs in float32 and in torch's own operations. Raises ConvNeXtError for a network without maps, a stage
    that it does not have, and 'cam' where the logits are no sums over positions.
    """
    with torch.inference_mode(False), torch.no_grad():
        cut = cut_at(model, stage)
        chosen = chosen_method(model, cut, method)
        x = normalise(torch.from_numpy(stacked(read)).to(device), recipe.input)
        maps = cut.before(x)
        while method == "auto" and stage is None and cut.stage > 1 and min(maps.shape[2:]) < _LEAST:
            cut = cut_at(model, cut.stage - 1)
            maps = cut.before(x)
    for one, row, image_maps in zip(read, scores, maps, strict=True):
        asked = list(classes) or [int(row.argmax())]
        grids, logits, constants = _CHOICES[chosen](model, cut, image_maps[None], asked)
        yield Explanation(
            given=one.given,
            image_id=one.image_id,
            size=one.size,
            classes=tuple(names[k] for k in asked),
            scores=tuple(float(row[k]) for k in asked),
            logits=tuple(logits),
            constants=None if constants is None else tuple(constants),
            method=chosen,
            stage=cut.stage,
            grids=grids.float().cpu().numpy(),
            view=_view(one.size, recipe, cut, grids.shape[1:]),
        )


def chosen_method(model: Any, cut: Cut, method: str) -> str:
    """`method`; of 'auto' Grad-CAM. Raises ConvNeXtError for another, and where it does not fit."""
    if method not in get_args(Method):
        raise ConvNeXtError(
            f"method = '{method}' is none of {', '.join(get_args(Method))}.{nearest(method, get_args(Method))}"
        )
    early, reason = cut.stage < cut.last, inexact(model)
    if method == "cam" and reason:
        raise ConvNeXtError(
            f"method = 'cam' is refused: the logits of '{model.config.name}' are no sums over positions, for {reason}. "
            "Take gradcam."
        )
    if method == "cam" and early:
        raise ConvNeXtError(
            f"method = 'cam' is of the last stage, {cut.last}, and stage = {cut.stage} is named. Take gradcam."
        )
    return "gradcam" if method == "auto" else method


def numbers_of(classes: str | Sequence[str] | None, names: Sequence[str]) -> list[int]:
    """The places of `classes` among `names`, each once. Raises ConvNeXtError for one that is not there."""
    given = [classes] if isinstance(classes, str) else list(classes or ())
    for name in given:
        if name not in names:
            raise ConvNeXtError(f"The network knows no class '{name}'.{nearest(str(name), names)} It has {len(names)}.")
    return [names.index(name) for name in dict.fromkeys(given)]


def _exact(model: Any, cut: Cut, maps: Tensor, classes: Sequence[int]) -> tuple[Tensor, list[float], list[float]]:
    """(M, h, w), M logits, and M constants."""
    with torch.inference_mode(False), torch.no_grad():
        grids, constants = shares(model, maps, classes)
    logits = grids[0].sum((1, 2)) + constants
    return grids[0], logits.tolist(), constants.tolist()


def _gradcam(model: Any, cut: Cut, maps: Tensor, classes: Sequence[int]) -> tuple[Tensor, list[float], None]:
    gradients, logits = _gradients(cut, maps, classes)
    return (gradients.mean((2, 3), keepdim=True) * maps).sum(1).relu(), logits, None


def _layercam(model: Any, cut: Cut, maps: Tensor, classes: Sequence[int]) -> tuple[Tensor, list[float], None]:
    gradients, logits = _gradients(cut, maps, classes)
    return (gradients.relu() * maps).sum(1).relu(), logits, None


def _gradients(cut: Cut, maps: Tensor, classes: Sequence[int]) -> tuple[Tensor, list[float]]:
    """(M, C, h, w) of the logit of each class by the maps (1, C, h, w), and the M logits."""
    gradients: list[Tensor] = []
    logits: list[float] = []
    for first in range(0, len(classes), _TOGETHER):
        some = list(classes[first : first + _TOGETHER])
        with torch.inference_mode(False), torch.enable_grad():
            leaf = maps.expand(len(some), -1, -1, -1).detach().clone().requires_grad_()
            own = cut.after(leaf)[range(len(some)), some]
            gradients += torch.autograd.grad(own.sum(), leaf)
        logits += own.tolist()
    return torch.cat(gradients), logits


_CHOICES: dict[str, Callable[..., tuple[Tensor, list[float], list[float] | None]]] = {
    "cam": _exact,
    "gradcam": _gradcam,
    "layercam": _layercam,
}


def _view(size: tuple[int, int], recipe: ClassificationRecipe, cut: Cut, positions: Sequence[int]) -> View:
    side = recipe.input.eval_size_px
    stride = cut.stride_px or side / positions[0]
    return View(seen_box(*size, recipe.input), side, stride, cut.first_px if cut.stride_px else stride / 2)
