"""The command reference: what `convnext VERB --help` knows, as a page."""

import argparse

from convnext.cli import VERBS
from convnext.cli.options import parser_of

_INTRO = """# Commands

`convnext VERB --help` prints the same in a terminal. Results go to stdout, all else to stderr. The exit status is 0 when it is
done, 2 when something is yours to mend (one line says what), 1 when the fault is ours, 130 when you stopped it.

Every field of a recipe is an option of `convnext train` as well: [recipes](recipes.md).
"""


def page() -> str:
    """One section a verb, with its form and a table of its arguments."""
    verbs = parser_of(VERBS).verbs
    return "\n".join([_INTRO, *(_verb(name, VERBS[name].HELP, parser) for name, parser in verbs.items())])


def _verb(name: str, says: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## convnext {name}", "", says, ""]
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS and each.dest != "help"]
        if not actions:
            continue
        title = (group.title or "").capitalize()
        if title not in ("Options", "Positional arguments"):
            lines += [f"**{title}**", ""]
        lines += ["| argument | meaning |", "|---|---|", *(_row(action) for action in actions), ""]
    return "\n".join(lines)


def _row(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    choices = f"; one of {', '.join(map(str, action.choices))}" if action.choices else ""
    value = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        form = f"`{value}`"
    elif action.nargs == 0:
        form = ", ".join(f"`{option}`" for option in action.option_strings)
    else:
        form = ", ".join(f"`{option} {value}`" for option in action.option_strings)
    return f"| {cell(form)} | {cell((action.help or '') + choices)} |"


def cell(text: str) -> str:
    """Text that keeps its table whole."""
    return text.replace("%%", "%").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
