"""The GPU script: every command it runs is one that there is."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from engine.bench import command as bench
from engine.build import _parser as build_parser
from midas_world.config import load_preset

SCRIPT = Path(__file__).parents[1] / "examples" / "gpu.sh"


def run_script(folder: Path, *words: str, fails: str = "nothing", **variables: str) -> list[str]:
    """Run the script with a stand-in for Python; return the words it was called with."""
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\ncase "$*" in *{fails}*) exit 1 ;; esac\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    given = {"PYTHON": str(python), "OUTPUT": str(folder / "out"), **variables}
    options = {"env": os.environ | given, "capture_output": True, "text": True}
    done = subprocess.run([str(SCRIPT), *words], **options)
    assert done.returncode == int("failed: none" not in done.stdout), done.stderr
    return [*(folder / "calls").read_text().splitlines()[1:], done.stdout.splitlines()[-1]]


def test_every_command_is_one_that_there_is(tmp_path):
    *calls, last = run_script(tmp_path, "data.num_episodes=7")
    assert last == "failed: none"
    parsers = {"bench": bench._parser(), "build": build_parser()}
    modules = []
    for call in calls:
        _, module, *words = call.split()
        modules.append(module)
        if module == "midas_world.commands.cli":
            parsers[words[0]].parse_args(words[1:])  # whatever is not known there ends the test
        elif module == "midas_world.commands.train_shipped":
            assert load_preset("stage", words[-1:]).data.num_episodes == 7
    assert modules[0] == "pytest"
    assert modules[1:-1] == ["midas_world.commands.cli"] * 5
    assert (tmp_path / "out" / "bench-rtx.log").is_file()


@pytest.mark.parametrize(
    ("parts", "fails", "told"),
    [
        ("tests bench", "rtx", "failed: bench-rtx"),
        ("benhc", "nothing", "failed: benhc(no such part)"),
    ],
)
def test_what_fails_is_told_and_the_rest_goes_on(tmp_path, parts, fails, told):
    *calls, last = run_script(tmp_path, fails=fails, PARTS=parts)
    assert last == told
    assert len(calls) == (4 if "bench" in parts else 0)
