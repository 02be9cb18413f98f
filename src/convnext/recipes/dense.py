"""Detection and segmentation: the published recipes of COCO and ADE20K, and two for a few hundred images of one's own.

Liu et al. 2022, arXiv 2201.03545, appendix A.3, with what only the released code tells: layer-wise decay on COCO,
stage-wise on ADE20K, warm-up in steps, mixed precision for the smaller networks. All start from classification weights
(not the EMA ones); `layer_scale = 1` is how the code creates gamma before the weights replace it.
"""

import math
from collections.abc import Container
from typing import Any

from convnext.config import (
    AnnotatedAugment,
    ConvNeXtConfig,
    DetectionInput,
    DetectionRecipe,
    DetectorHeadConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    SegmentationAugment,
    SegmentationInput,
    SegmentationRecipe,
    StageConfig,
    UperNetConfig,
)
from convnext.config.facts import StartFacts
from convnext.recipes.architectures import architecture
from convnext.recipes.small import MUON_RATIO, OVERLAP, lr_for

PAPER = "arXiv 2201.03545"
ADE20K_IMAGES, ADE20K_STEPS = 20_210, 160_000

# (lr, stochastic depth of the last block, decay a layer, mixed precision) by backbone and what it was pretrained on
MASK_RCNN = {"tiny": (1e-4, 0.4, 0.95, True)}
CASCADE_1K = {"tiny": (2e-4, 0.4, 0.7, True), "small": (2e-4, 0.6, 0.7, True), "base": (2e-4, 0.7, 0.8, True)}
CASCADE_22K = {"base": (1e-4, 0.6, 0.8, True), "large": (1e-4, 0.7, 0.7, False), "xlarge": (1e-4, 0.8, 0.7, False)}
# (lr, stochastic depth, mixed precision); the decay a stage is 0.9 for all
UPERNET = {
    "tiny": (1e-4, 0.4, True),
    "small": (1e-4, 0.3, True),
    "base": (1e-4, 0.4, True),
    "large": (1e-4, 0.4, False),
    "xlarge": (8e-5, 0.4, False),
}
UPERNET_640 = ("large", "xlarge")  # at 640 px, as 'base' is when it was pretrained on ImageNet-22K
TUNED_DECAY = 0.9  # a layer of a backbone that has learnt already, as a factor of the rate of the layer behind it
TUNED_BACKBONE = 0.5  # the same for a backbone whose layers are not told apart, of all of it
_BATCH_NORM = 4  # images a step from which batch norms learn faster than group norms, which any batch will do for
LIKE = {"v2_tiny": "tiny", "v2_base": "base", "v2_large": "large", "v2_huge": "large"}  # not published, so ours

THREE_STAGES = (
    StageConfig(iou=0.5, stds=(0.1, 0.1, 0.2, 0.2)),
    StageConfig(iou=0.6, stds=(0.05, 0.05, 0.1, 0.1), weight=0.5),
    StageConfig(iou=0.7, stds=(0.033, 0.033, 0.067, 0.067), weight=0.25),
)
CASCADE_HEAD = DetectorHeadConfig(
    kind="cascade",
    stages=THREE_STAGES,
    box_head="convolutional",
    head_norm="sync",
    box_loss="giou",
    box_loss_weight=10.0,
    rpn_beta=1 / 9,
    proposals_train=2000,
    match_low_quality=False,
)
LEAST_EVALUATIONS = 5  # of a detector or a segmenter: fewer points are no curve
EVALUATIONS = {  # how often a run is scored, whatever its length; the others: after every epoch
    "transfer": 20,
    **dict.fromkeys(("coco_mask_rcnn_3x", "coco_cascade_3x", "coco_cascade_3x_22k"), 36),
    "small_detection": 6,
    "small_segmentation": 10,
    "ade20k_upernet_160k": 10,
    "ade20k_upernet_160k_640": 10,
}


def coco_mask_rcnn_3x(model: str) -> DetectionRecipe:
    """36 epochs of COCO with Mask R-CNN, batch 16; published for 'tiny'."""
    return _coco("coco_mask_rcnn_3x", "Mask R-CNN", model, DetectorHeadConfig(), MASK_RCNN)


def coco_cascade_3x(model: str) -> DetectionRecipe:
    """36 epochs of COCO with Cascade Mask R-CNN, batch 16; 'base' and smaller from ImageNet-1K weights."""
    return _coco("coco_cascade_3x", "Cascade Mask R-CNN", model, CASCADE_HEAD, CASCADE_22K | CASCADE_1K)


def coco_cascade_3x_22k(model: str) -> DetectionRecipe:
    """Cascade Mask R-CNN from ImageNet-22K weights: published for 'base', 'large' and 'xlarge'."""
    return _coco("coco_cascade_3x_22k", "Cascade Mask R-CNN, 22K", model, CASCADE_HEAD, CASCADE_1K | CASCADE_22K)


