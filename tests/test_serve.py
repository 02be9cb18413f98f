"""`convnext serve` without a socket: its answers are those of `predict`, its refusals one line, its limits hold."""

import asyncio
import base64
import io
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

import band_images
import labels_data
from checkpoints import TASKS, checkpoint_of
from children import PATIENCE_S
from commands import convnext, trained
from convnext.deploy.export.run import export
from convnext.deploy.forms.asked import Options
from convnext.deploy.load import load
from convnext.deploy.serve.guard import read_key
from convnext.deploy.serve.limits import Limits, limits_of
from convnext.deploy.serve.models import Models, open_models
from convnext.errors import CheckpointError, ConvNeXtError
from serving import asked, held_back, one, pixels_of, write_images

FILES = ("page.css", "palette.css", "page.js", "cards.js", "drawn.js", "docs.js", "icon.svg")
KEY = "0123456789abcdef0123"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    found = {task: checkpoint_of(task, place / task) for task in TASKS if not (place / task).mkdir()}
    found["onnx"] = place / "exported" / "model.onnx"
    found["onnx"].parent.mkdir()
    export(found["classification"], "onnx", str(found["onnx"]), Options())
    return found


@pytest.fixture(scope="module")
def models(runs) -> Models:
    return open_models([str(file) for file in runs.values()], device="cpu")


@pytest.fixture(scope="module")
def classifier(models) -> Models:
    return Models([models["classification"]])


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), 6)


def printed(run: Path, file: Path) -> dict[str, Any]:
    """What `predict --json` says of one image, as an object of that image."""
    found = json.loads(convnext("predict", run, file, "--json", "--workers", 0, "--device", "cpu").out)
    if isinstance(found, list):  # of a detector
        found = {"path": str(file), "predictions": found}
    return json.loads(json.dumps(found).replace(str(file), file.name))


def png(number: int = 0, height: int = 48, width: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_of(number, height, width)).save(stream, "png")
    return stream.getvalue()


def refusal(answer: httpx.Response) -> str:
    """The one line of an error."""
    assert set(answer.json()) == {"error"} and answer.headers["content-type"] == "application/json"
    text: str = answer.json()["error"]
    assert text and text.isprintable() and "Traceback" not in text
    return text


# Answers


@pytest.mark.parametrize("name", ["classification", "detection", "segmentation", "exported"])
def test_the_answer_of_one_image_is_that_of_predict_to_the_bit(models, runs, images, name):
    run = runs["onnx" if name == "exported" else name]
    found = one(models, "POST", f"/v1/predict?model={name}", files={"images": (images[0].name, images[0].read_bytes())})
    assert found.status_code == 200
    assert found.json() == {"model": name, "task": models[name].task, "results": [printed(run, images[0])]}
    bare = one(models, "POST", f"/v1/predict?model={name}", content=images[0].read_bytes()).json()["results"]
    assert bare == json.loads(json.dumps([printed(run, images[0])]).replace(images[0].name, "<bytes>"))


def test_a_file_for_the_kernels_of_this_package_is_served_as_predict_answers(runs, images, tmp_path):
    file = tmp_path / "pets.convnext"
    export(runs["classification"], "convnext", file)
    models = open_models([str(file)])
    found = one(models, "POST", "/v1/predict", files={"images": (images[0].name, images[0].read_bytes())})
    assert found.json() == {"model": "pets", "task": "classification", "results": [printed(file, images[0])]}
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 48, 64, 3], "data": pixels_of(0).ravel().tolist()}
    (output,) = one(models, "POST", "/v2/models/pets/infer", json={"inputs": [tensor]}).json()["outputs"]
    scores = dict(load(file)(pixels_of(0), top=len(models["pets"].predictor.classes)).predictions)
    assert output["data"] == pytest.approx([scores[name] for name in models["pets"].predictor.classes], abs=1e-6)


