"""What travels in the file of an exported network."""

from dataclasses import replace
from typing import Any

import torch

from convnext import __version__
from convnext.config import Bands, InputConfig, SegmentationRecipe
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.exported.opened import VERSION
from convnext.deploy.forms.table import SEALED
from convnext.deploy.predictor import Predictor
from convnext.deploy.verify.promises import COARSE, KEY, Promises, promises_of_run
from convnext.deploy.verify.reference import reference_of
from convnext.engine.run import ORIGIN

KEPT = (
    "task",
    "weights",
    "score",
    "metrics",
    "step",
    "images",
    "val_share",
    "drawn",
    "columns",
    "provenance",
    "thresholds",
    "decision",
    "given",
    "fold",
    "crosswise",
    *ORIGIN,
)  # of the run's description


def description(predictor: Any, precision: str) -> dict[str, Any]:
    """What travels in the file: enough to predict and evaluate as the run does, and for people to use it without us."""
    recipe, metadata = predictor.recipe, predictor.metadata
    classifies = recipe.task == "classification"
    return {
        "version": VERSION,
        "written_by": f"convnext {__version__}, torch {torch.__version__}",
        "digest": SEALED,
        "precision": precision,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(predictor.classes),
        "preprocessing": {
            **(_of_classifier(recipe.input) if classifies else _of_segmenter(recipe)),
            "mean": list(recipe.input.mean),
            "std": list(recipe.input.std),
        },
        **{name: metadata[name] for name in KEPT if name in metadata},
        KEY: promised(predictor, precision).to_dict(),
    }


def _of_classifier(config: InputConfig) -> dict[str, Any]:
    size = config.eval_size_px
    shorter = int(size / config.eval_crop)
    resize = f"both sides to {size} px" if config.eval_resize == "warp" else f"shorter side to {shorter} px"
    scaled, kind = numbers(config)
    return {
        "input": f"(N, H, W, C) {kind}, {read_as(config)}, as decoded and upright, of any size",
        "inside": f"{resize}, bicubic; centre of {size} px; {scaled}",
        "size_px": size,
    }


def _of_segmenter(recipe: SegmentationRecipe) -> dict[str, Any]:
    config, head = recipe.input, recipe.head
    fitted = f"fitted into {config.eval_short_px} x {config.eval_long_px} px, bilinear"
    scaled, kind = numbers(config)
    shape = f"(N, H, W, C) {kind}, {read_as(config)}"
    sides = f"windows of {head.window_px} px, {head.stride} px apart" if head.window_px else "sides filled up to 32 px"
    return {
        "input": f"{shape}, upright, {fitted}; {sides}; size: height and width that hold the image",
        "inside": f"{scaled}, 0 beyond the size",
    }


def of_int8(described: dict[str, Any], max_loss: float) -> dict[str, Any]:
    """What the promises become in int8: as near as was asked, `max_loss` points, and the scores no longer those of the run."""
    held = {name: value for name, value in described[KEY].items() if name != "reference"}
    return {**described, KEY: {**held, "tolerance": max(COARSE, max_loss / 100)}}


def promised(predictor: Predictor[Any], precision: str) -> Promises:
    """What the run promises, and what its network answers in float32 where that is a classifier."""
    metadata = {**predictor.metadata, "classes": list(predictor.classes)}
    if not isinstance(predictor, ClassificationPredictor):
        return promises_of_run(predictor.source, metadata, precision)
    exact = replace(predictor, recipe=predictor.recipe.model_copy(update={"precision": "fp32"}))
    return replace(promises_of_run(predictor.source, metadata, precision), reference=reference_of(exact, precision))


def numbers(config: Bands) -> tuple[str, str]:
    """What is made of the value of a pixel, and its type."""
    return ("(value - mean) / std", "float32") if config.wide else ("(value / 255 - mean) / std", "uint8")


def read_as(config: Bands) -> str:
    """What a channel is."""
    names = ", ".join(config.bands)
    if not config.bands:
        return "RGB" if len(config.mean) == 3 else "grey"
    return f"bands {names} of {config.file_bands}" if config.numbers else f"files of bands {names}"
