"""What a score is worth, in sentences: beside the commonest class alone and chance, and which classes are never predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext.errors import number_of
from convnext.tasks.classification.metrics import wilson

MOST_NAMED = 10  # classes in a sentence


def baseline_line(result: Mapping[str, Any]) -> str:
    """What needs no image to be looked at, and whether the network is surely better; '' where an evaluation is older."""
    common, chance, n = result.get("baseline_top1"), result.get("chance"), result.get("n") or 0
    if common is None or chance is None or not n:
        return ""
    line = f"Naming the commonest class for every image would be right for {common:.1%}, guessing for {chance:.1%}"
    low, high = wilson(float(result["top1"]), n)
    worse, unsure = high < common, low <= max(common, chance)
    return line + (": this network is worse." if worse else ": this network is not surely better." if unsure else ".")


def never_line(result: Mapping[str, Any]) -> str:
    """Which classes no image or pixel is taken for, though there are some of them; '' where each is predicted somewhere."""
    never: Sequence[str] = result.get("never_predicted") or ()
    if not never:
        return ""
    more = len(never) - MOST_NAMED
    named = ", ".join(never[:MOST_NAMED]) + (f" and {number_of(more, 'other')}" if more > 0 else "")
    is_ = "is" if len(never) == 1 else "are"
    return f"{number_of(len(never), 'class', 'classes')} of {len(result['classes']):,} {is_} never predicted: {named}."
