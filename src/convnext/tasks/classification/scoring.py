"""A classifier on labelled images: one outcome an image, and the figures made of them."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from convnext.config import ClassificationRecipe
from convnext.data.batch import Batch
from convnext.data.labelled import Dataset
from convnext.data.loader import eval_batches
from convnext.data.transforms import normalise
from convnext.engine.distributed import ALONE, World
from convnext.engine.records import watched
from convnext.errors import DataError
from convnext.kernels.transfer import fetched, sent
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.calibration import SOFTMAX, Scale
from convnext.tasks.classification.conclusion import HELD_OUT, NOTHING, TEST, Wanted, conclude
from convnext.tasks.classification.decision import KEY, PLAIN, Decision
from convnext.tasks.classification.inference import judged, logits, outcomes_of, require_finite, restricted
from convnext.tasks.classification.metrics import Outcomes, joined
from convnext.tasks.classification.passing import Pass
from convnext.tasks.result import Evaluation
from convnext.tasks.skipped import note_skipped

_Part = TypeVar("_Part")


def evaluation(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    workers: int = 0,
    batch: int = 0,
    world: World = ALONE,
    skipped: dict[str, str] | None = None,
    progress: bool = False,
    decision: Decision = PLAIN,
    **asked_for: Any,
) -> Evaluation:
    """What `evaluation.json` holds of a classifier whose answers follow `decision`; `asked_for` is that of `conclude`."""
    how = Pass(workers, batch, progress, skipped=skipped)

    def asked(images: Dataset) -> Iterator[Answers]:
        return map(_answers, _passes(model, images, recipe, how, world))

    return conclude(dataset, asked, decision, gather=world.gather, judge=outcomes_of, **asked_for)


def final(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    *,
    judged: tuple[Dataset, Answers] | None = None,
    wanted: Wanted = NOTHING,
    test: Dataset | None = None,
    **how: Any,
) -> Evaluation:
    """`evaluation` at the end of a run, where the scores are fitted to the held-out images.

    `judged`: images and what was answered to them, in place of `dataset`; `test`: images that decided nothing, for what is
    `wanted`.
    """
    fitting: dict[str, Any] = {"fit": True, "wanted": wanted if test is None else NOTHING, "measured": HELD_OUT}
    if judged is None:
        found = evaluation(model, dataset, recipe, **fitting, **how)
    else:
        found = conclude(judged[0], lambda _: [judged[1]], PLAIN, judge=outcomes_of, **fitting)
    if test is None or not wanted:
        return found
    own = Decision.of(found.about, "evaluation.json")
    told = evaluation(model, test, recipe, decision=own, wanted=wanted, measured=TEST, **how)
    return found.with_about(**{name: told.about[name] for name in (KEY, "promise", "sets") if name in told.about})


def answers(
    model: nn.Module, dataset: Dataset, recipe: ClassificationRecipe, how: Pass, *, world: World = ALONE
) -> Answers:
    """The logits of every readable image of `dataset`, all at once; the rest as in `evaluate`."""
    parts = list(map(_answers, _passes(model, dataset, recipe, how, world)))
    return Answers.join(_gathered(parts, dataset, world))


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    how: Pass,
    *,
    world: World = ALONE,
    only: Sequence[int] = (),
    scale: Scale = SOFTMAX,
) -> Outcomes:
    """What `model`, in its present mode and precision, makes of every readable image of `dataset`.

    `only`: the classes that may be answered, for data whose classes are a part of the model's; empty for all. `scale`: how
    logits become scores. Raises DataError when no image could be read.
    """
    passes = _passes(model, dataset, recipe, how, world)
    parts = (judged(restricted(out, only), labels, places, scale) for out, labels, places in passes)
    return Outcomes.join(_gathered(list(joined(parts, Outcomes.join)), dataset, world))


def _gathered(parts: list[_Part], dataset: Dataset, world: World) -> list[_Part]:
    """Those of all processes. Raises DataError where no image of `dataset` could be read."""
    found = [part for each in world.gather(parts) for part in each]
    if not found:
        raise DataError(f"None of the {len(dataset.entries)} images to evaluate on could be read.")
    return found


def _passes(
    model: nn.Module,
    dataset: Dataset,
    recipe: ClassificationRecipe,
    how: Pass,
    world: World,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(N, K) logits, (N,) labels and (N,) places in the dataset, of each batch of this process's share of the images.

    All of it on the host; the device works on a batch while what became of the one before is looked at.
    """
    device, config = next(model.parameters()).device, recipe.input

    def asked(passing: Iterator[Batch]) -> Iterator[tuple[Batch, Tensor]]:
        for raw in passing:
            note_skipped(raw.skipped, how.skipped if how.skipped is not None else {})
            if len(raw.labels):
                images = sent(raw.images, device)
                given = (model, images, raw.labels, raw.indices, config)
                x = how.attack(*given) if how.attack else normalise(images, config)
                yield raw, logits(model, x).float()

    sized: dict[str, Any] = {"batch": how.batch or eval_batch(recipe), "share": (world.rank, world.size)}
    batches = eval_batches(dataset, config, workers=how.workers, change=how.change, **sized)
    with watched(batches, len(dataset.entries) // world.size, shown=how.progress and world.first) as passing:
        for raw, found in fetched(asked(passing)):
            require_finite(found, [dataset.entries[index].path for index in raw.indices.tolist()])
            yield found, raw.labels, raw.indices


def _answers(found: tuple[Tensor, Tensor, Tensor]) -> Answers:
    logits, labels, places = (column.numpy() for column in found)
    return Answers(places, labels, logits)


def eval_batch(recipe: ClassificationRecipe) -> int:
    """Images per forward pass in evaluation; no gradients, so more fit than in training."""
    return min(256, max(16, 3 * recipe.optim.batch // 2))
