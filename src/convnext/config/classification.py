"""Classification as a value: how an image becomes one class, or several labels."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convnext.config.base import Count, Decay, Frozen, NotNegative, Positive, Rate, about
from convnext.config.images import Bands
from convnext.config.training import TaskRecipe

Side = Annotated[int, Field(ge=4, le=4096)]


class InputConfig(Bands):
    """What the network sees: sizes in pixels, and how evaluation brings an image to them."""

    size_px: Annotated[Side, about("px", "side of the training crop")] = 224
    eval_size_px: Annotated[Side, about("px", "side of the image that evaluation and prediction show")] = 224
    eval_resize: Annotated[
        Literal["crop", "warp"],
        about("name", "crop: the shorter side is resized and the centre cut out; warp: both sides, nothing cut off"),
    ] = "crop"
    eval_crop: Annotated[
        float,
        Field(gt=0, le=1),
        about("share", "crop: the shorter side is resized to eval_size_px divided by this"),
    ] = 0.875
    progressive: Annotated[
        tuple[tuple[Rate, Annotated[int, Field(ge=4)]], ...],
        about("share of the run, px", "sides of the training crop up to these shares of the run, before size_px"),
    ] = ()

    @property
    def side_px(self) -> int:
        """The side that the network mostly sees."""
        return self.size_px

    @property
    def training_px(self) -> tuple[int, int]:
        """The smallest and the largest side of a training image."""
        return min([size for _, size in self.progressive], default=self.size_px), self.size_px

    @model_validator(mode="after")
    def _ordered(self) -> "InputConfig":
        shares = [share for share, _ in self.progressive]
        if shares != sorted(set(shares)):
            raise ValueError(f"progressive shares {shares} must rise")
        return self


class AugmentConfig(Frozen):
    """What training does to images and labels; every value at its 'off' leaves the image alone."""

    scale: Annotated[tuple[Rate, Rate], about("share of the area", "range of the area of the random resized crop")] = (
        0.08,
        1.0,
    )
    ratio: Annotated[
        tuple[float, float], about("width over height", "range of the shape of the random resized crop")
    ] = (3 / 4, 4 / 3)
    hflip: Annotated[Rate, about("probability", "of a mirror image, left and right")] = 0.5
    hflip_order: Annotated[
        Literal["random", "alternate"],
        about("name", "random: each view by itself; alternate: after the first, every other one (arXiv 2404.00498)"),
    ] = "random"
    vflip: Annotated[Rate, about("probability", "of a mirror image, top and bottom")] = 0.0
    rand_augment: Annotated[
        str, about("text", "RandAugment in timm's notation, e.g. 'rand-m9-mstd0.5-inc1'; '': off")
    ] = ""
    erasing: Annotated[Rate, about("probability", "of erasing one rectangle with noise")] = 0.0
    mixup: Annotated[NotNegative, about("alpha", "mixup's share of an image is sampled from Beta(a, a); 0: off")] = 0.0
    cutmix: Annotated[NotNegative, about("alpha", "cutmix's share of an image is sampled from Beta(a, a); 0: off")] = (
        0.0
    )
    mix_prob: Annotated[Rate, about("probability", "of mixing a batch at all")] = 1.0
    mix_switch: Annotated[Rate, about("probability", "of cutmix when both are on")] = 0.5
    smoothing: Annotated[Decay, about("share", "of the target that is spread over all classes")] = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentConfig":
        for name, (low, high) in {"scale": self.scale, "ratio": self.ratio}.items():
            if not 0 < low <= high:
                raise ValueError(f"{name} = ({low:g}, {high:g}) must be two positive numbers, the smaller first")
        return self


class LossConfig(Frozen):
    """What is minimised, and what makes up for classes that have few images."""

    kind: Annotated[
        Literal["ce", "bce", "focal", "asymmetric"],
        about(
            "name", "ce: cross-entropy, for one label an image; the others for several, where each class is asked for"
        ),
    ] = "ce"
    gamma: Annotated[
        NotNegative,
        about("power", "focal, asymmetric: how much less what is already right counts; asymmetric: of a yes"),
    ] = 0.0
    gamma_no: Annotated[NotNegative, about("power", "asymmetric: the same of a no")] = 4.0
    margin: Annotated[
        Decay,
        about("probability", "asymmetric: taken off the probability of a no, so that what is sure counts as nothing"),
    ] = 0.05
    balance: Annotated[
        Literal["none", "sampler", "weights", "logits"],
        about(
            "name",
            "sampler: each class is seen as often; weights: a class counts by its effective number of images; "
            "logits: the classes' shares are added to the logits, in training only",
        ),
    ] = "none"
    beta: Annotated[
        Decay | None,
        about("factor", "weights: what an image adds to those of its class; none: 1 - 1/n for n images a class"),
    ] = None
    tau: Annotated[Positive, about("factor", "logits: of the logarithm of the classes' shares")] = 1.0


class SelectConfig(Frozen):
    """Which weights are the best."""

    metric: Annotated[
        Literal["top1", "top5", "balanced_accuracy", "macro_f1", "map", "micro_f1", "exact"],
        about(
            "name",
            "figure on the held-out images by which the best weights are chosen; ties: by the loss; of several labels an "
            "image map, macro_f1, micro_f1, exact",
        ),
    ] = "top1"


_BALANCES = ("none", "sampler", "weights")  # of several labels an image
_METRICS = {  # labels -> what can choose the best weights
    "single": ("top1", "top5", "balanced_accuracy", "macro_f1"),
    "multi": ("map", "macro_f1", "micro_f1", "exact"),
}


class StartConfig(Frozen):
    """What is made of the weights that a run starts from; a run from random weights is 'full'."""

    mode: Annotated[
        Literal["full", "probe", "probe_full"],
        about(
            "name", "full: train everything; probe: a linear head on frozen features; probe_full: one, then the other"
        ),
    ] = "full"
    mirror: Annotated[bool, about("yes or no", "the probe also learns from the features of mirrored images")] = True
    mix: Annotated[
        tuple[Rate, ...],
        about("shares", "shares of the fine-tuned weights to try in a mix with the frozen network; (): no mix"),
    ] = ()
    folds: Annotated[
        Count, about("parts", "how many parts choose crosswise, each held out once; 0: the held-out images choose")
    ] = 0

    @model_validator(mode="after")
    def _fits(self) -> "StartConfig":
        if self.folds == 1:
            raise ValueError("folds = 1 holds nothing out. Give 2 or more, or 0")
        if self.mode != "probe_full" and (self.mix or self.folds):
            raise ValueError(f"mode = '{self.mode}' has nothing to mix: give mix = () and folds = 0")
        return self


class ClassificationRecipe(TaskRecipe):
    """Everything that decides the numbers of a classifier, and nothing that does not."""

    task: Annotated[Literal["classification"], about("name", "what is learnt: one class for each image")] = (
        "classification"
    )
    labels: Annotated[
        Literal["single", "multi"], about("name", "what an image has: one label, or several, or none; follows the data")
    ] = "single"
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    select: SelectConfig = SelectConfig()
    start: StartConfig = StartConfig()

    @model_validator(mode="after")
    def _colours_to_change(self) -> "ClassificationRecipe":
        if self.augment.rand_augment and (self.input.wide or len(self.input.mean) not in (1, 3)):
            raise ValueError(
                f"augment.rand_augment = '{self.augment.rand_augment}' changes colours, which bands do not have. Set it "
                "to '': crops, flips, erasing, mixup and cutmix are for any bands"
            )
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> "ClassificationRecipe":
        several = self.labels == "multi"
        for name, value, able in (
            ("loss.kind", self.loss.kind, ("bce", "focal", "asymmetric") if several else ("ce",)),
            ("loss.balance", self.loss.balance, _BALANCES if several else (self.loss.balance,)),
            ("select.metric", self.select.metric, _METRICS[self.labels]),
        ):
            if value not in able:
                why = " (each class has its own threshold, which makes up for shares)" * (value == "logits")
                raise ValueError(f"{name} = '{value}' is not for labels = '{self.labels}'{why}: take {', '.join(able)}")
        return self
