"""One network by name, for use as a library: `convnext.create("tiny", weights="convnext_tiny.pth")`."""

import sys
from collections.abc import Callable
from typing import Any

from convnext.config import parse
from convnext.models.build import build_model
from convnext.models.network import Network
from convnext.models.weights import load_weights
from convnext.recipes.architectures import architecture


def to_stderr(message: str) -> None:
    """Print it where it does not mix with the caller's results."""
    print(message, file=sys.stderr)


def create(
    name: str,
    *,
    classes: int = 1000,
    in_channels: int = 3,
    weights: str | None = None,
    drop_path: float = 0.0,
    info: Callable[[str], None] = to_stderr,
    **fields: Any,
) -> Network:
    """The network called `name` ('tiny', 'v2_atto', 'iso_small', 'timm:resnet18'), with `weights` loaded when given.

    `weights` is a file or 'hub:OWNER/NAME'; `fields` are any others of ConvNeXtConfig, e.g. stem="overlap"; what was
    adapted on loading goes to `info`. Raises ConvNeXtError for an unknown name or field, CheckpointError for weights
    that cannot be read or do not fit.
    """
    config = architecture(name)
    values = config.model_dump() | {"classes": classes, "in_channels": in_channels, "drop_path": drop_path} | fields
    model = build_model(parse(type(config), values, where=f"model '{name}'"))
    if weights is not None:
        load_weights(model, weights, info=info)
    return model
