"""Reading files of tensors without ever running what is in them."""

import contextlib
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from convnext.errors import CheckpointError, nearest
from convnext.files import from_json, to_json
from convnext.integrity import DIGESTS, require_finite, require_header, require_whole
from convnext.models.keras_layout import from_keras

WRAPPERS = (  # entries that hold the tensors, best first
    *("model", "state_dict", "model_state_dict", "module", "network", "net", "weights", "params"),
    *(
        "model_ema",
        "state_dict_ema",
        "ema",
        "ema_state_dict",
        "params_ema",
        "teacher",
        "backbone",
        "encoder",
        "student",
    ),
)
_LEVELS = 4  # of entries within entries; a pickle can hold itself
PREFIXES = ("module.", "backbone.")  # left by DataParallel and dense predictors
_INSERTED = re.compile(
    r"(?:^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)  # names of wrappers
PROVENANCE = "provenance"  # our entry in the `_metadata` of a pickled state dict
NPZ_METADATA = "__metadata__"  # our entry in an .npz: JSON text
RUN = "run"  # our entry in a converted file: JSON text, what the run's own checkpoint says of it
_BESIDE = (  # what training scripts keep beside the weights: arguments, paths, times, numbers of NumPy
    *("argparse.Namespace", "types.SimpleNamespace", "datetime.timedelta", "datetime.datetime", "_codecs.encode"),
    *(f"pathlib{inner}.{kind}" for inner in ("", "._local") for kind in ("PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "__builtin__.list", "builtins.list"),
)
_DICTIONARIES = (
    "collections.defaultdict",
    *(f"{package}.utilities.data.AttributeDict" for package in ("lightning_fabric", "lightning.fabric")),
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("pytorch_lightning", "lightning.pytorch")),
)
FOREIGN = {  # first bytes, lower case: what the file really is
    b"<": "a web page (a download that went wrong?)",
    b"version https://git-lfs": "a Git LFS pointer. Fetch the real file with `git lfs pull`",
    b"\x89hdf": "an HDF5 file, as Keras writes them",
    b"\x89png": "an image",
    b"\xff\xd8\xff": "an image",
}


class Inert:
    """What stands in the place of an object that is not wanted: made of anything, it does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Take nothing over."""


class Dictionary(OrderedDict[Any, Any]):
    """The same of one that holds others."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors, .pth, .pt, .bin or .npz file on the CPU by name, and the file's own metadata.

    Known by content, not by suffix. Entries such as 'model' or 'state_dict' are opened, and prefixes such as 'module.'
    removed; arrays of Keras come in PyTorch's layout. Raises CheckpointError, in one line, for a file that is missing,
    empty, truncated, something else, or a pickle that asks for code.
    """
    path = Path(path)
    start = _first_bytes(path)
    # A safetensors file: eight bytes for the length of its header, then JSON.
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80"))):
        tensors, metadata = _read_safetensors(path)
    elif _is_npz(path):
        tensors, metadata = _read_npz(path)
    else:
        tensors, metadata = _opened(_read_pickle(path), path)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors. Give a file of weights.")
    require_finite(path, tensors)
    return _without_prefixes(tensors), metadata


def read_header(path: str | Path) -> dict[str, str]:
    """The file's own metadata, as `read_tensors` gives and raises; of safetensors no tensor is read."""
    start = _first_bytes(Path(path))
    if start[8:9] == b"{":
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            require_header(Path(path), metadata)
            return metadata
    return read_tensors(path)[1]


def record_of(header: Mapping[str, str]) -> dict[str, Any]:
    """What a run wrote into its checkpoint, by the file's metadata, also after a conversion; {} for a foreign file."""
    try:
        record = from_json(header.get("metadata" if header.get("format") == "convnext" else RUN) or "null")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder. Give a file of weights inside it{candidates(path)}.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        raise CheckpointError(f"No file {path}.{nearest(path.name, [each.name for each in beside])}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes). Download or save it again.")
    for magic, what in FOREIGN.items():
        if start.lstrip().lower().startswith(magic):
            raise CheckpointError(f"{path} is not a file of weights but {what}.")
    return start


def candidates(folder: Path) -> str:
    """', e.g. best.safetensors': a file in `folder` that may hold weights; '' where there is none."""
    found = sorted(
        each.name for each in folder.iterdir() if each.suffix in (".safetensors", ".pth", ".pt", ".bin", ".npz")
    )
    return f", e.g. {found[0]}" if found else ""


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            require_header(path, metadata)
            if DIGESTS in metadata:
                require_whole(path)
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {_line(error)}. "
            "It is truncated or foreign: download or save it again."
        ) from None


def _is_npz(path: Path) -> bool:
    """Whether a zip archive holds arrays of NumPy; torch's own files are zip archives, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return path.suffix == ".npz"


def _read_npz(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        metadata = from_json(str(arrays.pop(NPZ_METADATA))) if NPZ_METADATA in arrays else {}
        return from_keras({name: torch.from_numpy(array) for name, array in arrays.items()}), metadata
    except ValueError as error:
        if "pickle" in str(error) or "Object" in str(error):
            raise CheckpointError(
                f"{path} is refused: it holds Python objects beside arrays, and loading never runs code from a file."
            ) from None
        raise CheckpointError(f"{path} is not a file of arrays that NumPy can read: {_line(error)}.") from None
    except Exception:  # noqa: BLE001 - a broken archive can raise anything
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no archive of arrays: NumPy cannot read it. "
            "Download or save it again."
        ) from None


def _read_pickle(path: Path) -> Any:
    _compare_checksums(path)
    try:
        # Nothing in the file is called by its name: what is known to lie beside weights becomes an object that does nothing.
        allowed: list[Any] = [(Inert, name) for name in _BESIDE] + [(Dictionary, name) for name in _DICTIONARIES]
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise CheckpointError(
                f"{path} is refused: beside tensors it asks Python to call '{wanted[1]}', and loading never runs code "
                "from a file. Save its state_dict alone, best as .safetensors."
            ) from None
        raise CheckpointError(f"{path} is not a file of weights that torch can read: {_line(error)}.") from None
    except Exception:  # noqa: BLE001 - a broken pickle can raise anything
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a file of weights: torch cannot read it. "
            "Download or save it again."
        ) from None


def _compare_checksums(path: Path) -> None:
    """Refuse an archive of torch whose records are not what they were when it was written: torch does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # noqa: BLE001 - no archive, or one that torch will have more to say of
        return
    if damaged:
        raise CheckpointError(
            f"{path} is damaged: its record '{damaged}' differs from its own checksum. Download or save it again."
        )


def _opened(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The named tensors inside what torch.load returned, and under which entry they lay."""
    metadata: dict[str, str] = {}
    for _ in range(_LEVELS):
        if not isinstance(content, dict):
            break
        metadata |= _provenance(getattr(content, "_metadata", None)) | _class_names(content.get("meta"))
        entry = next((name for name in WRAPPERS if _holds_tensors(content.get(name))), None)
        if entry is None:
            tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
            return {str(key): value.detach() for key, value in tensors.items()}, metadata
        metadata["entry"], content = entry, content[entry]
    raise CheckpointError(
        f"{path} holds a {type(content).__name__}, not tensors by name. Save the model's state_dict instead."
    )


def _class_names(meta: Any) -> dict[str, str]:
    """The names that the OpenMMLab libraries write beside the weights."""
    meta = meta if isinstance(meta, dict) else {}
    inner = meta.get("dataset_meta")
    described = inner if isinstance(inner, dict) else meta
    lists = [described.get(key) for key in ("classes", "CLASSES")]
    names: Any = next((each for each in lists if isinstance(each, list | tuple)), ())
    return {"classes": to_json(list(names))} if names and all(isinstance(name, str) for name in names) else {}


def _holds_tensors(entry: Any, levels: int = _LEVELS) -> bool:
    """Whether there are named tensors in an entry, or in an entry of that."""
    if not isinstance(entry, dict) or not levels:
        return False
    return any(isinstance(value, Tensor) or _holds_tensors(value, levels - 1) for value in entry.values())


def _provenance(notes: Any) -> dict[str, str]:
    """What `convnext convert` wrote beside the tensors, where torch keeps the versions of a state dict's modules."""
    found = notes.get(PROVENANCE) if isinstance(notes, dict) else None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {_INSERTED.sub("", key): value for key, value in tensors.items()}
    tensors = plain if len(plain) == len(tensors) else tensors
    while prefix := next((each for each in PREFIXES if all(key.startswith(each) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _line(error: Exception) -> str:
    """The first line of somebody else's message, without its final stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")[:200]
