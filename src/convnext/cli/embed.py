"""`convnext embed RUN PATH... --out FILE`."""

import argparse

from convnext.cli.options import BATCH, WEIGHTS, count, device_flag, json_flag, refuse_more
from convnext.cli.printing import show, show_json

HELP = (
    "Write the features of images into a file, a vector for each: what the head of a classifier sees, the last stage "
    "averaged over space, after the final norm."
)


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        ".npz: features (N, C) float32 and paths (N,), for numpy.load; .parquet: a column of each. Images pass the run's "
        "evaluation transform. Memory holds a block of features and the paths, however many images there are."
    )
    parser.add_argument("run", metavar="RUN", help="a run, a checkpoint, weights of any family or hub:OWNER/NAME")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="images, folders, globs, zips or tables")
    parser.add_argument("--out", metavar="FILE", required=True, help="new file, .npz or .parquet")
    feature_flags(parser)


def feature_flags(parser: argparse.ArgumentParser) -> None:
    """What `embed` and `similar` share."""
    parser.add_argument("--weights", default="best", help=f"of a run: {WEIGHTS}")
    parser.add_argument(
        "--batch", type=count, default=0, help=f"images per forward pass ({BATCH} of a classifier, else 1)"
    )
    parser.add_argument("--workers", type=int, default=-1, help="threads that read images (chosen automatically)")
    device_flag(parser)
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Embed, and say what was written."""
    refuse_more(args, rest)
    from convnext import api
    from convnext.data.store import printable
    from convnext.engine.records import warn
    from convnext.errors import number_of

    how = {name: getattr(args, name) for name in ("weights", "batch", "workers", "device")}
    found = api.embed(args.run, args.paths, args.out, progress=not args.json, **how)
    for path, reason in found.skipped.items():
        warn(f"Skipped '{printable(path)}': {reason}")
    if args.json:
        show_json(found.to_dict())
    else:
        show([f"{number_of(found.n, 'image')}, {found.width} features each ({found.what}): {found.path}"])
    return 0
