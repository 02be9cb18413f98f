"""Activation maps: exact where they claim it, by the book where they go by gradients, and over the right pixels."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.swin_transformer import SwinTransformer
from torch import nn

import convnext as package
from checkpoints import checkpoint_of
from commands import convnext, trained
from convnext.config import TimmConfig, override
from convnext.data.evaluation import eval_transform, seen_box
from convnext.deploy.explanation import View
from convnext.deploy.exported.classifier import ExportedClassifier
from convnext.deploy.trained.checkpoint import Trained
from convnext.deploy.trained.classifier import TrainedClassifier
from convnext.errors import ConvNeXtError, DataError
from convnext.models.build import build_model
from convnext.models.create import create
from convnext.models.cut import cut_at, inexact, shares
from convnext.models.fused import fuse
from convnext.recipes import recipe
from convnext.reports.run import write_report
from images import write_colours
from pages import Page, section

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"depths": (1, 1, 2, 1), "widths": (8, 12, 16, 24), "classes": 5}
EXACT = {  # networks whose logits are sums over the positions of the last maps
    "plain": ("atto", SMALL),
    "grn": ("v2_atto", SMALL),
    "norm first": ("atto", SMALL | {"norm_first": True}),
    "rms": ("atto", SMALL | {"norm": "rms"}),
    "simple": ("atto", SMALL | {"norm": "simple"}),
    "overlap": ("atto", SMALL | {"stem": "overlap"}),
    "isotropic": ("iso_small", {"depths": (2,), "widths": (16,), "classes": 5}),
    "resnet": ("roadmap_t:resnet", {"depths": (1, 1), "width": 8, "classes": 5}),
    "roadmap": ("roadmap_t:separate_downsampling", {"depths": (1, 1), "width": 8, "classes": 5}),
    "filters": ("gfnet_tiny", {"depths": (1,), "widths": (16,), "size_px": 64, "classes": 5}),
}
ALL = EXACT | {
    "hidden": ("atto", SMALL | {"head_width": 7}),
    "timm": ("timm:test_resnet", {"classes": 5}),
}


def network(name: str, *, seed: int = 0) -> Any:
    """A small network in float64 whose every parameter does something."""
    torch.manual_seed(seed)
    called, fields = ALL[name]
    model = create(called, info=lambda _: None, **fields).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images(name: str, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# The halves of a network and the exact map


@pytest.mark.parametrize("name", ALL)
def test_the_two_halves_of_a_network_are_the_network_at_every_stage(name):
    model, x = network(name), images(name)
    with torch.no_grad():
        expected = model(x)
        for stage in range(cut_at(model).last + 1):
            cut = cut_at(model, stage)
            maps = cut.before(x)
            assert maps.ndim == 4 and torch.allclose(cut.after(maps), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_map_and_its_constant_add_up_to_the_logit(name):
    model, x = network(name), images(name)
    assert inexact(model) == ""
    with torch.no_grad():
        grids, constants = shares(model, cut_at(model).before(x), [4, 0, 2])
        logits = model(x)[:, [4, 0, 2]]
    assert grids.shape[:2] == (2, 3) and grids.shape[2] > 1
    assert torch.allclose(grids.sum((2, 3)) + constants, logits, rtol=1e-9, atol=1e-9)


def test_the_share_of_a_position_is_what_the_logit_loses_without_it_the_norm_held():
    """An oracle: the head by hand, with the mean and the variance of the whole image."""
    model, x = network("plain"), images("plain", 1)
    with torch.no_grad():
        maps = cut_at(model).before(x)
        (grids,), _ = shares(model, maps, [1])
        pooled = maps.mean((2, 3))[0]
        scale = 1 / (pooled.var(correction=0) + model.norm.eps).sqrt()
        for row, column in ((0, 0), (1, 1), (0, 1)):
            position = maps[0, :, row, column]
            normed = (position - position.mean()) * scale * model.norm.weight
            assert float(grids[0, row, column]) == pytest.approx(float(model.head.weight[1] @ normed) / 4, rel=1e-9)


def test_a_head_that_is_no_sum_over_positions_says_why():
    assert "hidden layer" in inexact(network("hidden")) and "timm" in inexact(network("timm"))
    model = network("plain")
    model.head = nn.Sequential(model.head)
    assert "Sequential" in inexact(model)


def test_behind_a_mean_and_a_layer_norm_the_signed_gradient_map_adds_up_to_nothing():
    """A layer norm does not see the scale of its vector, so the gradient stands upright on it: why the exact map differs."""
    model, x = network("plain"), images("plain", 1)
    maps = cut_at(model).before(x).detach().requires_grad_()
    cut_at(model).after(maps)[0, 3].backward()
    signed = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1)
    assert abs(float(signed.detach().sum())) < 1e-5 * float(signed.detach().abs().sum())


# Predictors


def predictor_of(name: str = "plain", **fields: Any) -> TrainedClassifier:
    called, own = ALL[name]
    made = recipe("small", called, images=100, image_px=64, classes=5)
    own = {f"model.{key}": value for key, value in own.items()}
    made = override(made, own | {"input.eval_size_px": 64, "precision": "fp32"} | fields)
    torch.manual_seed(0)
    state = build_model(made.model).state_dict()
    torch.manual_seed(1)
    state = {
        key: value + 0.05 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in state.items()
    }
    names = ("a", "b", "c", "d", "e")
    return TrainedClassifier.of(Trained(made, names, Path("made.safetensors"), {}, state), CPU)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).resize((90, 60)))


def by_hooks(model: Any, layer: nn.Module, x: torch.Tensor, label: int) -> dict[str, torch.Tensor]:
    """Both gradient maps as papers write them, with hooks on an unchanged network."""
    held: dict[str, torch.Tensor] = {}
    hook = layer.register_forward_hook(lambda module, given, made: held.update(maps=made))
    made = model(x)
    hook.remove()
    (slope,) = torch.autograd.grad(made[0, label], held["maps"])
    maps, weights = held["maps"][0], slope[0].mean((1, 2))
    gradcam = sum(w * a for w, a in zip(weights, maps, strict=True)).clamp(min=0)
    layercam = sum(s.clamp(min=0) * a for s, a in zip(slope[0], maps, strict=True)).clamp(min=0)
    return {"gradcam": gradcam.detach(), "layercam": layercam.detach()}


@pytest.mark.parametrize("name", ["plain", "grn", "norm first", "hidden", "isotropic", "overlap"])
def test_gradient_maps_are_those_of_hooks_on_the_plain_network(name, photo):
    predictor = predictor_of(name)
    shown = eval_transform(photo, predictor.recipe.input)
    mean, std = (torch.tensor(v) for v in (predictor.recipe.input.mean, predictor.recipe.input.std))
    x = ((torch.from_numpy(shown) / 255 - mean) / std).permute(2, 0, 1)[None]
    model = build_model(predictor.recipe.model).eval()
    model.load_state_dict(predictor.model.state_dict())
    for stage in range(len(model.stages)):
        expected = by_hooks(model, model.stages[stage], x, 2)
        for method, grid in expected.items():
            found = predictor.explain(photo, classes="c", method=method, stage=stage)
            assert (found.method, found.stage, found.constants) == (method, stage, None)
            np.testing.assert_allclose(found.grids[0], grid.numpy(), rtol=1e-3, atol=1e-4 * float(grid.max()) + 1e-9)


def test_gradient_maps_are_those_of_captum(photo):
    attr = pytest.importorskip("captum.attr", reason="captum, which brings matplotlib, is not installed")
    predictor = predictor_of("hidden")
    model = predictor_of("hidden").model
    for block in model.modules():
        if hasattr(block, "kernels"):
            block.kernels = None
    shown = torch.from_numpy(eval_transform(photo, predictor.recipe.input))
    mean, std = (torch.tensor(v) for v in (predictor.recipe.input.mean, predictor.recipe.input.std))
    x = ((shown / 255 - mean) / std).permute(2, 0, 1)[None]
    for stage in (3, 2):
        theirs = attr.LayerGradCam(model, model.stages[stage]).attribute(x, target=1, relu_attributions=True)
        ours = predictor.explain(photo, classes="b", method="gradcam", stage=stage)
        np.testing.assert_allclose(ours.grids[0], theirs[0, 0].detach().numpy(), rtol=1e-3, atol=1e-5)


def test_an_explanation_has_the_scores_of_the_prediction_and_its_likeliest_class(photo):
    predictor = predictor_of()
    expected = predictor(photo)
    found = predictor.explain(photo)
    assert found.predictions == (expected.predictions[0],) and found.size == (60, 90)
    assert (found.method, found.stage, found.grids.shape) == ("gradcam", 2, (1, 8, 8))  # of 32, 16, 8 and 4 a side
    named = predictor.explain(photo, method="gradcam", stage=2)
    assert np.array_equal(named.grids, found.grids) and predictor.explain(photo, method="gradcam").stage == 3
    found = predictor.explain(photo, method="cam")
    assert found.map.shape == (60, 90) and found.map.dtype == np.float32
    assert float(found.grids[0].sum()) + found.constants[0] == pytest.approx(found.logits[0], rel=1e-4, abs=1e-4)
    every = predictor.explain(photo, classes=["e", "a", "e"], method="cam")
    assert every.classes == ("e", "a") and every.scores == tuple(dict(expected.predictions)[name] for name in "ea")
    assert np.exp(every.logits[0] - every.logits[1]) == pytest.approx(every.scores[0] / every.scores[1], rel=1e-3)
    assert np.array_equal(every.map_of("e"), every.map) and not np.array_equal(every.map_of("a"), every.map)
    with pytest.raises(ConvNeXtError, match="'b' is not explained here, only e, a"):
        every.map_of("b")


def test_kernels_and_a_caller_without_gradients_change_nothing(photo):
    predictor, plain = predictor_of(), predictor_of()
    fuse(predictor.model)
    for block in plain.model.modules():
        if hasattr(block, "kernels"):
            block.kernels = None
    with torch.inference_mode():
        found = predictor.explain(photo, classes="a", method="layercam", stage=1)
    expected = plain.explain(photo, classes="a", method="layercam", stage=1)
    np.testing.assert_allclose(found.grids, expected.grids, rtol=1e-3, atol=1e-5 * float(expected.grids.max()))
    assert all(parameter.grad is None for parameter in predictor.model.parameters())


def test_many_images_are_explained_as_each_is(photo, tmp_path):
    predictor = predictor_of()
    folder = write_colours(tmp_path / "photos", train=2, val=1, size=70)
    (folder / "train" / "red" / "broken.png").write_bytes(b"none")
    skipped: dict[str, str] = {}
    found = list(predictor.explain_many(folder, batch=4, classes=["a", "b"], skipped=skipped))
    assert len(found) == 9 and len(skipped) == 1
    for one in found:
        np.testing.assert_allclose(one.grids, predictor.explain(one.path, classes=["a", "b"]).grids, atol=1e-5)


# Over the right pixels


def bright(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.full((*size, 3), 60, np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 220
    return pixels


@pytest.mark.parametrize(
    "ways", [{}, {"input.eval_crop": 0.75}, {"input.eval_resize": "warp"}], ids=["whole", "crop", "warp"]
)
@pytest.mark.parametrize("size", [(80, 130), (130, 80), (32, 32)], ids=str)
def test_the_map_lies_over_what_it_stands_for(ways, size):
    """A network of one channel, brightness, whose first class is bright: its map must peak inside the bright place."""
    predictor = predictor_of("isotropic", **{"input.eval_size_px": 64, "model.patch": 8} | ways)
    model = predictor.model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_() if "norm" not in name else None
        model.stem.layers[0].weight[0] = 1 / (3 * 64)
        for block in model.stages[0].blocks:
            block.project.weight.zero_()
        model.norm.weight.fill_(1)
        model.head.weight[0, 0], model.head.weight[1, 0] = 1, -1
    predictor = TrainedClassifier(model, predictor.recipe, predictor.classes, CPU, predictor.source, {})
    centre = (size[0] * 0.55, size[1] * 0.45)
    half = min(size) // 6
    box = (int(centre[1]) - half, int(centre[0]) - half, int(centre[1]) + half, int(centre[0]) + half)
    found = predictor.explain(bright(size, box), classes=["a", "b"], method="cam")
    row, column = np.unravel_index(found.map.argmax(), size)
    assert box[0] <= column < box[2] and box[1] <= row < box[3]
    np.testing.assert_allclose(found.map_of("b"), -found.map, atol=1e-6)
    left, top, right, bottom = found.view.box
    assert (left, top, right, bottom) == seen_box(*size, predictor.recipe.input)
    rows, columns = (np.arange(length) + 0.5 for length in size)
    unseen = ((rows < top) | (rows > bottom))[:, None] | ((columns < left) | (columns > right))
    assert (found.map[unseen] == 0).all() and (found.map[~unseen] != 0).all()
    assert unseen.any() == (ways.get("input.eval_crop") is not None or (not ways and size[0] != size[1]))


def test_positions_are_spread_linearly_between_their_centres():
    view = View(box=(0, 0, 8, 4), side_px=4, stride_px=2, first_px=1)
    grid = np.array([[0, 4], [8, 12]], np.float32)
    found = view.spread(grid, (4, 8), (4, 8))
    np.testing.assert_allclose(
        found[:, 0], [0, 2, 6, 8]
    )  # centres of the rows: 0.5, 1.5, ...; of the positions: 1 and 3
    np.testing.assert_allclose(found[0], [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
    assert np.array_equal(view.spread(grid[:1, :1], (4, 8), (2, 2)), np.zeros((2, 2)))


def test_the_first_position_of_padded_convolutions_is_at_the_first_pixel():
    """Of 3x3 convolutions of stride 2 with one pixel of padding, the first answer is centred on pixel 0."""
    tiles, padded = cut_at(network("plain"), 1), cut_at(network("overlap"), 1)
    assert (tiles.stride_px, tiles.first_px) == (8, 4)
    assert (padded.stride_px, padded.first_px) == (8, 2.5)
    x = torch.zeros(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    maps = network("overlap").stem.layers(x)
    maps[0, :, 3, 3].sum().backward()
    seen = x.grad.abs().sum((0, 1, 2)).nonzero().flatten().double() + 0.5
    cut = cut_at(network("overlap"), 0)
    assert float(seen.mean()) == cut.first_px + 3 * cut.stride_px


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of which is none, and one whose name is markup."""
    place = tmp_path_factory.mktemp("images") / "photos"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.jpg", "<img src=x onerror=alert(1)>.png"):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8)).save(place / name)
    (place / "broken.png").write_bytes(b"no image")
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of("classification", tmp_path_factory.mktemp("run"), classes=("<b>a</b>", "b"))


