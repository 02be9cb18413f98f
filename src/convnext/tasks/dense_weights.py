"""Where a detector or a segmenter starts from: one of ours, a released one, or a classifier for its backbone."""

from collections.abc import Callable

from torch import nn

from convnext.errors import CheckpointError
from convnext.models.hub import download
from convnext.models.tensors import read_tensors
from convnext.models.weights import check_tensors
from convnext.tasks.detection import checkpoint_names as detection
from convnext.tasks.detection.backbone import Backbone
from convnext.tasks.detection.detector import Detector
from convnext.tasks.segmentation import checkpoint_names as segmentation
from convnext.tasks.segmentation.upernet import UperNet

_RELEASED = ("roi_head.", "decode_head.")  # what only released detectors and segmenters have
_OURS = "backbone.network."


def load_dense_weights(model: nn.Module, source: str, *, info: Callable[[str], None]) -> None:
    """Copy the weights of `source`, a file or 'hub:OWNER/NAME', into a detector or a segmenter; what was read is logged.

    Layers for another number of classes keep the fresh values that they were built with. Raises CheckpointError for
    tensors that do not fit, with their names.
    """
    assert isinstance(model, Detector | UperNet) and isinstance(model.backbone, Backbone)
    path = str(download(source.removeprefix("hub:"))) if source.startswith("hub:") else source
    names = read_tensors(path)[0].keys()
    if any(name.startswith(_OURS) for name in names):
        _load_own(model, path, info)
    elif any(name.startswith(_RELEASED) for name in names):
        if isinstance(model, Detector):
            detection.load_official(model, path, info=info)
        else:
            segmentation.load_official(model, path, info=info)
    else:
        detection.load_backbone(model.backbone, path, info=info)


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
