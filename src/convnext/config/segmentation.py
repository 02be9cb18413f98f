"""Semantic segmentation as a value: the head behind the backbone, and what happens to images and masks.

Defaults are those of UperNet in arXiv 2201.03545, from the code released with it.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from convnext.config.base import Count, Decay, Frozen, NotNegative, Positive, Rate, Whole, about
from convnext.config.images import AnnotatedAugment, AnnotatedInput, Bands, require_no_colours
from convnext.config.training import TaskRecipe

Norm = Literal["batch", "sync", "group", "none"]


class SegmentationHeadConfig(Frozen):
    """What heads of all kinds have: classes, channels, an auxiliary FCN head, and how an image is tested."""

    title: ClassVar[str]  # its name in texts for people

    kind: Annotated[str, about("name", "which head stands on the backbone")]
    classes: Annotated[
        int, Field(ge=2, le=255), about("classes", "classes of a pixel; 255 is the label of pixels that do not count")
    ] = 150
    width: Annotated[Whole, about("channels", "channels of the head")] = 512
    dropout: Annotated[Decay, about("probability", "of dropping a whole channel before the last convolution")] = 0.1
    norm: Annotated[Norm, about("name", "sync: batch norm with statistics of all processes; group: of each image")] = (
        "sync"
    )
    aux_stage: Annotated[Count, about("stage", "stage that the auxiliary head looks at, from 0")] = 2
    aux_width: Annotated[Whole, about("channels", "channels of the auxiliary head")] = 256
    aux_weight: Annotated[NotNegative, about("factor", "weight of its loss; 0: there is no auxiliary head")] = 0.4
    window_px: Annotated[
        Count, about("px", "side of the window that slides over a test image; 0: the whole image at once")
    ] = 0
    stride_px: Annotated[Count, about("px", "from one window to the next; 0: two thirds of its side")] = 0
    test_scales: Annotated[
        tuple[Positive, ...], about("factor", "sizes of multi-scale testing, relative to that of evaluation")
    ] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

    @model_validator(mode="after")
    def _windows_meet(self) -> "SegmentationHeadConfig":
        if self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px = {self.stride_px} is more than window_px = {self.window_px}: pixels between two windows "
                "would be left out. Lower the first"
            )
        return self

    @property
    def stride(self) -> int:
        """Pixels from one window to the next."""
        return self.stride_px or self.window_px * 2 // 3


class UperNetConfig(SegmentationHeadConfig):
    """UperNet (arXiv 1807.10221): pyramid pooling on the last stage, a feature pyramid, and an auxiliary FCN head."""

    title = "UperNet"

    kind: Annotated[Literal["upernet"], about("name", "which head stands on the backbone")] = "upernet"
    pool_scales: Annotated[
        tuple[Whole, ...], about("cells", "sides of the maps that pyramid pooling makes of the last stage")
    ] = (1, 2, 3, 6)


SegmentationHead = UperNetConfig  # with a second one: Annotated[A | B, Field(discriminator="kind")]


class SegmentationInput(AnnotatedInput, Bands):
    """The sizes at which a network sees images with masks, and their channels."""


class SegmentationAugment(AnnotatedAugment):
    """What training does to an image and its mask."""

    crop_most: Annotated[
        float, Field(gt=0, le=1), about("share", "largest share of one class in a crop, in ten tries; 1: any")
    ] = 1.0


class SegmentationLoss(Frozen):
    """Cross-entropy, and what makes up for classes that have few pixels."""

    balance: Annotated[
        Literal["none", "weights", "logits"],
        about(
            "name",
            "weights: a pixel counts by its class's share to the power of -tau; logits: tau times the logarithm of the "
            "classes' shares is added to the logits, in training only",
        ),
    ] = "none"
    tau: Annotated[Positive, about("factor", "how much of the unevenness is made up for; 1: all")] = 0.5
    shares: Annotated[
        tuple[Positive, ...], about("share", "of each class of the labelled pixels to train on; measured")
    ] = ()


class SegmentationSelect(Frozen):
    """Which weights are the best."""

    metric: Annotated[
        Literal["miou", "mean_accuracy", "pixel_accuracy"],
        about("name", "figure on the held-out images by which the best weights are chosen; ties: by the loss"),
    ] = "miou"
    adjust: Annotated[
        tuple[Rate, ...],
        about(
            "shares",
            "how much of what loss.balance gave to rare classes the answers may take back after training, beside 0: the "
            "held-out images choose",
        ),
    ] = (0.25, 0.5, 0.75, 1.0)


class SegmentationRecipe(TaskRecipe):
    """Everything that decides the numbers of a segmenter; `model` is its backbone."""

    task: Annotated[Literal["segmentation"], about("name", "what is learnt: the class of every pixel")] = "segmentation"
    head: SegmentationHead = UperNetConfig()
    input: SegmentationInput = SegmentationInput()
    augment: SegmentationAugment = SegmentationAugment()
    loss: SegmentationLoss = SegmentationLoss()
    select: SegmentationSelect = SegmentationSelect()

    @property
    def adjustments(self) -> tuple[float, ...]:
        """Those of `select.adjust` that there is something to choose of; () where rare classes count as all others."""
        return () if self.loss.balance == "none" else tuple(share for share in self.select.adjust if share)

    @model_validator(mode="after")
    def _a_share_a_class(self) -> "SegmentationRecipe":
        if self.loss.shares and len(self.loss.shares) != self.head.classes:
            raise ValueError(f"loss.shares names {len(self.loss.shares)} classes, and the head has {self.head.classes}")
        return self

    @model_validator(mode="after")
    def _colours_of_bands(self) -> "SegmentationRecipe":
        require_no_colours(self.input, self.augment)
        return self
