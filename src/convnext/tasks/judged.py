"""What an evaluation says of the weights and of the images that it was made of, for every task. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from convnext.config import ClassificationRecipe
from convnext.data.source import Source
from convnext.engine.records import info
from convnext.errors import DataError, number_of
from convnext.tasks.opening import test_of

Fingerprint = Callable[[Any, Any], str]  # (dataset, recipe) -> of what is trained on, as a checkpoint has it


def judged(dataset: Any, recipe: Any, fingerprint: Fingerprint) -> str:
    """The fingerprint of a set of images, in whatever order they come."""
    ordered = sorted(dataset.entries, key=lambda entry: str(entry.path))
    return fingerprint(replace(dataset, entries=tuple(ordered)), recipe)


def judged_on(dataset: Any, recipe: Any, metadata: Mapping[str, Any], fingerprint: Fingerprint) -> dict[str, Any]:
    """'weights', 'images', and 'learnt' where the weights, whose file says `metadata`, were trained on these very images."""
    about = {"weights": metadata.get("weights", "raw"), "images": judged(dataset, recipe, fingerprint)}
    return about | ({"learnt": True} if fingerprint(dataset, recipe) == metadata.get("images") else {})


def refuse_learnt(told: str) -> None:
    """Raise DataError for a promise on images that the run has learnt from, as `told`."""
    raise DataError(
        f"{told} So they cannot show a promise. Name other images, or add --promise to the `convnext train` that made the run: "
        "given again it trains nothing, and measures on images that were not learnt from."
    )


def judging_part(source: Source, recipe: ClassificationRecipe, classes: tuple[str, ...]) -> str | None:
    """'test' where the data have such a part beside held-out images, which chose the weights; that it is taken is said."""
    source = replace(source.with_bands(recipe.input.bands), labels=recipe.labels)
    test = test_of(source, classes, val_apart=False)
    if test is None:
        return None
    info(
        f"The test part judges it, {number_of(len(test.entries), 'image')} that chose nothing; --part val takes the held-out "
        "images, which chose the weights."
    )
    return "test"
