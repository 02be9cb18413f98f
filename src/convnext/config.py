"""The frozen values that decide a run: network, data, augmentation, optimizer, schedule, and the recipe that holds them.

Everything that decides the numbers of a run is in `Recipe`; everything that does not (device, workers, folders) is in
`RunOptions`. Both are read once, at the top. No torch here, so that `convnext --help` answers at once.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from convnext.errors import ConvNeXtError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Rate = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A strict value: unknown fields, infinities and NaN are refused, and nothing changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ConvNeXtConfig(Frozen):
    """One ConvNeXt: V1 (arXiv 2201.03545), V2 with GRN (arXiv 2301.00808), or isotropic (2201.03545, section 3.3)."""

    family: Literal["convnext"] = "convnext"
    name: str = "custom"
    depths: tuple[Annotated[int, Field(ge=1)], ...]  # blocks in each stage; one stage makes it isotropic
    widths: tuple[Annotated[int, Field(ge=1)], ...]  # channels C of each stage
    patch: Annotated[int, Field(ge=1)] = 4  # input pixels per position of stage 0
    stem: Literal["patch", "overlap"] = "patch"  # 'overlap': 3x3 convolutions of stride 2, for small data
    stem_norm: bool = True  # isotropic networks have none
    kernel: Annotated[int, Field(ge=1)] = 7
    layer_scale: float | None = 1e-6  # initial gamma; None: the block has no gamma
    grn: bool = False  # global response normalisation after GELU (V2)
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # rate of the last block; rises linearly from 0 at the first
    head_scale: float = 1.0  # factor on the head's initial weight and bias
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000  # 0: no head, the model returns its normed, pooled features
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, same numbers

    @model_validator(mode="after")
    def _fits(self) -> "ConvNeXtConfig":
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths {self.depths} and widths {self.widths} name different numbers of stages")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even: padding cannot keep the size. Take {self.kernel + 1}")
        if self.stem == "overlap" and self.patch not in (2, 4, 8):
            raise ValueError(f"an overlap stem halves the picture once or more: patch = {self.patch} is not 2, 4 or 8")
        return self


class TimmConfig(Frozen):
    """A baseline network from timm, trained and evaluated by the same code."""

    family: Literal["timm"] = "timm"
    name: str  # a name that timm knows, e.g. 'resnet18'
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000


class RoadmapConfig(Frozen):
    """One network between ResNet and ConvNeXt: a field for each decision of arXiv 2201.03545, section 2.

    The defaults are ResNet-50; `recipes.roadmap` changes one decision after the other. Any combination can be built.
    """

    family: Literal["roadmap"] = "roadmap"
    name: str = "custom"
    depths: tuple[Annotated[int, Field(ge=1)], ...] = (3, 4, 6, 3)  # blocks in each stage
    width: Annotated[int, Field(ge=1)] = 64  # w; stage s works with w * 2^s channels
    stem: Literal["conv7", "patch"] = "conv7"  # 7x7 of stride 2 and a max pool, or patches that do not overlap
    patch: Literal[2, 4] = 4  # input pixels per position of stage 0, with either stem; 2 is for small pictures
    depthwise: bool = False  # the spatial convolution sees one channel at a time
    bottleneck: Literal["narrow", "inverted"] = "narrow"  # a block's output is 4x wider, or 4x narrower, than its inside
    order: Literal["spatial_second", "spatial_first"] = "spatial_second"  # place among the block's three convolutions
    kernel: Annotated[int, Field(ge=1)] = 3
    activation: Literal["relu", "gelu"] = "relu"
    activations_per_block: Literal[3, 1] = 3  # 1: only behind the block's second convolution, and none in the stem
    norms_per_block: Literal[3, 1] = 3  # 1: only behind the spatial convolution
    norm: Literal["batch", "layer"] = "batch"
    downsample: Literal["block", "layer"] = "block"  # a stage's first block halves the map, or a layer of its own does
    bias: bool = False  # of convolutions; the head always has one
    layer_scale: float | None = None  # initial gamma; None: the block has no gamma
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # rate of the last block; rises linearly from 0 at the first
    in_channels: Annotated[int, Field(ge=1)] = 3
    classes: Annotated[int, Field(ge=0)] = 1000  # 0: no head, the model returns its pooled features

    @model_validator(mode="after")
    def _fits(self) -> "RoadmapConfig":
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even: padding cannot keep the size. Take {self.kernel + 1}")
        if not self.depths:
            raise ValueError("depths = () names no stage: give the blocks of each, e.g. 3, 3, 9, 3")
        return self


ModelConfig = Annotated[ConvNeXtConfig | TimmConfig | RoadmapConfig, Field(discriminator="family")]


class InputConfig(Frozen):
    """What the network sees: sizes in pixels, and how evaluation brings a picture to them."""

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
    """What training does to pictures and labels; every value at its 'off' leaves the picture alone."""

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
    batch: Annotated[int, Field(ge=1)]  # pictures per optimizer step, over all devices and micro-batches
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # never on 1-D parameters (norms, biases, layer scale)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    momentum: Rate = 0.9  # sgd and muon
    muon_ratio: Annotated[float, Field(gt=0)] = 10.0  # to `lr`, for the matrices of the blocks when name is 'muon'
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip: Annotated[float, Field(ge=0)] = 0.0  # largest gradient norm; 0 is off
    ema: Decay = 0.0  # decay of the averaged weights; 0 is off
    ema_warmup: bool = False  # lets the decay rise as (1 + t) / (10 + t), for short runs


class ScheduleConfig(Frozen):
    """The learning rate over the run, set before every optimizer step."""

    epochs: Annotated[float, Field(gt=0)]
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    kind: Literal["cosine", "linear", "step"] = "cosine"
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    eval_epochs: Annotated[int, Field(ge=1)] = 1  # evaluate after every so many epochs, and at the end
    step_epochs: Annotated[float, Field(gt=0)] = 30.0  # 'step': lr is multiplied by step_factor this often
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _warmup_fits(self) -> "ScheduleConfig":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs:g} does not fit in epochs = {self.epochs:g}. "
                "Lower the first or raise the second"
            )
        return self


class Recipe(Frozen):
    """Everything that decides the numbers of a run, and nothing that does not."""

    name: str
    source: str  # where the values come from, e.g. 'arXiv 2201.03545, Table 5'
    model: ModelConfig
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig
    schedule: ScheduleConfig
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0

    @model_validator(mode="after")
    def _channels_fit(self) -> "Recipe":
        if len(self.input.mean) != self.model.in_channels:
            raise ValueError(
                f"input.mean has {len(self.input.mean)} values and model.in_channels = {self.model.in_channels}. "
                "Give one mean and one std for each channel"
            )
        return self


class RunOptions(Frozen):
    """How and where a run is carried out; none of it changes what is computed."""

    out: str
    device: str = "auto"
    workers: Annotated[int, Field(ge=-1)] = -1  # processes that read pictures; -1 chooses
    micro_batch: Annotated[int, Field(ge=0)] = 0  # pictures per forward pass and device; 0: the whole share
    compile: bool = False
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0  # also save `last` every so many steps; 0: by time
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    cache: Literal["auto", "off", "on"] = "auto"  # keep decoded pictures in memory
    strict_pictures: bool = False  # a picture that breaks ends the run instead of being skipped
    tensorboard: bool = False


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
    tags = {"convnext": ConvNeXtConfig, "timm": TimmConfig, "roadmap": RoadmapConfig}
    path = [str(part) for part in first["loc"] if part not in tags]  # pydantic puts the tag of a union into it
    network = next((tags[part] for part in first["loc"] if part in tags), ConvNeXtConfig)
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        owner: Any = kind
        for part in path[:-1]:
            annotation = owner.model_fields[part].annotation
            owner = annotation if isinstance(annotation, type) else network
        return f"{where}: no field is called '{name}'.{nearest(path[-1], owner.model_fields)}"
    if first["type"] == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])
        return f"{where}: {name}.family = {tag!r} is refused: it must be one of {', '.join(tags)}.{nearest(tag, tags)}"
    if first["type"] == "missing":
        return f"{where}: field '{name}' is missing."
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where}: {name + ': ' if name else ''}{message}."
    return f"{where}: {name} = {first['input']!r} is refused: {message}."
