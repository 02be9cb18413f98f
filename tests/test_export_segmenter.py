"""An exported segmenter: the maps, figures and refusals of its run, without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convnext as package
from commands import convnext
from convnext.config import override
from convnext.deploy.export.segmenting import Pooled
from convnext.engine import checkpoint
from convnext.errors import ConvNeXtError
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.exact import labelled
from once import once
from shapes import write_shapes

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "maps", train=2, val=4)


def untrained(folder: Path, **changes: Any) -> Path:
    """A checkpoint with random weights, large enough to tell classes apart."""
    tiny = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 8, 16, 16), "head.width": 16, "head.aux_width": 8}
    recipe = package.recipe("small_segmentation", "atto", images=12, image_px=40, classes=3)
    recipe = override(recipe, {**tiny, "head.norm": "group", **changes})
    torch.manual_seed(3)
    model = build(recipe)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    about = {"recipe": recipe.model_dump(mode="json"), "classes": ["ground", "square", "disc"], "weights": "raw"}
    folder.mkdir()
    checkpoint.save(folder / "best.safetensors", model.state_dict(), {**about, "task": "segmentation"})
    return folder / "best.safetensors"


def exported(factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that slides windows, and its file."""

    def make(folder: Path) -> None:
        run = untrained(
            folder / "run",
            **{"head.window_px": 32, "head.stride_px": 20, "input.eval_short_px": 40, "input.eval_long_px": 90},
        )
        done = convnext("export", run, "--to", "onnx", "--json")
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert told["max_logit_difference"] <= 1e-4 * told["max_logit"]
        Path(told["out"]).rename(folder / "file.onnx")

    place = once(factory, "sliding segmenter", make)
    return place / "run" / "best.safetensors", place / "file.onnx"


@pytest.fixture(scope="module")
def sliding(tmp_path_factory) -> tuple[Path, Path]:
    return exported(tmp_path_factory)


def test_the_map_of_an_image_of_any_size_is_that_of_the_run(sliding):
    there, here = (package.load(source) for source in sliding)
    for height, width in ((40, 56), (25, 61), (90, 31)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        one, two = there(image), here(image)
        assert two.mask.shape == (height, width) and (one.mask == two.mask).mean() > 0.999
        assert np.allclose(one.scores, two.scores, atol=1e-4)


def test_a_file_is_scored_as_its_run_where_torch_is_not_installed(sliding, data):
    run, exported = sliding
    expected = json.loads(convnext("evaluate", run, data, "--json", "--workers", 0).out)
    code = "import sys; sys.modules['torch'] = None\nfrom convnext.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "evaluate", exported, data, "--json", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n"] == expected["n"] == 4
    for name in ("miou", "pixel_accuracy", "loss"):
        assert found[name] == pytest.approx(expected[name], abs=1e-4)


@pytest.mark.parametrize(
    ("form", "half", "tolerance"), [("openvino", False, 1e-4), ("openvino", True, 2e-2), ("onnx", True, 2e-2)]
)
def test_other_forms_and_16_bits_give_its_map(sliding, tmp_path, form, half, tolerance):
    pytest.importorskip(form, reason=f"the extra '{form}' is not installed")
    run = sliding[0]
    done = package.export(run, form, out=tmp_path / {"onnx": "m.onnx", "openvino": "m.xml"}[form], half=half)
    assert done.difference <= tolerance * done.largest
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    assert (package.load(done.out)(image).mask == package.load(run)(image).mask).mean() > 0.99


def test_a_torch_program_of_it_takes_the_image_and_its_size(sliding, tmp_path):
    done = package.export(sliding[0], "torch", out=tmp_path / "m.pt2")
    assert done.difference <= 1e-4 * done.largest
    assert torch.export.load(str(done.out)).graph_signature.user_inputs == ("images", "size")


def test_several_scales_are_refused_in_one_line(sliding, data):
    assert "answers at one scale" in convnext("evaluate", sliding[1], data, "--multi-scale").line
    with pytest.raises(ConvNeXtError, match="answers at one scale"):
        package.load(sliding[1])(np.zeros((9, 9, 3), np.uint8), multi_scale=True)


def test_int8_of_a_segmenter_is_refused_in_one_line(sliding, data):
    assert "is a segmenter" in convnext("export", sliding[0], "--to", "onnx", "--int8", data).line


def test_a_segmenter_that_sees_whole_images_is_exported_for_any_size(tmp_path):
    run = untrained(
        tmp_path / "run",
        **{
            "head.window_px": 0,
            "head.stride_px": 0,
            "input.eval_short_px": 64,
            "model.grn": True,
            "model.layer_scale": None,
        },
    )
    done = package.export(run, "onnx")
    assert done.difference <= 1e-4 * done.largest
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    assert (package.load(done.out)(image).mask == package.load(run)(image).mask).mean() > 0.999


@pytest.mark.parametrize(("side", "height", "width"), [(1, 5, 7), (2, 5, 7), (3, 2, 8), (6, 13, 6), (6, 2, 2)])
def test_the_pooling_of_a_graph_is_torchs(side, height, width):
    x = torch.randn(2, 3, height, width)
    assert torch.allclose(Pooled(side)(x), torch.nn.functional.adaptive_avg_pool2d(x, side), atol=1e-6)


@pytest.mark.parametrize("size", [(7, 9), (14, 5), (70, 130), (3, 3)])
def test_what_follows_the_network_is_torchs(size):
    logits = np.random.default_rng(0).normal(0, 3, (4, 7, 9)).astype(np.float32)
    truth = np.random.default_rng(1).integers(0, 4, size).astype(np.uint8)
    truth[0] = 255
    x = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)
    log_p = x.log_softmax(1)
    found = labelled(logits, size, truth)
    assert np.allclose(found.scores, log_p.exp().max(1).values[0], atol=1e-5)
    assert (found.mask == log_p.argmax(1)[0].numpy()).mean() > 0.99
    expected = torch.nn.functional.nll_loss(
        log_p, torch.from_numpy(truth.astype(np.int64))[None], ignore_index=255, reduction="sum"
    )
    assert found.loss == pytest.approx(float(expected), rel=1e-5)


def test_a_segmenter_of_colours_reads_them_from_bands_in_another_order(tmp_path):
    predictor = package.load(untrained(tmp_path / "run"), task="segmentation")
    assert predictor.recipe.augment.photometric
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    there, here = predictor(image), predictor.with_bands([3, 2, 1])(np.ascontiguousarray(image[:, :, ::-1]))
    assert (there.mask == here.mask).all() and len(np.unique(there.mask)) > 1
