"""The frozen values that decide a run: network, data, augmentation, optimizer, schedule, and the recipe that holds them.

Everything that decides the numbers of a run is in `Recipe`; everything that does not (device, workers, folders) is in
`RunOptions`. Both are read once, at the top. No torch here, so that `convnext --help` answers at once.
"""

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from convnext.config.base import Decay, Frozen, Rate
from convnext.config.dense import DenseConfig, DetectorHeadConfig, HeadConfig, StageConfig, UperNetConfig
from convnext.config.networks import ConvNeXtConfig, GFNetConfig, ModelConfig, RoadmapConfig, TimmConfig
from convnext.errors import ConvNeXtError, nearest

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AugmentConfig",
    "ConvNeXtConfig",
    "Decay",
    "DenseConfig",
    "DetectorHeadConfig",
    "Frozen",
    "GFNetConfig",
    "HeadConfig",
    "InputConfig",
    "ModelConfig",
    "OptimConfig",
    "Rate",
    "Recipe",
    "RoadmapConfig",
    "RunOptions",
    "ScheduleConfig",
    "StageConfig",
    "TimmConfig",
    "UperNetConfig",
    "fields_of",
    "override",
    "parse",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TAGS: dict[str, type[Frozen]] = {  # the tag by which a union knows which of its values is meant
    **{kind.model_fields["family"].default: kind for kind in (ConvNeXtConfig, TimmConfig, RoadmapConfig, GFNetConfig)},
    **{kind.model_fields["task"].default: kind for kind in (DetectorHeadConfig, UperNetConfig)},
}


class InputConfig(Frozen):
    """What the network sees: sizes in pixels, and how evaluation brings an image to them."""

    size_px: Annotated[int, Field(ge=4, le=4096)] = 224  # training crop
    eval_size_px: Annotated[int, Field(ge=4, le=4096)] = 224
    eval_resize: Literal["crop", "warp"] = "crop"  # 'crop': shorter side, then centre; 'warp': both sides, no crop
    eval_crop: Annotated[float, Field(gt=0, le=1)] = 0.875  # shorter side = int(eval_size_px / eval_crop)
    progressive: tuple[tuple[Rate, Annotated[int, Field(ge=4)]], ...] = ()  # (share of the run, size) before size_px
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[Annotated[float, Field(gt=0)], ...] = IMAGENET_STD

    @model_validator(mode="after")
    def _ordered(self) -> "InputConfig":
        shares = [share for share, _ in self.progressive]
        if shares != sorted(set(shares)):
            raise ValueError(f"progressive shares {shares} must rise")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        return self


class AugmentConfig(Frozen):
    """What training does to images and labels; every value at its 'off' leaves the image alone."""

    scale: tuple[Rate, Rate] = (0.08, 1.0)  # area of the random resized crop
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # its aspect
    hflip: Rate = 0.5
    vflip: Rate = 0.0
    rand_augment: str = ""  # timm's notation, e.g. 'rand-m9-mstd0.5-inc1'; '' is off
    erasing: Rate = 0.0  # probability of erasing one rectangle with noise
    mixup: Annotated[float, Field(ge=0)] = 0.0  # Beta(a, a); 0 is off
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    mix_prob: Rate = 1.0  # of mixing a batch at all
    mix_switch: Rate = 0.5  # of cutmix when both are on
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # label smoothing

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentConfig":
        for name, (low, high) in {"scale": self.scale, "ratio": self.ratio}.items():
            if not 0 < low <= high:
                raise ValueError(f"{name} = ({low:g}, {high:g}) must be two positive numbers, the smaller first")
        return self


