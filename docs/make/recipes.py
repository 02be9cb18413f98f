"""Every recipe with every field: value, unit, meaning and source, from the configuration itself."""

from pathlib import Path
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

Each recipe has a page of its own. The first of a task has all fields there, the others what differs from it.
"""


def page(out: Path) -> str:
    """The list of all recipes; a page of each goes into the folder `out`/recipes."""
    (out / "recipes").mkdir()
    lines = [_INTRO, "| recipe | |", "|---|---|"]
    for row in recipes():
        mark = " **(default)**" if row["default"] else ""
        kind = "fitted" if row["fitted"] else "published"
        lines.append(f"| {_link(row['name'])}<br>{row['task']}, {kind} | {cell(row['meaning'])}{mark} |")
    for task in dict.fromkeys(row["task"] for row in recipes()):
        first, *others = (row["name"] for row in recipes() if row["task"] == task)
        lines += ["", f"## {task.capitalize()}", ""]
        for name in (first, *others):
            fields = _fields(name, first)
            number = (
                f"All {len(fields)} fields" if name == first else f"{len(fields)} fields that differ from `{first}`"
            )
            lines += [f"### {name}", "", f"{_source(name)} {number}: {_link(name)}.", ""]
            (out / "recipes" / f"{name}.md").write_text(_page(name, first, fields), "utf-8")
    return "\n".join(lines) + "\n"


def _source(name: str) -> str:
    """Where its values come from, as a sentence."""
    return f"Source of the values: {cell(shown_recipe(name).source)}."


def _link(name: str) -> str:
    return f"[`{name}`](recipes/{name}.md)"


def _fields(name: str, first: str) -> list[dict[str, Any]]:
    """The fields of a recipe that are not as in the `first` of its task; of that one all."""
    rows = recipe_fields(shown_recipe(name))
    if name == first:
        return rows
    known = {row["field"]: row["value"] for row in recipe_fields(shown_recipe(first))}
    return [row for row in rows if row["field"] not in known or row["value"] != known[row["field"]]]


def _page(name: str, first: str, rows: list[dict[str, Any]]) -> str:
    """One recipe, a table for each of its parts, of two columns: a telephone has no room for more."""
    chosen = shown_recipe(name)
    lines = [
        f"# {name}",
        "",
        f"{_source(name)} Shown for `{chosen.model.name}`; one of the [recipes](../recipes.md).",
        "",
    ]
    if name != first:
        lines += [f"What differs from [`{first}`]({first}.md):", ""]
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        part, dot, _ = row["field"].partition(".")
        parts.setdefault(part if dot else "", []).append(row)
    for part, found in parts.items():
        lines += [f"## {part}", ""] if part else []
        lines += ["| field and value | meaning |", "|---|---|"]
        lines += [
            f"| `{row['field']}`<br>**{cell(shown(row['value']))}** | {cell(row['meaning'])} ({cell(row['unit'])}) |"
            for row in found
        ]
        lines.append("")
    return "\n".join(lines)
