"""`convnext similar RUN QUERY PATH...`."""

import argparse

from convnext.cli.embed import feature_flags
from convnext.cli.options import count, refuse_more
from convnext.cli.printing import show, show_json

HELP = "Find the images nearest to one, by the cosine of their features; --out draws them on a page."
TOP = 10


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "The search is exact: all features are compared. A file of `convnext embed` saves making them again."
    )
    parser.add_argument("run", metavar="RUN", help="a run, a checkpoint, weights of any family or hub:OWNER/NAME")
    parser.add_argument("query", metavar="QUERY", help="the image to look for")
    searched = "images, folders, globs, zips, or a file that `convnext embed` wrote with the same RUN"
    parser.add_argument("paths", metavar="PATH", nargs="+", help=searched)
    parser.add_argument("--top", type=count, default=TOP, help=f"how many to show ({TOP})")
    parser.add_argument("--out", metavar="FILE", help="new page, .html")
    feature_flags(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Search and print, the nearest first."""
    refuse_more(args, rest)
    from convnext import api
    from convnext.data.store import printable
    from convnext.engine.records import info, warn

    how = {name: getattr(args, name) for name in ("top", "out", "weights", "batch", "workers", "device")}
    found = api.similar(args.run, args.query, args.paths, progress=not args.json, **how)
    for path, reason in found.skipped.items():
        warn(f"Skipped '{printable(path)}': {reason}")
    if args.json:
        show_json(found.to_dict())
    for each in () if args.json else found.found:
        show([f"{each.cosine:.3f}  {printable(each.path)}"])
    if args.out:
        info(f"The page: {args.out}")
    return 0