class OptimConfig(Frozen):
    """One optimizer step. `lr` is the peak for `batch`; nothing scales it behind your back."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0)]
    batch: Annotated[int, Field(ge=1)]  # images per optimizer step, over all devices and micro-batches
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # never on 1-D parameters (norms, biases, layer scale)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    momentum: Rate = 0.9  # sgd and muon
    muon_ratio: Annotated[float, Field(gt=0)] = 10.0  # to `lr`, for the matrices of the blocks when name is 'muon'
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    decay_by: Literal["layer", "stage"] = "layer"  # what a depth is, for layer_decay: groups of blocks, or stages
    clip: Annotated[float, Field(ge=0)] = 0.0  # largest gradient norm; 0 is off
    ema: Decay = 0.0  # decay of the EMA weights; 0 is off
    ema_warmup: bool = False  # lets the decay rise as (1 + t) / (10 + t), for short runs


class ScheduleConfig(Frozen):
    """The learning rate over the run, set before every optimizer step."""

    epochs: Annotated[float, Field(gt=0)]
    steps: Annotated[int, Field(ge=0)] = 0  # optimizer steps of the run; 0: epochs decide
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # instead of warmup_epochs; 0: those decide
    warmup_from: Rate | None = None  # warm up from this share of lr, and count the decay from the run's start; None: 0
    kind: Literal["cosine", "linear", "step"] = "cosine"
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    eval_epochs: Annotated[int, Field(ge=1)] = 1  # evaluate after every so many epochs, and at the end
    step_epochs: Annotated[float, Field(gt=0)] = 30.0  # 'step': lr is multiplied by step_factor this often
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = ()  # 'step': lr falls after these epochs; (): step_epochs

    @model_validator(mode="after")
    def _warmup_fits(self) -> "ScheduleConfig":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs:g} does not fit in epochs = {self.epochs:g}. "
                "Lower the first or raise the second"
            )
        if self.steps and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} does not fit in steps = {self.steps}. Lower the first"
            )
        return self


class Recipe(Frozen):
    """Everything that decides the numbers of a run, and nothing that does not."""

    name: str
    source: str  # where the values come from, e.g. 'arXiv 2201.03545, Table 5'
    model: ModelConfig
    head: HeadConfig | None = None  # of detection and segmentation, where `model` is the backbone
    dense: DenseConfig | None = None  # what those two do to images, instead of `augment`
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig
    schedule: ScheduleConfig
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0

    @property
    def task(self) -> str:
        """'classification', 'detection' or 'segmentation'."""
        return self.head.task if self.head else "classification"

    @model_validator(mode="after")
    def _channels_fit(self) -> "Recipe":
        if len(self.input.mean) != self.model.in_channels:
            raise ValueError(
                f"input.mean has {len(self.input.mean)} values and model.in_channels = {self.model.in_channels}. "
                "Give one mean and one std for each channel"
            )
        if (self.head is None) != (self.dense is None):
            raise ValueError("head and dense belong together: give both, or neither for classification")
        return self


class RunOptions(Frozen):
    """How and where a run is carried out; none of it changes what is computed."""

    out: str
    device: str = "auto"
    workers: Annotated[int, Field(ge=-1)] = -1  # processes that read images; -1 chooses
    micro_batch: Annotated[int, Field(ge=0)] = 0  # images per forward pass and device; 0: the whole share
    compile: bool = False
    # 'auto': the compiled blocks on a CPU in fp32, where there is a compiler; 'triton': also Triton's on a GPU
    kernels: Literal["auto", "plain", "triton"] = "auto"
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0  # also save `last` every so many steps; 0: by time
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    cache: Literal["auto", "off", "on"] = "auto"  # keep decoded images in memory
    strict_images: bool = False  # an image that breaks ends the run instead of being skipped
    tensorboard: bool = False
    progress: bool = True  # is shown while it trains and evaluates


def parse(kind: type[Frozen], values: dict[str, Any], *, where: str) -> Any:
    """Build `kind` from plain values, or raise one line that names the field, the value and the nearest valid field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConvNeXtError(_one_line(kind, error, where)) from None


def override(recipe: Recipe, changes: dict[str, str | Any]) -> Recipe:
    """`recipe` with dotted fields replaced, e.g. {'optim.lr': '1e-3'}; text values are read as JSON where they can be.

    Raises ConvNeXtError for an unknown field (with the nearest valid one) or a value that the field refuses.
    """
    values = recipe.model_dump()
    known = fields_of(recipe)
    for path, value in changes.items():
        if path not in known:
            raise ConvNeXtError(f"No recipe field is called '{path}'.{nearest(path, known)}")
        *parents, leaf = path.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        place[leaf] = _plain(value) if isinstance(value, str) and not isinstance(place[leaf], str) else value
    return parse(Recipe, values, where=f"recipe '{recipe.name}'")


def fields_of(value: Frozen, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a frozen value under its dotted name, e.g. 'optim.lr'."""
    leaves: dict[str, Any] = {}
    for name in type(value).model_fields:
        item = getattr(value, name)
        leaves |= fields_of(item, f"{prefix}{name}.") if isinstance(item, Frozen) else {f"{prefix}{name}": item}
    return leaves


def _plain(text: str) -> Any:
    """'1e-3' -> 0.001, 'true' -> True, '[1, 2]' or '1,2' -> [1, 2], 'none' -> None; other text stays text."""
    if text.lower() in ("none", "null"):
        return None
    for attempt in (text, text.lower(), f"[{text}]" if "," in text else text):
        try:
            return json.loads(attempt)
        except json.JSONDecodeError:
            continue
    return text


def _one_line(kind: type[Frozen], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part not in TAGS]  # pydantic puts the tag of a union into it
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        owner = _owner(kind, [str(part) for part in first["loc"][:-1]])
        return f"{where}: no field is called '{name}'.{nearest(path[-1], owner.model_fields)}"
    if first["type"] == "union_tag_invalid":
        tag, field = str(first["ctx"]["tag"]), str(first["ctx"]["discriminator"]).strip("'")
        tags = [tag for tag, owner in TAGS.items() if field in owner.model_fields]
        return f"{where}: {name}.{field} = {tag!r} is refused: it must be one of {', '.join(tags)}.{nearest(tag, tags)}"
    if first["type"] == "missing":
        return f"{where}: field '{name}' is missing."
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "tuple_type":
        message = "it takes several values, with commas between them"
    if first["type"] == "value_error":
        return f"{where}: {name + ': ' if name else ''}{message}."
    return f"{where}: {name} = {first['input']!r} is refused: {message}."


def _owner(kind: type[Frozen], path: list[str]) -> type[Frozen]:
    """The value that lies at `path` in a `kind`; a part of the path that is a tag names it outright."""
    for part in path:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        choices = [annotation, *get_args(annotation)]
        kind = TAGS.get(part) or next((c for c in choices if isinstance(c, type) and issubclass(c, Frozen)), kind)
    return kind
