"""`convnext convert IN OUT`."""

import argparse

from convnext.cli.options import WEIGHTS, json_flag, refuse_more
from convnext.cli.printing import show
from convnext.files import to_json

HELP = "Rewrite weights for another library, or another library's for this one, and compare what both make of an image."
LIBRARIES = ("official", "timm", "torchvision", "transformers", "keras-npz", "mmpretrain", "convnext")


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("source", metavar="IN", help="file, run folder, transformers folder, or hub:OWNER/NAME")
    out = "the suffix decides: .safetensors, .pth (tensors only), .npz for keras-npz; a folder for transformers"
    parser.add_argument("out", metavar="OUT", help=out)
    parser.add_argument(
        "--to", required=True, choices=LIBRARIES, help="library whose tensor names and shapes are written"
    )
    parser.add_argument("--weights", default="best", help=f"for a run folder: {WEIGHTS}")
    parser.add_argument("--no-check", action="store_true", help="do not compare the logits")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Convert, compare and say what was found."""
    refuse_more(args, rest)
    from convnext.deploy.convert import convert

    done = convert(args.source, args.out, args.to, weights=args.weights, check=not args.no_check)
    show(to_json(done.to_dict()) if args.json else done.lines())
    return 0
