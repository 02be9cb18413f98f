"""Where weights lie: a file, a folder, a run, or a repository of the hub; and the JSON files that describe them there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from convnext.errors import CheckpointError
from convnext.files import from_json
from convnext.models.tensors import candidates, read_header, read_tensors, record_of

HUB, TIMM = "hub:", "timm:"
FILES = (  # in this order
    *("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin"),
)
STARTS = tuple(f"{name}.safetensors" for name in ("best", "best_ema", "probe", "mixed"))  # of a finished run
RUN = (*STARTS, "adjusted.safetensors")  # what its answers take back, the next training would only give again
DESCRIPTIONS = ("config.json", "preprocessor_config.json", "open_clip_config.json")  # what may lie beside weights
_INDEX = ".index.json"
_PART = re.compile(r"-\d{5}-of-\d{5}\.")
_EXPORTED = (".onnx", ".xml", ".pt2", ".convnext")  # endings of files that answer and are not learnt from


@dataclass(frozen=True)
class Files:
    """The files that a source of weights means."""

    name: str  # of the file (of a run: best.safetensors in its folder), or 'hub:OWNER/NAME'
    path: Path  # of the weights, or of the index of their parts
    repository: str = ""  # 'OWNER/NAME', where they come from the hub
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name in DESCRIPTIONS -> its content

    def read(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors by name, of all parts, and the metadata of the file. Raises CheckpointError as `read_tensors`."""
        if not self.path.name.endswith(_INDEX):
            return read_tensors(self.path)
        tensors: dict[str, Tensor] = {}
        for part in self.parts():
            tensors |= read_tensors(part)[0]
        missing = [name for name in _listed(self.path) if name not in tensors]
        if missing:
            raise CheckpointError(
                f"{self.path} lists '{missing[0]}', which its parts do not hold. Download them again."
            )
        return tensors, {}

    def header(self) -> dict[str, str]:
        """The metadata of the file alone."""
        return {} if self.path.name.endswith(_INDEX) else read_header(self.path)

    def parts(self) -> list[Path]:
        """The files of an index, each of which must lie beside it. Raises CheckpointError for one that does not."""
        parts = [self.path.parent / name for name in _parts(self.path)]
        for part in parts:
            if not part.is_file():
                raise CheckpointError(
                    f"{self.path} names the part '{part.name}', which is not beside it. Download it, too."
                )
        return parts


def find(source: str | Path) -> Files:
    """The files of a path, a folder (of a run, or as transformers, timm and Accelerate write it), 'hub:OWNER/NAME' or
    'timm:NAME.TAG'.

    Raises CheckpointError, in one line, where there is nothing to read.
    """
    text = str(source)
    if text.startswith((HUB, TIMM)):
        name = text.removeprefix(HUB) if text.startswith(HUB) else _timm_repository(text.removeprefix(TIMM))
        hub = import_module("convnext.models.hub")  # with it the client, which files on the disk do not wait for
        path = Path(hub.download(name))
        if path.name.endswith(_INDEX):
            for part in _parts(path):
                hub.download(name, (part,))
        hub.download_beside(name, DESCRIPTIONS)
        return Files(f"{HUB}{name}", path, name, _beside(path))
    path = Path(source)
    path = _inside(path) if path.is_dir() else path
    if path.suffix.lower() in _EXPORTED and path.is_file():
        raise CheckpointError(
            f"'{path}' is exported already, its weights are folded. Name the run that it was made of."
        )
    return Files(str(path), path, "", _beside(path))


def run_file(folder: Path) -> Path | None:
    """The best file of weights to start from in the folder of a finished run; None where it is none."""
    found = [folder / name for name in STARTS if (folder / name).is_file()]
    records = {file: record_of(read_header(file)) for file in found}
    scored = {file: _score(record) for file, record in records.items() if record}
    return max(scored, key=lambda file: scored[file]) if scored else None


def _score(record: Mapping[str, Any]) -> tuple[bool, float, float]:
    """As `engine.run.weights_file` compares them: judged on all images crosswise, the higher score, the lower loss."""
    metrics = record.get("metrics")
    loss = metrics.get("loss", 0.0) if isinstance(metrics, dict) else 0.0
    try:
        return bool(record.get("crosswise")), float(record.get("score", 0.0)), -float(loss)
    except (TypeError, ValueError):
        return False, 0.0, 0.0


def _inside(folder: Path) -> Path:
    """The file of weights in a folder."""
    held = run_file(folder) or next((folder / name for name in FILES if (folder / name).is_file()), None)
    if held is None:
        raise CheckpointError(f"{folder} is a folder. Give a file of weights inside it{candidates(folder)}.")
    return held


def _timm_repository(name: str) -> str:
    """'convnext_atto.d2_in1k' -> 'timm/convnext_atto.d2_in1k'."""
    if not re.fullmatch(r"\w+\.[\w.]+", name):
        raise CheckpointError(
            f"'timm:{name}' names no weights: timm's weights have a tag, e.g. timm:convnext_atto.d2_in1k. Add one."
        )
    return f"timm/{name}"


def _listed(index: Path) -> dict[str, str]:
    """{tensor: file} of an index. Raises CheckpointError for another file."""
    content = _json(index)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{index} is no index of weights in parts: it has no 'weight_map'. Download it again.")
    return listed


def _parts(index: Path) -> list[str]:
    """The names of the files of an index. Raises CheckpointError for one that is no plain name."""
    names = sorted(set(_listed(index).values()))
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise CheckpointError(
                f"{index} names the part '{name}', which is not beside it. Give an index of files beside it."
            )
    return names


def _beside(path: Path) -> dict[str, Mapping[str, Any]]:
    """What describes weights that are called as the libraries call them; of other files it may describe a neighbour."""
    if path.name not in FILES and not _PART.search(path.name):
        return {}
    found = {name: _json(path.parent / name) for name in DESCRIPTIONS}
    return {name: content for name, content in found.items() if isinstance(content, dict)}


def _json(path: Path) -> Any:
    try:
        return from_json(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
