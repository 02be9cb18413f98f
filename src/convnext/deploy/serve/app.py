"""The application: its addresses, and the way of a request from its bytes to its answer.

POST /v1/predict                     images in, the objects of `convnext predict --json` out
GET  /v1/models                      what is served
/v2/...                              the Open Inference Protocol, see `protocol`
GET  /healthz /readyz /metrics       for those who look after it
GET  / /docs                         the page, and these addresses for people
"""

import asyncio
import base64
import contextlib
import io
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from PIL.Image import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from convnext import __version__
from convnext.deploy.images import Given
from convnext.deploy.prediction import ClassificationPrediction, Prediction, SegmentationPrediction
from convnext.deploy.serve import protocol
from convnext.deploy.serve.asking import PARAMETERS, Wish, wish_of
from convnext.deploy.serve.bodies import FORM, UNNAMED, body_of, images_of, quiet
from convnext.deploy.serve.direct import PREDICT, Direct, Endpoint, refusal
from convnext.deploy.serve.guard import App, Guard
from convnext.deploy.serve.limits import MB, Held, Limits, Refused
from convnext.deploy.serve.metrics import Metrics
from convnext.deploy.serve.models import Model, Models
from convnext.deploy.serve.page import add_pages
from convnext.deploy.serve.queue import Options, Queue
from convnext.engine.records import info, warn
from convnext.errors import ConvNeXtError, DataError, reason_of
from convnext.files import to_json

WATCH_S = 2.0  # between two looks for new weights
_LISTS = {"classification": "predictions", "detection": "predictions", "segmentation": "shares"}  # of `to_dict`


@dataclass(eq=False)
class Service:
    """What all requests share."""

    models: Models
    limits: Limits
    queue: Queue
    held: Held
    metrics: Metrics
    stopping: bool = False

    @classmethod
    def of(cls, models: Models, limits: Limits) -> "Service":
        """A service that nobody has asked yet."""
        queue, held = Queue(limits), Held(int(limits.held_mb * MB))
        queue.metrics = Metrics(lambda: queue.count, lambda: held.now)
        return cls(models, limits, queue, held, queue.metrics)

    async def watch(self) -> None:
        """Take new weights as soon as they are there; what is being answered keeps those that it began with."""
        while True:
            await asyncio.sleep(WATCH_S)
            for model in self.models.values():
                try:
                    renewed = await asyncio.to_thread(model.renewed)
                except (ConvNeXtError, OSError) as error:
                    self.metrics.renewals.labels(model.name, "refused").inc()
                    warn(f"'{model.name}' stays as it is: {reason_of(error)}")
                else:
                    if renewed:
                        self.metrics.renewals.labels(model.name, "taken").inc()
                        info(f"'{model.name}' answers with new weights: {model.predictor.source}")


def application(
    models: Models,
    limits: Limits | None = None,
    *,
    watch: bool = False,
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    key: str | None = None,
) -> tuple[App, Service]:
    """The ASGI application and what it shares. `hosts`, `origins` and `key` are those of `Guard`."""
    service = Service.of(models, limits or Limits())
    quiet()

    @contextlib.asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.queue.run())]
        tasks += [asyncio.create_task(service.watch())] if watch else []
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    hidden: dict[str, Any] = dict.fromkeys(("docs_url", "redoc_url"))  # theirs come from elsewhere
    app = FastAPI(title="convnext serve", version=__version__, redirect_slashes=False, lifespan=living, **hidden)
    direct = Direct(app, _add_v1(app, service))
    _add_v2(app, service)
    _add_care(app, service)
    add_pages(app)
    for kind in (HTTPException, ConvNeXtError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, refusal)
    return Guard(direct, service.metrics, hosts=hosts, origins=origins, key=key), service


