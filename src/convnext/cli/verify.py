"""`convnext verify PATH...` and `convnext verify BUNDLE DATA`."""

import argparse
from typing import Any

from convnext.cli.options import WEIGHTS, annotation_flags, device_flag, json_flag, refuse_more
from convnext.cli.printing import show, show_json
from convnext.errors import ConvNeXtError, number_of

HELP = (
    "Say what is whole of runs and exported files by their digests; with labelled DATA, measure again what a run or an "
    "exported file promises."
)
_OF_DATA = {
    "part": None,
    "images": None,
    "form": None,
    "colours": None,
    "weights": "best",
}  # option -> when it is not given


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "Without DATA: whole, it is what was written; readable, it has no digest to tell; damaged, the reason follows. With "
        "DATA each promise holds, is BROKEN, or stays open where these data cannot tell. Exit status 1 where something is "
        "damaged or broken."
    )
    text = "runs, files, or folders of them; or a run or an exported file and, as the second, labelled data"
    parser.add_argument("paths", metavar="PATH", nargs="+", help=text)
    json_flag(parser)
    measured = parser.add_argument_group("with DATA, as `convnext evaluate` has them")
    measured.add_argument(
        "--part", choices=("train", "val", "test"), help="part of the data (val, else test, else all)"
    )
    measured.add_argument("--weights", default="best", help=WEIGHTS)
    text = "how many read images side by side (chosen automatically)"
    measured.add_argument("--workers", type=int, default=-1, help=text)
    annotation_flags(measured)
    device_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Verify and print; 1 where something is damaged or a promise is broken."""
    refuse_more(args, rest)
    from convnext.deploy.verify.verify import names_data

    if names_data(args.paths):
        return _promises(args)
    given = [name for name, default in _OF_DATA.items() if getattr(args, name) != default]
    if given:
        raise ConvNeXtError(
            f"--{given[0]} is for `convnext verify BUNDLE DATA`, one network and labelled data. Leave it out."
        )
    return _digests(args)


def _promises(args: argparse.Namespace) -> int:
    from convnext.deploy.verify.verify import verify

    bundle, data = args.paths
    how: dict[str, Any] = {name: getattr(args, name) for name in (*_OF_DATA, "device", "workers")}
    found = verify(bundle, data, progress=not args.json, **how)
    if args.json:
        show_json(found.to_dict())
    else:
        show(found.lines())
    return 0 if found.holds else 1


def _digests(args: argparse.Namespace) -> int:
    from convnext.deploy.verify.digests import compared

    found = compared(*args.paths)
    states = [one.state for one in found]
    counts = {state: states.count(state) for state in ("whole", "readable", "damaged")}
    if args.json:
        show_json({**counts, "files": [one.to_dict() for one in found]})
    else:
        show(f"{one.state:<9} {one.path}: {one.about}" for one in found)
        shown = ", ".join(f"{n:,} {state}" for state, n in counts.items() if n)
        show([f"{number_of(len(found), 'file')}: {shown}"])
    return 1 if counts["damaged"] else 0
