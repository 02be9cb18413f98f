"""Weights of any family as something that gives features: a classifier without a run, with the preprocessing they ask for."""

from pathlib import Path
from typing import Any

import torch

from convnext.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentConfig,
    ClassificationRecipe,
    InputConfig,
    OptimConfig,
    ScheduleConfig,
)
from convnext.deploy.exported.opened import is_exported
from convnext.deploy.load import load
from convnext.deploy.trained.checkpoint import Trained
from convnext.deploy.trained.classifier import TrainedClassifier
from convnext.engine.distributed import choose_device
from convnext.engine.records import info
from convnext.errors import CheckpointError
from convnext.models.build import build_model
from convnext.models.start import Start, read_start
from convnext.models.tensors import read_header, record_of

SIZE_PX, CROP = 224, 0.875  # where the weights do not say: those of the paper's evaluation


def load_features(source: str | Path, *, weights: str = "best", device: str = "auto") -> Any:
    """The predictor of a run, a checkpoint or an exported file, or one that `embed`s by weights of any family.

    What was adapted on reading weights is told. Raises CheckpointError as `load` and `read_start` do.
    """
    if is_exported(source) or _is_run(Path(source)):
        return load(source, weights=weights, device=device)
    start = read_start(source)
    for note in start.notes:
        info(note)
    return of_start(start, choose_device(device))


def of_start(start: Start, device: torch.device) -> TrainedClassifier:
    """The network of `start` with its preprocessing; what it does not say is ImageNet's, at 224 px."""
    config = start.config
    colour = config.in_channels == len(IMAGENET_MEAN)
    means = (IMAGENET_MEAN, IMAGENET_STD) if colour else ((0.449,) * config.in_channels, (0.226,) * config.in_channels)
    recipe = ClassificationRecipe(
        name="start",
        source=start.source,
        model=config,
        input=InputConfig(
            mean=start.mean or means[0],
            std=start.std or means[1],
            size_px=start.size_px or SIZE_PX,
            eval_size_px=start.size_px or SIZE_PX,
            eval_crop=start.eval_crop or CROP,
        ),
        augment=AugmentConfig(),
        optim=OptimConfig(lr=1e-3, batch=1),
        schedule=ScheduleConfig(epochs=1),
    )
    model = build_model(config)
    fresh = {
        name: value for name, value in model.state_dict().items() if name.startswith(("norm.", "hidden.", "head."))
    }
    trained = Trained(recipe, start.classes or (), start.path, {}, {**fresh, **start.tensors})
    return TrainedClassifier(trained.into(model, device), recipe, trained.classes, device, start.path, {})


def _is_run(path: Path) -> bool:
    """Whether `path` is a run's folder or a file that holds the recipe it was trained by."""
    if path.is_dir():
        model = path / "model.safetensors"
        return (
            _is_run(model)
            if model.is_file()
            else any(path.glob("*.safetensors")) and not (path / "config.json").exists()
        )
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        return "recipe" in record_of(read_header(path))
    except CheckpointError:
        return False
