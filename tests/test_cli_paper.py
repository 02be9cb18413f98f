"""The commands around the paper: the roadmap, weights for other libraries, tables."""

import json

import pytest
from safetensors.torch import load_file

from commands import convnext, trained
from convnext.cli import convert as convert_verb
from convnext.cli import evaluate as evaluate_verb
from convnext.models.convert import LIBRARIES
from convnext.studies.robustness.suite import SUITES
from images import write_colours


def test_the_roadmap_as_json_has_its_seventeen_rows_in_order():
    rows = json.loads(convnext("roadmap", "--json").out)
    assert len(rows) == 17
    assert all(set(row) == {"step", "params", "macs", "paper_gflops", "paper_top1"} for row in rows)
    assert (rows[0]["params"], rows[-1]["params"]) == (25_557_032, 28_589_128)
    assert json.loads(convnext("roadmap", "--regime", "b", "--json").out)[-1]["params"] == 88_591_464


def test_the_roadmap_as_text_marks_the_two_cells_that_are_most_likely_misprinted():
    text = convnext("roadmap").out
    assert text.count("*") == 4 and "4.46*" in text and "4.49*" in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["roadmap", "--seeds", 2], ["--seeds is for training", "--train DATA"]),
        (["roadmap", "--regime", "c"], ["'c'", "t"]),
        (["roadmap", "--train", "DATA", "--steps", "patchifi"], ["patchifi", "Did you mean 'patchify'"]),
        (["roadmap", "--train", "DATA", "--optim.lrr", 1], ["optim.lrr", "optim.lr"]),
        (["roadmap", "--train", "nowhere"], ["nowhere"]),
        (["convert", "nowhere", "x.safetensors", "--to", "timm"], ["nowhere"]),
        (["convert", "RUN", "x.safetensors", "--to", "tim"], ["Did you mean 'timm'"]),
    ],
)
def test_a_mistake_is_one_line(arguments, parts, tmp_path):
    data = write_colours(tmp_path / "data")
    line = convnext(*(data if argument == "DATA" else argument for argument in arguments)).line
    assert all(part in line for part in parts), line


def test_a_roadmap_on_own_images_leaves_results_chart_and_page(tmp_path):
    data, out = write_colours(tmp_path / "data"), tmp_path / "out"
    arguments = ["--steps", "resnet,patchify", "--width-factor", 0.125, "--epochs", 1, "--workers", 0, "--out", out]
    done = convnext("roadmap", "--train", data, *arguments, "--input.size_px", 16, "--optim.batch", 6)
    assert done.status == 0, done.err
    assert "patchify" in done.out
    assert {"roadmap.json", "roadmap.svg", "roadmap.html"} <= {file.name for file in out.iterdir()}


def test_a_run_is_converted_there_and_back_to_the_same_bits(tmp_path):
    trained(write_colours(tmp_path / "data"), tmp_path / "run", "--model.stem", "patch", "--model.depths", "1,1,1,1",
            "--model.widths", "8,16,16,16", "--model.patch", 4, "--size", 64)  # fmt: skip
    there, back = tmp_path / "timm.safetensors", tmp_path / "back.safetensors"
    done = convnext("convert", tmp_path / "run", there, "--to", "timm", "--weights", "raw", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["max_logit_difference"] < 1e-5
    assert convnext("convert", there, back, "--to", "convnext", "--no-check").status == 0
    first, second = load_file(tmp_path / "run" / "best.safetensors"), load_file(back)
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def test_a_table_of_the_paper_stands_beside_what_is_counted_here(tmp_path):
    assert "ConvNeXt-T" in convnext("paper", "1").out
    rows = json.loads(convnext("paper", "1", "--json").out)["rows"]
    assert any(row["counted"]["params"] == 28_589_128 for row in rows)
    assert "Did you mean" in convnext("paper", "111").line or "There are" in convnext("paper", "111").line
    both = json.loads(convnext("paper", "3", "T10", "--json").out)
    assert [each["table"] for each in both] == ["3", "10"]
    assert convnext("paper", "3", "10").out.count("arXiv 2201.03545v2") == 2
    chart = tmp_path / "figure.svg"
    assert convnext("paper", "--plot", chart).out.strip() == str(chart)
    assert chart.read_text().lstrip().startswith("<svg")


def test_segmenters_are_listed_with_the_papers_figures():
    rows = {row["name"]: row for row in json.loads(convnext("models", "--task", "segmentation", "--json").out)}
    assert round(rows["upernet_tiny"]["macs"] / 1e9) == 939 and round(rows["upernet_xlarge"]["macs"] / 1e9) == 3335


def test_choices_that_the_parser_repeats_so_as_not_to_load_torch_are_those_of_the_library():
    assert tuple(LIBRARIES) == convert_verb.LIBRARIES
    assert tuple(SUITES) == evaluate_verb.GRIDS
