"""A network that answers inf or nan is refused with the image's name: its best class is nobody's answer, and a detector
would find nothing, in silence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import TASKS, checkpoint_of
from convnext.data.labelled import Dataset, Entry
from convnext.data.opening import open_dense, recognise
from convnext.data.store import FolderStore
from convnext.deploy.exported.classifier import ExportedClassifier
from convnext.deploy.exported.opened import Exported
from convnext.deploy.load import load
from convnext.engine import checkpoint
from convnext.errors import ConvNeXtError
from shape_objects import write_objects
from shapes import write_shapes

REASON = r"answers inf or nan for '.*': its numbers grow beyond what its precision holds\. Take other weights"


def overflowing(task: str, folder: Path, part: str) -> Any:
    """A predictor whose weights are finite, and what its `part` makes of them is not."""
    file = checkpoint_of(task, folder)
    tensors, metadata = checkpoint.read(file)
    chosen = [name for name in tensors if part in name and name.endswith(("weight", "bias"))]
    assert chosen
    changed = {name: torch.full_like(value, 3e38) if name in chosen else value for name, value in tensors.items()}
    checkpoint.save(file, changed, metadata)
    return load(file, device="cpu")


def image(folder: Path) -> Path:
    file = folder / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    return file


@pytest.mark.parametrize(
    ("task", "part"),
    [
        ("classification", "head"),
        ("segmentation", "decoder.classify"),
        ("detection", "rpn.score"),
        ("detection", "heads.box.score"),
        ("detection", "heads.box.delta"),
        ("detection", "heads.mask.mask"),
        ("detection", "fpn"),
    ],
)
def test_a_prediction_is_refused_with_the_name_of_the_image(task, part, tmp_path):
    predictor = overflowing(task, tmp_path, part)
    with pytest.raises(ConvNeXtError, match=REASON):
        predictor(image(tmp_path))
    with pytest.raises(ConvNeXtError, match=REASON):
        list(predictor.predict([image(tmp_path)]))


@pytest.mark.parametrize("task", TASKS)
def test_features_that_are_no_numbers_are_refused(task, tmp_path):
    predictor = overflowing(task, tmp_path, "stages.0" if task == "classification" else "backbone")
    with pytest.raises(ConvNeXtError, match=REASON):
        list(predictor.embed([image(tmp_path)]))


def labelled(folder: Path) -> Dataset:
    image(folder)
    return Dataset(("a", "b"), (Entry("x.png", 0),), FolderStore(str(folder)))


def test_an_evaluation_of_a_classifier_is_refused_also_of_an_exported_one(tmp_path):
    predictor = overflowing("classification", tmp_path, "head")
    with pytest.raises(ConvNeXtError, match=REASON):
        predictor.outcomes(labelled(tmp_path))
    network = Exported(
        tmp_path / "x.onnx", "none", lambda x, outputs: [np.full((len(x), 2), np.nan, np.float32) for _ in outputs], {}
    )
    exported = ExportedClassifier(network, predictor.recipe, ("a", "b"), "cpu", tmp_path / "x.onnx", {})
    with pytest.raises(ConvNeXtError, match=REASON):
        exported.outcomes(labelled(tmp_path))
    with pytest.raises(ConvNeXtError, match=REASON):
        exported(tmp_path / "x.png")


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_an_evaluation_of_annotated_images_is_refused(task, tmp_path):
    data = (
        write_objects(tmp_path / "d", train=1, val=1)
        if task == "detection"
        else write_shapes(tmp_path / "d", train=1, val=1)
    )
    predictor = overflowing(task, tmp_path, "heads.box.score" if task == "detection" else "decoder.classify")
    source = recognise(data)
    dataset = open_dense(source)
    with pytest.raises(ConvNeXtError, match=REASON):
        predictor.outcomes(replace(dataset, classes=predictor.classes))
