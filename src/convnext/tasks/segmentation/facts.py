"""What the data decide about a segmenter's recipe, and how a set of images with masks is known again."""

from typing import Any

from convnext.config import SegmentationRecipe
from convnext.data.annotated_preflight import DenseFindings
from convnext.data.dataset import DenseDataset
from convnext.data.store import printable
from convnext.recipes import FITTED
from convnext.tasks.digest import digest

UNEVEN = 10.0  # pixels of the largest class over those of the smallest; above, training makes up for it
AUTO = "weights"  # docs/log.md, "Rare pixels"


def fitted(
    train: DenseDataset, findings: DenseFindings, name: str | None = None, metric: object = None
) -> dict[str, Any]:
    """The classes' shares of the pixels, and what uneven ones ask of a recipe that is fitted to the data."""
    pixels = [max(1, findings.per_class["train"].get(each, 0)) for each in train.classes]
    shares = tuple(float(f"{each / sum(pixels):.4g}") for each in pixels)
    treated = name in FITTED["segmentation"] and max(shares) > UNEVEN * min(shares)
    return {"loss.shares": shares} | ({"loss.balance": AUTO} if treated else {})


def balance_line(recipe: SegmentationRecipe, train: DenseDataset) -> str:
    """What is done about classes with few pixels, as one sentence; '' where they are even and nothing is done."""
    balance, shares = recipe.loss.balance, recipe.loss.shares
    uneven = max(shares) / min(shares)
    if uneven <= UNEVEN and balance == "none":
        return ""
    way = {
        "none": "they count by their pixels (--balance none)",
        "weights": f"a pixel counts by its class's share to the power of -{recipe.loss.tau:g} (--balance weights)",
        "logits": f"training adds {recipe.loss.tau:g} times the logarithm of their shares to the logits (--balance logits)",
    }[balance]
    most, least = shares.index(max(shares)), shares.index(min(shares))
    named = [f"'{printable(train.classes[i])}' {shares[i]:.2%}" for i in (most, least)]
    return f"Uneven classes ({' and '.join(named)} of the pixels, {uneven:.0f} to 1): {way}."


def fingerprint(dataset: DenseDataset, recipe: SegmentationRecipe | None = None) -> str:
    """A hash that tells this set of images and maps from another; the same on every machine."""
    listing = [f"{entry.path}\t{entry.semantic}" for entry in dataset.entries]
    text = "\n".join([*listing, ",".join(map(str, dataset.values))])
    if dataset.colours:
        text += "\n" + ",".join(map(str, dataset.colours))
    return digest(text)
