"""`convnext export RUN --to FORM`."""

import argparse
from typing import Any

from convnext.cli.options import WEIGHTS, count, json_flag, refuse_more
from convnext.cli.printing import show
from convnext.deploy.forms import table
from convnext.errors import ConvNeXtError
from convnext.files import to_json

HELP = (
    "Write a network as a file that runs elsewhere, ONNX, OpenVINO or, but for a detector, a torch program; a classifier for "
    "the kernels of this package, or as a page for the browser."
)


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    files = ", ".join(" with ".join((form.suffix, *form.beside)) for form in table.FORMS)
    parser.add_argument(
        "--to", choices=(*table.names(), "web"), help=f"form: {files}, or web, a folder (that of --backend)"
    )
    parser.add_argument("--out", metavar="FILE", help="file or folder to write (RUN/model.onnx, RUN/web and so on)")
    text = "web: a folder that holds onnxruntime-web, which npm brings otherwise"
    parser.add_argument("--runtime", metavar="FOLDER", help=text)
    parser.add_argument("--weights", default="best", help=f"for a run folder: {WEIGHTS}")
    parser.add_argument("--half", action="store_true", help="store the weights in 16 bits: half the size")
    parser.add_argument("--compare-on", metavar="PATH", help="images on which both networks are compared (fixed noise)")
    small = parser.add_argument_group("int8")
    text = "compute in int8; calibrate on these labelled images and judge on those held out"
    small.add_argument("--int8", metavar="DATA", help=text)
    small.add_argument("--calibrate", type=count, default=300, metavar="N", help="images to calibrate on (300)")
    text = "points of top-1, of several labels of mAP, that int8 may cost; if it costs more, no file is written (0.5)"
    small.add_argument("--max-loss", type=_points, default=0.5, help=text)
    small.add_argument("--workers", type=int, default=-1, help="processes that read images (chosen automatically)")
    parser.add_argument(
        "--backend",
        choices=("auto", *table.backends()),
        default="auto",
        help="runtime of the file on this machine (auto)",
    )
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Export, compare and say what was found."""
    refuse_more(args, rest)
    own = table.backends().get(args.backend)
    form: Any = args.to or (own.name if own else None)
    if form is None:
        *others, last = (f"--to {name}" for name in (*table.names(), "web"))
        raise ConvNeXtError(f"The form is missing: {', '.join(others)} or {last}.")
    from convnext import api

    done = api.export(
        args.run,
        form,
        args.out,
        weights=args.weights,
        backend=args.backend,
        half=args.half,
        int8=args.int8,
        calibrate=args.calibrate,
        max_loss=args.max_loss,
        compare_on=args.compare_on,
        workers=args.workers,
        runtime=args.runtime,
    )
    show(to_json(done.to_dict()) if args.json else done.lines())
    return 0


def _points(text: str) -> float:
    """Points of top-1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of points from 0 to 100")
    return value