def test_the_command_writes_a_drawing_of_each_image_and_a_page_that_runs_nothing(run, folder, tmp_path):
    out = tmp_path / "out"
    done = convnext("explain", run, folder, "--out", out, "--class", "<b>a</b>", "--class", "b", "--device", "cpu")
    assert done.status == 0, done.err
    assert {file.name for file in out.iterdir()} == {
        "index.html", "one.png", "two.png", "<img src=x onerror=alert(1)>.png",
    }  # fmt: skip
    assert len(done.out.splitlines()) == 3 and "Skipped" in done.err and str(out / "index.html") in done.err
    with Image.open(out / "one.png") as drawn:
        assert drawn.size == (3 * 3 * 56 + 2 * 4, 3 * 40)  # the image and two classes, three times as large
    text = (out / "index.html").read_text("utf-8")
    page = Page(text)
    assert page.names.count("img") == 9 and all(link.startswith("data:image/jpeg") for link in page.links)
    assert "<b>a</b>" in page.text and "onerror=alert(1)>.png" in page.text and "script" not in page.names
    assert "1 image could not be read" in page.text


def test_the_json_is_what_the_values_say(run, folder, tmp_path):
    image = folder / "one.png"
    said = json.loads(
        convnext("explain", run, image, "--out", tmp_path / "out", "--method", "cam", "--json", "--device", "cpu").out
    )
    found = package.explain(run, image, tmp_path / "again", method="cam", device="cpu")
    ours = json.loads(json.dumps(found.to_dict()).replace(str(tmp_path / "again"), str(tmp_path / "out")))
    assert ours == said and said["skipped"] == {}
    (row,) = said["images"]
    value = package.load(run, task="classification", device="cpu").explain(image, method="cam")
    (each,) = value.to_dict()["explained"]
    grid = each.pop("grid")
    assert row == value.to_dict() | {"explained": [each], "file": str(tmp_path / "out" / "one.png")}
    assert np.sum(grid) + each["constant"] == pytest.approx(each["logit"], abs=1e-4)
    value.save(tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text()) == value.to_dict()
    assert value.save(tmp_path / "one.jpg").is_file()


