"""Kill servers at random moments while clients ask, and start them again: the same answers, no process and no file left.

    python benchmarks/serve_kills.py [--kills 25] [--seed 0] [--quiet]

A process of `convnext serve` with a small classifier and a small segmenter is asked by CLIENTS threads about valid and damaged
images and gets SIGKILL at a moment that the seed draws from its start on. A failure is an answer to the valid image that is
whole and another one than before, a process of its session that runs GONE_S seconds later, a file beside its checkpoints or in
the folder for temporary files that was not there, and a server that cannot be started again. Linux alone. A line of
results/serve_kills.jsonl.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from serve_attack import FIELDS, asked, flipped, truncated, valid, written

RESULTS = Path(__file__).parent / "results" / "serve_kills.jsonl"
CLIENTS = 4
GONE_S = 5
LONGEST_S = 8.0  # after its start within which a server is killed: about half of that is the start itself


class Server:
    """`convnext serve` of `runs` in a session of its own, and what it was asked and answered."""

    def __init__(self, runs: Sequence[Path], folder: Path):
        command = [sys.executable, "-m", "convnext", "serve", *map(str, runs), "--port", "0", "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self.port, self.answers, self.said = 0, Counter[str](), list[str]()
        self.ready, self.stop = threading.Event(), threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.match(r"Serving at http://\S+:(\d+) until", line):
                self.port = int(found[1])
                self.ready.set()

    def ask(self, seed: str) -> None:
        """Valid and damaged images in turn, until the server is gone."""
        draw = random.Random(seed)
        while not self.stop.is_set():
            if not self.ready.wait(0.05):
                continue
            with contextlib.suppress(OSError, ValueError, KeyError):  # it was killed while it answered
                self.answers[valid(self.port)] += 1
                asked(self.port, draw.choice([truncated, flipped])(draw))

    def members(self) -> list[int]:
        """The processes of its session that run."""
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = file.read_text().rpartition(") ")[2].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(file.parent.name))
        return found


def main() -> int:
    """Kill and count; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = attack(Path(folder), kills=args.kills, seed=args.seed)
    for failure in failures:
        print(failure, file=sys.stderr)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    row = {"kills": args.kills, "seed": args.seed, **counts, "failures": failures, **versions}
    print(json.dumps(row))
    if not args.quiet:
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return int(bool(failures))


def attack(folder: Path, *, kills: int, seed: int) -> tuple[dict[str, int | float], list[str]]:
    """How many answers there were and when they were killed, and what failed."""
    runs, room = [written(task, folder / task) for task in FIELDS], folder / "tmp"
    room.mkdir()
    there = _files(folder)
    failures, longest, whole, starting = list[str](), 0.0, 0, 0
    expected = ""
    for number in range(kills + 1):  # the first is not killed before it has answered
        server = Server(runs, room)
        asking = [threading.Thread(target=server.ask, args=(f"{seed}/{number}/{each}",)) for each in range(CLIENTS)]
        for thread in asking:
            thread.start()
        if number:
            time.sleep(random.Random(f"{seed}/{number}").uniform(0, LONGEST_S))
        elif server.ready.wait(120):
            expected = valid(server.port)
        else:
            raise RuntimeError(f"the server did not start: {''.join(server.said)}")
        starting += not server.ready.is_set()
        ended = server.process.poll()
        if ended is not None:
            failures.append(f"{number}: ended by itself with status {ended}: {''.join(server.said)[-500:]}")
        else:
            os.kill(server.process.pid, signal.SIGKILL)
        since = time.monotonic()
        while (left := server.members()) and time.monotonic() - since < GONE_S:
            time.sleep(0.01)
        longest = max(longest, time.monotonic() - since)
        failures += [f"{number}: process {each} runs {GONE_S} s after the kill" for each in left]
        server.stop.set()
        for thread in asking:
            thread.join()
        server.process.wait()
        whole += server.answers[expected]
        failures += [
            f"{number}: answered {answer}" for answer in server.answers if answer != expected and answer[:3] == "200"
        ]
        failures += [f"{number}: said {line}" for line in server.said if "Traceback" in line or "mistake" in line]
        failures += [f"{number}: left {name}" for name in sorted(_files(folder) - there)]
    found = {"answers": whole, "killed_while_starting": starting, "longest_s_until_all_were_gone": round(longest, 2)}
    return found, failures


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


if __name__ == "__main__":
    sys.exit(main())
