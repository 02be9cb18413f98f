"""The table of the forms of export: its rows lead somewhere, everything that names forms reads it, and a row is enough."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import convnext as package
from checkpoints import checkpoint_of
from convnext import api
from convnext.cli import VERBS
from convnext.cli.options import parser_of
from convnext.deploy.export.run import export
from convnext.deploy.forms import table
from convnext.deploy.forms.asked import Options
from convnext.deploy.forms.table import FORMS, Form
from convnext.engine import checkpoint
from convnext.errors import ConvNeXtError
from convnext.extras import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
OTHER = Form(
    name="other",
    suffix=".other",
    beside=(".json",),
    writer="test_forms:write",
    backend="numpy",
    opener="test_forms:opened",
)


def write(program: Any, path: Path, described: dict[str, Any], *, half: bool) -> None:
    assert not half
    torch.export.save(program, path)
    path.with_suffix(".json").write_text(json.dumps(described))


def opened(path: Path, threads: int) -> tuple[Any, str]:
    network = torch.export.load(path).module()

    def run(images: np.ndarray, outputs: Sequence[str], **more: np.ndarray) -> list[np.ndarray]:
        found = network(torch.from_numpy(images))
        return [found[name].detach().numpy() for name in outputs]

    return run, path.with_suffix(".json").read_text()


@pytest.fixture
def other(monkeypatch) -> Form:
    """The table with one more row."""
    monkeypatch.setattr(table, "FORMS", (*FORMS, OTHER))
    return OTHER


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_row_names_functions_and_packages_that_there_are(form):
    for function in filter(None, (form.writer, form.detector, form.opener, form.quantizer, form.int8_hindrance)):
        assert callable(table.called(function))
    assert {*form.packages, *form.detector_packages, *form.int8_packages} <= set(EXTRAS)
    assert form.extra in PROJECT["project"]["optional-dependencies"]
    assert bool(form.opener) == bool(form.backend) != bool(form.unopened)
    assert set(form.also) <= set(table.backends()) and form.backend not in form.also


def test_names_suffixes_and_backends_are_each_of_one_form():
    for values in ([form.name for form in FORMS], [form.suffix for form in FORMS]):
        assert len(set(values)) == len(values)
    assert len(table.backends()) == sum(bool(form.backend) for form in FORMS)


def test_the_types_of_the_front_door_are_the_table():
    hints = api.export.__annotations__
    assert get_args(hints["to"]) == (*table.names(), "web")  # which is a folder around one of them
    assert get_args(hints["backend"]) == ("auto", *table.backends())


def test_opening_loads_no_torch():
    code = "import sys; sys.modules['torch'] = None\nfrom convnext.deploy.forms import table\n"
    code += f"for name in {[form.opener for form in FORMS if form.opener]}: table.called(name)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_row_is_all_that_another_form_takes(other, tmp_path, capsys):
    recipe = package.recipe("small", "atto", classes=3, images=100, image_px=16)
    changes = {"model": recipe.model.model_copy(update={"depths": (1, 1), "widths": (8, 16)})}
    recipe = recipe.model_copy(update={**changes, "input": recipe.input.model_copy(update={"eval_size_px": 16})})
    described = {"recipe": recipe.model_dump(mode="json"), "classes": ["a", "b", "c"], "weights": "raw"}
    model = package.create("atto", **changes["model"].model_dump(exclude={"name", "family", "drop_path"}))
    checkpoint.save(tmp_path / "x.safetensors", model.state_dict(), described)
    done = export(tmp_path / "x.safetensors", other.name)
    assert done.out == tmp_path / "model.other" and done.backend == "numpy" and done.out.with_suffix(".json").is_file()
    found = package.load(done.out)
    assert found.classes == ("a", "b", "c")
    assert found(np.zeros((16, 16, 3), np.uint8)).predictions
    with pytest.raises(SystemExit):
        parser_of(VERBS).parse_args(["export", "--help"])
    assert "other" in capsys.readouterr().out


def test_an_option_that_a_form_does_not_have_is_refused_in_one_line(other):
    with pytest.raises(ConvNeXtError, match="--half does not go with --to other"):
        export("nowhere", other.name, options=Options(half=True))


@pytest.mark.parametrize(
    ("to", "task", "absent", "said"),
    [
        ("web", "classification", "onnx", "--to web needs onnx, which"),  # never what it is made of
        ("web", "classification", "onnxruntime", "--to web needs onnxruntime, which"),
        ("onnx", "detection", "onnxscript", "--to onnx needs onnxscript, which"),
        ("openvino", "detection", "onnx", "--to openvino of a detector needs onnx, which"),
    ],
)
def test_a_missing_package_is_told_by_the_form_that_was_asked_for(tmp_path, monkeypatch, to, task, absent, said):
    run = checkpoint_of(task, tmp_path)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ConvNeXtError) as told:
        api.export(run, to)
    assert str(told.value) == f"{said} is not installed: pip install 'convnext[export]'."


def test_every_extra_is_in_both_tables_and_what_tests_take():
    extras = PROJECT["project"]["optional-dependencies"]
    named = {extra for extra, _ in EXTRAS.values()}
    assert named == set(extras) - {"tests", "docs", "wheel"}
    (everything,) = (line for line in extras["tests"] if line.startswith("convnext["))
    assert set(everything.removeprefix("convnext[").removesuffix("]").split(",")) == named
