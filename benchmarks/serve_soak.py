"""An hour of a server's life: valid, damaged and hostile requests, clients that hang up, SIGKILL and start again.

    python benchmarks/serve_soak.py [--requests 14400] [--per-second 4] [--kills 5] [--seed 0] [--quiet]

A process of `convnext serve` with a classifier, a segmenter and the classifier's ONNX file gets so many requests from CLIENTS
threads at that rate: half of them valid, the others from clients that hang up in the middle of a request or before its answer,
and of the kinds of serve_attack.py. SIGKILL ends the server at numbers of requests that the seed draws from the first half, and
another is started; the last one lives through the second half, with slow bodies and slow headers beside it, and is ended by
SIGTERM. A failure is an answer to a valid image other than that of `convnext.load`, by more than MOST_APART, a status that its
kind does not have, an error that is not one line of JSON, a server that ends by itself, says anything of a mistake or ends with
another status than 0. Times are those of valid requests on connections of their own, from connecting to the whole answer;
memory is read every SAMPLE_S. Linux alone. A line of results/serve_soak.jsonl.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convnext
from convnext.engine.machine import processor
from serve_attack import FIELDS, KINDS, asked, image_bytes, judged, memory_mb, post, trickle, written
from serve_kills import Server

RESULTS = Path(__file__).parent / "results" / "serve_soak.jsonl"
CLIENTS = 4
IMAGES = 24  # valid ones
MOST_APART = 1e-5  # of a score, or of the share of a class
SAMPLE_S = 30
SETTLED_S = 120  # after a start, until the memory of a server is taken as its level
START_S, END_S = 180, 60
CUT_SHORT = (OSError, ValueError, KeyError)  # what a client sees whose server is killed


class Soak:
    """What is asked, what is expected, and what was found."""

    def __init__(self, folder: Path, seed: int, per_second: float):
        runs = [written(task, folder / task) for task in FIELDS]
        exported = folder / "exported" / "model.onnx"
        exported.parent.mkdir()
        convnext.export(runs[0], "onnx", exported)
        self.runs, self.room, self.seed, self.pause_s = [*runs, exported], folder / "tmp", seed, CLIENTS / per_second
        self.room.mkdir()
        self.images = [image_bytes(random.Random(number)) for number in range(IMAGES)]
        self.expected: dict[str, list[dict[str, float]]] = {}
        for run in self.runs:
            predictor: Any = convnext.load(run, device="cpu") if run != exported else convnext.load(run)
            self.expected[run.parent.name] = [_scores(predictor(data).to_dict()) for data in self.images]
        self.counts: dict[str, Counter[str]] = {kind: Counter() for kind in ("valid", "hung up", *KINDS)}
        self.times: list[float] = []
        self.failures: list[str] = []
        self.memory: list[tuple[float, int]] = []  # of the last server: seconds since its start, MB
        self.most_mb = self.next = self.cut_short = 0
        self.lock = threading.Lock()

    def taken(self, end: int) -> int | None:
        """The number of the next request below `end`."""
        with self.lock:
            if self.next >= end:
                return None
            self.next += 1
            return self.next - 1

    def live(self, end: int, *, kill: bool) -> None:
        """One server, from its start until the request of number `end` is due."""
        server = Server(self.runs, self.room)
        if not server.ready.wait(START_S):
            raise RuntimeError(f"the server did not start: {''.join(server.said)}")
        began, over = time.monotonic(), threading.Event()
        self.memory.clear()
        work = [threading.Thread(target=self.ask, args=(server, end, over)) for _ in range(CLIENTS)]
        beside = [threading.Thread(target=self.watch, args=(server, began, over))]
        if not kill:
            beside.append(threading.Thread(target=trickle, args=(server.port, over, self.failures)))
        for thread in (*work, *beside):
            thread.start()
        while kill and self.next < end and server.process.poll() is None:
            time.sleep(0.01)
        if not kill:
            for thread in work:
                thread.join()
        over.set()
        if server.process.poll() is not None:
            self.failures.append(f"{self.next}: the server ended by itself: {''.join(server.said)[-500:]}")
        server.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        for thread in (*work, *beside):
            thread.join()
        status = server.process.wait(END_S)
        if status != (-signal.SIGKILL if kill else 0):
            self.failures.append(f"{self.next}: the server ended with status {status}")
        odd = [line for line in server.said if "Traceback" in line or "mistake" in line]
        self.failures += [f"the server said: {line}" for line in odd]

    def watch(self, server: Server, began: float, over: threading.Event) -> None:
        """Its memory, until it is over."""
        while not over.wait(SAMPLE_S):
            with contextlib.suppress(OSError, TypeError):
                found = memory_mb(server.process.pid)
                self.memory.append((time.monotonic() - began, found["now"]))
                self.most_mb = max(self.most_mb, found["most"])

    def ask(self, server: Server, end: int, over: threading.Event) -> None:
        """A client: one request after the other, with pauses."""
        while not over.is_set() and (number := self.taken(end)) is not None:
            began = time.monotonic()
            try:
                self.request(server.port, number)
            except CUT_SHORT as error:
                over.wait(2)  # the kill, if there is one, is told a moment later
                if not over.is_set():
                    self.failures.append(f"{number}: {error!r}")
                else:
                    self.cut_short += 1
            over.wait(max(0.0, self.pause_s - (time.monotonic() - began)))

    def request(self, port: int, number: int) -> None:
        """One, of the kind that its number draws."""
        draw = random.Random(f"{self.seed}/{number}")
        chance = draw.random()
        if chance < 0.5:
            self.valid(port, number, draw)
        elif chance < 0.6:
            self.hang_up(port, draw)
        else:
            kind = draw.choice(list(KINDS))
            make, right = KINDS[kind]
            status, body = asked(port, make(draw))
            if status == 0 and 0 not in right:
                raise ConnectionError(f"{kind}: no answer")
            self.counts[kind][str(status)] += 1
            self.failures += judged(f"{number} {kind}", status, right, body)

    def valid(self, port: int, number: int, draw: random.Random) -> None:
        """Its answer is that of `convnext.load`."""
        name, place = draw.choice(list(self.expected)), draw.randrange(IMAGES)
        began = time.monotonic()
        status, body = asked(port, post(f"/v1/predict?model={name}", self.images[place]))
        took = time.monotonic() - began
        if status == 0:
            raise ConnectionError("valid: no answer")
        self.counts["valid"][str(status)] += 1
        if status != 200:
            self.failures.append(f"{number} {name}: status {status}: {body[:200]!r}")
            return
        self.times.append(took)
        found, expected = _scores(json.loads(body)["results"][0]), self.expected[name][place]
        if found.keys() != expected.keys() or any(abs(found[key] - expected[key]) > MOST_APART for key in found):
            self.failures.append(f"{number} {name}: {found} instead of {expected}")

    def hang_up(self, port: int, draw: random.Random) -> None:
        """In the middle of the headers, of the body, or before the answer."""
        request = post(f"/v1/predict?model={draw.choice(list(self.expected))}", draw.choice(self.images))
        how = draw.choice(["headers", "body", "answer"])
        part = {"headers": draw.randrange(1, 40), "body": len(request) - draw.randrange(1, 400), "answer": len(request)}
        with socket.create_connection(("127.0.0.1", port), timeout=10) as opened:
            opened.sendall(request[: part[how]])
            if draw.random() < 0.5:
                time.sleep(0.002)
        self.counts["hung up"][how] += 1


def main() -> int:
    """Soak and count; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=14_400)
    parser.add_argument("--per-second", type=float, default=4)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = soaked(Path(folder), args.requests, args.per_second, args.kills, args.seed)
    for failure in found["failures"]:
        print(failure, file=sys.stderr)
    row = {
        "command": f"serve_soak.py --requests {args.requests} --per-second {args.per_second:g} --kills {args.kills}",
        "seed": args.seed,
        **found,
        "failures": len(found["failures"]),
        "seconds": round(time.monotonic() - began),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(row))
    if not args.quiet:
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return bool(found["failures"])


