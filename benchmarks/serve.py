"""Requests a second of `convnext serve`, and what an image costs it beside `predict` and beside other servers.

    python benchmarks/serve.py [--model atto] [--clients 1,4,16,64] [--seconds 10] [--batch 8] [--peers litserve,mlserver]
                               [--rounds 3] [--environments FOLDER] [--quiet]

Each serves one network of fresh weights at 224 px. Clients, each with one connection, send JPEG files of about 500 x 375 px,
the next as soon as the last is answered, for some seconds; those before are not counted. For each number of clients a line:
requests a second, p50 and p99 of their times, and processor seconds an image of the server with its processes. `predict`
answers the same images in a process of its own, read side by side: its processor seconds an image.

A peer of serve_peers.py runs in an environment of its own, kept in FOLDER, and serves the same network through ONNX Runtime.
Each way of batching is tried with 16 clients first, the fastest is taken. Then all are asked in turn, `--rounds` times; the
last lines are the medians of each, and the ratios to the best peer. Lines of results/serve.jsonl, all of one machine.

`--parts` asks no server: it is a line with the processor time of an image in each of its parts, decoding, the evaluation
transform, the network alone and in batches, and the JSON of its answer, medians of so many rounds.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

import serve_peers as peers
from convnext.cores import cores
from convnext.data.evaluation import eval_transform
from convnext.deploy.images import Given
from convnext.deploy.load import load
from convnext.engine import checkpoint
from convnext.engine.machine import processor
from convnext.files import to_json
from convnext.recipes import recipe
from convnext.tasks.table import row_of

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
IMAGES = 64
PARTS = 32  # images of `--parts`
WARM_S = 2.0
TUNED_AT = 16  # clients
FIGURES = ("requests_per_s", "p50_ms", "p99_ms", "processor_s_per_image")
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
    parser.add_argument("--peers", type=peers.known, default=[], help=f"names among {', '.join(peers.PEERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=Path("runs/serve_peers"))
    parser.add_argument("--parts", action="store_true", help="measure the parts of an answer, and nothing else")
    parser.add_argument("--quiet", action="store_true", help="write no lines of results")
    args = parser.parse_args()
    about = {
        "model": args.model,
        "batch": args.batch,
        "seconds": args.seconds,
        "processor": processor(),
        "cores": cores(),
    }
    about |= {"torch": torch.__version__, "python": platform.python_version(), "command": command(args.environments)}
    clients = [int(each) for each in args.clients.split(",")]
    about |= {name: peers.version(name, args.environments) for name in args.peers}
    with tempfile.TemporaryDirectory() as folder:
        run, images = written(args.model, Path(folder)), write_images(Path(folder) / "images")
        network = exported(run, Path(folder)) if args.peers else run
        rows: list[dict[str, Any]] = [{"kind": "machine", **about}]
        if args.parts:
            rows = [{"kind": "parts", **about, **parts(run, images, args.batch, args.rounds)}]
            clients, args.rounds = [], 0
        tuned = {}
        for name in args.peers:
            tried = [tried_once(name, network, images, args, settings) for settings in peers.PEERS[name].settings]
            rows += tried
            tuned[name] = max(tried, key=lambda row: row["requests_per_s"])["settings"]
        for number in range(args.rounds):
            found = [predicted(run, images, args.batch)]
            found += served(run, images, clients, args.seconds, args.batch)
            for name, settings in tuned.items():
                found += asked(name, network, images, clients, args, settings)
            rows += [{**row, "round": number} for row in found]
        rows += medians(rows, clients) if args.rounds else []
    for row in rows:
        print(json.dumps(row))
    if not args.quiet:
        with open(RESULTS, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return 0


def parts(run: Path, images: Path, batch: int, rounds: int) -> dict[str, Any]:
    """Processor milliseconds of an image in each part of an answer, in this process, on as many threads as torch takes."""
    predictor: Any = load(run, device="cpu")
    config, files = predictor.recipe.input, [file.read_bytes() for file in sorted(images.iterdir())][:PARTS]
    pixels = [Given("", data).pixels(config)[0] for data in files]
    reads = [predictor.read(Given("", data), 1) for data in files]
    answer = next(iter(predictor.answers(reads[:1])))
    work: dict[str, Callable[[], Any]] = {
        "decode": lambda: [Given("", data).pixels(config) for data in files],
        "transform": lambda: [eval_transform(each, config) for each in pixels],
        "network_of_one": lambda: [list(predictor.answers([each])) for each in reads],
        "network_of_a_batch": lambda: [list(predictor.answers(reads[i : i + batch])) for i in range(0, PARTS, batch)],
        "json": lambda: [to_json(answer.to_dict()) for _ in files],
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):  # the first warms
        for name, do in work.items():
            began = time.process_time()
            do()
            times[name] += [1000 * (time.process_time() - began) / len(files)] if number else []
    found = {name: round(statistics.median(each), 2) for name, each in times.items()}
    return {"processor_ms_of_an_image": found, "n": len(files), "rounds": rounds, "threads": torch.get_num_threads()}


def command(environments: Path) -> str:
    """What was called, without the place of this machine."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join("FOLDER" if word == str(environments) else word for word in words)


