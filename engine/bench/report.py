"""The benchmark's report: bench.json, and bench.md as a function of it. Measures nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midas_world.files import write_whole
from midas_world.tables import plain, table_lines

JSON_NAME = "bench.json"
MARKDOWN_NAME = "bench.md"
FORMAT_VERSION = 4


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write bench.json and bench.md, each whole or not at all."""
    report = plain(report)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_whole(folder / JSON_NAME, text.encode())
    write_whole(folder / MARKDOWN_NAME, to_markdown(report).encode())


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return a report, as JSON holds it, as Markdown."""
    subject = report["subject"]
    counts = ", ".join(f"{name} {n / 1e6:.1f}" for name, n in subject["part_parameters"].items())
    lines = [
        f"# Benchmark of {subject['name']}",
        "",
        f"- weights: {subject['weights']}",
        f"- picture: {subject['resolution']}, {subject['tokens_per_frame']} tokens a frame, "
        f"context of {subject['context_frames']} frames",
        f"- parameters: {subject['num_parameters'] / 1e6:.1f} million ({counts})",
        *(f"- {name}: {value}" for name, value in report["machine"].items()),
    ]
    for result in report["results"]:
        lines += ["", f"## {result['title']}", "", *_result_lines(result)]
    return "\n".join(lines) + "\n"


def _result_lines(result: Mapping[str, Any]) -> list[str]:
    if result["status"] == "unavailable":
        return [f"**Not measured**: {result['reason']}"]
    count = result["part_batch_size"]
    games = f"{count} game" if count == 1 else f"{count} games at once"
    lines = [f"{result['conditions']}.", "", f"**Parts of a step, {games}**", ""]
    parts = [(row["part"], row["median_ms"], row["p99_ms"]) for row in result["parts"]]
    lines += table_lines(("part", "median ms", "p99 ms"), parts, digits=3)
    lines += ["", "**Whole steps (a step and its frames) against games at once**", ""]
    keys = ("p99_ms", "frames_per_s", "peak_mib", "gpu_peak_mib")
    lines += table_lines(
        ("games", "median ms", "p99 ms", "frames/s", "peak memory MiB", "GPU peak MiB"),
        [
            (row["batch_size"], row["median_ms"] or row["reason"], *(row[key] for key in keys))
            for row in result["batches"]
        ],
        digits=2,
    )
    if quality := result["quality"]:
        lines += ["", "**Frames against those of float32 torch**", "", *_quality_lines(quality)]
    return lines


def _quality_lines(quality: Mapping[str, Any]) -> list[str]:
    """Return the table of how close frames are to float32 torch's, and what that means."""
    if quality["reason"]:
        return [f"Not measured: {quality['reason']}"]
    last = quality["num_steps"]
    rows = [
        ("decoder: frames of equal latents", quality["decoder"]),
        (f"rollout: mean of steps 1 to {last}", quality["rollout"]),
        (f"rollout: step {last}", quality["last_step"]),
    ]
    return [
        *table_lines(("compared", "PSNR dB"), rows, digits=1),
        "",
        "The decoder's number is what rounding does to one picture, the rollout's what it adds up "
        "to when the engine plays on from its own frames: higher is closer to "
        f"{quality['reference']}, over {quality['num_games']} start states, with the same noise "
        "and conditions. Equal frames count as 106 dB.",
    ]
