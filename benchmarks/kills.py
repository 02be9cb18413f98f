"""Kill runs at random moments and finish them: the same bits, no process and no file left.

    python benchmarks/kills.py                      # 100 kills over classification, detection, segmentation, two processes
    python benchmarks/kills.py --kills 8 --seed 3 --only ranks

Each run is killed once with SIGKILL, at a moment that is drawn from all of its time, from the rows of its log or from the
moments at which it writes a file; then the same command finishes it. What it leaves is compared with an uninterrupted run.
Runs are forked from this process, which has torch loaded: a kill then costs a second and not five. Linux alone.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: a pool of threads does not survive a fork
import torch
from safetensors.torch import load_file

import convnext.api
import convnext.deploy.load
import convnext.tasks.train  # noqa: F401 # loaded here once and not in every run
from convnext.cli import main as command
from same_bits import make_data

GONE_S = 5  # within which what a killed process started must be gone
SLOW = 6  # times that: a machine with other work
NET = "--model.depths 1,1,1,1 --model.widths 8,8,8,8"
DETECTOR = "--head.channels 16 --head.hidden 32 --head.most 10 --head.roi_samples 16 --head.candidates_train 60"
COMMON = "--epochs 2 --checkpoint-steps 2 --workers 1 --device cpu"
RUNS = {
    "classification": f"train {{classes}} {COMMON} {NET} --batch 6 --size 32 --optim.ema 0.9 --augment.mixup 0.2",
    "detection": f"train {{coco}}/train.json --images {{coco}}/train --val {{coco}}/val.json --val-images {{coco}}/val "
    f"{COMMON} {NET} --batch 4 --size 64 {DETECTOR} --head.proposals_train 30 --head.proposals_test 30",
    "segmentation": f"train {{masks}} {COMMON} {NET} --batch 4 --size 64 --head.width 16 --head.aux_width 8",
    "ranks": f"train {{classes}} {COMMON} {NET} --batch 6 --size 32 --optim.ema 0.9",
}
CLOCKED = ("timings.jsonl", "report.html", "environment.json")  # the report has the rate of training


@dataclass
class Tally:
    """What came of the kills of one kind of run."""

    kills: Counter[str] = field(default_factory=Counter)  # phase -> how many
    finishes: int = 0
    too_late: int = 0  # moments after the end, which are drawn again
    gone_s: float = 0.0  # the longest that anything outlived what had started it
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Kill and finish; print a line for each kind of run. 1 where anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all kinds of runs (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="some kinds (all)")
    parser.add_argument("--json", type=Path, metavar="OUT.jsonl", help="append the results to this file as well")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        place = Path(folder)
        (place / "temporary").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(place / "temporary")
        data = make_data(place / "data")
        for number, kind in enumerate(args.only):
            kills = args.kills // len(args.only) + (number < args.kills % len(args.only))
            row = attack(kind, data, place / kind, kills, random.Random(f"{args.seed} {kind}"))
            rows.append({"kind": kind, "seed": args.seed, "torch": torch.__version__, **row})
            print(json.dumps(rows[-1]), flush=True)
    if args.json:
        with args.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return int(any(row["failures"] for row in rows))


def attack(kind: str, data: dict[str, Path], place: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """Kill runs of one kind and finish each."""
    words, processes = RUNS[kind].format(**data).split(), 2 if kind == "ranks" else 1
    place.mkdir()
    started = time.monotonic()
    if Started(words, place / "uninterrupted", processes).wait():
        raise SystemExit(f"{kind}: the uninterrupted run failed:\n{(place / 'uninterrupted.log').read_text()}")
    whole_s, whole = time.monotonic() - started, contents(place / "uninterrupted")
    there = set(os.listdir(tempfile.gettempdir()))  # what libraries keep for the next run
    tally = Tally()
    while sum(tally.kills.values()) < kills:
        out = place / f"run{sum(tally.kills.values())}x{tally.too_late}"
        run = Started(words, out, processes)
        if not _killed(run, out, whole_s, draw, tally):
            tally.too_late += 1
            continue
        tally.failures += [f"{out.name}: {what}" for what in damaged(out)]
        status = Started(words, out, processes).wait()
        found = contents(out) if not status else {}
        if found == whole:
            tally.finishes += 1
        else:
            names = [name for name in {**whole, **found} if whole.get(name) != found.get(name)]
            tally.failures.append(f"{out.name}: status {status}, differs in {', '.join(names[:5])}; see {out}.log")
            print(out.with_suffix(".log").read_text()[-3000:], file=sys.stderr)
        tally.failures += [f"{out.name}: left {name}" for name in leftover(run.seen) - there]
    return {
        "kills": sum(tally.kills.values()),
        "finished_in_the_same_bits": tally.finishes,
        "moments": dict(sorted(tally.kills.items())),
        "drawn_again": tally.too_late,
        "longest_s_until_all_were_gone": round(tally.gone_s, 2),
        "failures": tally.failures,
    }


class Started:
    """A run in a session of its own: a forked process, or a launcher with two that it forks."""

    def __init__(self, words: list[str], out: Path, processes: int):
        self.log = out.with_suffix(".log")
        arguments = [*words, "--out", str(out)]
        if processes == 1:
            self.process = forked(lambda: command(arguments), self.log)
        else:
            self.process = forked(lambda: _launch(arguments, self.log, processes), self.log)
        self.seen = {self.process}

    def members(self) -> list[int]:
        """The processes of its session that run."""
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                number, _, fields = file.read_text().partition(" (")
            except OSError:
                continue
            state, _, _, session = fields.rpartition(") ")[2].split()[:4]
            if int(session) == self.process and state not in "ZX":
                found.append(int(number))
        self.seen |= set(found)
        return found

    def ended(self) -> bool:
        """Whether the first process of the session has ended."""
        return self.process not in self.members()

    def wait(self) -> int:
        """The status of the first process, once it is there."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def forked(work: Callable[[], int], log: Path, *, session: bool = True) -> int:
    """A process that does `work` and ends with its status; its words go to `log`."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        if session:
            os.setsid()
        told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1)
        os.dup2(told, 2)
        status = work()
    except BaseException:  # noqa: BLE001 # a traceback is what is looked for
        traceback.print_exc()
    finally:
        os._exit(status)


def _launch(arguments: list[str], log: Path, processes: int) -> int:
    """As torchrun: start the processes, and end them all when one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(processes):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "kills"}
        ranks.append(forked(lambda: command(arguments), log, session=False))
    statuses, left = [], set(ranks)
    while left:
        process, status = os.wait()
        left.discard(process)
        statuses.append(os.waitstatus_to_exitcode(status))
        for other in left if status else ():
            os.kill(other, signal.SIGTERM)
    return max(map(abs, statuses))


