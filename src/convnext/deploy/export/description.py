"""What travels in the file of an exported network."""

from typing import Any

import torch

from convnext import __version__
from convnext.config import Bands
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.exported import VERSION
from convnext.deploy.forms.table import SEALED

KEPT = (
    "task",
    "weights",
    "score",
    "metrics",
    "step",
    "images",
    "val_share",
    "provenance",
    "thresholds",
    "decision",
)  # of the run's description


def description(predictor: ClassificationPredictor, precision: str) -> dict[str, Any]:
    """What travels in the file: enough to predict and evaluate as the run does, and for people to use it without us."""
    recipe, metadata = predictor.recipe, predictor.metadata
    size = recipe.input.eval_size_px
    shorter = int(size / recipe.input.eval_crop)
    resize = f"both sides to {size} px" if recipe.input.eval_resize == "warp" else f"shorter side to {shorter} px"
    scaled = "(value - mean) / std" if recipe.input.wide else "(value / 255 - mean) / std"
    return {
        "version": VERSION,
        "written_by": f"convnext {__version__}, torch {torch.__version__}",
        "digest": SEALED,
        "precision": precision,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(predictor.classes),
        "preprocessing": {
            "steps": f"{_read_as(recipe.input)}; {resize}, bicubic; centre of {size} px; {scaled}; (N, C, H, W) float32",
            "size_px": size,
            "mean": list(recipe.input.mean),
            "std": list(recipe.input.std),
        },
        **{name: metadata[name] for name in KEPT if name in metadata},
    }


def _read_as(config: Bands) -> str:
    """What a channel is."""
    names = ", ".join(config.bands)
    if not config.bands:
        return "RGB" if len(config.mean) == 3 else "grey"
    return f"bands {names} of {config.file_bands}" if config.numbers else f"files of bands {names}"
