"""The recipe for people with 300 to 50,000 images, one machine and no pretrained weights.

Everything follows from three numbers of the data: how many images, how many pixels a side, how many per step.
The values are ours (no paper); how they were found is in docs/log.md.
"""

import math

from convnext.config import (
    AugmentConfig,
    ClassificationRecipe,
    ConvNeXtConfig,
    InputConfig,
    ModelConfig,
    OptimConfig,
    RoadmapConfig,
    ScheduleConfig,
)
from convnext.config.facts import StartFacts
from convnext.recipes.architectures import architecture

BASE_LR, BASE_BATCH = 2e-3, 64  # peak for AdamW; other batches scale it by the square root
OVERLAP: dict[str, object] = {
    "stem": "overlap",
    "stem_width": None,
    "stem_activation": False,
}  # the stem that learns from few images
MUON_RATIO = 10.0  # to lr, for the matrices of the blocks: their update does not depend on the size of the gradient


def small(
    model: str,
    *,
    images: int,
    image_px: int,
    classes: int,
    batch: int | None = None,
    start: StartFacts | None = None,
) -> ClassificationRecipe:
    """300 to 50,000 images and no pretrained weights: a few thousand steps, fitted to the data."""
    size_px = training_size(image_px)
    batch = batch or batch_for(images)
    epochs = epochs_for(images)
    steps = max(1.0, epochs * images / batch)
    network = (start.network if start else _network(model, size_px, image_px)).model_copy(update={"classes": classes})
    return ClassificationRecipe(
        name="small",
        source=f"measured for this package; fitted to {images} images of {image_px} px",
        model=network,
        input=_input(size_px, finer=isinstance(network, ConvNeXtConfig) and network.patch < 4),
        augment=AugmentConfig(scale=(0.35, 1.0) if size_px > 32 else (0.6, 1.0), smoothing=0.1),
        optim=OptimConfig(
            name="muon" if isinstance(network, ConvNeXtConfig) else "adamw",
            lr=lr_for(batch),
            muon_ratio=MUON_RATIO,
            muon_convolutions=isinstance(network, ConvNeXtConfig),
            momentum=0.95,
            batch=batch,
            clip=1.0,
            ema=_ema_decay(steps),
            ema_warmup=True,
        ),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=min(5.0, epochs / 10)),
    )


def batch_for(images: int) -> int:
    """16 to 128 images a step: the power of two below the square root of the data, never more than there are."""
    power = 2 ** int(math.log2(max(1, images)) / 2)
    return max(1, min(images, max(16, min(128, power))))


def epochs_for(images: int) -> float:
    """Fewer images are seen more often: 150 epochs for a few hundred, 30 from ten thousand on."""
    return float(max(30, min(150, round(3000 / math.sqrt(max(1, images))))))


def lr_for(batch: int) -> float:
    """Adam's step already divides by the gradient's noise, so the rate follows the square root of the batch."""
    return BASE_LR * math.sqrt(batch / BASE_BATCH)


def training_size(image_px: int) -> int:
    """The native size as a multiple of 32 where images are small (32 to 160 px), else 224."""
    return 224 if image_px > 160 else max(32, 32 * round(image_px / 32))


def _input(size_px: int, *, finer: bool) -> InputConfig:
    """Sizes; where the stem is finer, and each image costs four times as much, most of the run sees it smaller."""
    progressive = ((0.5, size_px // 2), (0.8, size_px * 3 // 4)) if finer and size_px >= 96 else ()
    return InputConfig(
        size_px=size_px,
        eval_size_px=size_px,  # crops enlarge, so a larger one would score better; but a test is of the trained size
        eval_crop=1.0 if size_px < 224 else 0.875,
        progressive=progressive,
    )


def _network(model: str, size_px: int, image_px: int) -> ModelConfig:
    """The named network with a stem that leaves enough positions of a small image, and blocks that wake early."""
    network = architecture(model)
    if not isinstance(network, ConvNeXtConfig | RoadmapConfig):
        return network
    changes: dict[str, object] = {"drop_path": 0.1 if sum(network.depths) > 14 else 0.0}
    if network.layer_scale is not None and sum(network.depths) <= 18:
        changes["layer_scale"] = 0.1  # 1e-6 is for 300 epochs: here a block would sleep for much of the run
    if isinstance(network, RoadmapConfig):  # its stems are what it compares: only their stride follows the image
        return network.model_copy(update={**changes, "patch": 2 if size_px <= 64 else 4})
    if len(network.depths) == 1:  # isotropic: about 14 x 14 positions, as at 224 px
        return network.model_copy(update={**changes, "patch": 2 ** round(math.log2(size_px / 14))})
    # Images that were enlarged to 32 px hold no detail below 4 px; real ones of 32 to 160 px do.
    fine = size_px <= 160 and 2 * image_px > size_px
    return network.model_copy(update={**changes, **OVERLAP, "patch": 2 if fine else 4})


def _ema_decay(steps: float) -> float:
    """Average over about the last twentieth of the run."""
    return min(0.9999, 1 - 1 / max(10.0, steps / 20))
