"""Pretrained weights: from a file or the hub into a network, strictly, and back out under other libraries' names."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from statistics import mode
from types import MappingProxyType

import torch
from torch import Tensor, nn

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError, ConvNeXtError, nearest, number_of
from convnext.models.convnext import ConvNeXt
from convnext.models.formats import FORMATS, Format, our_names, recognise, their_names
from convnext.models.hub import download
from convnext.models.tensors import read_tensors
from convnext.recipes.architectures import ARCHITECTURES

STRUCTURE = ("depths", "widths", "stem", "patch", "stem_norm", "kernel", "grn")  # fields that decide names and shapes


def load_weights(model: nn.Module, source: str, *, info: Callable[[str], None]) -> None:
    """Copy the weights of `source`, a file or 'hub:OWNER/NAME', into `model`; every tensor must find its place.

    Three things are adapted and logged: a head for another number of classes keeps the fresh values it was built with,
    a head that the network does not have is left out, and a stem for colour is summed over its channels for grey.
    Files from transformers were trained with the final norm's eps of their config (1e-12 by default); ours is 1e-6.
    Raises CheckpointError for anything else: it names the tensors, or the architecture found and the one asked for.
    """
    state, _ = read_tensors(download(source.removeprefix("hub:")) if source.startswith("hub:") else source)
    try:
        if isinstance(model, ConvNeXt):
            format_name = recognise(state)
            state = our_names(state, FORMATS[format_name])
            _same_architecture(state, model.config)
            state = _grey_stem(state, model.config, info)
        elif not hasattr(model, "head_prefixes"):  # a network of this package that no other library has
            format_name = "convnext"
        else:
            format_name = "timm"
            state = {key if key.startswith("network.") else f"network.{key}": value for key, value in state.items()}
        state = _fitting_head(state, model, info)
        check_tensors(state, model.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state)
    info(f"{source}: {len(state)} tensors read ('{format_name}' names).")


def to_ours(state: Mapping[str, Tensor], format_name: str, config: ConvNeXtConfig) -> dict[str, Tensor]:
    """`state` of that format under our names and in our shapes. Raises CheckpointError unless it fills `config`."""
    ours = our_names(state, _format(format_name))
    _same_architecture(ours, config)
    check_tensors(ours, expected_tensors(config))
    return ours


def from_ours(state: Mapping[str, Tensor], format_name: str, config: ConvNeXtConfig) -> dict[str, Tensor]:
    """Our `state` as that format writes it; raises CheckpointError where the format cannot hold this network."""
    form = _format(format_name)
    check_tensors(state, expected_tensors(config))
    lacking = [name for name in form.names if "{" not in name and name != "head" and f"{name}.weight" not in state]
    if form.name != "convnext" and (config.stem != "patch" or lacking):
        raise CheckpointError(
            f"The format '{form.name}' cannot hold this network ({_described(config)}). Take 'convnext'."
        )
    return their_names(state, form)


def published_format(library: str, config: ConvNeXtConfig) -> str:
    """Which format of FORMATS a library ('official', 'timm', 'torchvision', 'transformers') uses for `config`."""
    if library == "official" and len(config.depths) == 1:
        return "official_isotropic"
    if library == "transformers" and config.grn:
        return "transformers_v2"
    if library == "timm" and config.widths[0] <= 80 and _published_name(config) != "custom":  # timm's atto to nano
        return "timm_conv"
    return _format(library).name


def infer_config(state: Mapping[str, Tensor]) -> ConvNeXtConfig:
    """The network that these tensors, in any known format, belong to; `name` is the published one, or 'custom'.

    Raises CheckpointError where they are not those of a ConvNeXt.
    """
    state = our_names(state, FORMATS[recognise(state)])
    blocks = [(int(s), int(b)) for s, b in re.findall(r"stages\.(\d+)\.blocks\.(\d+)\.", "\n".join(state))]
    if "stem.norm.weight" in state and state["stem.norm.weight"].ndim > 1:  # where ours has its norm
        raise CheckpointError("its stem is two convolutions, as in timm's '_ols' networks, which are not built here.")
    depths = tuple(1 + max(b for s, b in blocks if s == stage) for stage in sorted({s for s, _ in blocks}))
    try:
        widths = tuple(  # by majority, so that one wrong shape is reported as such
            mode(len(value) for value in _all_of(state, rf"stages\.{s}\.blocks\.\d+\.(norm|spatial)\.\w+"))
            for s in range(len(depths))
        )
        stem = _all_of(state, r"stem\.layers\.0\.weight")[0]  # (C, in_channels, k, k)
        kernel = mode(each.shape[-1] for each in _all_of(state, r"stages\.\d+\.blocks\.\d+\.spatial\.weight"))
        head = [state[key] for key in ("head.weight", "head.bias") if key in state]
        convolutions = [
            key for key in state if re.fullmatch(r"stem\.layers\.\d+\.weight", key) and state[key].ndim == 4
        ]
        overlap = len(convolutions) > 1 or stem.shape[-1] == 3
        config = ConvNeXtConfig(
            depths=depths,
            widths=widths,
            stem="overlap" if overlap else "patch",
            patch=2 ** len(convolutions) if overlap else stem.shape[-1],
            stem_norm=any(key.startswith("stem.norm.") for key in state),
            kernel=kernel,
            layer_scale=1e-6 if any(key.endswith(".gamma") for key in state) else None,
            grn=any(".grn." in key for key in state),
            in_channels=stem.shape[1],
            classes=len(head[0]) if head else 0,
        )
    except (IndexError, ValueError, TypeError) as error:
        raise CheckpointError(f"its tensors do not make a whole ConvNeXt: {str(error).splitlines()[0]}.") from None
    return config.model_copy(update={"name": _published_name(config)})


def _all_of(state: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    found = [value for key, value in state.items() if re.fullmatch(pattern, key)]
    if not found:
        raise IndexError(f"no tensor is called {pattern.replace(chr(92), '')}")
    return found


def _differences(one: ConvNeXtConfig, other: ConvNeXtConfig) -> list[str]:
    """Fields in which two networks' tensors differ, head and input channels apart."""
    fields = [field for field in STRUCTURE if getattr(one, field) != getattr(other, field)]
    return fields + (["layer_scale"] if (one.layer_scale is None) != (other.layer_scale is None) else [])


