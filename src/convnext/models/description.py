"""What lies beside weights and says how to use them: names of classes, and how the images were prepared.

A run of ours writes its recipe into the file; timm a config.json with 'pretrained_cfg', open_clip an
open_clip_config.json, transformers a config.json and a preprocessor_config.json. Whatever is no such value is not there.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from convnext.files import from_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the images that CLIP (arXiv 2103.00020) and its successors saw
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # as Pillow and transformers number it


@dataclass(frozen=True)
class Preprocessing:
    """How the images were prepared that a network was trained on; None where the weights do not say."""

    mean: tuple[float, ...] | None = None  # share of white, a value a channel
    std: tuple[float, ...] | None = None
    size_px: int | None = None  # side of the training images
    eval_crop: float | None = None  # share of the resized shorter side that evaluation cuts out
    interpolation: str | None = None  # 'bicubic', ...
    notes: tuple[str, ...] = ()  # where a value comes from, if from no file


def class_names(
    header: Mapping[str, str], record: Mapping[str, Any], config: Mapping[str, Any], n: int
) -> tuple[str, ...]:
    """As many names as there are classes, from whichever place has them; none otherwise.

    `config`: a config.json of transformers (id2label) or timm (label_names). The names that transformers makes up
    (LABEL_0, ...) are none.
    """
    labels, timm = config.get("id2label"), mapping(config.get("pretrained_cfg"))
    listed = [_json(header.get("classes")), record.get("classes"), config.get("label_names"), timm.get("label_names")]
    names = next((each for each in listed if isinstance(each, list)), None)
    if isinstance(labels, dict) and names is None:
        names = [labels.get(str(i), "") for i in range(n)]
    texts = tuple(map(str, names or ()))
    invented = all(re.fullmatch(r"LABEL_\d+", name) for name in texts)
    return texts if n and len(texts) == n and all(texts) and not invented else ()


def preprocessing(
    record: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any]], channels: int, *, family: str = ""
) -> Preprocessing:
    """From the recipe in a run's `record`, from the files `beside` the weights, or, of 'clip', by the family."""
    ours = mapping(mapping(record.get("recipe")).get("input"))
    timm = mapping(mapping(beside.get("config.json")).get("pretrained_cfg"))
    clip, theirs = beside.get("open_clip_config.json"), beside.get("preprocessor_config.json")
    places = [
        *([_of_run(ours, channels)] if ours else []),
        *([_of_timm(timm, channels)] if timm else []),
        *([_of_open_clip(clip, channels)] if clip else []),
        *([_of_transformers(theirs, channels)] if theirs else []),
    ]
    found = next((each for each in places if each.mean is not None), next(iter(places), Preprocessing()))
    if found.mean is None and family == "clip" and channels == len(CLIP_MEAN):
        note = "Mean and std are those of CLIP, whose image tower this is."
        return replace(found, mean=CLIP_MEAN, std=CLIP_STD, notes=(note,))
    return found


def _of_run(values: Mapping[str, Any], channels: int) -> Preprocessing:
    return Preprocessing(
        *_statistics(values.get("mean"), values.get("std"), channels),
        _side(values.get("size_px")),
        _share(values.get("eval_crop")),
    )


def _of_timm(values: Mapping[str, Any], channels: int) -> Preprocessing:
    size = values.get("input_size")
    return Preprocessing(
        *_statistics(values.get("mean"), values.get("std"), channels),
        _side(size[-1]) if isinstance(size, list) and size else None,
        _share(values.get("crop_pct")),
        _text(values.get("interpolation")),
    )


def _of_open_clip(content: Mapping[str, Any], channels: int) -> Preprocessing:
    values, vision = mapping(content.get("preprocess_cfg")), mapping(content.get("model_cfg")).get("vision_cfg")
    statistics = _statistics(values.get("mean"), values.get("std"), channels)
    if statistics == (None, None) and channels == 3:
        statistics = CLIP_MEAN, CLIP_STD  # as open_clip itself fills them in
    return Preprocessing(
        *statistics, _side(mapping(vision).get("image_size")), 1.0, _text(values.get("interpolation")) or "bicubic"
    )


def _of_transformers(values: Mapping[str, Any], channels: int) -> Preprocessing:
    size, number = values.get("size"), values.get("resample")
    sides = [_side(side) for side in (size.values() if isinstance(size, dict) else [size])]
    return Preprocessing(
        *_statistics(values.get("image_mean"), values.get("image_std"), channels),
        next((side for side in sides if side), None),
        _share(values.get("crop_pct")),
        _RESAMPLING.get(number) if isinstance(number, int) else None,
    )


def _statistics(mean: Any, std: Any, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Both, where each has a finite number for every channel and std is above 0; else neither."""
    if not all(isinstance(each, list | tuple) and len(each) == channels for each in (mean, std)):
        return None, None
    numbers = [value for each in (mean, std) for value in each]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers) or min(std) <= 0:
        return None, None
    return tuple(map(float, mean)), tuple(map(float, std))


def _side(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 4 <= value <= 4096 else None


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is one; else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _json(text: str | None) -> Any:
    """The value in a foreign file's text, or None."""
    try:
        return from_json(text or "null")
    except (ValueError, RecursionError):
        return None
