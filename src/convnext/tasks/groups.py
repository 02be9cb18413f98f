"""How far chance moves a figure that is no share of images, such as mIoU or AP: by the same figure of parts of the images.

They are dealt into GROUPS groups, each of which gives the figure by itself; from the spread of these follows that of the
whole (random groups: Wolter 2007, Introduction to Variance Estimation, chapter 2). Images count as independent of one
another. No torch here.
"""

import math
from collections.abc import Sequence
from statistics import stdev

from convnext.tasks.classification.metrics import wilson

GROUPS = 10
_SAME = 1e-9
FEWEST = 2 * GROUPS  # images, below which nothing is said
_T = {5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # Student's 97.5 % by the number of groups


def interval(value: float, parts: Sequence[float], n: int) -> tuple[float, float] | None:
    """The 95 % interval of a rate on n images, from the same rate of each group; NaN of a group that shows none.

    None of few images, and of few groups that show any. Where no group differs, as at 100 %, that of a share of n images.
    """
    known = [part for part in parts if not math.isnan(part)]
    if len(known) not in _T or n < FEWEST:
        return None
    half = _T[len(known)] * stdev(known) / math.sqrt(len(known))
    if half < _SAME:
        return wilson(value, n)
    return max(0.0, value - half), min(1.0, value + half)
