"""The servers that people would take instead, asked by serve.py: LitServe and MLServer, each in an environment of its own.

Both answer with the same network through ONNX Runtime: a JPEG comes as base64 in JSON, which is what both take without a
client of their own; it is decoded and resized as the network's evaluation does, by Pillow, and images are batched. Packages
come from the index that pip is set to, once for each environment. `settings` are the ways of batching that are tried.
"""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMON = """
import base64, io, os
import numpy as np, onnxruntime
from PIL import Image

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

def session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    return onnxruntime.InferenceSession(os.environ["NETWORK"], options, providers=["CPUExecutionProvider"])

def pixels(text):
    image = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    crop = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return ((crop / 255 - MEAN) / STD).transpose(2, 0, 1)

def scores(running, images):
    logits = running.run(None, {"images": np.stack(images)})[0]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)
"""

LITSERVE = """
import litserve

class Net(litserve.LitAPI):
    def setup(self, device):
        self.session = session()
    def decode_request(self, request):
        return pixels(request["image"])
    def batch(self, inputs):
        return list(inputs)
    def predict(self, images):
        return scores(self.session, images)
    def unbatch(self, output):
        return list(output)
    def encode_response(self, output):
        best = np.argsort(-output)[:5]
        return {"predictions": [[f"class {k}", float(output[k])] for k in best]}

if __name__ == "__main__":
    net = Net(max_batch_size=int(os.environ["BATCH"]), batch_timeout=float(os.environ["WINDOW_S"]))
    server = litserve.LitServer(net, accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
"""

MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse, ResponseOutput

class Net(MLModel):
    async def load(self):
        self.session = session()
        return True
    async def predict(self, payload):
        found = scores(self.session, [pixels(text) for text in StringCodec.decode_input(payload.inputs[0])])
        best = np.argsort(-found, axis=1)[:, :5]
        values = np.take_along_axis(found, best, 1)
        names = [f"class {k}" for k in best.reshape(-1)]
        return InferenceResponse(model_name=self.name, outputs=[
            ResponseOutput(name="classes", shape=[len(best), 5], datatype="BYTES", data=names),
            ResponseOutput(name="scores", shape=[len(best), 5], datatype="FP32", data=values.reshape(-1).tolist()),
        ])
"""


@dataclass(frozen=True)
class Peer:
    """A server: what it is made of, and how an image is asked about."""

    packages: tuple[str, ...]
    program: str
    path: str  # of its address
    ready: str  # the path that answers 200 once the network is loaded
    body: Callable[[str], object]  # base64 -> JSON of a request
    settings: tuple[dict[str, int | float], ...]  # batch, window_s, workers


def _settings(cores: int) -> tuple[dict[str, int | float], ...]:
    """One process with all cores, and one a core; batches of 8 and 16 with short windows and longer ones."""
    return tuple(
        {"batch": batch, "window_s": window_s, "workers": workers}
        for workers in dict.fromkeys((1, cores))
        for batch, window_s in ((8, 0.002), (8, 0.01), (16, 0.02))
    )


SETTINGS = _settings(len(os.sched_getaffinity(0)))
PEERS: Mapping[str, Peer] = {
    "litserve": Peer(("litserve",), COMMON + LITSERVE, "/predict", "/health", lambda text: {"image": text}, SETTINGS),
    "mlserver": Peer(
        ("mlserver", "uvloop<0.22"),  # its workers ask for an event loop that newer ones do not make
        COMMON + MLSERVER,
        "/v2/models/net/infer",
        "/v2/models/net/ready",
        lambda text: {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}]},
        SETTINGS,
    ),
}


def environment(name: str, folder: Path) -> Path:
    """The Python of a peer's environment in `folder`, made where it is missing."""
    place = folder / name
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        packages = [*PEERS[name].packages, "onnxruntime", "numpy", "pillow"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (place / "ready").touch()
    return python


def version(name: str, folder: Path) -> str:
    """Of a peer, as its environment has it."""
    code = f"import importlib.metadata as m; print(m.version({PEERS[name].packages[0]!r}))"
    done = subprocess.run([environment(name, folder), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def request_body(name: str, jpeg: bytes) -> bytes:
    """One image as the peer is asked about it."""
    return json.dumps(PEERS[name].body(base64.b64encode(jpeg).decode())).encode()


@contextmanager
def started(name: str, network: Path, folder: Path, settings: Mapping[str, float]) -> Iterator[tuple[str, int]]:
    """The address and the process number of a peer that serves the ONNX file `network`, images (N, 3, 224, 224) -> logits."""
    peer, python = PEERS[name], environment(name, folder).absolute()
    work = folder / f"{name}_work"
    work.mkdir(exist_ok=True)
    (work / "net.py").write_text(peer.program)
    ports = [_free_port() for _ in range(3)]
    workers = int(settings["workers"])
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    given = {"NETWORK": network.absolute(), "THREADS": threads, "PORT": ports[0], "WORKERS": workers}
    given |= {"BATCH": int(settings["batch"]), "WINDOW_S": settings["window_s"], "OMP_NUM_THREADS": 1}
    command = [str(python), "net.py"]
    if name == "mlserver":
        model = {"name": "net", "implementation": "net.Net", "max_batch_size": int(settings["batch"])}
        (work / "model-settings.json").write_text(json.dumps(model | {"max_batch_time": settings["window_s"]}))
        server: dict[str, object] = {"host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1]}
        server |= {"metrics_port": ports[2], "parallel_workers": 0 if workers == 1 else workers, "debug": False}
        (work / "settings.json").write_text(json.dumps(server))
        command = [str(python.parent / "mlserver"), "start", "."]
    with open(work / "log.txt", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(work), **{key: str(value) for key, value in given.items()}},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{ports[0]}{peer.path}"
        _wait(url, peer.ready, process, work / "log.txt")
        yield url, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(url: str, path: str, process: "subprocess.Popen[bytes]", log: Path, seconds: float = 90) -> None:
    """Until `path` answers 200; raises RuntimeError with the end of the log."""
    address, end = urlsplit(url), time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"{url} does not answer: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def known(value: Any) -> list[str]:
    """Names of peers in an argument such as 'litserve,mlserver'; raises SystemExit."""
    names = [name for name in str(value).split(",") if name]
    for name in names:
        if name not in PEERS:
            raise SystemExit(f"peer {name!r}: one of {', '.join(PEERS)}")
    return names