def ade20k_upernet_160k(model: str) -> SegmentationRecipe:
    """160,000 steps of ADE20K with UperNet, batch 16; at 512 px, the two largest at 640."""
    return _ade20k("ade20k_upernet_160k", model, 640 if architecture(model).name in UPERNET_640 else 512)


def ade20k_upernet_160k_640(model: str) -> SegmentationRecipe:
    """160,000 steps of ADE20K with UperNet at 640 px, published for 'base', 'large' and 'xlarge' from 22K weights."""
    return _ade20k("ade20k_upernet_160k_640", model, 640)


def small_segmentation(
    model: str,
    *,
    images: int,
    image_px: int,
    classes: int,
    batch: int | None = None,
    start: StartFacts | None = None,
) -> SegmentationRecipe:
    """A few hundred images with masks of classes, one machine, from weights of a backbone or none; fitted to the data."""
    batch = batch or dense_batch(images)
    crop = _crop_for(image_px)
    epochs = dense_epochs(images)
    return SegmentationRecipe(
        name="small_segmentation",
        source=f"set for this package; fitted to {images} images of {image_px} px",
        model=_own_network(model),
        head=UperNetConfig(
            classes=classes,
            width=_head_width(model),
            aux_width=64,
            norm="batch" if batch >= _BATCH_NORM else "group",
        ),
        input=SegmentationInput(**_sizes(image_px, crop)),
        augment=SegmentationAugment(scale=(0.5, 2.0), crop_most=0.75, photometric=True),
        optim=_small_optim(model, batch, epochs * images / batch, start),
        schedule=ScheduleConfig(
            epochs=epochs, warmup_epochs=epochs / 20, eval_epochs=interval("small_segmentation", epochs)
        ),
    )


def small_detection(
    model: str,
    *,
    images: int,
    image_px: int,
    classes: int,
    batch: int | None = None,
    masks: bool = True,
    start: StartFacts | None = None,
) -> DetectionRecipe:
    """A few hundred images with boxes, and masks where they are, one machine, from weights or none; fitted to the data."""
    batch = batch or dense_batch(images)
    short = min(800, max(64, image_px))
    crop = 32 * math.floor(short / 32 + 0.5)
    epochs = dense_epochs(images)
    channels = _head_width(model)
    return DetectionRecipe(
        name="small_detection",
        source=f"set for this package; fitted to {images} images of {image_px} px",
        model=_own_network(model),
        head=DetectorHeadConfig(
            classes=classes,
            masks=masks,
            channels=channels,
            hidden=4 * channels,
            box_head="convolutional",  # linears without a norm hardly learn from random weights
            head_norm="group",
            anchor_scale=4.0,  # objects of a few pixels on; the pyramid has anchors of 16 to 256 px
            roi_samples=32,  # heads cost as much as the backbone: few samples, more images; raise it for many objects
            candidates_train=500,
            proposals_train=300,
            candidates_test=500,
            proposals_test=500,
        ),
        input=DetectionInput(**_sizes(short, crop)),  # a batch of crops of one size has no padding to compute
        augment=AnnotatedAugment(scale=(0.6, 1.5), photometric=True),
        optim=_small_optim(model, batch, epochs * images / batch, start),
        schedule=ScheduleConfig(
            epochs=epochs, warmup_epochs=epochs / 20, eval_epochs=interval("small_detection", epochs)
        ),
    )


