"""`convnext benchmark`: who takes part, what a row holds, and what happens when one fails or somebody stops it."""

import json
import re
import xml.etree.ElementTree as ET
from typing import ClassVar

import pytest
import torch

from commands import convnext
from convnext.config import ConvNeXtConfig
from convnext.errors import ConvNeXtError
from convnext.kernels.dispatch import without_compiled
from convnext.models.profile import measure as count
from convnext.recipes.architectures import ARCHITECTURES
from convnext.studies.benchmark import child, networks, run
from convnext.studies.benchmark.chart import chart
from convnext.studies.benchmark.child import Turn
from convnext.studies.benchmark.jobs import Job, Settings, jobs_of, missing, network_of
from convnext.studies.benchmark.limits import gemm_flops, least_bytes
from convnext.studies.benchmark.rows import rows_of, verdict
from convnext.studies.benchmark.text import limits_text, tables

SMALL = ConvNeXtConfig(name="small_one", depths=(1, 1, 1, 1), widths=(8, 8, 16, 16), classes=5)


def settings(**changes):
    return Settings(**{"config": SMALL, "batches": (1, 2), "size_px": 32, "threads": 1} | changes)


class Here:
    """A contender without a process: the same arguments, answered by numbers that its name decides."""

    broken: ClassVar[dict[str, str]] = {}
    stop_after = 10**9
    turns = 0

    def __init__(self, job, folder):
        self.job, self.batch = job, 0

    def send(self, *arguments):
        self.arguments = arguments

    def answer(self):
        return self.ask(*self.arguments)

    def ask(self, argument, *rest):
        if Here.broken.get(self.job.name) == argument:
            raise run._Failed(f"it fell at {argument}")
        if argument == "warm":
            self.batch = rest[0]
        if argument == "turn":
            Here.turns += 1
            if Here.turns > Here.stop_after:
                raise KeyboardInterrupt
            speed = {"eager": 1.0, "optimized": 2.0, "timm": 1.25, "openvino": 1.6}.get(self.job.name, 1.0)
            return Turn((self.batch / speed, self.batch / speed), 100.0)
        return None

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    Here.broken, Here.stop_after, Here.turns = {}, 10**9, 0
    monkeypatch.setattr(run, "_Child", Here)
    monkeypatch.setattr(run, "counts_multiply_adds", lambda settings: True)
    monkeypatch.setattr("convnext.studies.benchmark.rows.fma_flops", lambda settings: 1e9)
    return Here


def measured(jobs, rounds=2):
    said, seen = [], []
    found = run.measure(
        jobs, rounds=rounds, seconds=0.1, info=said.append, advance=lambda note, done, total: seen.append((done, total))
    )
    return found, said, seen


def test_every_contender_has_a_row_for_each_batch_with_ratios_round_by_round(here):
    jobs = jobs_of(settings(), ["eager", "optimized"], ["timm"])
    found, said, seen = measured(jobs)
    rows = rows_of(found)
    assert not said and seen[-1] == (24, 24)
    assert [row["kind"] for row in rows] == ["machine"] + ["contender"] * 6
    for row in rows[1:]:
        assert row["reference"] == "optimized" and row["rounds"] == 2 and len(row["rates"]) == 2
        assert row["ratio"] == {"eager": 0.5, "optimized": 1.0, "timm": 0.625}[row["name"]]
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["latency_ms"] <= row["latency_p90_ms"] <= row["latency_p99_ms"]
        assert row["gemm_share"] > 0 and row["fma_share"] > 0 and row["copy_share"] > 0
    assert rows[1]["images_per_s"] == 1.0 and rows[1]["latency_ms"] == 1000.0
    assert {"torch", "processor", "command", "gemm_gflops", "fma_gflops", "copy_gb_s", "timm"} <= set(rows[0])
    assert json.loads(json.dumps(rows)) == rows
    assert verdict(rows, 1) == {"ours": "optimized", "peer": "timm", "ratio": 1.6, "ratio_low": 1.6, "ratio_high": 1.6}


def test_one_that_fails_is_named_in_one_line_and_the_rest_goes_on(here):
    here.broken = {"eager": "build", "timm": "turn", "torchvision": "warm"}
    found, said, _ = measured(jobs_of(settings(), ["eager", "optimized"], ["timm", "torchvision"]))
    assert set(found.failed) == {"eager", "timm", "torchvision"}
    assert len(said) == 3 and all("does not take part: it fell at" in line and "\n" not in line for line in said)
    assert {row["name"] for row in rows_of(found)[1:]} == {"optimized"}
    assert rows_of(found)[0]["failed"] == found.failed


