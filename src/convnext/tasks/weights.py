"""Where a run starts from: a run of ours, a released detector or segmenter, or a classifier for the backbone of one."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convnext.config import ConvNeXtConfig
from convnext.engine import checkpoint
from convnext.engine.run import weights_file
from convnext.errors import CheckpointError
from convnext.models.description import class_names
from convnext.models.expected import check_tensors
from convnext.models.heads import matched
from convnext.models.sources import find, run_file
from convnext.models.start import read_start
from convnext.models.tensors import record_of
from convnext.models.weights import same_architecture, with_channels
from convnext.tasks.backbone import Backbone

BACKBONE, _NETWORK = "backbone.", "backbone.network."  # how our names of a detector's or a segmenter's backbone begin
_CLASSIFICATION = ("norm.", "norm_maps.", "hidden.", "head.")  # what only a classifier has
_RELEASED = ("roi_head.", "decode_head.")  # what only released detectors and segmenters have

Info = Callable[[str], None]


@dataclass(frozen=True)
class ClassLayers:
    """The layers of a task's networks whose rows are classes."""

    names: re.Pattern[str]  # that a tensor's name begins with
    count: Callable[[Mapping[str, Tensor]], int | None]  # of the classes of a network's tensors; None: there are none


def file_of(weights: str) -> str:
    """The file to start from: the best of a run where `weights` is its folder."""
    return str(run_file(Path(weights)) or weights) if Path(weights).is_dir() else weights


def load_best(model: nn.Module, run: Path, weights: str = "best") -> nn.Module:
    """`model` with the weights of a finished run, ready to evaluate. Raises CheckpointError where there are none."""
    file = weights_file(run, weights)
    tensors, _ = checkpoint.read(file)
    checkpoint.load(model, checkpoint.of("model", tensors) or tensors, file)
    return model.eval()


def load_annotated(
    model: Any,
    source: str,
    *,
    load_official: Callable[..., None],
    layers: ClassLayers,
    info: Info,
    classes: Sequence[str] = (),
) -> None:
    """Copy the weights of `source`, as `models.sources.find` takes it, into a detector or a segmenter; it is logged.

    `load_official` reads released tensors of that task. Of the `layers` of classes, the rows of those are taken over that have
    the same name, `classes` being those of the data. Raises CheckpointError for tensors that do not fit, with their
    names.
    """
    files = find(source)
    names = files.read()[0].keys()
    if any(name.startswith(_NETWORK) for name in names):
        _load_own(model, source, layers, info, classes)
    elif any(name.startswith(_RELEASED) for name in names):
        load_official(model, files.path, info=info, classes=classes)
    else:
        load_backbone(model.backbone, source, info=info)


def load_backbone(backbone: Backbone, source: str | Path, *, info: Info) -> None:
    """Copy classification weights, in any format that is known, into a ConvNeXt backbone; its own norms stay fresh.

    The final norm and the head are left out. Raises CheckpointError where another tensor is missing or too much.
    """
    refuse_foreign(backbone, source)
    start = read_start(source)
    for note in start.notes:
        info(note)
    network: Any = backbone.network
    try:
        same_architecture(start.config, network.config)
        ours = with_channels(start.tensors, network.config, info)
        state = {key: value for key, value in ours.items() if not key.startswith(_CLASSIFICATION)}
        check_tensors(state, network.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    network.load_state_dict(state)
    info(
        f"{source}: {len(state)} tensors of the backbone read ('{start.format}' names), {len(ours) - len(state)} left out."
    )


def fit_classes(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    layers: ClassLayers,
    *,
    header: Mapping[str, str],
    classes: Sequence[str],
    info: Info,
) -> tuple[dict[str, Tensor], int]:
    """`state` with the rows of `layers` that the model can use, and how many of its tensors are fresh ones.

    `own`: the tensors of the model; `header`: of the file, where it has names. What was not simply taken over is logged.
    """
    held, asked = layers.count(state), layers.count(own)
    named = [key for key in state if layers.names.match(key) and key in own]
    if held is None or asked is None:
        return dict(state), 0  # the check names what is wrong
    rows = matched(held, asked, class_names(header, record_of(header), {}, held), classes)
    if rows.note:
        info(rows.note)
    fitted = rows.fit({key: state[key] for key in named}, {key: own[key] for key in named})
    return {**state, **fitted}, len(named) if rows.none() else 0


def refuse_foreign(backbone: Any, source: str | Path) -> None:
    """Raise CheckpointError for a backbone that only starts fresh: weights are known for ConvNeXt alone."""
    config: Any = getattr(backbone.network, "config", None)
    if not isinstance(config, ConvNeXtConfig):
        raise CheckpointError(
            f"{source} does not fit: the backbone is no ConvNeXt. Take one, or start without weights."
        )


def plain_name(key: str) -> str:
    """'backbone.network.stem.norm.bias' -> 'stem.norm.bias', 'backbone.norms.0.weight' -> 'norms.0.weight'."""
    return key.removeprefix(_NETWORK) if key.startswith(_NETWORK) else key.removeprefix(BACKBONE)


def nested_name(key: str) -> str:
    """The reverse."""
    return f"{BACKBONE if key.startswith('norms.') else _NETWORK}{key}"


def _load_own(model: nn.Module, source: str, layers: ClassLayers, info: Info, classes: Sequence[str]) -> None:
    """A whole network of this package; the layers of its classes are matched by their names."""
    tensors, header = find(source).read()
    state, own = checkpoint.of("model", tensors) or tensors, model.state_dict()
    state, fresh = fit_classes(state, own, layers, header=header, classes=classes, info=info)
    try:
        check_tensors(state, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state)
    info(f"{source}: {len(state) - fresh} tensors read (a network of this package).")
