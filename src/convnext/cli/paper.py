"""`convnext paper`."""

import argparse

from convnext.cli.options import json_flag, refuse_more
from convnext.cli.printing import show, show_json
from convnext.errors import ConvNeXtError

HELP = (
    "The paper's tables beside what this code counts and what your runs measured; or its figure of accuracy and cost."
)


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("tables", metavar="TABLE", nargs="*", help="1, 2, 3, 4, 8, 10, 11 or 12 (a list of them)")
    parser.add_argument("--runs", nargs="+", metavar="RUN", default=[], help="run folders to show beside their rows")
    parser.add_argument("--plot", metavar="OUT", help="draw accuracy against MACs into this .svg or .html")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print tables, or draw."""
    refuse_more(args, rest)
    from convnext.engine.records import info
    from convnext.studies.paper.published import table
    from convnext.studies.paper.tables import as_json, compare, comparison_text, tables_text, without_a_row

    if args.plot:
        if args.tables or args.runs or args.json:
            raise ConvNeXtError("--plot draws all networks of the figure; leave TABLE, --runs and --json out.")
        from convnext.studies.paper.figure import write_bubbles

        show([str(write_bubbles(args.plot))])
        return 0
    if not (args.tables or args.runs or args.json):
        show(tables_text())
        return 0
    names = [name for name in args.tables if name.lower() not in ("table", "tables")]  # `convnext paper table 3`
    chosen = [table(name) for name in names or ["1"]]
    found = [(each, compare(each, args.runs)) for each in chosen]
    if args.json:
        objects = [as_json(each, rows) for each, rows in found]
        show_json(objects[0] if len(objects) == 1 else objects)
    else:
        show("\n\n\n".join(comparison_text(each, rows) for each, rows in found))
    for line in without_a_row(args.runs, [row for _, rows in found for row in rows]):
        info(line)
    return 0
