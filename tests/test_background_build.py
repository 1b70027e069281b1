import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import backends, select
from envs.play.game import background_build
from envs.play.game.background_build import BackgroundBuild, begin_build, build
from envs.play.game.game import Game
from envs.play.game.opening import open_world
from envs.play.game.playable import Playable
from envs.play.game.recorder import GameRecorder
from midas_world.types import BackendUnavailableError
from midas_world.user_folders import cache_folder
from midas_world.world import World
from tests import builds
from tests.fakes import CountingEnv, FakeEngine
from tests.windows import in_window, playable, playing, run_until, words_shown


def wait_for_end(made: BackgroundBuild) -> str:
    limit = time.perf_counter() + 30.0
    while not (words := made.take_end()):
        assert time.perf_counter() < limit
        made._receiver.poll(1.0)
    return words


def test_a_process_tells_its_progress_and_its_end_once():
    made = BackgroundBuild(builds.finish, ("a plan",))
    assert made.words
    assert not made.is_made
    assert wait_for_end(made) == "a plan is built"
    assert made.is_made
    assert (made.words, made.take_end()) == ("", "")
    made.close()
    made.close()


def test_a_process_that_dies_is_told():
    made = BackgroundBuild(builds.crash, ())
    assert "could not be made" in wait_for_end(made)
    assert not made.is_made
    made.close()


def test_a_build_that_ignores_its_end_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(background_build, "_JOIN_S", 0.2)
    made = BackgroundBuild(builds.refuse_to_end, ())
    assert made._receiver.poll(30.0)
    made.close()
    assert made._process.exitcode is not None


@pytest.mark.skipif(os.name != "posix", reason="Windows ends processes without asking them")
def test_closing_leaves_no_temporary_file(tmp_path):
    made = BackgroundBuild(builds.hold_a_temporary_file, (tmp_path,))
    assert made._receiver.poll(30.0)
    assert list(tmp_path.iterdir())
    made.close()
    assert not list(tmp_path.iterdir())


def test_a_build_leaves_the_processor_to_the_game():
    made = BackgroundBuild(builds.tell_priority, ())
    assert wait_for_end(made) == "19, 1 threads"
    made.close()


def built(*arguments) -> list[tuple[str, str]]:
    """Return what a build in this process tells."""
    told: list[tuple[str, str]] = []
    build(*arguments, SimpleNamespace(send=told.append))
    return told


def test_all_plans_of_all_backends_are_built_in_turn(tiny_world, monkeypatch):
    asked = []

    def provide_engine(world, graph, target, *, num_denoise_steps):
        asked.append((graph, target.backend, target.capability, num_denoise_steps))

    monkeypatch.setattr("engine.prepare.capability_here", lambda: 89)
    monkeypatch.setattr("engine.prepare.engine_path", lambda *_, **__: Path(__file__))
    monkeypatch.setattr("engine.prepare.provide_engine", provide_engine)
    *progress, end = built(tiny_world.folder, ["tensorrt", "rtx"], 3, Path("cache"))
    assert asked == [
        (graph, backend, 89, 3) for backend in ("tensorrt", "rtx") for graph in ("head", "decoder")
    ]
    assert end == ("made", "a faster engine is made: R starts again on tensorrt, rtx")
    percents = [int(words.split(", ")[1].split(" ")[0]) for _, words in progress]
    assert percents == [0, 25, 50, 75]
    assert progress[1][1].startswith("making tensorrt decoder")


@pytest.mark.parametrize(
    ("backend", "part", "error"),
    [
        ("rtx", "capability_here", BackendUnavailableError("there is no GPU")),
        ("onnx", "prepare", RuntimeError("no such operator\nand a long report")),  # the exporter's
    ],
)
def test_a_build_that_fails_says_why(tiny_world, monkeypatch, caplog, backend, part, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"engine.prepare.{part}", fail)
    why = str(error).partition("\n")[0]
    told = built(tiny_world.folder, [backend], 1, Path("cache"))
    assert told == [("failed", f"a faster engine could not be made: {why}")]
    assert ("onnx could not be made ready" in caplog.text) == (backend == "onnx")


def test_only_what_could_run_here_and_is_not_built_is_prepared(tiny_world: World, monkeypatch):
    def backend(*, runs: bool, ready: bool) -> backends.Backend:
        def check(request):
            if not runs:
                raise BackendUnavailableError("not here")

        return backends.Backend(check, lambda _: ready, lambda _: None)

    known = {
        "torch": backend(runs=True, ready=True),
        "tensorrt": backend(runs=False, ready=False),
        "rtx": backend(runs=True, ready=False),
    }
    monkeypatch.setattr(select, "BACKENDS", known)
    started = []
    monkeypatch.setattr(background_build, "BackgroundBuild", lambda *a: started.append(a) or "it")
    engine = FakeEngine(tiny_world.config.world)
    assert begin_build(tiny_world, engine, num_denoise_steps=None) == "it"
    assert started == [(build, (tiny_world.folder, ["rtx"], 1, cache_folder()))]
    del known["rtx"]
    assert begin_build(tiny_world, engine, num_denoise_steps=None) is None