def dense_batch(images: int) -> int:
    """Images a step: an image holds many objects and thousands of pixels, so fewer will do than in classification."""
    return max(1, min(8, images // 8))


def dense_epochs(images: int) -> float:
    """About 3000 steps of 8, between 12 and 120 epochs."""
    return float(max(12, min(120, round(24_000 / max(1, images)))))


def interval(name: str, epochs: float) -> float:
    """Epochs from one evaluation to the next in a run of this length by the recipe `name`."""
    return often_enough(name, round(epochs / EVALUATIONS[name]), epochs)


def often_enough(name: str, every: int, epochs: float) -> float:
    """`every`, or one epoch; less where detectors and segmenters would be scored fewer than LEAST_EVALUATIONS times."""
    whole = float(max(1, every))
    return whole if name == "transfer" or math.ceil(epochs / whole) >= LEAST_EVALUATIONS else epochs / LEAST_EVALUATIONS


def _coco(
    name: str, what: str, model: str, head: DetectorHeadConfig, values: dict[str, tuple[float, float, float, bool]]
) -> DetectionRecipe:
    network, like, known = _network(model, values)
    lr, drop_path, decay, mixed = values[like]
    layered = isinstance(network, ConvNeXtConfig)
    return DetectionRecipe(
        name=name,
        source=_source(f"{PAPER}, appendix A.3 and released code, COCO, {what}", model, known),
        model=_with_depth(network, drop_path),
        head=head,
        input=DetectionInput(empty=False),  # sizes are the defaults: 480 to 800 by at most 1333
        augment=AnnotatedAugment(precrop=0.5),
        optim=OptimConfig(lr=lr, batch=16, weight_decay=0.05, layer_decay=decay if layered else 1.0),
        schedule=ScheduleConfig(
            epochs=36, kind="step", milestones=(27, 33), step_factor=0.1, warmup_steps=500, warmup_from=0.001
        ),
        precision="fp16" if mixed else "fp32",
    )


def _ade20k(name: str, model: str, size_px: int) -> SegmentationRecipe:
    network, like, known = _network(model, UPERNET)
    lr, drop_path, mixed = UPERNET[like]
    layered = isinstance(network, ConvNeXtConfig)
    steps_per_epoch = ADE20K_IMAGES // 16
    return SegmentationRecipe(
        name=name,
        source=_source(f"{PAPER}, appendix A.3 and released code, ADE20K", model, known),
        model=_with_depth(network, drop_path),
        head=UperNetConfig(window_px=size_px),
        input=SegmentationInput(**_sizes(size_px, size_px)),
        augment=SegmentationAugment(scale=(0.5, 2.0), crop_most=0.75, photometric=True),
        optim=OptimConfig(lr=lr, batch=16, weight_decay=0.05, layer_decay=0.9 if layered else 1.0, decay_by="stage"),
        schedule=ScheduleConfig(
            steps=ADE20K_STEPS,
            kind="linear",
            warmup_steps=1500,
            warmup_from=1e-6,
            eval_epochs=16_000 // steps_per_epoch,  # of ADE20K itself
        ),
        precision="fp16" if mixed else "fp32",
    )


def _network(model: str, published: Container[str]) -> tuple[ModelConfig, str, bool]:
    """The backbone, the published network whose values it takes ('tiny' where there is none), and whether it is that."""
    network = architecture(model)
    name = LIKE.get(network.name, network.name)
    return network, name if name in published else "tiny", network.name in published


def _with_depth(network: ModelConfig, drop_path: float) -> ModelConfig:
    if not isinstance(network, ConvNeXtConfig):  # not every other network has stochastic depth
        return network.model_copy(update={"classes": 0})
    scale = None if network.layer_scale is None else 1.0
    return network.model_copy(update={"classes": 0, "drop_path": drop_path, "layer_scale": scale})


def _source(published: str, model: str, known: bool) -> str:
    return published if known else f"{published}; the values for '{model}' are not published: a default of this package"


def _sizes(short_px: int, crop_px: int) -> dict[str, Any]:
    """Square crops of images whose shorter side is `short_px`; evaluated whole, at `short_px`."""
    return {
        "short_px": (short_px,),
        "long_px": 4 * short_px,
        "crop_px": crop_px,
        "eval_short_px": short_px,
        "eval_long_px": 4 * short_px,
    }


def _own_network(model: str) -> ModelConfig:
    """The backbone with a stem and blocks that learn from few images, as `small` has them."""
    network = architecture(model)
    if not isinstance(network, ConvNeXtConfig):
        return network.model_copy(update={"classes": 0})
    changes: dict[str, object] = {"classes": 0, "drop_path": 0.1}
    if len(network.depths) > 1:  # one stage is refused as a backbone, with the reason
        changes |= OVERLAP
    if network.layer_scale is not None:
        changes["layer_scale"] = 0.1
    return network.model_copy(update=changes)


def _head_width(model: str) -> int:
    """Channels of the head: about twice those of the first stage, or it would cost more than the backbone."""
    network = architecture(model)
    return max(64, min(256, 2 * network.widths[0] // 32 * 32)) if isinstance(network, ConvNeXtConfig) else 128


def _small_optim(model: str, batch: int, steps: float, start: StartFacts | None) -> OptimConfig:
    ours = isinstance(architecture(model), ConvNeXtConfig)
    return OptimConfig(
        name="muon" if ours else "adamw",
        lr=lr_for(batch),
        muon_ratio=MUON_RATIO,
        momentum=0.95,
        batch=batch,
        layer_decay=TUNED_DECAY if start and ours else 1.0,
        backbone_lr=TUNED_BACKBONE if start and not ours else 1.0,
        clip=10.0,  # the stem's gradient is 5 to 30, the rest's about 1: a lower bound would let the stem scale all
        ema=min(0.9999, 1 - 1 / max(10.0, steps / 20)),
        ema_warmup=True,
    )


def _crop_for(image_px: int) -> int:
    """About four fifths of the shorter side, in whole multiples of 32, 64 to 512."""
    return max(64, min(512, 32 * math.floor(0.8 * image_px / 32 + 0.5)))
