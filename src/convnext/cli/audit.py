"""`convnext audit DATA --out DIR`."""

import argparse

from convnext.cli.options import bands_of, columns_of, count, device_flag, json_flag, refuse_more, table_flags
from convnext.cli.printing import show, show_json

HELP = "Find what is wrong with labelled images: labels, near-duplicates within and across parts, outliers; on a page."
FOLDS = 5


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "Each image is judged by a network that has not learnt from it. The same command goes on with an audit that was "
        "stopped. DIR also holds duplicates.csv, outliers.csv, pairs.csv and probabilities.npz, for other tools. "
        "`convnext train DATA --corrections DIR/audit.csv` leaves out the images in the table."
    )
    parser.add_argument(
        "data", metavar="DATA", help="class folders, with or without parts, a table, or a zip of either"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="new folder, for index.html and audit.csv")
    images = "folder or zip of the images of a table, if not beside it"
    parser.add_argument("--images", metavar="DIR", help=images)
    weights = "judge by features of this network, frozen, in little time; else a small network is trained for each fold"
    parser.add_argument("--weights", metavar="W", help=weights)
    parser.add_argument("--folds", type=count, default=FOLDS, help=f"parts, each judged by the others ({FOLDS})")
    parser.add_argument("--model", help="network to train, without --weights (atto)")
    parser.add_argument("--epochs", help="of each network that is trained (recipe `small`'s)")
    parser.add_argument("--size", type=count, help="pixels: side of the images that it is trained on")
    bands = "the bands that are the channels, in order, e.g. 4,3,2,8 or B04,B03,B02, without --weights (all)"
    parser.add_argument("--bands", type=bands_of, default=(), help=bands)
    parser.add_argument("--minutes", help="end in about so many minutes, all folds together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and the networks (0)")
    parser.add_argument("--workers", type=int, default=-1, help="how many read images (chosen automatically)")
    table_flags(parser, groups=True)
    device_flag(parser)
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Audit, and say what was found."""
    refuse_more(args, rest)
    from convnext.engine.records import info
    from convnext.studies.audit.run import audit

    names = ("weights", "folds", "model", "epochs", "minutes", "seed", "workers", "device", "bands", "images")
    how = {name: getattr(args, name) for name in names}
    found = audit(args.data, args.out, progress=not args.json, size_px=args.size, **how, **columns_of(args))
    if args.json:
        show_json(found.to_dict())
    else:
        show(found.lines())
        info(f"The page: {found.page}")
    return 0
