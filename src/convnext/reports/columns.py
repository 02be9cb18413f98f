"""Columns of plain text, for a terminal or a log. Without NumPy: lists of names and tables of the paper are printed at once."""

from collections.abc import Sequence

from convnext.errors import on_one_line


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads: the first to the left, the others to the right; each cell on its line, whatever name it is."""
    head, rows = [*map(on_one_line, head)], [[*map(on_one_line, row)] for row in rows]
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(head), *(line(row) for row in rows)])
