"""The same call again and again: descriptors, threads, shared memory and memory must stay level.

    python benchmarks/loops.py [--n 2000] [--only export,embed] [--quiet]

A tiny classifier is trained once; then each public function is called `n` times: predicting a file, a folder, a zip, a list,
bytes and an array, embedding, explaining, loading, verifying, evaluating a folder and a zip, exporting (a twentieth as often),
and opening and looking at a small data set of every form. What the process holds is counted after the first tenth of the calls
and after the last. A line of results/loops.jsonl; 1 where something grew.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import convnext
import damage_data

RESULTS = Path(__file__).parent / "results" / "loops.jsonl"
GROWN_MB = 24  # that the allocator and caches may take; a leak of 20 kB a call is more after 2,000
SELDOM = 20


def held() -> dict[str, int]:
    """What this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = os.listdir("/dev/shm") if Path("/dev/shm").exists() else []
    shared = sum(str(os.getpid()) in name for name in names)  # torch names its own after the process
    found = {"descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count(), "shared": shared}
    return found | {"mb": pages * os.sysconf("SC_PAGESIZE") >> 20}


def calls(folder: Path) -> dict[str, Callable[[], object]]:
    """Each public function on tiny data, by a name."""
    data = folder / "set"
    random = np.random.default_rng(0)
    for number in range(16):
        file = data / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).save(file)
    (folder / "zipped").mkdir()
    damage_data.write_zip(folder / "zipped", damage_data.foreign.small("boxes"))
    pack = folder / "zipped" / "set.zip"
    fields = {"optim.batch": 4, "input.size_px": 16, "model.depths": (1, 1), "model.widths": (8, 16), "model.patch": 2}
    run = convnext.train(data, out=folder / "run", epochs=1, workers=0, overrides=fields)
    predictor, files = convnext.load(run.path), sorted(data.rglob("*.png"))
    pixels = np.zeros((20, 20, 3), np.uint8)
    sets = damage_data.data_sets(made(folder / "sets"))
    return {
        "predict a file": lambda: predictor(files[0]), "predict bytes": lambda: predictor(files[0].read_bytes()),
        "predict an array": lambda: predictor(pixels), "predict a folder": lambda: list(predictor.predict(data)),
        "predict a zip": lambda: list(predictor.predict(pack)), "predict a list": lambda: list(predictor.predict(files)),
        "embed": lambda: list(predictor.embed(files)), "explain": lambda: predictor.explain(files[0]),
        "verify": lambda: convnext.verify(run.path), "load": lambda: convnext.load(run.path),
        "evaluate a folder": lambda: convnext.evaluate(run.path, data),
        "evaluate a zip": lambda: convnext.evaluate(run.path, pack),
        "export": lambda: convnext.export(run.path, to="torch", out=folder / "exported.pt2"),
        **{f"open {name}": lambda path=path: damage_data.opened(path, None) for name, path in sets.items()},
    }  # fmt: skip


def made(folder: Path) -> Path:
    """A folder that is there."""
    folder.mkdir()
    return folder


def loop(folder: Path, n: int, only: str = "") -> tuple[dict[str, Any], list[str]]:
    """(what was held before and after the calls of each function, or of those called `only`; those that grew)."""
    rows: dict[str, Any] = {}
    grown = []
    for name, call in calls(folder).items():
        if only and name not in only.split(","):
            continue
        times = max(4, n // SELDOM) if name == "export" else n
        before: dict[str, int] = {}
        for number in range(times):
            if number == max(1, times // 10):
                before = held()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                call()
        after = held()
        rows[name] = {"n": times, "before": before, "after": after}
        if (
            any(after[key] > before[key] for key in ("descriptors", "threads", "shared"))
            or after["mb"] - before["mb"] > GROWN_MB
        ):
            grown.append(name)
        print(f"{name}: {times} times, {before} -> {after}{'  GREW' if name in grown else ''}", flush=True)
    return rows, grown


def main() -> int:
    """Call, count; 1 where something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--only", default="", help="names of functions, with commas between them")
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loops-") as folder:
        rows, grown = loop(Path(folder), args.n, args.only)
    row = {"benchmark": "loops", "n": args.n, "grown": grown, "python": platform.python_version(),
           "system": platform.platform(), "seconds": round(time.monotonic() - begun), "held": rows}  # fmt: skip
    if not args.quiet:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(f"{len(grown)} of {len(rows)} grew")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