def test_grey_images_turned_photos_and_bytes_are_explained_in_the_pixels_of_the_upright_image():
    predictor = predictor_of()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    file = io.BytesIO()
    photo.save(file, "JPEG", exif=exif)
    found = predictor.explain(file.getvalue())
    assert found.size == (70, 40) == found.map.shape and found.overlays()[0].size == (120, 210)


def test_what_cannot_be_explained_is_one_line(run, folder, tmp_path):
    out, image = tmp_path / "out", folder / "one.png"
    line = convnext("explain", run, folder, "--out", out, "--class", "<b>a<b>").line
    assert line == "The network knows no class '<b>a<b>'. Did you mean '<b>a</b>'? It has 2."
    line = convnext("explain", run, folder, "--out", out, "--stage", 4).line
    assert line == "stage = 4 is refused: 'atto' has stages 0 to 3."
    line = convnext("explain", run, folder, "--out", out, "--stage", 1, "--method", "cam").line
    assert line == "method = 'cam' is of the last stage, 3, and stage = 1 is named. Take gradcam."
    assert "among the images" in convnext("explain", run, folder, "--out", folder / "out").line
    assert "None of 1 image could be read" in convnext("explain", run, folder / "broken.png", "--out", out).line
    detector = checkpoint_of("detection", tmp_path / "detector")
    assert (
        "is for detection, and only classifiers are explained"
        in convnext("explain", detector, image, "--out", out).line
    )
    headless = tmp_path / "headless.pth"
    torch.save(create("atto", info=lambda _: None, **SMALL | {"classes": 0}).state_dict(), headless)
    assert "has no head, and so no classes to explain" in convnext("explain", headless, image, "--out", out).line
    assert not out.exists()
    with pytest.raises(DataError, match="may hold many images"):
        package.load(run, task="classification").explain(folder)


