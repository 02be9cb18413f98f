"""Files of weights and of whole runs: one safetensors file each, with everything that is not a tensor in its header.

Processes that each hold a part of a network write a folder of such files with an index; it is read like a file.

Nothing here executes what it reads: safetensors holds numbers and text only. Everything that is written is under the
digests of `convnext.integrity`, whatever it is, and compared with them when it is read.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convnext.errors import CheckpointError
from convnext.files import appearing, from_json, system_error, to_json
from convnext.integrity import (
    FORMAT,
    INDEX,
    Cut,
    Index,
    Piece,
    damaged,
    digest,
    read_index,
    require_finite,
    require_header,
    require_whole,
    restored,
    seal_of,
    sealed,
    told_digests,
)

VERSION = 2  # since 2 with digests
_KINDS = {  # how safetensors writes a type
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
    **{torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.bool: "BOOL"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"},
}


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON-able `metadata` to `path`, atomically.

    Raises OSError when the disk refuses; the file that was at `path` is then still there, untouched.
    """
    header = {"format": FORMAT, "version": str(VERSION), "metadata": to_json(metadata)}
    with appearing(path) as made:
        write(made, tensors, header)


def kind_of(dtype: torch.dtype) -> str:
    """How safetensors writes a type: 'F32'."""
    return _KINDS[dtype]


def dtype_of(kind: str) -> torch.dtype:
    """The type that it writes as `kind`."""
    return next(dtype for dtype, text in _KINDS.items() if text == kind)


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file with `header` as its metadata, and the digests of both. Raises OSError."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digests = {name: digest(name, _KINDS[value.dtype], value.shape, [_bytes(value)]) for name, value in held.items()}
    try:
        save_file(held, path, sealed(header, digests))
    except SafetensorError as error:  # what the library raises when a write fails
        raise system_error(error) from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the metadata of a file that `save` wrote, or of a checkpoint in several files.

    Raises CheckpointError with the reason for a missing, truncated or foreign file, for one that is not what was written,
    and for weights that are not finite.
    """
    if path.is_dir():
        index = read_index(path / INDEX)
        return _together(path, index), checked(index.metadata, path)
    with _opened(path) as file:
        metadata = _metadata(path, file)
        require_whole(path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    require_finite(path, tensors)
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors. Raises CheckpointError as `read` does."""
    if path.is_dir():
        return checked(read_index(path / INDEX).metadata, path)
    with _opened(path) as file:
        return _metadata(path, file)


