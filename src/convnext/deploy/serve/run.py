"""From a wish to serve networks to the process that does."""

import gc
import os
from collections.abc import Sequence

from convnext.deploy.load import Source
from convnext.deploy.serve.app import application
from convnext.deploy.serve.guard import read_key
from convnext.deploy.serve.limits import limits_of
from convnext.deploy.serve.models import open_models
from convnext.deploy.serve.server import address_of, answer_until_told, is_loopback, listening
from convnext.engine.records import info
from convnext.errors import number_of


def serve(
    runs: Source | Sequence[Source],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: str | os.PathLike[str] | None = None,
    allow_host: Sequence[str] = (),
    allow_origin: Sequence[str] = (),
    watch: bool = False,
    weights: str = "best",
    device: str = "auto",
    **limits: float,
) -> None:
    """Serve runs, checkpoints and exported files over HTTP until a signal asks for the end; a path may be 'NAME=PATH'.

    `port`: 0 is any free one; `api_key_file`: of the key that every request must bring; `allow_host`, `allow_origin`: further
    names of the server, and pages of others that may ask; `watch`: take new weights as soon as they are there; `limits`:
    fields of `deploy.serve.limits.Limits`. Raises ConvNeXtError where a network cannot be loaded or the address cannot be
    had, KeyboardInterrupt at Ctrl-C.
    """
    shared = limits_of(limits)
    key = None if api_key_file is None else read_key(api_key_file)
    given = [runs] if isinstance(runs, str | os.PathLike) else runs
    with listening(host, port) as opened:  # before the seconds of loading: a port that is taken is told at once
        models = open_models([os.fspath(each) for each in given], weights=weights, device=device)
        doors = {"hosts": [host, *allow_host], "origins": allow_origin}
        app, service = application(models, shared, watch=watch, key=key, **doors)
        if key is None and not is_loopback(opened):
            info(f"Whoever reaches {host} can ask this server. --api-key-file names a key that they must know.")
        for model in models.values():
            many = number_of(len(model.predictor.classes), "class", "classes")
            info(f"'{model.name}': {model.task}, {many}, {model.predictor.source}")
        info(f"Serving at {address_of(opened)} until Ctrl-C.")
        gc.collect()
        gc.freeze()  # what is loaded stays: from now on the collector passes it over
        try:
            answer_until_told(app, service, opened)
        finally:
            gc.unfreeze()