def test_a_peer_that_is_not_installed_is_named_with_what_to_install(here, monkeypatch):
    monkeypatch.setattr("convnext.studies.benchmark.jobs.found", lambda name: False)
    jobs = jobs_of(settings(), ["eager", "openvino", "onnxruntime"], ["transformers"])
    assert missing(jobs[1]) == "onnx is not installed: pip install 'convnext[export]'"
    assert missing(jobs[2]) == "onnx is not installed: pip install 'convnext[export]'"
    assert missing(jobs[3]) == "transformers is not installed: pip install 'transformers'"
    found, said, _ = measured(jobs)
    assert len(said) == 3 and {row["name"] for row in rows_of(found)[1:]} == {"eager"}
    with pytest.raises(ConvNeXtError, match="No contender could be started: transformers is not installed"):
        measured(jobs_of(settings(), [], ["transformers"]))


def test_ctrl_c_keeps_the_rounds_that_are_whole(here):
    jobs = jobs_of(settings(batches=(1,)), ["eager"], ["timm"])
    here.stop_after = 2 * len(jobs) + 1
    found, _, _ = measured(jobs, rounds=5)
    assert found.stopped and {len(turns) for turns in found.turns.values()} == {2}
    assert rows_of(found)[0]["stopped"] and rows_of(found)[1]["rounds"] == 2


def test_the_turns_go_forwards_and_backwards(here):
    order = []
    jobs = jobs_of(settings(batches=(1,)), ["eager", "optimized"], [])
    run.measure(jobs, rounds=2, seconds=0.1, info=print, advance=lambda note, *_: order.append(note.split(", ")[1]))
    assert order == ["eager", "optimized", "gemm", "fma", "copy", "copy", "fma", "gemm", "optimized", "eager"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--model", "tinny"), "Did you mean 'tiny'"),
        (("--model", "resnet50"), "no ConvNeXt"),
        (("--batch", "1,x"), "'x' is not a whole number"),
        (("--batch", ","), "names no number of images"),
        (("--backends", "eeger"), "Did you mean 'eager'"),
        (("--backends", "fused"), "No backend of inference is called 'fused'"),
        (("--mode", "training", "--backends", "openvino"), "No backend of training is called 'openvino'"),
        (("--peers", "tim"), "Did you mean 'timm'"),
        (("--peers", "timm:compild"), "Did you mean 'compiled'"),
        (("--peers", "timm,timm"), "'timm' is named twice"),
        (("--backends", "", "--peers", ""), "No contender is left"),
        (("--plot", "x.png"), "written as .svg"),
        (("--out", "x.csv"), "written as .jsonl"),
        (("--mode", "trainin"), "Did you mean 'training'"),
        (("--seconds", "0"), "not a number of seconds"),
        (("--rounds", "0"), "not a whole number"),
        (("--device", "cudda"), "no such device here"),
        (("--threds", "2"), "Did you mean '--threads'"),
    ],
)
def test_a_wrong_word_is_one_line(arguments, line):
    assert line in convnext("benchmark", *arguments).line


def test_the_command_prints_tables_and_writes_lines_and_a_drawing(here, tmp_path, monkeypatch):
    monkeypatch.setattr("convnext.studies.benchmark.jobs.network_of", lambda name: SMALL)
    lines, drawing = tmp_path / "a" / "rows.jsonl", tmp_path / "plot.svg"
    arguments = ["benchmark", "--backends", "eager,optimized", "--peers", "timm", "--rounds", 2, "--size", 32]
    done = convnext(*arguments, "--out", lines, "--plot", drawing)
    assert done.status == 0 and "3 contenders, 2 rounds: about" in done.err
    assert re.search(r"Batch 8\ncontender +img/s +of optimized", done.out)
    assert (
        "Batch 8: optimized is 1.60 times timm, the best of the rest" in done.out
        and "multiply-adds 1 GFLOP/s" in done.out
    )
    assert len(lines.read_text().splitlines()) == 7
    assert "optimized" in "".join(ET.fromstring(drawing.read_text()).itertext())
    assert json.loads(convnext(*arguments, "--json").out)[0]["kind"] == "machine"
    here.turns, here.stop_after = 0, 12
    stopped = convnext(*arguments)
    assert stopped.status == 130 and "Stopped" in stopped.err and "optimized" in stopped.out


