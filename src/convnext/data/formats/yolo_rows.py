"""What the numbers of YOLO lines mean: a box, an outline, a box with keypoints, or a box that a model found.

Keypoints and confidences look like points of an outline. They are told apart by `kpt_shape` of data.yaml, or by all
lines of a data set together; their box is kept.
"""

import math
from collections.abc import Sequence

from convnext.data.formats.yolo_yaml import Value
from convnext.data.problems import UNREADABLE, WrongError, whole_of_text

_BOX = 4  # numbers of a box: the centre and both sides
_SLACK = 0.002
_VISIBLE = (0.0, 1.0, 2.0)  # how much of a keypoint is seen


class Meaning:
    """How the lines of a data set are read; `notes` say it where it is not the plain way."""

    def __init__(self, shape: Value | None, lines: Sequence[list[float]]):
        """`shape`: kpt_shape of data.yaml; `lines`: the numbers behind the class of each line."""
        self.notes: list[str] = []
        self.keypoints = _numbers_of(shape)  # numbers behind the box, 0: no pose labels
        self.extra = 0  # the same where the lines themselves show that they are no outlines
        if self.keypoints:
            if any(len(values) > _BOX for values in lines):
                self.notes.append("Labels are for poses ('kpt_shape' in data.yaml): boxes are read, keypoints are not.")
            return
        plain, lines = len(lines), [values for values in lines if len(values) > _BOX]
        plain -= len(lines)
        lengths = {len(values) for values in lines}
        if len(lengths) != 1 or not all(_is_box(values) for values in lines):
            return
        extra = lengths.pop() - _BOX
        if extra == 1 and plain:  # rather a slip in one line, which is named
            return
        if _are_found(extra, lines):
            self.extra = extra
            self.notes.append("Lines end with a confidence, as a model's predictions do: only their boxes are read.")
        elif _have_visible_points(extra, lines):
            self.extra = extra
            self.notes.append(f"Lines hold {extra // 3} keypoints behind a box: boxes are read, keypoints are not.")
        elif extra % 2 == 0 and extra > 2 and all(_points_in_box(values, 2) for values in lines):
            self.notes.append(
                f"Each line has {extra + _BOX} numbers, which were read as outlines. If they are a box and "
                f"{extra // 2} keypoints, add 'kpt_shape: [{extra // 2}, 2]' to data.yaml."
            )

    def box_or_outline(self, values: list[float]) -> list[float]:
        """The four numbers of a box, or the points of an outline. Raises WrongError where a line is neither."""
        if self.keypoints and len(values) not in (_BOX, _BOX + self.keypoints):
            raise WrongError(
                UNREADABLE, f"{len(values) + 1} numbers, not {_BOX + 1 + self.keypoints} as 'kpt_shape' says"
            )
        return values[:_BOX] if self.keypoints or self.extra else values


def _numbers_of(shape: Value | None) -> int:
    """How many numbers the keypoints of an object have; 0 where data.yaml does not say it."""
    sides = [text.strip() for text in shape] if isinstance(shape, list) else []
    counts = [whole_of_text(side) for side in sides]
    return math.prod(count or 0 for count in counts) if len(counts) == 2 and None not in counts else 0


def _is_box(values: list[float]) -> bool:
    """Whether the first four numbers are a box within the image."""
    x, y, width, height = values[:_BOX]
    ends = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return width > 0 and height > 0 and min(ends) >= -_SLACK and max(ends) <= 1 + _SLACK


def _are_found(extra: int, lines: Sequence[list[float]]) -> bool:
    """Whether a confidence follows each box, and perhaps the number of a track."""
    if extra not in (1, 2) or not all(0 <= values[_BOX] <= 1 for values in lines):
        return False
    return extra == 1 or all(values[-1] >= 0 and values[-1].is_integer() for values in lines)


def _have_visible_points(extra: int, lines: Sequence[list[float]]) -> bool:
    """Whether points with a third number, which says how visible they are, follow each box."""
    if extra % 3 or not all(_points_in_box(values, 3) for values in lines):
        return False
    seen = [number for values in lines for number in values[_BOX + 2 :: 3]]
    return all(number in _VISIBLE for number in seen) and (extra % 2 == 1 or 2.0 in seen)


def _points_in_box(values: list[float], step: int) -> bool:
    """Whether all points behind the box lie in it, or at 0 0 where they are not known."""
    x, y, width, height = values[:_BOX]
    return all(
        (abs(u - x) <= width / 2 + _SLACK and abs(v - y) <= height / 2 + _SLACK) or (u == 0 and v == 0)
        for u, v in zip(values[_BOX::step], values[_BOX + 1 :: step], strict=True)
    )
