"""What a recipe is fitted to beside the data: facts of the weights that a run starts from. Plain values, no torch."""

from dataclasses import dataclass

from convnext.config.networks import ConvNeXtConfig


@dataclass(frozen=True, kw_only=True)
class StartFacts:
    """The network that weights belong to, and how images were shown to it; None where the weights do not say."""

    network: ConvNeXtConfig
    mean: tuple[float, ...] | None = None  # share of white, of each channel
    std: tuple[float, ...] | None = None
    size_px: int | None = None  # side of the images of its evaluation
    eval_crop: float | None = None  # what of the shorter side evaluation shows
