"""Train with each process holding a part of the network: the losses of one process, and checkpoints that outlive anything.

    python benchmarks/sharded.py                                  # float64 and float32
    python benchmarks/sharded.py --only worlds --dtype float64 --worlds 2 --optimizers muon
    python benchmarks/sharded.py --only kills --kills 10 --seed 1
    python benchmarks/sharded.py --only nodes

'worlds': a run with --shard-weights, in micro-batches of 9 images, on each number of processes beside one process.
'kills': one process is killed with SIGKILL while the parts of a checkpoint are being written, and another number of
processes goes on, in turn with and without parts; after each kill the folder holds a whole checkpoint no older than
before. 'full': the disk of one process refuses for a while. 'async': a step is taken while a checkpoint is being written.
'nodes': the command under torchrun as two machines, on 127.0.0.1 and 127.0.0.2, with and without parts, and `convnext
predict` on what they wrote. Networks, images and processes are those of elastic.py. Linux alone.
"""

import argparse
import contextlib
import errno
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # here once, and not in every process

import convnext.engine.sharding  # noqa: F401 # the same
import elastic
from convnext.engine import checkpoint, pieces
from convnext.engine.run import PIECES, last_of
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.integrity import INDEX
from elastic import Reference, Together, write_images

TURNS = ((4, True), (2, True), (3, False), (1, True), (3, True), (2, False))  # processes, and whether they hold parts
MOST_RUNS = 20  # a slow machine may end one before a process could be killed
_write = pieces._Writer.write_data


