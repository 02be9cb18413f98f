"""`convnext export --int8`: calibrated on some images, judged on others, and refused when it costs too much."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import convnext as package
from commands import convnext, trained
from convnext.data.evaluation import framed
from convnext.data.opening import open_splits, recognise
from convnext.deploy import folded_int8, graph, int8
from convnext.deploy.export import openvino
from convnext.deploy.exported.opened import open_exported
from convnext.deploy.folded import Folded
from convnext.errors import ConvNeXtError, DataError
from convnext.extras import installed
from convnext.kernels import cpu
from convnext.kernels.dispatch import SWITCH, without_compiled
from convnext.tasks.classification.inference import judged
from convnext.tasks.classification.metrics import Outcomes
from convnext.tasks.classification.several import metrics as several
from images import write_colours
from labels_data import in_columns, made

needs_export = pytest.mark.skipif(
    not all(map(installed, ("onnx", "onnxscript", "onnxruntime"))), reason="the extra 'export' is not installed"
)
needs_openvino = pytest.mark.skipif(
    not all(map(installed, ("openvino", "nncf"))), reason="the extra 'openvino' is not installed"
)
needs_kernels = pytest.mark.skipif(bool(without_compiled()), reason="there are no compiled kernels")
FORMS = [
    pytest.param("onnx", marks=needs_export),
    pytest.param("openvino", marks=needs_openvino),
    pytest.param("convnext", marks=needs_kernels),
]
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "convnext": ".convnext"}
MARK = {"onnx": b"QuantizeLinear", "openvino": b"FakeQuantize", "convnext": b'"dtype":"I8"'}  # of int8, in the file


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    trained(data, out)
    return out


def outcomes(predicted: list[int], labels: list[int]) -> Outcomes:
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()
    return judged(logits, torch.tensor(labels), torch.arange(len(labels)))


@pytest.mark.parametrize("form", FORMS)
def test_an_int8_file_answers_nearly_as_its_run_and_says_what_it_cost(run, data, tmp_path, form):
    out = tmp_path / f"x{SUFFIX[form]}"
    arguments = ["export", run, "--to", form, "--int8", data, "--out", out, "--calibrate", 9, "--workers", 0, "--json"]
    done = convnext(*arguments, "--max-loss", 100)
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["precision"] == "int8" and told["int8"]["n"] == 12 and told["int8"]["speed"] > 0
    assert told["max_logit_difference"] < 0.3 * told["max_logit"]
    there, here = package.load(run, device="cpu"), package.load(out)
    assert here.classes == there.classes and here.metadata["int8"] == {"variant": "int8", "calibrated_on": 9}
    score = json.loads(convnext("evaluate", out, data, "--json", "--workers", 0).out)
    assert score["top1"] == pytest.approx(told["int8"]["after"])
    assert MARK[form] in out.read_bytes()
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 20, 3), np.uint8)
    few, many = (open_exported(out).run(some, ("logits",))[0] for some in (images[:2], images))
    assert np.allclose(many[:2], few, atol=1e-4)


@needs_export
def test_int8_that_costs_too_much_is_refused_in_one_line_and_no_file_is_kept(run, data, tmp_path, monkeypatch):
    real = int8.Comparison.of

    def worse(before: Outcomes, after: Outcomes) -> int8.Comparison:
        wrong = Outcomes(**{**vars(after), "rank": np.ones_like(after.rank)})
        return real(before, wrong)

    monkeypatch.setattr(int8.Comparison, "of", worse)
    out = tmp_path / "x.onnx"
    out.write_bytes(b"before")
    done = convnext("export", run, "--to", "onnx", "--int8", data, "--out", out, "--calibrate", 3, "--workers", 0)
    assert done.status == 2 and done.out == ""
    assert "no file is kept" in done.err.splitlines()[-1] and "--max-loss 0.5" in done.err.splitlines()[-1]
    assert done.err.count("points of top-1 lost") == len(int8.VARIANTS)  # each was tried and named
    assert out.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_the_first_variant_within_the_limit_is_taken_and_what_was_left_is_said():
    losses = {"a": 3.0, "b": 0.4, "c": 0.0}
    said: list[str] = []
    judged = lambda name: int8.Comparison(1000, 0.9, 0.9 - losses[name] / 100, 0.95, 0.001)  # noqa: E731
    variant, found = int8.first_within(tuple(losses), judged, 0.5, said.append)
    assert variant == "b" and found.loss == pytest.approx(0.4)
    assert len(said) == 1 and said[0].startswith("a: 3.00 points")
    with pytest.raises(ConvNeXtError, match=r"0\.40 points of top-1 at best"):
        int8.first_within(("a", "b"), judged, 0.1, said.append)


def test_a_comparison_is_the_one_that_is_counted_by_hand():
    labels = [0, 0, 1, 1, 2, 2, 2, 2]
    before, after = [0, 0, 1, 1, 2, 2, 0, 0], [0, 1, 1, 2, 2, 2, 2, 1]
    found = int8.Comparison.of(outcomes(before, labels), outcomes(after, labels))
    assert (found.n, found.before, found.after, found.agreement) == (8, 6 / 8, 5 / 8, 4 / 8)
    change = [0, 1, 0, 1, 0, 0, -1, 0]
    assert found.loss == pytest.approx(100 * np.mean(change))
    assert found.error == pytest.approx(np.std(change) / np.sqrt(8))


def test_too_few_images_to_tell_are_said_to_be_too_few():
    few = int8.Comparison(50, 0.9, 0.9, 1.0, 0.0)
    assert few.doubt == 2.0 and "too few images to be sure that fewer than 0.5 points are lost" in few.text(0.5)
    many = int8.Comparison(100_000, 0.9, 0.8995, 0.99, 0.0003)
    assert "too few" not in many.text(0.5)
    wanted = int8.Comparison(1000, 0.9, 0.9, 0.97, 0.005).text(0.5).rpartition("about ")[2].split()[0]
    assert int(wanted.replace(",", "")) == pytest.approx(1000 * (0.005 * 196 / 0.5) ** 2, abs=1)


def test_what_calibrates_does_not_judge_and_labels_follow_the_networks_classes(data, tmp_path):
    metadata = {"recipe": {"seed": 0, "input": {}}, "val_share": None}
    train, val = int8.parts_for(data, ("red", "blue", "green", "other"), metadata)
    assert {entry.path for entry in train.entries}.isdisjoint(entry.path for entry in val.entries)
    assert all(val.classes[entry.label] in entry.path for entry in val.entries) and len(val.entries) == 12
    train, val = int8.parts_for(data / "train", ("blue", "green", "red"), metadata | {"val_share": 0.25})
    assert (len(train.entries), len(val.entries)) == (27, 9)
    assert (
        val.entries == open_splits(recognise(data / "train", annotated=False), val_share=0.25, seed=0).val.entries
    )  # what such a run holds out
    with pytest.raises(DataError, match="Did you mean 'greens'"):
        int8.parts_for(data, ("blue", "greens", "red"), metadata)


def test_the_images_to_calibrate_on_are_sampled_by_the_seed(data):
    dataset, config = (
        open_splits(recognise(data, annotated=False)).train,
        package.recipe("small", "atto", images=36, image_px=24, classes=3).input,
    )
    one, same, other = (int8.calibration(dataset, config, 5, seed) for seed in (0, 0, 1))
    assert len(one) == 5 and one[0].dtype == np.uint8
    assert one[0].shape == (1, *framed(np.zeros((1, config.eval_size_px, config.eval_size_px, 3)), config).shape[1:])
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(int8.calibration(dataset, config, 500, 0)) == len(dataset.entries)


@needs_openvino
def test_a_variant_keeps_the_layers_that_it_names():
    model = package.create("atto", classes=4, depths=(1, 2), widths=(8, 16)).eval()
    network = graph.prepared(model, convolutions=True)
    made = openvino.to_openvino(graph.trace(network, torch.zeros(2, 3, 32, 32), free={0: graph.BATCH}))
    kinds = [kind for _, kind in openvino.layers(made)]
    block = ["spatial", "pointwise", "pointwise"]
    assert kinds == ["first", *block, "dense", *block, *block, "head"]
    whole, last = (
        openvino.quantized(made, [np.zeros((1, 3, 32, 32), np.float32)], name)
        for name in ("int8", "int8 in the expanding and projecting layers alone")
    )
    quantized = [sum(op.get_type_name() == "FakeQuantize" for op in each.get_ordered_ops()) for each in (whole, last)]
    assert quantized[1] < quantized[0]


@pytest.mark.parametrize("package_name", ["nncf", "openvino"])
def test_int8_without_its_packages_is_one_line_that_names_the_extra(run, data, monkeypatch, package_name):
    monkeypatch.setitem(sys.modules, package_name, None)
    line = convnext("export", run, "--to", "openvino", "--int8", data).line
    assert package_name in line and "pip install 'convnext[openvino]'" in line


@needs_openvino
def test_data_that_cannot_judge_are_refused_in_one_line(run, tmp_path):
    only_red = write_colours(tmp_path / "one", classes=4)
    done = convnext("export", run, "--to", "openvino", "--int8", only_red, "--workers", 0)
    assert "'grey', which the model does not know" in done.line


def folded(name: str, **changes: object) -> Folded:
    """A small network whose every part matters."""
    torch.manual_seed(0)
    model = package.create(name, classes=4, depths=(1, 2), widths=(8, 16), **changes)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    made = package.optimize(model.eval())
    assert isinstance(made, Folded)
    return made


@needs_kernels
@pytest.mark.parametrize("name", ["atto", "v2_atto"])
def test_a_network_in_int8_answers_nearly_as_in_float_and_on_the_kernels_as_without_them(name):
    network, images = folded(name), torch.randn(6, 3, 32, 32)
    made = folded_int8.quantized(network, [images])
    plain = folded_int8.quantized(network, images.split(2))  # ranges of all batches together
    plain.fused = False
    with torch.inference_mode():
        exact, found, slow = network(images), made(images), plain(images)
    assert (found - exact).norm() < 0.03 * exact.norm() and (found - slow).norm() < 0.01 * exact.norm()
    kinds = [type(part).__name__ for stage in made.stages for part in stage]
    assert kinds == ["Int8Part"] * 4 and not any(isinstance(p, folded_int8.Int8Part) for p in network.modules())
    packed = [part.packed() for stage in made.stages for part in stage]
    blocks, patches = cpu.PackedInt8Block, cpu.PackedInt8Patch
    assert [type(each) for each in packed] == [blocks, patches, blocks, blocks]


def test_downsampling_layers_stay_in_float_where_a_variant_says_so():
    made = folded_int8.quantized(folded("atto"), [torch.randn(2, 3, 32, 32)], downsampling=False)
    kinds = [type(part).__name__ for stage in made.stages for part in stage]
    assert kinds == ["Int8Part", "FoldedDownsample", "Int8Part", "Int8Part"]


@needs_kernels
def test_an_int8_file_of_ours_answers_without_kernels_too_and_says_that_it_is_slow(run, data, tmp_path, monkeypatch):
    out = tmp_path / "x.convnext"
    words = ("--to", "convnext", "--int8", data, "--out", out, "--calibrate", 9, "--workers", 0, "--max-loss", 100)
    assert convnext("export", run, *words).status == 0
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    (fast,) = open_exported(out).run(images, ("logits",))
    monkeypatch.setenv(SWITCH, "plain")
    (slow,) = open_exported(out).run(images, ("logits",))
    assert np.abs(fast - slow).max() < 1e-2 * np.abs(slow).max()
    assert "x.convnext' answers many times slower than it could" in convnext("predict", out, data).err
    assert "--int8 with --to convnext is of no use here" in convnext("export", run, *words).line


def test_a_network_that_does_not_fold_has_no_file_of_ours(tmp_path, data):
    trained(data, tmp_path / "run", "--epochs", 1, "--model.head_width", 16)
    line = convnext("export", tmp_path / "run", "--to", "convnext").line
    assert "is for classifiers whose norms fold" in line and "--to onnx" in line


def test_turns_are_taken_one_after_the_other():
    calls: list[str] = []
    times = int8.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4 and {len(found) for found in times.values()} == {3}
    assert int8.ratio([2.0, 9.0, 4.0], [1.0, 1.0, 2.0]) == 2.0


def test_labels_are_compared_by_average_precision_with_an_error_from_resampled_images():
    rng = np.random.default_rng(0)
    marks = (rng.random((200, 3)) < 0.4).astype(np.int8)
    marks[5, 1] = -1
    logits = 3 * marks + rng.normal(size=(200, 3))
    before = several.Outcomes.of(logits, marks, np.arange(200))
    after = several.Outcomes.of(logits + rng.normal(size=(200, 3)), marks, np.arange(200))
    found = int8.Comparison.of_labels(before, after, np.full(3, 0.5))
    slow = []
    for seen in (before, after):
        known = [marks[:, k] >= 0 for k in range(3)]
        slow.append(np.mean([average_precision_score(marks[w, k], seen.score[w, k]) for k, w in enumerate(known)]))
    assert (found.before, found.after) == pytest.approx(tuple(slow), abs=1e-6)
    same = ((before.score >= 0.5) == (after.score >= 0.5)).all(1).mean()
    assert found.agreement == pytest.approx(same) and 0.002 < found.error < 0.05
    assert found.text(0.5).startswith("mAP ")


@pytest.mark.parametrize("form", FORMS)
def test_int8_of_several_labels_is_judged_by_their_average_precision(form, tmp_path):
    data = in_columns(tmp_path / "data", made(40))
    trained(data, tmp_path / "run", "--epochs", 2)
    words = ("--to", form, "--int8", data, "--calibrate", 16, "--max-loss", 100, "--json", "--workers", 0)
    done = convnext("export", tmp_path / "run", *words)
    assert done.status == 0, done.err
    told = json.loads(done.out)["int8"]
    assert told["figure"] == "mAP" and 0 <= told["after"] <= 1
    again = convnext("evaluate", json.loads(done.out)["out"], data, "--json", "--workers", 0)
    found = json.loads(again.out)
    assert found["n"] == told["n"] and found["map"] == pytest.approx(told["after"], abs=1e-6)
