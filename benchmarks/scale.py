"""What 1,000 GPUs and 10 billion images ask of this package: arithmetic from published rates, and a simulation of failures.

    python benchmarks/scale.py                                   # every table, in seconds; no GPU, no data
    python benchmarks/scale.py --only failures --gpus 16384
    python benchmarks/scale.py --json benchmarks/results/scale.jsonl

'data': bytes of images and of the index, of which the index of shards is built here and measured. 'checkpoint': bytes of
weights, EMA weights and optimizer states, counted from the tensors that a checkpoint holds; one is written and compared.
'failures': mean time between them, what each costs, and the best time between checkpoints, by Young's (1974) and Daly's
(2006) formulas and by a simulation. 'exchange': seconds that gradients take, and the share of a step that is left.
Every assumption is a line of RATES and stands in each row that uses it.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convnext.config import OptimConfig
from convnext.data.opening import open_splits, recognise
from convnext.data.shards.again import Stored
from convnext.data.shards.index import MOST, Files, Member, files_of, packed
from convnext.data.shards.record import FORMAT, INDEX, RECORD, VERSION
from convnext.engine import checkpoint
from convnext.engine.ema import Ema
from convnext.engine.optim import Optimizers
from convnext.models.build import build_model
from convnext.models.profile import measure
from convnext.recipes.architectures import ARCHITECTURES

NETWORKS = ("tiny", "base", "large", "xlarge", "v2_huge")
RATES = {  # what is assumed; all of it is public
    "failures": 419,  # unexpected interruptions of Llama 3's training, arXiv 2407.21783, section 3.3.4
    "failure_days": 54,
    "failure_gpus": 16_384,
    "image_bytes": 110_000,  # ImageNet-1k's training part: 1,281,167 files in some 138 GB
    "gpus_of_a_machine": 8,
    "network_gb_s": 50.0,  # of a GPU to another machine: 400 Gb/s
    "host_gb_s": 25.0,  # from a GPU to its host's memory: PCIe 4 x16, sustained
    "disk_gb_s": 10.0,  # of the shared file system, for all writers together
    "writer_gb_s": 1.0,  # of one process that writes one file
    "restart_s": 180.0,  # until all machines compute again: torchrun's wait for others, start, load, first images
    "tflops": 989.0,  # of an H100 SXM in bf16 without sparsity, as its data sheet has it
    "share": 0.166,  # of it that T reached on one H100: 18,460 images/s in inference, docs/benchmarks.md
    "images_of_a_gpu": 64,  # of a step, at 224 px
    "latency_s": 10e-6,  # of a message between two GPUs
}
DAY_S = 24 * 3600


def main() -> int:
    """Print a line for each row. 1 where a simulation and its formula, or a file and its count, are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="some tables (all)")
    parser.add_argument("--gpus", type=int, default=1000, help="of the run (1000)")
    parser.add_argument("--images", type=int, default=10**10, help="of the data (10 billion)")
    parser.add_argument("--network", choices=list(ARCHITECTURES), default="v2_huge", help="of 'failures' (v2_huge)")
    parser.add_argument("--failures", type=int, default=20_000, help="that are simulated for each interval (20000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    parser.add_argument("--json", type=Path, metavar="OUT.jsonl", help="append the rows to this file as well")
    args = parser.parse_args()
    failed = False
    for name in args.only:
        for found in TABLES[name](args):
            row = {"table": name, **found, "torch": torch.__version__, "command": " ".join(["scale.py", *sys.argv[1:]])}
            print(json.dumps(row), flush=True)
            failed |= not row.get("agrees", True)
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return int(failed)


def data(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bytes of images, of their index and of the order of a pass; what a machine reads."""
    count = 100_000
    names = [f"train/n{i // 1300:08x}/{zlib.crc32(b'%d' % i):012d}_{i % 97}.jpg" for i in range(count)]
    names += [f"val/{name.partition('/')[2]}" for name in names[::1300]]
    members = {name: Member(i // 2000, 110_000 * (i % 2000), 110_000, i) for i, name in enumerate(names)}
    held = packed([listed(names, members)])
    with tempfile.TemporaryDirectory() as folder:
        described(Path(folder), held, count)
        index = len(held) / count  # measured
        read, while_read = traced(lambda: recognise(folder))
        kept, most = traced(lambda: open_splits(recognise(folder)))
    rows = {(0, name): (*member[1:], 10**18 + member.crc) for name, member in members.items()}
    parts = [{file: rows[file] for file in list(rows)[:2000]}]
    writer = traced(lambda: [Stored.of(part) for part in parts])[0] / 2000
    finish = traced(lambda: packed([listed(names, members)]))[1] / count
    yield {
        "images": args.images,
        "image_tb": round(args.images * RATES["image_bytes"] / 1e12, 1),
        "index_bytes_an_image": round(index, 1),  # of its file, which is the memory that all processes share
        "index_gb": round(args.images * index / 1e9, 1),
        "index_memory_bytes_an_image": round(max(read, while_read) / count, 1),  # a process's own beside it, measured
        "data_memory_bytes_an_image": round(kept / count, 1),  # its own once it knows labels and parts, measured
        "data_memory_while_opened_bytes_an_image": round(most / count, 1),
        "data_memory_gb": round(args.images * kept / count / 1e9),
        "memory_gb_of_a_machine": round(args.images * (index + kept / count * RATES["gpus_of_a_machine"]) / 1e9),
        "writer_memory_bytes_an_image": round(
            writer + finish, 1
        ),  # beside the names and labels, which every reader has
        "order_gb": round(args.images * 8 / 1e9, 1),  # int64, in every process that reads
        "largest_index_of_images": MOST,  # its rows are 32-bit numbers
    }
    for network in NETWORKS:
        rate = images_per_s(network)
        machine = RATES["gpus_of_a_machine"] * rate
        yield {
            "network": network,
            "assumed_images_per_s_of_a_gpu": round(rate),
            "read_gb_s_of_a_machine": round(machine * RATES["image_bytes"] / 1e9, 2),
            "read_gb_s_of_all": round(args.gpus * rate * RATES["image_bytes"] / 1e9, 1),
            "days_of_a_pass": round(args.images / (args.gpus * rate) / DAY_S, 2),
        }


def listed(names: list[str], members: Mapping[str, Member]) -> Files:
    """The index of these files."""
    return files_of(names, len(names), ["train", "val", *sorted({name.rpartition("/")[0] for name in names})], members)


def described(folder: Path, index: bytes, count: int) -> None:
    """Shards as far as opening them looks: their record and their index."""
    numbers = range(count // 1000)
    shards = [
        {"name": f"train-{n:06d}.tar", "part": "train", "images": 2000, "bytes": 1, "sha256": ""} for n in numbers
    ]
    about = {"name": INDEX, "bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()}
    record = {
        "format": FORMAT,
        "version": VERSION,
        "task": "classification",
        "form": "folders",
        "labels": None,
        "file": None,
    }
    record |= {
        "bands": None,
        "notes": [[]],
        "parts": {"train": count},
        "shards": shards,
        "index": about,
    }
    (folder / INDEX).write_bytes(index)
    (folder / RECORD).write_text(json.dumps(record))


def traced(make: Callable[[], Any]) -> tuple[int, int]:
    """Bytes of what `make` makes, and the most that it took meanwhile."""
    tracemalloc.start()
    made = make()
    found = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return found


def images_per_s(network: str) -> float:
    """Of one GPU in training: three times the forward pass, two operations for each multiply-accumulate."""
    macs = measure(ARCHITECTURES[network], 224)[1]
    return RATES["tflops"] * 1e12 * RATES["share"] / (6 * macs)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a checkpoint to go on with."""

    weights: int
    ema: int
    optimizer: int

    @property
    def all(self) -> int:
        """Their sum."""
        return self.weights + self.ema + self.optimizer


def sizes(network: str, optimizer: str) -> Sizes:
    """Counted from the tensors that the engine saves, of which only the shapes exist."""
    with torch.device("meta"):
        model = build_model(ARCHITECTURES[network])
        state = Optimizers(model, OptimConfig(name=optimizer, lr=1e-3, batch=1)).tensors()  # type: ignore[arg-type]
        ema = Ema(model, 0.9999).tensors()
    families = ({**model.state_dict()}, ema, state)
    return Sizes(*(sum(value.nbytes for value in family.values()) for family in families))


def checkpoints(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bytes of a checkpoint, and the seconds that it takes: one file, or a part of each process."""
    for network in NETWORKS:
        for optimizer in ("adamw", "muon", "sgd"):
            found = sizes(network, optimizer)
            part = found.all / args.gpus
            yield {
                "network": network,
                "optimizer": optimizer,
                "parameters": measure(ARCHITECTURES[network], 224)[0],
                "weights_gb": round(found.weights / 1e9, 3),
                "ema_gb": round(found.ema / 1e9, 3),
                "optimizer_gb": round(found.optimizer / 1e9, 3),
                "all_gb": round(found.all / 1e9, 3),
                "one_file_s": round(found.all / 1e9 / RATES["writer_gb_s"], 2),
                "part_mb": round(part / 1e6, 2),
                "parts_s": round(max(found.all / RATES["disk_gb_s"], part / RATES["writer_gb_s"]) / 1e9, 3),
                "parts_pause_s": round(part / 1e9 / RATES["host_gb_s"], 5),
            }
    model = build_model(ARCHITECTURES["atto"])
    tensors = checkpoint.under("model", model.state_dict())
    tensors |= checkpoint.under("optimizer", Optimizers(model, OptimConfig(lr=1e-3, batch=1)).tensors())
    tensors |= checkpoint.under("ema", Ema(model, 0.9999).tensors())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "last.safetensors"
        checkpoint.save(file, tensors, {})
        written, counted = file.stat().st_size, sizes("atto", "adamw").all
    yield {
        "network": "atto",
        "optimizer": "adamw",
        "counted_bytes": counted,
        "written_bytes": written,
        "agrees": abs(written / counted - 1) < 0.01,
    }


def failures(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """How often a run of n GPUs is interrupted, how often to save, and what is lost; by formula and by simulation."""
    hours = RATES["failure_days"] * 24 * RATES["failure_gpus"] / RATES["failures"]  # of one GPU
    for gpus in (8, 64, args.gpus, 16_384):
        yield {"gpus": gpus, "hours_between_failures": round(hours / gpus, 1), "a_week": round(168 * gpus / hours, 2)}
    mean_s, found = hours / args.gpus * 3600, sizes(args.network, "adamw")
    ways = {  # what training waits for at each checkpoint, and how long it takes until that counts
        "one file, training waits": (found.all / 1e9 / RATES["writer_gb_s"],) * 2,
        "parts, training goes on": (
            found.all / args.gpus / 1e9 / RATES["host_gb_s"],
            found.all / 1e9 / RATES["disk_gb_s"],
        ),
    }
    for name, (pause_s, write_s) in ways.items():
        best = daly_s(pause_s, mean_s)
        for label, every in {"best": max(best, write_s), "default": 300.0, "hour": 3600.0}.items():
            lost = lost_share(every, pause_s, write_s - pause_s, RATES["restart_s"], mean_s)
            seen, error = simulated(
                every, pause_s, write_s - pause_s, RATES["restart_s"], mean_s, args.failures, args.seed
            )
            yield {
                "network": args.network,
                "gpus": args.gpus,
                "way": name,
                "interval": label,
                "minutes_between_checkpoints": round(every / 60, 2),
                "young_minutes": round(math.sqrt(2 * pause_s * mean_s) / 60, 2),
                "pause_s": round(pause_s, 4),
                "lost_share_by_formula": round(lost, 6),
                "lost_share_simulated": round(seen, 6),
                "standard_error": round(error, 6),
                "agrees": abs(seen - lost) < max(4 * error, 0.02 * lost),
            }


def daly_s(pause_s: float, mean_s: float) -> float:
    """The best seconds of work between two checkpoints that take `pause_s` (Daly 2006, the estimate of higher order)."""
    if pause_s >= 2 * mean_s:
        return mean_s
    ratio = pause_s / (2 * mean_s)
    return math.sqrt(2 * pause_s * mean_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - pause_s


def lost_share(every: float, pause: float, behind: float, restart: float, mean: float) -> float:
    """The share of the time that is no progress: failures of a Poisson process, `mean` seconds apart.

    Daly's complete model (2006): expected seconds of a segment, divided by its work. `behind` seconds pass after the
    pause until a checkpoint counts, so that a failure loses them too; that is of first order in behind / mean.
    """
    segment = mean * math.exp(restart / mean) * math.expm1((every + pause) / mean)
    return 1 - every / (segment + (every + pause) * behind / mean)


def simulated(
    every: float, pause: float, behind: float, restart: float, mean: float, count: int, seed: int
) -> tuple[float, float]:
    """(share, its standard error) of a run through `count` failures, each moment drawn from an exponential distribution.

    A failure in the restart starts it anew. A checkpoint counts `behind` seconds after its pause, and training goes on
    meanwhile.
    """
    draw, cycle = np.random.default_rng(seed), every + pause
    gaps = draw.exponential(mean, count)
    running = np.maximum(gaps - restart, 0.0)
    running[0] = gaps[0]  # the first start is not a restart
    counted = np.maximum(np.floor((running - behind) / cycle), 0.0) * every
    share = 1 - counted.sum() / gaps.sum()
    residual = counted - (1 - share) * gaps
    return float(share), float(residual.std() / math.sqrt(count) / mean)


def exchange(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds of a step that are spent on gradients and weights, as a ring has it, and what is left of the step."""
    n, speed = args.gpus, RATES["network_gb_s"] * 1e9
    for network in NETWORKS:
        size = 4 * measure(ARCHITECTURES[network], 224)[0]
        compute = RATES["images_of_a_gpu"] / images_per_s(network)
        ring = (n - 1) / n * size / speed + (n - 1) * RATES["latency_s"]
        for way, rounds in {"ddp": 2, "fsdp2": 3}.items():  # reduce-scatter and all-gather; the latter twice
            seconds = rounds * ring
            yield {
                "network": network,
                "gpus": n,
                "parallel": way,
                "batch": n * RATES["images_of_a_gpu"],
                "compute_ms": round(1e3 * compute, 1),
                "exchange_ms": round(1e3 * seconds, 1),
                "efficiency_without_overlap": round(compute / (compute + seconds), 3),
                "efficiency_with_overlap": round(compute / max(compute, seconds), 3),
            }


TABLES = {"data": data, "checkpoint": checkpoints, "failures": failures, "exchange": exchange}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
