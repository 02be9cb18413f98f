"""A run, a checkpoint or an exported file in, the predictor of its task out."""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from convnext.deploy.exported.opened import is_exported, open_exported
from convnext.deploy.predictor import Predictor
from convnext.errors import CheckpointError, nearest

if TYPE_CHECKING:
    from convnext.deploy.classifier import ClassificationPredictor
    from convnext.deploy.detector import DetectionPredictor
    from convnext.deploy.prediction import Prediction
    from convnext.deploy.segmenter import SegmentationPredictor

Source = str | os.PathLike[str]
TaskName = Literal["classification", "detection", "segmentation"]

# imported when one is needed: an exported file is loaded without torch, and a classifier without the seconds of detection
_PREDICTORS = {  # task -> module, class
    "classification": ("convnext.deploy.trained.classifier", "TrainedClassifier"),
    "detection": ("convnext.deploy.trained.detector", "TrainedDetector"),
    "segmentation": ("convnext.deploy.trained.segmenter", "TrainedSegmenter"),
}
_EXPORTED = {  # the same of exported files
    "classification": ("convnext.deploy.exported.classifier", "ExportedClassifier"),
    "detection": ("convnext.deploy.exported.detector", "ExportedDetector"),
    "segmentation": ("convnext.deploy.exported.segmenter", "ExportedSegmenter"),
}


@overload
def load(
    source: Source, *, task: Literal["classification"], weights: str = ..., device: str = ..., plain: bool = ...
) -> "ClassificationPredictor": ...
@overload
def load(
    source: Source, *, task: Literal["detection"], weights: str = ..., device: str = ..., plain: bool = ...
) -> "DetectionPredictor": ...
@overload
def load(
    source: Source, *, task: Literal["segmentation"], weights: str = ..., device: str = ..., plain: bool = ...
) -> "SegmentationPredictor": ...
@overload
def load(
    source: Source, *, task: None = ..., weights: str = ..., device: str = ..., plain: bool = ...
) -> "Predictor[Prediction]": ...


def load(
    source: Source,
    *,
    task: TaskName | None = None,
    weights: str = "best",
    device: str = "auto",
    plain: bool = False,
) -> Any:
    """The predictor of a run folder, a checkpoint, a file of `convnext export`, or a run that was pushed, 'hub:OWNER/NAME'.

    `task`: what it must have been trained for, where the caller relies on it; None: anything. `weights`: 'best' (raw or
    EMA, whichever scored higher), 'raw', 'ema' or 'last'; a file has only its own. A file of `convnext export` runs on
    the CPU. `plain`: nothing of a classifier is folded. Raises CheckpointError when there is nothing to load, it is
    damaged, or for another task.
    """
    if task is not None and task not in _PREDICTORS:
        raise CheckpointError(f"task = '{task}' is none of {', '.join(_PREDICTORS)}.{nearest(task, _PREDICTORS)}")
    source = Path(source)
    if is_exported(source):
        network = open_exported(source)
        found = str(network.description["recipe"].get("task"))
        _require_task(source, found, task)
        if found not in _EXPORTED:
            raise CheckpointError(
                f"'{source}' is for '{found}', which exported files are not loaded for. Load its run."
            )
        module, name = _EXPORTED[found]
        return getattr(import_module(module), name).around(network)
    trained = import_module("convnext.deploy.trained.checkpoint").read_trained(source, weights)
    found = trained.recipe.task
    _require_task(source, found, task)
    module, name = _PREDICTORS[found]
    place = import_module("convnext.engine.distributed").choose_device(device)
    more = {"plain": plain} if found == "classification" else {}
    return getattr(import_module(module), name).of(trained, place, **more)


def _require_task(source: Path, found: str, task: str | None) -> None:
    """Refuse a network for another task than the one that the caller relies on."""
    if task not in (None, found):
        raise CheckpointError(f"'{source}' is for {found}, and {task} is needed here. Name a run of that task.")
