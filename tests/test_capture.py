"""A small pygame program is recorded under Xvfb, keys and all, and becomes episodes."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from envs.capture import capture as capture_module
from envs.capture.capture import capture
from envs.capture.keys import name_of
from envs.capture.light import Light, place_beside
from envs.capture.screen import CaptureError, Region
from midas_world.commands.cli import main
from midas_world.data.episodes import iter_episodes
from tests.displays import needs_xvfb, x_server

ROOT = Path(__file__).parents[1]
SCREEN = Region(left=0, top=0, width=1280, height=1024)
FPS = 10
LOOKS_AT_THE_LIGHT = """
import sys, time, mss, numpy
with mss.MSS() as screen:
    for _ in range(600):
        shot = screen.grab(screen.monitors[0])
        rows = numpy.frombuffer(bytes(shot.raw), numpy.uint8).reshape(shot.height, shot.width, 4)
        if ((rows[..., 2] > 200) & (rows[..., 1] < 80) & (rows[..., 0] < 80)).sum() > 60:
            sys.exit(print("lit"))
        time.sleep(0.05)
"""


@contextmanager
def running(display: str, *words: str, **options) -> Iterator[subprocess.Popen]:
    hidden = ("XDG_SESSION_TYPE", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"DISPLAY": display, "SDL_VIDEODRIVER": "x11"}
    command = [sys.executable, *words] if words[0].startswith("-") else [*words]
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()  # SDL catches the signal of terminate()


def xdotool(display: str, *words: str) -> str:
    with running(display, "xdotool", *words, stdout=subprocess.PIPE) as process:
        return process.communicate(timeout=60)[0].strip()


def squares(film: Path) -> tuple[list[float], np.ndarray]:
    """Return where the green square's middle lies in every picture, and the last picture."""
    places = []
    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24").astype(int)
            green = (picture[..., 1] > 150) & (picture[..., 0] < 90) & (picture[..., 2] < 110)
            places.append(float(np.nonzero(green)[1].mean()))
    return places, picture


@needs_xvfb
@pytest.mark.skipif(find_spec("pynput") is None, reason="needs pynput")
def test_a_program_is_recorded_with_its_keys_and_imported(tmp_path):
    pytest.importorskip("mss")
    film = tmp_path / "square.mp4"
    words = ["-m", "midas_world.commands.cli", "capture", "--window", "Square", "--fps", str(FPS)]
    words += ["--keys", "left,right", "--seconds", "90", "--to", str(film), "--yes"]
    focus = ("search", "--sync", "--class", "keys_game", "windowfocus")
    with x_server() as display, running(display, "-m", "tests.keys_game", "300"):
        xdotool(display, *focus)
        words[words.index("Square")] = "Circle"
        with running(display, *words, stderr=subprocess.PIPE) as recorder:
            assert "no window has 'Circle' in the title: Square" in recorder.communicate()[1]
        words[words.index("Circle")] = "Square"
        looking = running(display, "-c", LOOKS_AT_THE_LIGHT, stdout=subprocess.PIPE)
        with looking as light, running(display, *words, stdout=subprocess.PIPE) as recorder:
            assert light.communicate(timeout=90)[0].strip() == "lit"
            while not list(tmp_path.iterdir()):  # the film begins
                assert recorder.poll() is None
                time.sleep(0.05)
            # Where no window manager is, SDL takes the focus for the light.
            xdotool(display, *focus)
            time.sleep(0.5)
            xdotool(display, "keydown", "Left", "keydown", "q")  # nobody asked for q
            time.sleep(1.0)
            xdotool(display, "keyup", "Left", "keyup", "q")
            time.sleep(0.5)
            recorder.send_signal(signal.SIGINT)
            told = recorder.communicate(timeout=90)[0]
            assert recorder.returncode == 0
    assert "the window 'Square and keys'" in told
    assert "it was stopped." in told
    places, _ = squares(film)
    assert f"{len(places)} pictures" in told
    with film.with_suffix(".csv").open() as file:
        rows = [(float(row["time_s"]), row["keys"]) for row in csv.DictReader(file)]
    assert [keys for _, keys in rows] == ["", "left", "", ""]
    assert rows[-1][0] == pytest.approx(len(places) / FPS)
    began, ended = rows[1][0], rows[2][0]
    # The picture agrees with the table: the square walks while the key is held.
    moves = np.flatnonzero(np.diff(places) < -1.0)
    assert began - 0.3 <= moves[0] / FPS <= began + 0.5
    assert ended - 0.5 <= moves[-1] / FPS <= ended + 0.5
    data = tmp_path / "data"
    assert main(["import", str(film), "--to", str(data), "--size", "96x160", "--codec", "raw"]) == 0
    episodes = [*iter_episodes(data / "train"), *iter_episodes(data / "validation")]
    assert sum(episode.num_steps for episode in episodes) > 10
    assert sum(int((episode.actions == 1).sum()) for episode in episodes) >= 5


