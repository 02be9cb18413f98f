"""Pretrained weights: from a file or the hub into a network, strictly, and back out under other libraries' names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError, ConvNeXtError, nearest, number_of
from convnext.models.convnext import ConvNeXt
from convnext.models.description import class_names
from convnext.models.expected import check_tensors, expected_tensors
from convnext.models.formats import FORMATS, Format, our_names, their_names
from convnext.models.heads import matched
from convnext.models.infer import config_of, differences, published
from convnext.models.sources import find
from convnext.models.start import read_start
from convnext.models.tensors import record_of


def load_weights(
    model: nn.Module, source: str | Path, *, info: Callable[[str], None], classes: Sequence[str] = ()
) -> None:
    """Copy the weights of `source`, as `sources.find` takes it, into `model`; every tensor must find its place.

    Adapted and logged: of a head, the rows of those classes are taken over that have the same name, `classes` being
    those of the data (see `heads.matched`); a head that the network does not have is left out; a stem for colour becomes
    one for any number of channels. Raises CheckpointError for anything else: it names the tensors, or the architecture
    found and the one asked for.
    """
    if not isinstance(model, ConvNeXt):
        _load_other(model, source, info, classes)
        return
    start = read_start(source)
    for note in start.notes:
        info(note)
    own = model.state_dict()
    try:
        same_architecture(start.config, model.config)
        state = with_channels(start.tensors, model.config, info)
        ends = {key: own[key] for key in own if key.startswith(("norm.", "norm_maps.")) and key not in state}
        state, fresh = _fitting_head(state, own, start.classes, classes, info)
        check_tensors(state | ends, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state | ends)
    info(f"{source}: {len(state) - fresh} tensors read ('{start.format}' names).")


def _load_other(model: nn.Module, source: str | Path, info: Callable[[str], None], classes: Sequence[str]) -> None:
    """The same for a baseline, under timm's names, or another network of this package."""
    files = find(source)
    tensors, header = files.read()
    state, own, prefix = tensors, model.state_dict(), getattr(model, "head_prefixes", ("head.",))
    if hasattr(model, "head_prefixes"):  # timm's
        state = {key if key.startswith("network.") else f"network.{key}": value for key, value in state.items()}
    held = next((len(value) for key, value in state.items() if key.startswith(prefix) and value.ndim), 0)
    names = class_names(header, record_of(header), files.beside.get("config.json", {}), held)
    try:
        state, fresh = _fitting_head(state, own, names, classes, info, prefix)
        check_tensors(state, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source} does not fit: {error}") from None
    model.load_state_dict(state)
    format_name = "timm" if hasattr(model, "head_prefixes") else "convnext"
    info(f"{source}: {len(state) - fresh} tensors read ('{format_name}' names).")


def to_ours(state: Mapping[str, Tensor], format_name: str, config: ConvNeXtConfig) -> dict[str, Tensor]:
    """`state` of that format under our names and in our shapes. Raises CheckpointError unless it fills `config`."""
    ours = our_names(state, _format(format_name))
    same_architecture(config_of(ours), config)
    check_tensors(ours, expected_tensors(config))
    return ours


def from_ours(state: Mapping[str, Tensor], format_name: str, config: ConvNeXtConfig) -> dict[str, Tensor]:
    """Our `state` as that format writes it; raises CheckpointError where the format cannot hold this network."""
    form = _format(format_name)
    check_tensors(state, expected_tensors(config))
    lacking = [name for name in ("stem.norm", "norm") if name in form.names and f"{name}.weight" not in state]
    lacking = [] if config.norm_first and "norm_maps" in form.names else lacking
    stems = ("pair",) if "_ols" in form.name else ("patch",)
    if form.name != "convnext" and (config.stem not in stems or config.antialias or lacking):
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


