"""What `pip install 'convnext[runtime,serve]'` brings: no torch, at most 250 MB, and every use of exported files."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import convnext as package
from commands import convnext, trained
from images import write_colours
from test_export_detector import exported as detector
from test_export_segmenter import exported as segmenter

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
MOST_MB = 250
OURS = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH"
}  # the wheel is tried, not this folder
TOOLS = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")  # of the environment, not of ours


def words(instruction: str) -> list[str]:
    """What follows each `instruction` of the Dockerfile."""
    return re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)


def test_the_image_runs_as_a_user_and_says_where_it_listens():
    assert words("USER") == ["convnext"] and any("useradd" in each for each in words("RUN"))
    (entry,) = (json.loads(each) for each in words("ENTRYPOINT"))
    assert entry[:2] == ["convnext", "serve"] and entry[entry.index("--host") + 1] == "0.0.0.0"
    assert entry[entry.index("--port") + 1] in words("EXPOSE")
    assert "torch" not in " ".join(words("RUN"))


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A fresh environment with what the Dockerfile installs, of the wheel of this folder."""
    place = tmp_path_factory.mktemp("install")
    (extras,) = re.findall(r"pip install --no-cache-dir \"/src\[([\w,]+)\]\"", DOCKERFILE)
    pip = [sys.executable, "-m", "pip"]
    made = subprocess.run([*pip, "wheel", "-q", "--no-deps", ROOT, "-w", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"pip cannot build a wheel here: {made.stderr.strip().splitlines()[-1]}")
    (wheel,) = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    found = place / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [*pip, "--python", found, "install", "-q", f"{wheel}[{extras}]"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip reaches no index here: {done.stderr.strip().splitlines()[-1]}")
    return found


def test_torch_is_absent_and_the_rest_is_small(python):
    code = (
        "import importlib.util, sysconfig; print(importlib.util.find_spec('torch'), sysconfig.get_paths()['purelib'])"
    )
    found, place = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, env=OURS
    ).stdout.split()
    assert found == "None"
    files = [
        file for file in Path(place).rglob("*") if file.is_file() and file.relative_to(place).parts[0] not in TOOLS
    ]
    assert sum(file.stat().st_size for file in files) < MOST_MB * 1e6


def test_importing_the_package_loads_nothing_that_takes_time(python):
    code = "import sys, convnext; print({'numpy', 'PIL', 'pydantic', 'onnxruntime', 'fastapi'} & set(sys.modules))"
    assert (
        subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, env=OURS).stdout == "set()\n"
    )


def test_exported_files_of_all_tasks_predict_are_scored_and_served(python, tmp_path, tmp_path_factory):
    data = write_colours(tmp_path / "colours")
    trained(data, tmp_path / "pets")
    files = {"pets": package.export(tmp_path / "pets", "onnx", tmp_path / "pets.onnx").out}
    files |= {"objects": detector(tmp_path_factory, "boxes")[1], "maps": segmenter(tmp_path_factory)[1]}
    image = next((data / "val" / "red").iterdir())

    def told(*arguments: object) -> str:
        command = [python, "-m", "convnext", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=OURS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for name, file in files.items():
        (line, *_) = told("predict", file, image, "--json").splitlines()
        assert isinstance(json.loads(line), list | dict), name
    (answer,) = map(json.loads, told("predict", files["pets"], image, "--json").splitlines())
    (expected,) = map(json.loads, convnext("predict", tmp_path / "pets", image, "--json").out.splitlines())
    assert [each["label"] for each in answer["predictions"]] == [each["label"] for each in expected["predictions"]]
    scored = json.loads(told("evaluate", files["pets"], data, "--json"))
    assert scored["top1"] == json.loads(convnext("evaluate", tmp_path / "pets", data, "--json").out)["top1"]

    named = [f"{name}={file}" for name, file in files.items()]
    command = [python, "-m", "convnext", "serve", *named, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=OURS) as server:
        try:
            assert server.stderr is not None
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://[\w.]+:\d+", line)))
            for name in files:
                url = f"{address}/v1/predict?model={name}"
                asked = urllib.request.Request(url, image.read_bytes(), {"content-type": "image/png"})
                with urllib.request.urlopen(asked, timeout=60) as response:
                    assert response.status == 200 and json.loads(response.read())
        finally:
            server.terminate()
