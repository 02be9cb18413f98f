"""samples.jpg: what a detector or a segmenter is trained on, drawn before the first step."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import convnext, trained
from convnext.config import override
from convnext.data.annotated_loader import train_dense_batches
from convnext.data.annotated_policy import in_training
from convnext.data.opening import open_dense_splits, recognise
from convnext.drawing.palette import colour_of
from convnext.drawing.sheet import GAP_PX
from convnext.recipes import recipe
from convnext.reports.samples import FILE, draw_samples
from images import write_colours
from shape_objects import small, write_objects
from shapes import write_shapes
from test_cli_dense import arguments


def sheet_of(file: Path) -> np.ndarray:
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        assert image.format == "JPEG"
        return np.asarray(image)


def test_the_classes_of_masks_tint_the_images_that_training_sees_first(tmp_path):
    splits = open_dense_splits(recognise(write_shapes(tmp_path / "maps", train=6, val=2)))
    chosen = recipe("small_segmentation", "atto", images=6, image_px=40, classes=3)
    assert draw_samples(tmp_path, chosen, splits) == tmp_path / FILE
    pixels = sheet_of(tmp_path / FILE).astype(float)
    side = chosen.input.crop_px + GAP_PX
    assert pixels.shape == (2 * side, 4 * side, 3)  # six crops in rows of four
    steps = {"steps": range(1), "steps_per_epoch": 3, "batch": 2, "seed": chosen.seed}
    (batch,) = train_dense_batches(splits.train, in_training(chosen.input, chosen.augment), **steps)
    for place, sample in enumerate(batch.samples):  # the first places of the run's own order
        left = place * side + GAP_PX // 2
        cell = pixels[GAP_PX // 2 : GAP_PX // 2 + side - GAP_PX, left : left + side - GAP_PX]
        for label in (0, 1, 2):
            inside = sample.semantic == label
            if inside.sum() > 100:
                tinted = 0.55 * sample.image[inside] + 0.45 * np.array(colour_of(label))
                assert np.abs(cell[inside].mean(0) - tinted.mean(0)).max() < 8  # as far as JPEG keeps colours


@pytest.mark.parametrize("masks", [True, False])
def test_boxes_and_outlines_are_drawn(tmp_path, masks):
    splits = open_dense_splits(recognise(write_objects(tmp_path / "coco", train=3, val=2, masks=masks)))
    chosen = override(small(), {"head.masks": masks, "augment.hflip": 0})
    draw_samples(tmp_path, chosen, splits)
    drawn = sheet_of(tmp_path / FILE).astype(int)
    near = [(np.abs(drawn - np.array(colour_of(label))).max(2) < 60).any() for label in (0, 1)]
    assert near == [True, True]


def test_a_run_says_where_they_are_before_its_first_step_and_goes_on_without_another_word(tmp_path):
    data = write_shapes(tmp_path / "maps", train=2, val=1)
    line = arguments(data, tmp_path / "run", "segmentation", "--epochs", 1)
    said = convnext(*line).err
    assert said.index("as they are trained on: ") < said.index("epoch 1/1")
    assert "samples.jpg" in said and (tmp_path / "run" / FILE).exists()
    (tmp_path / "run" / FILE).unlink()
    assert "samples.jpg" not in convnext(*line).err and not (tmp_path / "run" / FILE).exists()


def test_a_classifier_has_none(tmp_path):
    trained(write_colours(tmp_path / "data", train=2, val=1), tmp_path / "run", "--epochs", 1)
    assert not (tmp_path / "run" / FILE).exists()
