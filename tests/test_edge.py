"""What a command says when something goes wrong: one line, and a log of what nobody expected."""

import argparse
import functools
import runpy
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from midas_world.commands import cli
from midas_world.edge import run_command

ROOT = Path(__file__).parents[1]
ROOMS = ("midas_world", "engine", "envs", "examples")


def fail(error: BaseException):
    def run(_: list[str]) -> int:
        raise error

    return run


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_nobody_expected_is_one_line_and_a_log(capsys, logs):
    assert run_command("train", fail(KeyError("weights")), ["--data", "x"]) == 70
    (log,) = logs.iterdir()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"train: unexpected KeyError: 'weights'; where it came from is in {log}"]
    kept = log.read_text()
    assert "train --data x" in kept
    assert "Traceback (most recent call last)" in kept
    assert "KeyError: 'weights'" in kept


@pytest.mark.parametrize("error", [ValueError("a\nb"), OSError("a b"), ImportError("a b")])
def test_bad_input_is_one_line_of_its_own_and_no_log(capsys, logs, error):
    assert run_command("train", fail(error), []) == 2
    assert capsys.readouterr().err == "train: a b\n"
    assert not list(logs.iterdir())


@pytest.mark.parametrize(("error", "status"), [(ValueError("bad"), 2), (KeyError("bad"), 70)])
def test_debug_shows_where_it_came_from(capsys, logs, error, status):
    assert run_command("train", fail(error), ["--debug"]) == status
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert not list(logs.iterdir())


def test_without_room_for_a_log_the_line_says_so(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    assert run_command("train", fail(KeyError("weights")), []) == 70
    err = capsys.readouterr().err
    assert err.startswith("train: unexpected KeyError: 'weights'; no log could be written")
    assert err.count("\n") == 1


def test_ctrl_c_is_a_line(capsys):
    assert run_command("train", fail(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "train: interrupted\n"


def test_packages_of_others_in_the_way_are_a_line(capsys, monkeypatch):
    monkeypatch.setattr("midas_world.packages.ROOT", Path("/elsewhere"))
    assert cli.main(["play", "--headless"]) == 2
    assert "is not midas-world's" in capsys.readouterr().err


def commands() -> dict[str, Callable[[list[str]], int]]:
    """Return how to run each command: every verb, and every file that runs as a program."""

    def run_file(path: Path, words: list[str]) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(path), *words])
            patch.setattr("midas_world.terminal.leave", sys.exit)  # which would end the tests
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(path), run_name="__main__")
        if isinstance(end.value.code, str):  # an extra that is not installed
            pytest.skip(end.value.code)
        return cast("int", end.value.code)

    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    programs = [path for path in files if "__main__" in path.read_text(encoding="utf-8")]
    return {
        **{verb: lambda words, verb=verb: cli.main([verb, *words]) for verb in cli.VERBS},
        "bench --soak": lambda words: cli.main(["bench", "--soak", "1", *words]),
        **{
            str(path.relative_to(ROOT)): functools.partial(run_file, path)
            for path in [ROOT / "play.py", *programs]
        },
    }


@pytest.mark.parametrize("run", commands().values(), ids=commands())
def test_every_command_has_this_edge(capsys, logs, monkeypatch, run):
    def unlucky(*_):
        raise RuntimeError("bad luck")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", unlucky)
    assert run([]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert "unexpected RuntimeError: bad luck" in line
    assert len(list(logs.iterdir())) == 1
    assert run(["--debug"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert len(list(logs.iterdir())) == 1


def test_a_command_s_parts_show_where_it_came_from_if_the_whole_does(capsys, logs):
    def run(_: list[str]) -> int:
        return run_command("part", fail(KeyError("bad")), [])

    assert run_command("whole", run, ["--debug"]) == 70
    assert capsys.readouterr().err.count("Traceback (most recent call last)") == 1
    assert run_command("whole", run, []) == 70
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--debug"]])
def test_what_ends_a_thread_is_a_line_too(capsys, logs, words):
    """TensorBoard's, on a full disk."""

    def run(_: list[str]) -> None:
        thread = threading.Thread(target=fail(OSError(28, "No space left")), args=([],))
        thread.start()
        thread.join()

    assert run_command("train", run, words) == 0
    err = capsys.readouterr().err
    assert err.endswith("train: [Errno 28] No space left\n")
    assert ("Traceback" in err) == bool(words)
