"""What weights say of themselves: the network, its classes, how its images are normalised, its licence, its tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnext.config import ConvNeXtConfig, parse
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models import sources
from convnext.models.description import class_names, mapping, preprocessing
from convnext.models.expected import check_tensors, expected_tensors
from convnext.models.infer import config_of
from convnext.models.opened import CLIP, Opened, opened
from convnext.models.provenance import Provenance, provenance
from convnext.models.tensors import record_of

_PART = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.")  # in the name of a file that holds some of the tensors
_HALF = (torch.float16, torch.bfloat16)
_FIT_FOR_USE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Start:
    """Weights to start from: `tensors` under our names, in float32 (float64 where the file has that).

    The final norm, the hidden layer and the head may be missing from them; everything else fills `config`.
    """

    source: str  # as it was asked for
    path: Path  # the file, or the index of its parts
    format: str  # of the names in the file, of `formats.FORMATS`
    config: ConvNeXtConfig  # by the shapes in the file; `name` is the published one or 'custom'
    classes: tuple[str, ...] | None  # names of the rows of the head, where the file has them
    mean: tuple[float, ...] | None  # share of white, a value a channel; None here and below: the weights do not say
    std: tuple[float, ...] | None
    size_px: int | None  # side of the images that it was trained on
    eval_crop: float | None  # share of the resized shorter side that evaluation cuts out
    interpolation: str | None  # 'bicubic', ...
    provenance: Provenance
    tensors: Mapping[str, Tensor] = field(repr=False)
    notes: tuple[str, ...] = ()  # what was adapted or left out, in sentences
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of our own run: its recipe and the like

    @property
    def licence(self) -> str:
        """Of the weights, or 'unknown'."""
        return self.provenance.licence


def read_start(source: str | Path) -> Start:
    """The weights in a file, a folder (of a run, or with a config.json), 'hub:OWNER/NAME' or 'timm:NAME.TAG'.

    Raises CheckpointError, in one line, for what cannot be read and for what is no whole ConvNeXt.
    """
    files = sources.find(source)
    tensors, header = files.read()
    record, beside = record_of(header), files.beside
    try:
        found = opened(tensors)
        state, notes = _single(found)
        config = config_of(state)
        state, more = _whole(state, config)
    except CheckpointError as error:
        if _PART.search(files.path.name):
            raise CheckpointError(
                f"{source} is one of several parts: give their folder, or the index beside it."
            ) from None
        raise CheckpointError(f"{source}: {error}") from None
    config = _with_silent_fields(config, record)
    family = _family(found, files)
    images = preprocessing(record, beside, config.in_channels, family=family)
    return Start(
        source=str(source),
        path=files.path,
        format=found.format_name,
        config=config,
        classes=class_names(header, record, beside.get("config.json", {}), config.classes) or None,
        mean=images.mean,
        std=images.std,
        size_px=images.size_px,
        eval_crop=images.eval_crop,
        interpolation=images.interpolation,
        provenance=provenance(files.name, header, config=beside.get("config.json")),
        tensors=state,
        notes=(*found.notes, *notes, *more, *images.notes, *_assumed(config)),
        record=record,
    )


def _single(found: Opened) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in float32, or as they are in float64. Raises CheckpointError for those of no real number."""
    kinds = {str(value.dtype).removeprefix("torch."): value for value in found.ours.values()}
    for name, value in kinds.items():
        if value.dtype not in (*_HALF, *_FIT_FOR_USE):
            raise CheckpointError(f"its tensors are {name}: quantized weights are not read. Give those in float32.")
    halves = [name for name, value in kinds.items() if value.dtype in _HALF]
    notes = [f"{' and '.join(sorted(halves))} read as float32."] if halves else []
    return {key: v.float() if v.dtype in _HALF else v for key, v in found.ours.items()}, notes


def _whole(state: dict[str, Tensor], config: ConvNeXtConfig) -> tuple[dict[str, Tensor], list[str]]:
    """`state` without a dense backbone's norms. Raises CheckpointError unless the rest fills `config` but for its end.

    The end is the final norm and the head: those of pre-training and of detectors have none.
    """
    notes = []
    dense = [key for key in state if key.startswith("norms.")]
    if dense:
        state = {key: value for key, value in state.items() if key not in dense}
        notes.append("Left out: the norms behind the stages, of a detector or a segmenter.")
    expected = dict(expected_tensors(config))
    ends = [end for end in ("norm.", "head.") if not any(key.startswith(end) for key in state)]
    check_tensors(state, {key: value for key, value in expected.items() if not key.startswith(tuple(ends))})
    if "norm." in ends and not config.norm_first:
        notes.append("The weights have no final norm: it starts fresh.")
    return state, notes


def _with_silent_fields(config: ConvNeXtConfig, record: Mapping[str, Any]) -> ConvNeXtConfig:
    """`config` with what no shape shows and a run of ours has written down."""
    held = mapping(mapping(record.get("recipe")).get("model"))
    fields = {name: held[name] for name in ("name", "norm", "eps") if name in held}
    if held.get("family") != "convnext" or (fields.get("norm", "layer") == "layer") != (config.norm == "layer"):
        return config
    try:
        return parse(ConvNeXtConfig, config.model_dump() | fields, where="the recipe in the file")
    except ConvNeXtError as error:
        raise CheckpointError(str(error)) from None


def _family(found: Opened, files: sources.Files) -> str:
    """'clip' for the image tower of such a model and for what was made of one, by its place or its name in timm."""
    named = f"{files.repository}/{files.path.parent.name}/{files.path.name}"
    return "clip" if found.prefix.endswith(CLIP) or re.search(r"convnext_\w+\.clip_", named) else ""


def _assumed(config: ConvNeXtConfig) -> list[str]:
    if config.norm != "layer" and config.name == "custom":
        return ["Its norms have no bias: they are taken for RMSNorm, which no tensor can confirm."]
    return []
