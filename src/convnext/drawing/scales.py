"""Axes: from values to places, and the round values that are written on them."""

import math
from collections.abc import Callable

Place = Callable[[float], float]


def scale(values: tuple[float, float], places: tuple[float, float], *, log: bool = False) -> Place:
    """value -> place in the drawing, to a tenth; the middle for an axis of one value."""
    low, high = (math.log(value) if log else value for value in values)

    def place(value: float) -> float:
        share = ((math.log(value) if log else value) - low) / (high - low) if high > low else 0.5
        return round(places[0] + share * (places[1] - places[0]), 1)

    return place


def nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(m for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def steps(low: float, high: float, step: float) -> list[float]:
    """The multiples of `step` from `low` to `high`."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def powers(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten, from the last one below `low` to the first above `high`."""
    tens = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    every = [m * 10.0**ten for ten in tens for m in (1, 2, 5)]
    first, last = max(v for v in every if v <= low), min(v for v in every if v >= high)
    return [v for v in every if first <= v <= last]
