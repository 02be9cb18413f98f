"""Train one run on changing numbers of processes: the same images in the same steps, and the losses of a single process.

    python benchmarks/elastic.py                             # float64 and float32: 1 to 4 processes, then 20 kills
    python benchmarks/elastic.py --only worlds --dtype float64 --worlds 1 3
    python benchmarks/elastic.py --only kills --kills 20 --seed 1
    python benchmarks/elastic.py --only agents --dtype float64

'worlds': 60 steps on each number of processes. 'kills': a process of the run is killed with SIGKILL at a random moment, and
the next number of processes, 4, 2, 1, 3 and again, goes on from the last checkpoint. 'agents': the same numbers of machines
under `torchrun --nnodes 1:4`, each with an address of its own, 127.0.0.1 to 127.0.0.6; lost ones are killed with all they
started, new ones join a run that goes on. Batches of 50 images with mixup,
cutmix, erasing, RandAugment, drop path, EMA and clipping, on gloo. What each process reads is written down and compared,
slot by slot. Processes are forked from this one, which has torch loaded. Linux alone.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: a pool of threads does not survive a fork
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig, Recipe, RunOptions, override
from convnext.data.batch import Batch
from convnext.data.opening import open_splits, recognise
from convnext.engine.distributed import World
from convnext.engine.fit import fit
from convnext.errors import ConvNeXtError
from convnext.recipes import recipe
from convnext.tasks.classification.task import Classification, Targeted
from convnext.tasks.fitting import fresh
from convnext.tasks.train import workplace

BATCH, STEPS, SIZE_PX = 50, 60, 16
SIZES = (4, 2, 1, 3)  # processes, one number after the other
ENDED_S = 15  # for the others to end by themselves, once all have met
HUNG_S = 120  # none of the ends below takes as long


class Watched(Classification):
    """The task of the command, in either precision, which writes down what it reads."""

    def __init__(self, *given: Any, double: bool):
        super().__init__(*given)
        self.double = double
        if double:
            self.model.double()
            self.model.register_forward_pre_hook(lambda _, x: (x[0].double(),))

    def batches(self, steps: range, world: World) -> Iterator[Batch]:
        slots = self.slots(world).tolist()
        allowed = Path(self.options.out) / "allowed"  # steps, where somebody wants to see them taken
        with (Path(self.options.out) / "read.jsonl").open("a", encoding="utf-8") as file:
            for step, batch in zip(steps, super().batches(steps, world), strict=True):
                views = [zlib.crc32(image.numpy()) for image in batch.images]
                file.write(json.dumps([step, slots, batch.indices.tolist(), views]) + "\n")
                file.flush()
                while allowed.exists() and step >= int(allowed.read_text() or 0):
                    time.sleep(0.05)
                yield batch

    def prepare(self, batch: Batch, *, step: int, slots: NDArray[Any], device: torch.device) -> Targeted:
        found = super().prepare(batch, step=step, slots=slots, device=device)
        return Targeted(found.x, found.targets.double() if self.double else found.targets)

    def loss(self, network: nn.Module, piece: Targeted) -> Tensor:
        return F.cross_entropy(network(piece.x), piece.targets) if self.double else super().loss(network, piece)


def main() -> int:
    """Train, compare and print a line for each question. 1 where anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="some questions (all)")
    parser.add_argument("--dtype", nargs="+", choices=BOUNDS, default=list(BOUNDS), help="one of both (both)")
    parser.add_argument("--worlds", nargs="+", type=int, default=[1, 2, 3, 4], help="numbers of processes (1 2 3 4)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of a run ({STEPS})")
    parser.add_argument("--kills", type=int, default=20, help="of processes in a run (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--json", type=Path, metavar="OUT.jsonl", help="append the results to this file as well")
    parser.add_argument("--work", nargs=2, metavar=("PLACE", "OUT"), help="be a process of a run that torchrun started")
    args = parser.parse_args()
    if args.work:
        place, out = map(Path, args.work)
        try:
            work(place, out, args.dtype[0], args.steps)
        except ConvNeXtError as error:
            raise SystemExit(f"convnext: {error}") from None
        return 0
    failed = False
    with tempfile.TemporaryDirectory(prefix="elastic-") as folder:
        place = Path(folder)
        write_images(place / "data")
        for dtype in args.dtype:
            whole = Reference(place, dtype, args.steps)
            for name in args.only:
                row = {"check": name, "dtype": dtype, "steps": args.steps, "batch": BATCH, **CHECKS[name](whole, args)}
                row |= {"torch": torch.__version__, "cores": os.cpu_count(), "command": " ".join(sys.argv)}
                print(json.dumps(row), flush=True)
                failed |= bool(row["failures"])
                if args.json:
                    with args.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    return int(failed)


