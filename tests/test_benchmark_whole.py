"""`convnext benchmark --task detection|segmentation`: whole networks at the paper's input, beside its figures."""

import json
from functools import partial

import pytest
import torch

from commands import convnext
from convnext.config import ConvNeXtConfig
from convnext.studies.benchmark import run, whole
from convnext.studies.benchmark.child import Turn
from convnext.studies.benchmark.jobs import Settings, network_of
from convnext.studies.benchmark.rows import rows_of
from convnext.tasks.detection.build import detector_values
from convnext.tasks.detection.types import Images

SMALL = ConvNeXtConfig(name="small_one", depths=(1, 1, 1, 1), widths=(8, 8, 16, 16), classes=5)
TURNS = {"mask_rcnn_tiny": 2.0, "mask_rcnn_tiny:eager": 4.0, "cascade_tiny": 5.0, "cascade_swin_tiny": 10.0}  # seconds


def settings(task, **changes):
    values = {"config": SMALL, "batches": (1,), "size_px": 64, "threads": 1, "task": task}
    return Settings(**values | changes)


class Answering:
    """A contender without a process, as fast as TURNS has it."""

    def __init__(self, job, folder):
        self.job = job

    def send(self, *arguments):
        self.arguments = arguments

    def answer(self):
        return self.ask(*self.arguments)

    def ask(self, argument, *rest):
        return Turn((TURNS.get(self.job.name, 8.0),), 100.0) if argument == "turn" else None

    def close(self):
        pass


@pytest.fixture
def answering(monkeypatch):
    monkeypatch.setattr(run, "_Child", Answering)


def test_the_input_is_that_of_the_papers_tables():
    assert whole.shape_px(settings("detection", size_px=whole.SIZES_PX["detection"])) == (800, 1280)
    assert whole.shape_px(settings("segmentation", size_px=whole.SIZES_PX["segmentation"])) == (512, 2048)


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_a_detector_of_fresh_weights_shows_a_hundred_masks_the_same_on_kernels_and_without(kind, monkeypatch):
    narrow = {"channels": 32, "hidden": 32, "proposals_test": 40}
    monkeypatch.setattr(whole, "detector_values", partial(detector_values, **narrow))
    found = []
    for form in (kind + "_small_one", kind + "_small_one:eager"):
        (job,) = [each for each in whole.jobs_of(settings("detection"), ()) if each.name == form]
        model = whole.network(job)
        whole.inference(job, model)(1)()  # it answers for noise, and nobody looks
        torch.manual_seed(1)
        x = torch.randn(1, 3, *whole.shape_px(job.settings))
        with torch.inference_mode():
            found += model.detect(Images(x, (whole.shape_px(job.settings),)))
    kernels, plain = found
    assert len(kernels.boxes) == len(plain.boxes) == 100 and kernels.masks.shape[:2] == (100, 28)
    torch.testing.assert_close(kernels.scores, plain.scores, rtol=1e-4, atol=1e-5)


def test_a_segmenter_answers_for_every_pixel_and_other_backbones_run_beside_it():
    jobs = whole.jobs_of(settings("segmentation"), ("timm:resnet18",))
    assert [(job.name, job.origin, job.library, job.form) for job in jobs] == [
        ("upernet_small_one", "ours", "convnext", "fused"),
        ("upernet_small_one:eager", "ours", "convnext", "eager"),
        ("upernet_timm:resnet18", "other", "timm", "eager"),
    ]
    for job in jobs:
        model = whole.network(job)
        whole.inference(job, model)(1)()
        with torch.inference_mode():
            assert model(torch.randn(1, 3, 64, 256)).shape == (1, 150, 64, 256)


def test_rows_have_what_the_paper_printed_beside_them_and_ratios_within_their_head(answering):
    given = settings("detection", config=network_of("tiny"), size_px=800)
    jobs = whole.jobs_of(given, whole.OTHERS)
    found = run.measure(jobs, rounds=1, seconds=0.1, info=print, advance=lambda *_: None)
    rows = whole.with_printed(rows_of(found), given)
    printed = {row["name"]: (row["paper_fps"], row["gmacs"]) for row in rows[1:]}
    assert printed == {  # arXiv 2201.03545, Table 3: FPS on an A100, and 262, 267, 741, 745, 739 G
        "mask_rcnn_tiny": (25.6, 262.1),
        "mask_rcnn_tiny:eager": (25.6, 262.1),
        "mask_rcnn_swin_tiny": (23.1, 266.7),
        "mask_rcnn_resnet50": (None, printed["mask_rcnn_resnet50"][1]),
        "cascade_tiny": (13.5, 741.0),
        "cascade_tiny:eager": (13.5, 741.0),
        "cascade_swin_tiny": (12.2, 745.6),
        "cascade_resnet50": (16.2, 739.0),
    }
    assert {(row["height_px"], row["width_px"]) for row in rows[1:]} == {(800, 1280)}
    lines = [line.split() for line in whole.tables(rows).splitlines()]
    cells = {line[0]: line[1:3] + line[-2:] for line in lines if len(line) > 8 and line[0] in printed}
    assert cells["mask_rcnn_tiny:eager"] == ["0.25", "0.50", "25.6", "1.00"]
    assert cells["cascade_swin_tiny"] == ["0.10", "0.50", "12.2", "0.90"]
    small = whole.with_printed(rows_of(found), settings("detection", config=network_of("tiny")))
    assert {row["gmacs"] for row in small[1:]} == {None}


def test_the_command_prints_a_table_for_each_head_and_writes_lines(answering, tmp_path):
    lines = tmp_path / "rows.jsonl"
    done = convnext("benchmark", "--task", "detection", "--rounds", 1, "--out", lines)
    assert done.status == 0 and "8 contenders, 1 rounds" in done.err
    assert "tiny, detection, inference, 800 px" in done.out
    assert "mask_rcnn, batch 1" in done.out and "cascade, batch 1" in done.out and "paper FPS" in done.out
    assert len([json.loads(line) for line in lines.read_text().splitlines()]) == 9


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--backends", "eager"),
            "--backends is for classifiers. With --task detection name other backbones by --others",
        ),
        (("--peers", "timm"), "--peers is for classifiers"),
        (("--mode", "training"), "--mode training is for classifiers"),
        (("--others", "swin_tinny"), "swin_tiny"),
        (("--others", "tiny"), "'tiny' is --model already"),
        (("--others", "resnet50,resnet50"), "names a network twice"),
    ],
)
def test_what_does_not_go_with_whole_networks_is_one_line(arguments, line):
    assert line in convnext("benchmark", "--task", "detection", *arguments).line
