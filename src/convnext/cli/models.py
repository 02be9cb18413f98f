"""`convnext models`."""

import argparse
import json
from typing import Any

from convnext.cli.words import json_flag, refuse_more

HELP = "List every network with its parameters and multiply-accumulates for 1000 classes."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its words."""
    tasks = ("classification", "detection", "segmentation")
    parser.add_argument("--task", choices=tasks, default=tasks[0], help="of which networks (classification)")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print what is counted."""
    refuse_more(args, rest)
    from convnext.reports.terminal import table

    rows = _rows(args.task)
    if args.json:
        print(json.dumps(rows))
        return 0
    cells = [[r["name"], f"{r['params'] / 1e6:.1f}", f"{r['macs'] / 1e9:.2f}", _size(r)] for r in rows]
    print(table(["model", "params (M)", "GMACs", "px"], cells))
    return 0


def _rows(task: str) -> list[dict[str, Any]]:
    """Dense networks are counted as the paper's tables do: at their sizes, by mmcv's rule."""
    if task == "detection":
        from convnext.tasks.detection.profile import rows as detectors

        return detectors()
    if task == "segmentation":
        from convnext.tasks.segmentation.profile import rows as segmenters

        return segmenters()
    from convnext.models.catalogue import catalogue

    return catalogue()


def _size(row: dict[str, Any]) -> str:
    return str(row["input_size"]) if "input_size" in row else f"{row['height']} x {row['width']}"