def test_many_who_ask_at_once_are_answered_together_each_with_its_own(models, runs, images):
    slow, held = held_back(models["classification"])

    async def ask(client: httpx.AsyncClient, service: Any) -> list[httpx.Response]:
        asking = [asyncio.create_task(client.post("/v1/predict?top=2", content=file.read_bytes())) for file in images]
        await asyncio.to_thread(held.begun.wait, PATIENCE_S)
        while service.queue.count < len(images):
            await asyncio.sleep(0.01)
        held.go.set()
        return await asyncio.gather(*asking)

    found = asked(slow, ask, limits=Limits(batch=4))
    assert sum(held.batches) == len(images) and max(held.batches) > 1
    for file, answer in zip(images, found, strict=True):
        (said,), expected = answer.json()["results"], printed(runs["classification"], file)
        assert {row["label"] for row in said["predictions"]} == {row["label"] for row in expected["predictions"]}
        scores = [[row["score"] for row in each["predictions"]] for each in (said, expected)]
        np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-5)


def test_with_a_window_an_idle_network_waits_for_more(classifier):
    async def ask(client: httpx.AsyncClient, service: Any) -> str:
        async def later(number: int) -> None:
            await asyncio.sleep(0.05 * number)
            assert (await client.post("/v1/predict", content=png(number))).status_code == 200

        await asyncio.gather(*(later(number) for number in range(3)))
        return (await client.get("/metrics")).text

    text = asked(classifier, ask, limits=Limits(batch=3, window_ms=50_000, timeout_s=60))
    assert 'convnext_batch_images_bucket{le="2.0",model="classification"} 0.0' in text
    assert 'convnext_batch_images_count{model="classification"} 1.0' in text


def test_a_broken_image_among_others_has_its_error_in_its_place(classifier, images):
    files = [("images", (file.name, file.read_bytes())) for file in images[:2]]
    files.insert(1, ("images", ("../../etc/passwd", b"root:x:0:0")))
    rows = one(classifier, "POST", "/v1/predict", files=files).json()["results"]
    assert [row["path"] for row in rows] == ["0.png", "passwd", "1.png"]
    assert rows[1]["predictions"] == [] and "not an image" in rows[1]["error"] and rows[0]["predictions"]


def test_options_go_to_the_predictor_and_a_mask_is_a_png_of_class_numbers(models, runs):
    top = one(models, "POST", "/v1/predict?model=detection&score=0.3&top=2", content=png()).json()["results"][0]
    expected = load(runs["detection"], device="cpu", task="detection")(png(), score=0.3, top=2).to_dict()
    assert top == json.loads(json.dumps(expected)) and len(top["predictions"]) == 2
    (found,) = one(models, "POST", "/v1/predict?model=segmentation&mask=true", content=png()).json()["results"]
    head, _, data = found["mask"].partition(",")
    assert head == "data:image/png;base64"
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (mask == load(runs["segmentation"], device="cpu", task="segmentation")(png()).mask).all()


def test_the_reasons_of_an_answer_are_those_of_explain_with_a_map_to_lay_over_the_image(models, runs):
    predictor = load(runs["classification"], device="cpu", task="classification")
    plain = one(models, "POST", "/v1/predict?model=classification", content=png()).json()["results"][0]
    best = plain["predictions"][0]["label"]
    for asked_for, label in (("", best), ("a", "a"), ("b", "b")):
        address = f"/v1/predict?model=classification&explain={asked_for}"
        (found,) = one(models, "POST", address, content=png()).json()["results"]
        expected = predictor.explain(png(), classes=label)
        head, _, data = found.pop("map").partition(",")
        assert found == plain | json.loads(json.dumps(expected.to_dict()))
        layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert head == "data:image/png;base64" and layer.shape == (48, 64, 4)
        cover = np.where(expected.map > 0, 0.75 * expected.map / (expected.map.max() or 1), 0)
        left, top, right, bottom = (round(edge) for edge in expected.view.box)
        assert np.abs(layer[top:bottom, left:right, 3] / 255 - cover[top:bottom, left:right]).max() < 1 / 255
        assert (top, bottom, left, right) == (0, 48, 8, 56)
        assert (layer[:, :left] == (0, 0, 0, 153)).all()  # unseen: 0.6 of it covered with black


