"""The paper's tables beside what this code counts and what a person's own runs measured (`convnext paper`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext.errors import ConvNeXtError, number_of
from convnext.recipes.baselines import plain_name
from convnext.reports.columns import table as columns_of_text
from convnext.reports.run_files import read_run
from convnext.studies.paper.published import Column, Row, Table, tables

COUNTED = {  # the columns that this code can count: (what, its unit)
    "params_m": ("params", 1e6),
    "gmacs": ("macs", 1e9),
    "detector_gflops": ("macs", 1e9),
    "segmenter_params_m": ("params", 1e6),
    "segmenter_gflops": ("macs", 1e9),
}


def compare(table: Table, runs: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """Each row of `table`: what is printed, what is counted here at its resolution, and what `runs` measured.

    A row is {'label', 'model', 'trained_on', 'size_px', 'printed': {key: value}, 'counted': {'params', 'macs'} or None,
    'agrees': {key: bool}, 'doubts': {key: {'instead', 'why'}}, 'measured': [{'run', 'top1', 'n', 'size_px', 'classes'}]}.
    A run belongs to the rows of its network whose resolution is nearest to its own, in tables of top-1 accuracies.
    Raises ConvNeXtError for a folder that is no finished run.
    """
    found = [_read(Path(run)) for run in runs]
    rows = []
    for row in table.rows:
        sizes = row.counted()
        counted = None if sizes is None else {"params": sizes[0], "macs": sizes[1]}
        same = [run for run in found if "top1" in row.values and row.model == run["model"]]
        near = [run for run in same if row.size_px == _nearest_px(table, run)]
        rows.append(
            {
                "label": row.label,
                "model": row.model,
                "trained_on": row.trained_on,
                "size_px": row.size_px,
                "printed": row.values,
                "counted": counted,
                "agrees": {} if counted is None else _agreement(table, row, counted),
                "doubts": {key: {"instead": d.instead, "why": d.why} for key, d in row.doubts.items()},
                "measured": [{key: value for key, value in run.items() if key != "model"} for run in near],
            }
        )
    return rows


def as_json(table: Table, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`compare`'s rows with what is needed to read them."""
    columns = [{"key": column.key, "head": column.head, "digits": column.digits} for column in table.columns]
    return {"table": table.name, "title": table.title, "source": table.source, "columns": columns, "rows": list(rows)}


def comparison_text(table: Table, rows: Sequence[dict[str, Any]]) -> str:
    """The table for a terminal; '?' marks a doubtful cell, and the doubts stand below."""
    data = any(row["trained_on"] for row in rows) and table.name not in ("10", "11")
    size = any(row["size_px"] for row in rows)
    counted = [column for column in table.columns if column.key in COUNTED and any(row["counted"] for row in rows)]
    measured = any(row["measured"] for row in rows)
    head = ["network", *["trained on"] * data, *["px"] * size, *(column.head for column in table.columns)]
    head += [f"{column.head} here" for column in counted] + ["your top-1"] * measured
    lines = []
    for row in rows:
        line = [row["label"], *[row["trained_on"] or ""] * data, *[str(row["size_px"] or "")] * size]
        line += [_cell(row, column) for column in table.columns]
        line += [_counted_cell(row, column) for column in counted]
        lines.append(line + [_measured_cell(row["measured"])] * measured)
    parts = [f"Table {table.name}: {table.title}. {table.source}", columns_of_text(head, lines)]
    doubts = [_footnote(row, column) for row in rows for column in table.columns if column.key in row["doubts"]]
    return "\n\n".join([*parts, "\n".join(doubts)] if doubts else parts)


def without_a_row(runs: Sequence[str | Path], rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each of `runs` that none of `rows`, as `compare` gives them, could take in."""
    placed = {run["run"] for row in rows for run in row["measured"]}
    return [
        f"'{run}' stands beside no row: no table asked for gives the top-1 accuracy of its network."
        for run in map(str, runs)
        if run not in placed
    ]


def tables_text() -> str:
    """Which tables there are."""
    rows = [[f"{name}", table.title, number_of(len(table.rows), "row")] for name, table in tables().items()]
    wide = max(len(title) for _, title, _ in rows)
    lines = [f"{name:>3}  {title:<{wide}}  {count:>7}" for name, title, count in rows]
    return "\n".join([*lines, "", "`convnext paper 1` prints one of them beside what this code counts."])


def _agreement(table: Table, row: Row, counted: dict[str, int]) -> dict[str, bool]:
    """Whether what is counted rounds to what is printed."""
    return {
        column.key: round(_in_units(counted, column), column.digits) == row.values[column.key]
        for column in table.columns
        if column.key in COUNTED and row.values[column.key] is not None
    }


def _read(run: Path) -> dict[str, Any]:
    """What a finished run measured, and on which network."""
    files = read_run(run)
    if files.recipe is None or files.evaluation is None:
        missing = "recipe.json" if files.recipe is None else "evaluation.json"
        raise ConvNeXtError(
            f"'{run}' is no finished run: {files.notes.get(missing, missing)} Give a folder of `train`."
        )
    try:
        return {
            "model": plain_name(str(files.recipe["model"]["name"])),
            "run": str(run),
            "top1": float(files.evaluation["top1"]),
            "n": int(files.evaluation["n"]),
            "size_px": int(files.recipe["input"]["eval_size_px"]),
            "classes": len(files.evaluation["classes"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ConvNeXtError(f"'{run}' holds another form of recipe.json or evaluation.json: {error!r}.") from None


def _nearest_px(table: Table, run: dict[str, Any]) -> int | None:
    sizes = {row.size_px for row in table.rows if row.model == run["model"] and row.size_px is not None}
    return min(sizes, key=lambda size: (abs(size - run["size_px"]), size), default=None)


def _cell(row: dict[str, Any], column: Column) -> str:
    value = row["printed"][column.key]
    if value is None:
        return "–"
    text = value if isinstance(value, str) else f"{value:.{column.digits}f}"
    return text + "?" if column.key in row["doubts"] else text


def _counted_cell(row: dict[str, Any], column: Column) -> str:
    if row["counted"] is None:
        return "–"
    return f"{_in_units(row['counted'], column):.{column.digits + 2}f}"


def _in_units(counted: dict[str, int], column: Column) -> float:
    what, unit = COUNTED[column.key]
    return counted[what] / unit


def _measured_cell(runs: Sequence[dict[str, Any]]) -> str:
    """The mean over runs, and their number where it is more than one."""
    if not runs:
        return ""
    mean = sum(run["top1"] for run in runs) / len(runs)
    return f"{mean:.2%}" + (f" ({number_of(len(runs), 'run')})" if len(runs) > 1 else "")


def _footnote(row: dict[str, Any], column: Column) -> str:
    doubt = row["doubts"][column.key]
    parts = (row["label"], row["printed"].get("detector"), row["trained_on"], row["size_px"])
    place = " ".join(str(part) for part in parts if part)
    printed = f"{row['printed'][column.key]:.{column.digits}f}"
    counted = f", {doubt['instead']:.{column.digits}f} counted here" if column.key in COUNTED else ""
    return f"? {place}, {column.head}: printed {printed}{counted}; {doubt['why']}"