def test_heads_and_networks_without_maps_are_refused_with_the_reason(photo):
    with pytest.raises(ConvNeXtError, match=r"no sums over positions, for its head has a hidden layer.* Take gradcam"):
        predictor_of("hidden").explain(photo, method="cam")
    assert predictor_of("hidden").explain(photo).method == "gradcam"
    assert predictor_of("timm").explain(photo).grids.shape == (1, 2, 2)
    with pytest.raises(ConvNeXtError, match="'test_resnet' gives its last maps alone"):
        predictor_of("timm").explain(photo, stage=2)
    vit = create("timm:test_vit", classes=2)
    with pytest.raises(ConvNeXtError, match="VisionTransformer gives tokens and no maps"):
        cut_at(vit).before(torch.zeros(1, 3, 160, 160))


def test_maps_with_their_channels_last_are_turned():
    """Swin's: the halves are the network, and a position that is changed changes the map there."""
    torch.manual_seed(0)
    swin = SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(2, 2), num_classes=5
    ).eval()
    cut, x = cut_at(SimpleNamespace(config=TimmConfig(name="swin"), network=swin)), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert cut.before(x).shape == (2, 16, 4, 4) and torch.allclose(cut.after(cut.before(x)), swin(x), atol=1e-6)


def test_weights_without_names_are_explained_by_numbers(photo, tmp_path):
    torch.manual_seed(0)
    torch.save(create("atto", info=lambda _: None, **SMALL).state_dict(), tmp_path / "w.pth")
    Image.fromarray(photo).save(tmp_path / "a.png")
    found = package.explain(tmp_path / "w.pth", tmp_path / "a.png", tmp_path / "out", classes="3", device="cpu")
    assert found.rows[0]["explained"][0]["label"] == "3"


