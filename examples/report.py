"""The table and the picture of the runs of train_ppo.py.

The yardstick: a policy's gain is its return in the teacher less the random policy's; what the dream
is worth is the share of the teacher-trained policy's gain that the dream-trained one keeps.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Runs = Mapping[str, Sequence[Mapping[str, Any]]]

_LABELS = {
    "random": "random",
    "blind": "always leaps right, looks at nothing",
    "expert": "scripted expert, told where things lie",
    "teacher": "PPO trained in the teacher",
    "dream": "PPO trained in the dream",
}
_COLORS = {"teacher": "tab:blue", "dream": "tab:orange"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one policy is worth, over its seeds.

    Attributes:
        returns: Mean return in the teacher, one per seed.
        hits: Mean number of hits of an episode in the teacher.
        survived: Share of episodes in the teacher that no lost heart ended.
        dream_returns: Mean return that the world gives it, one per seed; empty if not played there.
        dream_survived: As `survived`, in the world; None if not played there.
        share: Gain as a share of the teacher-trained policy's; None if that has no gain.
    """

    policy: str
    returns: tuple[float, ...]
    hits: float
    survived: float
    dream_returns: tuple[float, ...]
    dream_survived: float | None
    gain: float
    share: float | None


def make_rows(runs: Runs, dreams: Runs) -> list[Row]:
    """Return one row per policy.

    Args:
        runs: Runs of each policy, one per seed; the last point of each counts. "random" must be
            there, "teacher" is what shares are of.
        dreams: The same policies' runs in the world.

    Raises:
        ValueError: There are no runs of the random policy.
    """
    if not runs.get("random"):
        raise ValueError("runs must have some of the random policy, from which gains count")
    returns = {policy: _last_returns(seeds) for policy, seeds in runs.items()}
    floor = np.mean(returns["random"])
    gains = {policy: float(np.mean(values) - floor) for policy, values in returns.items()}
    full = gains.get("teacher", 0.0)
    return [
        Row(
            policy=policy,
            returns=returns[policy],
            hits=float(np.mean([np.mean(run["points"][-1]["costs"]) for run in seeds])),
            survived=_survived(seeds),
            dream_returns=_last_returns(dreams.get(policy, ())),
            dream_survived=_survived(dreams[policy]) if policy in dreams else None,
            gain=gains[policy],
            share=gains[policy] / full if full > 0.0 else None,
        )
        for policy, seeds in runs.items()
    ]


def make_table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table; `±` is the standard deviation over seeds."""
    lines = [
        "| policy | return in the teacher | hits | survived | gain over random | share of the "
        "teacher-trained gain | return in the dream |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = "-" if row.share is None else f"{row.share:.0%}"
        cells = (
            _LABELS.get(row.policy, row.policy),
            _spread(row.returns),
            f"{row.hits:.1f}",
            f"{row.survived:.0%}",
            f"{row.gain:+.2f}",
            share,
            _spread(row.dream_returns),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """Return in words what the dream is worth, and whether its policy exploits the world's holes.

    The world's returns are compared with the teacher's for the policy that trained in the world
    and for the random one: a policy that lives from holes is overrated far more than chance is.
    """
    found = {row.policy: row for row in rows}
    if "dream" not in found:
        return "No policy was trained in the dream."
    dream, random = found["dream"], found["random"]
    lines = []
    if dream.share is not None:
        lines.append(f"The dream-trained policy keeps {dream.share:.0%} of the gain (aim: 80 %).")
    for row in (dream, random):
        if row.dream_returns and row.dream_survived is not None:
            said, true = np.mean(row.dream_returns), np.mean(row.returns)
            lines.append(
                f"The world gives the {row.policy} policy {said:.2f}, the teacher {true:.2f}: "
                f"{said - true:+.2f}; it survives {row.dream_survived:.0%} of episodes there, "
                f"{row.survived:.0%} in the teacher."
            )
    return "\n".join(lines)


def draw_curves(runs: Runs, file: Path) -> None:
    """Draw returns in the teacher against training steps: mean and spread over seeds, as PNG."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for policy, seeds in runs.items():
        if policy in _COLORS:
            steps = np.array([point["steps"] for point in seeds[0]["points"]]) / 1000.0
            curves = np.array(
                [[np.mean(point["returns"]) for point in run["points"]] for run in seeds]
            )
            mean, spread = curves.mean(axis=0), _deviation(curves)
            axes.plot(steps, mean, color=_COLORS[policy], label=_LABELS[policy])
            axes.fill_between(
                steps, mean - spread, mean + spread, color=_COLORS[policy], alpha=0.2, lw=0
            )
        else:
            level = float(np.mean(_last_returns(seeds)))
            style = {"random": ":", "blind": "-.", "expert": "--"}.get(policy, "-")
            axes.axhline(level, color="0.4", ls=style, lw=1.2, label=_LABELS.get(policy, policy))
    axes.set(xlabel="training steps (thousands)", ylabel="return in the teacher")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=130)


def report(folder: Path, runs: Runs, dreams: Runs) -> str:
    """Write results.json, table.md and curves.png into a folder; return the table and verdict."""
    rows = make_rows(runs, dreams)
    text = f"{make_table(rows)}\n\n{verdict(rows)}\n"
    results = json.dumps({"runs": runs, "dreams": dreams}, indent=1)
    (folder / "results.json").write_text(results, encoding="utf-8")
    (folder / "table.md").write_text(text, encoding="utf-8")
    draw_curves(runs, folder / "curves.png")
    return text


def _last_returns(seeds: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(float(np.mean(run["points"][-1]["returns"])) for run in seeds)


def _survived(seeds: Sequence[Mapping[str, Any]]) -> float:
    return 1.0 - float(np.mean([np.mean(run["points"][-1]["ended"]) for run in seeds]))


def _deviation(values: np.ndarray) -> np.ndarray:
    """Return the sample standard deviation over the first axis; 0 of a single seed."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.2f} ± {float(_deviation(np.array(values))):.2f}"
