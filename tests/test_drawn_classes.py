"""What a classifier says, drawn on the image: bars as long as their scores, what fits, and names in letters that exist."""

from typing import Any

import numpy as np
import pytest
from PIL import ImageFont

from convnext.deploy.images import Given
from convnext.deploy.prediction import ClassificationPrediction, LabelsPrediction
from convnext.drawing import letters
from convnext.drawing.palette import colour_of

CLASSES = ("cat", "dog", "fox", "owl")
SCORED = (("fox", 0.75), ("cat", 0.2), ("owl", 0.05))
GREY = 100


def drawn(height: int, width: int, kind: type = ClassificationPrediction, channels: int = 3, **more: Any) -> np.ndarray:
    pixels = np.full((height, width, channels), GREY, np.uint8)
    more = {"scored": SCORED, "classes": CLASSES} | more
    return np.asarray(kind(given=Given("<image>", pixels), size=(height, width), **more).draw())


def changed(image: np.ndarray) -> np.ndarray:
    """(H, W) where something is drawn inside the frame."""
    found: np.ndarray = (image != GREY).any(2)
    found[[0, -1]] = found[:, [0, -1]] = False
    return found


def lines_of(image: np.ndarray, row_px: int = 18) -> int:
    """Lines at the lower edge of an image of 300 rows, whose letters have 11 px."""
    return round(changed(image).any(1).sum() / row_px)


def test_there_is_a_line_for_each_class_and_the_rest_of_the_image_is_as_it_was():
    image = drawn(300, 400)
    assert image.shape == (300, 400, 3) and lines_of(image) == 3
    assert not changed(image)[: 300 - 3 * 18].any() and changed(image)[300 - 3 * 18 : 299, 1:-1].all()


def test_a_bar_is_as_long_as_its_score_and_has_the_colour_of_its_class():
    image = drawn(300, 400).astype(int)
    first = image[300 - 3 * 18 + 1]  # above the letters of the first line
    tinted = np.abs(first - first[-30]).sum(1) > 20
    assert tinted[2:298].all() and not tinted[302:398].any()  # three quarters of 400
    mixed = (np.array(colour_of(CLASSES.index("fox"))) + first[350]) / 2
    assert np.abs(first[200] - mixed).max() <= 2


def test_the_frame_has_the_colour_of_the_first_class_and_is_all_that_a_small_image_has_room_for():
    for height, width in ((300, 400), (8, 8), (40, 300)):
        assert tuple(drawn(height, width)[0, 0]) == colour_of(CLASSES.index("fox"))
    assert not changed(drawn(40, 300)).any() and drawn(1, 1).shape == (1, 1, 3) and drawn(9, 1).shape == (9, 1, 3)


def test_a_refusal_and_a_set_are_lines_of_their_own():
    assert lines_of(drawn(300, 400, answered=True)) == 3
    assert lines_of(drawn(300, 400, answered=False)) == 4
    assert lines_of(drawn(300, 400, answered=False, label_set=("fox", "cat"))) == 5


def test_no_label_above_its_threshold_is_said_without_a_frame():
    image = drawn(300, 400, LabelsPrediction, scored=())
    assert lines_of(image) == 1 and (image[0] == GREY).all()
    assert lines_of(drawn(300, 400, LabelsPrediction, scored=SCORED[:2])) == 2


def test_as_many_lines_as_half_of_the_image_has_room_for_are_drawn():
    names = tuple(f"class {i}" for i in range(50))
    image = drawn(300, 400, classes=names, scored=tuple((name, 0.02) for name in names))
    assert lines_of(image) == 8 and not changed(image)[:150].any()  # 150 // 18


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_are_drawn_on_in_colour(channels):
    assert drawn(120, 100, channels=channels).shape == (120, 100, 3)


def test_a_long_name_ends_in_an_ellipsis_and_keeps_clear_of_its_score():
    long = "a name that says everything about the class " * 9
    text, font = letters.lettered(long, 11)
    cut = letters.fitted(text, font, 200)
    assert cut.endswith("…") and long.startswith(cut[:-1]) and font.getlength(cut) <= 200
    assert letters.fitted("fox", font, 200) == "fox" and letters.fitted("fox", font, 1) == ""
    image = drawn(300, 400, classes=(long,), scored=((long, 0.0),))
    assert lines_of(image) == 1


def test_letters_that_no_font_has_are_spelt_out_and_others_come_from_the_system(monkeypatch):
    assert letters.lettered("cat\n2", 12)[0] == r"cat\n2"
    monkeypatch.setattr(letters, "_OF_SYSTEMS", ())
    assert [letters.lettered(text, 12)[0] for text in ("猫", "犬")] == [r"\u732b", r"\u72ac"]
    assert letters.lettered("Äpfel", 12)[0] == r"\xc4pfel"  # Pillow's own font has few letters


def test_a_font_of_the_system_is_taken_where_it_has_the_letters():
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    text, font = letters.lettered("Äpfel und кошка", 12)
    assert text == "Äpfel und кошка" and font.getname()[0] == "DejaVu Sans"  # type: ignore[union-attr]
    assert letters.lettered("dog", 12)[1].getname()[0] == "Aileron"  # type: ignore[union-attr]
