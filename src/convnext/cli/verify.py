"""`convnext verify PATH...`."""

import argparse

from convnext.cli.options import json_flag, refuse_more
from convnext.cli.printing import show, show_json
from convnext.errors import number_of

HELP = "Say what is whole: runs, checkpoints, exported files and records, by the digests that they carry."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "whole: it is what was written. readable: it has no digest to tell. damaged: the reason follows; exit status 1."
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="runs, files, or folders of them")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Verify and print; 1 where something is damaged."""
    refuse_more(args, rest)
    from convnext.deploy.verify import verify

    found = verify(*args.paths)
    states = [one.state for one in found]
    counts = {state: states.count(state) for state in ("whole", "readable", "damaged")}
    if args.json:
        show_json({**counts, "files": [one.to_dict() for one in found]})
    else:
        show(f"{one.state:<9} {one.path}: {one.about}" for one in found)
        shown = ", ".join(f"{n:,} {state}" for state, n in counts.items() if n)
        show([f"{number_of(len(found), 'file')}: {shown}"])
    return 1 if counts["damaged"] else 0
