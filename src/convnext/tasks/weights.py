"""Where a run starts from: a run of ours, a released detector or segmenter, or a classifier for the backbone of one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from convnext.config import ConvNeXtConfig
from convnext.engine import checkpoint
from convnext.engine.run import weights_file
from convnext.errors import CheckpointError
from convnext.models.expected import check_tensors
from convnext.models.formats import FORMATS, our_names, recognise
from convnext.models.hub import download
from convnext.models.tensors import read_tensors
from convnext.tasks.backbone import Backbone

BACKBONE, _NETWORK = "backbone.", "backbone.network."  # how our names of a detector's or a segmenter's backbone begin
_RELEASED = ("roi_head.", "decode_head.")  # what only released detectors and segmenters have

Info = Callable[[str], None]


def file_of(weights: str) -> str:
    """The file to start from: the best of a run where `weights` is its folder."""
    return str(weights_file(Path(weights))) if Path(weights).is_dir() else weights


def load_best(model: nn.Module, run: Path, weights: str = "best") -> nn.Module:
    """`model` with the weights of a finished run, ready to evaluate. Raises CheckpointError where there are none."""
    tensors, _ = checkpoint.read(weights_file(run, weights))
    model.load_state_dict(checkpoint.of("model", tensors) or tensors)
    return model.eval()


def load_annotated(model: Any, source: str, *, load_official: Callable[..., None], info: Info) -> None:
    """Copy the weights of `source`, a file or 'hub:OWNER/NAME', into a detector or a segmenter; what was read is logged.

    `load_official` reads released tensors of that task. Layers for another number of classes keep the fresh values that
    they were built with. Raises CheckpointError for tensors that do not fit, with their names.
    """
    path = str(download(source.removeprefix("hub:"))) if source.startswith("hub:") else source
    names = read_tensors(path)[0].keys()
    if any(name.startswith(_NETWORK) for name in names):
        _load_own(model, path, info)
    elif any(name.startswith(_RELEASED) for name in names):
        load_official(model, path, info=info)
    else:
        load_backbone(model.backbone, path, info=info)


def load_backbone(backbone: Backbone, source: str | Path, *, info: Callable[[str], None]) -> None:
    """Copy classification weights, in any format that is known, into a ConvNeXt backbone; its own norms stay fresh.

    The final norm and the head are left out. Raises CheckpointError where another tensor is missing or too much.
    """
    refuse_foreign(backbone, source)
    tensors, _ = read_tensors(source)
    try:
        form = recognise(tensors)
        ours = our_names(tensors, FORMATS[form])
        state = {key: value for key, value in ours.items() if not key.startswith(("norm.", "head."))}
        check_tensors(state, backbone.network.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    backbone.network.load_state_dict(state)
    info(f"{source}: {len(state)} tensors of the backbone read ('{form}' names), {len(ours) - len(state)} left out.")


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


def _load_own(model: nn.Module, path: str, info: Callable[[str], None]) -> None:
    """A whole network of this package; layers that differ in the number of their outputs alone are the classes'."""
    state, own = read_tensors(path)[0], model.state_dict()
    fresh = {
        name: own[name]
        for name, value in state.items()
        if name in own and value.shape != own[name].shape and value.shape[1:] == own[name].shape[1:]
    }
    try:
        check_tensors(state | fresh, own)
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from None
    model.load_state_dict(state | fresh)
    if fresh:
        info(f"{len(fresh)} tensors for other classes replaced by new ones: {', '.join(fresh)}")
    info(f"{path}: {len(state) - len(fresh)} tensors read (a network of this package).")
