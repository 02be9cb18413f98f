"""`convnext paper`."""

import argparse
import json

from convnext.cli.words import json_flag, refuse_more
from convnext.errors import ConvNeXtError

HELP = (
    "The paper's tables beside what this code counts and what your runs measured; or its figure of accuracy and cost."
)


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its words."""
    parser.add_argument("table", metavar="TABLE", nargs="?", help="1, 3, 4, 8, 10, 11 or 12 (a list of them)")
    parser.add_argument("--runs", nargs="+", metavar="RUN", default=[], help="run folders to put beside their rows")
    parser.add_argument("--plot", metavar="OUT", help="draw accuracy against MACs into this .svg or .html")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print a table, or draw."""
    refuse_more(args, rest)
    from convnext.recipes.paper import table
    from convnext.reports.paper import as_json, compare, comparison_text, tables_text

    if args.plot:
        if args.table or args.runs or args.json:
            raise ConvNeXtError("--plot draws all networks of the figure; leave TABLE, --runs and --json out.")
        from convnext.reports.bubbles import write_bubbles

        print(write_bubbles(args.plot))
        return 0
    if not (args.table or args.runs or args.json):
        print(tables_text())
        return 0
    chosen = table(args.table or "1")
    rows = compare(chosen, args.runs)
    print(json.dumps(as_json(chosen, rows)) if args.json else comparison_text(chosen, rows))
    return 0
