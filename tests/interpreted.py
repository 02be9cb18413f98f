"""A script of tests in Triton's interpreter, run once in a process of its own; its answers for whoever asks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from once import once

Answers = dict[str, object]


def answers_of(script: str, factory: pytest.TempPathFactory, **environment: str) -> Answers:
    """What `script`, beside this file, prints as JSON."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script))]
        variables = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)
        lines = done.stdout.splitlines() or [json.dumps({"failure": done.stderr})]
        (folder / "answers.json").write_text(lines[-1])

    return json.loads((once(factory, script, make) / "answers.json").read_text())  # type: ignore[no-any-return]


def of(found: Answers, name: str) -> object:
    """The answer called `name`; a failure is shown."""
    assert "failure" not in found, found["failure"]
    failure = found[name] if isinstance(found[name], str) and "Traceback" in found[name] else ""
    if "only 0-dimensional arrays can be converted" in failure:
        pytest.skip(
            "this Triton's interpreter needs a NumPy before 2.4: the GPU kernels are NOT tested on the processor"
        )
    assert not failure, failure
    return found[name]
