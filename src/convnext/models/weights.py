"""Pretrained weights: from a file or the hub into a network, strictly, and back out under other libraries' names."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError, ConvNeXtError, nearest, number_of
from convnext.models.convnext import ConvNeXt
from convnext.models.expected import check_tensors, expected_tensors
from convnext.models.formats import FORMATS, Format, our_names, recognise, their_names
from convnext.models.hub import download
from convnext.models.infer import config_of, differences, published
from convnext.models.tensors import read_tensors


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
    lacking = [name for name in ("stem.norm", "norm") if name in form.names and f"{name}.weight" not in state]
    lacking = [] if config.norm_first and "norm_maps" in form.names else lacking
    stems = ("pair",) if "_ols" in form.name else ("patch",)
    if form.name != "convnext" and (config.stem not in stems or lacking):
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
    if library == "timm":
        ols = "" if config.stem != "pair" else "_ols_act" if config.stem_activation else "_ols"
        known = published(config)
        convolutions = known is not None and (config.widths[0] <= 80 or known.name == "tiny_hnf")  # timm's atto to nano
        return f"timm{ols}{'_conv' * convolutions}"
    return _format(library).name


def _described(config: ConvNeXtConfig) -> str:
    return f"'{config.name}', depths {config.depths}, widths {config.widths}"


def _same_architecture(state: Mapping[str, Tensor], asked: ConvNeXtConfig) -> None:
    """Refuse tensors of another network by its name, which says more than a list of tensors."""
    held = config_of(state)
    fields = differences(held, asked)
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