def load(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors`, read from `path`, into `model`: exactly those that it has. Raises CheckpointError otherwise."""
    require_fit(model, tensors, path)
    model.load_state_dict(dict(tensors))


def require_fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError unless `tensors`, read from `path`, are those of `model`, by name, shape and kind."""
    expected = model.state_dict()
    odd = sorted(expected.keys() ^ tensors.keys())
    if odd:
        what = "is missing" if odd[0] in expected else "is none of its network"
        raise CheckpointError(f"'{path}' does not fit its own recipe: tensor '{odd[0]}' {what}. Restore it.")
    for name, value in expected.items():
        held = tensors[name]
        if value.shape != held.shape or value.is_floating_point() != held.is_floating_point():
            raise CheckpointError(
                f"'{path}' does not fit its own recipe: tensor '{name}' is {_form(held)} instead of {_form(value)}. "
                "Restore it."
            )


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every name with `prefix/` before it: several families of tensors in one file."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The family that `under` stored with `prefix`, with its own names."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def checked(metadata: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """`metadata` of `path`, each entry that is known of its kind. Raises CheckpointError that names the first that is not."""
    for name, (fits, kind) in _ENTRIES.items():
        if name in metadata and not fits(metadata[name]):
            raise CheckpointError(
                f"'{path}' is damaged: {name} = {_short(metadata[name])} in its header is refused; it must be {kind}. "
                "Restore it."
            )
    return dict(metadata)


def read_some(path: Path, names: Iterable[str], seal: str) -> dict[str, Tensor]:
    """Some tensors of a file whose `seal_of` is `seal`, on the CPU and by their names there.

    Raises CheckpointError where the file is another, or one of them is not what was written, or not finite.
    """
    if not path.is_file():
        raise damaged(path, "it is missing, and its checkpoint is of no use without it")
    with _opened(path) as file:
        told = told_digests(path, file.metadata() or {})
        found = {}
        for name in names:
            value = found[name] = file.get_tensor(name)
            if digest(name, kind_of(value.dtype), value.shape, [_bytes(value)]) != told.get(name):
                raise damaged(path, f"tensor '{name}' is not what was written")
    if seal_of(path) != seal:
        raise damaged(path, f"it is not the file that '{INDEX}' beside it names")
    require_finite(path, found)
    return found


def _together(folder: Path, index: Index) -> dict[str, Tensor]:
    """The tensors that lie in pieces in a folder. Raises CheckpointError."""
    found = {name: torch.empty(cut.shape, dtype=dtype_of(cut.kind)) for name, cut in index.tensors.items()}
    for file, seal in index.files.items():
        boxes = {piece.name(name): (name, piece) for name, piece in _pieces(index.tensors) if piece.file == file}
        for key, value in read_some(folder / file, boxes, seal).items():
            name, piece = boxes[key]
            box = tuple(slice(first, first + size) for first, size in zip(piece.first, piece.shape, strict=True))
            found[name][box] = value
    return found


def _pieces(tensors: Mapping[str, Cut]) -> Iterator[tuple[str, Piece]]:
    for name, cut in tensors.items():
        yield from ((name, piece) for piece in cut.pieces)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at '{path}'.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:  # RuntimeError: it has just gone
        reason = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(f"'{path}' is damaged or no checkpoint of convnext: {reason}. {restored(path)}") from None


def _metadata(path: Path, file: Any) -> dict[str, Any]:
    header = file.metadata() or {}
    require_header(path, header)
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' holds weights without a run: no recipe, no class names. Give it to `convnext train --weights`."
        )
    version = header.get("version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise CheckpointError(f"'{path}' is damaged: version = {_short(version)} is no version of a file. Restore it.")
    if int(version) > VERSION:
        raise CheckpointError(f"'{path}' was written by a newer convnext (file version {version}).")
    try:
        metadata = from_json(header.get("metadata", ""))
    except ValueError as error:
        raise CheckpointError(f"'{path}' is damaged: its header is not JSON ({error}). Restore it.") from None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"'{path}' is damaged: its header holds {_short(metadata)} and no fields. Restore it.")
    if "part_of" in metadata:
        raise CheckpointError(f"'{path}' is a part of a checkpoint in several files. Name the folder of the run.")
    return checked(metadata, path)


def _bytes(tensor: Tensor) -> Any:
    """The memory of a contiguous tensor, as a buffer; an empty one has none, whatever its strides say."""
    return tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number to count on."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def is_count(value: Any) -> bool:
    """Whether a value of JSON is a whole number of things."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(each is None or is_number(each) for each in value.values())


def _names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(name, str) for name in value)


def _fields(value: Any) -> bool:
    return isinstance(value, dict)


def _text(value: Any) -> bool:
    return isinstance(value, str)


_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {  # what the package reads of a header -> its kind
    "recipe": (_fields, "the fields of a recipe"),
    "classes": (_names, "a list of names"),
    "task": (_text, "text"),
    "category_ids": (
        lambda value: isinstance(value, list) and all(map(is_count, value)) and len({*value}) == len(value),
        "a list of whole numbers, each once",
    ),
    "images": (_text, "text"),
    "weights": (_text, "text"),
    "given": (_text, "text"),
    "val_share": (lambda value: value is None or (is_number(value) and 0 <= value <= 1), "a number from 0 to 1"),
    "drawn": (_text, "what was held out"),
    "columns": (_fields, "names of columns"),
    "fold": (lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_count, value)), "two numbers"),
    "score": (is_number, "a number"),
    "metrics": (_numbers, "numbers by name"),
    "step": (is_count, "a whole number"),
    "state": (_fields, "the fields of a state"),
    "scaler": (_fields, "the fields of a scaler"),
    "thresholds": (_fields, "the fields of thresholds"),
    "decision": (_fields, "the fields of a decision"),
    "origin": (_text, "text"),
    "named": (_text, "text"),
    "license": (_text, "text"),
}
