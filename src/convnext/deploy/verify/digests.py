"""What is whole: checkpoints and every other file of tensors, exported files, and the records of runs. Needs no torch."""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convnext.data.formats.shards import has_shards
from convnext.data.shards.check import checked
from convnext.deploy.forms import table
from convnext.deploy.forms.seal import end_of, require_sealed
from convnext.errors import CheckpointError, number_of, reason_of
from convnext.files import from_json
from convnext.integrity import FORMAT, INDEX, read_header, require_header, require_index, require_whole

State = Literal["whole", "readable", "damaged"]
WEIGHTS = ("best.safetensors", "best_ema.safetensors", "last.safetensors")


@dataclass(frozen=True)
class Verified:
    """One file: 'whole', its digests are those of what it holds; 'readable', it has none; 'damaged'."""

    path: Path | str  # in an object store an address
    state: State
    about: str  # what was compared, or what is wrong, in words

    def to_dict(self) -> dict[str, str]:
        """For a program."""
        return {"path": str(self.path), "state": self.state, "about": self.about}


def compared(*sources: str | os.PathLike[str]) -> list[Verified]:
    """What is whole of runs, checkpoints, exported files, records, shards, and folders of them, by their digests.

    Raises CheckpointError for one that is not there, or that holds nothing of the kind.
    """
    found: list[Verified] = []
    for given in sources:
        if has_shards(os.fspath(given)):
            found += _of_shards(os.fspath(given))
            continue
        source = Path(given)
        if not source.exists():
            raise CheckpointError(f"There is nothing at '{source}'. Name a run, a checkpoint or an exported file.")
        files = list(_files(source)) if source.is_dir() else [source]
        known = [file for file in files if _check_of(file)]
        if not known:
            kinds = ", ".join(dict.fromkeys(_CHECKS))
            raise CheckpointError(f"'{source}' holds nothing that can be verified: no file of {kinds}.")
        found += map(_verified, known)
    return found


def _of_shards(place: str) -> Iterator[Verified]:
    for one in checked(place):
        yield Verified(f"{place.rstrip('/')}/{one.name}", "whole" if one.whole else "damaged", one.about)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order; what is being written is in a hidden one."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _check_of(path: Path) -> Callable[[Path], tuple[State, str]] | None:
    """How a file is verified, by its name."""
    form = table.form_of(path)
    if form and form.beside and not end_of(path) and not path.with_suffix(form.beside[0]).exists():
        return None  # an .xml of somebody's annotations
    return _CHECKS.get(path.suffix.lower())


def _verified(path: Path) -> Verified:
    check = _check_of(path)
    assert check is not None
    try:
        return Verified(path, *check(path))
    except CheckpointError as error:
        return Verified(path, "damaged", str(error))
    except OSError as error:
        return Verified(path, "damaged", f"It cannot be read: {reason_of(error)}.")


def _tensors(path: Path) -> tuple[State, str]:
    if not path.stat().st_size:
        raise CheckpointError(f"'{path}' is damaged: it is empty. Restore it, or remove it to start again.")
    whole = require_whole(path)
    many = number_of(len(read_header(path).tensors), "tensor")
    return ("whole", f"{many} and the header are what was written") if whole else ("readable", f"{many}, no digests")


def _exported(path: Path) -> tuple[State, str]:
    if require_sealed(path):
        return "whole", "it is what was written"
    raise CheckpointError(
        f"'{path}' has no digest: its end is lost, or `convnext export` did not write it. Export it again."
    )


def _archive(path: Path) -> tuple[State, str]:
    """A program of torch, or tensors: a zip, which has a CRC-32 of each of its files."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            many = len(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"'{path}' is damaged: {str(error)[:200]}. Restore it.") from None
    if broken is not None:
        raise CheckpointError(f"'{path}' is damaged: '{broken}' in it is not what was written. Restore it.")
    return "whole", f"{number_of(many, 'file')} in it are what was written"


def _record(path: Path) -> tuple[State, str]:
    if path.name == INDEX:
        return "whole", f"it names {number_of(require_index(path), 'file')}, which are there and the same"
    value = _json(path, path.read_bytes(), "it")
    if path.name in _TWINS:
        return _beside(path, value)
    return "readable", "it is JSON"


def _rows(path: Path) -> tuple[State, str]:
    """A log: a line for each row, the last one ended."""
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        raise CheckpointError(f"'{path}' is damaged: its last line is cut short. The run that goes on mends it.")
    for number, line in enumerate(lines, 1):
        if not isinstance(_json(path, line, f"line {number}"), dict):
            raise CheckpointError(f"'{path}' is damaged: line {number} is no row. Restore it.")
    return "readable", f"{number_of(len(lines), 'row')} of JSON"


def _json(path: Path, text: bytes, what: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise CheckpointError(f"'{path}' is damaged: {what} is not JSON ({error}). Restore it.") from None


def _beside(path: Path, value: Any) -> tuple[State, str]:
    """A record of a run beside the header of its checkpoint, which says the same."""
    ours, theirs = _TWINS[path.name]
    here = value.get(ours) if ours and isinstance(value, dict) else value
    for weights in (path.parent / name for name in WEIGHTS):
        told = _told(weights)
        if theirs not in told:
            continue
        if here != told[theirs]:
            raise CheckpointError(
                f"'{path}' is damaged: its {theirs} and what '{weights.name}' says differ. Restore it."
            )
        if not ours:
            return "whole", f"it says what '{weights.name}' says"
        return "readable", f"it is JSON, with the {theirs} of '{weights.name}'"
    return "readable", "it is JSON"


def _told(weights: Path) -> dict[str, Any]:
    """What a checkpoint says of its run; nothing where it is none, or damaged."""
    with contextlib.suppress(CheckpointError, ValueError, KeyError):
        header = read_header(weights).metadata
        require_header(weights, header)
        told = from_json(header["metadata"]) if header.get("format") == FORMAT else {}
        return told if isinstance(told, dict) else {}
    return {}


_TWINS = {"recipe.json": ("", "recipe"), "data.json": ("classes", "classes"), "evaluation.json": ("classes", "classes")}
_CHECKS: dict[str, Callable[[Path], tuple[State, str]]] = {
    ".safetensors": _tensors,
    **{form.suffix: _exported for form in table.FORMS if form.opener},
    **dict.fromkeys((".pt2", ".npz"), _archive),
    ".json": _record,
    ".jsonl": _rows,
}
