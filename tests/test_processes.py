"""Processes end with the one that started them, and are deaf to what it answers itself."""

import os
import signal
import subprocess
import sys

import pytest

from children import awaited, children_of, ended, gone, numbers, runs, started
from convnext import processes
from convnext.processes import Parent, starter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells which processes run")

# Two workers that read more than a pipe holds: their feeding threads are blocked when nobody takes it.
READING = """
import os, sys, threading, time
from convnext.data.workers import read_ahead
class Reader:
    def __len__(self): return 1000
    def expect(self, items): pass
    def __getitem__(self, item): return os.getpid(), os.urandom(1 << 20)
def read():
    batches = read_ahead(Reader(), range(1000), 2, 0, 1)
    print(*sorted({next(batches)[0] for _ in range(6)}), flush=True)
    time.sleep(1000)
if sys.argv[1] == "main": read()
else: threading.Thread(target=read).start(); time.sleep(1000)
"""

# A child by `fork` or `forkserver` that is in the middle of something when its parent is killed.
WORKING = """
import multiprocessing, os, sys, time
from convnext.processes import Parent
def work(parent):
    parent.outlive()
    time.sleep(1000)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    child = context.Process(target=work, args=(Parent.here(direct=sys.argv[1] == "fork"),))
    child.start()
    print(child.pid, flush=True)
    time.sleep(1000)
"""

# A child that is deaf to SIGTERM while it is busy, and hears its parent.
DEAF = """
import multiprocessing, os, sys, time
from convnext.processes import Parent, deaf_children
def work(parent):
    parent.outlive(deaf=True)
    time.sleep(1000)
with deaf_children():
    child = multiprocessing.get_context("fork").Process(target=work, args=(Parent.here(),))
    child.start()
print(child.pid, flush=True)
sys.stdin.readline()
print(int(child.is_alive()), flush=True)
while child.is_alive():  # of two signals that wait for a process the system keeps the first, which another one sent
    child.terminate()
    child.join(1)
print(child.exitcode, flush=True)
"""


# A command that is in the middle of a file.
STOPPED = """
import pathlib, sys, time
from convnext import cli
from convnext.files import appearing
def work(arguments):
    try:
        with appearing(pathlib.Path(sys.argv[1], "result")):
            print("working", flush=True)
            time.sleep(1000)
    except KeyboardInterrupt:
        return 130
cli._answer = work
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("thread", ["main", "another"])
def test_workers_end_with_a_process_that_is_killed_also_when_nobody_takes_what_they_read(thread):
    process = started(READING, thread)
    workers = numbers(process)
    assert len(workers) == 2 and all(map(runs, workers))
    process.kill()
    assert gone(workers)
    process.communicate()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_child_in_the_middle_of_something_ends_with_its_parent(tmp_path, method):
    (tmp_path / "working.py").write_text(WORKING)
    command = [sys.executable, str(tmp_path / "working.py"), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        children = {*numbers(process), *children_of(process.pid)}
        process.kill()
        assert gone(children)


def test_a_child_whose_parent_is_gone_before_it_looks_ends_at_once():
    code = "from convnext.processes import Parent; Parent(1 << 30, lasting=False).outlive(); print('still here')"
    with started(code) as process:
        assert process.communicate()[0] == "" and process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_deaf_child_goes_on_when_all_are_told_to_stop_and_ends_when_its_parent_says_so(number):
    with started(DEAF, stdin=subprocess.PIPE) as process:
        (child,) = numbers(process)
        for _ in range(3):
            subprocess.run(["kill", f"-{int(number)}", str(child)], check=True)
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
        assert process.stdout.readline() == "0\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_asks_a_command_to_stop_ends_it_as_ctrl_c_does_and_what_is_half_done_is_cleared_away(tmp_path, number):
    with started(STOPPED, tmp_path) as process:
        assert process.stdout and process.stdout.readline() == "working\n"
        process.send_signal(number)
        assert ended(process) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    with started(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{STOPPED}", tmp_path) as process:
        assert process.stdout and process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGHUP)
        assert runs(process.pid)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 130


def test_who_started_this_process_is_known():
    assert starter().process > 0 and not starter().lasting
    assert Parent.here().lasting and not Parent.here(direct=False).lasting


def test_a_helper_that_fails_says_why_and_one_that_is_late_is_ended():
    before = set(children_of(os.getpid()))  # of tests before this one: multiprocessing keeps its servers
    processes.run(["true"], timeout_s=60)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        processes.run(["sh", "-c", "echo because >&2; exit 3"], timeout_s=60)
    assert failed.value.returncode == 3 and failed.value.stderr == "because\n"
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sh", "-c", "sleep 1000; true"], timeout_s=0.2)
    assert set(children_of(os.getpid())) <= before


def test_a_helper_and_its_children_end_with_a_process_that_is_killed(tmp_path):
    code = "import sys; from convnext import processes; processes.run(['sh', '-c', sys.argv[1]], timeout_s=1000)"
    mark = tmp_path / "started"
    with started(code, f"sleep 1000 & : > {mark}; wait") as process:
        assert awaited(mark.exists)
        children = children_of(process.pid)
        assert len(children) == 3  # the keeper, sh, sleep
        process.kill()
        assert gone(children)
