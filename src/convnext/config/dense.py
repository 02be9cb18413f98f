"""Detection and segmentation as values: the network behind the backbone, and what happens to images.

Defaults are those of Mask R-CNN and UperNet in arXiv 2201.03545, from the code released with it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convnext.config.base import Frozen, Rate

Whole = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Norm = Literal["batch", "sync", "group", "none"]  # 'sync': statistics of all processes; 'group': of one image


class StageConfig(Frozen):
    """One box head: which proposals it takes for objects, how it codes boxes, and what its losses weigh."""

    iou: Rate  # a proposal is an object from this overlap on
    stds: tuple[Positive, Positive, Positive, Positive]  # of the box deltas x, y, w, h: the head predicts units of them
    weight: Positive = 1.0


class DetectorHeadConfig(Frozen):
    """Mask R-CNN (arXiv 1703.06870) or Cascade Mask R-CNN (1906.09756), without the backbone."""

    task: Literal["detection"] = "detection"
    kind: Literal["mask_rcnn", "cascade"] = "mask_rcnn"
    classes: Whole = 80  # without the background
    masks: bool = True  # False: boxes only, no mask head
    fixed_batch_norm: bool = False  # a pretrained ResNet's statistics stay as they are, for batches of a few images

    channels: Whole = 256  # of the pyramid and of the convolutions in the heads
    hidden: Whole = 1024  # of the box heads' linears
    box_head: Literal["linear", "convolutional"] = "linear"  # two linears, or four convolutions and one linear
    head_norm: Literal["sync", "batch", "group"] = "sync"  # of convolutional box heads; 'group' suits batches of 1 or 2
    box_loss: Literal["l1", "giou"] = "l1"  # on the deltas, or on decoded boxes (arXiv 1902.09630)
    box_loss_weight: Positive = 1.0
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)] = (StageConfig(iou=0.5, stds=(0.1, 0.1, 0.2, 0.2)),)

    anchor_scale: Positive = 8.0  # side of the square anchor, in strides of its level
    anchor_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)  # height over width
    rpn_positive_iou: Rate = 0.7
    rpn_negative_iou: Rate = 0.3
    rpn_samples: Whole = 256  # anchors of an image that the losses see
    rpn_positive_share: Rate = 0.5  # of them at most objects
    rpn_beta: Annotated[float, Field(ge=0)] = 0.0  # where smooth L1 becomes linear; 0: plain L1

    candidates_train: Whole = 2000  # best-scored anchors of a level that go into suppression
    candidates_test: Whole = 1000
    proposals_train: Whole = 1000  # boxes of an image that leave it
    proposals_test: Whole = 1000
    proposal_nms_iou: Rate = 0.7
    roi_samples: Whole = 512  # proposals of an image that the head's losses see
    roi_positive_share: Rate = 0.25
    match_low_quality: bool = True  # in the heads: an object's best proposal is its own though another fits better
    crowd_cover: Rate | None = 0.5  # background with this share of its area inside a crowd is ignored; None: is not

    score: Rate = 0.05  # detections below it are dropped
    nms_iou: Rate = 0.5
    most: Whole = 100  # detections of an image

    @model_validator(mode="after")
    def _fits(self) -> "DetectorHeadConfig":
        if self.rpn_negative_iou > self.rpn_positive_iou:
            raise ValueError(
                f"rpn_negative_iou = {self.rpn_negative_iou:g} is above rpn_positive_iou = {self.rpn_positive_iou:g}: "
                "an anchor would be object and background. Lower the first"
            )
        if self.kind == "mask_rcnn" and len(self.stages) > 1:
            raise ValueError(f"mask_rcnn has one stage and {len(self.stages)} are given. Take kind = cascade")
        return self


class UperNetConfig(Frozen):
    """UperNet (arXiv 1807.10221): pyramid pooling on the last stage, a feature pyramid, and an auxiliary FCN head."""

    task: Literal["segmentation"] = "segmentation"
    classes: Annotated[int, Field(ge=2, le=255)] = 150  # 255 is the label of pixels that do not count
    width: Whole = 512
    pool_scales: tuple[Whole, ...] = (1, 2, 3, 6)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of whole channels before the last convolution
    norm: Norm = "sync"
    aux_stage: Annotated[int, Field(ge=0)] = 2  # that the auxiliary head looks at
    aux_width: Whole = 256
    aux_weight: Annotated[float, Field(ge=0)] = 0.4  # of its loss; 0: no auxiliary head
    window_px: Annotated[int, Field(ge=0)] = 0  # side of the window that slides over a test image; 0: all at once
    stride_px: Annotated[int, Field(ge=0)] = 0  # from one window to the next; 0: two thirds of it
    test_scales: tuple[Positive, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # multi-scale testing

    @model_validator(mode="after")
    def _windows_meet(self) -> "UperNetConfig":
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


HeadConfig = Annotated[DetectorHeadConfig | UperNetConfig, Field(discriminator="task")]


class DenseConfig(Frozen):
    """What detection and segmentation do to a training image, in this order; boxes and masks move with their pixels.

    'Fitted into (short, long)': as large as it can be with a shorter side of at most short and a longer of at most long.
    """

    precrop: Rate = 0.0  # how often a crop comes before everything else:
    precrop_short_px: tuple[Whole, ...] = (400, 500, 600)  # fitted into one of these, with a long side as it comes,
    precrop_px: tuple[Whole, Whole] = (384, 600)  # and cut to sides sampled from this range
    short_px: tuple[Whole, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)  # fitted into one of these,
    long_px: Whole = 1333  # and this,
    scale: tuple[Positive, Positive] = (1.0, 1.0)  # both times one of these
    crop_px: Annotated[int, Field(ge=0)] = 0  # side of the crop, padded where the image is smaller; 0: no crop
    crop_most: Annotated[float, Field(gt=0, le=1)] = 1.0  # largest share of one class in it (ten tries); 1: any
    hflip: Rate = 0.5
    vflip: Rate = 0.0
    photometric: bool = False  # brightness, contrast, saturation and hue, each half of the time (arXiv 1512.02325)
    empty: bool = True  # detection: images that show no object, or crowds alone, are trained on as well
    multiple: Whole = 32  # images are padded, right and below, to multiples of this
    eval_short_px: Whole = 800
    eval_long_px: Whole = 1333

    @model_validator(mode="after")
    def _ordered(self) -> "DenseConfig":
        for name, (low, high) in {"precrop_px": self.precrop_px, "scale": self.scale}.items():
            if low > high:
                raise ValueError(f"{name} = ({low:g}, {high:g}) must have the smaller number first")
        if not self.short_px or not self.precrop_short_px:
            raise ValueError("short_px and precrop_short_px must name one size or more")
        return self