def soaked(folder: Path, requests: int, per_second: float, kills: int, seed: int) -> dict[str, Any]:
    """Counts by kind and status, failures, times in ms, memory in MB."""
    soak = Soak(folder, seed, per_second)
    ends = sorted(random.Random(seed).sample(range(1, requests // 2), kills))
    for end in ends:
        soak.live(end, kill=True)
    soak.live(requests, kill=False)
    settled = [mb for since, mb in soak.memory if since >= SETTLED_S] or [mb for _, mb in soak.memory]
    middle = len(settled) // 2
    memory = {"first": settled[0], "last": settled[-1], "most": soak.most_mb} if settled else {}
    if middle:
        memory |= {"median_of_first_half": round(statistics.median(settled[:middle]))}
        memory |= {"median_of_second_half": round(statistics.median(settled[middle:]))}
    p50, p99, longest = (1000 * np.percentile(soak.times, [50, 99, 100])).round(1).tolist()
    return {
        "requests": soak.next,
        "kills": kills,
        "cut_short_by_kills": soak.cut_short,
        "counts": _plain(soak.counts),
        "failures": soak.failures,
        "valid_ms": {"n": len(soak.times), "p50": p50, "p99": p99, "longest": longest},
        "last_server": {"seconds": round(soak.memory[-1][0]) if soak.memory else 0, "memory_mb": memory},
    }


def _plain(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {kind: dict(sorted(found.items())) for kind, found in counts.items()}


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Class -> score, or its share of the image."""
    if "shares" in row:
        return {each["label"]: each["share"] for each in row["shares"]}
    return {each["label"]: each["score"] for each in row["predictions"]}


if __name__ == "__main__":
    sys.exit(main())