@dataclass
class Told:
    """A build without a process."""

    words: str = "building it, 7 %"
    end: str = ""
    is_made: bool = False
    is_closed: bool = False

    def take_end(self) -> str:
        end, self.end = self.end, ""
        return end

    def close(self) -> None:
        self.is_closed = True


def test_the_window_shows_what_is_built_and_why_the_backend_was_chosen(monkeypatch):
    lines = words_shown(monkeypatch)
    said = []
    told = Told()
    with playing(CountingEnv(), background_build=told, why="the fastest here") as (window, session):
        say = window._say
        monkeypatch.setattr(window, "_say", lambda words: said.append(words) or say(words))
        window._command("f3", session)
        run_until(window, session, lambda: "because  the fastest here" in lines)
        run_until(window, session, lambda: "building it, 7 %" in lines)
        told.words, told.end = "", "built"
        run_until(window, session, lambda: said == ["built"])
        lines.clear()
        run_until(window, session, lambda: "because  the fastest here" in lines)
        assert "building it, 7 %" not in lines
    assert told.is_closed


def test_starting_again_changes_over_to_what_was_made():
    faster = CountingEnv()
    opened = []

    def reopen() -> Playable:
        opened.append(playable(faster, backend="faster sums"))
        return opened[-1]

    told = Told(words="", is_made=True)
    with playing(CountingEnv(), background_build=told, reopen=reopen) as (window, session):
        run_until(window, session, lambda: session.view.num_steps > 3)
        assert not opened, "it waits for the player"
        session.reset()
        run_until(window, session, lambda: session.playable is (opened or [None])[0])
        assert told.is_closed
        assert session.playable.backend == "faster sums"
        run_until(window, session, lambda: session.view.num_steps > 3)
        assert len(faster.resets) == 1
        session.reset()
        run_until(window, session, lambda: len(faster.resets) == 2)
    assert len(opened) == 1
    assert faster.is_closed


def test_bookmarks_and_rewind_go_on_after_changing_over(tiny_folder: Path):
    """States of another engine are of another precision here, and would be refused."""
    first = open_world(str(tiny_folder), backend="torch:float32")
    reopen = partial(open_world, first.env.unwrapped.world, backend="torch:bfloat16")
    made = Told(words="", is_made=True)
    opened = replace(first, background_build=made, reopen=reopen)
    with in_window(lambda: opened, fps=200) as (window, session):
        session.start()
        run_until(window, session, lambda: session.view is not None and session.view.num_steps > 3)
        session.past.drop_bookmark()
        run_until(window, session, lambda: len(session.past.bookmarks.shown) == 1)
        session.reset()
        run_until(window, session, lambda: session.playable.backend != first.backend)
        run_until(window, session, lambda: session.view.num_steps == 2)
        session.past.jump(1)
        num_steps = session.past.bookmarks.shown[0][1].num_steps
        run_until(window, session, lambda: session.view.num_steps > num_steps)
        session.past.start_rewind()
        run_until(window, session, lambda: session.past.rewind.num_before == 0)
        session.past.stop_rewind()
        run_until(window, session, lambda: session.view.num_steps == 1)


def test_a_recording_stays_on_the_engine_that_it_began_on(monkeypatch):
    told = Told(words="", is_made=True)
    game = Game(playable(CountingEnv(), background_build=told, reopen=lambda: None), seed=0)
    assert game.can_change_over
    monkeypatch.setattr(GameRecorder, "status", SimpleNamespace(error=None))
    assert not game.can_change_over
    monkeypatch.setattr(GameRecorder, "status", SimpleNamespace(error="the disk is full"))
    assert game.can_change_over
    told.is_made = False
    assert not game.can_change_over


def test_an_engine_that_cannot_run_after_all_leaves_the_game_as_it_was():
    def reopen() -> Playable:
        raise BackendUnavailableError("no such device")

    told, env = Told(words="", is_made=True), CountingEnv()
    with playing(env, background_build=told, reopen=reopen) as (window, session):
        session.reset()
        run_until(
            window, session, lambda: window.overlays.message.startswith("still on sums: no such")
        )
        run_until(window, session, lambda: session.view.num_steps > 3)
        assert not told.is_closed
        assert not env.is_closed
