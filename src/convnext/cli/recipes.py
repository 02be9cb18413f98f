"""`convnext recipes`."""

import argparse
from typing import Any

from convnext.cli.options import count, json_flag, refuse_more
from convnext.cli.printing import show
from convnext.config import Recipe
from convnext.errors import ConvNeXtError, number_of
from convnext.files import to_json
from convnext.recipes import FITTED
from convnext.recipes.listing import ASSUMED, recipe_fields, recipes, shown_recipe

HELP = "List the recipes, or every field of one with its value, its unit and its meaning."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="recipe to print (all are listed without it)")
    parser.add_argument("--model", help="network, as `convnext models` lists them (tiny; atto for a fitted recipe)")
    images = f"training images of the data that a fitted recipe is for ({ASSUMED['images']})"
    parser.add_argument("--images", type=count, help=images)
    parser.add_argument("--size", type=count, help=f"side of these images in pixels ({ASSUMED['image_px']})")
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the list, or the fields."""
    refuse_more(args, rest)
    if args.name is None:
        given = next((flag for flag in ("model", "images", "size") if getattr(args, flag) is not None), None)
        if given:
            raise ConvNeXtError(f"--{given} is for one recipe. Name it: convnext recipes small --{given} ...")
        show(to_json(recipes()) if args.json else _listed(recipes()))
        return 0
    chosen = shown_recipe(args.name, args.model, images=args.images, image_px=args.size)
    rows = recipe_fields(chosen)
    show(to_json(rows) if args.json else _printed(args, chosen, rows))
    return 0


def _listed(rows: list[dict[str, Any]]) -> str:
    """The recipes, task by task."""
    lines: list[str] = []
    before = None
    for row in rows:
        if row["task"] != before:
            lines += [*([""] if lines else []), f"{row['task']}:"]
        before = row["task"]
        mark = " (default)" if row["default"] else ""
        lines.append(f"  {row['name']:<24} {row['meaning']}{mark}")
    return "\n".join([*lines, "", "`convnext recipes NAME` prints the fields of one."])


def _printed(args: argparse.Namespace, chosen: Recipe, rows: list[dict[str, Any]]) -> str:
    """One line a field; the data that a fitted recipe assumes come first."""
    head = f"{chosen.name} for {chosen.model.name}: {chosen.source}"
    if chosen.name in FITTED[chosen.task]:
        images, px = args.images or ASSUMED["images"], args.size or ASSUMED["image_px"]
        head += (
            f"\nData assumed: {number_of(images, 'training image')} of {px} px in {ASSUMED['classes']} classes "
            "(--images, --size)."
        )
    cells = [(row["field"], _value(row["value"]), row["unit"], row["meaning"]) for row in rows]
    widths = [max(len(cell[i]) for cell in cells) for i in range(3)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(cell, widths, strict=False)), cell[3]]) for cell in cells]
    return "\n".join([head, "", *lines])


def _value(value: Any) -> str:
    """A value as an option takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else to_json(value)
