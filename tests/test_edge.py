"""What a command says when something goes wrong: one line, and a log of what nobody expected."""

import tempfile
from pathlib import Path

import pytest

import play
from midas_world.commands import cli
from midas_world.edge import run_command


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


def test_debug_is_no_word_of_the_command():
    seen: list[str] = []
    assert run_command("train", lambda words: seen.extend(words) or 0, ["a", "--debug", "b"]) == 0
    assert seen == ["a", "b"]


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


@pytest.mark.parametrize(
    ("run", "place"),
    [
        (lambda: cli.main(["train", "all"]), "midas_world.commands.cli._train"),
        (lambda: play.main(["--headless"]), "play._play_headless"),
        (lambda: cli.main(["play", "--headless"]), "play._play_headless"),
    ],
)
def test_every_command_has_this_edge(capsys, logs, monkeypatch, run, place):
    def unlucky(*_):
        raise RuntimeError("bad luck")

    monkeypatch.setattr(place, unlucky)
    assert run() == 70
    assert "unexpected RuntimeError: bad luck" in capsys.readouterr().err
    assert len(list(logs.iterdir())) == 1
