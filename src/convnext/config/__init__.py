"""The frozen values that decide a run: one recipe type a task, its network, data, optimizer and schedule.

Everything that decides the numbers of a run is in its recipe; everything that does not (device, workers, folders) is in
`RunOptions`. Both are read once, at the top. No torch here, so that `convnext --help` answers at once.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from convnext.config.base import (
    Frozen,
    changed,
    described,
    fields_of,
    kinds_of,
    leaves_of,
    of_kinds,
    parse,
    plain,
)
from convnext.config.classification import (
    AugmentConfig,
    ClassificationRecipe,
    InputConfig,
    LossConfig,
    SelectConfig,
    StartConfig,
)
from convnext.config.detection import DetectionInput, DetectionRecipe, DetectorHeadConfig, StageConfig
from convnext.config.images import IMAGENET_MEAN, IMAGENET_STD, AnnotatedAugment, AnnotatedInput, Bands, Statistics
from convnext.config.networks import ConvNeXtConfig, GFNetConfig, ModelConfig, RoadmapConfig, TimmConfig
from convnext.config.segmentation import (
    SegmentationAugment,
    SegmentationHeadConfig,
    SegmentationInput,
    SegmentationLoss,
    SegmentationRecipe,
    UperNetConfig,
)
from convnext.config.training import OptimConfig, RunOptions, ScheduleConfig, TaskRecipe, Training
from convnext.errors import ConvNeXtError, nearest

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "TASKS",
    "AnnotatedAugment",
    "AnnotatedInput",
    "AugmentConfig",
    "Bands",
    "ClassificationRecipe",
    "ConvNeXtConfig",
    "DetectionInput",
    "DetectionRecipe",
    "DetectorHeadConfig",
    "Frozen",
    "GFNetConfig",
    "InputConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "RoadmapConfig",
    "RunOptions",
    "ScheduleConfig",
    "SegmentationAugment",
    "SegmentationHeadConfig",
    "SegmentationInput",
    "SegmentationLoss",
    "SegmentationRecipe",
    "SelectConfig",
    "StageConfig",
    "StartConfig",
    "Statistics",
    "TaskRecipe",
    "TimmConfig",
    "Training",
    "UperNetConfig",
    "described",
    "expect",
    "fields_of",
    "leaves_of",
    "override",
    "parse",
    "title_of",
]

Recipe = ClassificationRecipe | DetectionRecipe | SegmentationRecipe  # told apart by `task`
TASKS: dict[str, type[Recipe]] = {
    "classification": ClassificationRecipe,
    "detection": DetectionRecipe,
    "segmentation": SegmentationRecipe,
}

_R = TypeVar("_R", bound=TaskRecipe)
_LENGTHS = {"epochs": "steps", "warmup_epochs": "warmup_steps"}  # a schedule has one of each pair


def override(recipe: _R, changes: Mapping[str, Any]) -> _R:
    """`recipe` with dotted fields replaced, e.g. {'optim.lr': '1e-3'}; text values are read as JSON where they can be.

    With another `head.kind`, fields that both heads have keep their values, and the others have their defaults.
    Raises ConvNeXtError for an unknown field or one of another task or kind (with the nearest valid one), for a value
    that the field refuses, and for epochs where the recipe counts steps.
    """
    where = f"recipe '{recipe.name}'"
    recipe = of_kinds(recipe, changes, where=where)
    known = fields_of(recipe)
    for path in changes:
        if path not in known:
            raise ConvNeXtError(_unknown(recipe, path))
    values = changed(recipe, _one_length(recipe, changes))
    return parse(type(recipe), values, where=where)


def expect(recipe: TaskRecipe, kind: type[_R]) -> _R:
    """`recipe`, which must be a `kind`. Raises ConvNeXtError for a recipe of another task."""
    if not isinstance(recipe, kind):
        wanted = kind.model_fields["task"].default
        raise ConvNeXtError(f"recipe '{recipe.name}' is for {recipe.task}. Take one for {wanted}.")
    return recipe


def title_of(head: Mapping[str, Any]) -> str:
    """The name for people of the head of a saved recipe; of a kind that is not known here, the kind itself."""
    for recipe in TASKS.values():
        owner = kinds_of(recipe, "head").get(head.get("kind", ""))
        if owner is not None:
            return str(owner.model_construct(**head).title)  # type: ignore[attr-defined]
    return str(head.get("kind", ""))


def _unknown(recipe: TaskRecipe, path: str) -> str:
    """That there is no such field, whose it is where another task has it, and which one is near."""
    known = fields_of(recipe)
    owners = [task for task, kind in TASKS.items() if path in dict(leaves_of(kind))]
    if owners and recipe.task not in owners:
        near = nearest(path, known, cutoff=0.0)
        return f"'{path}' is for {' and '.join(owners)}; recipe '{recipe.name}' is for {recipe.task}.{near}"
    part, _, field = path.partition(".")
    kinds = [kind for kind, owner in kinds_of(type(recipe), part).items() if field in dict(leaves_of(owner))]
    if kinds and known[f"{part}.kind"] not in kinds:
        near = nearest(path, known, cutoff=0.0)
        return f"'{path}' is for {part}.kind {' and '.join(kinds)}, and this is {known[f'{part}.kind']}.{near}"
    return f"No recipe field is called '{path}'.{nearest(path, known)}"


def _one_length(recipe: TaskRecipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes`; steps that are given take the place of the recipe's epochs, epochs that of steps are refused."""
    found = dict(changes)
    for epochs, steps in _LENGTHS.items():
        in_epochs, in_steps = f"schedule.{epochs}", f"schedule.{steps}"
        if in_steps in changes and in_epochs not in changes and _given(changes[in_steps]):
            found[in_epochs] = None if epochs == "epochs" else 0.0
        counted = getattr(recipe.schedule, steps)
        if counted and in_epochs in changes and in_steps not in changes and _given(changes[in_epochs]):
            raise ConvNeXtError(
                f"recipe '{recipe.name}' counts steps, so {in_epochs} = {changes[in_epochs]} does not decide it. "
                f"Give --{in_steps} (now {counted})."
            )
    return found


def _given(value: Any) -> bool:
    """Whether a length is one: not none and not 0."""
    return bool(plain(value) if isinstance(value, str) else value)
