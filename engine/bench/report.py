"""The benchmark's report: bench.json, and bench.md as a function of it. Measures nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midas_world.files import write_whole
from midas_world.tables import Cell, plain, table_lines

JSON_NAME = "bench.json"
MARKDOWN_NAME = "bench.md"
FORMAT_VERSION = 3


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write bench.json and bench.md, each whole or not at all."""
    report = plain(report)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_whole(folder / JSON_NAME, text.encode())
    write_whole(folder / MARKDOWN_NAME, to_markdown(report).encode())


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return a report, as JSON holds it, as Markdown."""
    subject = report["subject"]
    lines = [f"# Benchmark of {subject['name']}", ""]
    lines += [
        f"- weights: {subject['weights']}",
        f"- picture: {subject['resolution']}, {subject['tokens_per_frame']} tokens a frame, "
        f"context of {subject['context_frames']} frames",
        f"- parameters: {subject['num_parameters'] / 1e6:.1f} million ("
        + ", ".join(f"{k} {v / 1e6:.1f}" for k, v in subject["part_parameters"].items())
        + ")",
        *(f"- {name}: {value}" for name, value in report["machine"].items()),
    ]
    for result in report["results"]:
        lines += ["", *_result_lines(result)]
    return "\n".join(lines) + "\n"


def _result_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [f"## {result['title']}", ""]
    if result["status"] == "unavailable":
        return [*lines, f"**Not measured**: {result['reason']}"]
    lines += [f"{result['conditions']}.", ""]
    lines += [f"**Parts of a step, {_games(result['part_batch_size'])}**", ""]
    lines += table_lines(
        ("part", "median ms", "p99 ms"),
        [
            (row["part"], row["time"].get("median_ms"), row["time"].get("p99_ms"))
            for row in result["parts"]
        ],
        digits=3,
    )
    lines += ["", "**Whole steps (a step and its frames) against games at once**", ""]
    lines += table_lines(
        (
            "games",
            "median ms",
            "p99 ms",
            "frames/s",
            "peak memory MiB",
            "GPU peak MiB",
        ),
        [_batch_row(row) for row in result["batches"]],
        digits=2,
    )
    if quality := result["quality"]:
        lines += ["", *_quality_lines(quality)]
    return lines


def _quality_lines(quality: Mapping[str, Any]) -> list[str]:
    """Return the table of how close frames are to float32 torch's, and what that means."""
    lines = ["**Frames against those of float32 torch**", ""]
    if quality["reason"]:
        return [*lines, f"Not measured: {quality['reason']}"]
    last = quality["num_steps"]
    rows = {
        "decoder: frames of equal latents": quality["decoder"],
        f"rollout: mean of steps 1 to {last}": quality["rollout"],
        f"rollout: step {last}": quality["last_step"],
    }
    lines += table_lines(
        ("compared", "PSNR dB", "frames", "equal"),
        [
            (
                name,
                "equal" if row["psnr_db"] is None else row["psnr_db"],
                str(row["num_frames"]),
                str(row["num_equal"]),
            )
            for name, row in rows.items()
        ],
        digits=1,
    )
    games = _plural(quality["num_games"], "start state")
    return [
        *lines,
        "",
        f"The decoder's number is what rounding does to one picture, the rollout's what it adds up "
        f"to when the engine plays on from its own frames: higher is closer to "
        f"{quality['reference']}, from {games}, with the same noise and the same drawn "
        "conditions. Equal frames are left out of means.",
    ]


def _batch_row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    time = row["time"] or {}
    return (
        str(row["batch_size"]),
        time.get("median_ms") if row["time"] else row["reason"],
        time.get("p99_ms"),
        row["frames_per_s"],
        row["peak_mib"],
        row["gpu_peak_mib"],
    )


def _games(number: int) -> str:
    return f"{number} game" if number == 1 else f"{number} games at once"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