def _published_name(config: ConvNeXtConfig) -> str:
    same = (name for name, published in ARCHITECTURES.items() if not _differences(config, published))
    return next(same, "custom")


def _described(config: ConvNeXtConfig) -> str:
    return f"'{config.name}', depths {config.depths}, widths {config.widths}"


def _same_architecture(state: Mapping[str, Tensor], asked: ConvNeXtConfig) -> None:
    """Refuse tensors of another network by its name, which says more than a list of tensors."""
    held = infer_config(state)
    fields = _differences(held, asked)
    if not fields:
        return
    if set(fields) <= {"stem", "patch"}:
        raise CheckpointError(
            f"its stem is a '{held.stem}' stem of {held.patch} px and the model's is '{asked.stem}' of {asked.patch} "
            f"px: their kernels have other shapes. Build the model with stem = {held.stem} and patch = {held.patch} "
            f"(`--model.stem {held.stem} --model.patch {held.patch}`; recipe 'finetune' has the stem of published "
            "weights), or start without weights."
        )
    named = f"Take the model '{held.name}'" if held.name != "custom" else "Build the model with these values"
    if set(fields) & {"stem", "patch"}:
        named += (
            f" with stem = {held.stem} and patch = {held.patch}, as recipe 'finetune' has them for published weights"
        )
    values = "; ".join(f"{field}: {getattr(held, field)} held, {getattr(asked, field)} asked" for field in fields)
    raise CheckpointError(
        f"it holds '{held.name}' and '{asked.name}' was asked for ({values}). {named}, or give other weights."
    )


def _grey_stem(state: dict[str, Tensor], config: ConvNeXtConfig, info: Callable[[str], None]) -> dict[str, Tensor]:
    """The stem's kernel for the model's input channels: 3 -> 1 is the sum, which is what a grey image would give."""
    kernel = state["stem.layers.0.weight"]
    held = kernel.shape[1]
    if held == config.in_channels:
        return state
    if (held, config.in_channels) != (3, 1):
        raise CheckpointError(
            f"its stem reads {number_of(held, 'channel')} and the model {config.in_channels}; only 3 can become 1. "
            f"Set in_channels = {held}, or start without weights."
        )
    info("stem for 3 channels summed into one for grey images")
    return state | {"stem.layers.0.weight": kernel.sum(1, keepdim=True)}


def _fitting_head(state: dict[str, Tensor], model: nn.Module, info: Callable[[str], None]) -> dict[str, Tensor]:
    """`state` with the model's own fresh head, or without one, where the classes differ."""
    prefix = getattr(model, "head_prefixes", "head.")
    fresh = {key: value for key, value in model.state_dict().items() if key.startswith(prefix)}
    held = {key: value for key, value in state.items() if key.startswith(prefix)}
    if {key: value.shape for key, value in held.items()} == {key: value.shape for key, value in fresh.items()}:
        return state
    rest = {key: value for key, value in state.items() if key not in held}
    if not fresh:
        info(f"head of {number_of(_classes(held), 'class', 'classes')} left out: the model has none")
        return rest
    if not held:
        info(f"no head in the weights: a new one for {_classes(fresh)}")
        return rest | fresh
    if {key: value.shape[1:] for key, value in held.items()} != {key: value.shape[1:] for key, value in fresh.items()}:
        return state  # not the class count alone: the check names what is wrong
    info(f"head of {number_of(_classes(held), 'class', 'classes')} replaced by a new one for {_classes(fresh)}")
    return rest | fresh


def _classes(head: Mapping[str, Tensor]) -> int:
    return len(next(iter(head.values())))


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConvNeXtError(f"No format is called '{name}'.{nearest(name, FORMATS)} There are {', '.join(FORMATS)}.")
    return FORMATS[name]


@lru_cache(maxsize=64)
def expected_tensors(config: ConvNeXtConfig, *, dense: bool = False) -> Mapping[str, Tensor]:
    """Names and shapes of every tensor of `config`, without memory; `dense`: a norm for each stage, no norm and head."""
    with torch.device("meta"):
        state = ConvNeXt(config).state_dict()
        if dense:
            state = {name: value for name, value in state.items() if not name.startswith(("norm.", "head."))}
            for s, width in enumerate(config.widths):
                state |= {f"norms.{s}.{leaf}": torch.empty(width) for leaf in ("weight", "bias")}
        return MappingProxyType(state)


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError that names what is missing, what is too much, and what has another shape."""
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    found = {"missing": missing, "not in the model": extra, "of another shape": misshapen}
    parts = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in found.items() if keys]
    if parts:
        raise CheckpointError(f"{'; '.join(parts)}. Give the weights of exactly this model.")


def _listed(keys: list[str], most: int = 5) -> str:
    """'a, b, c and 12 more'"""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
