"""An exported network in int8: calibrated on some images, judged by others, timed beside the float one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convnext.data.labelled import Dataset
from convnext.deploy import int8
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.export.compared import Compared, answers
from convnext.deploy.export.description import of_int8
from convnext.deploy.exported.classifier import ExportedClassifier
from convnext.deploy.exported.opened import megabytes, move
from convnext.deploy.forms import table
from convnext.deploy.forms.seal import seal
from convnext.engine.records import info
from convnext.errors import ConvNeXtError
from convnext.tasks.classification.passing import Pass


@dataclass(frozen=True)
class Quantization:
    """What is asked of an int8 network."""

    data: str  # labelled images to calibrate and to judge on
    images: int  # of the calibration
    max_loss: float  # points of top-1, of several labels of mean average precision
    backend: str
    workers: int


def to_int8(
    made: Path,
    form: table.Form,
    predictor: ClassificationPredictor,
    described: dict[str, Any],
    asked: Quantization,
    compared: Compared,
) -> tuple[str, list[str], dict[str, Any]]:
    """Replace the float file `made` of `form` by its int8 form where that is good enough: (variant, notes, figures).

    `compared`: its images are timed. Raises ConvNeXtError where every variant costs too much.
    """
    train, val = int8.parts_for(asked.data, predictor.classes, predictor.metadata)
    if asked.images < 1:
        raise ConvNeXtError(f"--calibrate {asked.images} must be 1 image or more.")
    images = int8.calibration(train, predictor.recipe.input, asked.images, predictor.recipe.seed)
    info(f"Calibrating on {len(images):,} images, judging by {len(val.entries):,} others.")
    floats = reopened(made, asked.backend)
    compare = _judge(floats, val, asked.workers)
    small = made.with_name(f"int8{made.suffix}")
    quantize = table.called(form.quantizer)

    def judged(variant: str) -> int8.Comparison:
        about = {"precision": "int8", "int8": {"variant": variant, "calibrated_on": len(images)}}
        quantize(made, small, images, variant, of_int8(described, asked.max_loss) | about)
        seal(small)
        return compare(reopened(small, asked.backend))

    variant, found = int8.first_within(tuple(int8.VARIANTS), judged, asked.max_loss, info)
    quick, shown = reopened(small, asked.backend), compared.shown
    contestants = {
        "float": lambda: floats.logits(shown),
        "int8": lambda: quick.logits(shown),
        "torch": lambda: answers(predictor, shown),
    }
    times = int8.in_turn(contestants)
    faster = int8.ratio(times["float"], times["int8"]), int8.ratio(times["torch"], times["int8"])
    sizes = megabytes(made), megabytes(small)
    move(small, made)
    notes = [
        *found.text(asked.max_loss).split("\n"),
        f"speed on {len(shown)} images: {faster[0]:.2f} times the same network in float32 under {floats.model.backend}, "
        f"{faster[1]:.2f} times plain torch",
        f"size: {sizes[0]:.1f} -> {sizes[1]:.1f} MB",
    ]
    names = ("n", "figure", "before", "after", "loss", "doubt", "agreement")
    figures = {"int8": {name: getattr(found, name) for name in names} | {"speed": faster[0], "speed_torch": faster[1]}}
    return variant, notes, figures


def _judge(floats: ExportedClassifier, val: Dataset, workers: int) -> Callable[[ExportedClassifier], int8.Comparison]:
    """What compares another form of `floats` with it on `val`: by top-1, of several labels by mean average precision."""
    how = Pass(workers)
    if floats.several:
        marked, least = floats.label_outcomes(val, how), floats.thresholds.array()
        return lambda quick: int8.Comparison.of_labels(marked, quick.label_outcomes(val, how), least)
    before = floats.outcomes(val, how)
    return lambda quick: int8.Comparison.of(before, quick.outcomes(val, how))


def reopened(made: Path, backend: str) -> ExportedClassifier:
    """The classifier in a file, on as many threads as torch uses."""
    return ExportedClassifier.of(made, backend=backend, threads=torch.get_num_threads())
