"""Requests a second of `convnext serve`, and what an image costs it beside `predict`.

    python benchmarks/serve.py [--model atto] [--clients 1,4,16,64] [--seconds 10] [--batch 8] [--peer NAME=URL,PID] [--quiet]

A process serves a network of fresh weights at 224 px. Clients, each with one connection, send JPEG files of about 500 x 375 px,
the next as soon as the last is answered, for some seconds; those before are not counted. For each number of clients a line:
requests a second, p50 and p99 of their times, and processor seconds an image of the
server. `predict` answers the same images in a process of its own, read side by side: its processor seconds an image. A peer is
another server that somebody has started: its address, which takes a JPEG as a body, and the number of its process. Lines of
results/serve.jsonl, all of one machine, in turn.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from convnext.engine import checkpoint
from convnext.engine.machine import cores, processor
from convnext.recipes import recipe
from convnext.tasks.table import row_of

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
IMAGES = 64
WARM_S = 2.0
PREDICT = (
    "import sys, time\nfrom convnext.deploy.load import load\n"
    "predictor = load(sys.argv[1], device='cpu')\nimages = sys.argv[2]\n"
    "list(predictor.predict(images, workers=-1, batch=int(sys.argv[3])))\n"
    "began, wall = time.process_time(), time.monotonic()\n"
    "n = sum(1 for _ in range(4) for _ in predictor.predict(images, workers=-1, batch=int(sys.argv[3])))\n"
    "print(n, time.process_time() - began, time.monotonic() - wall)\n"
)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="atto")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL,PID")
    parser.add_argument("--quiet", action="store_true", help="write no lines of results")
    args = parser.parse_args()
    about = {
        "model": args.model,
        "batch": args.batch,
        "seconds": args.seconds,
        "processor": processor(),
        "cores": cores(),
    }
    about |= {"torch": torch.__version__, "python": platform.python_version(), "command": " ".join(sys.argv)}
    with tempfile.TemporaryDirectory() as folder:
        run, images = written(args.model, Path(folder)), write_images(Path(folder) / "images")
        rows = [{"kind": "machine", **about}, predicted(run, images, args.batch)]
        clients = [int(each) for each in args.clients.split(",")]
        rows += served(run, images, clients, args.seconds, args.batch)
        for peer in args.peer:
            name, _, rest = peer.partition("=")
            url, _, process = rest.rpartition(",")
            rows += [{"kind": name, **row} for row in measured(url, int(process), images, clients, args.seconds)]
    for row in rows:
        print(json.dumps(row))
    if not args.quiet:
        with open(RESULTS, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return 0


def written(model: str, folder: Path) -> Path:
    """A checkpoint of fresh weights for 1,000 classes at 224 px."""
    made = recipe("small", model, images=1000, image_px=224, classes=1000)
    made = made.model_copy(update={"input": made.input.model_copy(update={"eval_size_px": 224})})
    torch.manual_seed(0)
    network = row_of(made.task).build(made)
    metadata = {
        "recipe": made.model_dump(mode="json"),
        "task": made.task,
        "classes": [f"class {k}" for k in range(1000)],
    }
    checkpoint.save(folder / "best.safetensors", network.state_dict(), metadata)
    return folder / "best.safetensors"


def write_images(folder: Path) -> Path:
    """IMAGES JPEG files that are smooth, as photos are."""
    folder.mkdir()
    for number in range(IMAGES):
        small = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(
            folder / f"{number:02d}.jpg", quality=90
        )
    return folder


def predicted(run: Path, images: Path, batch: int) -> dict[str, Any]:
    """What `predict` takes for an image."""
    command = [sys.executable, "-c", PREDICT, str(run), str(images), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n, processor_s, wall_s = map(float, done.stdout.split())
    return {"kind": "predict", "images": int(n), "images_per_s": n / wall_s, "processor_s_per_image": processor_s / n}


def served(run: Path, images: Path, clients: Sequence[int], seconds: float, batch: int) -> list[dict[str, Any]]:
    """A row for each number of clients, of a server that is started for them."""
    command = [
        sys.executable,
        "-m",
        "convnext",
        "serve",
        str(run),
        "--port",
        "0",
        "--device",
        "cpu",
        "--batch",
        str(batch),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            url = ""
            while not url and (line := server.stderr.readline()):
                found = re.match(r"Serving at (\S+) until", line)
                url = f"{found[1]}/v1/predict" if found else ""
            if not url:
                raise RuntimeError("the server did not start")
            rows = measured(url, server.pid, images, clients, seconds)
        finally:
            server.terminate()
    return [{"kind": "serve", **row} for row in rows]


def measured(url: str, process: int, images: Path, clients: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """A row for each number of clients of a server."""
    bodies = [file.read_bytes() for file in sorted(images.iterdir())]
    rows = []
    for number in clients:
        asyncio.run(asking(url, bodies, number, WARM_S))
        before, began = processor_s(process), time.monotonic()
        times = asyncio.run(asking(url, bodies, number, seconds))
        wall_s, took_s = time.monotonic() - began, processor_s(process) - before
        p50, p99 = np.percentile(times, [50, 99])
        row = {"clients": number, "requests": len(times), "requests_per_s": len(times) / wall_s}
        rows.append({**row, "p50_ms": 1000 * p50, "p99_ms": 1000 * p99, "processor_s_per_image": took_s / len(times)})
    return rows


async def asking(url: str, bodies: Sequence[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of every request of so many clients."""
    times: list[float] = []
    end = time.monotonic() + seconds
    await asyncio.gather(*(client(url, bodies[number:] + bodies[:number], end, times) for number in range(clients)))
    return times


async def client(url: str, bodies: Sequence[bytes], end: float, times: list[float]) -> None:
    """One connection: seconds of each request until `end`."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    place = 0
    while time.monotonic() < end:
        body = bodies[place % len(bodies)]
        place += 1
        began = time.monotonic()
        lines = [f"POST {address.path} HTTP/1.1", f"Host: {address.netloc}", "Content-Type: image/jpeg"]
        writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", answer)
        assert length, answer
        await reader.readexactly(int(length[1]))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:100])
        times.append(time.monotonic() - began)
    writer.close()


def processor_s(process: int) -> float:
    """Of a process and its threads, until now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