async def answers_of(
    request: Request, service: Service, model: Model, images: Sequence[Given], options: Options, end: float
) -> list[Prediction | BaseException]:
    """What `model` says of each image, or why it says nothing; nobody waits on for a client that hangs up.

    `end`: the monotonic time at which the request is given up. Raises Refused then, and where the queue is full.
    """
    answers = service.queue.submit(model, images, options)
    whole = asyncio.gather(*answers, return_exceptions=True)
    gone = asyncio.create_task(_until_gone(request))
    try:
        left = end - time.monotonic()
        first: list[asyncio.Future[Any]] = [whole, gone]
        await asyncio.wait(first, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        if whole.done():
            return whole.result()
        if gone.done():
            raise ClientDisconnect
        raise Refused(504, f"No answer within {service.limits.timeout_s:g} s. Ask again, or for fewer images.")
    finally:
        gone.cancel()
        for each in answers:
            each.cancel()


async def _until_gone(request: Request) -> None:
    """Until the client has hung up; its body is read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_v1(app: FastAPI, service: Service) -> Endpoint:
    """The addresses, and what answers at PREDICT."""
    parameters = [
        {"name": name, "in": "query", "description": text, "schema": {"type": kind}}
        for name, (kind, text, _) in PARAMETERS.items()
    ]
    file = {"type": "string", "format": "binary"}
    files = {"type": "object", "properties": {"images": {"type": "array", "items": file}}}
    body = {"content": {"image/*": {"schema": file}, FORM: {"schema": files}}, "required": True}

    @app.post(PREDICT, openapi_extra={"parameters": parameters, "requestBody": body})
    async def predict(request: Request) -> Response:
        """What is on one image, the body, or on several, the files of a form: the objects of `predict --json`."""
        began = time.monotonic()
        end = began + service.limits.timeout_s
        wish = wish_of(request.query_params, service.models)
        with service.held.share() as share:
            async with _in_time(end, service.limits):
                images = await images_of(request, service.limits, share)
            found = await answers_of(request, service, wish.model, images, wish.options, end)
            quick = wish.model.task == "classification" and "explain" not in dict(wish.options)
            text = (
                _text(wish, images, found) if quick else await service.queue.aside(lambda: _text(wish, images, found))
            )
        took_ms = 1000 * (time.monotonic() - began)
        return _json(text, {"Server-Timing": f"total;dur={took_ms:.1f}"})

    @app.get("/v1/models")
    async def models() -> Response:
        """The networks that are served: name, task, classes and their colours."""
        return _json(to_json([model.to_dict() for model in service.models.values()]))

    return predict


def _add_v2(app: FastAPI, service: Service) -> None:
    body = {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}

    @app.get("/v2")
    async def server() -> Response:
        """What the Open Inference Protocol tells of a server."""
        return _json(to_json({"name": "convnext", "version": __version__, "extensions": ["binary_tensor_data"]}))

    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    async def ready() -> Response:
        """Whether the server answers."""
        return _ready(service)

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/1")
    async def about(name: str) -> Response:
        """The inputs and outputs of a network."""
        return _json(to_json(protocol.metadata(service.models.chosen(name))))

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/1/ready")
    async def model_ready(name: str) -> Response:
        """Whether a network answers."""
        service.models.chosen(name)
        return _ready(service)

    @app.post("/v2/models/{name}/infer", openapi_extra={"requestBody": body})
    @app.post("/v2/models/{name}/versions/1/infer", openapi_extra={"requestBody": body})
    async def infer(request: Request, name: str) -> Response:
        """Tensors in, tensors out: 'images' (N, H, W, C) of uint8, or 'encoded', files. Binary data may follow the JSON."""
        end = time.monotonic() + service.limits.timeout_s
        model = service.models.chosen(name)
        with service.held.share() as share:
            async with _in_time(end, service.limits):
                content = await body_of(request, service.limits, share)
            length = request.headers.get(protocol.LENGTH)
            asked = await asyncio.to_thread(protocol.asked, content, length, model, service.limits)
            options = tuple(protocol.how(model, asked).items())
            found = await answers_of(request, service, model, asked.images, options, end)
            read = [_whole(given, each) for given, each in zip(asked.images, found, strict=True)]
            body, headers = await service.queue.aside(lambda: protocol.answer(model, asked, read))
        return Response(body, headers=headers)


def _add_care(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the process lives. It needs no key."""
        return _json(to_json({"status": "alive"}))

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether it takes requests: 503 from when it was told to end."""
        return _ready(service)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters for Prometheus."""
        text, kind = service.metrics.text()
        return Response(text, media_type=kind)


def _ready(service: Service) -> Response:
    if service.stopping:
        raise Refused(503, "The server is ending.")
    return _json(to_json({"status": "ready"}))


@contextlib.asynccontextmanager
async def _in_time(end: float, limits: Limits) -> AsyncIterator[None]:
    """Raises Refused where the body of a request does not come before `end`."""
    try:
        async with asyncio.timeout(end - time.monotonic()):
            yield
    except TimeoutError:
        late = f"The body did not come within {limits.timeout_s:g} s."
        raise Refused(408, late, {"Connection": "close"}) from None


def _text(wish: Wish, images: Sequence[Given], found: Sequence[Prediction | BaseException]) -> str:
    """The answer to people and programs. Raises DataError where no image could be read."""
    rows = []
    for given, each in zip(images, found, strict=True):
        if isinstance(each, Prediction):
            row = each.to_dict()
            if wish.mask and isinstance(each, SegmentationPrediction):
                row["mask"] = _data_url(each.mask_image())
            elif isinstance(each, ClassificationPrediction) and each.explanation:
                row["map"] = _data_url(each.explanation.layer())
        elif isinstance(each, DataError | OSError):
            row = {"path": given.path, _LISTS[wish.model.task]: [], "error": reason_of(each)}
        else:
            raise each
        rows.append(row)
    if all("error" in row for row in rows):
        _whole(images[0], found[0])
    return to_json({"model": wish.model.name, "task": wish.model.task, "results": rows})


def _whole(given: Given, found: Prediction | BaseException) -> Prediction:
    """The prediction. Raises DataError, which names the image, where it could not be read, and any other error as it is."""
    if isinstance(found, Prediction):
        return found
    if isinstance(found, DataError | OSError):
        what = "The body" if given.path == UNNAMED else f"'{given.path}'"
        raise DataError(f"{what} cannot be read: {reason_of(found)}.")
    raise found


def _data_url(image: Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _json(text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(text, media_type="application/json", headers=headers)
