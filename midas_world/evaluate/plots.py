"""Plots of the report, as PNG files and without pyplot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from midas_world.evaluate.calibration import NUM_BINS, Reliability, wilson_interval

_WIDTH, _HEIGHT = 8.0, 4.5


def save_curves(
    path: Path,
    series: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Write curves as a PNG; a name that ends in "(baseline)" is drawn thin and dashed.

    Args:
        path: The file.
        series: x and y of each curve, by its name.
        title: Of the plot.
        x_label: Of the x axis.
        y_label: Of the y axis.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
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
    _save(figure, path)


def save_reliability(path: Path, diagrams: Mapping[str, Reliability], *, title: str) -> None:
    """Write reliability diagrams beside each other as a PNG.

    Points are a bin's mean probability and the share that happened, with its 95 % Wilson interval;
    bars below count the predictions, on a logarithmic scale.

    Args:
        path: The file.
        diagrams: What was found, by the name of the event.
        title: Of the plot.
    """
    figure = Figure(figsize=(_WIDTH, 5.0), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(2, len(diagrams), squeeze=False, sharex=True, height_ratios=(3, 1)).T
    for (upper, lower), (name, found) in zip(columns, diagrams.items(), strict=True):
        _draw_reliability(upper, found)
        upper.set(title=name, ylabel="share that happened", xlim=(0, 1), ylim=(0, 1))
        centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
        lower.bar(centres, found.counts, width=0.9 / NUM_BINS, color="tab:gray")
        lower.set(yscale="symlog", ylim=(0, None), xlabel="predicted probability", ylabel="steps")
    _save(figure, path)


def _draw_reliability(axes: Axes, found: Reliability) -> None:
    filled = np.flatnonzero(found.counts)
    axes.plot((0, 1), (0, 1), linestyle="--", linewidth=1.2, color="tab:gray")
    axes.grid(visible=True, alpha=0.3)
    if not len(filled):
        return
    x, y = found.predicted[filled], found.observed[filled]
    limits = np.array(
        [wilson_interval(int(found.hits[place]), int(found.counts[place])) for place in filled]
    )
    errors = np.clip(np.stack((y - limits[:, 0], limits[:, 1] - y)), 0.0, None)
    axes.errorbar(x, y, yerr=errors, marker="o", linestyle="-", capsize=3)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