def test_an_exported_file_is_refused_with_the_reason(photo):
    recipe_, names = predictor_of().recipe, ("a", "b", "c", "d", "e")
    file: Any = None
    exported = ExportedClassifier(file, recipe_, names, "cpu", Path("x.onnx"), {})
    with pytest.raises(ConvNeXtError, match=r"'x\.onnx' gives logits alone.* Name the run that it was made of"):
        exported.explain(photo)


# The report


def test_the_most_wrong_images_of_a_report_have_the_maps_of_both_classes(tmp_path):
    data = write_colours(tmp_path / "data", train=6, val=3, size=24)
    for file in (data / "val" / "red").glob("*.png"):  # wrong on purpose
        file.unlink()
        Image.new("RGB", (24, 24), (50, 60, 210)).save(file)
    trained(data, tmp_path / "run", "--epochs", 6)
    wrong = json.loads((tmp_path / "run" / "evaluation.json").read_text())["worst"]
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    part = section(text, "most-wrong")
    assert wrong and part.count("<img") == 3 * len(wrong) and part.count("what speaks for") >= 2 * len(wrong)
    assert {"report.html", "best.safetensors"} <= {file.name for file in (tmp_path / "run").iterdir()}
    assert [file.name for file in (tmp_path / "run").iterdir() if file.suffix in (".png", ".jpg")] == [
        "predictions.jpg"
    ]

    def broken(image: bytes, classes: object) -> Any:
        raise RuntimeError("no map today")

    def read(path: str) -> bytes:
        return (data / path).read_bytes() if not Path(path).is_absolute() else Path(path).read_bytes()

    write_report(tmp_path / "run", read=read, why=broken)
    again = section((tmp_path / "run" / "report.html").read_text("utf-8"), "most-wrong")
    assert again.count("<img") == len(wrong) and "what speaks for" not in again