BOUNDS = {"float64": 1e-9, "float32": 1e-2}  # relative, of a loss; float32 is measured, and only a blunder is a failure


class Reference:
    """An uninterrupted run of one process, and what others are compared with."""

    def __init__(self, place: Path, dtype: str, steps: int, **changes: Any):
        self.place, self.dtype, self.steps, self.changes = place, dtype, steps, changes
        out = self.out("whole")
        if Together(self, out, 1).wait():
            raise SystemExit(f"the uninterrupted run failed:\n{(out / 'log').read_text()}")
        self.losses = losses(out)
        self.read: dict[tuple[int, int], list[int]] = {}
        for step, slots, indices, views in reads(out):
            self.read |= {(step, slot): list(what) for slot, *what in zip(slots, indices, views, strict=True)}

    def out(self, name: str) -> Path:
        """A new folder."""
        out = self.place / self.dtype / name
        out.mkdir(parents=True)
        return out

    def compared(self, out: Path) -> dict[str, Any]:
        """How a run differs from this one: its largest relative difference of a loss, and what is not as promised."""
        failures, found, covered = [], losses(out), set()
        for step, slots, indices, views in reads(out):
            for slot, *what in zip(slots, indices, views, strict=True):
                covered.add((step, slot))
                if self.read[step, slot] != what:
                    failures.append(f"{out.name}: step {step}, slot {slot} has another image, or another view of it")
        if covered != set(self.read):
            failures.append(f"{out.name}: {len(set(self.read) - covered)} images of the run were never read")
        if found.keys() != self.losses.keys():
            failures.append(f"{out.name}: the log has other rows")
        shared = found.keys() & self.losses.keys()
        drift = max(abs(found[key] / self.losses[key] - 1) for key in shared)
        if drift > BOUNDS[self.dtype]:
            failures.append(f"{out.name}: a loss differs by {drift:.1e}")
        return {"largest_relative_difference": drift, "failures": failures[:5]}


