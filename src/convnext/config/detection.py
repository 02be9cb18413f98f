"""Detection as a value: the head behind the backbone, and what happens to images, boxes and masks.

Defaults are those of Mask R-CNN in arXiv 2201.03545, from the code released with it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from convnext.config.base import Frozen, NotNegative, Positive, Rate, Whole, about
from convnext.config.images import AnnotatedAugment, AnnotatedInput, Bands, require_no_colours
from convnext.config.training import TaskRecipe

_TITLES = {  # kind -> its name in texts for people, and without the masks that of what its paper started from
    "mask_rcnn": ("Mask R-CNN", "Faster R-CNN"),
    "cascade": ("Cascade Mask R-CNN", "Cascade R-CNN"),
}


class StageConfig(Frozen):
    """One box head: which proposals it takes for objects, how it codes boxes, and what its losses weigh."""

    iou: Annotated[Rate, about("IoU", "a proposal is an object from this overlap on")]
    stds: Annotated[
        tuple[Positive, Positive, Positive, Positive],
        about("share of the box", "units in which the head predicts the deltas of x, y, width and height"),
    ]
    weight: Annotated[Positive, about("factor", "weight of the stage's losses")] = 1.0


class DetectorHeadConfig(Frozen):
    """Mask R-CNN (arXiv 1703.06870) or Cascade Mask R-CNN (1906.09756), without the backbone."""

    kind: Annotated[Literal["mask_rcnn", "cascade"], about("name", "which head stands on the backbone")] = "mask_rcnn"
    classes: Annotated[Whole, about("classes", "classes of objects, without the background")] = 80
    masks: Annotated[bool, about("yes or no", "a mask head; no: boxes only")] = True
    fixed_batch_norm: Annotated[
        bool,
        about("yes or no", "a pretrained ResNet's statistics stay as they are, for batches of a few images"),
    ] = False

    channels: Annotated[Whole, about("channels", "channels of the pyramid and of the heads' convolutions")] = 256
    hidden: Annotated[Whole, about("channels", "outputs of the box heads' linear layers")] = 1024
    box_head: Annotated[
        Literal["linear", "convolutional"], about("name", "two linear layers, or four convolutions and one linear")
    ] = "linear"
    head_norm: Annotated[
        Literal["sync", "batch", "group"],
        about("name", "norm of convolutional box heads; group suits batches of 1 or 2"),
    ] = "sync"
    box_loss: Annotated[
        Literal["l1", "giou"], about("name", "loss on the deltas, or on decoded boxes (arXiv 1902.09630)")
    ] = "l1"
    box_loss_weight: Annotated[Positive, about("factor", "weight of the box heads' box loss")] = 1.0
    stages: Annotated[
        tuple[StageConfig, ...],
        Field(min_length=1),
        about("iou, stds, weight", "the box heads, one after the other; Mask R-CNN has one"),
    ] = (StageConfig(iou=0.5, stds=(0.1, 0.1, 0.2, 0.2)),)

    anchor_scale: Annotated[Positive, about("strides", "side of the square anchor, in strides of its level")] = 8.0
    anchor_ratios: Annotated[
        tuple[Positive, ...], Field(min_length=1), about("height over width", "shapes of the anchors")
    ] = (0.5, 1.0, 2.0)
    rpn_positive_iou: Annotated[Rate, about("IoU", "an anchor is an object from this overlap on")] = 0.7
    rpn_negative_iou: Annotated[Rate, about("IoU", "an anchor is background below this overlap")] = 0.3
    rpn_samples: Annotated[Whole, about("anchors", "anchors of an image that the losses see")] = 256
    rpn_positive_share: Annotated[Rate, about("share", "largest share of objects among these anchors")] = 0.5
    rpn_beta: Annotated[NotNegative, about("delta", "where smooth L1 becomes linear; 0: plain L1")] = 0.0

    candidates_train: Annotated[
        Whole, about("boxes", "best-scored anchors of a level that go into suppression, in training")
    ] = 2000
    candidates_test: Annotated[
        Whole, about("boxes", "best-scored anchors of a level that go into suppression, in evaluation")
    ] = 1000
    proposals_train: Annotated[Whole, about("boxes", "proposals of an image, in training")] = 1000
    proposals_test: Annotated[Whole, about("boxes", "proposals of an image, in evaluation")] = 1000
    proposal_nms_iou: Annotated[Rate, about("IoU", "proposals that overlap more with a better one are dropped")] = 0.7
    roi_samples: Annotated[Whole, about("boxes", "proposals of an image that the heads' losses see")] = 512
    roi_positive_share: Annotated[Rate, about("share", "largest share of objects among these proposals")] = 0.25
    match_low_quality: Annotated[
        bool,
        about("yes or no", "in the heads, an object's best proposal is its own though another fits better"),
    ] = True
    crowd_cover: Annotated[
        Rate | None,
        about("share of the area", "background with this much of it inside a crowd is ignored; none: it is not"),
    ] = 0.5

    score: Annotated[Rate, about("probability", "detections below it are dropped")] = 0.05
    nms_iou: Annotated[Rate, about("IoU", "detections that overlap more with a better one are dropped")] = 0.5
    most: Annotated[Whole, about("detections", "detections of an image")] = 100

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

    @property
    def title(self) -> str:
        """Its name in texts for people."""
        return _TITLES[self.kind][not self.masks]


class DetectionInput(AnnotatedInput, Bands):
    """The sizes at which a detector sees images, their channels, and which images it is trained on."""

    empty: Annotated[
        bool, about("yes or no", "images that show no object, or crowds alone, are trained on as well")
    ] = True


class DetectionSelect(Frozen):
    """Which weights are the best."""

    metric: Annotated[
        Literal["box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"] | None,
        about(
            "name",
            "figure on the held-out images by which the best weights are chosen; none: mask_ap where there are masks, "
            "else box_ap",
        ),
    ] = None


class DetectionRecipe(TaskRecipe):
    """Everything that decides the numbers of a detector; `model` is its backbone."""

    task: Annotated[Literal["detection"], about("name", "what is learnt: boxes, and masks where they are known")] = (
        "detection"
    )
    head: DetectorHeadConfig = DetectorHeadConfig()
    input: DetectionInput = DetectionInput()
    augment: AnnotatedAugment = AnnotatedAugment()
    select: DetectionSelect = DetectionSelect()

    @model_validator(mode="after")
    def _colours_of_bands(self) -> "DetectionRecipe":
        require_no_colours(self.input, self.augment)
        return self
