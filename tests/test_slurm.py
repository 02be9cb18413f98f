"""The script for Slurm that docs/runs.md shows, run by bash with stand-ins for Slurm and torchrun."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from children import awaited, ended

PAGE = Path(__file__).parents[1] / "docs" / "runs.md"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: Slurm runs on Linux")
# What a command was given goes into a file of its name. A step of `srun` is a shell whose children are signalled by scancel.
STANDS = {
    "scontrol": 'echo "$@" >> $NOTES/scontrol; test "$1" = show && printf "node7\\nnode8\\n"; true',
    "scancel": 'echo "$@" >> $NOTES/scancel; kill -TERM $(cat $NOTES/torchrun.pid)',
    "srun": 'while [[ $1 == -* ]]; do echo "$1" >> $NOTES/srun; shift; done; exec "$@"',
    "torchrun": """echo "$@" > $NOTES/torchrun.part; echo $$ > $NOTES/torchrun.pid
trap 'echo saved >> $NOTES/saved; kill $!; exit 1' TERM
mv $NOTES/torchrun.part $NOTES/torchrun
read < $NOTES/pipe & wait $!""",
}


def script() -> str:
    (found,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return found


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The script at work, and the folder of what it gave its commands, once torchrun has begun."""
    (tmp_path / "bin").mkdir()
    for name, text in STANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    os.mkfifo(tmp_path / "pipe")
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "41", "SLURM_CPUS_PER_TASK": "64"}
    env = {**os.environ, **slurm, "NOTES": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    (tmp_path / "job.sh").write_text(script())
    with subprocess.Popen(["bash", str(tmp_path / "job.sh")], env=env) as process:
        try:
            assert awaited(lambda: (tmp_path / "torchrun").exists())
            yield process, tmp_path
        finally:
            process.kill()


def test_every_machine_starts_torchrun_with_the_first_one_to_meet_at(job):
    process, notes = job
    given = (notes / "torchrun").read_text()
    assert "--nnodes 1:2 " in given and "--rdzv-endpoint node7:29400 " in given and "--rdzv-id 41 " in given
    assert given.endswith("-m convnext train pets --out runs/pets\n")
    assert (notes / "srun").read_text().split() == ["--no-kill", "--kill-on-bad-exit=0", "--cpus-per-task=64"]
    (notes / "pipe").write_text("done\n")
    assert ended(process) == 0 and not (notes / "scancel").exists()
    assert (notes / "scontrol").read_text() == "show hostnames node[7-8]\n"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_before_its_time_is_over_the_state_is_saved_and_then_the_job_is_put_back(job, number):
    process, notes = job
    process.send_signal(number)
    ended(process)
    assert (notes / "scancel").read_text() == "--signal=TERM 41\n" and (notes / "saved").read_text() == "saved\n"
    assert (notes / "scontrol").read_text().splitlines()[1:] == ["requeue 41"]