def test_who_asks_for_reasons_and_who_does_not_are_answered_apart(models):
    slow, held = held_back(models["classification"])

    async def ask(client: httpx.AsyncClient, service: Any) -> list[httpx.Response]:
        wishes = ["", "?explain=a", "?explain=b", "?explain=a"]
        going = [asyncio.create_task(client.post(f"/v1/predict{wish}", content=png())) for wish in wishes]
        while service.queue.count < len(wishes):
            await asyncio.sleep(0.01)
        held.go.set()
        return await asyncio.gather(*going)

    rows = [answer.json()["results"][0] for answer in asked(slow, ask)]
    assert ["explained" in row for row in rows] == [False, True, True, True]
    assert [row["explained"][0]["label"] for row in rows[1:]] == ["a", "b", "a"]
    assert rows[1] == rows[3]


def test_it_says_what_it_serves_and_that_it_is_ready(models):
    async def ask(client: httpx.AsyncClient, service: Any) -> None:
        listed = (await client.get("/v1/models")).json()
        assert [each["name"] for each in listed] == ["classification", "detection", "segmentation", "exported"]
        assert listed[0]["classes"] == ["a", "b"] and len(set(listed[0]["colours"])) == 2
        assert [each["explains"] for each in listed] == [
            True,
            False,
            False,
            False,
        ]  # an exported file gives logits alone
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        assert (await client.get("/readyz")).status_code == 200
        service.stopping = True
        assert refusal(await client.get("/readyz")) and (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200

    asked(models, ask)


# Refusals


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/predict", 400, "Which network?"),
        ("/v1/predict?model=clasification", 404, "Did you mean 'classification'?"),
        ("/v1/predict?model=detection&tpo=3", 400, "Did you mean 'top'?"),
        ("/v1/predict?model=detection&top=0", 400, "top = '0' is refused"),
        ("/v1/predict?model=detection&top=1&top=2", 400, "top is given twice"),
        ("/v1/predict?model=detection&score=nan", 400, "from 0 to 1"),
        ("/v1/predict?model=classification&threshold=0.5", 400, "threshold is for several labels an image"),
        ("/v1/predict?model=classification&explain=cat", 400, "'cat' is no class of 'classification'"),
        ("/v1/predict?model=exported&explain=", 400, "gives logits alone"),
        ("/v1/predict?model=detection&explain=a", 400, "explain is for classification; 'detection' is for detection"),
        ("/v1/predict?model=segmentation&score=0.5", 400, "score is for detection; 'segmentation' is for segmentation"),
        ("/v1/predict?model=segmentation&mask=perhaps", 400, "true or false"),
        ("/v1/predikt", 404, "Nothing is at '/v1/predikt'"),
        ("/v2/models/x/infer", 404, "No network is called 'x' here"),
    ],
)
def test_what_is_asked_for_in_another_way_is_refused_in_one_line(models, path, status, text):
    answer = one(models, "POST", path, content=png())
    assert answer.status_code == status and text in refusal(answer)


