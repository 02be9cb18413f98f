"""What a recipe has to know about the weights that a run starts from."""

import json
from pathlib import Path

import torch

from convnext.config import Bands, ConvNeXtConfig, Recipe, parse
from convnext.config.facts import StartFacts
from convnext.engine import checkpoint
from convnext.engine.environment import abilities
from convnext.engine.precision import fast_format
from convnext.engine.records import info
from convnext.engine.run import OTHERS, last_of
from convnext.engine.update import DTYPES
from convnext.errors import ConvNeXtError
from convnext.models.start import read_start
from convnext.recipes import is_fitted
from convnext.recipes.architectures import ARCHITECTURES, architecture

USUAL = "atto"  # the network of those who name none


def start_facts(weights: str, model: str | None) -> StartFacts | None:
    """Of `weights`, as `read_start` takes them; None where the person names a `model` that is no ConvNeXt.

    Raises CheckpointError for weights that cannot be read, ConvNeXtError where they are of another network than `model`.
    """
    asked = None if model is None else architecture(model)
    if asked is not None and not isinstance(asked, ConvNeXtConfig):
        return None
    start = read_start(weights)
    if asked is not None and start.config.name not in (asked.name, "custom"):
        raise ConvNeXtError(
            f"--model {model} is refused: the weights in '{weights}' are of '{start.config.name}'. Leave out --model: the "
            "network follows the weights."
        )
    return StartFacts(
        network=start.config,
        mean=start.mean,
        std=start.std,
        size_px=start.size_px,
        eval_crop=start.eval_crop,
    )


def network_name(model: str | None, start: StartFacts | None) -> str:
    """The published network whose values a recipe takes: the asked one, else that of the weights, else USUAL."""
    held = start.network.name if start else ""
    return model or (held if held in ARCHITECTURES else USUAL)


def held_recipe(out: Path, weights: str) -> Recipe | None:
    """The recipe of the run in `out`, where that goes on and its `weights` are no longer there; else None."""
    if Path(weights).exists() or weights.startswith(("hub:", "timm:")):
        return None
    begun = _begun(out)
    if begun is None:
        return None
    recipe: Recipe = parse(Recipe, checkpoint.read_metadata(begun).get("recipe", {}), where=f"'{begun}'")
    return recipe


def kept_bands(out: Path) -> Bands | None:
    """How the run in `out` reads its images, with the mean and the std that it measured; None where there is none yet."""
    last = last_of(out)
    if not last:
        return None
    try:
        recipe: Recipe = parse(Recipe, checkpoint.read_metadata(last).get("recipe", {}), where=f"'{last}'")
    except ConvNeXtError:  # what reads the checkpoint in earnest says why
        return None
    return recipe.input if isinstance(recipe.input, Bands) and recipe.input.bands else None


def kept_draw(out: Path) -> str | None:
    """What the run in `out` holds out, as `data.drawn` reads it, '' by the paths alone; None where none has begun."""
    begun = _begun(out)
    if begun is None:
        return None
    try:
        return str(checkpoint.read_metadata(begun).get("drawn", ""))
    except ConvNeXtError:  # what reads the checkpoint in earnest says why
        return None


def precision_here(name: str | None, out: Path, device: torch.device) -> dict[str, str]:
    """'precision' of a run into `out` by the recipe of that `name`, where nobody has asked for one; {}: its recipe's.

    A run that began on another device keeps its own, and that is logged.
    """
    fitting = fast_format(device) if is_fitted(name) else None
    begun = _begun(out)
    if begun is None:
        return {} if fitting is None else {"precision": fitting}
    kept = checkpoint.read_metadata(begun).get("recipe", {}).get("precision")
    if kept not in DTYPES or _began_here(out, device):
        return {} if fitting is None else {"precision": fitting}
    if kept != (fitting or "fp32"):
        info(f"This run began in {kept} on another device and goes on so; here it would begin in {fitting or 'fp32'}.")
    return {"precision": kept}


def _begun(out: Path) -> Path | None:
    """A checkpoint of the run that goes on in `out`; None where none does."""
    return next((path for path in (last_of(out), out / OTHERS["probe"]) if path and path.exists()), None)


def _began_here(out: Path, device: torch.device) -> bool:
    """Whether the run in `out` began on a device like this one, or does not say."""
    try:
        told = json.loads((out / "environment.json").read_text())
        return all(told.get(name, "") in ("", value) for name, value in abilities(device).items())
    except (OSError, ValueError, AttributeError):
        return True


def run_folder(data: str | Path, model: str | None, weights: str | None) -> str:
    """Where a run goes that nobody has named a folder for: the data, then the network or what it starts from."""
    start = Path((weights or "").rpartition(":")[2])
    network = model or (start.parent.name if start.stem.startswith("best") else start.stem) or "atto"
    return f"runs/{Path(data).resolve().stem}_{network.replace(':', '_')}"
