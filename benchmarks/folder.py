"""A folder of JPEGs predicted end to end by whole processes: `convnext predict`, and two usual ways with timm's network.

    python benchmarks/folder.py [tiny] [--images 64] [--rounds 2] [--threads 2] [--data DIR]

`convnext` is the command, as a person gives it. `loader` is timm's network in torch as its validation script has it: a
DataLoader with a worker a core, batches of 32, timm's transform. `loop` is what prediction scripts do: one image after the
other, opened, resized and answered. All have fresh weights of one size, see the same JPEGs of 500 x 375 px at 224 px and
print the best class of each as JSON. They take turns. Counted are whole processes with their children: the processor's
seconds, the clock's, how busy the threads that they may use were, and the same less what two images take: the start.
A line of results/folder.jsonl.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convnext.engine.machine import machine
from first import keep, write_run

RESULTS = Path(__file__).parent / "results" / "folder.jsonl"
NAMES = {"tiny": "convnext_tiny", "atto": "convnext_atto"}  # ours: timm's
START = """
import glob, json, os, sys, timm, torch
from PIL import Image
folder, name, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
model = timm.create_model(name).eval().to(memory_format=torch.channels_last)
transform = timm.data.create_transform((3, 224, 224), crop_pct=0.875)
files = sorted(glob.glob(folder + "/*.jpg"))
def tell(path, scores):
    score, label = scores.max(0)
    print(json.dumps({"path": path, "class": int(label), "score": round(float(score), 4)}), flush=True)
"""
LOADER = """
class Files(torch.utils.data.Dataset):
    def __len__(self): return len(files)
    def __getitem__(self, place): return transform(Image.open(files[place]).convert("RGB")), place
with torch.inference_mode():
    for images, places in torch.utils.data.DataLoader(Files(), batch_size=32, num_workers=threads):
        for place, scores in zip(places.tolist(), model(images.contiguous(memory_format=torch.channels_last)).softmax(1)):
            tell(files[place], scores)
"""
LOOP = """
with torch.inference_mode():
    for path in files:
        image = transform(Image.open(path).convert("RGB"))[None]
        tell(path, model(image.contiguous(memory_format=torch.channels_last)).softmax(1)[0])
"""


def main() -> int:
    """Make the images and the run, take turns, keep a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny", choices=NAMES)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data", type=Path, help="where images and run are made, or lie from before")
    parser.add_argument("--quiet", action="store_true", help="print the line, and keep nothing in results/")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = args.data or Path(temporary)
        folders = {count: write_images(data / f"images_{count}", count) for count in (2, args.images)}
        write_run(data / "run", args.model)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ("convnext", "loader", "loop")}
        for _ in range(args.rounds):
            for name, found in rounds.items():
                start, whole = (alone(name, data, folder, args) for folder in folders.values())
                added = {f"added_{key}": round(whole[key] - start[key], 3) for key in ("cpu_s", "wall_s")}
                found.append(whole | added)
                print(f"{name:<9} {json.dumps(found[-1])}", file=sys.stderr, flush=True)
    line: dict[str, Any] = {"benchmark": "folder", "model": args.model, "images": args.images, "threads": args.threads}
    medians = {
        name: {key: round(statistics.median(each[key] for each in found), 3) for key in found[0]}
        for name, found in rounds.items()
    }
    line |= {"rounds": args.rounds, "contenders": medians, "runs": rounds}
    line |= machine() | {"command": Path(__file__).name}
    keep(line, None if args.quiet else RESULTS)
    return 0


def write_images(folder: Path, count: int) -> Path:
    """`folder`/*.jpg of 500 x 375 px, coarse noise as photographs are coarse."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        file = folder / f"{number:05d}.jpg"
        if not file.is_file():
            Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)
    return folder


def alone(name: str, data: Path, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """One contender on a folder, in processes of its own. Raises SystemExit where it fails or answers for too few."""
    program = {"loader": START + LOADER, "loop": START + LOOP}.get(name)
    if program is None:
        command = [sys.executable, "-m", "convnext", "predict", str(data / "run"), str(folder), "--top", "1", "--json"]
    else:
        command = [sys.executable, "-c", program, str(folder), NAMES[args.model], str(args.threads)]
    environment, clock = os.environ | {"OMP_NUM_THREADS": str(args.threads)}, time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    answers = sum(1 for _ in process.stdout)
    _, status, used = os.wait4(process.pid, 0)  # with the children that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - clock
    if status or answers != len(list(folder.iterdir())):
        raise SystemExit(f"{name} ended with status {process.returncode} and {answers} answers")
    cpu = used.ru_utime + used.ru_stime
    busy = round(cpu / wall / args.threads, 3)
    return {"cpu_s": round(cpu, 3), "wall_s": round(wall, 3), "busy": busy, "peak_mb": used.ru_maxrss // 1024}


if __name__ == "__main__":
    sys.exit(main())
