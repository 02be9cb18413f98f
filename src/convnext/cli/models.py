"""`convnext models`."""

import argparse
import json

from convnext.cli.words import json_flag, refuse_more

HELP = "List every network with its parameters and multiply-accumulates for 1000 classes."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its words."""
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Count and print."""
    refuse_more(args, rest)
    from convnext.models.catalogue import catalogue
    from convnext.reports.terminal import table

    rows = catalogue()
    if args.json:
        print(json.dumps(rows))
        return 0
    cells = [[r["name"], f"{r['params'] / 1e6:.1f}", f"{r['macs'] / 1e9:.2f}", str(r["input_size"])] for r in rows]
    print(table(["model", "params (M)", "GMACs", "px"], cells))
    return 0
