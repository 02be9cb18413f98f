"""What the engine reads of a recipe, whatever the task: optimizer, schedule, precision and seed; and how a run is done.

`Training` decides numbers; `RunOptions` (device, workers, folders) does not.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convnext.config.base import Count, Decay, Frozen, NotNegative, Positive, Rate, Whole, about
from convnext.config.images import Statistics
from convnext.config.networks import ModelConfig


class OptimConfig(Frozen):
    """One optimizer step. `lr` is the peak for `batch`; nothing scales it behind your back."""

    name: Annotated[
        Literal["adamw", "sgd", "muon"],
        about("name", "optimizer; muon: Muon for the matrices of the blocks, AdamW for the rest"),
    ] = "adamw"
    lr: Annotated[
        float,
        Field(
            gt=0, le=1000
        ),  # a slip of the pen: the largest that anyone trains with, SGD's for huge batches, is below 100
        about("per step", "peak learning rate, for this batch; nothing scales it"),
    ]
    batch: Annotated[Whole, about("images", "images per optimizer step, over all devices and micro-batches")]
    weight_decay: Annotated[
        NotNegative, about("per step, times lr", "weight decay; never on 1-D parameters (norms, biases, layer scale)")
    ] = 0.05
    betas: Annotated[
        tuple[Decay, Decay], about("per step", "decay of AdamW's means of the gradient and of its square")
    ] = (0.9, 0.999)
    eps: Annotated[Positive, about("gradient", "added to the root of AdamW's squared mean")] = 1e-8
    momentum: Annotated[Rate, about("per step", "momentum of SGD and Muon")] = 0.9
    muon_ratio: Annotated[
        Positive, about("times lr", "Muon's rate for the matrices of the blocks, when the optimizer is muon")
    ] = 10.0
    muon_convolutions: Annotated[
        bool, about("yes or no", "Muon also for the convolutions of stem and downsampling layers, as matrices")
    ] = False
    layer_decay: Annotated[
        float, Field(gt=0, le=1), about("factor", "learning rate of a depth, as a factor of the next one's; 1: off")
    ] = 1.0
    decay_by: Annotated[
        Literal["layer", "stage"], about("name", "what a depth is for layer_decay: groups of blocks, or stages")
    ] = "layer"
    backbone_lr: Annotated[
        float,
        Field(gt=0, le=1),
        about(
            "factor", "learning rate of a detector's or a segmenter's backbone, as a factor of its head's; 1: the same"
        ),
    ] = 1.0
    clip: Annotated[NotNegative, about("gradient norm", "largest norm of the whole gradient; 0: off")] = 0.0
    ema: Annotated[Decay, about("per step", "decay of the EMA weights; 0: there are none")] = 0.0
    ema_warmup: Annotated[
        bool, about("yes or no", "the EMA decay rises as (1 + t) / (10 + t) over the steps t, for short runs")
    ] = False


class ScheduleConfig(Frozen):
    """How long a run is and the learning rate over it, set before every optimizer step.

    A run counts epochs or steps: one of the two is given, and so it is with the warm-up.
    """

    epochs: Annotated[Positive | None, about("epochs", "passes over the training images; none: steps count")] = None
    steps: Annotated[Whole | None, about("steps", "optimizer steps of the run; none: epochs count")] = None
    warmup_epochs: Annotated[NotNegative, about("epochs", "warm-up from 0 to the peak; 0: none, or steps")] = 0.0
    warmup_steps: Annotated[Count, about("steps", "warm-up, counted in steps; 0: none, or epochs")] = 0
    warmup_from: Annotated[
        Rate | None,
        about("share of lr", "warm up from this share and count the decay from the run's start; none: from 0"),
    ] = None
    kind: Annotated[Literal["cosine", "linear", "step"], about("name", "how the rate falls after the warm-up")] = (
        "cosine"
    )
    min_lr: Annotated[NotNegative, about("per step", "learning rate at the end")] = 0.0
    eval_epochs: Annotated[
        Positive, about("epochs", "evaluate after every so many, also after parts of one, and at the end")
    ] = 1.0
    patience: Annotated[
        Count, about("evaluations", "end the run after so many in a row without a better score; 0: never")
    ] = 0
    step_epochs: Annotated[Positive, about("epochs", "step: the rate falls this often")] = 30.0
    step_factor: Annotated[
        float, Field(gt=0, lt=1), about("factor", "step: what the rate is multiplied by when it falls")
    ] = 0.1
    milestones: Annotated[
        tuple[Positive, ...], about("epochs", "step: the rate falls after these epochs; (): every step_epochs")
    ] = ()

    @model_validator(mode="after")
    def _one_length(self) -> "ScheduleConfig":
        if self.epochs is None and self.steps is None:
            raise ValueError("a run needs a length: give epochs or steps")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"epochs = {self.epochs:g} and steps = {self.steps} are both given, and a run has one length. "
                "Set one of them to none"
            )
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs:g} and warmup_steps = {self.warmup_steps} are both given. "
                "Set one of them to 0"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> "ScheduleConfig":
        if self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs:g} does not fit in epochs = {self.epochs:g}. "
                "Lower the first or raise the second"
            )
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} does not fit in steps = {self.steps}. Lower the first"
            )
        return self


class Named(Frozen):
    """What every recipe says of itself first."""

    task: Annotated[str, about("name", "what is learnt")]
    name: Annotated[str, about("name", "name of the recipe")]
    source: Annotated[str, about("text", "where the values come from")]
    model: ModelConfig


class Training(Frozen):
    """What decides the numbers of a run beside its task: all that the engine reads."""

    optim: OptimConfig
    schedule: ScheduleConfig
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], about("name", "number format of forward and backward pass")
    ] = "fp32"
    seed: Annotated[int, about("number", "seed of the split, the weights, the order and the augmentation")] = 0


class TaskRecipe(Training, Named):  # in this order `Named` comes first in JSON
    """What the recipes of all tasks have."""

    input: Statistics

    @model_validator(mode="after")
    def _channels_fit(self) -> "TaskRecipe":
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
    workers: Annotated[int, Field(ge=-1)] = -1  # processes that read images; -1 chooses
    micro_batch: Count = 0  # images per forward pass and device; 0: the whole share
    compile: bool = False
    cuda_graphs: bool = False  # a training step is recorded as a CUDA graph and replayed
    shard_weights: bool = False  # each of several processes keeps a part of weights, gradients and optimizer states
    # 'auto': the compiled blocks on a CPU in fp32, where there is a compiler; 'triton': also Triton's on a GPU
    kernels: Literal["auto", "plain", "triton"] = "auto"
    checkpoint_steps: Count = 0  # also save `last` every so many steps; 0: by time
    checkpoint_minutes: Positive = 5.0
    cache: Literal["auto", "off", "on"] = "auto"  # keep decoded images in memory
    strict_images: bool = False  # an image that breaks ends the run instead of being skipped
    tensorboard: bool = False
    progress: bool = True  # is shown while it trains and evaluates