@pytest.mark.parametrize(
    ("content", "kind", "status", "text"),
    [
        (b"", "image/png", 400, "empty"),
        (b"no image", "image/png", 422, "The body cannot be read: not an image"),
        (png()[:200], "image/png", 422, "The body cannot be read"),
        (b'{"url": "http://localhost/"}', "application/json", 415, "'application/json' is no image"),
        (b"a=1", "text/plain", 415, "'text/plain' is no image"),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400, "form"),
        (b"--x--", "multipart/form-data", 400, "boundary"),
        (FIELD, "multipart/form-data; boundary=x", 400, "no file"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_image_is_refused_with_its_status(classifier, content, kind, status, text):
    answer = one(classifier, "POST", "/v1/predict", content=content, headers={"content-type": kind})
    assert answer.status_code == status and text in refusal(answer)


def test_a_body_that_is_an_image_goes_by_the_name_that_a_header_gives_it(classifier):
    headers = {"content-disposition": 'attachment; filename="../../<b>.png"'}
    found = one(classifier, "POST", "/v1/predict", content=png(), headers=headers).json()
    assert found["results"][0]["path"] == "<b>.png"
    broken = one(classifier, "POST", "/v1/predict", content=b"no image", headers=headers)
    assert "'<b>.png' cannot be read: not an image" in refusal(broken)


def test_a_damaged_form_says_nothing_on_stderr(classifier, capfd):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert one(classifier, "POST", "/v1/predict", content=b"no form", headers=headers).status_code == 400
    assert capfd.readouterr().err == ""


def test_a_bomb_is_refused_by_its_header(classifier, monkeypatch):
    unpacked = list[object]()
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", unpacked.append)
    small = io.BytesIO()
    Image.new("1", (9000, 9000)).save(small, "png")
    answer = one(classifier, "POST", "/v1/predict", content=small.getvalue())
    assert answer.status_code == 422 and "9000 x 9000 pixels are more than the 64 megapixels" in refusal(answer)
    assert not unpacked


def test_too_many_bytes_and_too_many_files_are_refused(classifier):
    limits = Limits(body_mb=0.01, files=2, queue=2)
    assert one(classifier, "POST", "/v1/predict", content=bytes(10_001), limits=limits).status_code == 413

    async def parts():
        for _ in range(20):
            yield bytes(1000)

    assert one(classifier, "POST", "/v1/predict", content=parts(), limits=limits).status_code == 413
    files = [("images", ("x.png", b"x"))] * 3
    answer = one(classifier, "POST", "/v1/predict", files=files, limits=limits)
    assert answer.status_code == 413 and "at most 2 images" in refusal(answer)
    packed = one(classifier, "POST", "/v1/predict", content=b"x", headers={"content-encoding": "gzip"})
    assert packed.status_code == 415 and "compressed" in refusal(packed)


def test_a_full_queue_is_503_and_who_hangs_up_frees_a_place(models):
    slow, held = held_back(models["classification"])

    async def ask(client: httpx.AsyncClient, service: Any) -> None:
        first = asyncio.create_task(client.post("/v1/predict", content=png()))
        second = asyncio.create_task(client.post("/v1/predict", content=png(1)))
        await asyncio.to_thread(held.begun.wait, PATIENCE_S)
        while service.queue.count < 2:
            await asyncio.sleep(0.01)
        full = await client.post("/v1/predict", content=png())
        assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1 and "Ask again" in refusal(full)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert service.queue.count == 1
        third = asyncio.create_task(client.post("/v1/predict", content=png()))
        held.go.set()
        assert [(await each).status_code for each in (first, third)] == [200, 200]
        assert service.queue.count == 0 and service.held.now == 0

    asked(slow, ask, limits=Limits(queue=2, files=2))


def test_a_late_answer_is_504_and_its_place_is_free(models):
    slow, held = held_back(models["classification"])

    async def ask(client: httpx.AsyncClient, service: Any) -> None:
        late = await client.post("/v1/predict", content=png())
        assert late.status_code == 504 and "No answer within 0.5 s" in refusal(late)
        await asyncio.sleep(0)  # who waits for a future hears of its end in the next turn of the loop
        assert service.queue.count == 0 and service.held.now == 0
        held.go.set()

    asked(slow, ask, limits=Limits(timeout_s=0.5))


def test_bytes_of_all_requests_together_are_bounded(models):
    slow, held = held_back(models["classification"])

    async def ask(client: httpx.AsyncClient, service: Any) -> None:
        first = asyncio.create_task(client.post("/v1/predict", content=png()))
        await asyncio.to_thread(held.begun.wait, PATIENCE_S)
        full = await client.post("/v1/predict", content=png())
        assert full.status_code == 503 and full.headers["retry-after"] == "1"
        held.go.set()
        assert (await first).status_code == 200 and service.held.now == 0

    asked(slow, ask, limits=Limits(held_mb=1.5 * len(png()) / 1e6))


def test_an_error_of_ours_is_500_in_one_line_and_told_to_the_owner(models, capsys):
    slow, held = held_back(models["classification"])
    held.answers = lambda read, **how: 1 / 0  # type: ignore[method-assign,assignment]
    answer = one(slow, "POST", "/v1/predict", content=png())
    assert answer.status_code == 500 and "mistake" in refusal(answer)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_one_image_that_a_network_fails_at_spoils_no_other(models):
    slow, held = held_back(models["classification"])

    def answers(read: Any, **how: Any) -> Any:
        held.begun.set()
        assert held.go.wait(PATIENCE_S)
        if any(one.size[0] == 50 for one in read):
            raise ConvNeXtError("this one is odd")
        return list(held.predictor.answers(read, **how))

    held.answers = answers  # type: ignore[method-assign]

    async def ask(client: httpx.AsyncClient, service: Any) -> list[int]:
        asking = [asyncio.create_task(client.post("/v1/predict", content=png(0, size))) for size in (40, 50, 60)]
        await asyncio.to_thread(held.begun.wait, PATIENCE_S)
        while service.queue.count < 3:
            await asyncio.sleep(0.01)
        held.go.set()
        return [answer.status_code for answer in await asyncio.gather(*asking)]

    assert asked(slow, ask) == [200, 422, 200]


# Who may ask


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]", "192.168.1.7", "pets.lan"]
)
def test_names_of_the_server_are_answered(classifier, host):
    assert one(classifier, "GET", "/readyz", headers={"host": host}, doors={"hosts": ["pets.lan"]}).status_code == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "pets.lan"]
)
def test_a_name_that_somebody_else_pointed_here_is_refused(classifier, host):
    answer = one(classifier, "POST", "/v1/predict", content=png(), headers={"host": host})
    assert answer.status_code == 403 and "--allow-host" in refusal(answer)


