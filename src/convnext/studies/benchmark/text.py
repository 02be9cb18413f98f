"""The rows of a benchmark for a terminal: a table for each batch, and what the machine did beside them."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from convnext.drawing.numbers import NOTHING
from convnext.reports.columns import table

_HEAD = ("img/s", "of it", "lowest", "highest", "ms", "p90", "p99", "MB", "of GEMM", "of FMA", "of copy")


def tables(rows: Sequence[dict[str, Any]], console: Console | None = None) -> str:
    """A table for each batch, fastest first; with a `console`, in colour and printed there, and '' is returned."""
    parts = []
    for batch in batches_of(rows):
        head = ["contender", _HEAD[0], f"of {rows_of(rows, batch)[0]['reference']}", *_HEAD[2:]]
        cells = [(row["origin"], _cells(row)) for row in rows_of(rows, batch)]
        if console is None:
            parts.append(f"Batch {batch}\n" + table(head, [line for _, line in cells]))
            continue
        drawn = Table(title=f"Batch {batch}", title_justify="left", title_style="bold", box=None, pad_edge=False)
        for i, name in enumerate(head):
            drawn.add_column(name, justify="right" if i else "left", no_wrap=True)
        for origin, line in cells:
            drawn.add_row(*line, style="bold cyan" if origin == "ours" else "dim" if origin == "other" else None)
        console.print(drawn)
        console.print()
    return "\n\n".join(parts)


def limits_text(machine: dict[str, Any]) -> str:
    """What the machine did beside them, in one line."""
    gemm = ", ".join(f"{rate:,.0f} GFLOP/s at batch {batch}" for batch, rate in machine["gemm_gflops"].items())
    added = f"; multiply-adds {machine['fma_gflops']:,.0f} GFLOP/s" if machine["fma_gflops"] else ""
    copied = f"copying {machine['copy_gb_s']:.1f} GB/s" if machine["copy_gb_s"] else "copying not measured"
    return f"This machine: matmuls of these shapes {gemm or 'not measured'}{added}; {copied} (read and written)."


def _cells(row: dict[str, Any]) -> list[str]:
    shares = [f"{row[name]:.0%}" if row[name] else NOTHING for name in ("gemm_share", "fma_share", "copy_share")]
    ratios = [f"{row[name]:.2f}" for name in ("ratio", "ratio_low", "ratio_high")]
    times = [f"{row[name]:.1f}" for name in ("latency_ms", "latency_p90_ms", "latency_p99_ms")]
    return [row["name"], rate(row["images_per_s"]), *ratios, *times, f"{row['peak_mb']:,.0f}", *shares]


def rows_of(rows: Sequence[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """The contenders of one batch, fastest first."""
    here = [row for row in rows if row["kind"] == "contender" and row["batch"] == batch]
    return sorted(here, key=lambda row: -row["images_per_s"])


def batches_of(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The batches that were measured, smallest first."""
    return sorted({row["batch"] for row in rows if row["kind"] == "contender"})


def rate(value: float) -> str:
    """'1,234', '43.9' or '4.39'."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
