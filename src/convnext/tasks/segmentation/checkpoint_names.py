"""Checkpoints of UperNet as released with arXiv 2201.03545: the tensors of mmsegmentation, under 'state_dict'.

backbone.*            the classifier's names without norm and head, and norm{s} behind each stage
decode_head.*         psp_modules.j.1, bottleneck, lateral_convs.i, fpn_convs.i, fpn_bottleneck, conv_seg
auxiliary_head.*      convs.0, conv_seg
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from convnext.errors import CheckpointError
from convnext.models.expected import check_tensors
from convnext.models.formats import FORMATS, our_names, their_names
from convnext.models.tensors import read_tensors
from convnext.tasks.segmentation.segmenter import Segmenter
from convnext.tasks.weights import BACKBONE, ClassLayers, fitted, nested_name, plain_name, refuse_foreign

_OFFICIAL = FORMATS["official"]
_UNITS = {  # ours: theirs; each is a convolution with its norm
    "decoder.pyramid.branches.{i}": "decode_head.psp_modules.{i}.1",
    "decoder.pyramid.fuse": "decode_head.bottleneck",
    "decoder.laterals.{i}": "decode_head.lateral_convs.{i}",
    "decoder.smooths.{i}": "decode_head.fpn_convs.{i}",
    "decoder.fuse": "decode_head.fpn_bottleneck",
    "auxiliary.conv": "auxiliary_head.convs.0",
}
_CLASSIFIERS = {
    "decoder.classify.conv": "decode_head.conv_seg",
    "auxiliary.classify.conv": "auxiliary_head.conv_seg",
}


def _classes(state: Mapping[str, Tensor]) -> int | None:
    return next((len(value) for key, value in state.items() if key == "decoder.classify.conv.bias"), None)


LAYERS = ClassLayers(re.compile(r"(decoder|auxiliary)\.classify\.conv\."), _classes)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a UperNet on a ConvNeXt under the released names. Raises CheckpointError for a name without a place."""
    theirs: dict[str, Tensor] = {}
    inside: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(BACKBONE):
            inside[plain_name(key)] = value
        else:
            theirs[_translated(key, _UNITS | _CLASSIFIERS, {"norm": "bn"})] = value
    return {f"{BACKBONE}{key}": value for key, value in their_names(inside, _OFFICIAL).items()} | theirs


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released tensors under our names; a tensor that is not known keeps its own."""
    inside = {key.removeprefix(BACKBONE): value for key, value in state.items() if key.startswith(BACKBONE)}
    ours = {nested_name(key): value for key, value in our_names(inside, _OFFICIAL).items()}
    table = {theirs: mine for mine, theirs in (_UNITS | _CLASSIFIERS).items()}
    for key, value in state.items():
        if not key.startswith(BACKBONE):
            ours[_translated(key, table, {"bn": "norm"}, strict=False)] = value
    return ours


def load_official(
    model: Segmenter, source: str | Path, *, info: Callable[[str], None], classes: Sequence[str] = ()
) -> None:
    """Copy a released checkpoint into `model`; every tensor must find its place.

    Two things are adapted and logged, see `fitted`: classifiers are matched by the names of `classes`, and an auxiliary
    head that the model does not have is left out. Raises CheckpointError for anything else, with the names.
    """
    refuse_foreign(model.backbone, source)
    tensors, header = read_tensors(source)
    if not any(key.startswith("decode_head.") for key in tensors):
        raise CheckpointError(f"{source} does not fit: it has no decode_head. Give a checkpoint of a UperNet.")
    state, own = from_official(tensors), model.state_dict()
    state, read = fitted(state, own, LAYERS, header=header, classes=classes, info=info)
    missing = {key: value for key, value in own.items() if key.endswith("num_batches_tracked") and key not in state}
    try:
        check_tensors(state | missing, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state | missing)
    info(f"{source}: {read} tensors read (released names).")


def _translated(key: str, table: Mapping[str, str], parts: Mapping[str, str], *, strict: bool = True) -> str:
    """One tensor's name in the other language: the unit by `table`, the convolution or norm inside it by `parts`."""
    for source, target in table.items():
        pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)")
        match = re.fullmatch(rf"{pattern}\.(?P<rest>.+)", key)
        if match:
            part, _, leaf = match["rest"].partition(".")
            name = target.replace("{i}", match.groupdict().get("i") or "")
            return ".".join(filter(None, [name, parts.get(part, part), leaf]))
    if strict:
        raise CheckpointError(f"The released checkpoints have no place for '{key}'.")
    return key
