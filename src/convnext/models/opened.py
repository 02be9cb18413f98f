"""The one ConvNeXt among the tensors of a file: found behind any prefix, under our names, and what was left out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from convnext.errors import number_of
from convnext.models.formats import FORMATS, best_format, first_tensors, our_names, recognise, translate
from convnext.models.sparse_layout import from_sparse

CLIP = "visual.trunk."  # where open_clip's models have their image tower
_COPY = 0.9  # of the tensors that fit best: another copy of the same network
_OFFICIAL_EXTRAS = {  # what released files hold beside the network, by the beginning of its name
    "norms.": "norms of the stages' features (the last one repeats the final norm)",
    "projectors.": "the projectors of a distillation",
    **dict.fromkeys(("decoder.", "proj.", "pred.", "mask_token"), "the decoder of masked pre-training"),
}
_MOST = 4  # parts that a note names


@dataclass(frozen=True)
class Opened:
    """Tensors of one network in one format."""

    format_name: str  # of FORMATS
    prefix: str  # before every name in the file, e.g. 'model.backbone.'
    theirs: dict[str, Tensor]  # under the names of the file less the prefix
    ours: dict[str, Tensor]  # the same under our names and in our shapes
    notes: tuple[str, ...] = ()  # what was left out, in sentences


def opened(tensors: Mapping[str, Tensor]) -> Opened:
    """The ConvNeXt among `tensors`. Raises CheckpointError where there is none.

    What stands outside the common prefix of its names, such as a text tower, a loss or a second copy, is left out; so
    is what released files hold beside the network. `notes` say what.
    """
    run = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    prefix, inside = _densest(run or tensors)
    name = recognise(inside)
    notes = [] if run else _outside(tensors, prefix)
    inside, extras = _without_extras(inside, name)
    notes += [f"Left out: {what}." for what in dict.fromkeys(extras)]
    return Opened(name, prefix, inside, our_names(inside, FORMATS[name]), tuple(notes))


def _densest(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The prefix behind which most names are those of a ConvNeXt, and the tensors there, with dense layouts."""
    firsts = first_tensors()
    found = {"": from_sparse(tensors)}
    for key in tensors:
        for first in firsts:
            if key.endswith(f".{first}"):
                prefix = key.removesuffix(first)
                named = {k.removeprefix(prefix): value for k, value in tensors.items() if k.startswith(prefix)}
                found.setdefault(prefix, from_sparse(named))
    scores = {prefix: best_format(inside)[1] for prefix, inside in found.items()}
    enough = _COPY * max(scores.values())
    best = min((p for p in found if scores[p] >= enough), key=lambda p: (_copied(p), -scores[p], len(p), p))
    return best, found[best]


def _copied(prefix: str) -> int:
    """How much less the weights behind a prefix are wanted than others: 0, 1 of a moving average, 2 of a student."""
    parts = prefix.split(".")
    if any(part.startswith("student") for part in parts):
        return 2
    return int(any("ema" in part.split("_") for part in parts))


def _outside(tensors: Mapping[str, Tensor], prefix: str) -> list[str]:
    inner = Counter(_part(key, prefix) for key in tensors if not key.startswith(prefix))
    if not inner:
        return []
    named = [f"{part} ({number_of(n, 'tensor')})" for part, n in sorted(inner.items())[:_MOST]]
    more = f" and {len(inner) - _MOST} more" if len(inner) > _MOST else ""
    return [f"Only '{prefix}' is read; left out: {', '.join(named)}{more}."]


def _part(key: str, prefix: str) -> str:
    """The part of a network outside `prefix` that a tensor belongs to: its name up to where the two part."""
    parts: list[str] = []
    for mine, other in zip(key.split("."), [*prefix.split("."), ""], strict=False):
        parts.append(mine)
        if mine != other:
            break
    return ".".join(parts)


def _without_extras(state: dict[str, Tensor], name: str) -> tuple[dict[str, Tensor], list[str]]:
    """`state` less what its format does not know but released or retrained files are known to hold, and what that is."""
    form, kept, extras = FORMATS[name], {}, []
    head = form.names.get("head")
    final = "norm.weight" in state
    for key, value in state.items():
        if translate(key, form, to_ours=True) is not None:
            kept[key] = value
        elif name == "official" and (what := _extra(key)) and (final or not key.startswith("norms.")):
            extras.append(what)
        elif head and key.startswith(f"{head}."):
            extras.append(f"a head of another form ('{head}')")
        else:
            kept[key] = value
    return kept, extras


def _extra(key: str) -> str:
    return next((what for start, what in _OFFICIAL_EXTRAS.items() if key.startswith(start)), "")
