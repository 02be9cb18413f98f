"""An installation without torch, a system that is not POSIX, and a lock that ends with its process."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import convnext as package
from commands import convnext, tiny, trained
from convnext.errors import ConvNeXtError
from convnext.extras import EXTRAS, MissingPackage, installed, missing, needs
from convnext.tasks.classification.calibration import log_softmax
from images import write_colours

TORCH = tuple(name for name, (extra, _) in EXTRAS.items() if extra == "torch")
POSIX = ("fcntl", "resource", "termios", "pwd", "grp")
BASE = f"import sys; sys.modules.update(dict.fromkeys({TORCH}))\n"
COMMAND = "from convnext.cli import main\nif __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
STRANGE_SYSTEM = (  # what Windows has not
    "import asyncio, os, sys, warnings; warnings.simplefilter('ignore')\n"  # asyncio: this system's needs them
    f"sys.modules.update(dict.fromkeys({POSIX})); del os.fork, os.sysconf, os.sched_getaffinity, os.statvfs, os.pread\n"
)
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the children of a process")


def child(start: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python that runs `start` first, then `convnext ARGUMENTS`."""
    command = [sys.executable, "-c", start + COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all(map(installed, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("the extra 'export' is not installed")
    run = tmp_path_factory.mktemp("runs") / "tiny"
    trained(data, run)
    assert convnext("export", run, "--to", "onnx").status == 0
    return run / "model.onnx"


# Without torch


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("recipes",), ("models",), ("models", "--task", "detection", "--json"), ("doctor",), ("paper", "1")],
)
def test_what_needs_no_torch_answers_without_it(arguments):
    done = child(BASE, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_doctor_without_torch_says_what_is_missing_and_how_to_get_it():
    done = child(BASE, "doctor")
    assert "torch             missing" in done.stdout and "pip install 'convnext[torch]'" in done.stdout
    assert json.loads(child(BASE, "doctor", "--json").stdout)["extras"]["torch"] is False


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "export", "benchmark", "convert", "roadmap"])
def test_a_verb_that_needs_torch_says_so_in_one_line(data, verb):
    more = {"train": [data], "evaluate": ["run", data], "predict": ["run", data], "export": ["run", "--to", "onnx"]}
    more |= {"convert": ["a.pth", "b.safetensors", "--to", "timm"], "roadmap": ["--train", data]}
    done = child(BASE, verb, *more.get(verb, []))
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr == f"convnext: `convnext {verb}` needs torch, which is not installed: " + (
        "pip install 'convnext[torch]'.\n"
    )


def test_an_exported_file_predicts_without_torch_what_it_predicts_with_it(exported, data):
    arguments = ["predict", exported, data / "val", "--json", "--top", 3]
    there, here = child(BASE, *arguments), convnext(*arguments)
    assert (there.returncode, there.stderr) == (0, "") and here.status == 0
    assert there.stdout == here.out and len(here.out.splitlines()) == 12


@pytest.mark.parametrize("more", [(), ("--batch", 5, "--workers", 2), ("--suite", "subset")])
def test_an_exported_file_is_scored_without_torch_as_it_is_with_it(exported, data, more):
    arguments = ["evaluate", exported, data / "val" if more[:1] == ("--suite",) else data, "--json", *more]
    there, here = child(BASE, *arguments), convnext(*arguments)
    assert (there.returncode, there.stderr) == (0, "") and here.status == 0
    assert there.stdout == here.out and json.loads(here.out)["n"] == 12


def test_an_exported_file_scores_as_the_run_that_it_was_made_of(exported, data):
    files = [package.evaluate(source, data, device="cpu").to_dict() for source in (exported, exported.parent)]
    for name in ("top1", "top5", "classes", "confusion", "per_class", "n", "skipped", "weights"):
        assert files[0][name] == files[1][name]
    assert [files[0][name] for name in ("loss", "ece")] == pytest.approx(
        [files[1][n] for n in ("loss", "ece")], abs=1e-5
    )


def test_what_a_run_held_out_is_scored_without_torch_too_and_broken_images_are_named(data, exported, tmp_path):
    shutil.copytree(data / "train", tmp_path / "data")
    trained(tmp_path / "data", tmp_path / "run", "--epochs", 1)
    assert convnext("export", tmp_path / "run", "--to", "onnx").status == 0
    arguments = ["evaluate", tmp_path / "run" / "model.onnx", tmp_path / "data", "--json"]
    done = child(BASE, *arguments)
    assert "scoring the" in done.stderr and json.loads(done.stdout)["n"] < 36
    assert done.stdout == convnext(*arguments).out
    (data / "val" / "red" / "broken.png").write_bytes(b"no image")
    done = child(BASE, "evaluate", exported, data, "--json")
    (data / "val" / "red" / "broken.png").unlink()
    assert list(json.loads(done.stdout)["skipped"]) == ["val/red/broken.png"] and "Skipped" in done.stderr


