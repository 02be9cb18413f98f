"""What a predictor says of an image, as values; no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image: (label, score) from likely to unlikely; scores are probabilities."""

    path: str
    predictions: tuple[tuple[str, float], ...]
