"""The studio: the last seconds as a film, recordings watched, exported and deleted by keys."""

import threading
from pathlib import Path

import av
import numpy as np
import pygame
import pytest

from envs.play.game.film import Film
from envs.play.game.game import Game
from envs.play.game.opening import open_teacher
from envs.play.game.rewind import Rewind
from envs.play.studio.films import FilmLook, open_film, save_film
from envs.play.studio.gallery import Jobs, recordings
from envs.play.studio.saver import FrameSaver
from envs.play.window.film_controls import _bar
from envs.play.window.menu import Menu
from envs.play.window.tiles import Tiles
from envs.recording.record import new_path
from midas_world.data import gif
from midas_world.sessions.export.pictures import SHAPES, PictureOptions, pictures, shaped, with_keys
from midas_world.sessions.session import load_session
from tests.fakes import CountingEnv, view_of
from tests.sessions import export, read_film
from tests.windows import choose, in_window, playable, playing, press, press_until, run_until

NOISE = np.random.default_rng(0).integers(0, 256, (40, 96, 160, 3)).astype(np.uint8)


@pytest.fixture
def talk() -> tuple[Game, Rewind]:
    """Return a game in which somebody has talked for two seconds, and what was shown."""
    game, rewind = Game(open_teacher(), seed=3), Rewind(100)
    rewind.add(game, game.reset(), is_jump=True)
    for _ in range(40):
        rewind.add(game, game.step(game.playable.keymap.actions.index("talk")))
    yield game, rewind
    game.close()


@pytest.fixture
def session(tmp_path):
    """Return a session of a counting env, with its keys."""
    game = Game(playable(CountingEnv()), seed=0)
    game.playable.env.action_keys = {"kick": ["k"], "leap_left": ["space", "left shift", "left"]}
    game.playable.env.action_names = game.playable.keymap.actions
    game.recorder.start(tmp_path / "recordings" / "counting", on_error=pytest.fail)
    game.reset()
    for name in ("kick", "kick", "leap_left", "wave"):
        game.step(game.playable.keymap.actions.index(name))
    game.close()
    return load_session(tmp_path / "recordings" / "counting")


# Films


def test_what_was_shown_lately_becomes_a_film_with_its_sound(talk, tmp_path):
    game, rewind = talk
    path = new_path(tmp_path, "stage (the teacher)", ".mp4")
    look = FilmLook(keys=game.playable.keymap.keys)
    assert save_film(rewind.film(20, fps=20), path, look) == f"saved 1 s: {path}"
    with av.open(str(path)) as film:
        assert (film.streams.video[0].width, film.streams.video[0].height) == (640, 384)
        assert film.streams.video[0].frames == 20
        assert float(film.duration / av.time_base) == pytest.approx(1.0, abs=0.1)
    views = list(open_film(path).views())
    assert len(views) == 20
    heard = [view.sound for view in views if view.sound is not None]
    assert len(heard) >= 19
    assert np.abs(np.concatenate(heard, axis=1)).max() > 300
    shown = np.array(rewind.film(20, fps=20).view(7).frame).repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(views[7].frame[:300].astype(int) - shown[:300]).mean() < 6
    assert np.abs(views[7].frame[350:, :60].astype(int) - shown[350:, :60]).mean() > 20  # the keys
    with pytest.raises(ValueError, match="exists already"):
        save_film(rewind.film(20, fps=20), path, look)


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
def test_a_film_is_looked_at_in_any_order(ending, tmp_path):
    path = tmp_path / f"film{ending}"
    with FrameSaver(path, fps=20, num_frames=60) as saver:
        for value in range(60):
            saver.add(view_of(np.full((48, 80, 3), 4 * value, np.uint8)))
        saver.close()
    film = open_film(path)
    assert (film.num_frames, film.fps) == (60, 20)
    for number in (0, 59, 30, 31, 29, 7, 59, 1):
        assert int(film.view(number).frame[20, 20, 0]) == pytest.approx(4 * number, abs=2)
    with pytest.raises(ValueError, match="lacks 60"):
        film.view(60)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_holds_the_whole_picture_on_a_soft_ground(shape):
    frame = np.zeros((192, 320, 3), np.uint8)
    frame[:, 100:220] = 200
    picture = shaped(frame, shape)
    height, width, _ = picture.shape
    assert width / height == pytest.approx(SHAPES[shape], abs=0.01)
    top = (height - 192) // 2
    np.testing.assert_array_equal(picture[top : top + 192], frame)
    assert 20 < picture[:10].mean() <= 0.6 * 200
    assert shaped(frame, None) is frame


def test_keys_are_drawn_at_the_lower_left():
    frame = np.zeros((192, 320, 3), np.uint8)
    drawn = np.argwhere(with_keys(frame, ["left shift", "right"]).any(axis=2))
    assert drawn[:, 0].min() > 150
    assert drawn[:, 1].min() < 20
    assert 80 < drawn[:, 1].max() < 200


