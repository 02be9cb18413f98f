"""A detector as one ONNX file: what the run finds, the file finds, without torch, in every way that one asks."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import convnext as package
from commands import convnext
from convnext.config import DetectionRecipe, override
from convnext.deploy.export.agreement import Agreement, agreement, compared_on
from convnext.deploy.export.detector_graph import pooled, proposals, selected, shown
from convnext.deploy.export.nodes import Nodes, floats, halve, wholes
from convnext.deploy.exported.detector import ExportedDetector
from convnext.deploy.exported.opened import open_exported
from convnext.deploy.images import sample_of
from convnext.deploy.serve.models import open_models
from convnext.engine.checkpoint import save
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.recipes import recipe
from convnext.tasks.detection.box_head import select
from convnext.tasks.detection.boxes import decode
from convnext.tasks.detection.build import build
from convnext.tasks.detection.inference import images_of
from convnext.tasks.detection.roi import pool
from detectors import BACKBONE, head, random_boxes
from once import once
from serving import one as asked_once
from shape_objects import NAMES, write_objects
from traced import traced_once

KINDS = ("boxes", "cascade")  # Mask R-CNN without masks, Cascade Mask R-CNN with them: all that there is, in few parts
SIZES = ((50, 70), (200, 30), (9, 9), (130, 128))  # some are shrunk, some enlarged


def recipe_of(kind: str) -> DetectionRecipe:
    """An untrained detector that shows much: no score is too low."""
    made = recipe("small_detection", "atto", images=6, image_px=64, classes=2)
    changes = {"input.eval_short_px": 64, "input.eval_long_px": 96, "input.multiple": 32, "precision": "bf16"}
    shape = head("cascade" if kind == "cascade" else "mask_rcnn", classes=2, most=20, masks=kind == "cascade")
    return override(made, changes).model_copy(update={"model": BACKBONE, "head": shape})  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def graphs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    traced_once(tmp_path_factory, monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detectors")


def exported(factory: pytest.TempPathFactory, kind: str) -> tuple[Path, Path]:
    """A checkpoint, and the file that it was exported to."""

    def make(folder: Path) -> None:
        chosen = recipe_of(kind)
        torch.manual_seed(0)
        about = {
            "recipe": chosen.model_dump(mode="json"),
            "task": "detection",
            "classes": list(NAMES),
            "category_ids": [9, 4],
        }
        save(folder / "run.safetensors", build(chosen).state_dict(), about)
        done = convnext("export", folder / "run.safetensors", "--to", "onnx", "--out", folder / "file.onnx", "--json")
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert told["same"] == told["objects"] > 10 and told["max_edge_px"] < 0.01

    place = once(factory, f"detector of {kind}", make)
    return place / "run.safetensors", place / "file.onnx"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    return {kind: exported(tmp_path_factory, kind) for kind in KINDS}


def loaded(pair: tuple[Path, Path]) -> tuple[Any, Any]:
    """The run, in float32 as the file is, and the file."""
    run: Any = package.load(pair[0], device="cpu")
    return replace(run, recipe=override(run.recipe, {"precision": "fp32"})), package.load(pair[1], task="detection")


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Soft colours: what is resized to the next grey level is no other image."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_finds_in_images_of_any_size_what_the_run_finds(kind, files):
    run, file = loaded(files[kind])
    assert type(file) is ExportedDetector and file.classes == run.classes and file.category_ids == (9, 4)
    for size in SIZES:
        one, other = run(noise(size), score=0), file(noise(size), score=0)
        assert other.labels.tolist() == one.labels.tolist() and len(other) == 20 and other.size == size
        assert other.boxes == pytest.approx(one.boxes, abs=0.01) and other.scores == pytest.approx(one.scores, abs=1e-5)
        resized = file.found_in(noise(size), size, "x.png", 1)  # by the graph itself
        assert np.abs(np.sort(one.scores) - np.sort(resized.scores)).max() < 0.01
        assert (resized.boxes >= 0).all() and (resized.boxes <= [size[1], size[0]] * 2).all()
        if kind == "boxes":
            assert other.outlines is None and other.masks is None
        else:
            assert other.masks.shape == (20, *size)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_resize_boxes_scores_labels_and_masks_are_those_of_the_run(kind, files):
    run, file = loaded(files[kind])
    one, other = run(noise((64, 96)), score=0), file(noise((64, 96)), score=0)
    assert (one.labels == other.labels).all()
    assert one.boxes == pytest.approx(other.boxes, abs=1e-3) and one.scores == pytest.approx(other.scores, abs=1e-5)
    if one.masks is not None:
        assert (one.masks != other.masks).mean() < 1e-3


def test_ten_lines_of_onnxruntime_give_the_same(files):
    run, _ = loaded(files["cascade"])
    session = onnxruntime.InferenceSession(str(files["cascade"][1]))
    assert [each.name for each in session.get_outputs()] == ["boxes", "scores", "labels", "masks", "finite"]
    boxes, scores, labels, masks, finite = session.run(None, {"images": noise((64, 96))[None]})
    found = run(noise((64, 96)), score=0)
    assert boxes == pytest.approx(found.boxes, abs=1e-3) and scores == pytest.approx(found.scores, abs=1e-5)
    assert labels.tolist() == found.labels.tolist() and finite and masks.shape == (20, 28, 28)
    assert masks.min() >= 0 and masks.max() <= 1
    about = {each.key: each.value for each in onnx.load(files["cascade"][1]).metadata_props}
    assert json.loads(about["classes"]) == list(NAMES) and "any size" in json.loads(about["preprocessing"])["input"]


def test_a_file_is_scored_without_a_loss_to_the_figures_of_its_run(files, place):
    write_objects(place / "coco")
    Image.new("RGB", (9, 9)).save(place / "coco" / "val" / "more.png")
    one, other = (each.evaluate(place / "coco") for each in loaded(files["cascade"]))
    figures = [name for name in one.scores if name != "loss"]
    assert {name: other.scores[name] for name in figures} == pytest.approx(
        {name: one.scores[name] for name in figures}, abs=1e-3, nan_ok=True
    )
    assert other.scores["loss"] is None and other.n == one.n == 4 and other.tables.keys() == one.tables.keys()
    done = convnext("evaluate", files["cascade"][1], place / "coco")
    assert done.status == 0 and "box AP" in done.out and "loss" not in done.out, done.err


def test_a_server_answers_with_the_file_as_predict_does(files):
    stream = io.BytesIO()
    Image.fromarray(noise((50, 70))).save(stream, "PNG")
    models = open_models([str(files["cascade"][1])])
    (found,) = asked_once(models, "POST", "/v1/predict?score=0", content=stream.getvalue()).json()["results"]
    wanted = package.load(files["cascade"][1])(stream.getvalue(), score=0).to_dict()["predictions"]
    assert [row["category"] for row in found["predictions"]] == [row["category"] for row in wanted]
    assert [row["bbox"] for row in found["predictions"]] == [row["bbox"] for row in wanted] and len(wanted) == 20


def test_the_commands_take_the_file_as_they_take_the_run(files, place, tmp_path):
    images = tmp_path / "in"
    images.mkdir()
    Image.fromarray(noise((50, 70))).save(images / "a.png")
    (images / "broken.png").write_text("no image")
    run, file = files["cascade"]
    for form in ("--json", "--csv"):
        answers = [convnext("predict", each, images, "--score", 0, form).out for each in (run, file)]
        if form == "--csv":
            rows = [list(csv.DictReader(io.StringIO(answer))) for answer in answers]
            assert rows[0][0].keys() == rows[1][0].keys() and "not an image" in rows[1][-1]["error"]
        else:
            rows = [json.loads(answer) for answer in answers]
            assert rows[0][0].keys() == rows[1][0].keys() and {row["category_id"] for row in rows[1]} <= {4, 9}
        assert len(rows[0]) == len(rows[1]) > 10
    done = convnext("predict", file, images, "--score", 0, "--out", tmp_path / "drawn")
    assert done.status == 0
    with Image.open(tmp_path / "drawn" / "a.jpg") as drawn:
        assert drawn.size == (70, 50)


def test_a_file_answers_where_there_is_no_torch(files, tmp_path):
    Image.fromarray(noise((50, 70))).save(tmp_path / "a.png")
    code = (
        "import sys; sys.modules['torch'] = None\nimport convnext\n"
        "print(len(convnext.load(sys.argv[1])(sys.argv[2], score=0)), 'torch' in [k for k, v in sys.modules.items() if v])"
    )
    asked = [sys.executable, "-c", code, str(files["cascade"][1]), str(tmp_path / "a.png")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["20", "False"], done.stderr


def test_numbers_that_are_none_are_said_and_never_nothing_found(files, tmp_path):
    proto = onnx.load(files["boxes"][1])
    weight = next(each for each in proto.graph.initializer if "score" in each.name and each.name.endswith("weight"))
    broken = np.full(list(weight.dims), np.nan, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(broken, weight.name))
    kept = [each for each in proto.metadata_props if each.key != "convnext_digest"]
    text = [(each.key, each.value.replace("convnext_digest", "")) for each in kept]
    del proto.metadata_props[:]
    for key, value in text:
        proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, tmp_path / "broken.onnx")
    with pytest.raises(ConvNeXtError, match=r"broken\.onnx' answers inf or nan for '<image>'"):
        package.load(tmp_path / "broken.onnx")(noise((64, 96)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--to", "convnext"),
            "--to convnext is not for detectors, and 'RUN' is one. Take --to onnx or --to openvino.",
        ),
        (("--to", "torch"), "--to torch is not for detectors"),
        (("--to", "web"), "--to web is for classifiers. `convnext serve` has a page for it."),
        (("--to", "onxn"), "Did you mean 'onnx'?"),
        (
            ("--to", "onnx", "--int8", "."),
            "--int8 is judged by top-1 or mean average precision, and 'RUN' is a detector.",
        ),
    ],
)
def test_what_a_detector_is_not_exported_to_is_one_line(files, tmp_path, arguments, said):
    line = convnext("export", files["boxes"][0], *arguments, "--out", tmp_path / "x").line
    assert said.replace("RUN", str(files["boxes"][0])) in line and not list(tmp_path.iterdir())


def test_a_form_that_a_detector_does_not_have_is_refused_before_torch_is_loaded(files, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text('{"task": "detection"}')
    code = (
        "import sys; sys.modules['torch'] = None\nfrom convnext import api, errors\n"
        "for run in sys.argv[1:]:\n try: api.export(run, 'convnext')\n except errors.ConvNeXtError as error: print(error)"
    )
    asked = [sys.executable, "-c", code, str(files["boxes"][0]), str(tmp_path / "run")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.stdout.count("is not for detectors") == 2, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_openvino_finds_in_images_of_any_size_what_the_run_finds(kind, files, tmp_path):
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    run, _ = loaded(files[kind])
    done = convnext("export", files[kind][0], "--to", "openvino", "--out", tmp_path / "x.xml", "--json")
    assert json.loads(done.out)["same"] == json.loads(done.out)["objects"] > 10, done.err
    written = package.load(tmp_path / "x.xml", task="detection")
    read = ExportedDetector.around(open_exported(files[kind][1], backend="openvino", threads=1))
    for size in ((64, 96), (64, 64), *SIZES[:3]):  # more sizes than OpenVINO compiles one by one
        one = run(noise(size), score=0)
        for file in (written, read):
            other = file(noise(size), score=0)
            assert other.labels.tolist() == one.labels.tolist()
            assert other.boxes == pytest.approx(one.boxes, abs=0.01)
            assert other.scores == pytest.approx(one.scores, abs=1e-5)


def test_a_detector_for_openvino_in_16_bits_finds_what_its_run_finds(files, tmp_path):
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    out = tmp_path / "x.xml"
    done = convnext("export", files["boxes"][0], "--to", "openvino", "--half", "--out", out, "--json")
    told = json.loads(done.out)
    assert told["precision"] == "fp16" and told["same"] > 0.95 * told["objects"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.xml"]
    file = package.load(out, task="detection")
    assert file.classes == NAMES and file.category_ids == (9, 4) and len(file(noise((50, 70)), score=0)) == 20


def test_weights_in_16_bits_are_half_of_an_onnx_file_and_compute_in_32(files):
    whole = onnx.load(files["cascade"][1])
    small = onnx.load(files["cascade"][1])
    halve(small)
    onnx.checker.check_model(small)
    wide = [each for each in small.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    assert all(len(each.dims) < 2 for each in wide)
    for tensor in whole.graph.initializer:  # the same network with rounded weights in 32 bits
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    answers = [
        onnxruntime.InferenceSession(each.SerializeToString()).run(
            ["boxes", "scores"], {"images": noise((64, 96))[None]}
        )
        for each in (whole, small)
    ]
    assert answers[0][0] == pytest.approx(answers[1][0], abs=1e-3) and answers[0][1] == pytest.approx(answers[1][1])


def test_a_file_of_a_detector_is_none_of_a_classifier_and_gives_no_features(files):
    file = files["boxes"][1]
    with pytest.raises(CheckpointError, match="is for detection, and classification is needed here"):
        package.load(file, task="classification")
    with pytest.raises(ConvNeXtError, match="gives objects alone"):
        list(package.load(file).embed([noise((20, 20))]))


def test_an_image_as_the_network_sees_it_and_photos_of_a_path_are_what_both_are_compared_on(files, tmp_path):
    run, file = loaded(files["cascade"])
    assert agreement(run, file, *compared_on(run.recipe.input, None)).same > 75
    for number in range(9):
        Image.fromarray(noise((40, 60), number)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_text("no image")
    images, said = compared_on(run.recipe.input, str(tmp_path))
    assert said == "3 images" and images[0].shape == (40, 60, 3)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_text("no image")
    with pytest.raises(ConvNeXtError, match="None of 1 image of"):
        compared_on(run.recipe.input, str(tmp_path / "none"))


def test_detectors_that_find_other_things_do_not_agree():
    assert Agreement(100, 95, 0.1, 0.0, "4 images").holds and not Agreement(100, 94, 0.1, 0.0, "4 images").holds
    assert "nothing is compared" in Agreement(0, 0, 0.0, 0.0, "4 images").line()


# The operators between the networks, against the functions that they stand for


def answered(inputs: dict[str, Any], build_graph: Any, runtime: str = "onnxruntime") -> list[np.ndarray]:
    """What a graph of operators makes of arrays."""
    graph = Nodes()
    graph.opsets = {20}
    outputs = build_graph(graph)
    helper = graph.onnx.helper
    kinds = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.uint8): 2}
    given = [helper.make_tensor_value_info(name, kinds[value.dtype], value.shape) for name, value in inputs.items()]
    ends = [(name, helper.make_tensor_value_info(f"out{i}", kind, None)) for i, (name, kind) in enumerate(outputs)]
    whole = graph.model(given, ends).SerializeToString()
    if runtime == "openvino":
        core = pytest.importorskip("openvino").Core()
        compiled = core.compile_model(core.read_model(io.BytesIO(whole)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return [compiled(inputs)[place] for place in compiled.outputs]
    return onnxruntime.InferenceSession(whole).run(None, inputs)  # type: ignore[no-any-return]


def test_pooling_reads_every_box_from_its_level_as_roi_align_does():

    strides, generator = (4, 8, 16, 32), torch.Generator().manual_seed(0)
    pyramid = [torch.randn(1, 3, 512 // s, 512 // s, generator=generator) for s in strides]
    boxes = torch.cat(
        [random_boxes(40, seed=1, size=500), torch.tensor([[0.0, 0, 112, 112], [0, 0, 224, 224], [5, 5, 5, 5]])]
    )
    maps = {f"map{i}": level.numpy() for i, level in enumerate(pyramid)}
    (found,) = answered(maps | {"boxes": boxes.numpy()}, lambda g: [(pooled(g, list(maps), strides, "boxes", 7), 1)])
    assert found == pytest.approx(pool(pyramid, [boxes], strides, 7).numpy(), abs=1e-4)
    few = {**maps, "boxes": boxes[:1].numpy()}
    assert answered(few, lambda g: [(pooled(g, list(maps), strides, "boxes", 7), 1)])[0].shape == (1, 3, 7, 7)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shown_is_what_the_box_head_selects(seed):

    config, generator = head(score=0.1, most=30, nms_iou=0.4), torch.Generator().manual_seed(seed)
    boxes, size = random_boxes(60, seed=seed, size=90), (80, 100)
    logits, deltas = torch.randn(60, 4, generator=generator) * 2, torch.randn(60, 3, 4, generator=generator)
    logits[30:] = logits[:30]  # ties: what comes first stays first
    stage = config.stages[0]
    wanted = select(boxes, logits, deltas, size, config, stage)
    inputs = {"logits": logits.numpy(), "boxes": decode(boxes, deltas, stage.stds).numpy()}
    inputs["borders"] = np.array([100, 80, 100, 80], np.float32)
    found = answered(
        inputs, lambda g: list(zip(selected(g, "logits", "boxes", "borders", config), (1, 1, 7), strict=True))
    )
    assert found[2].tolist() == wanted.labels.tolist() and len(wanted) > 10
    assert found[0] == pytest.approx(wanted.boxes.numpy(), abs=1e-4)
    assert found[1] == pytest.approx(wanted.scores.numpy(), abs=1e-6)


def test_an_image_with_no_proposal_gives_the_heads_one_pixel():

    flat = np.zeros((5, 4), np.float32)  # boxes without an area
    inputs = {"scores": np.arange(5, dtype=np.float32), "boxes": flat, "borders": np.array([9, 9, 9, 9], np.float32)}
    (found,) = answered(inputs, lambda g: [(proposals(g, ["scores"], ["boxes"], "borders", head()), 1)])
    assert found.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(("runtime", "products"), [("onnxruntime", False), ("onnxruntime", True), ("openvino", True)])
@pytest.mark.parametrize("size", [(37, 91), (300, 40), (64, 96), (10, 10), (150, 210)])
def test_an_image_is_resized_to_the_pixels_of_the_evaluation_transform(size, runtime, products):
    chosen = recipe_of("boxes")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = images_of([sample_of(chosen.input, image)], chosen, torch.device("cpu"))
    build_graph = lambda g: [(each, 1) for each in shown(g, "images", chosen, 32, products=products)]  # noqa: E731
    found = answered({"images": image[None]}, build_graph, runtime)
    step = 1 / (255 * min(chosen.input.std))  # of a grey level
    assert found[0].shape == wanted.x.shape and np.abs(found[0] - wanted.x.numpy()).max() < 1.01 * step
    tall = size[0] > 2 * size[1]  # Pillow 13 resizes the columns of these first, and rounds in between
    assert (np.abs(found[0] - wanted.x.numpy()) > 1e-3).mean() < (0.1 if tall else 0.02)
    (height, width) = wanted.sizes[0]
    assert found[1].tolist() == [width, height] * 2 and found[2].tolist() == [size[1], size[0]] * 2


def test_constants_and_parts_of_two_versions_of_onnx_are_refused():
    graph = Nodes()
    graph.opsets = {18, 20}
    with pytest.raises(ConvNeXtError, match=r"for ONNX \[18, 20\]"):
        graph.model([], [])
    assert wholes(1, 2).dtype == np.int64 and floats(1).dtype == np.float32
