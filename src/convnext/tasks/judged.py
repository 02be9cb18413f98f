"""What an evaluation says of the weights and of the images that it was made of, for every task. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

Fingerprint = Callable[[Any, Any], str]  # (dataset, recipe) -> of what is trained on, as a checkpoint has it


def judged(dataset: Any, recipe: Any, fingerprint: Fingerprint) -> str:
    """The fingerprint of a set of images, in whatever order they come."""
    ordered = sorted(dataset.entries, key=lambda entry: str(entry.path))
    return fingerprint(replace(dataset, entries=tuple(ordered)), recipe)


def judged_on(dataset: Any, recipe: Any, metadata: Mapping[str, Any], fingerprint: Fingerprint) -> dict[str, Any]:
    """'weights', 'images', and 'learnt' where the weights, whose file says `metadata`, were trained on these very images."""
    about = {"weights": metadata.get("weights", "raw"), "images": judged(dataset, recipe, fingerprint)}
    return about | ({"learnt": True} if fingerprint(dataset, recipe) == metadata.get("images") else {})