def test_a_gif_is_capped_in_width_and_size(tmp_path, monkeypatch):
    wide = [frame.repeat(4, axis=1) for frame in NOISE[:3]]
    gif.write_small_gif(tmp_path / "wide.gif", wide, fps=20)
    assert read_film(tmp_path / "wide.gif")[0].shape == (72, 480, 3)
    monkeypatch.setattr(gif, "MAX_GIF_BYTES", 300_000)
    gif.write_small_gif(tmp_path / "large.gif", NOISE, fps=20)
    assert (tmp_path / "large.gif").stat().st_size <= 300_000
    assert len(read_film(tmp_path / "large.gif")) == 40


@pytest.mark.parametrize(
    ("num_frames", "fps", "kept", "seconds", "words"),
    [
        (1200, 20, range(0, 1200, 1), 60, ""),
        (2400, 20, range(0, 2400, 2), 120, "with 10 frames a second: a GIF holds 1200"),
        (9000, 20, range(0, 4800, 4), 240, "the first 240 s: a GIF holds 1200 frames"),
        (90, 60, range(0, 90, 1), 1.5, ""),
        (90, 100, range(0, 90, 2), 0.9, ""),
        (2000, 4, range(0, 1200, 1), 300, "the first 300 s: a GIF holds 1200 frames"),
    ],
)
def test_a_long_gif_is_slower_and_then_shorter(num_frames, fps, kept, seconds, words):
    assert gif.gif_frames(num_frames, fps) == (kept, words)
    assert len(kept) * kept.step / fps == pytest.approx(seconds)


def test_a_long_film_becomes_a_gif_of_its_length_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gif, "_MAX_FRAMES", 25)
    film = Film(num_frames=40, fps=20, view=lambda number: view_of(NOISE[number]))
    look = FilmLook(grows=False)
    said = save_film(film, tmp_path / "long.gif", look)
    assert said.startswith("saved with 10 frames a second: a GIF holds 25: ")
    shown = open_film(tmp_path / "long.gif")
    assert (shown.num_frames, shown.fps) == (20, 10)


def test_a_session_is_exported_with_keys_and_in_a_shape(session, tmp_path):
    assert session.header.action_keys["kick"] == ("k",)
    options = PictureOptions(start=0, stop=5, has_keys=True, scale=8)
    shown = list(pictures(session, options))
    bare = list(pictures(session, PictureOptions(start=0, stop=5, scale=8)))
    drawn = [int((a != b).any(axis=2).sum()) for a, b in zip(shown, bare, strict=True)]
    assert drawn[0] == 0  # no action led there
    assert 0 < drawn[1] == drawn[2] < drawn[3]
    assert drawn[4] > drawn[1]  # an action without known keys is named
    output = tmp_path / "tall.mp4"
    words = ["--to", "mp4", "--keys", "--shape", "9:16", "--output", str(output)]
    assert export(session, *words) == 0
    assert read_film(output)[0].shape == (214, 120, 3)


def test_work_that_fails_is_told_and_the_next_is_done():
    told, may_end = [], threading.Event()
    jobs = Jobs(told.append)

    def fails() -> str:
        raise OSError("the disk is full")

    jobs.start(fails, words="this")
    jobs.start(lambda: may_end.wait(10.0) and "done", words="that")
    assert jobs.words == "that"
    may_end.set()
    jobs.close()
    assert not jobs.words
    assert sorted(told) == ["done", "not saved: the disk is full"]


# At the window


def test_the_last_seconds_are_saved_watched_exported_and_deleted_by_keys(here):
    with playing(CountingEnv(), fps=100) as (window, session):

        def menu(kind: type, words: str) -> None:
            def is_open() -> bool:
                shown = window._screens.menu
                asks = isinstance(shown, Menu) and shown.title.startswith("Delete")
                return (
                    isinstance(shown, kind) and words in shown.title and asks == (words == "Delete")
                )

            run_until(window, session, is_open)

        run_until(window, session, lambda: session.view.num_steps > 20)
        press(pygame.K_F8)
        run_until(window, session, lambda: "(F10 shows it)" in window.overlays.message)
        steps = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > steps)  # play goes on
        [film] = recordings(Path("recordings"))
        press(pygame.K_F10)
        menu(Tiles, "Recordings")
        run_until(window, session, lambda: not window._screens.pictures.is_behind)
        press(pygame.K_RETURN)
        menu(Menu, film.name)
        choose(window, "Watch")
        run_until(window, session, lambda: session.status == "watching")
        run_until(window, session, lambda: session.view.frame.shape == (528, 880, 3))
        press_until(window, session, pygame.K_p, lambda: session.films.projector.is_paused)
        press_until(window, session, pygame.K_ESCAPE, lambda: session.status == "paused")
        assert session.view.num_steps >= steps
        for label, wanted in (("Export as MP4, 1:1", 2), ("Export as GIF", 3)):
            menu(Tiles, "Recordings")
            window._screens.menu.rows[0].take(0)
            choose(window, label)
            run_until(window, session, lambda n=wanted: len(recordings(Path("recordings"))) == n)
            run_until(window, session, lambda: "saved" in window.overlays.message)
        menu(Tiles, "Recordings")
        press(pygame.K_RETURN)
        menu(Menu, ", ")
        choose(window, "Delete")
        menu(Menu, "Delete")
        press(pygame.K_RETURN)  # which keeps it
        menu(Menu, ", ")
        assert len(recordings(Path("recordings"))) == 3
        choose(window, "Delete")
        menu(Menu, "Delete")
        choose(window, "Delete it for good")
        menu(Tiles, "Recordings")
        assert len(recordings(Path("recordings"))) == 2


