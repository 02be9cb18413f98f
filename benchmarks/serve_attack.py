"""Hostile requests: every one is refused with a status that fits, and the server goes on as if nothing had been.

    python benchmarks/serve_attack.py [--n 2000] [--seed 0] [--quiet]

A process of `convnext serve` with a small classifier and a small segmenter gets requests of the KINDS below, each drawn by the
seed: damaged images, bombs, polyglots, things that are no images, forms, tensors, headers, addresses, connections. Counted is
the status of each. A failure is a status that its kind does not have, an error that is not one line of JSON, a valid image in
between that gets another answer, a server that is gone, said that it made a mistake, or took more than MOST_MB. Slow bodies and
slow headers run beside all of this. A line of results/serve_attack.jsonl.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import platform
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convnext.config import override
from convnext.engine import checkpoint
from convnext.recipes import recipe
from convnext.tasks.table import row_of

RESULTS = Path(__file__).parent / "results" / "serve_attack.jsonl"
BLOCKS = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24)}
FIELDS: dict[str, dict[str, Any]] = {
    "classification": {**BLOCKS, "input.eval_size_px": 64},
    "segmentation": {**BLOCKS, "head.width": 16, "head.aux_width": 8},
}
MOST_MB = 1500  # of the process at its highest: torch, two networks, and at most 64 megapixels of one image
TIMEOUT_S = 2  # of the server, so that slow bodies are not many seconds
PATIENCE_S = 60
LATE, TRIES = {408, 504}, 20  # statuses of a request that took too long
EVERY = 25  # requests, after which a valid image is asked about
NONE = 0  # a status for a connection that is ended without an answer
PREDICT = "/v1/predict?model=classification"
INFER = "/v2/models/classification/infer"
Request = bytes


def main() -> int:
    """Attack and count; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="hostile requests (2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures, memory_mb = attack(Path(folder), n=args.n, seed=args.seed)
    for failure in failures:
        print(failure, file=sys.stderr)
    row = {
        "n": args.n,
        "seed": args.seed,
        "counts": {kind: dict(sorted(found.items())) for kind, found in counts.items()},
        "failures": len(failures),
        "memory_mb": memory_mb,
        "seconds": round(time.monotonic() - began),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(row))
    if not args.quiet:
        with open(RESULTS, "a") as file:
            file.write(json.dumps(row) + "\n")
    return bool(failures)


def attack(folder: Path, *, n: int, seed: int) -> tuple[dict[str, Counter[int]], list[str], dict[str, int]]:
    """Statuses by kind, what failed, and the memory of the server: before, after, and the most."""
    counts: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
    with serving(folder) as (server, port, said):
        expected = valid(port)
        before = memory_mb(server.pid)
        stop, failures = threading.Event(), list[str]()
        slow = threading.Thread(target=trickle, args=(port, stop, failures))
        slow.start()
        try:
            for number in range(n):
                draw = random.Random(f"{seed}/{number}")
                kind = draw.choice(list(KINDS))
                make, right = KINDS[kind]
                status, body = answered(port, make(draw), right)
                counts[kind][status] += 1
                failures += judged(f"{number} {kind}", status, right, body)
                if number % EVERY == 0 and (found := valid(port)) != expected:
                    failures.append(f"{number}: a valid image got {found} instead of {expected}")
                if server.poll() is not None:
                    failures.append(f"{number} {kind}: the server is gone, status {server.returncode}")
                    break
        finally:
            stop.set()
            slow.join()
        after = memory_mb(server.pid)
        server.terminate()
        if server.wait(PATIENCE_S):
            failures.append(f"the server ended with status {server.returncode}")
    failures += [
        f"the server said: {line}" for line in said if "mistake" in line or not line.startswith(("'", "Serving"))
    ]
    if after["most"] > MOST_MB:
        failures.append(f"the server took {after['most']} MB, and {MOST_MB} are the most")
    return counts, failures, {"before": before["now"], "after": after["now"], "most": after["most"]}


