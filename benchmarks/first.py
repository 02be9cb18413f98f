"""The first prediction of a fresh process, part by part: a run, its .convnext and ONNX files, beside ONNX Runtime alone.

    python benchmarks/first.py [tiny] [--rounds 5] [--data DIR]

A network of fresh weights is written as a run and exported. Each contender is a process that has nothing loaded: it imports,
loads, and answers for one JPEG of 500 x 375 px, then for the same again; `torch` is the import of torch alone.
`onnxruntime` is what a program without this package does with the same ONNX file: import, session, decode, run. They take
turns. Of each part the processor's seconds, which other work disturbs less than the clock's, and the clock's; the least of
the rounds. A line of results/first.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convnext.engine.machine import machine

RESULTS = Path(__file__).parent / "results" / "first.jsonl"
SIZE_PX = 224
TIMES = """
import json, resource, sys, time
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter()
marks = [("start", now())]
def mark(name): marks.append((name, now()))
"""
TORCH = """
import torch
mark("torch")
"""
OURS = """
import convnext
from convnext.deploy.load import load
mark("import")
predictor = load(sys.argv[1])
mark("load")
predictor(sys.argv[2])
mark("first")
predictor(sys.argv[2])
mark("second")
"""
BARE = """
import numpy as np, onnxruntime
from PIL import Image, ImageOps
mark("import")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
mark("load")
for name in ("first", "second"):
    image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
    session.run(["scores"], {"images": np.asarray(image)[None]})
    mark(name)
"""
TOLD = """
used = {line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if line.startswith(("VmHWM", "VmRSS"))}
parts = {b[0]: [round(y - x, 4) for x, y in zip(a[1], b[1])] for a, b in zip(marks, marks[1:])}
print(json.dumps({"parts": parts, "peak_mb": int(used["VmHWM"]) // 1024, "held_mb": int(used["VmRSS"]) // 1024}))
"""
CONTENDERS = {  # name -> program, file
    "run": (TORCH + OURS, "run"),
    "convnext file": (TORCH + OURS, "run/model.convnext"),
    "onnx file": (OURS, "run/model.onnx"),
    "onnxruntime": (BARE, "run/model.onnx"),
}


def main() -> int:
    """Make the files, take turns, print a table, keep a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="where run and files are made, or lie from before")
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="print the line, and keep nothing in results/",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = args.data or Path(temporary)
        prepare(place, args.model)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for _ in range(args.rounds):
            for name, found in rounds.items():
                found.append(alone(name, place, args.threads))
    line = {
        "benchmark": "first",
        "model": args.model,
        "threads": args.threads,
        "rounds": args.rounds,
    }
    line |= {"contenders": {name: least(found) for name, found in rounds.items()}}

    line |= machine() | {"command": Path(__file__).name}
    for name, found in line["contenders"].items():
        parts = "  ".join(f"{part} {cpu:.2f}" for part, (cpu, _) in found["parts"].items())
        print(
            f"{name:<14} {found['cpu_s']:.2f} s to the first answer: {parts}; {found['held_mb']} MB",
            file=sys.stderr,
        )
    keep(line, None if args.quiet else RESULTS)
    return 0


def keep(line: dict[str, Any], results: Path | None) -> None:
    """Add the line to the results; print it where they are to stay as they are."""
    if results is None:
        print(json.dumps(line))
        return
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def write_run(folder: Path, model: str) -> Path:
    """A run of that network with fresh weights and a thousand classes."""
    if not (folder / "best.safetensors").is_file():
        subprocess.run([sys.executable, "-c", WRITE, str(folder), model, str(SIZE_PX)], check=True)
    return folder


def prepare(place: Path, model: str) -> None:
    """image.jpg, the run, and its exports."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "image.jpg").is_file():
        noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(noise).resize((500, 375), Image.BICUBIC).save(place / "image.jpg", quality=90)
    if not (place / "run" / "model.onnx").is_file():
        write_run(place / "run", model)
        for form in ("convnext", "onnx"):
            command = [
                sys.executable,
                "-m",
                "convnext",
                "export",
                str(place / "run"),
                "--to",
                form,
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


WRITE = """
import pathlib, sys, torch
from convnext.config import override
from convnext.engine.checkpoint import save
from convnext.recipes import recipe
from convnext.tasks.table import row_of
folder, model, size = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
classes = [f"class {number}" for number in range(1000)]
made = recipe("small", model, images=100000, image_px=size, classes=len(classes))
made = override(made, {"input.eval_size_px": size, "precision": "fp32"})
torch.manual_seed(0)
folder.mkdir(parents=True, exist_ok=True)
metadata = {"recipe": made.model_dump(mode="json"), "task": "classification", "classes": classes}
save(folder / "best.safetensors", row_of("classification").build(made).state_dict(), metadata)
"""


def alone(name: str, place: Path, threads: int) -> dict[str, Any]:
    """One contender in a fresh process."""
    program, file = CONTENDERS[name]
    arguments = [str(place / file), str(place / "image.jpg"), str(threads)]
    command = [sys.executable, "-c", TIMES + program + TOLD, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def least(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each part the least [processor's, clock's] seconds; `cpu_s` and `wall_s` to the first answer."""
    parts = {name: [min(each["parts"][name][i] for each in rounds) for i in range(2)] for name in rounds[0]["parts"]}
    totals = [sum(value[i] for name, value in parts.items() if name != "second") for i in range(2)]
    memory = {name: min(each[name] for each in rounds) for name in ("peak_mb", "held_mb")}
    return {
        "cpu_s": round(totals[0], 3),
        "wall_s": round(totals[1], 3),
        "parts": parts,
        **memory,
    }


if __name__ == "__main__":
    sys.exit(main())