def test_pages_of_others_may_not_ask_unless_allowed(classifier):
    doors = {"origins": ["https://pets.example"]}
    for origin in ("null", "http://evil.example", "http://localhost:8001"):
        answer = one(classifier, "POST", "/v1/predict", content=png(), headers={"origin": origin}, doors=doors)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    own = one(classifier, "POST", "/v1/predict", content=png(), headers={"origin": "http://localhost:8000"})
    assert own.status_code == 200 and "access-control-allow-origin" not in own.headers
    allowed = {"origin": "https://pets.example"}
    other = one(classifier, "POST", "/v1/predict", content=png(), headers=allowed, doors=doors)
    assert other.status_code == 200 and other.headers["access-control-allow-origin"] == "https://pets.example"
    before = {**allowed, "access-control-request-method": "POST"}
    assert one(classifier, "OPTIONS", "/v1/predict", headers=before, doors=doors | {"key": KEY}).status_code == 204
    assert (
        one(classifier, "OPTIONS", "/v1/predict", headers=before | {"origin": "http://x"}, doors=doors).status_code
        == 403
    )


def test_a_key_covers_everything_but_health(classifier):
    doors = {"key": KEY}
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/readyz", "/v1/models", "/v2", "/nowhere"):
        answer = one(classifier, "GET", path, doors=doors)
        assert (
            answer.status_code == 401 and "key is missing" in refusal(answer) and "www-authenticate" in answer.headers
        )
    assert one(classifier, "GET", "/healthz", doors=doors).status_code == 200
    for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert one(classifier, "GET", "/readyz", headers=headers, doors=doors).status_code == 200
    assert one(classifier, "GET", "/readyz", auth=("anybody", KEY), doors=doors).status_code == 200
    for wrong in (KEY[:-1], KEY + "0", "", "é" * 20, "basic"):
        headers = {"authorization": f"Bearer {wrong}".encode()}
        assert one(classifier, "GET", "/readyz", headers=headers, doors=doors).status_code == 401
    assert one(classifier, "GET", "/readyz", headers={"authorization": "Basic !"}, doors=doors).status_code == 401


