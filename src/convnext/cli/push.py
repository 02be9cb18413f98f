"""`convnext push RUN OWNER/NAME`."""

import argparse

from convnext.cli.options import WEIGHTS, json_flag, refuse_more
from convnext.cli.printing import show, show_json

HELP = "Write a run as a repository of the hub, with its card, and show it; --yes uploads it, private unless --public."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository, which is made where there is none")
    parser.add_argument("--out", metavar="DIR", help="folder to write the files into (RUN/hub)")
    parser.add_argument("--weights", default="best", help=WEIGHTS)
    parser.add_argument(
        "--license", default="", metavar="NAME", help="of the network, e.g. MIT; the card states it (none)"
    )
    parser.add_argument("--yes", action="store_true", help="upload, with your own token: `hf auth login`, or HF_TOKEN")
    parser.add_argument("--public", action="store_true", help="everybody may read it (only you)")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write, show, and upload when asked."""
    refuse_more(args, rest)
    from convnext.deploy.push.push import push

    how = {"weights": args.weights, "license": args.license, "upload": args.yes, "public": args.public}
    done = push(args.run, args.repository, args.out, **how)
    if args.json:
        show_json(done.to_dict())
    else:
        show(done.lines())
    return 0
