"""Words of other projects on our command line: each is answered with ours, before argparse takes its value for a path."""

import os
import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import NamedTuple

from convnext.cli.options import Parser
from convnext.config import TASKS
from convnext.errors import ConvNeXtError
from convnext.recipes.peers import VERBS, Peer
from convnext.recipes.spelling import answer, fields, here, peer_of, spelled

_GPU = Peer("--device cuda:{}")
_GPUS = Peer("--device cuda", "Several GPUs are for `torchrun --nproc-per-node N -m convnext train ...`.")
_WEIGHTS = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")


class Word(NamedTuple):
    """An argument that may be another project's: as it is written, its name and its value."""

    written: str
    name: str
    value: str | None


def refuse_foreign(parser: Parser, arguments: Sequence[str]) -> None:
    """Raise ConvNeXtError, one line with our options, where `arguments` hold another project's words.

    These are options that we do not have, `name=value` without dashes, and verbs.
    """
    if not arguments or arguments[0] not in parser.verbs:
        _refuse_verb(arguments, parser.verbs)
        return
    verb, own = arguments[0], parser.verbs[arguments[0]].options
    known = own | (fields() if verb == "train" else frozenset())
    words = [_numbered(word) for word in _words(arguments[1:])]
    found = [(word, said) for word in words if (said := _said(verb, word, own, known))]
    if found:
        ours = _one_folder(found) or [each for _, each in found]
        raise ConvNeXtError(answer([word.written for word, _ in found], ours))


def _refuse_verb(arguments: Sequence[str], verbs: Collection[str]) -> None:
    """Their verb, or a task before ours."""
    first, second = (*arguments, "", "")[:2]
    ours = VERBS.get(first)
    if second in verbs and (ours or first in TASKS):
        raise ConvNeXtError(f"'{first}' is no command here: `convnext {second}`, and the task follows from the data.")
    if ours:
        raise ConvNeXtError(f"'{first}' is no command here: it is `convnext {ours}`.")


def _words(arguments: Sequence[str]) -> list[Word]:
    """All options with what may be their values, and all `name=value`."""
    found = []
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if re.fullmatch(r"--?[A-Za-z]\S*", name):
            after = list(takewhile(lambda each: not re.match(r"--?[A-Za-z]", each), arguments[place + 1 :]))
            sizes = spelled(name) == "input_size" and len(after) > 2  # timm's is channels, height, width
            given = value if equals else after[2] if sizes else after[0] if after else None
            found.append(Word(name, name, given))
        elif re.fullmatch(r"[A-Za-z_]\w*", name) and equals and not os.path.exists(argument):
            before = arguments[place - 1] if place else ""
            if not before.startswith("-") or "=" in before:
                found.append(Word(argument, name, value))
    return found


def _numbered(word: Word) -> Word:
    """A GPU that is named by its number alone is a word of theirs, though the option is ours."""
    named = spelled(word.name) == "device" and re.fullmatch(r"\d+(,\d+)*", word.value or "")
    return word._replace(written=f"--device {word.value}") if named else word


def _said(verb: str, word: Word, own: Collection[str], known: Collection[str]) -> tuple[str, str] | None:
    """What `here` says of a word; None for one that is ours, and for one that nobody has."""
    ours = f"--{spelled(word.name).replace('_', '-')}"
    bare = not word.written.startswith("-")
    if word.written.startswith("--device "):
        return here(_GPUS if "," in str(word.value) else _GPU, word.name, word.value, known)
    if word.name in known:
        return None
    if bare and ours == "--model" and verb == "train" and str(word.value).endswith(_WEIGHTS):
        return here(Peer("--weights {}"), word.name, word.value, known)
    if ours in own and (bare or ours != word.name):
        return here(Peer(f"{ours} {{}}"), word.name, word.value, known)
    peer = peer_of(verb, word.name)
    return None if peer is None else here(peer, word.name, word.value, known)


def _one_folder(found: Sequence[tuple[Word, tuple[str, str]]]) -> list[tuple[str, str]] | None:
    """ultralytics' project and name, together our --out."""
    values = {spelled(word.name): word.value for word, _ in found}
    if not (values.get("project") and values.get("name")):
        return None
    out = f"--out {values['project']}/{values['name']}"
    return [(out, "") if spelled(word.name) in ("project", "name") else said for word, said in found]
