"""Numbers as people read them."""

import math
from typing import TypeGuard

GAP = "\u202f"  # narrow, never broken: between a number and its unit
NOTHING = "–"  # where a number is missing or not finite


def finite(value: object) -> TypeGuard[float]:
    """Whether `value` is a number that can be drawn or written."""
    return isinstance(value, int | float) and math.isfinite(value)


def percent(rate: object, digits: int = 1) -> str:
    """0.8431 -> '84.3 %'."""
    return f"{100 * rate:.{digits}f}{GAP}%" if finite(rate) else NOTHING


def count(value: object) -> str:
    """9469 -> '9,469'."""
    return f"{round(value):,}" if finite(value) else NOTHING


def short(value: float) -> str:
    """3_694_960 -> '3.7 M'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{GAP}{unit}"
    return f"{value:g}"


def plain(value: object, digits: int = 4) -> str:
    """Four significant digits, no idle zeros: 0.00125, 12.35, 5e-5, 1,234."""
    if not finite(value):
        return NOTHING
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    mantissa, e, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def duration(seconds: float) -> str:
    """Two units at most: '41 s', '48 min 12 s', '3 h 05 min', '2 d 4 h'."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if whole < 60:
        return f"{whole}{GAP}s"
    if not hours:
        return f"{minutes}{GAP}min {rest:02d}{GAP}s"
    if hours < 48:
        return f"{hours}{GAP}h {minutes:02d}{GAP}min"
    return f"{hours // 24}{GAP}d {hours % 24}{GAP}h"
