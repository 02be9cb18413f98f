"""One ConvNeXt in any library's names and shapes: read strictly, expressed strictly, never a changed bit.

Three kinds of network: a 'classifier'; 'features', which end in the final norm; and a dense 'backbone' for detection
and segmentation, with a norm after every stage instead. Files are written in deploy/convert.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError, ConvNeXtError, nearest, number_of
from convnext.models.convnext import EPS
from convnext.models.description import class_names
from convnext.models.expected import check_tensors, expected_tensors
from convnext.models.formats import FORMATS, Format, their_names, translate
from convnext.models.infer import infer_config
from convnext.models.keras_layout import to_keras
from convnext.models.opened import opened
from convnext.models.provenance import Provenance, provenance
from convnext.models.sources import find
from convnext.models.tensors import record_of
from convnext.models.weights import published_format

LIBRARIES = ("official", "timm", "torchvision", "transformers", "keras-npz", "mmpretrain", "convnext")
_DENSE_HEADS = {  # what stands beside 'backbone' in a whole detector or segmenter: released ones, then ours
    *("neck", "rpn_head", "roi_head", "decode_head", "auxiliary_head"),
    *("fpn", "rpn", "heads", "decoder", "auxiliary"),
}
_KERAS_SIZES = ("tiny", "small", "base", "large", "xlarge")  # in keras.applications
_STEM = "stem.layers.0.weight"


@dataclass(frozen=True)
class Weights:
    """A whole network's tensors under our names, and what is known of them."""

    state: dict[str, Tensor]
    config: ConvNeXtConfig
    dense: bool  # a norm after every stage, 'norms.{s}', no final norm and no head
    format_name: str  # of FORMATS, in which they came
    provenance: Provenance
    classes: tuple[str, ...] = ()  # names, where the file or a config.json beside it has them
    eps: float | None = None  # of the final norm, where a config.json beside the file says so
    record: dict[str, Any] = field(default_factory=dict)  # what the run wrote into its checkpoint: recipe, classes, ...
    notes: tuple[str, ...] = ()  # what was left out, in sentences

    @property
    def kind(self) -> str:
        """'classifier', 'features' (no head) or 'backbone' (dense)."""
        return "backbone" if self.dense else "classifier" if self.config.classes else "features"


def read_weights(source: str | Path) -> Weights:
    """The network in a file of any known format, in a folder, or in a repository of the hub: see `sources.find`.

    Strict: raises CheckpointError that names, as the file does, every tensor that is missing, too much or misshapen.
    From a whole detector the backbone is taken, and `notes` say what was left out.
    """
    files = find(source)
    tensors, header = files.read()
    record = record_of(header)
    tensors, notes = _of_detector(tensors)
    try:
        found = opened(tensors)
        name, tensors, state = found.format_name, found.theirs, found.ours
        if _STEM not in state:
            raise CheckpointError(f"1 missing: {translate(_STEM, FORMATS[name], to_ours=False)}. It is the stem.")
        dense = _has_norms(state, FORMATS[name])
        if name == "mmpretrain_dense" and dense and _one_norm(state):  # its final norm is called as the last stage's
            state, dense = {key.replace("norms.3.", "norm."): value for key, value in state.items()}, False
            tensors = state
            name = "mmpretrain"
            config = infer_config(state)
            check_tensors(state, expected_tensors(config))
        else:
            config = infer_config(state)
            check_tensors(tensors, their_names(expected_tensors(config, dense=dense), FORMATS[name]))
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    beside = files.beside.get("config.json", {}) if name.startswith("transformers") else {}
    return Weights(
        state,
        config,
        dense,
        name,
        provenance(files.name, header, config=files.beside.get("config.json")),
        class_names(header, record, beside, config.classes),
        beside.get("layer_norm_eps"),
        {} if notes else record,  # of a whole detector: it says nothing of the backbone alone
        (*notes, *found.notes),
    )


def express(weights: Weights, library: str) -> dict[str, Tensor]:
    """The tensors as `library` of LIBRARIES names and shapes them, e.g. for `load_state_dict(..., strict=True)`.

    Raises ConvNeXtError for an unknown library and CheckpointError, naming those that can, where it has no such network.
    """
    if library not in LIBRARIES:
        raise ConvNeXtError(f"No library is called '{library}'.{nearest(library, LIBRARIES)} {_these(LIBRARIES)}")
    check_tensors(weights.state, expected_tensors(weights.config, dense=weights.dense))
    lacking = lacks(library, weights)
    if lacking:
        able = [each for each in LIBRARIES if not lacks(each, weights)]
        raise CheckpointError(f"{library} has no {lacking}, as '{weights.config.name}' needs. Take --to {_or(able)}.")
    theirs = their_names(weights.state, FORMATS[format_for(library, weights)])
    if library == "keras-npz":
        return to_keras(theirs, keras_name(weights.config))
    if library in ("official", "mmpretrain") and weights.dense:
        return {f"backbone.{key}": value for key, value in theirs.items()}  # its place in a detector
    return theirs