def _killed(run: Started, out: Path, whole_s: float, draw: random.Random, tally: Tally) -> bool:
    """Kill one process of the run at a random moment; False where the run has ended before."""
    moment, log = draw.choice(["time", "time", "row", "file"]), out / "metrics.jsonl"
    started, at_s, count = time.monotonic(), draw.uniform(0, whole_s), draw.randrange(1, 14)
    files: set[str] = set()
    while True:
        if moment == "row" and log.exists() and log.read_bytes().count(b"\n") >= count:
            break
        if moment == "file" and out.exists():
            files |= {name for name in os.listdir(out) if name.endswith(".tmp")}
            if len(files) >= count:
                break
        if time.monotonic() - started > (at_s if moment == "time" else 20 * whole_s + 60):
            break
        if os.waitpid(run.process, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    victims = [process for process in run.members() if _is_main(process, run)]
    if not victims:
        return False
    phase = _phase(out)
    victim = draw.choice(victims)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:  # it has ended, and its launcher has asked about it
        os.waitpid(run.process, 0)
        return False
    since = time.monotonic()
    while run.members():
        if time.monotonic() - since > GONE_S * SLOW:
            tally.failures.append(f"{out.name}: {len(run.members())} processes are left after {GONE_S * SLOW} s")
            for process in run.members():
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    tally.gone_s = max(tally.gone_s, time.monotonic() - since)
    os.waitpid(run.process, 0)
    tally.kills[f"{phase}, {moment}"] += 1
    return True


def _is_main(process: int, run: Started) -> bool:
    """Whether it trains, or launches those that do: no worker, whose end is an error that is told."""
    try:
        parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:
        return False
    launches = "RANK" not in os.environ and (run.log.parent.name == "ranks")
    return process == run.process or (launches and parent == run.process)


def _phase(out: Path) -> str:
    """Where the run stands, by its files."""
    names = os.listdir(out) if out.exists() else []
    if any(name.endswith(".tmp") for name in names):
        return "writing"
    rows = (out / "metrics.jsonl").read_text().splitlines() if "metrics.jsonl" in names else []
    if not rows:
        return "starting"
    if "evaluation.json" in names:
        return "reporting"
    return "evaluating" if '"eval"' in rows[-1] or ("best.safetensors" in names and len(rows) % 2) else "training"


def contents(out: Path) -> dict[str, object]:
    """Everything that must be the same of two runs: which files there are, all tensors, the log and the other records."""
    found: dict[str, object] = {"files": sorted(file.name for file in out.iterdir())}
    for file in out.iterdir():
        if file.suffix == ".safetensors":
            found |= {f"{file.name}:{name}": value.numpy().tobytes() for name, value in load_file(file).items()}
        elif file.name == "model_card.md":  # its title is the folder's name
            found[file.name] = file.read_bytes().replace(out.name.encode(), b"")
        elif file.name not in (*CLOCKED, ".lock"):
            found[file.name] = file.read_bytes()
    return found


def damaged(out: Path) -> list[str]:
    """What is in the folder of a killed run and not whole."""
    found = []
    for file in out.iterdir() if out.exists() else []:
        try:
            if file.suffix == ".safetensors":
                load_file(file)
            elif file.suffix == ".json":
                json.loads(file.read_text("utf-8"))
        except Exception as error:  # noqa: BLE001 # whatever a reader says
            found.append(f"{file.name} is damaged: {error}")
    return found


def leftover(processes: set[int]) -> set[str]:
    """Shared memory of these processes, and temporary files of any."""
    shared = {name for name in os.listdir("/dev/shm") if any(f"_{process}_" in name for process in processes)}
    return shared | set(os.listdir(tempfile.gettempdir()))


if __name__ == "__main__":
    sys.exit(main())
