"""Who runs against whom: the options of a benchmark as values, and the contenders that they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convnext.config import ConvNeXtConfig, ModelConfig
from convnext.errors import ConvNeXtError, nearest
from convnext.extras import EXTRAS, found
from convnext.recipes.architectures import architecture

Origin = Literal["ours", "engine", "peer", "other", "limit"]

BACKENDS = {  # of our network: mode -> name -> (who runs it, in which form)
    "inference": {
        "eager": ("convnext", "eager"),
        "optimized": ("convnext", "optimized"),
        "compiled": ("convnext", "compiled"),
        "onnxruntime": ("onnxruntime", "exported"),
        "openvino": ("openvino", "exported"),
    },
    "training": {
        "eager": ("convnext", "eager"),
        "fused": ("convnext", "fused"),
        "compiled": ("convnext", "compiled"),
    },
}
PEERS = ("timm", "torchvision", "transformers")
FORMS = ("eager", "channels_last", "compiled")  # of a peer: 'timm', 'timm:channels_last', 'timm:compiled'
DEFAULT_BACKENDS = {"inference": tuple(BACKENDS["inference"]), "training": ("eager", "fused")}
DEFAULT_PEERS = {
    "inference": ("timm", "timm:channels_last", "timm:compiled", "torchvision", "transformers"),
    "training": ("timm", "timm:channels_last", "torchvision"),
}
LIMITS = ("gemm", "fma", "copy")
REFERENCES = ("optimized", "fused", "eager")  # the first of these that runs is what the others are compared with
_EXPORTING = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


@dataclass(frozen=True)
class Settings:
    """What every contender of one benchmark has in common."""

    config: ConvNeXtConfig
    batches: tuple[int, ...] = (1, 8)
    size_px: int = 224  # the shorter side, where the task has images that are no squares
    task: Literal["classification", "detection", "segmentation"] = "classification"
    mode: Literal["inference", "training"] = "inference"
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """One contender: which library, in which form, of which origin; a limit is the machine itself."""

    name: str
    origin: Origin
    library: str
    form: str
    settings: Settings
    network: str = ""  # of an 'other'


def network_of(name: str) -> ConvNeXtConfig:
    """The ConvNeXt called `name`. Raises ConvNeXtError for other networks, which only run beside one."""
    config: ModelConfig = architecture(name)
    if not isinstance(config, ConvNeXtConfig):
        raise ConvNeXtError(f"'{name}' is no ConvNeXt. Give one to --model, and this one to --others.")
    return config


def jobs_of(
    settings: Settings,
    backends: Sequence[str] | None = None,
    peers: Sequence[str] | None = None,
    others: Sequence[str] = (),
) -> list[Job]:
    """Every contender, ours first, then the measurements of the limits; None takes the defaults of the mode.

    `others` are names for timm, such as 'swin_tiny' and 'resnet50'. Raises ConvNeXtError for a name that is unknown.
    """
    own, mode = BACKENDS[settings.mode], settings.mode
    jobs = []
    for name in DEFAULT_BACKENDS[mode] if backends is None else backends:
        if name not in own:
            raise ConvNeXtError(f"No backend of {mode} is called '{name}'.{nearest(name, own)} There are {_list(own)}.")
        library, form = own[name]
        jobs.append(Job(name, "ours" if library == "convnext" else "engine", library, form, settings))
    for name in DEFAULT_PEERS[mode] if peers is None else peers:
        library, _, form = name.partition(":")
        if library not in PEERS:
            raise ConvNeXtError(f"No peer is called '{library}'.{nearest(library, PEERS)} There are {_list(PEERS)}.")
        if form not in ("", *FORMS):
            raise ConvNeXtError(f"'{name}': a peer runs as {_list(FORMS)}, not '{form}'.{nearest(form, FORMS)}")
        jobs.append(Job(name, "peer", library, form or "eager", settings))
    jobs += [Job(name, "other", "timm", "channels_last", settings, _timm_name(name)) for name in others]
    double = next((job.name for i, job in enumerate(jobs) if job.name in [other.name for other in jobs[:i]]), None)
    if double:
        raise ConvNeXtError(f"'{double}' is named twice. Name each contender once.")
    if not jobs:
        raise ConvNeXtError("No contender is left: name a backend or a peer.")
    return [*jobs, *(Job(name, "limit", name, "", settings) for name in LIMITS)]


def missing(job: Job) -> str:
    """What must be installed for `job`, in one line; '' where everything is there."""
    packages = _EXPORTING.get(job.library, (job.library,) if job.origin in ("peer", "other") else ())
    lacking = [name for name in packages if not found(name)]
    if not lacking:
        return ""
    wanted = f"convnext[{EXTRAS[lacking[0]][0]}]" if lacking[0] in EXTRAS else lacking[0]
    return f"{lacking[0]} is not installed: pip install '{wanted}'"


def _timm_name(name: str) -> str:
    return {"swin_tiny": "swin_tiny_patch4_window7_224"}.get(name, name.removeprefix("timm:"))


def _list(names: Sequence[str] | dict[str, tuple[str, str]]) -> str:
    return ", ".join(names)