def test_an_exported_file_cannot_be_attacked_and_a_suite_that_needs_torch_says_so(exported, data, tmp_path):
    arguments = ["evaluate", exported, data / "val", "--out", tmp_path / "out", "--suite"]
    assert "has no gradients to attack it by" in convnext(*arguments, "attacks").line
    done = child(BASE, *arguments, "corruptions")
    assert (done.returncode, done.stdout) == (2, "") and "needs torch, which is not installed" in done.stderr


def test_the_file_answers_as_the_run_that_it_was_made_of(exported, data):
    ours, theirs = package.load(exported), package.load(exported.parent, device="cpu")
    paths = sorted((data / "val").rglob("*.png"))
    for workers in (0, 2):
        for found, expected in zip(ours.predict(paths, workers=workers, batch=5), theirs.predict(paths), strict=True):
            assert found.path == expected.path
            assert [name for name, _ in found.predictions] == [name for name, _ in expected.predictions]
            assert [p for _, p in found.predictions] == pytest.approx([p for _, p in expected.predictions], abs=1e-5)
    assert ours(paths[0]).predictions[0][0] == theirs(paths[0]).predictions[0][0]


def test_broken_images_are_left_out_and_named(exported, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    skipped: dict[str, str] = {}
    assert list(package.load(exported).predict([tmp_path / "broken.png"], skipped=skipped)) == []
    assert list(skipped) == [str(tmp_path / "broken.png")]


def test_probabilities_add_up_to_one_for_any_logits():
    found = np.exp(log_softmax(np.array([[1000.0, 1000.0], [-1000.0, 1000.0], [0.0, np.log(3)]], np.float32)))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1], [0.25, 0.75]], atol=1e-7)


def test_a_public_name_that_needs_torch_says_so():
    code = (
        BASE
        + "import convnext\nassert convnext.recipe('small', 'atto', images=300, image_px=64, classes=3).name == 'small'\n"
        "try: convnext.create('tiny')\nexcept convnext.ConvNeXtError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "convnext.create needs torch, which is not installed: pip install 'convnext[torch]'.\n"


def test_a_missing_extra_is_both_an_error_for_people_and_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConvNeXtError, match=r"^--int8 needs nncf, which is .*: pip install 'convnext\[openvino\]'\.$"):
        needs("nncf", "--int8")
    assert issubclass(MissingPackage, ImportError)
    with pytest.raises(ImportError, match="our own"):  # a mistake of ours is no missing extra
        missing(ImportError("our own", name="convnext.nowhere"), "this")


# On any desktop


def test_everything_is_imported_where_the_system_is_not_posix():
    root = Path(package.__file__).parent
    names = [".".join(("convnext", *file.relative_to(root).with_suffix("").parts)) for file in root.rglob("*.py")]
    names = [name.removesuffix(".__init__") for name in names if "triton" not in name and "__main__" not in name]
    code = STRANGE_SYSTEM + f"from importlib import import_module\nfor name in {sorted(names)}: import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_is_trained_where_the_system_is_not_posix_to_the_same_numbers(data, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "colours"), "zip", data)
    trained(data, tmp_path / "here")
    done = child(STRANGE_SYSTEM, *tiny(archive, tmp_path / "there"))
    assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / run / "metrics.jsonl").read_text() for run in ("here", "there"))
    assert one == other


READING = """
from pathlib import Path
from convnext.data.loader import train_batches
from convnext.data.opening import open_labelled, recognise
from convnext.recipes import recipe

def batches(workers):
    data = open_labelled(recognise(Path(sys.argv[1])))
    fitted = recipe("small", "atto", images=24, image_px=32, classes=3, batch=6)
    steps = dict(steps=range(2), steps_per_epoch=4, size_at=lambda _: 32)
    return [batch.images for batch in train_batches(data, fitted, **steps, workers=workers)]

if __name__ == "__main__":
    assert all(torch.equal(*pair) for pair in zip(batches(0), batches(1), strict=True))
"""


def test_images_are_read_by_a_process_that_is_started_rather_than_forked(data):
    command = [sys.executable, "-c", STRANGE_SYSTEM + "import torch\n" + READING, str(data / "train")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_posix_modules_are_imported_only_where_their_absence_is_expected():
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:  # what is not inside `try`
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
            assert names.isdisjoint(POSIX), file


# The lock


@linux
def test_a_run_whose_reading_process_outlived_it_is_taken_up_at_once(data, tmp_path):
    arguments = tiny(data, tmp_path / "run", "--workers", 1, "--checkpoint-steps", 1)
    command = [sys.executable, "-m", "convnext", *map(str, arguments), "--epochs", "10000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    assert "Another process is working" in convnext(*arguments).line
    worker = children(process.pid)[0]
    os.kill(worker, signal.SIGSTOP)  # it does not notice that the other is gone
    process.kill()
    process.wait()
    try:
        assert "holds a run of another recipe" in convnext(*arguments).err  # of 2 epochs: it looked into the folder
        assert Path(f"/proc/{worker}").exists()
    finally:
        os.kill(worker, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The processes that read images for `pid`."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