def test_a_file_without_a_key_is_refused(tmp_path):
    (tmp_path / "good").write_text(f"{KEY}\n")
    assert read_key(tmp_path / "good") == KEY
    for text in ("", "short", "two words of a key of 20 letters", "a" * 20 + "\n" + "b" * 20):
        (tmp_path / "key").write_text(text)
        with pytest.raises(ConvNeXtError, match="holds no key"):
            read_key(tmp_path / "key")
    with pytest.raises(ConvNeXtError, match="cannot be read"):
        read_key(tmp_path / "nowhere")


def test_every_answer_carries_the_headers_of_safety_and_pages_name_no_other_address(classifier):
    async def ask(client: httpx.AsyncClient, service: Any) -> None:
        for path in ("/", "/docs", *(f"/page/{name}" for name in FILES), "/openapi.json", "/nowhere"):
            answer = await client.get(path)
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "//" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
        described = (await client.get("/openapi.json")).json()["paths"]
        assert {"/v1/predict", "/v2/models/{name}/infer", "/metrics", "/healthz"} <= set(described)
        huge = await client.get("/readyz", headers={"x": "a" * 20_000})
        assert huge.status_code == 431 and refusal(huge)

    asked(classifier, ask)


# Networks


def test_networks_have_the_names_of_their_folders_or_those_that_are_given(runs, tmp_path):
    copy = tmp_path / "classification" / "best.safetensors"
    copy.parent.mkdir()
    shutil.copy(runs["classification"], copy)
    assert list(open_models([str(runs["onnx"]), f"b={copy.parent}"])) == ["exported", "b"]
    with pytest.raises(ConvNeXtError, match=r"would both be called 'classification'\. Name one: other="):
        open_models([str(runs["classification"]), str(copy)])
    with pytest.raises(ConvNeXtError, match="gives no name"):
        open_models([f"={copy}"])


