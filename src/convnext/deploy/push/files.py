"""A trained network as the files of a repository that this package and, where they have such a network, transformers and
timm load by its name.

Weights under transformers' names lie at the top, where it looks; config.json there serves both: transformers reads
`model_type`, timm `architecture`, and its `hf_hub_filename` leads timm to the weights under its own names in timm/. What
neither of them has is written as this package writes it, and is for this package alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from convnext.config import ClassificationRecipe, Recipe
from convnext.deploy.verify.promises import KEY, Promises
from convnext.engine import checkpoint
from convnext.engine.run import ORIGIN
from convnext.errors import CheckpointError
from convnext.files import to_json, write_text
from convnext.models.convert import Weights, express, lacks, read_weights
from convnext.models.convnext import EPS
from convnext.models.libraries import timm_arguments, transformers_config
from convnext.models.tensors import RUN

WEIGHTS, CONFIG, PREPROCESSOR, CARD = "model.safetensors", "config.json", "preprocessor_config.json", "README.md"
TIMM = "timm"  # the folder of its names, where transformers' are at the top
NAMES = (CARD, WEIGHTS, CONFIG, PREPROCESSOR, f"{TIMM}/{WEIGHTS}", f"{TIMM}/{CONFIG}")
_LEFT_OUT = ("state", "scaler")  # what only going on with the run needs
_BICUBIC = 3  # of Pillow
_TIMM_SIZES = {  # that timm has a function for
    "convnext": ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge"),
    "convnextv2": ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "huge"),
}


def weights_of(file: Path, recipe: Recipe) -> Weights | None:
    """The network under names that can be translated; None of what only this package has: detectors, other networks."""
    if not isinstance(recipe, ClassificationRecipe) or recipe.model.family != "convnext":
        return None
    return read_weights(file)


def libraries_of(weights: Weights | None) -> tuple[str, ...]:
    """Which of transformers and timm have this network."""
    if weights is None:
        return ()
    return tuple(library for library in ("transformers", "timm") if not lacks(library, weights))


def write_files(folder: Path, file: Path, recipe: Recipe, weights: Weights | None, promises: Promises) -> None:
    """All but the card, into `folder`. Raises CheckpointError where what was written is not what was to be."""
    libraries = libraries_of(weights)
    tensors, metadata = checkpoint.read(file)
    record = {name: value for name, value in metadata.items() if name not in _LEFT_OUT} | {KEY: promises.to_dict()}
    if weights is None or not libraries:
        own = checkpoint.of("model", tensors) or tensors
        checkpoint.save(folder / WEIGHTS, own, record)
        write_text(folder / CONFIG, to_json({"library_name": "convnext", "task": recipe.task}, indent=2) + "\n")
        return
    assert isinstance(recipe, ClassificationRecipe)
    _write(folder / WEIGHTS, express(weights, libraries[0]), weights, record)
    config: dict[str, Any] = transformers_config(weights, eps=EPS) if "transformers" in libraries else {}
    if config:
        config |= {"dtype": "float32", "image_size": recipe.input.eval_size_px}
        config |= {"problem_type": "multi_label_classification"} if recipe.labels == "multi" else {}
    if "timm" in libraries:
        state = express(weights, "timm")
        apart = libraries[0] != "timm"
        own_config = _timm_config(weights, recipe, state)
        if apart:
            (folder / TIMM).mkdir()
            _write(folder / TIMM / WEIGHTS, state, weights, record)
            write_text(folder / TIMM / CONFIG, to_json(own_config, indent=2) + "\n")
            own_config["pretrained_cfg"] = own_config["pretrained_cfg"] | {"hf_hub_filename": f"{TIMM}/{WEIGHTS}"}
        config |= own_config
    if "transformers" in libraries and weights.config.in_channels == 3:
        steps = _preprocessor(recipe)
        write_text(folder / PREPROCESSOR, to_json(steps, indent=2) + "\n")
        config["image_processor_type"] = steps["image_processor_type"]  # of a folder with timm's keys it is read here
    write_text(folder / CONFIG, to_json(config, indent=2) + "\n")


def _write(path: Path, tensors: dict[str, Tensor], weights: Weights, record: Mapping[str, Any]) -> None:
    """A file for another library, which carries the run's record for this one."""
    origin = {name: str(record[name]) for name in ORIGIN if name in record}
    checkpoint.write(path, tensors, {"format": "pt", RUN: to_json(record), **origin})
    again = read_weights(path).state
    if again.keys() != weights.state.keys() or any(not again[name].equal(weights.state[name]) for name in again):
        raise CheckpointError(f"'{path}' does not read back as it was written. Try again, or another place.")


def _timm_config(weights: Weights, recipe: ClassificationRecipe, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What timm builds the network and its transform from."""
    config, side = weights.config, recipe.input.eval_size_px
    channels = config.in_channels
    return {
        "architecture": _timm_name(weights),
        "num_classes": config.classes,
        "num_features": config.widths[-1],
        "label_names": list(weights.classes),
        "model_args": timm_arguments(weights, state),
        "pretrained_cfg": {
            "input_size": [channels, side, side],
            "mean": list(recipe.input.mean),
            "std": list(recipe.input.std),
            "interpolation": "bicubic",
            "crop_pct": recipe.input.eval_crop,
            "crop_mode": "squash" if recipe.input.eval_resize == "warp" else "center",
            "num_classes": config.classes,
            "first_conv": "stem.0",
            "classifier": "head.fc",
            "license": weights.provenance.licence,
        },
    }


def _timm_name(weights: Weights) -> str:
    """timm's name of this network, or of one of its kind: every difference is an argument."""
    family = "convnextv2" if weights.config.grn else "convnext"
    size = weights.config.name.removeprefix("v2_")
    return f"{family}_{size if size in _TIMM_SIZES[family] else 'tiny'}"


def _preprocessor(recipe: ClassificationRecipe) -> dict[str, Any]:
    """What transformers resizes and normalises by: a processor whose steps are those of the evaluation transform."""
    side = recipe.input.eval_size_px
    steps: dict[str, Any]
    if recipe.input.eval_resize == "warp":
        steps = {"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}}
    else:
        shorter = int(side / recipe.input.eval_crop)
        steps = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": shorter}}
        steps |= {"do_center_crop": True, "crop_size": {"height": side, "width": side}}
    return {
        **steps,
        "do_resize": True,
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.input.mean),
        "image_std": list(recipe.input.std),
        "do_convert_rgb": True,
    }