def exported(run: Path, folder: Path) -> Path:
    """The network of `run` as ONNX, normalised images (N, 3, 224, 224) -> logits (N, 1000), as a person would give a peer."""
    network = load(run, device="cpu").model.eval()
    file = folder / "network.onnx"
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, 224, 224),),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=["images"],
        verbose=False,
    )
    assert program
    program.save(file)
    return file


def tried_once(name: str, network: Path, images: Path, args: Any, settings: Mapping[str, float]) -> dict[str, Any]:
    """A row of a peer's throughput with TUNED_AT clients."""
    (row,) = asked(name, network, images, [TUNED_AT], args, settings)
    return {**row, "kind": f"{name} tried"}


def asked(
    name: str, network: Path, images: Path, clients: Sequence[int], args: Any, settings: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row of a peer for each number of clients."""
    bodies = [peers.request_body(name, file.read_bytes()) for file in sorted(images.iterdir())]
    with peers.started(name, network, args.environments, settings) as (url, process):
        rows = measured(url, process, bodies, clients, args.seconds, "application/json")
    return [{"kind": name, **row, "settings": dict(settings)} for row in rows]


def medians(rows: Sequence[Mapping[str, Any]], clients: Sequence[int]) -> list[dict[str, Any]]:
    """The median of the rounds of each server, and ours beside the best peer's."""
    found, names = [], [name for name in ("serve", *peers.PEERS) if any(row["kind"] == name for row in rows)]
    for number in clients:
        of = {}
        for name in names:
            own = [row for row in rows if row["kind"] == name and row["clients"] == number]
            of[name] = {key: statistics.median(row[key] for row in own) for key in FIGURES}
            found.append({"kind": f"{name} median", "clients": number, **of[name]})
        rivals = [name for name in names if name != "serve"]
        if rivals:
            best = max(rivals, key=lambda name: of[name]["requests_per_s"])
            ratio = {f"{key}_ratio": of["serve"][key] / of[best][key] for key in FIGURES}
            found.append({"kind": "serve beside the best peer", "clients": number, "peer": best, **ratio})
    predict = statistics.median(row["processor_s_per_image"] for row in rows if row["kind"] == "predict")
    for row in [each for each in found if each["kind"] == "serve median"]:
        row["processor_beside_predict"] = row["processor_s_per_image"] / predict
    return found


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
            bodies = [file.read_bytes() for file in sorted(images.iterdir())]
            rows = measured(url, server.pid, bodies, clients, seconds, "image/jpeg")
        finally:
            server.terminate()
    return [{"kind": "serve", **row} for row in rows]


def measured(
    url: str, process: int, bodies: Sequence[bytes], clients: Sequence[int], seconds: float, content: str
) -> list[dict[str, Any]]:
    """A row for each number of clients of a server, to which bodies of the type `content` are sent."""
    rows = []
    for number in clients:
        asyncio.run(asking(url, bodies, content, number, WARM_S))
        before, began = processor_s(process), time.monotonic()
        times = asyncio.run(asking(url, bodies, content, number, seconds))
        wall_s, took_s = time.monotonic() - began, processor_s(process) - before
        p50, p99 = np.percentile(times, [50, 99])
        row = {"clients": number, "requests": len(times), "requests_per_s": len(times) / wall_s}
        rows.append({**row, "p50_ms": 1000 * p50, "p99_ms": 1000 * p99, "processor_s_per_image": took_s / len(times)})
    return rows


async def asking(url: str, bodies: Sequence[bytes], content: str, clients: int, seconds: float) -> list[float]:
    """Seconds of every request of so many clients."""
    times: list[float] = []
    end = time.monotonic() + seconds
    turned = ([*bodies[number:], *bodies[:number]] for number in range(clients))
    await asyncio.gather(*(client(url, own, content, end, times) for own in turned))
    return times


async def client(url: str, bodies: Sequence[bytes], content: str, end: float, times: list[float]) -> None:
    """One connection: seconds of each request until `end`."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    place = 0
    while time.monotonic() < end:
        body = bodies[place % len(bodies)]
        place += 1
        began = time.monotonic()
        lines = [f"POST {address.path} HTTP/1.1", f"Host: {address.netloc}", f"Content-Type: {content}"]
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
    """Of a process and those that it started, with their threads, until now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    threads = Path(f"/proc/{process}/task").iterdir()
    return own + sum(processor_s(int(child)) for each in threads for child in (each / "children").read_text().split())


if __name__ == "__main__":
    sys.exit(main())