def test_programs_and_networks_that_reach_for_other_files_are_never_served(runs, tmp_path):
    (tmp_path / "x.pt2").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="may run code"):
        open_models([str(tmp_path / "x.pt2")])
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(bytes(40))
    (inside / "link").symlink_to(tmp_path / "secret")
    for place in ("../secret", str(tmp_path / "secret"), "link"):
        held = TensorProto(name="w", data_type=1, dims=[10], data_location=TensorProto.EXTERNAL)
        held.external_data.add(key="location", value=place)
        value = [helper.make_tensor_value_info(name, 1, [10]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", value[:1], value[1:], [held])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        (inside / "x.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(CheckpointError, match=r"(?i)external data path"):
            open_models([str(inside / "x.onnx")])


def test_new_best_weights_are_taken_without_a_lost_request(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("convnext.deploy.serve.app.WATCH_S", 0.05)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(runs["classification"], run / "best.safetensors")
    other = checkpoint_of("classification", tmp_path, classes=("x", "y", "z"))
    models = open_models([str(run)], device="cpu")

    async def ask(client: httpx.AsyncClient, service: Any) -> list[str]:
        watching, seen = asyncio.create_task(service.watch()), []
        end = time.monotonic() + 4 * PATIENCE_S
        for number in itertools.count():
            answer = await client.post("/v1/predict", content=png())
            assert answer.status_code == 200, answer.text
            seen.append("".join(sorted(row["label"] for row in answer.json()["results"][0]["predictions"])))
            if number == 2:
                (tmp_path / "new").write_bytes(b"damaged")
                os.replace(tmp_path / "new", run / "best.safetensors")
            if number > 2 and "refused" in (await client.get("/metrics")).text and other.exists():
                os.replace(other, run / "best.safetensors")
            if seen[-1] == "xyz" or time.monotonic() > end:
                break
        watching.cancel()
        return seen

    seen = asked(models, ask)
    assert set(seen) == {"ab", "xyz"} and seen[-1] == "xyz"
    told = capsys.readouterr().err
    assert "'run' stays as it is" in told and "'run' answers with new weights" in told


def test_an_exported_file_is_served_without_torch(runs, images):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import asyncio, httpx\n"
        "from convnext.deploy.serve.app import application\n"
        "from convnext.deploy.serve.models import open_models\n"
        "async def main():\n"
        "    app, service = application(open_models([sys.argv[1]]))\n"
        "    task = asyncio.create_task(service.queue.run())\n"
        "    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://localhost')\n"
        "    print((await client.post('/v1/predict', content=open(sys.argv[2], 'rb').read())).text)\n"
        "    task.cancel()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, runs["onnx"], images[0]], capture_output=True, text=True, check=True
    )
    (row,) = json.loads(done.stdout)["results"]
    assert row["predictions"] == printed(runs["onnx"], images[0])["predictions"]


def test_a_network_of_bands_answers_files_of_bands(tmp_path):
    trained(band_images.class_folders(tmp_path / "data"), tmp_path / "run")
    (file, *_) = sorted((tmp_path / "data").rglob("*.tif"))
    models = open_models([str(tmp_path / "run")], device="cpu")
    found = one(models, "POST", "/v1/predict", files={"images": (file.name, file.read_bytes())})
    assert found.json()["results"] == [printed(tmp_path / "run", file)]
    assert [each["name"] for each in one(models, "GET", "/v2/models/run").json()["inputs"]] == ["encoded"]
    given = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    assert "reads files of bands" in refusal(one(models, "POST", "/v2/models/run/infer", json={"inputs": [given]}))


def test_a_network_of_several_labels_names_those_above_their_thresholds(tmp_path):
    data = labels_data.in_columns(tmp_path / "data", labels_data.made(40))
    trained(data, tmp_path / "run", "--batch", 8)
    (file, *_) = sorted((tmp_path / "data").rglob("*.png"))
    models = open_models([str(tmp_path / "run")], device="cpu")
    found = one(models, "POST", "/v1/predict", files={"images": (file.name, file.read_bytes())})
    assert found.json()["results"] == [printed(tmp_path / "run", file)]
    every = one(models, "POST", "/v1/predict?threshold=0", content=file.read_bytes()).json()["results"][0][
        "predictions"
    ]
    assert {row["label"] for row in every} == set(labels_data.NAMES)
    given = {
        "name": "encoded",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.b64encode(file.read_bytes()).decode()],
    }
    (output,) = one(models, "POST", "/v2/models/run/infer", json={"inputs": [given]}).json()["outputs"]
    scores = {row["label"]: row["score"] for row in every}
    assert output["data"] == [scores[name] for name in labels_data.NAMES]


def test_limits_that_say_nothing_are_refused():
    with pytest.raises(ConvNeXtError, match="Did you mean 'batch'"):
        limits_of({"batsh": 3})
    for wrong in ({"batch": 0}, {"timeout_s": 0}, {"window_ms": 60_000}, {"files": 300}):
        with pytest.raises(ConvNeXtError, match=r"refused|do not fit"):
            limits_of(wrong)


def test_a_port_that_is_taken_is_one_line(runs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = convnext("serve", runs["onnx"], "--port", taken.getsockname()[1])
    assert done.status == 2 and "cannot be had" in done.line and "--port" in done.line


def test_time_is_counted(classifier):
    before = time.monotonic()
    answer = one(classifier, "POST", "/v1/predict", content=png())
    assert 0 < float(answer.headers["server-timing"].partition("dur=")[2]) <= 1000 * (time.monotonic() - before)
