"""Every recipe with every field: value, unit, meaning and source, from the configuration itself."""

from typing import Any

from commands import cell
from convnext.cli.recipes import _value as shown
from convnext.recipes.listing import recipe_fields, recipes, shown_recipe

_INTRO = """# Recipes

A recipe is a frozen value: all that decides a run but the data. `convnext recipes NAME` prints one, each field is an
option of `convnext train`, and the run keeps the whole in `recipe.json`. *Published* recipes have the values of their
paper. *Fitted* ones follow your data; here they are shown for the data that `convnext recipes` assumes.

A wrong option is explained:

```text
$ convnext train pets --optim.lrr 1e-3
convnext: No option or recipe field is called '--optim.lrr'. Did you mean '--optim.lr'?
```

Fields that a recipe does not name have the value of its task's first table.
"""


def page() -> str:
    """A list of all recipes; for each task one table of all fields, then what each recipe sets otherwise."""
    lines = [_INTRO, "| recipe | task | |", "|---|---|---|"]
    for row in recipes():
        mark = " **(default)**" if row["default"] else ""
        kind = "fitted" if row["fitted"] else "published"
        link = f"[`{row['name']}`](#{row['name']})"
        lines.append(f"| {link} | {row['task']}, {kind} | {cell(row['meaning'])}{mark} |")
    for task in dict.fromkeys(row["task"] for row in recipes()):
        named = [row["name"] for row in recipes() if row["task"] == task]
        lines += ["", f"## {task.capitalize()}", ""]
        first = {row["field"]: row for row in recipe_fields(shown_recipe(named[0]))}
        for name in named:
            lines += _recipe(name, None if name == named[0] else first)
    return "\n".join(lines) + "\n"


def _recipe(name: str, first: dict[str, Any] | None) -> list[str]:
    chosen = shown_recipe(name)
    rows = recipe_fields(chosen)
    if first is not None:
        rows = [row for row in rows if row["field"] not in first or row["value"] != first[row["field"]]["value"]]
    lines = ["", f"### {name}", "", f"{cell(chosen.source)} Shown for `{chosen.model.name}`.", ""]
    if first is not None:
        lines += ["What differs:", ""]
    lines += ["| field | value | unit | meaning |", "|---|---|---|---|"]
    return lines + [
        f"| `{row['field']}` | {cell(shown(row['value']))} | {cell(row['unit'])} | {cell(row['meaning'])} |"
        for row in rows
    ]