def test_a_table_and_a_drawing_stand_without_limits_and_without_peers(here):
    jobs = [job for job in jobs_of(settings(), ["eager"], []) if job.origin != "limit"]
    found, _, _ = measured(jobs, rounds=1)
    rows = rows_of(found)
    assert verdict(rows, 1) is None and rows[1]["gemm_share"] is None
    assert "–" in tables(rows) and "not measured" in limits_text(rows[0])
    ET.fromstring(chart(rows, "one & all"))


def test_the_matmuls_are_those_of_the_blocks_and_nearly_all_of_the_network():
    wide = Settings(ARCHITECTURES["tiny"])
    assert gemm_flops(wide, 1) == 2 * 8 * (
        3 * 56**2 * 96**2 + 3 * 28**2 * 192**2 + 9 * 14**2 * 384**2 + 3 * 49 * 768**2
    )
    assert 0.9 < gemm_flops(wide, 8) / (8 * 2 * count(wide.config, 224)[1]) < 1
    weights = 4 * count(wide.config, 224)[0]
    assert weights < least_bytes(wide, 1) < 2 * weights
    assert least_bytes(wide, 8) < 8 * least_bytes(wide, 1)


@pytest.mark.parametrize("library", ["convnext", "timm", "torchvision", "transformers"])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_every_library_runs_a_network_of_as_many_parameters(library, mode):
    forms = {"convnext": "optimized" if mode == "inference" else "eager"}
    job = Job(library, "peer", library, forms.get(library, "eager"), settings(mode=mode))
    model = networks.network(job)
    own = count(SMALL, 32)[0]
    folded = 2 * sum(depth * width for depth, width in zip(SMALL.depths, SMALL.widths, strict=True))
    assert own - 4 * folded < sum(parameter.numel() for parameter in model.parameters()) <= own
    make = networks.training if mode == "training" else networks.inference
    before = [parameter.detach().clone() for parameter in model.parameters()]
    make(job, model)(2)()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert any(moved) == (mode == "training")


def test_a_library_that_has_no_such_network_says_so():
    config = SMALL.model_copy(update={"grn": True, "layer_scale": None})
    with pytest.raises(ConvNeXtError, match="torchvision has V1"):
        networks.network(Job("torchvision", "peer", "torchvision", "eager", settings(config=config)))
    isotropic = settings(config=network_of("iso_small"))
    with pytest.raises(ConvNeXtError, match="transformers has no ConvNeXt of the form of 'iso_small'"):
        networks.network(Job("transformers", "peer", "transformers", "eager", isotropic))


def test_a_contender_in_its_own_process_answers_and_its_failure_is_its_own():
    jobs = [job for job in jobs_of(settings(batches=(1,)), ["eager"], []) if job.name != "copy"]
    jobs.append(Job("none", "other", "timm", "eager", settings(batches=(1,)), "no_such_network"))
    found, said, _ = measured(jobs, rounds=1)
    assert set(found.failed) == {"none"} and "no_such_network" in said[0] and "\n" not in said[0]
    rows = rows_of(found)
    assert [row["name"] for row in rows[1:]] == ["eager"] and rows[1]["peak_mb"] >= 0
    assert rows[1]["images_per_s"] > 0 and rows[1]["gemm_share"] > 0
    assert (rows[1]["fma_share"] or 0) > 0 or without_compiled()


def test_what_the_processor_adds_is_not_asked_where_no_kernel_can_tell(here, monkeypatch):
    monkeypatch.setattr(run, "counts_multiply_adds", lambda settings: False)
    found, said, _ = measured(jobs_of(settings(), ["eager"], []))
    assert not said and "fma" not in {job.name for job in found.jobs}
    assert rows_of(found)[0]["fma_gflops"] is None and rows_of(found)[1]["fma_share"] is None


def test_reasons_are_one_line():
    assert child.reason_of(ImportError("no x\nat all", name="x")) == "x cannot be imported (no x)"
    assert child.reason_of(ValueError("a\nb")) == "ValueError: a"
    assert child.reason_of(MemoryError()) == "MemoryError"
