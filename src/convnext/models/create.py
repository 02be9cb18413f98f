"""One network by name or by its weights, for use as a library: `convnext.create("tiny", weights="convnext_tiny.pth")`."""

from collections.abc import Callable
from typing import Any

from convnext.config import ConvNeXtConfig, parse
from convnext.errors import ConvNeXtError
from convnext.models.build import build_model
from convnext.models.description import mapping
from convnext.models.network import Network
from convnext.models.sources import find
from convnext.models.start import read_start
from convnext.models.tensors import record_of
from convnext.models.weights import load_weights
from convnext.recipes.architectures import architecture
from convnext.streams import tell

_OF_TRAINING = (
    "name",
    "family",
    "drop_path",
    "checkpointing",
    "layer_scale",
    "head_scale",
)  # nothing weights depend on


def create(
    name: str | None = None,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    weights: str | None = None,
    drop_path: float = 0.0,
    info: Callable[[str], None] = tell,
    **fields: Any,
) -> Network:
    """The network called `name` ('tiny', 'v2_atto', 'iso_small', 'timm:resnet18'), with `weights` loaded when given.

    `weights` is what `sources.find` takes: a file, a folder, 'hub:OWNER/NAME', 'timm:NAME.TAG'. Without a name the network
    is the one that they hold, of a run of the network with that name also its stem, classes and the like; else `classes`
    are 1000 and `in_channels` 3. `fields` are any others of ConvNeXtConfig, e.g. stem="overlap"; what was adapted on
    loading goes to `info`. Raises ConvNeXtError for an unknown name or field, CheckpointError for weights that cannot be
    read or do not fit.
    """
    if name is None and weights is None:
        raise ConvNeXtError("Neither a network nor weights are named. Give a name, e.g. 'tiny', or weights=...")
    config = None if name is None else architecture(name)
    held = {} if weights is None else _held(weights, config)
    base = ConvNeXtConfig.model_validate(held) if config is None else config
    counts = {"classes": classes, "in_channels": in_channels}
    asked = {field: value for field, value in counts.items() if value is not None}
    values = base.model_dump() | {"classes": 1000, "in_channels": 3} | held | asked | {"drop_path": drop_path} | fields
    model = build_model(parse(type(base), values, where=f"model '{base.name}'"))
    if weights is not None:
        load_weights(model, weights, info=info)
    return model


def _held(weights: str, asked: Any) -> dict[str, Any]:
    """The fields of the network in some weights; none where another one than `asked` is in them."""
    if asked is None:
        return read_start(weights).config.model_dump()
    if not isinstance(asked, ConvNeXtConfig):
        known = mapping(mapping(record_of(find(weights).header()).get("recipe")).get("model"))
        same = known.get("name") == asked.name and known.get("family") == asked.family
        return {
            field: known[field] for field in type(asked).model_fields if same and _decides(field) and field in known
        }
    start = read_start(weights)
    if start.config.name != asked.name:
        return {}  # loading says what differs
    fields = {field: value for field, value in start.config.model_dump().items() if _decides(field)}
    if not start.record:  # the head of published weights is for the classes of others
        del fields["classes"], fields["in_channels"]
    return fields


def _decides(field: str) -> bool:
    return field not in _OF_TRAINING
