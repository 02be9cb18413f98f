"""`convnext export`: the file answers as the run does, brings what is needed to use it, and is refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import convnext as package
from commands import convnext, trained
from convnext.data.evaluation import eval_transform
from convnext.deploy.export.run import export
from convnext.deploy.exported.opened import description_of, open_exported
from convnext.deploy.folded import Folded
from convnext.deploy.folded_run import read
from convnext.deploy.forms.asked import Options
from convnext.deploy.graph import BATCH, normalised, prepared, trace
from convnext.deploy.load import load
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.extras import installed
from convnext.kernels.dispatch import without_compiled
from convnext.models.away import away
from images import write_colours

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

FORMS = [
    "onnx",
    pytest.param("openvino", marks=pytest.mark.skipif(not installed("openvino"), reason="no openvino")),
    "convnext",
]
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "convnext": ".convnext"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    trained(data, out)
    return out


@pytest.fixture(scope="module", params=FORMS)
def exported(request, run) -> Path:
    """The run in each form."""
    out = run.parent / f"plain{SUFFIX[request.param]}"
    export(run, request.param, out)
    return out


def batch(count: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def logits_of(exported: Path, images: np.ndarray) -> np.ndarray:
    (found,) = open_exported(exported).run(images, ("logits",))
    return found


def logits_of_run(run: Path, images: np.ndarray) -> np.ndarray:
    """By the evaluation transform and the plain network."""
    predictor = load(run, device="cpu", plain=True)
    shown = np.stack([eval_transform(image, predictor.recipe.input) for image in images])
    return predictor.logits(torch.from_numpy(shown)).numpy()


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (20, 37), (3, 50), (1, 1)])
def test_an_exported_network_gives_the_logits_of_its_run_for_images_of_any_size(run, exported, size):
    images = batch(5, *size)
    expected, found = logits_of_run(run, images), logits_of(exported, images)
    least = 5e-3 if exported.suffix == ".xml" else 1e-5  # OpenVINO may resize a pixel to the next grey level
    assert found.shape == expected.shape and np.abs(found - expected).max() <= least * np.abs(expected).max()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_batch_may_have_any_number_of_images(exported, count):
    assert np.allclose(logits_of(exported, batch(7)[:count]), logits_of(exported, batch(7))[:count], atol=1e-5)


@pytest.mark.skipif(without_compiled() is not None, reason="the compiled kernels are not here")
def test_a_convnext_file_in_use_holds_its_weights_once_and_answers_to_the_bit(run, tmp_path, monkeypatch):
    out = tmp_path / "x.convnext"
    export(run, "convnext", out)
    held, release = [], Folded.release
    with monkeypatch.context() as patched:
        patched.setattr(Folded, "release", lambda network: held.append(network))
        whole = logits_of(out, batch(3))
    monkeypatch.setattr(Folded, "release", lambda network: held.append(network) or release(network))
    assert np.array_equal(logits_of(out, batch(3)), whole)
    assert "head.linear.weight" in away(held[1])


def test_a_convnext_file_that_says_wrong_sizes_is_not_read(run, tmp_path):
    out = tmp_path / "x.convnext"
    export(run, "convnext", out)
    whole = out.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for change in ({"shape": [2**40]}, {"data_offsets": [0, 2**50], "shape": [2**48]}, {"dtype": "F64"}):
        header = json.loads(whole[8:start])
        header["head.linear.weight"] |= change
        text = json.dumps(header).encode()
        out.write_bytes(len(text).to_bytes(8, "little") + text + whole[start:])
        with pytest.raises((ValueError, RuntimeError), match=r"as long as its shape says|allocate"):
            read(out)


def test_class_names_recipe_and_preprocessing_travel_in_the_file(run, exported):
    there, here = load(run, device="cpu"), package.load(exported)
    assert here.classes == there.classes == ("blue", "green", "red")
    assert here.recipe.model_copy(update={"precision": there.recipe.precision}) == there.recipe
    ways = here.metadata["preprocessing"]
    assert ways["mean"] == list(there.recipe.input.mean) and ways["size_px"] == 16


def test_predict_and_evaluate_take_an_exported_file_and_say_what_the_run_says(run, exported, data):
    images = sorted((data / "val" / "red").iterdir())
    told = [
        json.loads(convnext("predict", source, *images, "--json").out.splitlines()[0]) for source in (run, exported)
    ]
    for one, two in zip(told[0]["predictions"], told[1]["predictions"], strict=True):
        assert one["label"] == two["label"] and one["score"] == pytest.approx(two["score"], abs=1e-5)
    scores = [json.loads(convnext("evaluate", source, data, "--json").out) for source in (run, exported)]
    assert scores[0]["top1"] == scores[1]["top1"] and scores[0]["loss"] == pytest.approx(scores[1]["loss"], abs=1e-5)


def test_a_folder_that_was_parted_is_scored_on_what_the_run_held_out(data, tmp_path):
    trained(data / "train", tmp_path / "run", "--epochs", 1)
    convnext("export", tmp_path / "run", "--to", "onnx", "--out", tmp_path / "x.onnx")
    runs = [
        convnext("evaluate", source, data / "train", "--json") for source in (tmp_path / "run", tmp_path / "x.onnx")
    ]
    assert "scoring the" in runs[1].err
    counted = [json.loads(done.out)["n"] for done in runs]
    assert counted[0] == counted[1] < 36


def test_the_onnx_file_is_valid_and_names_its_input_output_and_classes(run, tmp_path):
    done = convnext("export", run, "--to", "onnx", "--out", tmp_path / "x.onnx")
    assert done.status == 0 and "largest difference of a logit" in done.out
    model = onnx.load(str(tmp_path / "x.onnx"))
    onnx.checker.check_model(model, full_check=True)
    (taken,), given = model.graph.input, model.graph.output
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (taken, *given)}
    assert shapes.pop("images") == ["batch", "height", "width", 3]
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shapes == {name: ["batch", 3] for name in ("logits", "scores", "answers")}
    kept = {pair.key: pair.value for pair in model.metadata_props}
    assert json.loads(kept["classes"]) == ["blue", "green", "red"] and "bicubic" in kept["preprocessing"]


@pytest.mark.parametrize("form", [*FORMS[:2], "torch"])
def test_weights_in_16_bits_halve_the_file_and_hardly_change_the_answers(tmp_path, form):
    from convnext.engine import checkpoint

    recipe = package.recipe("small", "atto", classes=3, images=100, image_px=16)
    changes = {"model": recipe.model.model_copy(update={"depths": (1, 1), "widths": (64, 96)})}
    recipe = recipe.model_copy(update={**changes, "input": recipe.input.model_copy(update={"eval_size_px": 16})})
    described = {"recipe": recipe.model_dump(mode="json"), "classes": ["a", "b", "c"], "weights": "raw"}
    torch.manual_seed(0)
    made = package.create("atto", **changes["model"].model_dump(exclude={"name", "family", "drop_path"}))
    checkpoint.save(tmp_path / "x.safetensors", made.state_dict(), described)
    whole, half = (export(tmp_path / "x.safetensors", form, options=Options(half=half)) for half in (False, True))
    assert half.out != whole.out
    assert half.megabytes < 0.75 * whole.megabytes and 0 < half.difference <= 3e-2 * half.largest


def test_a_torch_program_runs_where_this_package_is_not(run, tmp_path):
    export(run, "torch", tmp_path / "x.pt2")
    kept = {"convnext.json": ""}
    program = torch.export.load(tmp_path / "x.pt2", extra_files=kept).module()
    for images in (batch(3, 20, 37), batch(1)):
        found = program(torch.from_numpy(images))["logits"].detach().numpy()
        assert np.allclose(found, logits_of_run(run, images), atol=1e-5)
    assert json.loads(kept["convnext.json"])["classes"] == ["blue", "green", "red"]
    with pytest.raises(CheckpointError, match=r"torch\.export\.load"):
        load(tmp_path / "x.pt2")


def test_a_baseline_is_exported_unfolded(data, tmp_path):
    arguments = ["train", data, "--out", tmp_path / "run", "--model", "timm:resnet10t", "--epochs", 1, "--batch", 6]
    assert convnext(*arguments, "--size", 32, "--workers", 0).status == 0
    done = export(tmp_path / "run", "onnx")
    assert done.out == tmp_path / "run" / "model.onnx" and done.difference <= 1e-3 * done.largest


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("fields", [{}, {"grn": True, "layer_scale": None}, {"stem": "overlap"}])
def test_the_network_that_is_traced_is_the_network(fields, convolutions):
    torch.manual_seed(0)
    model = package.create("atto", classes=4, depths=(1, 1), widths=(8, 16), **fields).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(2, 3, 24, 40)
    network = prepared(model, convolutions=convolutions)
    with torch.inference_mode():
        assert torch.allclose(network(x), model.eval()(x.double()).float(), atol=1e-5, rtol=1e-4)
        program = trace(network, x, free={0: BATCH})
        assert torch.allclose(program.module()(x[:1]), network(x[:1]), atol=1e-6)


def test_the_flat_norm_is_layer_norm_over_the_channels():
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    norm = torch.nn.LayerNorm(5, eps=1e-6).double()
    torch.nn.init.normal_(norm.weight)
    expected = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.allclose(normalised(x, norm), expected, atol=1e-12)


def test_images_of_ones_own_may_be_compared_on(run, data, tmp_path):
    done = convnext("export", run, "--to", "onnx", "--compare-on", data / "val", "--out", tmp_path / "x.onnx", "--json")
    told = json.loads(done.out)
    assert told["compared"] == "8 images" and told["max_logit_difference"] < 1e-4 * told["max_logit"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--to", "onxn"], "Did you mean 'onnx'?"),
        ([], "--to onnx, --to openvino, --to convnext, --to torch or --to web"),
        (["--to", "convnext", "--half"], "--half does not go with --to convnext"),
        (["--to", "onnx", "--out", "x.xml"], "Let its name end in .onnx"),
        (["--to", "torch", "--int8", "pets"], "--int8 does not go with --to torch"),
        (["--to", "onnx", "--int8", "pets", "--half"], "--int8 does not go with --half"),
        (["--to", "openvino", "--int8", "pets", "--backend", "onnxruntime"], "does not go with --to openvino"),
        (["--to", "onnx", "--max-loss", "-1"], "'-1' is not a number of points"),
        (["--to", "onnx", "--compare-on", "nowhere"], "nowhere"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(run, arguments, part):
    assert part in convnext("export", run, *arguments).line


def test_a_missing_package_is_one_line_that_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'convnext[export]'" in convnext("export", run, "--to", "onnx").line
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "pip install 'convnext[openvino]'" in convnext("export", run, "--to", "openvino").line


def test_an_onnx_file_runs_under_whichever_runtime_is_there(run, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    export(run, "onnx", tmp_path / "x.onnx")
    one = logits_of(tmp_path / "x.onnx", batch(2))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    other = load(tmp_path / "x.onnx")
    assert other.model.backend == "openvino" and other.classes == ("blue", "green", "red")
    assert np.allclose(logits_of(tmp_path / "x.onnx", batch(2)), one, atol=1e-5)


def test_a_damaged_file_is_refused_in_one_line(exported, tmp_path, data):
    copy = tmp_path / exported.name
    for suffix in (exported.suffix, ".bin") if exported.suffix == ".xml" else (exported.suffix,):
        copy.with_suffix(suffix).write_bytes(exported.with_suffix(suffix).read_bytes())
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    assert "damaged" in convnext("predict", copy, data).line
    assert "There is no exported network" in convnext("predict", tmp_path / f"no{exported.suffix}", data).line


def test_weights_of_openvino_that_were_cut_off_are_refused(run, tmp_path):
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    export(run, "openvino", tmp_path / "x.xml")
    weights = tmp_path / "x.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "x.xml")


def test_a_foreign_onnx_file_is_refused(exported, tmp_path):
    if exported.suffix != ".onnx":
        pytest.skip("one form is enough")
    model = onnx.load(str(exported))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(CheckpointError, match="not written by `convnext export`"):
        load(tmp_path / "x.onnx")


@pytest.mark.parametrize(("version", "part"), [(1, "an older convnext"), (99, "a newer convnext")])
def test_a_file_of_another_version_is_refused_in_one_line(exported, version, part):
    described = open_exported(exported).description | {"version": version}
    with pytest.raises(CheckpointError, match=part):
        description_of(exported, json.dumps(described))


def test_a_file_that_answers_otherwise_is_not_kept(run, tmp_path, monkeypatch):
    (tmp_path / "x.onnx").write_bytes(b"before")
    monkeypatch.setattr("convnext.deploy.export.compared.Compared.difference", lambda *_: float("nan"))
    with pytest.raises(ConvNeXtError, match="answers otherwise"):
        export(run, "onnx", tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


TWO_NETWORKS = """
import signal, subprocess, numpy as np, openvino
from convnext.deploy.forms.openvino import openvino_run
x = openvino.opset13.parameter([1, 3], np.float32)
model = openvino.Model([openvino.opset13.relu(x)], [x])
model.inputs[0].get_tensor().set_names({"images"})
model.outputs[0].get_tensor().set_names({"logits"})
first, second = (openvino_run(model, exact=True) for _ in range(2))
for run in (first, second):
    run(np.zeros((1, 3), np.float32), ["logits"])
del run, first
del second
signal.signal(signal.SIGCHLD, lambda *_: print("heard"))
subprocess.run(["true"])
"""


@pytest.mark.skipif(not installed("openvino"), reason="no openvino")
def test_signals_are_heard_after_openvino_networks_are_gone():
    """OpenVINO leaves freed memory as the stack of signal handlers; here in a child, whose end would be a crash."""
    done = subprocess.run([sys.executable, "-c", TWO_NETWORKS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
