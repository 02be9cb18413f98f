"""Processes that need not load torch and this package again: they are forked from one that has. Linux alone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from children import PATIENCE_S, awaited, environment, started

# Imports what takes time, then answers: who asks for code gets the id of a process that begins to run it, as `python -c`
# would, and who asks for an id gets the status that this process has ended with.
SERVER = """
import json, os, socket, sys
import torch._dynamo
import convnext.api, convnext.cli, convnext.deploy.load, convnext.engine.launcher, convnext.tasks.train
door = socket.socket(fileno=int(sys.argv[1]))
while True:
    text, files, *_ = socket.recv_fds(door, 1 << 20, 3)
    if not text:
        sys.exit()
    asked = json.loads(text)
    if "process" in asked:
        ended, status = os.waitpid(asked["process"], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if ended else None
    else:
        answer = os.fork()
        if not answer:
            break
    for file in files:
        os.close(file)
    door.send(json.dumps(answer).encode())
for number, file in enumerate(files):
    os.dup2(file, number)
    os.close(file)
door.close()
if asked["session"]:
    os.setsid()
os.environ.clear()
os.environ.update(asked["env"])
os.chdir(asked["cwd"])
sys.argv = ["-c", *asked["arguments"]]
exec(asked["code"], {"__name__": "__main__"})
"""
# A process that says so once a log, whose path ends with its first argument, has as many rows as its second says, and then
# waits for a line: however fast it is and however slow who watches it, it is where it is expected.
WAITING = """
import sys
from convnext.engine.records import Log
write, log_end, rows = Log.write, sys.argv[1], int(sys.argv[2])
def waiting(log, **row):
    global rows
    done = write(log, **row)
    if rows and str(log._path).endswith(log_end) and log._path.read_bytes().count(b"\\n") >= rows:
        rows = 0
        print("waiting", flush=True)
        sys.stdin.readline()
    return done
Log.write = waiting
del sys.argv[1:3]
"""
# `python -m convnext`
COMMAND = """
import sys
from convnext.cli import main
sys.exit(main(sys.argv[1:]))
"""
# `python FILE`
_FILE = """
import os, runpy, sys
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Forked:
    """A process, with the interface of subprocess.Popen as far as tests need it; its streams are pipes of text."""

    def __init__(self, process: int, pipes: list[IO[str]], ask: Any):
        self.pid, self._ask, self.returncode = process, ask, None
        self.stdin, self.stdout, self.stderr = pipes

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask({"process": self.pid})
        return self.returncode

    def wait(self, timeout: float = 4 * PATIENCE_S) -> int:
        assert awaited(lambda: self.poll() is not None, timeout)
        return self.returncode  # type: ignore[return-value]

    def communicate(self) -> tuple[str, str]:
        """All that it writes until it ends."""
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda pipe: pipe.read(), (self.stdout, self.stderr))
        self.wait()
        return out, err

    def go_on(self) -> None:
        """Give it the line that it waits for."""
        self.stdin.write("\n")
        self.stdin.flush()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Loaded:
    """The process that has loaded everything."""

    def __init__(self, door: socket.socket, server: subprocess.Popen[str]):
        self._door, self._server = door, server

    def _answer(self, asked: dict[str, Any], *files: int) -> int:
        socket.send_fds(self._door, [json.dumps(asked).encode()], files)
        answer = self._door.recv(1 << 10)
        assert answer, self._server.communicate()[1]
        return json.loads(answer)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def forked(self, code: str, *arguments: object, session: bool = False, **env: str) -> Iterator[Forked]:
        """`python -c CODE ARGUMENTS`, killed at the end where it still runs. `session`: it leads one of its own."""
        pairs = [os.pipe() for _ in range(3)]
        theirs = (pairs[0][0], pairs[1][1], pairs[2][1])
        asked = {"code": code, "arguments": [*map(str, arguments)], "session": session, "cwd": os.getcwd()}
        process = self._answer({**asked, "env": environment(**env)}, *theirs)
        for file in theirs:
            os.close(file)
        with contextlib.ExitStack() as stack:
            ours = ((pairs[0][1], "w"), (pairs[1][0], "r"), (pairs[2][0], "r"))
            found = Forked(process, [stack.enter_context(open(file, mode)) for file, mode in ours], self._answer)
            try:
                yield found
            finally:
                found.kill()
                found.wait()

    @contextlib.contextmanager
    def ranks(self, code: str, *arguments: object, **env: str) -> Iterator[list[Forked]]:
        """Two processes of one run, as torchrun starts them, without the third one that watches them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        with contextlib.ExitStack() as stack:
            places = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
            yield [stack.enter_context(self.forked(code, *arguments, **env, **place)) for place in places]

    def rows(self, file: Path, *arguments: object) -> list[dict[str, Any]]:
        """What `python FILE ARGUMENTS` prints, lines of JSON; others are passed over."""
        with self.forked(_FILE, file, *arguments) as process:
            out, err = process.communicate()
        assert process.returncode == 0, out + err
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def told(ranks: list[Forked]) -> list[tuple[str, str]]:
    """What each process of a run writes to stdout and stderr; all end well."""
    found = [rank.communicate() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * len(ranks), "".join(err for _, err in found)
    return found


@contextlib.contextmanager
def loading() -> Iterator[Loaded]:
    """It ends with its door."""
    if sys.platform != "linux":
        pytest.skip("NOT tested elsewhere: processes are forked")
    door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)  # as those of its children
    with theirs, started(SERVER, theirs.fileno(), pass_fds=[theirs.fileno()], **pipes) as server:
        theirs.close()
        with door:
            yield Loaded(door, server)