def judged(name: str, status: int, right: set[int], body: bytes) -> list[str]:
    """What is wrong with an answer."""
    wrong = [] if status in right else [f"{name}: status {status}, and {sorted(right)} are right: {body[:200]!r}"]
    if status >= 400:
        try:
            text = json.loads(body)["error"]
            wrong += [] if text and "\n" not in text and "Traceback" not in text else [f"{name}: {text!r} is no line"]
        except (ValueError, KeyError, TypeError):
            wrong.append(f"{name}: status {status} with {body[:200]!r}")
    return wrong


# The server


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """The process, its port and the lines that it says."""
    runs = [written(task, folder / task) for task in FIELDS]
    limits = ["--port", "0", "--device", "cpu", "--timeout-s", str(TIMEOUT_S)]
    command = [sys.executable, "-m", "convnext", "serve", *map(str, runs), *limits]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stderr
            for line in server.stderr:
                said.append(line)
                if found := re.match(r"Serving at http://\S+:(\d+) until", line):
                    break
            else:
                raise RuntimeError("".join(said))
            threading.Thread(target=said.extend, args=(server.stderr,), daemon=True).start()
            yield server, int(found[1]), said
        finally:
            server.kill()


def written(task: str, folder: Path) -> Path:
    """A checkpoint of fresh weights."""
    name = "small" if task == "classification" else f"small_{task}"
    made = override(recipe(name, "atto", images=100, image_px=64, classes=2), FIELDS[task])
    torch.manual_seed(0)
    model = row_of(task).build(made)
    metadata = {"recipe": made.model_dump(mode="json"), "task": task, "classes": ["a", "b"]}
    folder.mkdir(exist_ok=True)
    checkpoint.save(folder / "best.safetensors", model.state_dict(), metadata)
    return folder / "best.safetensors"


