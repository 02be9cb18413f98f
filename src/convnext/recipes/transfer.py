"""The recipe for people with 50 to 100,000 images and pretrained weights: a probe, fine-tuning from it, and a mix of both.

Everything follows from the data (how many images, how many pixels a side), from the weights and from the number of images
in a step. The values are ours; how they were found is in docs/log.md. Two ideas are others': fine-tuning starts from the
head of a linear probe (LP-FT, arXiv 2202.10054), and the weights that are kept may lie between the frozen and the
fine-tuned network (WiSE-FT, arXiv 2109.01903).
"""

import math

from convnext.config import (
    AugmentConfig,
    ClassificationRecipe,
    ConvNeXtConfig,
    InputConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    StartConfig,
)
from convnext.config.facts import StartFacts
from convnext.recipes.architectures import architecture
from convnext.recipes.dense import interval

TRANSFER_LR, TRANSFER_BATCH = 1e-3, 32  # peak for a last stage of TRANSFER_WIDTH; other batches: by the square root
TRANSFER_WIDTH = 320  # of 'atto', with which the rate was found
LEAST_STEPS = 300  # below, a head that is already good is all that changes
LEAST_PX = 96  # three positions a side behind a stem of patch 4: below, the 7 x 7 kernels see mostly padding
ENLARGED = 2.0  # images may be shown at twice their size: weights know objects of the size that they were trained with
GRID = (0.25, 0.5, 0.75)  # between the probe (0) and the fine-tuned weights (1), which are always candidates
FOLDS = 3  # with the run on all images four times the work of one
FEW = 400  # images to train on: of so few a fifth is held out, which is worth a lot and too little to choose by
_FOLD_WORK = 4e13  # multiply-accumulates of all parts: about ten minutes on two cores


def transfer(
    model: str,
    *,
    images: int,
    image_px: int,
    classes: int,
    batch: int | None = None,
    start: StartFacts | None = None,
) -> ClassificationRecipe:
    """50 to 100,000 images and pretrained weights: a probe, fine-tuning from it, the best of both; fitted to the data."""
    network: ModelConfig = architecture(model) if start is None else start.network
    ours = isinstance(network, ConvNeXtConfig)
    batch = batch or transfer_batch(images)
    epochs = transfer_epochs(images, batch)
    deep = isinstance(network, ConvNeXtConfig) and sum(network.depths) > 14
    shown = _input(image_px, start)
    network = network.model_copy(update={"classes": classes, "drop_path": 0.1 if deep else 0.0})
    return ClassificationRecipe(
        name="transfer",
        source=f"measured for this package; fitted to {images} images of {image_px} px",
        model=network,
        input=shown,
        augment=AugmentConfig(scale=(0.5, 1.0), smoothing=0.1),
        optim=OptimConfig(
            lr=transfer_lr(batch, network),
            batch=batch,
            weight_decay=0.05,
            layer_decay=0.9 if ours else 1.0,  # it needs the names of our own network
            clip=1.0,
            ema=min(0.9999, 1 - 1 / max(10.0, steps_of(epochs, images, batch) / 10)),
            ema_warmup=True,
        ),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=epochs / 10, eval_epochs=interval("transfer", epochs)),
        start=StartConfig(mode="probe_full", mix=GRID, folds=_folds(images, epochs, network, shown.size_px)),
    )


def transfer_batch(images: int) -> int:
    """16 to 64 images a step, never more than there are: few images are better seen in more, noisier steps."""
    return max(1, min(images, 16 if images < 1000 else 32 if images < 10_000 else 64))


def transfer_epochs(images: int, batch: int) -> float:
    """20 epochs of a few hundred images, 15 of 3,000, 4 from 40,000 on; but LEAST_STEPS of the smallest sets."""
    usual = max(4.0, min(20.0, 800 / math.sqrt(max(1, images))))
    return float(round(max(usual, LEAST_STEPS / max(1, images // batch))))


def steps_of(epochs: float, images: int, batch: int) -> float:
    """Optimizer steps of a run."""
    return epochs * max(1, images // batch)


def transfer_lr(batch: int, network: ModelConfig) -> float:
    """The peak: with the square root of the batch (Adam), and against the width, as arXiv 2203.03466 has it for Adam.

    Each weight moves by about the rate, so what a layer answers moves by the rate times the channels that it sums.
    """
    width = network.widths[-1] if isinstance(network, ConvNeXtConfig) else 768
    return float(f"{TRANSFER_LR * math.sqrt(batch / TRANSFER_BATCH) * min(1.0, TRANSFER_WIDTH / width):.3g}")


def _folds(images: int, epochs: float, network: ModelConfig, size_px: int) -> int:
    """FOLDS for few images, where a network is so small that training it as often takes minutes; else 0."""
    if images > FEW or not isinstance(network, ConvNeXtConfig):
        return 0
    work = 3 * (FOLDS + 1) * epochs * images * forward_macs(network, size_px)  # a backward pass is two forward ones
    return FOLDS if work <= _FOLD_WORK else 0


def forward_macs(network: ConvNeXtConfig, size_px: int) -> float:
    """Multiply-accumulates of the blocks for one image: what a ConvNeXt mostly costs."""
    total = 0.0
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        positions = max(1, size_px // (network.patch * 2**stage)) ** 2
        total += depth * positions * (network.kernel**2 * width + 8 * width**2)
    return total


def _input(image_px: int, start: StartFacts | None) -> InputConfig:
    """The size that the weights were made with; less where images are so small that there is nothing more to see."""
    own = (start.size_px if start else None) or 224
    seen = 32 * math.ceil(ENLARGED * image_px / 32)
    size_px = min(own, max(LEAST_PX, seen))
    crop = (start.eval_crop if start else None) or (0.875 if own >= 224 else 1.0)
    return InputConfig(size_px=size_px, eval_size_px=size_px, eval_crop=crop)