def test_nobody_is_recorded_who_did_not_agree(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mss")
    words = ["capture", "--region", "0,0,64,64", "--keys", "a", "--to", str(tmp_path / "a.mp4")]
    assert main(words) == 2
    assert "nobody is there to agree" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "This records 64x64 px of the screen at 0,0; keys a," in out
    assert "No other keys are looked at" in out
    assert not list(tmp_path.iterdir())


def test_a_film_that_is_there_is_not_written_over(tmp_path, capsys):
    (tmp_path / "a.csv").touch()
    assert main(["capture", "--to", str(tmp_path / "a"), "--keys", "a", "--yes"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_key_that_no_keyboard_has_is_told_before_anything_is_recorded(tmp_path, capsys):
    words = ["capture", "--to", str(tmp_path / "a"), "--keys", "left,rigth", "--yes"]
    assert main(words) == 2
    assert "no keyboard has the keys rigth" in capsys.readouterr().err


def test_where_no_light_can_be_shown_nothing_is_recorded():
    # The tests' own SDL shows nothing.
    with pytest.raises(CaptureError, match="no light can be shown"):
        Light(SCREEN, SCREEN)


@pytest.mark.parametrize(
    ("region", "place"),
    [
        ((100, 200, 640, 480), (100, 164)),
        ((100, 10, 640, 480), (100, 498)),
        ((200, 0, 640, 1024), (60, 0)),
        ((0, 0, 640, 1024), (648, 0)),
        ((0, 0, 1280, 1024), (1148, 0)),
        ((1270, 200, 400, 400), (1148, 164)),
    ],
)
def test_the_light_lies_outside_of_what_is_recorded(region, place):
    left, top, width, height = region
    assert place_beside(Region(left=left, top=top, width=width, height=height), SCREEN) == place


def test_keys_are_called_as_pygame_calls_them():
    told = [
        SimpleNamespace(name="shift_r"),
        SimpleNamespace(name="space"),
        SimpleNamespace(char="A"),
        SimpleNamespace(char=None),
    ]
    assert [name_of(key) for key in told] == ["right shift", "space", "a", ""]


class Scene:
    """A window, its screen, its light, the keyboard and a clock, whose doings are pictures.

    Attributes:
        number: Of the picture that is due.
    """

    whole = SCREEN

    def __init__(self, pictures, *, focus=(), slow=(), held=(), clicked=()):
        self.pictures, self.focus, self.slow = list(pictures), set(focus), set(slow)
        self.held, self.clicked = dict(held), clicked
        self.number, self.now, self.asked = -2, 100.0, 0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def region(self):
        self.number += 1
        return None if self.pictures[max(0, self.number)] is None else SCREEN

    def has_focus(self):
        return self.number in self.focus

    def picture(self, region):
        self.now += 0.5 if self.number in self.slow else 0.01
        return self.pictures[max(0, self.number)]

    def __enter__(self):
        return self

    def __exit__(self, *_): ...

    def show(self, seconds): ...

    def close(self): ...

    def is_clicked(self):
        self.asked += 1
        return self.asked in self.clicked

    def take(self):
        return [(self.now, frozenset(keys)) for keys in self.held.pop(self.number, ())]


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Return a function that records a scene: what was made, and the keys of the table's rows."""

    def record(scene: Scene, *, stop=lambda: False):
        for name in ("Screen", "Light", "DesktopKeys"):
            monkeypatch.setattr(capture_module, name, lambda *_: scene)
        monkeypatch.setattr(capture_module, "time", scene)
        film = tmp_path / "a.mp4"
        made = capture(scene, film, keys=["left"], fps=10.0, seconds=0.5, stop=stop)
        with (tmp_path / "a.csv").open() as file:
            return made, [row["keys"] for row in csv.DictReader(file)]

    return record


GREY = np.full((32, 48, 3), 90, np.uint8)


def test_a_tap_between_two_pictures_is_kept_and_keys_count_with_the_focus_alone(record):
    held = {0: [("left",), ()], 1: [("left",)]}
    made, rows = record(Scene([GREY] * 9, focus=(0, 1, 4), held=held))
    # At 2 another window has the focus; at 4 it is back, and the key still held.
    assert rows[:5] == ["", "left", "", "left", ""]
    assert "left" in rows[5:]
    assert rows[-1] == ""
    assert made.num_frames == 5
    assert made.why == "the time was over"


def test_a_picture_that_comes_too_late_is_shown_twice_and_counted(record):
    made, _ = record(Scene([GREY] * 9, slow=(1,)))
    # The second took half a second of these five tenths.
    assert (made.num_frames, made.num_late, made.num_changes) == (5, 3, 0)


def test_a_click_on_the_light_or_ctrl_c_ends_it(record):
    made, _ = record(Scene([GREY] * 9, clicked=(1,)))
    assert (made.why, made.num_frames) == ("the light was clicked", 2)
    asked = []
    made, _ = record(Scene([GREY] * 9), stop=lambda: asked.append(1) or asked[1:])
    assert (made.why, made.num_frames) == ("it was stopped", 1)


@pytest.mark.parametrize(
    ("pictures", "why", "count"),
    [
        ([GREY, GREY, None], "the window is gone", 2),
        ([GREY, GREY[:, :32]], "the window has another size now", 1),
    ],
)
def test_a_window_that_goes_or_grows_ends_the_film_and_what_there_is_is_whole(
    tmp_path, record, pictures, why, count
):
    made, _ = record(Scene(pictures))
    assert (made.why, made.num_frames) == (why, count)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == count
