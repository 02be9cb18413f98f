"""What is said where somebody uses another project's word for an option, on a command line or in Python."""

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, wraps
from typing import Any, Unpack, get_args, get_origin

from convnext.config import TASKS, leaves_of
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.peers import PEERS, Peer

_CHOICES = {  # options of few values, which others write longer: CosineAnnealingLR, adamw_torch
    "--optim.name": ("adamw", "sgd", "muon"),
    "--schedule.kind": ("cosine", "linear", "step"),
    "--precision": ("fp32", "bf16", "fp16"),
}
FIELDS = {  # options that in Python are fields of `overrides`
    "batch": "optim.batch",
    "lr": "optim.lr",
    "precision": "precision",
    "size": "input.size_px",
}


class ArgumentError(ConvNeXtError, TypeError):
    """A function has no argument of that name."""


def spelled(name: str) -> str:
    """One spelling for all ways to write an option: '--Batch-Size' -> 'batch_size'."""
    return name.lstrip("-").replace("-", "_").lower()


def peer_of(verb: str, name: str) -> Peer | None:
    """What another project's word is for a command of ours, None where it is not known."""
    return PEERS.get(verb, {}).get(spelled(name))


def here(peer: Peer, word: str, value: str | None, known: Collection[str]) -> tuple[str, str]:
    """(our option with its value, the note) for their `word`; `known`: the options that there are, as '--size'."""
    option, note, otherwise = peer
    flag = option.split(" ")[0]
    if option and flag not in known:
        option, note = "", otherwise
    shown = value or "VALUE"
    if flag in _CHOICES:
        shown = next((choice for choice in _CHOICES[flag] if shown.lower().startswith(choice)), "NAME")
    if flag == "--weights" and re.fullmatch(r"[\w-]+/[\w.-]+", shown) and not os.path.exists(shown):
        shown = f"hub:{shown}"
    note = re.sub(r"^It\b", flag if option else f"'{word}'", note)
    return option.replace("{}", shown), note.replace("{}", value or ("it" if option else "DATA"))


def answer(words: Sequence[str], found: Sequence[tuple[str, str]]) -> str:
    """One line about other projects' words, and what `here` gave for each."""
    named = ", ".join(f"'{word}'" for word in words)
    options = " ".join(dict.fromkeys(option for option, _ in found if option))
    notes = " ".join(dict.fromkeys(note for _, note in found if note))
    first = f"{named} is not an option here" if len(words) == 1 else f"{named} are not options here"
    return f"{first}{f': give {options}.' if options else '.'}{f' {notes}' if notes else ''}"


@cache
def understood(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which names its own argument where another project's word for it is given.

    It then raises ArgumentError. One that takes fields of a network as well refuses strange ones itself.
    """
    own: list[str] = []
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is not each.VAR_KEYWORD:
            own.append(name)
        elif get_origin(each.annotation) is Unpack:  # a list of arguments that several functions have
            own += get_args(each.annotation)[0].__annotations__
        else:
            return function

    @wraps(function)
    def call(*arguments: Any, **more: Any) -> Any:
        strange = {name: value for name, value in more.items() if name not in own}
        if strange:
            raise ArgumentError(_in_python(function.__name__, strange, own))
        return function(*arguments, **more)

    return call


def fields() -> frozenset[str]:
    """Fields of recipes as options; those without a dot are options of their own, or say what the recipe is called."""
    return frozenset(f"--{name}" for kind in TASKS.values() for name, _ in leaves_of(kind) if "." in name)


def _in_python(verb: str, strange: Mapping[str, Any], own: Sequence[str]) -> str:
    """That a function has no such arguments, and which ones it has for them."""
    known = {f"--{name.replace('_', '-')}" for name in own}
    known |= fields() | {f"--{name}" for name in FIELDS} if "overrides" in own else set()
    given: list[str] = []
    changes: list[str] = []
    notes: list[str] = []
    for name, value in strange.items():
        peer = peer_of(verb, name) or Peer(f"--{name} {{}}")
        option, note = here(peer, name, str(value), known)
        flag, _, text = option.partition(" ")
        ours, shown = spelled(flag), repr(value) if text == str(value) else _literal(text)
        if ours in FIELDS or "." in ours:
            changes.append(f'"{FIELDS.get(ours, ours)}": {shown}')
        elif ours:
            given.append(f"{ours}={shown}")
        else:
            note = note or nearest(name, own).strip()
        notes.append(note)
    options = [*given, *([f"overrides={{{', '.join(changes)}}}"] if changes else [])]
    first = f"'{next(iter(strange))}' is no argument"
    if len(strange) > 1:
        first = f"{', '.join(map(repr, strange))} are no arguments"
    ours = f": give {', '.join(options)}" if options else ""
    return " ".join([f"{first} of convnext.{verb}{ours}.", *dict.fromkeys(filter(None, notes))])


def _literal(text: str) -> str:
    """A value of an option as Python writes it; a name in capitals stays one to fill in."""
    if text in ("true", ""):
        return "True"
    return text if text.isupper() or text.replace(".", "").isdigit() else repr(text)
