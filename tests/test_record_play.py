"""Recording from the window, from the command line, and by a key that is heard everywhere."""

import errno
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pygame
import pytest

import play
from envs.keyboard import KeyboardError, hotkey
from envs.play.game.game import Game
from envs.play.game.game_thread import GameThread
from envs.play.game.inputs import Inputs
from envs.play.window.window import Window
from midas_world.sessions.log import hash_frame
from midas_world.sessions.session import RecordedSession, load_session
from tests.displays import needs_xvfb, x_server
from tests.fakes import CountingEnv
from tests.sessions import FullDisk
from tests.windows import playable, playing, press_until, run_until, words_shown


def test_a_game_is_recorded_from_the_middle_with_its_jumps_and_prompts(tmp_path):
    game = Game(playable(CountingEnv()), seed=3, prompt="rain")
    view = game.reset()
    for action in (1, 2, 3):
        view = game.step(action)
    middle = game.snapshot(view)
    game.recorder.start(tmp_path / "session", on_error=pytest.fail)
    game.step(4)
    game.set_prompt("snow")
    game.step(5)
    game.restore(middle)
    game.step(6)
    game.reset()
    game.close()
    session = load_session(tmp_path / "session")
    assert [r.kind for r in session.records] == [
        *("start", "step", "prompt", "step", "restore", "step", "reset")
    ]
    start, restored = session.records[0], session.records[4]
    assert start.begin["actions"] == restored.begin["actions"] == [1, 2, 3]
    assert (start.begin["seed"], start.begin["prompt"]) == (3, "rain")
    assert start.episode_step == restored.episode_step == 3
    assert start.frame_hash == restored.frame_hash
    assert session.records[2].text == "snow"
    assert [segment.num_steps for segment in session.segments()] == [2, 1, 0]
    assert session.segments()[0].prompts[0][0] == 1


# In the window


def only_session(root: Path) -> RecordedSession:
    (folder,) = (root / "recordings").iterdir()
    return load_session(folder)


def test_a_recording_that_has_ended_is_let_go_of(tmp_path):
    game = Game(playable(CountingEnv()), seed=0)
    game.reset()
    ended = []
    for number in range(3):
        game.recorder.start(tmp_path / str(number), fps=20, on_error=pytest.fail)
        ended.append(weakref.ref(game.recorder._recorder))
        game.step(2)
        game.recorder.stop(wait=True)
    gc.collect()
    assert [recorder() for recorder in ended] == [None] * 3
    game.close()


def test_f9_starts_a_session_and_ends_it(here):
    with playing(CountingEnv()) as (window, session):
        assert session.recording.status is None
        press_until(window, session, pygame.K_F9, lambda: session.recording.status is not None)
        run_until(window, session, lambda: session.recording.status.num_frames > 20)
        session.recording._pressed_at = 0.0  # as if the keys were not pressed within the same 0.3 s
        press_until(window, session, pygame.K_F9, lambda: session.recording.status is None)
        shown = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > shown)  # play goes on
    recorded = only_session(here)
    assert recorded.is_closed
    assert recorded.num_frames > 20
    assert recorded.folder.name.startswith("counting-")
    kinds = [record.kind for record in recorded.records]
    assert kinds == ["start"] + ["step"] * (len(kinds) - 1)


def test_one_press_heard_twice_counts_once():
    session = GameThread(lambda: playable(CountingEnv()), Inputs())
    session.toggle_recording()
    session.toggle_recording()  # the window's and the global hotkey's
    assert session._commands.qsize() == 1


def fill_disk(monkeypatch) -> None:
    FullDisk(monkeypatch, "video.mp4", 5000)


def forbid_folder(monkeypatch) -> None:
    """Make the disk read-only; as root, no folder is."""
    make = Path.mkdir

    def refuse(path: Path, *args, **options) -> None:
        if "recordings" in path.parts:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        make(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)


def remove_encoder(monkeypatch) -> None:
    def missing(*_):
        raise av.error.EncoderNotFoundError(1, "Encoder not found")

    monkeypatch.setattr(av.codec, "Codec", missing)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (fill_disk, "not recording: no space left on device"),
        (forbid_folder, "not recording: read-only file system"),
        (remove_encoder, "not recording: this FFmpeg cannot encode H.264"),
    ],
)
def test_the_hud_says_why_nothing_is_recorded_and_play_goes_on(here, monkeypatch, spoil, words):
    spoil(monkeypatch)
    said = words_shown(monkeypatch)
    with playing(CountingEnv()) as (window, session):
        press_until(window, session, pygame.K_F9, lambda: session.recording.error)
        run_until(window, session, lambda: any(words in line for line in said))
        assert any("F9 tries again" in line for line in said)
        shown = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > shown + 5)
    if spoil is fill_disk:
        recorded = only_session(here)
        assert len(list(recorded.frames())) == recorded.num_frames > 0
        assert "recording ended early" in str(recorded)
    else:
        assert not list(here.rglob("*.mp4"))


# The command