def main() -> int:
    """Train, compare and print a line for each question. 1 where anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="some questions (all)")
    parser.add_argument("--dtype", nargs="+", choices=elastic.BOUNDS, default=list(elastic.BOUNDS), help="one (both)")
    parser.add_argument("--worlds", nargs="+", type=int, default=[2, 4], help="numbers of processes (2 4)")
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon"], help="(adamw muon)")
    parser.add_argument("--steps", type=int, default=24, help="of a run (24)")
    parser.add_argument("--kills", type=int, default=10, help="of processes in a run (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--json", type=Path, metavar="OUT.jsonl", help="append the results to this file as well")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="sharded-") as folder:
        place = Path(folder)
        write_images(place / "data")
        for name in args.only:
            for row in CHECKS[name](place / name, place / "data", args):
                row = {"check": name, **row, "steps": args.steps, "torch": torch.__version__, "cores": os.cpu_count()}
                row["command"] = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
                print(json.dumps(row), flush=True)
                failed |= bool(row["failures"])
                if args.json:
                    with args.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    return int(failed)


@functools.cache
def reference(data: Path, dtype: str, steps: int, **changes: Any) -> Reference:
    """One process that is not interrupted; the same for all questions, whose runs lie beside it."""
    place = data.parent / "-".join([dtype, *map(str, changes.values())])
    place.mkdir()
    (place / "data").symlink_to(data)
    return Reference(place, dtype, steps, **changes)


def worlds(place: Path, data: Path, args: argparse.Namespace) -> Any:
    """Uninterrupted runs in parts."""
    for dtype in args.dtype:
        for optimizer in args.optimizers:
            # The last two values of Muon's iteration are those of bfloat16, which rounds what differs in float32 apart.
            changes = {"optim__name": optimizer, "optim__muon_convolutions": optimizer == "muon"}
            whole, found, failures = reference(data, dtype, args.steps, **changes), {}, []
            for size in args.worlds:
                out = whole.out(f"of{size}")
                if Together(whole, out, size, shard=True, micro=9).wait():
                    failures.append(f"{size} processes failed: {(out / 'log').read_text()[-1500:]}")
                    continue
                compared = whole.compared(out)
                found[str(size)] = compared["largest_relative_difference"]
                failures += compared["failures"] + pieces_left(out)
            about = {"dtype": dtype, "optimizer": optimizer}
            yield {**about, "largest_relative_difference": found, "failures": failures}


def pieces_left(out: Path) -> list[str]:
    """What is wrong with a folder whose run has ended: one file takes the place of all parts."""
    left = (out / PIECES).exists() or not (out / "last.safetensors").exists()
    return [f"{out.name}: parts are left at the end, or no file took their place"] if left else []


def slow(writer: Any, plan: Any, planner: Any) -> Any:
    """Writing as on a disk that takes a while."""
    time.sleep(random.uniform(0.0, 0.3))
    found = _write(writer, plan, planner)
    time.sleep(random.uniform(0.0, 0.3))
    return found


def kills(place: Path, data: Path, args: argparse.Namespace) -> Any:
    """Runs that lose a process while it writes, again and again: another one begins where one is over too soon."""
    pieces._Writer.write_data = slow  # type: ignore[method-assign] # in what is forked from here
    for dtype in args.dtype:
        whole = reference(data, dtype, args.steps)
        draw, turns = random.Random(args.seed), cycle(TURNS)
        counts = {"runs": 0, "kills": 0, "while_parts_were_written": 0}
        longest_s, apart, failures = 0.0, 0.0, list[str]()
        while counts["while_parts_were_written"] < args.kills and counts["runs"] < MOST_RUNS:
            counts["runs"] += 1
            out = whole.out(f"killed{counts['runs']}")
            longest_s = max(longest_s, killed_often(whole, out, turns, draw, args, counts, failures))
            if Together(whole, out, 2, shard=True).wait():
                failures.append(f"the run cannot be finished: {(out / 'log').read_text()[-1500:]}")
            if "Traceback" in (out / "log").read_text():
                failures.append(f"a traceback: {(out / 'log').read_text()[-3000:]}")
            found = whole.compared(out)
            failures += found["failures"] + pieces_left(out)
            apart = max(apart, found["largest_relative_difference"])
        if counts["while_parts_were_written"] < args.kills:
            failures.append(f"{MOST_RUNS} runs were over before {args.kills} kills: give them more --steps")
        about = {"dtype": dtype, **counts, "seed": args.seed, "longest_s_to_end": round(longest_s, 2)}
        yield {**about, "largest_relative_difference": apart, "failures": failures}
    pieces._Writer.write_data = _write  # type: ignore[method-assign]


def killed_often(
    whole: Reference,
    out: Path,
    turns: Iterator[tuple[int, bool]],
    draw: random.Random,
    args: argparse.Namespace,
    counts: dict[str, int],
    failures: list[str],
) -> float:
    """Kill one process of a run again and again, while there are steps left; the longest time until all had ended."""
    longest_s = 0.0
    while counts["while_parts_were_written"] < args.kills and saved_step(out) < args.steps:
        size, shard = next(turns)
        before = saved_step(out)
        together = Together(whole, out, size, shard=shard)
        seen = (under_way if shard and size > 1 else saved_again)(out, together, before, draw)
        os.kill(draw.choice(together.ranks), signal.SIGKILL)
        counts["while_parts_were_written"] += seen
        counts["kills"] += 1
        killed = time.monotonic()
        together.wait()
        longest_s = max(longest_s, time.monotonic() - killed)
        failures += (
            [] if saved_step(out) >= before else [f"kill {counts['kills']}: step {before} was saved and is lost"]
        )
    return longest_s


def under_way(out: Path, together: Together, before: int, draw: random.Random) -> bool:
    """Wait until a checkpoint is being written, and a moment more; whether it is not yet whole then."""
    skipped, end = draw.choice([0, 0, 1, 2]), time.monotonic() + elastic.HUNG_S
    seen: set[str] = set()
    started = time.time()  # what the turn before has left half written is older
    while len(seen) <= skipped and time.monotonic() < end:
        seen |= {place.name for place in half_written(out, started) if int(place.name) > before}
        if over(together):
            break
        time.sleep(0.005)
    time.sleep(draw.uniform(0.0, 0.4))
    return bool(half_written(out, started))


def half_written(out: Path, started: float) -> list[Path]:
    """Checkpoints that are not yet whole, of those that were worked on since `started`."""
    found = []
    for place in (out / PIECES).glob("*"):
        with contextlib.suppress(FileNotFoundError):  # removed, as a later one is whole
            if place.stat().st_mtime >= started and not (place / INDEX).exists():
                found.append(place)
    return found


def saved_again(out: Path, together: Together, before: int, draw: random.Random) -> bool:
    """Let a run without parts write a checkpoint, and wait a moment more."""
    end = time.monotonic() + elastic.HUNG_S
    with contextlib.suppress(CheckpointError):  # it was replaced while it was read: another one is there
        while time.monotonic() < end and saved_step(out) <= before and not over(together):
            time.sleep(0.02)
    time.sleep(draw.uniform(0.0, 0.2))
    return False


def over(together: Together) -> bool:
    """Whether the first process has ended."""
    return os.waitid(os.P_PID, together.ranks[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def saved_step(out: Path) -> int:
    """Of the checkpoint that the folder holds, all of which is read; 0 where there is none."""
    last = last_of(out)
    return int(checkpoint.read(last)[1]["state"]["step"]) if last else 0


def full(place: Path, data: Path, args: argparse.Namespace) -> Any:
    """The disk of one process refuses the second checkpoint and the third."""
    refused: list[int] = []

    def refusing(writer: Any, plan: Any, planner: Any) -> Any:
        refused.append(1)
        if os.environ["RANK"] == "1" and len(refused) in (2, 3):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return _write(writer, plan, planner)

    pieces._Writer.write_data = refusing  # type: ignore[method-assign]
    for dtype in args.dtype[:1]:
        whole = reference(data, dtype, args.steps)
        out = whole.out("full")
        status = Together(whole, out, 2, shard=True).wait()
        told = (out / "log").read_text()
        failures = [] if not status else [f"status {status}: {told[-1500:]}"]
        if told.count("No space left on device. The run goes on and tries again.") != 2 or "Traceback" in told:
            failures.append(f"it is not told once a refusal: {told[-1500:]}")
        found = whole.compared(out)
        failures += found.pop("failures") + pieces_left(out)
        yield {"dtype": dtype, "refused": 2, **found, "failures": failures}
    pieces._Writer.write_data = _write  # type: ignore[method-assign]


def overlapping(place: Path, data: Path, args: argparse.Namespace) -> Any:
    """The first checkpoint is not written before another step is taken: one that waited for it would never come."""
    taken: list[int] = []

    def waiting(writer: Any, plan: Any, planner: Any) -> Any:
        before, end = elastic.step_of(writer.folder.parents[1]), time.monotonic() + 60
        while not taken and elastic.step_of(writer.folder.parents[1]) < before + 1 and time.monotonic() < end:
            time.sleep(0.005)
        taken.append(elastic.step_of(writer.folder.parents[1]) - before)
        print(f"steps meanwhile: {taken[0]}", flush=True)
        return _write(writer, plan, planner)

    pieces._Writer.write_data = waiting  # type: ignore[method-assign]
    whole = reference(data, "float64", args.steps)
    out = whole.out("async")
    failures = ["it failed"] if Together(whole, out, 2, shard=True).wait() else []
    told = [int(line.rpartition(" ")[2]) for line in (out / "log").read_text().splitlines() if "meanwhile" in line]
    if not told or told[0] < 1:
        failures.append(f"training waited: {(out / 'log').read_text()[-1500:]}")
    pieces._Writer.write_data = _write  # type: ignore[method-assign]
    found = whole.compared(out)
    failures += found.pop("failures")
    yield {"dtype": "float64", "steps_while_it_was_written": told[:1], **found, "failures": failures}


def nodes(place: Path, data: Path, args: argparse.Namespace) -> Any:
    """Two machines, as far as torchrun can tell, and what `predict` makes of their run."""
    for shard in (False, True):
        out = place / ("fsdp2" if shard else "ddp")
        out.mkdir(parents=True)
        words = [
            "-m",
            "convnext",
            "train",
            str(data),
            "--out",
            str(out),
            "--workers",
            "0",
            "--batch",
            "12",
            "--size",
            "16",
        ]
        words += ["--epochs", "2", "--model.depths", "1,1", "--model.widths", "8,16", "--model.patch", "2"]
        words += ["--optim.ema", "0.9", "--checkpoint-steps", "2", *(["--shard-weights"] if shard else [])]
        words += ["--precision", "fp32"]
        port = elastic.free_port()
        agents = []
        for node in (0, 1):
            command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
            command += ["--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port)]
            command += ["--local-addr", f"127.0.0.{node + 1}"]
            agents.append(
                subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        told = [agent.communicate(timeout=600)[0] for agent in agents]
        failures = [text[-1500:] for agent, text in zip(agents, told, strict=True) if agent.returncode]
        images = [str(file) for file in sorted((data / "val").rglob("*.png"))]
        predict = [sys.executable, "-m", "convnext", "predict", str(out), *images, "--json"]
        done = subprocess.run(predict, capture_output=True, text=True, check=False)
        answers = [json.loads(line) for line in done.stdout.splitlines()] if not done.returncode else []
        if len(answers) != len(images):
            failures.append(f"predict: {done.stderr[-1500:]}")
        yield {"parallel": out.name, "machines": 2, "predicted": len(answers), "failures": failures}


CHECKS = {"worlds": worlds, "kills": kills, "full": full, "async": overlapping, "nodes": nodes}

if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConvNeXtError as error:
        sys.exit(f"convnext: {error}")
