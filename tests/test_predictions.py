"""predictions.jpg: what a run makes of held-out images, drawn after each evaluation, for the eyes alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from commands import convnext, rows, trained
from convnext.config import ClassificationRecipe, Recipe, override
from convnext.data.annotated_policy import eval_dense
from convnext.data.dataset import read_sample
from convnext.data.opening import DenseSplits, open_dense_splits, open_splits, recognise
from convnext.data.sample import IGNORE
from convnext.drawing.letters import lettered
from convnext.drawing.palette import ON_IMAGES, colour_of
from convnext.drawing.sheet import GAP_PX
from convnext.engine.scored import Scored
from convnext.recipes import recipe
from convnext.reports import predictions
from convnext.reports.predictions import LABELLED, PAIRS, Predictions
from convnext.reports.report import write_page_of
from convnext.reports.run_files import PREDICTIONS
from convnext.tasks.detection.types import Detections
from images import write_colours
from pages import section
from runs import bits, train
from shape_objects import small, write_objects
from shapes import write_shapes
from test_cli_dense import arguments
from test_samples import sheet_of

TITLE_PX, CAPTION_PX = 30, 16


def scored(model: nn.Module, metric: str) -> Scored:
    return Scored(model.eval(), "ema", "epoch 1/3", metric, 0.5)


def drawn(out: Path, chosen: Recipe, held_out: Any, model: nn.Module, metric: str = "miou") -> np.ndarray:
    with torch.inference_mode():
        Predictions(out, chosen, held_out)(scored(model, metric))
    return sheet_of(out / PREDICTIONS).astype(float)


def cell(pixels: np.ndarray, row: int, column: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    top, left = row * (height + GAP_PX) + GAP_PX // 2, column * (width + GAP_PX) + GAP_PX // 2
    return pixels[TITLE_PX + top : TITLE_PX + top + height, left : left + width]


def times(size: tuple[int, int]) -> int:
    """How much a small image is enlarged."""
    return max(1, round(224 / max(size)))


def below(pixels: np.ndarray, row: int, column: int, size: tuple[int, int]) -> np.ndarray:
    """The image of `size` below its caption, one of the pixels that each of its own became."""
    height, width = (times(size) * side for side in size)
    whole = cell(pixels, row, column, (CAPTION_PX + height, width))
    assert (whole[:CAPTION_PX] < 128).any() and (whole[0] > 200).all()  # black letters on white
    return whole[CAPTION_PX :: times(size), :: times(size)]


def seen(data: Any, chosen: Any) -> list[Any]:
    """The images as evaluation sees them: all of one size."""
    return [eval_dense(read_sample(data, index), chosen.input) for index in range(len(data.entries))]


def of_one_size(splits: DenseSplits) -> Any:
    return replace(splits.val, entries=splits.val.entries[::2])


class Everywhere(nn.Module):
    """A segmenter that gives every pixel one class."""

    def __init__(self, label: int, classes: int):
        super().__init__()
        self.one = nn.Parameter(torch.eye(classes)[label])

    def forward(self, x: Tensor) -> Tensor:
        return self.one[None, :, None, None].expand(len(x), -1, *x.shape[-2:])


class OneBox(nn.Module):
    """A detector that finds one thing in the upper left corner, and a second one that is not sure enough."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.zeros(1))

    def detect(self, images: Any) -> list[Detections]:
        boxes = torch.tensor([[0.0, 0.0, 17.0, 17.0], [28.0, 20.0, 50.0, 39.0]])
        return [Detections(boxes, torch.tensor([0.9, 0.1]), torch.tensor([1, 1]), None)]


class Red(nn.Module):
    """A classifier that is for the class `label` on every image."""

    def __init__(self, label: int, classes: int):
        super().__init__()
        self.one = nn.Parameter(5 * torch.eye(classes)[label])

    def forward(self, x: Tensor) -> Tensor:
        return self.one.expand(len(x), -1)


@pytest.fixture
def maps(tmp_path: Path) -> Any:
    return of_one_size(open_dense_splits(recognise(write_shapes(tmp_path / "maps", train=2, val=16))))


