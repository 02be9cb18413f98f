"""All networks with their parameters and multiply-adds."""

from convnext.recipes.listing import GROUPS, classifiers, detectors, segmenters

_INTRO = """# Networks

Each name is a value of `--model` and of `convnext.create`. Parameters and multiply-adds are counted from the network and tested
against the published figures; `convnext models` prints the same. Which one to take: [start](index.md#which-network).
"""


def page() -> str:
    """One table a group."""
    lines = [_INTRO]
    rows = classifiers()
    for group, title in GROUPS.items():
        found = [row for row in rows if row["group"] == group]
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| name | parameters | multiply-adds | at |",
            "|---|---:|---:|---|",
        ]
        lines += [
            f"| `{row['name']}` | {_millions(row['params'])} | {_billions(row['macs'])} | {row['input_size']} px |"
            for row in found
        ] + [""]
    for title, found in (("Detectors", detectors()), ("Segmenters", segmenters())):
        lines += [f"## {title}", "", "| name | parameters | multiply-adds | at |", "|---|---:|---:|---|"]
        lines += [
            f"| `{row['name']}` | {_millions(row['params'])} | {_billions(row['macs'])} | {row['height']} x {row['width']} |"
            for row in found
        ] + [""]
    return "\n".join(lines)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count < 1e11 else f"{count / 1e9:.0f} G"
