"""A run or a checkpoint of any task in, what answers for it out."""

from pathlib import Path

from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.exported import is_exported
from convnext.deploy.predictor import Predictor, of_exported
from convnext.deploy.segmenter import SegmentationPredictor
from convnext.deploy.trained import read_trained
from convnext.engine.distributed import choose_device

AnyPredictor = Predictor | DetectionPredictor | SegmentationPredictor


def load(source: str | Path, *, weights: str = "best", device: str = "auto") -> AnyPredictor:
    """The predictor of a run folder, a checkpoint or a file of `convnext export`: `Predictor`, `DetectionPredictor` or
    `SegmentationPredictor`, by the task that it was trained for.

    `weights`: 'best' (raw or EMA, whichever scored higher), 'raw', 'ema' or 'last'; a file has only its own.
    Raises CheckpointError when there is nothing to load or it is damaged.
    """
    if is_exported(source):
        return of_exported(source)
    trained = read_trained(source, weights)
    kinds: dict[str, type[AnyPredictor]] = {"detection": DetectionPredictor, "segmentation": SegmentationPredictor}
    return kinds.get(trained.recipe.task, Predictor).of(trained, choose_device(device))
