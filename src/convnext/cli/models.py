"""`convnext models`."""

import argparse
from typing import Any

from convnext.cli.options import json_flag, refuse_more
from convnext.cli.printing import show, show_json

HELP = "List every network that --model takes, with its parameters and multiply-accumulates for 1000 classes."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    tasks = ("classification", "detection", "segmentation")
    parser.add_argument("--task", choices=tasks, default=tasks[0], help="task of the networks (classification)")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print what was counted."""
    refuse_more(args, rest)
    from convnext.recipes.listing import GROUPS, classifiers, detectors, segmenters
    from convnext.reports.columns import table

    rows = {"classification": classifiers, "detection": detectors, "segmentation": segmenters}[args.task]()
    if args.json:
        show_json(rows)
        return 0
    head, *lines = table(["model", "params (M)", "GMACs", "px"], [_cells(row) for row in rows]).splitlines()
    show(head)
    before = None
    for row, line in zip(rows, lines, strict=True):
        group = row.get("group")
        if group != before:
            show(f"\n{GROUPS[str(group)]}:")
        before = group
        show(line)
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    """Detectors and segmenters are counted as the paper's tables do: at their sizes, by mmcv's rule."""
    px = str(row["input_size"]) if "input_size" in row else f"{row['height']} x {row['width']}"
    return [row["name"], f"{row['params'] / 1e6:.1f}", f"{row['macs'] / 1e9:.2f}", px]
