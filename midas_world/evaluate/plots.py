"""Plots of the report, as PNG files and without pyplot."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def save_curves(path: Path, series: Mapping[str, np.ndarray], *, title: str, y_label: str) -> None:
    """Write curves over steps from 1 as a PNG; names that end in "(baseline)" are dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in series.items():
        is_baseline = name.endswith("(baseline)")
        axes.plot(
            np.arange(1, len(curve) + 1),
            curve,
            label=name,
            linewidth=1.2 if is_baseline else 2.0,
            linestyle="--" if is_baseline else "-",
        )
    axes.set(title=title, xlabel="step", ylabel=y_label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
