"""Memory of a run with as many classes as ImageNet-22k has: training, evaluation and report together.

    python benchmarks/classes.py [--classes 21841] [--train 2] [--val 1] [--quiet]

A tiny network learns generated images of so many classes, `--train` of each to learn from and `--val` held out, for one epoch
with one worker; then `convnext evaluate` scores it again. Counted is the memory of all processes together, what they share
once, ten times a second. A line of results/classes.jsonl; 1 where it was more than 4 GiB.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "classes.jsonl"
MOST_MB = 4096
NETWORK = "--model.depths 1,1 --model.widths 16,32 --model.patch 4 --size 32 --batch {batch} --epochs 1 --workers 1"


def write_images(folder: Path, classes: int, counts: dict[str, int]) -> Path:
    """PART/CLASS/*.png of 16 pixels, no two of them the same."""
    random = np.random.default_rng(0)
    for part, count in counts.items():
        for number in range(classes):
            place = folder / part / f"n{number:08d}"
            place.mkdir(parents=True)
            for image in range(count):
                Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{image}.png")
    return folder


def family(process: int) -> list[int]:
    """A process and all that descend from it."""
    found, parents = [process], {process}
    table = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, tail = file.read_text().rpartition(")")
            table.append((int(head.split(" ")[0]), int(tail.split()[1])))
    while parents:
        parents = {child for child, parent in table if parent in parents}
        found += sorted(parents)
    return found


def memory_mb(process: int) -> float:
    """What these hold, and what they share counted once."""
    total = 0
    for each in family(process):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1024


def measured(words: list[str]) -> dict[str, float]:
    """Run a command of ours; its seconds and the most that it held. Raises SystemExit where it fails."""
    started, most = time.monotonic(), 0.0
    with subprocess.Popen([sys.executable, "-m", "convnext", *words], stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            most = max(most, memory_mb(run.pid))
            time.sleep(0.1)
    if run.returncode:
        raise SystemExit(f"convnext {' '.join(words)} ended with status {run.returncode}")
    return {"seconds": round(time.monotonic() - started), "most_mb": round(most)}


def main() -> int:
    """Train, evaluate, count; 1 where it was too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=21_841)
    parser.add_argument("--train", type=int, default=2, help="images of each class to learn from (2)")
    parser.add_argument("--val", type=int, default=1, help="and to score (1)")
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="classes-") as folder:
        batch = min(512, args.classes * args.train)
        data = write_images(Path(folder) / "data", args.classes, {"train": args.train, "val": args.val})
        out = Path(folder) / "run"
        found = {
            "train": measured(
                ["train", str(data), "--out", str(out), *NETWORK.format(batch=batch).split(), "--device", "cpu"]
            ),
            "evaluate": measured(["evaluate", str(out), str(data), "--device", "cpu"]),
        }
        sizes = {name: os.path.getsize(out / name) for name in ("report.html", "evaluation.json", "data.json")}
    row = {
        "benchmark": "classes", "classes": args.classes, "train": args.train, "val": args.val, **found,
        "bytes": sizes, "python": platform.python_version(), "torch": torch.__version__, "system": platform.platform(),
    }  # fmt: skip
    print(json.dumps(row))
    if not args.quiet:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return int(max(part["most_mb"] for part in found.values()) > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