def same_architecture(held: ConvNeXtConfig, asked: ConvNeXtConfig) -> None:
    """Refuse tensors of another network by its name, which says more than a list of tensors."""
    fields = differences(held, asked)
    if not fields:
        return
    if set(fields) <= {"stem", "patch", "stem_width", "stem_activation"}:
        more = [field for field in ("stem_width", "stem_activation") if getattr(held, field) != getattr(asked, field)]
        also = "".join(f" and {field} = {getattr(held, field)}" for field in more)
        flags = " ".join(f"--model.{field} {getattr(held, field)}" for field in ("stem", "patch", *more))
        raise CheckpointError(
            f"its stem is a '{held.stem}' stem of {held.patch} px and the model's is '{asked.stem}' of {asked.patch} "
            f"px: their kernels have other shapes. Build the model with stem = {held.stem} and patch = {held.patch}{also} "
            f"(`{flags}`), name no model, so that the network is that of the weights, or start without weights."
        )
    named = f"Take the model '{held.name}'" if held.name != "custom" else "Build the model with these values"
    if set(fields) & {"stem", "patch"}:
        named += f" with stem = {held.stem} and patch = {held.patch}"
    values = "; ".join(f"{field}: {getattr(held, field)} held, {getattr(asked, field)} asked" for field in fields)
    raise CheckpointError(
        f"it holds '{held.name}' and '{asked.name}' was asked for ({values}). {named}, or give other weights."
    )


def with_channels(
    state: Mapping[str, Tensor], config: ConvNeXtConfig, info: Callable[[str], None]
) -> Mapping[str, Tensor]:
    """`state` with the stem's kernel for the model's input channels, where it was made for three.

    For one it is the sum, which is what a grey image would give. For N, the three are repeated and scaled by 3 / N, so
    that a stem sees as much as before (as timm does it).
    """
    kernel = state["stem.layers.0.weight"]
    held, asked = kernel.shape[1], config.in_channels
    if held == asked:
        return state
    if held != 3:
        raise CheckpointError(
            f"its stem reads {number_of(held, 'channel')} and the model {asked}; only 3 can become another number. "
            f"Set in_channels = {held}, or start without weights."
        )
    if asked == 1:
        info("stem for 3 channels summed into one for grey images")
        return {**state, "stem.layers.0.weight": kernel.sum(1, keepdim=True)}
    info(f"stem for 3 channels repeated for {asked}, and scaled by 3/{asked}")
    repeated = kernel.repeat(1, -(-asked // 3), 1, 1)[:, :asked] * (3 / asked)
    return {**state, "stem.layers.0.weight": repeated}


def _fitting_head(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    held_names: Sequence[str] | None,
    asked_names: Sequence[str],
    info: Callable[[str], None],
    prefix: tuple[str, ...] = ("head.",),
) -> tuple[dict[str, Tensor], int]:
    """`state` with the head that the model can use, and how many of its tensors are the model's own fresh ones."""
    fresh = {key: value for key, value in own.items() if key.startswith(prefix)}
    held = {key: value for key, value in state.items() if key.startswith(prefix)}
    rest = {key: value for key, value in state.items() if key not in held}
    if held and not fresh:
        info(f"head of {number_of(_classes(held), 'class', 'classes')} left out: the network has none")
        return rest, 0
    if not held:
        if fresh:
            info(f"no head in the weights: a new one for {_classes(fresh)}")
        return rest | fresh, len(fresh)
    if held.keys() != fresh.keys() or any(
        value.ndim != fresh[key].ndim or value.shape[1:] != fresh[key].shape[1:] for key, value in held.items()
    ):
        return dict(state), 0  # not the class count alone: the check names what is wrong
    rows = matched(_classes(held), _classes(fresh), held_names, asked_names)
    if rows.note:
        info(rows.note)
    return rest | rows.fit(held, fresh), len(fresh) if rows.none() else 0


def _classes(head: Mapping[str, Tensor]) -> int:
    return len(next(iter(head.values())))


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConvNeXtError(f"No format is called '{name}'.{nearest(name, FORMATS)} There are {', '.join(FORMATS)}.")
    return FORMATS[name]
