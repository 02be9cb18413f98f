"""What is inside an exported graph: the pixels of the evaluation transform to the bit, scores and answers of the predictor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import convnext as package
from convnext.config import InputConfig
from convnext.data.evaluation import eval_transform, framed
from convnext.deploy.export.answering import Answering, _reached
from convnext.deploy.export.pixels import Transformed, bicubic
from convnext.deploy.trained.classifier import TrainedClassifier


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def raw(size: int, crop: float = 0.875, resize: str = "crop", **fields: object) -> InputConfig:
    """Without a normalisation: the network sees grey levels."""
    return InputConfig(
        eval_size_px=size, eval_crop=crop, eval_resize=resize, mean=(0.0,) * 3, std=(1 / 255,) * 3, **fields
    )


def in_graph(image: np.ndarray, config: InputConfig) -> np.ndarray:
    return Transformed(config)(torch.from_numpy(image)[None])[0].permute(1, 2, 0).numpy()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 300),
    shape=st.floats(0.06, 2),
    size=st.sampled_from((8, 16, 33)),
    crop=st.sampled_from((1.0, 0.875, 0.5)),
    seed=st.integers(0, 99),
)
def test_the_graph_shows_the_pixels_of_the_evaluation_transform_to_the_bit(width, shape, size, crop, seed):
    image = pixels(max(1, int(width * shape)), width, seed=seed)
    config = raw(size, crop)
    assert np.abs(in_graph(image, config) - eval_transform(image, config)).max() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (9, 7), (300, 301), (16, 16)])
def test_the_graph_warps_as_the_evaluation_transform_does(height, width):
    image, config = pixels(height, width), raw(16, resize="warp")
    assert np.abs(in_graph(image, config) - eval_transform(image, config)).max() < 1e-3


def test_a_tall_image_that_pillow_resizes_in_another_order_is_a_grey_level_off_at_most():
    """Of what photos hold; noise of black and white may overshoot between the passes."""
    across = np.linspace(0, 255, 40)[None, :, None] * np.ones((200, 1, 3))
    image = (across * (0.5 + 0.5 * np.sin(np.arange(200) / 9)[:, None, None])).astype(np.uint8)
    assert np.abs(in_graph(image, raw(16)) - eval_transform(image, raw(16))).max() <= 1.001


def test_an_image_a_hundred_times_as_long_as_high_is_shown_without_the_rest():
    image, config = pixels(4, 4000), raw(16)
    assert np.abs(in_graph(image, config) - eval_transform(image, config)).max() <= 2.001  # as `data.evaluation` says


def test_bands_in_their_own_units_are_resized_without_rounding():
    bands: dict[str, object] = {"bands": ("1", "2"), "file_bands": 2, "pixels": "float", "mean": (10.0, -3.0)}
    config = InputConfig(eval_size_px=16, std=(4.0, 0.5), **bands)
    image = np.random.default_rng(0).normal(0, 5, (41, 30, 2)).astype(np.float32)
    expected = (eval_transform(image, config) - np.array(config.mean)) / np.array(config.std)
    assert np.allclose(in_graph(image, config), expected, atol=1e-4)


def test_weights_are_those_of_an_oracle_in_plain_python():
    """Keys' cubic, normalised over what lies inside: for 5 pixels of 9."""

    def keys(x: float) -> float:
        x, a = abs(x), -0.5
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    found = bicubic(torch.arange(9), torch.tensor([9]), torch.tensor([5]), torch.arange(5)).numpy()
    for place, row in enumerate(found):
        weights = np.array([keys((i + 0.5 - (place + 0.5) * 9 / 5) / (9 / 5)) for i in range(9)])
        assert np.allclose(row, weights / weights.sum(), atol=1e-14)


@pytest.mark.parametrize("resize", ["crop", "warp"])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.9, 0.3])
def test_what_is_framed_is_transformed_to_itself(crop, resize):
    config = raw(15, crop, resize)
    shown = pixels(15, 15)
    (image,) = framed(shown[None], config)
    assert np.array_equal(eval_transform(image, config), shown)
    assert np.array_equal(in_graph(image, config), shown)


class Given(torch.nn.Module):
    """Logits that are given, in place of a network."""

    def __init__(self, logits: np.ndarray):
        super().__init__()
        self.logits = torch.from_numpy(logits.astype(np.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(x)]


def predictor(logits: np.ndarray, **metadata: object) -> TrainedClassifier:
    classes = tuple("abcdefgh"[: logits.shape[1]])
    recipe = package.recipe("small", "atto", classes=len(classes), images=100, image_px=16)
    several = metadata.pop("several", False)
    recipe = recipe.model_copy(update={"precision": "fp32", **({"labels": "multi"} if several else {})})
    return TrainedClassifier(Given(logits), recipe, classes, torch.device("cpu"), Path("x"), dict(metadata), plain=True)


LOGITS = np.array([[1.0, 3.0, 2.5], [0.1, 0.0, -5.0], [2.0, 2.0, -1.0]])


@pytest.mark.parametrize(("temperature", "stretch"), [(1.0, 0.0), (2.5, 0.0), (0.7, 0.3)])
def test_scores_are_those_of_the_predictor(temperature, stretch):
    decision = {"temperature": temperature, "stretch": stretch, "images": "", "n": 9}
    one = predictor(LOGITS, decision=decision)
    found = Answering(one.model, one)(torch.zeros(3, 20, 24, 3, dtype=torch.uint8))
    expected = np.exp(one.decision.scale.log_scores(LOGITS.astype(np.float32)))
    assert np.allclose(found["scores"], expected, atol=1e-6)
    assert found["answers"].tolist() == [[False, True, False], [True, False, False], [True, False, False]]


def test_an_image_below_the_promise_has_no_answer():
    promise = {"accuracy": 0.9, "threshold": 0.55, "answered": 0.5, "n": 20, "part": "test"}
    decision = {"temperature": 1.0, "stretch": 0.0, "images": "", "n": 9, "promise": promise}
    one = predictor(LOGITS, decision=decision)
    found = Answering(one.model, one)(torch.zeros(3, 20, 24, 3, dtype=torch.uint8))
    told = [answer.answered for answer in one.predict(list(np.zeros((3, 9, 9, 3), np.uint8)))]
    assert found["answers"].any(1).tolist() == told == [True, False, False]


def test_several_labels_are_answers_from_their_thresholds_on():
    one = predictor(LOGITS, several=True, thresholds={"values": [0.6, 0.5, 0.92], "images": ""})
    found = Answering(one.model, one)(torch.zeros(3, 20, 24, 3, dtype=torch.uint8))
    assert np.allclose(found["scores"], 1 / (1 + np.exp(-LOGITS)), atol=1e-6)
    told = [{name for name, _ in answer.predictions} for answer in one.predict(list(np.zeros((3, 9, 9, 3), np.uint8)))]
    assert [{"abc"[k] for k in range(3) if row[k]} for row in found["answers"].tolist()] == told


def test_a_threshold_between_two_float32_is_reached_by_the_upper_one_alone():
    score = np.float32(0.7)
    for least in (float(score), np.nextafter(float(score), 0.0), np.nextafter(float(score), 1.0)):
        assert (score >= _reached(np.array([least]))[0]) == (float(score) >= least)
