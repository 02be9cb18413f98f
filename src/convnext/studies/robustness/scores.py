"""Corruption errors as single figures: mean error, mCE and relative mCE (arXiv 1903.12261, section 4.1).

For a corruption c with errors E over its severities s (of top-1; of several labels 1 - mAP): CE_c = sum_s E_sc / sum_s E_sc
of the reference, mCE the mean of CE_c, and relative mCE the same with each network's own clean error taken off every E.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from convnext.errors import ConvNeXtError

Errors = Mapping[str, Mapping[str, float]]  # corruption -> severity -> error, 0..1
_ALL = frozenset("12345")


@dataclass(frozen=True)
class Reference:
    """Errors that others are divided by."""

    name: str
    source: str
    clean: float
    means: Mapping[str, float]  # corruption -> mean error over `severities`
    severities: frozenset[str] = _ALL
    measure: str = "top1"  # what its errors are of: 'map' of several labels an image


ALEXNET = Reference(
    "alexnet",
    # The means are the raw errors published with the benchmark's code; that the clean error has one decimal more than
    # the 43.5 % printed in the paper's Table 1 is not known, so the printed one is used (0.05 % at most, in relative mCE).
    "Hendrycks and Dietterich 2019, github.com/hendrycks/robustness; measured on ImageNet-C itself",
    0.435,
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    },
)


def reference_of(results: Mapping[str, Any], name: str) -> Reference:
    """Another network's robustness.json as a reference. Raises ConvNeXtError when it is not finished."""
    errors = {row: {s: cell["error"] for s, cell in cells.items()} for row, cells in results["cells"].items()}
    errors = {row: values for row, values in errors.items() if row not in ("fgsm", "pgd")}
    severities = {frozenset(values) for values in errors.values()}
    if "clean" not in results or len(severities) != 1:
        raise ConvNeXtError(
            f"'{name}' is not finished: its corruptions have different severities. Go on with it first."
        )
    means = {row: fmean(values.values()) for row, values in errors.items()}
    measure = results["fingerprint"].get("measure", "top1")
    return Reference(name, name, results["clean"]["error"], means, next(iter(severities)), measure)


def summarise(errors: Errors, clean: float, reference: Reference | None = None) -> dict[str, Any]:
    """Mean error of each row and of all, and with a reference CE of each row, mCE and relative mCE.

    Raises ConvNeXtError when the reference has other rows or severities.
    """
    means = {row: fmean(values.values()) for row, values in errors.items()}
    summary: dict[str, Any] = {"clean": clean, "mean_errors": means, "mean_error": fmean(means.values())}
    if reference is None:
        return summary
    refuse_unlike(errors, reference)
    ratios = {row: mean / reference.means[row] for row, mean in means.items()}
    losses = {row: (mean - clean) / (reference.means[row] - reference.clean) for row, mean in means.items()}
    return summary | {
        "reference": {"name": reference.name, "source": reference.source, "clean": reference.clean},
        "ce": ratios,
        "mce": fmean(ratios.values()),
        "relative_ce": losses,
        "relative_mce": fmean(losses.values()),
    }


def refuse_unlike(rows: Mapping[str, Collection[str]], reference: Reference) -> None:
    """Raise ConvNeXtError where `reference` cannot stand below `rows` (row -> its severities)."""
    for row, severities in rows.items():
        if row not in reference.means:
            raise ConvNeXtError(f"Reference '{reference.name}' has no errors for '{row}'. Take none, or another run.")
        if frozenset(severities) != reference.severities:
            raise ConvNeXtError(
                f"{row} is measured at severities {', '.join(severities)}, reference '{reference.name}' at "
                f"{', '.join(sorted(reference.severities))}. Measure the same, or take no reference."
            )
        if reference.means[row] in (0.0, reference.clean):
            raise ConvNeXtError(f"Reference '{reference.name}' loses nothing under '{row}': nothing to divide by.")
