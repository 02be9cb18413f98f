"""A process that is forked from one that used torch answers, with one thread, and says why."""

import subprocess
import sys

import pytest

from children import environment
from commands import trained
from images import write_colours

# The parent uses torch's threads and the predictor; the child would wait for these threads for ever.
FORKED = """
import os, sys, time, torch
import convnext
predictor = convnext.load(sys.argv[1])
image = sys.argv[2]
torch.nn.functional.conv2d(torch.randn(4, 64, 56, 56), torch.randn(64, 64, 3, 3))
wanted = predictor(image).to_dict()
assert torch.get_num_threads() == 2
child = os.fork()
if not child:
    same = predictor(image).to_dict() == wanted and predictor(image).to_dict() == wanted
    os._exit(0 if same and torch.get_num_threads() == 1 else 3)
end = time.monotonic() + 60
while time.monotonic() < end:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, 9)
sys.exit(4)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: forks")
def test_a_forked_process_answers_as_its_parent_and_says_once_that_it_has_one_thread(tmp_path):
    data = write_colours(tmp_path / "data", train=6, val=2)
    trained(data, tmp_path / "run", "--epochs", 1)
    command = [sys.executable, "-c", FORKED, str(tmp_path / "run"), str(data / "val" / "red" / "000.png")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**environment(), "OMP_NUM_THREADS": "2"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("This process was forked from one that had used torch") == 1
