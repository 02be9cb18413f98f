"""From a command line to values: the parser of all verbs, and what several of them share."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from convnext import __version__
from convnext.errors import ConvNeXtError, nearest

CLASSES, DENSE = ("classification",), ("detection", "segmentation")
BATCH = 32  # images per forward pass of a classifier
WEIGHTS = "best, raw, ema, probe, mixed, adjusted or last (best)"  # of a run


class Command(Protocol):
    """A module of this package that is a verb."""

    HELP: str  # one line

    def flags(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""
        ...

    def run(self, args: argparse.Namespace, rest: list[str]) -> int:
        """Do it; `rest` are arguments that `flags` does not declare. Returns the exit status."""
        ...


class Parser(argparse.ArgumentParser):
    """One line for a mistake, as everywhere else."""

    verbs: Mapping[str, "Parser"] = {}

    @property
    def options(self) -> frozenset[str]:
        """All that begins with a dash and is understood."""
        return frozenset(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Refuse, with the nearest valid choice."""
        choice = re.search(r"invalid choice: '?([^' ]+)'? \(choose from (.*)\)", message)
        hint = nearest(choice[1], re.findall(r"[\w.-]+", choice[2])) if choice else ""
        raise ConvNeXtError(f"{message[0].upper()}{message[1:]}.{hint} `{self.prog} --help` shows the form.")


def parser_of(verbs: Mapping[str, Command]) -> Parser:
    """The parser of all verbs; the chosen one is in `verb`."""
    parser = Parser(prog="convnext", description="Train, evaluate and use ConvNeXt on your own images.")
    parser.add_argument("--version", action="version", version=f"convnext {__version__}")
    chosen = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in verbs.items():
        verb.flags(chosen.add_parser(name, help=verb.HELP, description=verb.HELP, allow_abbrev=False))
    parser.verbs = chosen.choices
    return parser


def fields_apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Dotted options with their values, and all other arguments: argparse would take such a value for a path."""
    fields, others, left = [], [], list(arguments)
    while left:
        argument = left.pop(0)
        if not re.match(r"--\w+\.", argument):
            others.append(argument)
            continue
        fields.append(argument)
        if "=" not in argument and left and not left[0].startswith("--"):
            fields.append(left.pop(0))
    return fields, others


def changes_of(rest: Sequence[str]) -> dict[str, str | None]:
    """['--optim.lr', '1e-3', '--seed=1'] -> {'optim.lr': '1e-3', 'seed': '1'}; None where a value is missing."""
    changes: dict[str, str | None] = {}
    arguments = list(rest)
    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith("--"):
            raise ConvNeXtError(f"'{argument}' is not understood here. Paths come first, options start with --.")
        name, equals, value = argument.removeprefix("--").partition("=")
        missing = not equals and (not arguments or arguments[0].startswith("--"))
        changes[name.replace("-", "_")] = None if missing else value if equals else arguments.pop(0)
    return changes


def flags_of(args: argparse.Namespace) -> list[str]:
    """The options that a verb declares, for hints."""
    return [name.replace("_", "-") for name in vars(args) if name != "verb"]


def near_option(name: str, known: Iterable[str]) -> str:
    """' Did you mean '--x'?' for the option of `known` that is nearest, which are without their dashes; '' for none."""
    return nearest(name, known).replace("'", "'--", 1)


def refuse_more(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """For verbs without further options: refuse what is left, with the nearest that there is."""
    if rest:
        hint = near_option(rest[0].strip("-"), flags_of(args))
        raise ConvNeXtError(f"`convnext {args.verb}` does not know '{rest[0]}'.{hint}")


def refuse_of_other_tasks(args: argparse.Namespace, known: Mapping[str, Sequence[str]], task: str, what: str) -> None:
    """Refuse a given flag that says nothing for `task`; `known`: flag -> the tasks that know it.

    `what` is what decided the task, with its verb: "the data are".
    """
    for flag, tasks in known.items():
        value = getattr(args, flag)
        if value is not None and value is not False and task not in tasks:
            raise ConvNeXtError(
                f"--{flag.replace('_', '-')} is for {' and '.join(tasks)}; {what} for {task}. Leave it out."
            )


def count(text: str) -> int:
    """A whole number of things, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def device_flag(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")


def json_flag(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def promise_flags(parser: argparse._ArgumentGroup) -> None:
    """What `train` and `evaluate` share about answers that can be relied on."""
    text = "share of answers that shall be right, of several labels those of each class, e.g. 0.99: else `predict` is unsure"
    parser.add_argument("--promise", type=share, metavar="SHARE", help=text)
    text = "share of the sets of classes that shall hold the right one, e.g. 0.9: `predict` then gives a set for each image"
    parser.add_argument("--sets", type=share, metavar="SHARE", help=text)


def annotation_flags(parser: argparse._ArgumentGroup) -> None:
    """What `train` and `evaluate` share for images with boxes or masks."""
    parser.add_argument(
        "--images", metavar="DIR", help="folder or zip of the images, if not beside the annotations or the table"
    )
    forms = ("coco", "cvat", "voc", "labelme", "via", "supervisely", "datumaro", "objects", "yolo", "masks")
    parser.add_argument("--form", choices=forms, help="form of the annotations (detected)")
    text = "segmentation: file of the classes and their colours in the masks, as cat:255,0,0 (proposed if not there)"
    parser.add_argument("--colours", metavar="FILE", help=text)


def table_flags(parser: argparse.ArgumentParser, *, groups: bool = False) -> None:
    """Which columns of a table are meant. `groups`: where parts are drawn, also what keeps images in one of them."""
    table = parser.add_argument_group("a table of images in classes")
    text = "column of the classes (label, class, category, target, ...)"
    table.add_argument("--label-column", metavar="NAME", help=text)
    text = "column of the images' paths (path, file_name, image, ..., or whose cells name images)"
    table.add_argument("--path-column", metavar="NAME", help=text)
    if groups:
        text = "column of what images have in common, e.g. a patient: those of one stay in one part"
        table.add_argument("--group-column", metavar="NAME", help=text)


def columns_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those that are given, by the words of Python."""
    words = (f"{name}_column" for name in ("label", "path", "group"))
    return {word: name for word in words if (name := getattr(args, word, None)) is not None}


def bands_of(text: str) -> tuple[str, ...]:
    """What --bands names, as argparse wants it."""
    bands = tuple(name.strip() for name in text.split(","))
    if not all(bands) or len({name.isdecimal() for name in bands}) > 1:
        raise argparse.ArgumentTypeError(
            f"{text} is refused: it takes numbers of bands in a file, as 4,3,2,8, or what names of files end in, as "
            "B04,B03,B02"
        )
    return bands


def predictor_flags(parser: argparse.ArgumentParser) -> None:
    """What `evaluate` and `predict` share."""
    parser.add_argument("--weights", default="best", help=WEIGHTS)
    parser.add_argument(
        "--batch", type=count, help=f"classification: images per forward pass ({BATCH}, on a GPU as many as fit)"
    )
    parser.add_argument(
        "--workers", type=int, default=-1, help="how many read images side by side (chosen automatically)"
    )
    bands = "the bands of these images that are the run's channels, in its order (as the run has them)"
    parser.add_argument("--bands", type=bands_of, help=bands)
    device_flag(parser)
    json_flag(parser)
