"""The process of `convnext serve`: its signals, its connections, and an unmodified client of Triton's."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from checkpoints import checkpoint_of
from children import PATIENCE_S, awaited
from convnext.deploy.export.run import export
from convnext.deploy.forms.asked import Options
from convnext.deploy.load import load
from serving import pixels_of, process, write_images

TIMEOUT_S = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    found = {
        task: checkpoint_of(task, place / task)
        for task in ("classification", "segmentation")
        if not (place / task).mkdir()
    }
    export(found["classification"], "onnx", str(place / "pets.onnx"), Options())
    return {**found, "onnx": place / "pets.onnx"}


@pytest.fixture(scope="module")
def server(runs, tmp_path_factory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """One that serves a classifier and a segmenter, with an empty folder to write into."""
    place = tmp_path_factory.mktemp("empty")
    limits = ("--device", "cpu", "--queue", 64)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(place)}
    with process(*list(runs.values())[:2], *limits, cwd=place, env=environment) as found:
        yield found
        assert list(place.iterdir()) == []  # nothing was written, whatever was asked


def connected(url: str) -> socket.socket:
    address = urlsplit(url)
    opened = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
    opened.settimeout(PATIENCE_S)
    return opened


def answered(opened: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := opened.recv(65536):
            found += part
    return found


# Triton's own client


def test_triton_s_client_reads_what_is_there(server):
    client = triton.InferenceServerClient(urlsplit(server[1]).netloc)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("classification")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    told = client.get_model_metadata("classification", "1")
    assert told["inputs"][0] == {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert told["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
    with pytest.raises(InferenceServerException, match="No network is called 'x' here"):
        client.get_model_metadata("x")


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_gets_the_answers_of_the_predictor(server, runs, tmp_path, binary):
    client = triton.InferenceServerClient(urlsplit(server[1]).netloc)
    pixels = np.stack([pixels_of(0), pixels_of(1)])
    given = triton.InferInput("images", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "json")]
    found = client.infer("classification", [given], outputs=wanted, request_id="7")
    predictor = load(runs["classification"], device="cpu")
    expected = list(predictor.predict(list(pixels)))
    assert found.get_response()["id"] == "7"
    scores = found.as_numpy("probabilities")
    assert scores.dtype == np.float32 and scores.shape == (2, 2)
    for row, text, answer in zip(scores, found.as_numpy("json"), expected, strict=True):
        np.testing.assert_allclose(row, [dict(answer.scored)[name] for name in predictor.classes], rtol=0, atol=1e-5)
        assert [each["label"] for each in json.loads(text)["predictions"]] == [name for name, _ in answer.scored]


def test_triton_s_client_sends_files_and_gets_masks(server, runs, tmp_path):
    client = triton.InferenceServerClient(urlsplit(server[1]).netloc)
    (file,) = write_images(tmp_path, 1)
    given = triton.InferInput("encoded", [1], "BYTES")
    given.set_data_from_numpy(np.array([file.read_bytes()], np.object_))
    mask = client.infer("segmentation", [given]).as_numpy("mask")
    assert (mask[0] == load(runs["segmentation"], device="cpu").predict(file).__next__().mask).all()  # type: ignore[attr-defined]
    given.set_data_from_numpy(np.array([b"no image"], np.object_))
    with pytest.raises(InferenceServerException, match="'<bytes 1>' cannot be read"):
        client.infer("segmentation", [given])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "no JSON"),
        (b"[]", "no list of inputs"),
        (b'{"inputs": []}', "no list of inputs"),
        (b'{"inputs": [{"name": "x"}]}', "one input"),
        (b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 2, 2, 3]}]}', "it is UINT8"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 2]}]}', "1, 3 or 4 channels"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, true, 2, 3]}]}', "whole numbers"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 9999999, 9999999, 3]}]}', "holds"),
        (
            b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 256]}]}',
            "0 to 255",
        ),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, [2], 3]}]}', "holds"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": {"a": 1}}]}', "holds"),
        (b'{"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["?"]}]}', "base64"),
        (b'{"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": null}]}', "base64"),
        (b'{"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [2], "data": [""]}]}', "1 elements"),
        (
            b'{"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}]}',
            "0 bytes come after",
        ),
        (
            b'{"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": [""]}], '
            b'"outputs": [{"name": "masc"}]}',
            "Did you mean 'mask'",
        ),
    ],
)
def test_what_is_not_of_the_protocol_is_refused_in_one_line(server, body, text):
    found = httpx.post(f"{server[1]}/v2/models/segmentation/infer", content=body, timeout=PATIENCE_S)
    assert found.status_code == 400 and text in found.json()["error"] and found.json()["error"].isprintable()


def test_bytes_after_the_json_that_lie_about_their_length_are_refused(server):
    head = (
        b'{"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}]}'
    )
    for tail, length in ((b"\xff\xff\xff\xff12", len(head)), (b"\x01\0\0\0ab", len(head)), (b"", 10**9), (b"", "x")):
        found = httpx.post(
            f"{server[1]}/v2/models/segmentation/infer",
            content=head + tail,
            headers={"Inference-Header-Content-Length": str(length)},
            timeout=PATIENCE_S,
        )
        assert found.status_code == 400 and "\n" not in found.json()["error"]


# Connections


def test_a_body_that_comes_too_slowly_is_408_and_others_are_answered_meanwhile(runs, tmp_path):
    (file,) = write_images(tmp_path, 1)
    with process(runs["onnx"], "--timeout-s", TIMEOUT_S) as (_, url), connected(url) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n12")
        quick = httpx.post(f"{url}/v1/predict", content=file.read_bytes(), timeout=PATIENCE_S)
        assert quick.status_code == 200
        found = answered(slow)
    assert found.startswith(b"HTTP/1.1 408") and b'{"error": "The body did not come within 5 s."}' in found


def test_what_is_no_request_is_400_in_json(server):
    for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 100_000):
        with connected(server[1]) as opened:
            with contextlib.suppress(ConnectionError):
                opened.sendall(sent)
            found = answered(opened)
        assert not found or (found.startswith(b"HTTP/1.1 400") and b'{"error": ' in found)


def test_clients_that_hang_up_free_their_places(server, tmp_path):
    (file,) = write_images(tmp_path, 1)
    data = file.read_bytes()
    head = f"POST /v1/predict?model=segmentation HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    for _ in range(20):
        with connected(server[1]) as opened:
            opened.sendall(head.encode() + data)

    def free() -> bool:
        text = httpx.get(f"{server[1]}/metrics", timeout=PATIENCE_S).text
        return "convnext_waiting_images 0.0" in text and "convnext_held_bytes 0.0" in text

    assert awaited(free)


# Its end


def closed(url: str) -> bool:
    """Whether nobody is let in any more."""
    with contextlib.suppress(OSError):
        connected(url).close()
        return False
    return True


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_once_everything_that_it_took_is_answered(runs, tmp_path, number, status):
    (file,) = write_images(tmp_path, 1)
    data, found = file.read_bytes(), b""
    with process(runs["onnx"]) as (server, url), connected(url) as opened:
        opened.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        opened.sendall(data[:100])
        waiting = f"{url}/healthz"
        assert httpx.get(waiting, timeout=PATIENCE_S).status_code == 200
        server.send_signal(number)
        assert awaited(lambda: closed(url))  # nobody else comes in
        opened.sendall(data[100:])
        found = answered(opened)
        assert found.startswith(b"HTTP/1.1 200") and b'"results"' in found
        assert server.wait(PATIENCE_S) == status
        assert server.stderr and server.stdout
        said = server.stderr.read()
        assert said == ("" if status == 0 else "convnext: stopped.\n") and server.stdout.read() == ""


def test_a_second_signal_does_not_wait(runs):
    with process(runs["onnx"], "--timeout-s", 10 * PATIENCE_S) as (server, url), connected(url) as opened:
        opened.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n1")
        assert httpx.get(f"{url}/healthz", timeout=PATIENCE_S).status_code == 200
        server.send_signal(signal.SIGINT)
        assert awaited(lambda: closed(url))  # it was heard
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_S) == 130  # of ten times as long that the request may take
