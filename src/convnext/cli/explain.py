"""`convnext explain RUN PATH... --out DIR`."""

import argparse

from convnext.cli.options import BATCH, WEIGHTS, count, device_flag, json_flag, refuse_more
from convnext.cli.printing import show, show_json

HELP = (
    "Show on images what a classifier's answer rests on: activation maps of the likeliest class, or of classes of "
    "choice, as a drawing each and a page of all."
)


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "auto: gradcam, of the last stage whose maps have at least 7 x 7 positions. cam: what each position adds to the "
        "logit, for and against, exactly; the heads of ConvNeXt allow it."
    )
    parser.add_argument("run", metavar="RUN", help="a run, a checkpoint, weights with a head or hub:OWNER/NAME")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="images, folders, globs, zips or tables")
    parser.add_argument("--out", metavar="DIR", required=True, help="new folder: index.html, and a PNG of each image")
    text = "class to explain, as often as there are such (the likeliest of each image)"
    parser.add_argument("--class", dest="classes", metavar="NAME", action="append", help=text)
    methods = ("auto", "cam", "gradcam", "layercam")
    parser.add_argument("--method", choices=methods, default="auto", help="how the maps are made (auto)")
    parser.add_argument("--stage", type=int, help="of the network, from 0 (the last; with auto see below)")
    parser.add_argument("--weights", default="best", help=f"of a run: {WEIGHTS}")
    parser.add_argument("--batch", type=count, default=BATCH, help=f"images per forward pass ({BATCH})")
    parser.add_argument("--workers", type=int, default=-1, help="threads that read images (chosen automatically)")
    device_flag(parser)
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Explain, and print what was found."""
    refuse_more(args, rest)
    from convnext.data.store import printable
    from convnext.engine.records import info, warn
    from convnext.studies.explain.page import explain

    given = ("classes", "method", "stage", "weights", "device", "batch", "workers")
    how = {name: getattr(args, name) for name in given}
    found = explain(args.run, args.paths, args.out, progress=not args.json, **how)
    for path, reason in found.skipped.items():
        warn(f"Skipped '{printable(path)}': {reason}")
    if args.json:
        show_json(found.to_dict())
        return 0
    for row in found.rows:
        says = ", ".join(f"{each['label']} {each['score']:.1%}" for each in row["explained"])
        show([f"{row['path']}: {says}"])
    info(f"The page: {found.page}")
    return 0
