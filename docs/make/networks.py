"""All networks with their parameters and multiply-adds."""

from typing import Any

from convnext.recipes.listing import GROUPS, classifiers, detectors, segmenters
from convnext.studies.paper.rows import TABLE_1, TABLE_2

_INTRO = """# Networks

Each name is a value of `--model` and of `convnext.create`. Parameters and multiply-adds are counted from the network and tested
against the published figures; `convnext models` prints the same. Which one to take:
[start](index.md#which-network). Accuracies are those of the paper on ImageNet-1K, trained on it alone or on ImageNet-22K
first.
"""


def page() -> str:
    """One table a group."""
    lines = [_INTRO]
    rows = classifiers()
    for group, title in GROUPS.items():
        found = [row for row in rows if row["group"] == group]
        scored = any(_top1(row) for row in found)
        head, rule = (" top-1 of the paper |", "---|") if scored else ("", "")
        lines += [f"## {title[0].upper()}{title[1:]}", "", f"| name | parameters | multiply-adds | at |{head}"]
        lines.append(f"|---|---:|---:|---|{rule}")
        for row in found:
            sizes = f"{_millions(row['params'])} | {_billions(row['macs'])} | {row['input_size']} px"
            lines.append(f"| `{row['name']}` | {sizes} |" + (f" {_top1(row)} |" if scored else ""))
        lines.append("")
    for title, found in (("Detectors", detectors()), ("Segmenters", segmenters())):
        lines += [f"## {title}", "", "| name | parameters | multiply-adds | at |", "|---|---:|---:|---|"]
        lines += [
            f"| `{row['name']}` | {_millions(row['params'])} | {_billions(row['macs'])} | {row['height']} x {row['width']} |"
            for row in found
        ] + [""]
    return "\n".join(lines)


def _top1(row: dict[str, Any]) -> str:
    """As tables 1 and 2 of the paper print it for images of this size; from ImageNet-22K behind it."""
    wanted = row["name"], row["input_size"]
    found = [(part, top1) for _, name, part, px, *_, top1 in TABLE_1 if (name, px) == wanted]
    found += [("1K", top1) for _, name, px, *_, top1 in TABLE_2 if (name, px) == wanted]
    return "; ".join(f"{'' if part == '1K' else 'from 22K '}{top1} %" for part, top1 in dict(found).items())


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count < 1e11 else f"{count / 1e9:.0f} G"