def memory_mb(process: int) -> dict[str, int]:
    """What it takes now, and took at most."""
    text = Path(f"/proc/{process}/status").read_text()
    names = {"now": "VmRSS", "most": "VmHWM"}
    return {name: int(re.search(rf"{key}:\s+(\d+)", text)[1]) // 1000 for name, key in names.items()}  # type: ignore[index]


def asked(port: int, request: Request) -> tuple[int, bytes]:
    """(status, body) of the answer; NONE where the connection ends without one."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as opened:
        with contextlib.suppress(ConnectionError):
            opened.sendall(request)
        with contextlib.suppress(ConnectionError):
            while not whole(found) and (part := opened.recv(65536)):
                found += part
    head, _, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)  # what was sent after the request may have its own answer
    body = body[: int(length[1])] if length else body
    return (int(head.split(b" ")[1]), body) if head.startswith(b"HTTP/1.1 ") else (NONE, found)


def answered(port: int, request: Request, right: set[int]) -> tuple[int, bytes]:
    """(status, body), asked again where a busy machine had no time to answer."""
    for _ in range(TRIES):
        status, body = asked(port, request)
        if status not in LATE - right:
            break
    return status, body


def whole(answer: bytes) -> bool:
    """Whether all of it has come: not every connection ends with its answer."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end and length and len(body) >= int(length[1]))


def valid(port: int) -> str:
    """What is said of one image that never changes, to four digits."""
    status, body = answered(port, post(PREDICT, image_bytes(random.Random(0), "PNG")), {200})
    rows = json.loads(body)["results"][0]["predictions"] if status == 200 else []
    return f"{status} {[(row['label'], round(row['score'], 4)) for row in rows]}"


def trickle(port: int, stop: threading.Event, failures: list[str]) -> None:
    """Slow bodies, and now and then slow headers, until told to stop."""
    number = 0
    while not stop.is_set():
        headers = number % 5 == 4
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as opened:
            request = post(PREDICT, bytes(1000))
            found, began = b"", time.monotonic()
            opened.sendall(request[: 40 if headers else -900])
            with contextlib.suppress(ConnectionError):
                while not stop.is_set() and time.monotonic() - began < PATIENCE_S:
                    opened.settimeout(0.2)
                    try:
                        part = opened.recv(65536)
                    except TimeoutError:
                        opened.sendall(request[40:41] if headers else b"x")
                        continue
                    if not part:
                        break
                    found += part
        if not stop.is_set() and not (found == b"" if headers else found.startswith(b"HTTP/1.1 408")):
            failures.append(f"slow {'headers' if headers else 'body'} {number}: {found[:100]!r}")
        number += 1


# Requests


def post(path: str, body: bytes, kind: str = "image/png", *more: str, host: str = "localhost") -> Request:
    """A request of HTTP/1.1 after which the connection ends."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Type: {kind}", *more]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in more):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def image_bytes(draw: random.Random, form: str = "") -> bytes:
    pixels = np.random.default_rng(draw.randrange(1 << 32)).integers(0, 256, (40, 56, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form or draw.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]))
    return stream.getvalue()


def truncated(draw: random.Random) -> Request:
    data = image_bytes(draw)
    return post(PREDICT, data[: draw.randrange(1, len(data))])


def flipped(draw: random.Random) -> Request:
    data = bytearray(image_bytes(draw))
    for _ in range(draw.randrange(1, 30)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return post(PREDICT, bytes(data))


def bomb(draw: random.Random) -> Request:
    side = draw.choice([9_000, 40_000, 65_500])
    if draw.random() < 0.5:
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b"")]
        chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
        return post(PREDICT, b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    data = bytearray(image_bytes(draw, "GIF"))
    data[6:10] = struct.pack("<HH", side, side)
    place = data.index(b"\x2c", 10 + 3 * 256)
    data[place + 5 : place + 9] = struct.pack("<HH", side, side)
    return post(PREDICT, bytes(data))


def polyglot(draw: random.Random) -> Request:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as pack:
        pack.writestr("../../x", "<script>alert(1)</script>")
    tail = draw.choice(
        [stream.getvalue(), b"<html><script>alert(1)</script>", b"%PDF-1.7", b"<?php ?>", b"#!/bin/sh\n"]
    )
    data = image_bytes(draw)
    return post(PREDICT, tail + data if draw.random() < 0.5 else data + tail)


def no_image(draw: random.Random) -> Request:
    made = [
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x7fELF",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"PK\x03\x04",
    ]
    made += [
        b"http://localhost/",
        b"file:///etc/passwd",
        b"/etc/passwd",
        b'{"url": "http://localhost/"}',
        draw.randbytes(500),
    ]
    kinds = [
        "image/png",
        "image/svg+xml",
        "application/json",
        "text/html",
        "",
        "application/octet-stream",
        "\xff",
        "a" * 500,
    ]
    return post(PREDICT, draw.choice(made), draw.choice(kinds))


def long_headers(draw: random.Random) -> Request:
    many = [f"X-{number}: {'a' * 100}" for number in range(draw.choice([200, 2000]))]
    more = draw.choice([many, ["X: " + "a" * draw.choice([17_000, 70_000, 1_000_000])]])
    return post(PREDICT, image_bytes(draw), "image/png", *more)


def named(draw: random.Random) -> Request:
    names = [
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\Windows\\x.png",
        "\x1b[2J",
        "a" * 5000,
        "<img src=x onerror=alert(1)>",
        "..",
        "",
    ]
    return form([(draw.choice(names), image_bytes(draw))])


def form(files: list[tuple[str, bytes]], boundary: str = "boundary", end: str = "--boundary--\r\n") -> Request:
    body = b""
    for name, data in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'
        body += head.encode("utf-8", "surrogateescape") + data + b"\r\n"
    return post(PREDICT, body + end.encode(), f"multipart/form-data; boundary={boundary}")


def broken_form(draw: random.Random) -> Request:
    data = image_bytes(draw)
    cases = [
        lambda: form([("a.png", data)], end=""),
        lambda: form([("a.png", data)] * 200),
        lambda: form([]),
        lambda: form([("a.png", data)], boundary="b" * 500),
        lambda: post(PREDICT, b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n1\r\n--x--", "multipart/form-data; boundary=x"),
        lambda: post(PREDICT, b"--x\r\nA" + b"a" * 50_000, "multipart/form-data; boundary=x"),
        lambda: post(PREDICT, data, "multipart/form-data"),
        lambda: post(PREDICT, draw.randbytes(2000), "multipart/form-data; boundary=x"),
        lambda: post(PREDICT, b"--x\r\n" * 20_000, "multipart/form-data; boundary=x"),
    ]
    return draw.choice(cases)()


def tensor(draw: random.Random) -> Request:
    numbers = [-1, 0, 1, 3, 64, 1 << 31, 10**30, None, "1", 1.5, True, []]
    shape = [draw.choice(numbers) for _ in range(draw.choice([0, 1, 3, 4, 5]))]
    given: dict[str, Any] = {"name": draw.choice(["images", "encoded", "x"]), "shape": shape}
    given["datatype"] = draw.choice(["UINT8", "BYTES", "FP32", None])
    given["data"] = draw.choice(
        [[1, 2, 3], [[1], [2, 3]], "x", None, {"a": 1}, [10**400], ["x"], [base64.b64encode(b"x").decode()]]
    )
    tail = draw.randbytes(draw.choice([0, 4, 12]))
    if tail:
        given["parameters"] = {"binary_data_size": draw.choice([len(tail), -1, 10**12, "x"])}
    head = json.dumps(
        {"inputs": [given] * draw.choice([1, 1, 2]), "outputs": draw.choice([[], [{"name": "x"}], "x"])}
    ).encode()
    length = f"Inference-Header-Content-Length: {draw.choice([len(head), len(head), -1, 10**9, 'x'])}"
    return post(INFER, head + tail, "application/octet-stream", length)


def deep(draw: random.Random) -> Request:
    made = [b"[" * 100_000, b'{"inputs":' * 5000, b'{"inputs": NaN}', b"1" * 100_000, b"\xff\xfe", draw.randbytes(300)]
    return post(INFER, draw.choice(made), "application/json")


def large(draw: random.Random) -> Request:
    return post(PREDICT, b"x" * 100, "image/png", f"Content-Length: {draw.choice([10**8, 10**12, 10**18])}")


def odd_length(draw: random.Random) -> Request:
    more = draw.choice([
        ["Content-Length: -1"],
        ["Content-Length: 1, 2"],
        ["Content-Length: 1", "Content-Length: 2"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: x"],
    ])  # fmt: skip
    return post(PREDICT, b"zz\r\n\r\n", "image/png", *more)


def query(draw: random.Random) -> Request:
    made = [
        "top=-1",
        "top=1e9",
        "top=%00",
        "top=" + "9" * 500,
        "model=../x",
        "model=%ff%fe",
        "score=nan",
        "x=1",
        "top=1&top=2",
        "mask=1",
    ]
    return post(f"{PREDICT.partition('?')[0]}?model=classification&{draw.choice(made)}", image_bytes(draw))


def elsewhere(draw: random.Random) -> Request:
    made = [
        "/../../etc/passwd",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "//etc/passwd",
        "/v1/predict/",
        "/v2/models/%2e%2e/infer",
    ]
    return post(draw.choice(made), image_bytes(draw))


def stranger(draw: random.Random) -> Request:
    hosts = ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::1].x", "localhost@evil.example"]
    if draw.random() < 0.5:
        return post(PREDICT, image_bytes(draw), "image/png", host=draw.choice(hosts))
    return post(
        PREDICT, image_bytes(draw), "text/plain", f"Origin: {draw.choice(['null', 'http://evil.example', 'x'])}"
    )


def garbage(draw: random.Random) -> Request:
    made = [
        draw.randbytes(300) + b"\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ]
    made += [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n", b"POST /v1/predict\r\n\r\n"]
    return draw.choice(made)


KINDS: dict[
    str, tuple[Callable[[random.Random], Request], set[int]]
] = {  # -> how it is made, the statuses that are right
    "truncated": (truncated, {200, 422}),
    "flipped bits": (flipped, {200, 422}),
    "bombs": (bomb, {422}),
    "polyglots": (polyglot, {200, 422}),
    "no images": (no_image, {400, 415, 422}),
    "long headers": (long_headers, {NONE, 400, 431}),
    "names that are paths": (named, {200, 400}),
    "broken forms": (broken_form, {400, 413}),
    "tensors that lie": (tensor, {400, 413, 422}),
    "JSON": (deep, {400}),
    "large bodies": (large, {413}),
    "odd lengths": (odd_length, {400, 501}),
    "queries": (query, {400, 404}),
    "addresses": (elsewhere, {404}),
    "strangers": (stranger, {400, 403}),
    "garbage": (garbage, {NONE, 400, 403}),
}


if __name__ == "__main__":
    sys.exit(main())
