"""Which ConvNeXt a file of weights holds: the network is read off the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from statistics import mode
from typing import Any

from torch import Tensor

from convnext.config import ConvNeXtConfig, parse
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models.formats import FORMATS, our_names, recognise
from convnext.recipes.architectures import ARCHITECTURES, VARIANTS

STRUCTURE = (  # fields that decide names and shapes; of `norm` and `layer_scale` a part does: see `differences`
    *("depths", "widths", "stem", "patch", "stem_width", "stem_activation", "stem_norm", "kernel", "grn"),
    *("norm_first", "head_width"),
)
_SILENT = ("norm", "eps")  # fields that change the answer and no shape: known for published networks alone
_ACTIVATED = {  # timm's networks for its own tests: their activation is no GELU, and no shape shows it
    "test_convnext": ((1, 2, 4, 2), (24, 32, 48, 64)),
    "test_convnext2": ((1, 1, 1, 1), (32, 64, 96, 128)),
}


def infer_config(state: Mapping[str, Tensor]) -> ConvNeXtConfig:
    """The network that these tensors, in any known format, belong to; `name` is the published one, or 'custom'.

    Raises CheckpointError where they are not those of a ConvNeXt.
    """
    return config_of(our_names(state, FORMATS[recognise(state)]))


def config_of(state: Mapping[str, Tensor]) -> ConvNeXtConfig:
    """The same of tensors under our names."""
    blocks = [(int(s), int(b)) for s, b in re.findall(r"stages\.(\d+)\.blocks\.(\d+)\.", "\n".join(state))]
    depths = tuple(1 + max(b for s, b in blocks if s == stage) for stage in sorted({s for s, _ in blocks}))
    try:
        if sum(depths) > len(state):  # a block has several tensors: a wrong number in one name must not build a tower
            raise ValueError(f"{sum(depths):,} blocks are named by {len(state):,} tensors")
        widths = tuple(  # by majority, so that one wrong shape is reported as such
            mode(len(value) for value in _all_of(state, rf"stages\.{s}\.blocks\.\d+\.(norm|spatial)\.\w+"))
            for s in range(len(depths))
        )
        head = [state[key] for key in ("head.weight", "head.bias") if key in state]
        values = {
            "depths": depths,
            "widths": widths,
            **_stem(state, widths[0]),
            "stem_norm": any(key.startswith("stem.norm.") for key in state),
            "kernel": _kernel(state),
            "norm": _norm(state),
            "layer_scale": 1e-6 if any(key.endswith(".gamma") for key in state) else None,
            "grn": any(".grn." in key for key in state),
            "norm_first": "norm_maps.weight" in state,
            "head_width": len(state["hidden.weight"]) if "hidden.weight" in state else 0,
            "classes": len(head[0]) if head else 0,
        }
        config = parse(ConvNeXtConfig, values, where="its tensors")
    except (IndexError, ValueError, TypeError, ConvNeXtError) as error:
        raise CheckpointError(f"its tensors do not make a whole ConvNeXt: {_plain(error)}.") from None
    known = published(config)
    if known is not None:
        return config.model_copy(update={"name": known.name, **{field: getattr(known, field) for field in _SILENT}})
    _refuse_activated(config)
    return config


def published(config: ConvNeXtConfig) -> ConvNeXtConfig | None:
    """The published network whose tensors have these names and shapes, whatever their head; None for another one."""
    return next((each for each in (ARCHITECTURES | VARIANTS).values() if not differences(config, each)), None)


def differences(one: ConvNeXtConfig, other: ConvNeXtConfig) -> list[str]:
    """Fields in which two networks' tensors differ, head and input channels apart."""
    fields = [field for field in STRUCTURE if getattr(one, field) != getattr(other, field)]
    if (one.norm == "layer") != (other.norm == "layer"):
        fields.append("norm")
    return fields + (["layer_scale"] if (one.layer_scale is None) != (other.layer_scale is None) else [])


def _stem(state: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    """The fields of the first layer: one convolution of patches, or several of stride 2."""
    places = sorted(int(i) for i in re.findall(r"^stem\.layers\.(\d+)\.weight$", "\n".join(state), re.MULTILINE))
    layers = {i: state[f"stem.layers.{i}.weight"] for i in places}
    if 0 not in layers:
        raise IndexError("no tensor is called stem.layers.0.weight")
    convolutions = {i: value for i, value in layers.items() if value.ndim == 4}
    first = layers[0]  # (C, in_channels, k, k)
    fields: dict[str, Any] = {"in_channels": first.shape[1]}
    if len(convolutions) == 2 and len(layers) == 2:  # with nothing to learn between them
        middle = first.shape[0]
        pair = {"stem_width": None if middle == width else middle, "stem_activation": 2 in convolutions}
        return fields | {"stem": "pair", "patch": 4, **pair}
    if len(convolutions) > 1 or first.shape[-1] == 3:
        return fields | {"stem": "overlap", "patch": 2 ** len(convolutions)}
    return fields | {"stem": "patch", "patch": first.shape[-1]}


def _kernel(state: Mapping[str, Tensor]) -> int:
    sides = [each.shape[-1] for each in _all_of(state, r"stages\.\d+\.blocks\.\d+\.spatial\.weight")]
    by_stage = {mode(_sides_of(state, s)) for s in {key.split(".")[1] for key in state if key.startswith("stages.")}}
    if len(by_stage) > 1:
        raise ValueError(f"its depthwise kernels are of {' and '.join(map(str, sorted(by_stage)))}, one a stage")
    return mode(sides)


def _sides_of(state: Mapping[str, Tensor], stage: str) -> list[int]:
    return [each.shape[-1] for each in _all_of(state, rf"stages\.{stage}\.blocks\.\d+\.spatial\.weight")]


def _norm(state: Mapping[str, Tensor]) -> str:
    """'layer', or 'rms' where no norm has a bias; which of the two that only scale, `published` knows."""
    _all_of(state, r"stages\.\d+\.blocks\.\d+\.norm\.weight")
    return "layer" if any(re.fullmatch(r"stages\.\d+\.blocks\.\d+\.norm\.bias", key) for key in state) else "rms"


def _refuse_activated(config: ConvNeXtConfig) -> None:
    for name, shape in _ACTIVATED.items():
        if (config.depths, config.widths) == shape:
            raise CheckpointError(
                f"it has the shapes of timm's '{name}', whose activation is not GELU and is not built here. Give other "
                "weights."
            )


def _all_of(state: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    found = [value for key, value in state.items() if re.fullmatch(pattern, key)]
    if not found:
        raise IndexError(f"no tensor is called {pattern.replace(chr(92), '')}")
    return found


def _plain(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
