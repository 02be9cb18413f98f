"""The model card of a run, from what lies in its folder: `model_card.md`, and what `convnext push` makes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convnext.config import Recipe
from convnext.deploy.push.model_card import Subject, model_card
from convnext.deploy.trained.checkpoint import described
from convnext.deploy.verify.promises import EVALUATION, promises_of_run
from convnext.engine import checkpoint
from convnext.engine.run import weights_file
from convnext.files import from_json, write_text

CARD = "model_card.md"


def write_run_card(run: Path) -> Path:
    """Write the card of the best weights into the folder of a finished run."""
    file = weights_file(run)
    metadata = checkpoint.read_metadata(file)
    recipe, classes = described(metadata, file)
    write_text(run / CARD, model_card(subject_of(file, metadata, recipe, classes, name=run.absolute().name)))
    return run / CARD


def subject_of(
    weights: Path, metadata: Mapping[str, Any], recipe: Recipe, classes: tuple[str, ...], **about: Any
) -> Subject:
    """What the card of `weights` is about, by the records beside them; `about`: more fields of Subject."""
    told = {**metadata, "classes": list(classes)}
    promises = promises_of_run(weights, told, recipe.precision)
    evaluation, data = (_record(weights.parent / name) for name in (EVALUATION, "data.json"))
    return Subject(recipe, classes, told, promises, evaluation if promises.stated else {}, data, **about)


def _record(path: Path) -> dict[str, Any]:
    try:
        found = from_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