def test_a_film_of_the_gallery_is_scrubbed_and_the_game_hears_nothing_of_it(here):
    with playing(CountingEnv(), fps=20) as (window, session):
        run_until(window, session, lambda: session.view.num_steps > 10)
        press(pygame.K_F10)  # before there is any
        run_until(window, session, lambda: window._screens.menu is not None)
        press(pygame.K_RETURN)
        press_until(window, session, pygame.K_F8, lambda: window._gallery.jobs.words)
        run_until(window, session, lambda: window._screens.menu.rows)  # the tiles know at once
        assert session.status == "paused"
        steps = session.view.num_steps
        press(pygame.K_RETURN)
        run_until(window, session, lambda: isinstance(window._screens.menu, Menu))
        press_until(window, session, pygame.K_RETURN, lambda: session.films.projector is not None)
        film = session.films.projector
        press_until(window, session, pygame.K_END, lambda: film.number == steps and film.is_paused)
        for key in (pygame.K_b, pygame.K_BACKSPACE, pygame.K_g, pygame.K_COMMA):
            press(key)
        run_until(window, session, lambda: film.number == steps - 1)
        x, y, width, _ = _bar(window._surface.get_size())
        place = x + round(width / steps), y
        pygame.event.post(pygame.Event(pygame.MOUSEBUTTONDOWN, pos=place, button=1))
        run_until(window, session, lambda: film.number == 1)
        pygame.event.post(pygame.Event(pygame.JOYHATMOTION, hat=0, value=(1, 0), instance_id=1))
        run_until(window, session, lambda: film.number == min(21, steps))
        press_until(window, session, pygame.K_t, lambda: "--replay" in window.overlays.message)
        press_until(window, session, pygame.K_ESCAPE, lambda: session.films.projector is None)
        assert (session.status, session.view.num_steps) == ("paused", steps)
        run_until(window, session, lambda: isinstance(window._screens.menu, Tiles))
        for _ in range(2):  # from there to the menu, and to the game
            press(pygame.K_ESCAPE)
        run_until(window, session, lambda: session.view.num_steps > steps)
        assert not any((session.past.bookmarks.shown, session.pilot.is_flying))


def test_a_session_is_in_the_gallery_and_what_cannot_be_read_is_too(session, monkeypatch):
    folder = session.folder.parent
    (folder / "broken.mp4").write_bytes(b"no film")
    (folder / "notes.txt").write_text("not ours")
    monkeypatch.chdir(folder.parent)
    found = {item.path.name: item for item in recordings(folder)}
    assert set(found) == {"counting", "broken.mp4"}
    views = list(found["counting"].film().views())
    assert [int(view.frame[12, 20, 1]) // 10 for view in views][1] == pytest.approx(7, abs=6)
    assert len(views) == 5
    with pytest.raises(ValueError, match="no film"):
        found["broken.mp4"].picture()
    with playing(CountingEnv()) as (window, game):
        window._screens.open_gallery(game)
        run_until(window, game, lambda: not window._screens.pictures.is_behind and
                  window._screens.menu.rows[1].rects)  # fmt: skip
        names = [item.path.name for item in recordings(folder) if not item.is_session]
        window._screens.menu.rows[0].take(names.index("broken.mp4"))
        window._screens.menu.entries[0].take()
        run_until(window, game, lambda: "no film" in window.overlays.message)
        assert game.status == "paused"
    assert found["counting"].delete() == f"deleted {session.folder}"
    assert not session.folder.exists()


def test_what_is_being_recorded_is_not_deleted(here):
    with playing(CountingEnv(), fps=50) as (window, session):
        press(pygame.K_F9)
        run_until(
            window, session, lambda: session.recording.status and recordings(Path("recordings"))
        )
        window._screens.open_gallery(session)
        window._screens.menu.rows[0].take(0)
        for label in ("Delete", "Delete it for good"):
            menu = window._screens.menu
            menu.entries[[str(entry) for entry in menu.entries].index(label)].take()
        run_until(window, session, lambda: "it is being recorded" in window.overlays.message)
        assert len(recordings(Path("recordings"))) == 1


def test_while_a_game_loads_there_is_nothing_to_save_or_to_open():
    may_load = threading.Event()
    made = playable(CountingEnv())
    with in_window(lambda: may_load.wait(10.0) and made) as (window, session):
        session.start()
        for key in (pygame.K_F10, pygame.K_r, pygame.K_t, pygame.K_F8, pygame.K_F1):
            press(key)
        run_until(window, session, lambda: window.overlays.shows_keys)
        assert window._screens.menu is None
        assert not window._prompt.is_open
        assert not window.overlays.message
        may_load.set()
        run_until(window, session, lambda: session.status == "playing")
