"""Plots of the report, as PNG files and without pyplot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def save_curves(
    path: Path,
    series: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Write curves as a PNG; a name that ends in "(baseline)" is drawn thin and dashed."""
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in series.items():
        is_baseline = name.endswith("(baseline)")
        axes.plot(
            np.asarray(x),
            np.asarray(y),
            label=name,
            linewidth=1.2 if is_baseline else 2.0,
            linestyle="--" if is_baseline else "-",
        )
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