def test_masks_stand_beside_what_a_segmenter_says_of_the_same_images(maps, tmp_path):
    chosen = recipe("small_segmentation", "atto", images=6, image_px=64, classes=3)
    pixels, shown = drawn(tmp_path, chosen, maps, Everywhere(2, 3)), seen(maps, chosen)
    size = height, width = shown[0].image.shape[:2]
    high, wide = CAPTION_PX + times(size) * height, times(size) * width
    assert pixels.shape == (TITLE_PX + PAIRS // 2 * (high + GAP_PX), 4 * (wide + GAP_PX), 3)
    tinted = [[_tinted(each.image, given) for given in (each.semantic, np.full(size, 2))] for each in shown]
    found = [[below(pixels, place // 2, place % 2 * 2 + side, size) for side in (0, 1)] for place in range(PAIRS)]
    places = [min(range(len(tinted)), key=lambda k: np.abs(tinted[k][0] - left).sum()) for left, _ in found]
    assert len(set(places)) == PAIRS  # six images, each once
    for place, (left, right) in zip(places, found, strict=True):
        assert all(np.median(np.abs(each - own)) < 4 for each, own in zip((left, right), tinted[place], strict=True))


def _tinted(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An image under the colours of its classes."""
    tints = np.array([colour_of(number) for number in range(256)], float)[labels]
    return np.where((labels == IGNORE)[:, :, None], image, 0.55 * image + 0.45 * tints)


def test_boxes_from_a_quarter_of_certainty_on_are_drawn(tmp_path):
    data = open_dense_splits(recognise(write_objects(tmp_path / "coco", train=2, val=6)))
    chosen = override(small(), {"head.masks": False})
    held_out = replace(data.val, entries=data.val.entries[-1:])  # grey, and empty
    pixels = drawn(tmp_path, chosen, held_out, OneBox(), "box_ap")
    size = seen(held_out, chosen)[0].image.shape[:2]
    left, right = (below(pixels, 0, side, size) for side in (0, 1))
    changed = np.abs(right - left).max(2)
    assert changed[2:15, 0].mean() > 40 and changed[0, 2:15].mean() > 40  # the sure one
    assert changed[20:, 24:].max() < 12 and left.std() < 3


def test_a_heading_is_whole_however_few_and_small_the_images_are(maps, tmp_path):
    chosen = recipe("small_segmentation", "atto", images=6, image_px=64, classes=3)
    pixels = drawn(tmp_path, chosen, replace(maps, entries=maps.entries[:1]), Everywhere(2, 3))
    heading = "epoch 1/3, EMA weights, miou 0.5000: left as annotated, right as predicted"
    assert pixels.shape[1] >= lettered(heading, 15)[1].getlength(heading)


def test_labels_stand_on_the_images_and_frames_say_which_are_right(tmp_path):
    splits = open_splits(recognise(write_colours(tmp_path / "data", train=2, val=6)))
    chosen = override(
        recipe("small", "atto", images=6, image_px=16, classes=3), {"input.size_px": 16, "input.eval_size_px": 16}
    )
    assert isinstance(chosen, ClassificationRecipe)
    red = splits.val.classes.index("red")
    pixels = drawn(tmp_path, chosen, splits.val, Red(red, 3), "top1")
    side = 14 * 16 + 8
    size = (side, side)
    frames = [cell(pixels, place // 4, place % 4, size)[1, side // 2] for place in range(LABELLED)]
    hearts = [cell(pixels, place // 4, place % 4, size)[side // 4, side // 2] for place in range(LABELLED)]
    for frame, heart in zip(frames, hearts, strict=True):
        expected = ON_IMAGES["right" if heart.argmax() == 0 else "wrong"]
        assert np.abs(frame - np.array(expected)).max() < 40
    assert len({heart.argmax() for heart in hearts}) > 1


def test_the_same_weights_give_the_same_image_and_another_seed_other_images(maps, tmp_path):
    chosen = recipe("small_segmentation", "atto", images=6, image_px=64, classes=3)
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        drawn(tmp_path / name, override(chosen, {"seed": seed}), maps, Everywhere(1, 3))
        found.append((tmp_path / name / PREDICTIONS).read_bytes())
    assert found[0] == found[1] != found[2]


def test_a_broken_image_gives_its_place_to_the_next_one(maps, tmp_path):
    chosen = recipe("small_segmentation", "atto", images=6, image_px=64, classes=3)
    for entry in maps.entries[:3]:
        (tmp_path / "maps" / entry.path).write_bytes(b"no image")
    size = seen(replace(maps, entries=maps.entries[3:]), chosen)[0].image.shape[:2]
    height, width = CAPTION_PX + times(size) * size[0], times(size) * size[1]
    pixels = drawn(tmp_path, chosen, maps, Everywhere(2, 3))
    assert pixels.shape[0] == TITLE_PX + 3 * (height + GAP_PX)
    cells = [cell(pixels, place // 2, place % 2 * 2, (height, width)) for place in range(PAIRS)]
    inner = [each[:, 16:] for each in cells]  # what a JPEG blurs beyond an edge is no image
    assert [bool((each < 250).any()) for each in inner] == [True] * 5 + [False]


def test_what_cannot_be_drawn_is_warned_of_once_and_the_run_is_the_same_to_the_bit(tmp_path, monkeypatch):
    data = write_shapes(tmp_path / "maps", train=4, val=2)

    def run(name: str) -> tuple[str, dict[str, object]]:
        line = arguments(data, tmp_path / name, "segmentation", "--epochs", 3, "--schedule.eval_epochs", 1)
        done = convnext(*line)
        assert done.status == 0, done.err
        return done.err, bits(tmp_path / name)

    said, whole = run("drawn")
    assert (tmp_path / "drawn" / PREDICTIONS).is_file() and "drawn from here on" not in said
    monkeypatch.setattr(predictions, "sheet", lambda *_, **__: 1 / 0)
    said, other = run("not")
    assert said.count("is not drawn from here on: division by zero. The run goes on.") == 1
    assert not (tmp_path / "not" / PREDICTIONS).exists()
    monkeypatch.setattr(predictions, "watching", lambda *_: None)
    _, third = run("unwatched")
    assert whole == other == third


def test_each_evaluation_replaces_the_image_and_a_run_that_goes_on_draws_what_the_whole_one_does(tmp_path, monkeypatch):
    data = open_dense_splits(recognise(write_shapes(tmp_path / "maps", train=4, val=2)))
    chosen = recipe("small_segmentation", "atto", images=4, image_px=32, classes=3)
    changes = {
        "schedule.epochs": 2,
        "schedule.warmup_epochs": 0,
        "schedule.eval_epochs": 1,
        "optim.batch": 2,
        "head.norm": "group",
    }
    changes |= {"model.depths": [1, 1, 1, 1], "model.widths": [8, 8, 8, 8], "head.width": 8}
    chosen = override(chosen, changes)
    left: list[bytes] = []
    for name in ("whole", "killed"):
        out = tmp_path / name
        out.mkdir()
        if name == "killed":
            with pytest.raises(KeyboardInterrupt):
                train(data, chosen, out, last_step=3, watcher=Predictions(out, chosen, data.val))
            left.append((out / PREDICTIONS).read_bytes())
        train(data, chosen, out, watcher=Predictions(out, chosen, data.val))
        left.append((out / PREDICTIONS).read_bytes())
    whole, first, second = left
    assert first != whole == second


def test_the_report_shows_the_image_and_notes_a_damaged_one(tmp_path):
    run = tmp_path / "run"
    trained(write_colours(tmp_path / "data", train=2, val=1), run, "--epochs", 1)
    page = (run / "report.html").read_text()
    assert section(page, "predictions").count("data:image/jpeg") == 1
    assert json.loads((run / "evaluation.json").read_text())["n"] == 3 and len(rows(run, "eval")) > 0
    (run / PREDICTIONS).write_bytes((run / PREDICTIONS).read_bytes()[:300])
    splits = open_splits(recognise(tmp_path / "data"))
    page = write_page_of(run, "classification", splits.val).read_text()
    assert "predictions.jpg does not hold what this version writes there" in section(page, "predictions")
    (run / PREDICTIONS).unlink()
    assert 'id="predictions"' not in write_page_of(run, "classification", splits.val).read_text()