def test_command_records_without_a_window_and_changes_nothing_of_what_is_played(
    tiny_folder, tmp_path, capsys
):
    words = ["--headless", "--world", str(tiny_folder), "--steps", "4", "--seed", "3"]
    words += ["--prompt", "a beach"]
    assert play.main([*words, "--save", str(tmp_path / "without")]) == 0
    folder = tmp_path / "session"
    assert play.main([*words, "--save", str(tmp_path / "with"), "--record", str(folder)]) == 0
    assert f"recorded {folder}" in capsys.readouterr().out
    session = load_session(folder)
    assert session.is_closed
    assert (session.header.seed, session.header.prompt) == (3, "a beach")
    assert session.header.world["name"] == tiny_folder.name
    assert all(record.step_time > 0 for record in session.records[1:])
    assert session.num_frames == 5
    for number, record in enumerate(session.frame_records()):
        name = f"frame_{number:06d}.png"
        frames = [
            pygame.surfarray.array3d(pygame.image.load(tmp_path / folder / name)).swapaxes(0, 1)
            for folder in ("without", "with")
        ]
        np.testing.assert_array_equal(*frames)
        assert hash_frame(frames[0]) == record.frame_hash


def test_command_tells_that_it_could_not_record(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "session"
    assert play.main(["--headless", "--teacher", "--steps", "3", "--record", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert "3 steps in" in out  # it was played all the same
    assert "recorded" not in out
    assert f"play: recording ended: not a directory: {folder}" in err


# A key that is heard while another window has the focus


def fake_pynput(monkeypatch, **attributes) -> type:
    """Put a listener that only remembers in the place of pynput's."""

    class GlobalHotKeys:
        IS_TRUSTED = True
        made: list = []  # noqa: RUF012

        def __init__(self, keys):
            self.keys, self.is_running = keys, False
            self.made.append(self)

        def start(self):
            self.is_running = True

        def wait(self):
            for name, value in attributes.items():
                setattr(self, name, value)

        def stop(self):
            self.is_running = False

    keyboard = SimpleNamespace(GlobalHotKeys=GlobalHotKeys)
    for name in ("XDG_SESSION_TYPE", "WAYLAND_DISPLAY", "DISPLAY", "PYNPUT_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pynput", SimpleNamespace(keyboard=keyboard))
    return GlobalHotKeys


def test_the_keyboard_is_left_alone_unless_asked_for(monkeypatch):
    listeners = fake_pynput(monkeypatch)
    monkeypatch.setattr(Window, "run", lambda self, session: session.close())
    assert play.main(["--teacher"]) == 0
    assert listeners.made == []
    assert play.main(["--teacher", "--global-hotkey"]) == 0
    (listener,) = listeners.made
    assert list(listener.keys) == ["<f9>"]
    assert not listener.is_running  # closed with the window


# What tells of an X server that Wayland runs where no variable does, as after `su`: it itself.
X_OF_WAYLAND = SimpleNamespace(query_extension={"XWAYLAND": {}}.get, close=lambda: None)


@pytest.mark.parametrize(
    ("variables", "modules", "words"),
    [
        ({}, {"pynput": None}, r"needs pynput: pip install 'midas-world\[hotkey\]'"),
        ({}, {}, "needs permission"),
        ({"XDG_SESSION_TYPE": "wayland"}, {}, "not to be had on Wayland"),
        (
            {"XDG_SESSION_TYPE": "tty", "WAYLAND_DISPLAY": "wayland-1"},
            {},
            "not to be had on Wayland",
        ),
        (
            {},
            {
                "Xlib": SimpleNamespace(display=SimpleNamespace(Display=lambda: X_OF_WAYLAND)),
                "Xlib.error": SimpleNamespace(DisplayError=OSError),
            },
            "not to be had on Wayland",
        ),
    ],
)
def test_a_hotkey_that_cannot_be_had_is_told_and_the_window_plays_on(
    monkeypatch, capsys, variables, modules, words
):
    fake_pynput(monkeypatch, IS_TRUSTED="permission" not in words)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(KeyboardError, match=words):
        hotkey("<f9>", lambda: None)
    told = []

    def run(window: Window, session: GameThread) -> None:
        told.append(session.message)
        run_until(window, session, lambda: session.view is not None)
        session.close()

    monkeypatch.setattr(Window, "run", run)
    assert play.main(["--teacher", "--global-hotkey"]) == 0
    assert told[0].startswith("F9 records in this window only: ")
    assert told[0] in capsys.readouterr().err


LISTENS = """
import threading
from envs.keyboard import KeyboardError, hotkey
pressed = threading.Event()
try:
    listener = hotkey("<f9>", pressed.set)
except KeyboardError as error:
    raise SystemExit(f"no hotkey: {error}")
from pynput.keyboard import Controller, Key
keys = Controller()
keys.tap(Key.f8)
assert not pressed.wait(0.05)
keys.tap(Key.f9)
print("heard" if pressed.wait(20) else "deaf")
listener.stop()
listener.stop()
"""


def listen(display: str | None) -> subprocess.CompletedProcess:
    """Run LISTENS; which display pynput talks to is fixed when it is loaded."""
    hidden = ("DISPLAY", "XDG_SESSION_TYPE", "PYNPUT_BACKEND", "WAYLAND_DISPLAY")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    if display is not None:
        environment["DISPLAY"] = display
    options = {"cwd": Path(__file__).parents[1], "env": environment, "timeout": 100}
    command = [sys.executable, "-c", LISTENS]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="X11")
def test_without_a_display_server_there_is_no_hotkey():
    pytest.importorskip("Xlib")
    result = listen(None)
    assert result.returncode == 1
    assert "no hotkey: a global hotkey needs a display server" in result.stderr


@needs_xvfb
def test_the_hotkey_is_heard_where_no_window_of_ours_is():
    pytest.importorskip("Xlib")
    with x_server() as display:
        result = listen(display)
    assert result.stdout.strip() == "heard", result.stderr
