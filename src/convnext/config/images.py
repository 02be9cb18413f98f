"""What is done to images: what all tasks normalise by, and what detection and segmentation share.

In those two boxes and masks move with their pixels. 'Fitted into (short, long)': as large as it can be with a shorter side
of at most short and a longer one of at most long.
"""

from typing import Annotated

from pydantic import model_validator

from convnext.config.base import Count, Frozen, Positive, Rate, Whole, about

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Statistics(Frozen):
    """What the pixels of every channel are normalised by."""

    mean: Annotated[tuple[float, ...], about("share of white", "mean of each channel, taken off every pixel")] = (
        IMAGENET_MEAN
    )
    std: Annotated[tuple[Positive, ...], about("share of white", "what each channel is then divided by")] = IMAGENET_STD

    @model_validator(mode="after")
    def _one_each(self) -> "Statistics":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        return self


class AnnotatedInput(Statistics):
    """The sizes at which a network sees annotated images; the defaults are COCO's of arXiv 2201.03545."""

    short_px: Annotated[
        tuple[Whole, ...], about("px", "a training image is fitted into one of these shorter sides")
    ] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    long_px: Annotated[Whole, about("px", "largest longer side of a training image")] = 1333
    crop_px: Annotated[
        Count, about("px", "side of the training crop, padded where the image is smaller; 0: no crop")
    ] = 0
    multiple: Annotated[Whole, about("px", "images are padded, right and below, to multiples of this")] = 32
    eval_short_px: Annotated[Whole, about("px", "shorter side that evaluation fits an image into")] = 800
    eval_long_px: Annotated[Whole, about("px", "largest longer side of an image in evaluation")] = 1333

    @model_validator(mode="after")
    def _named(self) -> "AnnotatedInput":
        if not self.short_px:
            raise ValueError("short_px must name one size or more")
        return self

    @property
    def side_px(self) -> int:
        """The side that the network mostly sees: the crop's, or the shorter one of evaluation."""
        return self.crop_px or self.eval_short_px

    @property
    def training_px(self) -> tuple[int, int]:
        """The smallest and the largest shorter side of a training image."""
        return min(self.short_px), max(self.short_px)


class AnnotatedAugment(Frozen):
    """What training does to an annotated image, in this order around its sizes; at 'off' it leaves the image alone."""

    precrop: Annotated[Rate, about("probability", "of a crop before everything else")] = 0.0
    precrop_short_px: Annotated[
        tuple[Whole, ...], about("px", "shorter sides, one of which the image is fitted into before that crop")
    ] = (400, 500, 600)
    precrop_px: Annotated[tuple[Whole, Whole], about("px", "range that the sides of that crop are sampled from")] = (
        384,
        600,
    )
    scale: Annotated[
        tuple[Positive, Positive], about("factor", "range of the factor on the training sizes, sampled for each image")
    ] = (1.0, 1.0)
    hflip: Annotated[Rate, about("probability", "of a mirror image, left and right")] = 0.5
    vflip: Annotated[Rate, about("probability", "of a mirror image, top and bottom")] = 0.0
    photometric: Annotated[
        bool,
        about("yes or no", "brightness, contrast, saturation and hue, each half of the time (arXiv 1512.02325)"),
    ] = False

    @model_validator(mode="after")
    def _ordered(self) -> "AnnotatedAugment":
        for name, (low, high) in {"precrop_px": self.precrop_px, "scale": self.scale}.items():
            if low > high:
                raise ValueError(f"{name} = ({low:g}, {high:g}) must have the smaller number first")
        if not self.precrop_short_px:
            raise ValueError("precrop_short_px must name one size or more")
        return self
