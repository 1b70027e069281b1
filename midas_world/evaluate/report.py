"""The report: what sections found, as JSON and Markdown.

A section's result is plain data, so that the Markdown is a function of the JSON. Knows no world.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from midas_world.files import write_whole
from midas_world.tables import Cell, plain, table_lines
from midas_world.typed import read_values

JSON_NAME = "evaluation.json"
MARKDOWN_NAME = "evaluation.md"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a section; floats are shown with so many digits after the point."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    digits: int = 2


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one section found.

    Attributes:
        values: Its numbers by name; headline numbers are found here by `GOALS`.
        pictures: Names of PNG files in the output folder.
        status: "ok", "failed" or "skipped".
    """

    title: str
    method: str = ""
    values: Mapping[str, Any]
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[str] = ()
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the section as JSON holds it: no NaN, no NumPy."""
        return plain(asdict(self))


@dataclass(frozen=True)
class Goal:
    """A number to reach: at least, or at most where `beyond` is less; never above the limit."""

    name: str
    section: str
    value: str
    reach: float
    beyond: float
    limit: float
    unit: str
    digits: int

    def verdict(self, measured: float) -> str:
        """Return "beyond", "reached", "short" or "too much"."""
        if measured > self.limit:
            return "too much"
        sign = -1 if self.beyond < self.reach else 1
        if sign * measured >= sign * self.beyond:
            return "beyond"
        return "reached" if sign * measured >= sign * self.reach else "short"


def _load_goals() -> tuple[Goal, ...]:
    with Path(__file__).with_name("goals.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Goal(
                **{name: row[name] for name in ("name", "section", "value", "unit")},
                reach=float(row["reach"]),
                beyond=float(row["beyond"]),
                limit=float(row["limit"] or "inf"),
                digits=int(row["digits"]),
            )
            for row in csv.DictReader(file)
        )


GOALS = _load_goals()
"""The numbers to reach for the shipped world."""


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write evaluation.json and evaluation.md, each whole or not at all."""
    whole = {"format_version": FORMAT_VERSION, **plain(report)}
    files = {
        JSON_NAME: json.dumps(whole, indent=1, allow_nan=False) + "\n",
        MARKDOWN_NAME: to_markdown(whole),
    }
    for name, text in files.items():
        write_whole(folder / name, text)


def read_report(folder: Path) -> dict[str, Any] | None:
    """Return the report in a folder, or None if there is none that can be read."""
    try:
        report = read_values(folder / JSON_NAME)
    except ValueError:
        return None
    return report if report.get("format_version") == FORMAT_VERSION else None


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown."""
    sections = report["sections"]
    lines = [f"# Evaluation of {report['subject'].get('world', 'a world')}", ""]
    words = {k: v for k, v in report["subject"].items() if isinstance(v, str)}
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in words.items()]
    rows = [row for goal in GOALS if (row := _goal_row(goal, sections)) is not None]
    columns = ("what", "measured", "reach", "beyond", "")
    lines += ["", *table_lines(columns, rows, digits=2)]
    for section in sections.values():
        lines += ["", f"## {section['title']}", ""]
        if section["status"] != "ok":
            lines += [f"**{section['status']}**: {section['reason']}"]
            continue
        lines += [section["method"]]
        for item in section["tables"]:
            lines += ["", *([f"**{item['title']}**", ""] if item["title"] else [])]
            lines += table_lines(item["columns"], item["rows"], digits=item["digits"])
        lines += ["", *(f"- {note}" for note in section["notes"])] if section["notes"] else []
        lines += [f"\n![{name}]({name})" for name in section["pictures"]]
        lines += ["", f"*{section['seconds']:.0f} s*"]
    return "\n".join(lines) + "\n"


def _goal_row(goal: Goal, sections: Mapping[str, Any]) -> tuple[Cell, ...] | None:
    """Return a line of the headline table; None if the section was not asked for, or is skipped."""
    section = sections.get(goal.section)
    if section is None or section["status"] == "skipped":
        return None
    measured = section["values"].get(goal.value)
    shown = [_number(value, goal.digits, goal.unit) for value in (goal.reach, goal.beyond)]
    if measured is None:
        status = "not measured" if section["status"] == "ok" else section["status"]
        return goal.name, "-", *shown, status
    verdict = goal.verdict(measured)
    return goal.name, _number(measured, goal.digits, goal.unit), *shown, verdict


def _number(value: float, digits: int, unit: str) -> str:
    return f"{value:.{digits}f} {unit}".rstrip()
