"""Results of a robustness suite as plain text for a terminal."""

from typing import Any

from convnext.reports.columns import table
from convnext.reports.text import not_counted
from convnext.studies.robustness.measured import ERRORS, TITLES

_IMAGENET = 1000  # classes


def robustness_text(result: dict[str, Any]) -> str:
    """What `suite.run_suite` returned: headline, one row a corruption or attack, means, and what to mind."""
    summary, errors = result["summary"], result["errors"]
    columns = list(next(iter(errors.values())))
    ratios = summary.get("ce", {})
    first = "eps / 255" if result["suite"] == "attacks" else "severity"
    rows = [
        [row, *(f"{cells[column]:.1%}" for column in columns), f"{summary['mean_errors'][row]:.1%}"]
        + ([f"{ratios[row]:.1%}"] if ratios else [])
        for row, cells in errors.items()
    ]
    head = [f"{ERRORS[result['measure']]} at {first}", *columns, "mean", *(["CE"] if ratios else [])]
    return "\n\n".join([_headline(result), table(head, rows), "\n".join(_closing(result))])


def _headline(result: dict[str, Any]) -> str:
    rate = result["images_per_s"]
    return (
        f"{result['about'][:1].upper()}{result['about'][1:]}   n {result['n']:,}   classes {result['classes']:,}   "
        f"clean {TITLES[result['measure']]} {1 - result['clean']['error']:.2%}"
        + (f"   {rate:,.0f} images/s" if rate else "")
    )


def _closing(result: dict[str, Any]) -> list[str]:
    summary = result["summary"]
    lines = [f"mean error {summary['mean_error']:.2%}"]
    if "mce" in summary:
        reference = summary["reference"]
        lines[0] += f"   mCE {summary['mce']:.2%}   relative mCE {summary['relative_mce']:.2%}"
        name = {"alexnet": "AlexNet"}.get(reference["name"], reference["name"])
        lines.append(f"mCE is relative to {name} ({reference['source']}).")
        if reference["name"] == "alexnet" and result["classes"] != _IMAGENET:
            lines.append("AlexNet's errors are for 1,000 classes: with others, compare runs with each other only.")
    if "frost" in result["errors"]:
        lines.append("Frost is synthetic: the benchmark's photographs of ice are not part of this package.")
    if result["skipped"]:
        lines.append(not_counted(len(result["skipped"])))
    return lines