def format_for(library: str, weights: Weights) -> str:
    """The name in FORMATS that `library` uses for this network."""
    if library == "keras-npz":
        return "keras"
    if library == "mmpretrain":
        return "mmpretrain_dense" if weights.dense else "mmpretrain"
    name = published_format(library, weights.config)
    return f"{name}_bare" if library == "transformers" and weights.kind != "classifier" else name


def keras_name(config: ConvNeXtConfig) -> str:
    """What keras.applications calls this network, and puts before the name of every layer."""
    return f"convnext_{config.name}" if config.name in _KERAS_SIZES else "convnext"


def lacks(library: str, weights: Weights) -> str:
    """What this network has and `library` has not, in words; '' where the library can build it."""
    if library == "convnext":
        return ""
    config = weights.config
    isotropic = len(config.depths) == 1 and not config.stem_norm
    gamma = config.layer_scale is not None
    patch = 16 if isotropic else 4
    hard_coded = {"official", "torchvision", "keras-npz"}
    every = set(LIBRARIES)
    timm = every - {"timm"}
    rules: list[tuple[bool, str, set[str]]] = [
        (config.stem == "overlap", "overlap stem", every),
        (config.stem == "pair", "stem of two convolutions", timm),
        (config.antialias, "blur before a downsampling layer", every),
        (config.norm != "layer", "norm without a shift", timm),
        (config.norm_first, "norm before the mean over space", timm),
        (config.head_width > 0, "hidden layer before the head", timm),
        (config.eps != EPS, f"eps of {config.eps:g} in every norm", timm),
        (not config.stem_norm and not isotropic, "stem without a norm", every),
        (isotropic, "isotropic network", every - {"official"}),
        (isotropic and config.grn, "isotropic network of V2 blocks", every),
        (config.grn, "V2 block", {"torchvision", "keras-npz"}),
        (config.grn and gamma, "block with layer scale and GRN", {"official", "transformers"}),
        (not config.grn and not gamma, "block without layer scale", {"torchvision"}),
        (weights.dense, "norm after every stage", {"timm", "torchvision", "keras-npz"}),
        (weights.dense and isotropic, "norm after every stage of an isotropic network", every),
        (
            not isotropic and len(config.depths) != 4,
            f"network of {number_of(len(config.depths), 'stage')}",
            every - {"torchvision", "transformers"},
        ),
        (config.kernel != 7, f"kernel of {config.kernel}", every - {"timm"}),
        (config.patch != patch, f"stem of {config.patch} px", hard_coded),
        (config.patch == 2, "stem of 2 px without a downsampling layer behind it", {"timm"}),
        (config.in_channels != 3, f"stem for {number_of(config.in_channels, 'channel')}", {"torchvision"}),
    ]
    return next((what for applies, what, without in rules if applies and library in without), "")


def _of_detector(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The backbone out of a detector or a segmenter, and what else there was."""
    parts = [key.partition(".")[0] for key in tensors]
    others = sorted(set(parts) - {"backbone"})
    if "backbone" not in parts or not others or not set(others) <= _DENSE_HEADS:
        return tensors, ()
    counts = ", ".join(f"{part} ({number_of(parts.count(part), 'tensor')})" for part in others)
    backbone = {key.removeprefix("backbone."): t for key, t in tensors.items() if key.startswith("backbone.")}
    backbone = {key.removeprefix("network."): t for key, t in backbone.items()}  # ours has its norms beside the network
    return backbone, (f"Only the backbone is converted; left out: {counts}.",)


def _has_norms(state: Mapping[str, Tensor], form: Format) -> bool:
    return "norms.{s}" in form.names and any(key.startswith("norms.") for key in state)


def _one_norm(state: Mapping[str, Tensor]) -> bool:
    return {key for key in state if key.startswith("norms.")} <= {"norms.3.weight", "norms.3.bias"}


def _these(names: tuple[str, ...]) -> str:
    return f"There are {', '.join(names)}."


def _or(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
