"""`convnext serve RUN...`."""

import argparse

from convnext.cli.options import WEIGHTS, count, device_flag, refuse_more

HELP = "Serve trained networks over HTTP, with a page to try them: runs of every task, checkpoints and exported files."
PORT = 8000


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "POST /v1/predict answers as `convnext predict --json` does, /v2 speaks the Open Inference Protocol, and /docs "
        "lists everything. Only this machine can ask, unless --host says otherwise."
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run, a checkpoint or an exported file; NAME=RUN names it"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=_port, default=PORT, help=f"port to listen at, 0 for any free one ({PORT})")
    parser.add_argument("--api-key-file", metavar="FILE", help="a file with a key that every request must bring")
    parser.add_argument("--watch", action="store_true", help="take new best weights as soon as they are there")
    shared = parser.add_argument_group("how the machine is shared")
    shared.add_argument("--batch", type=count, help="images that pass a classifier together (8)")
    shared.add_argument(
        "--window-ms", type=_amount, help="how long an idle network waits for more images (0: not at all)"
    )
    shared.add_argument("--queue", type=count, help="images that may wait; more are refused with 503 (256)")
    shared.add_argument("--files", type=count, help="images of one request (64)")
    shared.add_argument("--timeout-s", type=_amount, help="time of one request, then 408 or 504 (30)")
    shared.add_argument("--body-mb", type=_amount, help="size of one request, else 413 (32)")
    shared.add_argument("--held-mb", type=_amount, help="size of all requests in work, else 503 (256)")
    shared.add_argument("--megapixels", type=_amount, help="of one image (64)")
    doors = parser.add_argument_group("who may ask")
    doors.add_argument("--allow-host", metavar="NAME", action="append", default=[], help="another name of this server")
    doors.add_argument("--allow-origin", metavar="URL", action="append", default=[], help="pages of URL may ask (CORS)")
    parser.add_argument("--weights", default="best", help=WEIGHTS)
    device_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Serve until a signal asks for the end."""
    refuse_more(args, rest)
    from convnext.deploy.serve.run import serve

    shared = ("batch", "window_ms", "queue", "files", "timeout_s", "body_mb", "held_mb", "megapixels")
    limits = {name: getattr(args, name) for name in shared if getattr(args, name) is not None}
    named = ("host", "port", "api_key_file", "allow_host", "allow_origin", "watch", "weights", "device")
    serve(args.runs, **{name: getattr(args, name) for name in named}, **limits)
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port, 0 to 65535")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of 0 or more")
    return value
