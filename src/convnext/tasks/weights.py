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
_PARTS = {  # how the names of a part begin, beside the backbone -> what it is to people
    "fpn": "feature pyramid",
    "rpn": "proposal network",
    "heads.box": "box heads",
    "heads.mask": "mask heads",
    "decoder": "segmentation head",
    "auxiliary": "auxiliary head",
}

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


def fitted(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    layers: ClassLayers,
    *,
    header: Mapping[str, str],
    classes: Sequence[str],
    info: Info,
) -> tuple[dict[str, Tensor], int]:
    """`state` as far as the model can use it, with fresh tensors for the rest, and how many of the model's it holds.

    A part that is another head's stays fresh, or is left out, and of `layers` come the rows of classes of the same name.
    `own`: the tensors of the model; `header`: of the file, where it has names. What was not simply taken over is logged.
    """
    held, asked = layers.count(state), layers.count(own)
    kept, fresh = _fitting_parts(state, own, layers, info)
    named = [key for key in kept if layers.names.match(key) and key in own]
    if held is None or asked is None or not named:
        return kept | fresh, len(kept)  # the check names what is wrong
    rows = matched(held, asked, class_names(header, record_of(header), {}, held), classes)
    if rows.note:
        info(rows.note)
    rows_of = rows.fit({key: kept[key] for key in named}, {key: own[key] for key in named})
    return kept | rows_of | fresh, len(kept) - (len(named) if rows.none() else 0)


def _fitting_parts(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], layers: ClassLayers, info: Info
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`state` without the parts that are another head's, and the tensors of the model in their place.

    A part is another's where most of its tensors are not alike; where few are not, the file is damaged, as the check says.
    """
    kept, fresh = dict(state), dict[str, Tensor]()
    begun, left = list[str](), list[str]()
    for part, title in _PARTS.items():
        theirs, ours = ({key for key in each if key.startswith(f"{part}.")} for each in (state, own))
        shared = theirs & ours
        alike = sum(bool(layers.names.match(key)) or state[key].shape == own[key].shape for key in shared)
        if 2 * alike >= len(theirs | ours):
            continue
        kept = {key: value for key, value in kept.items() if key not in theirs}
        fresh |= {key: own[key] for key in ours}
        (begun if ours else left).append(title)
    if begun:
        info(f"start fresh, as the weights have none that fit: {', '.join(begun)}")
    if left:
        info(f"left out, as the network has none: {', '.join(left)}")
    return kept, fresh


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
    """A network of this package, as far as its parts fit; the layers of its classes are matched by their names."""
    tensors, header = find(source).read()
    state, own = checkpoint.of("model", tensors) or tensors, model.state_dict()
    state, read = fitted(state, own, layers, header=header, classes=classes, info=info)
    try:
        check_tensors(state, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state)
    info(f"{source}: {read} tensors read (a network of this package).")
