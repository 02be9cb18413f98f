"""Released detection checkpoints: the names that mmdetection gives to the tensors of a detector, and ours.

Their boxes are ordered by class, and the background is the last class, as here, so only names differ. A checkpoint has
'backbone.', 'neck.', 'rpn_head.' and 'roi_head.' tensors under 'state_dict'; a cascade's heads carry the stage.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from convnext.errors import CheckpointError
from convnext.models.expected import check_tensors
from convnext.models.formats import FORMATS, our_names, their_names
from convnext.models.tensors import read_tensors
from convnext.tasks.detection.detector import Detector
from convnext.tasks.weights import BACKBONE, ClassLayers, fitted, nested_name, plain_name, refuse_foreign

_UNITS = {  # ours: theirs. {i} is a number; {s} the stage of a cascade and a point, or nothing
    "fpn.lateral.{i}": "neck.lateral_convs.{i}.conv",
    "fpn.smooth.{i}": "neck.fpn_convs.{i}.conv",
    "rpn.conv": "rpn_head.rpn_conv",
    "rpn.score": "rpn_head.rpn_cls",
    "rpn.delta": "rpn_head.rpn_reg",
    "heads.box.{s}convolutions.{i}.conv": "roi_head.bbox_head.{s}shared_convs.{i}.conv",
    "heads.box.{s}convolutions.{i}.norm": "roi_head.bbox_head.{s}shared_convs.{i}.bn",
    "heads.box.{s}linears.{i}": "roi_head.bbox_head.{s}shared_fcs.{i}",
    "heads.box.{s}score": "roi_head.bbox_head.{s}fc_cls",
    "heads.box.{s}delta": "roi_head.bbox_head.{s}fc_reg",
    "heads.mask.{s}convolutions.{i}.conv": "roi_head.mask_head.{s}convs.{i}.conv",
    "heads.mask.{s}upsample": "roi_head.mask_head.{s}upsample",
    "heads.mask.{s}mask": "roi_head.mask_head.{s}conv_logits",
}
_SCORE = re.compile(r"heads\.box\.(\d+\.)?score\.bias")
_TOKENS = {"{i}": r"(?P<i>\d+)", "{s}": r"(?P<s>(?:\d+\.)?)"}


def _classes(state: Mapping[str, Tensor]) -> int | None:
    return next((len(value) - 1 for key, value in state.items() if _SCORE.fullmatch(key)), None)  # less the background


LAYERS = ClassLayers(re.compile(r"heads\.(box\.(\d+\.)?(score|delta)|mask\.(\d+\.)?mask)\."), _classes)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a detector on a ConvNeXt under the released names. Raises CheckpointError for a name without a place."""
    inside = {plain_name(key): value for key, value in state.items() if key.startswith(BACKBONE)}
    theirs = {f"{BACKBONE}{key}": value for key, value in their_names(inside, FORMATS["official"]).items()}
    grouped = not any(key.endswith(".norm.running_mean") for key in state)
    for key, value in state.items():
        if not key.startswith(BACKBONE):
            name = _translated(key, _UNITS.items())
            if name is None:
                raise CheckpointError(f"The released checkpoints have no place for '{key}'.")
            theirs[name.replace(".bn.", ".gn.") if grouped else name] = value
    return theirs


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released tensors under our names; a tensor that is not known keeps its own."""
    inside = {key.removeprefix(BACKBONE): value for key, value in state.items() if key.startswith(BACKBONE)}
    form = "mmpretrain_dense" if any(".depthwise_conv." in key for key in inside) else "official"
    ours = {nested_name(key): value for key, value in our_names(inside, FORMATS[form]).items()}
    back = [(theirs, mine) for mine, theirs in _UNITS.items()]
    for key, value in state.items():
        if not key.startswith(BACKBONE):
            ours[_translated(key.replace(".gn.", ".bn."), back) or key] = value
    return ours


def load_official(
    model: Detector, source: str | Path, *, info: Callable[[str], None], classes: Sequence[str] = ()
) -> None:
    """Copy a released checkpoint into `model`; every tensor must find its place.

    Two things are adapted and logged, see `fitted`: layers of classes are matched by the names of `classes`, and heads that
    are others than the model's are left out. Raises CheckpointError for anything else, with the names.
    """
    refuse_foreign(model.backbone, source)
    tensors, header = read_tensors(source)
    if not any(key.startswith("roi_head.") for key in tensors):
        raise CheckpointError(
            f"{source} does not fit: it has no roi_head. Give a checkpoint of Mask R-CNN or of a cascade."
        )
    state, own = from_official(tensors), model.state_dict()
    state, read = fitted(state, own, LAYERS, header=header, classes=classes, info=info)
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked") and key not in state}
    try:
        check_tensors(state | counters, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state | counters)
    info(f"{source}: {read} tensors read (released names).")


def _translated(key: str, table: Iterable[tuple[str, str]]) -> str | None:
    """One tensor's name in the other language, or None where the table has no such unit."""
    for source, target in table:
        pattern = re.escape(source).replace(r"\{i\}", _TOKENS["{i}"]).replace(r"\{s\}", _TOKENS["{s}"])
        match = re.fullmatch(rf"{pattern}\.(?P<leaf>\w+)", key)
        if match:
            numbers = match.groupdict()
            return f"{target.format(i=numbers.get('i'), s=numbers.get('s'))}.{match['leaf']}"
    return None
