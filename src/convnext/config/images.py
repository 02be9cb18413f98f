"""What is done to images: what all tasks normalise by, and what detection and segmentation share.

In those two boxes and masks move with their pixels. 'Fitted into (short, long)': as large as it can be with a shorter side
of at most short and a longer one of at most long.
"""

from typing import Annotated, Literal

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


class Bands(Statistics):
    """How the bands of a file become the channels of an image: all of it follows from the data and from `--bands`."""

    bands: Annotated[
        tuple[str, ...],
        about(
            "names", "the bands that are channels, in order: numbers from 1, or what files' names end in; (): colour"
        ),
    ] = ()
    file_bands: Annotated[Count, about("bands", "that each file has; 0: one, or bands are not counted")] = 0
    pixels: Annotated[
        Literal["uint8", "integer", "float"],
        about("name", "what files hold; of integer (16 and 32 bit) and float, mean and std are in their own units"),
    ] = "uint8"
    arrays: Annotated[
        Literal["last", "first"], about("name", "where arrays have their bands: last, (H, W, C), or first, (C, H, W)")
    ] = "last"

    @property
    def numbers(self) -> tuple[int, ...]:
        """Places of the bands in a file, from 0; () where each band is a file of its own."""
        return tuple(int(name) - 1 for name in self.bands) if all(map(str.isdecimal, self.bands)) else ()

    @property
    def wide(self) -> bool:
        """Whether pixels are float32 in their own units, in place of 8 bit."""
        return self.pixels != "uint8"

    @model_validator(mode="after")
    def _bands_named(self) -> "Bands":
        if self.bands and len(self.bands) != len(self.mean):
            raise ValueError(f"bands names {len(self.bands)} and mean has {len(self.mean)} values")
        if self.wide and not self.bands:
            raise ValueError(f"pixels = '{self.pixels}' needs bands")
        if len({name.isdecimal() for name in self.bands}) > 1:
            raise ValueError(f"bands = {', '.join(self.bands)} are numbers of bands or ends of names, not both")
        wrong = [number + 1 for number in self.numbers if not 0 <= number < (self.file_bands or number + 1)]
        if wrong:
            raise ValueError(f"there is no band {wrong[0]}: a file has {self.file_bands}, counted from 1")
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


def require_no_colours(read: Bands, augment: AnnotatedAugment) -> None:
    """Raise ValueError where bands would be changed as only colours can be."""
    if read.bands and augment.photometric:
        raise ValueError("augment.photometric changes colours, which bands do not have. Leave it out")