def write_images(folder: Path) -> None:
    """{train,val}/<class>/*: noise round a colour, 40 images of each of three classes to train on and 7 held out."""
    rng = np.random.default_rng(0)
    for part, count in {"train": 40, "val": 7}.items():
        for place, colour in {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}.items():
            (folder / part / place).mkdir(parents=True)
            for i in range(count):
                pixels = np.array(colour) + rng.integers(-40, 41, (24, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / part / place / f"{i:03d}.png")


def chosen_for(classes: int, images: int, steps: int) -> Recipe:
    """Everything random that a recipe can have."""
    network = ConvNeXtConfig(depths=(1, 1, 1), widths=(8, 8, 8), patch=2, classes=classes, drop_path=0.3, grn=True)
    base = recipe("small", "atto", images=images, image_px=SIZE_PX, classes=classes, batch=BATCH)
    augment = {"mixup": 0.8, "cutmix": 1.0, "erasing": 0.5, "smoothing": 0.1, "rand_augment": "rand-m9-mstd0.5-inc1"}
    changes = {f"augment.{name}": value for name, value in augment.items()} | {"input.size_px": SIZE_PX}
    changes |= {"schedule.steps": steps, "schedule.warmup_epochs": 0, "schedule.eval_epochs": 5, "optim.clip": 1.0}
    changes |= {"optim.name": "adamw", "optim.lr": 1e-3, "optim.ema": 0.9, "input.progressive": []}
    return override(base.model_copy(update={"model": network}), changes)


def work(
    place: Path, out: Path, dtype: str, steps: int, *, shard: bool = False, micro: int = 0, **changes: Any
) -> None:
    """What each process does; `changes` of the recipe, in which '__' stands for a dot."""
    splits = open_splits(recognise(str(place / "data")))
    chosen = chosen_for(len(splits.train.classes), len(splits.train.entries), steps)
    chosen = override(chosen, {name.replace("__", "."): value for name, value in changes.items()})
    given: dict[str, Any] = {"out": str(out), "kernels": "plain", "checkpoint_steps": 3, "shard_weights": shard}
    options = RunOptions(**given, micro_batch=micro, workers=0, device="cpu", progress=False)
    with workplace(options) as (device, world):
        task = Watched(fresh(chosen), chosen, options, splits, double=dtype == "float64")
        fit(task, chosen, options, device=device, world=world)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Together:
    """A number of processes that work on one run."""

    def __init__(self, reference: Reference, out: Path, size: int, **how: Any):
        self.ranks: list[int] = []
        port = free_port()
        for rank in range(size):
            process = os.fork()
            if not process:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
                _rank(reference, out, place, reference.changes | how)
            self.ranks.append(process)

    def wait(self) -> int:
        """The worst status, once all have ended; as a launcher does, those are ended that wait for one that never came.

        SystemExit where one does not end in time.
        """
        started, worst, asked = time.monotonic(), 0, False
        while self.ranks:
            for rank in tuple(self.ranks):
                ended, status = os.waitpid(rank, os.WNOHANG)
                if ended:
                    self.ranks.remove(rank)
                    worst = max(worst, abs(os.waitstatus_to_exitcode(status)))
                    started = time.monotonic()
            if worst and not asked and time.monotonic() - started > ENDED_S:
                asked = True
                for rank in self.ranks:
                    os.kill(rank, signal.SIGTERM)
            if worst and time.monotonic() - started > HUNG_S:
                for rank in self.ranks:
                    os.kill(rank, signal.SIGKILL)
                raise SystemExit(f"{len(self.ranks)} processes have not ended {HUNG_S} s after another one")
            time.sleep(0.005)
        return worst


def _rank(reference: Reference, out: Path, place: dict[str, int], how: dict[str, Any]) -> None:
    """The life of a forked process."""
    status = 1
    try:
        told = os.open(out / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
        work(reference.place, out, reference.dtype, reference.steps, **how)
        status = 0
    except ConvNeXtError as error:
        print(f"convnext: {error}", file=sys.stderr, flush=True)
        status = 2
    except BaseException:  # noqa: BLE001 # a traceback is what is looked for
        traceback.print_exc()
    finally:
        os._exit(status)


def worlds(reference: Reference, args: argparse.Namespace) -> dict[str, Any]:
    """Uninterrupted runs of other numbers of processes."""
    found, failures = {}, []
    for size in args.worlds:
        out = reference.out(f"of{size}")
        if Together(reference, out, size).wait():
            failures.append(f"{size} processes failed: {(out / 'log').read_text()[-1000:]}")
            continue
        compared = reference.compared(out)
        found[str(size)] = compared["largest_relative_difference"]
        failures += compared["failures"]
    return {"largest_relative_difference": found, "failures": failures}


def kills(reference: Reference, args: argparse.Namespace) -> dict[str, Any]:
    """One run that loses a process again and again."""
    draw, out, sizes = random.Random(args.seed), reference.out("killed"), cycle(SIZES)
    used: list[int] = []
    gone_s, failures = 0.0, []
    while len(used) < args.kills:
        size = next(sizes)
        ranks, later = Together(reference, out, size), draw.choice([0, 1, 2, 4, 6])
        wait_s, before = draw.uniform(0, 1.5), step_of(out)
        until = time.monotonic() + (HUNG_S if later else wait_s)
        while time.monotonic() < until and not (later and step_of(out) >= min(before + later, reference.steps - 1)):
            time.sleep(0.005)
        os.kill(draw.choice(ranks.ranks), signal.SIGKILL)
        killed = time.monotonic()
        ranks.wait()
        gone_s = max(gone_s, time.monotonic() - killed)
        used.append(size)
    if Together(reference, out, next(sizes)).wait():
        failures.append(f"the run cannot be finished: {(out / 'log').read_text()[-1000:]}")
    if "Traceback" in (out / "log").read_text():
        failures.append(f"a traceback: {(out / 'log').read_text()[-3000:]}")
    found = reference.compared(out)
    failures += found.pop("failures")
    return (
        {"kills": len(used), "sizes": used, "seed": args.seed, "longest_s_to_end": round(gone_s, 2)}
        | found
        | {"failures": failures}
    )


def agents(reference: Reference, args: argparse.Namespace) -> dict[str, Any]:
    """One run on machines that go and come."""
    out, failures = reference.out("agents"), list[str]()
    (out / "allowed").write_text("0")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # outlives every one of them
    machines: list[subprocess.Popen[bytes]] = []
    number = 0
    try:
        for count in SIZES:
            while len(machines) > count:
                lost = machines.pop(0)  # whose process is the first, which writes the files
                os.killpg(lost.pid, signal.SIGKILL)
                lost.wait()
            while len(machines) < count:
                number += 1
                machines.append(machine(reference, out, store.port, number))
            _until(out, count, min(step_of(out) + 4, reference.steps - 1))
        (out / "allowed").unlink()
        failures += [f"a machine ended with {each.returncode}" for each in machines if each.wait(10 * HUNG_S)]
    finally:
        for each in machines:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
    found = reference.compared(out)
    return {"machines": SIZES, "largest_relative_difference": found["largest_relative_difference"]} | {
        "failures": failures + found["failures"]
    }


def machine(reference: Reference, out: Path, port: int, number: int) -> subprocess.Popen[bytes]:
    """torchrun with one process, on an address of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:4", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "elastic"]
    command += ["--rdzv-conf", "is_host=0,last_call_timeout=4", "--local-addr", f"127.0.0.{number}"]
    command += ["--max-restarts", "9", __file__, "--dtype", reference.dtype, "--steps", str(reference.steps)]
    command += ["--work", str(reference.place), str(out)]
    more = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # or torchrun gives the address of a machine that is gone
    with (out / f"log{number}").open("ab") as log:
        how: dict[str, Any] = {"env": os.environ | more, "stdout": log, "stderr": log, "start_new_session": True}
        return subprocess.Popen(command, **how)


def _until(out: Path, count: int, step: int) -> None:
    """Let the run go on until so many processes together have come to `step`. SystemExit where they do not."""
    until, past = time.monotonic() + 10 * HUNG_S, len(reads(out))
    while step_of(out) < step or len({tuple(slots) for _, slots, *_ in reads(out)[past:]}) < count:
        if time.monotonic() > until:
            raise SystemExit(f"{count} machines do not work together: see {out}")
        (out / "allowed").write_text(str(max(step, step_of(out) + 1)))  # who is asked to end, ends after a step
        time.sleep(5 if step_of(out) >= step else 0.5)


CHECKS = {"worlds": worlds, "kills": kills, "agents": agents}


def step_of(out: Path) -> int:
    """The last step in the log."""
    try:
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().split("\n")[:-1]]
    except (OSError, ValueError):
        return 0
    return max((row["step"] for row in rows), default=0)


def losses(out: Path) -> dict[tuple[str, str, int], float]:
    """(kind, weights, step) -> loss, of the log."""
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return {(row["kind"], row.get("weights", ""), row["step"]): row["loss"] for row in rows}


def reads(out: Path) -> list[Any]:
    """(step, slots, indices, views) of each batch that a process read; a killed one may leave half a line."""
    found: list[Any] = []
    if not (out / "read.jsonl").exists():
        return found
    for line in (out / "read.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
