"""What reports are made of: values as JSON has them, and tables as Markdown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Cell = str | int | float | None


def plain(value: Any) -> Any:
    """Return a value as JSON has it; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, digits: int
) -> list[str]:
    """Return a table's lines; floats are shown with so many digits after the point."""

    def shown(cell: Cell) -> str:
        if cell is None:
            return "-"
        return f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)

    lines = [columns, ["---"] * len(columns), *([shown(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]
