"""`convnext demo`."""

import argparse
from pathlib import Path

from convnext.cli import predict, train
from convnext.cli.options import Command, parser_of, refuse_more
from convnext.streams import tell

HELP = "Train, evaluate and predict on scanned digits that come with scikit-learn: some minutes, no download."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("--out", default="runs/demo", help="folder of the run (runs/demo)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """The commands that a person would give, one after the other."""
    refuse_more(args, rest)
    from convnext.data.digits import write_digits

    folder = Path(args.out) / "images"
    write_digits(folder)
    arguments = ["train", str(folder), "--model", "atto", "--recipe", "small", "--epochs", "12", "--out", args.out]
    command(*arguments, "--augment.hflip=0")  # a digit in the mirror is another one, or none
    tell("", "A few images that it has not seen:")
    some = [str(sorted((folder / "val" / str(digit)).iterdir())[0]) for digit in range(0, 10, 2)]
    command("predict", args.out, *some, "--top", "2")
    return 0


def command(*arguments: str) -> None:
    """Say the command, and do it. Raises what it raises."""
    tell("", f"$ convnext {' '.join(arguments)}")
    verbs: dict[str, Command] = {"train": train, "predict": predict}
    args, rest = parser_of(verbs).parse_known_args(arguments)
    verbs[args.verb].run(args, rest)
