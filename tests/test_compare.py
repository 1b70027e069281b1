"""The teacher beside the world: the same actions from the same start, and how like they are."""

import time
from dataclasses import replace

import numpy as np
import pygame
import pytest

from envs.play.game.compare import Comparison, Twin
from envs.play.game.game import Game
from envs.play.game.moments import Snapshot
from envs.play.game.opening import open_teacher, open_world
from envs.play.game.playable import TeacherLink
from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from tests.fakes import CountingEnv
from tests.windows import playable, playing, press, press_until, run_until

RUN_RIGHT, LEAP, TALK = (ACTIONS.index(n) for n in ("run_right", "leap_right", "talk"))


class MarkedEnv(CountingEnv):
    """A teacher of a CountingEnv: its frames tell what it began from."""

    def reset(self, *, seed=None, options=None):
        self._mark = int(options["conditioner_state"]["mark"])
        super().reset(seed=seed)
        assert options["scene_changes"] is False
        return self._frame(0), {}

    def step(self, action):
        frame, reward, over, truncated, info = super().step(action)
        state = {"mark": np.array(self._mark + 1)}
        return frame, reward, over, truncated, info | {"conditioner_state": state}

    def _frame(self, action):
        frame = super()._frame(action)
        frame[0, 0, 0] = self._mark
        return frame


def linked(env: CountingEnv, **teacher) -> TeacherLink:
    """Return a teacher that tells by its mark how often it began, and after how many steps."""

    def start() -> dict[str, np.ndarray]:
        return {"mark": np.array(100 + 10 * len(env.resets) + env._step)}

    return TeacherLink(make=lambda: MarkedEnv(**teacher), start=start)


def compared(prompt: str | None = None, **teacher) -> tuple[Game, Comparison]:
    """Return a game and its comparison with a teacher of its own."""
    env = CountingEnv()
    game = Game(playable(env, teacher=linked(env, **teacher)), seed=0, prompt=prompt)
    return game, Comparison(game.playable.teacher)


def moment(game: Game, view, state) -> Snapshot:
    return replace(game.snapshot(view, with_state=False), state=state)


@pytest.fixture
def followed():
    """Return a function that brings a comparison to a view and waits for it."""
    comparisons = []

    def follow(comparison: Comparison, game: Game, view, *, begins: bool = False) -> None:
        if comparison not in comparisons:
            comparison.start()
            comparisons.append(comparison)
            begins = True
        if begins:
            comparison.begin(game, view)
        else:
            comparison.follow(game.branch, view)
        end = time.perf_counter() + 10
        while comparison.pair is None or comparison.pair.view is not view:
            assert comparison.error is None, comparison.error
            assert time.perf_counter() < end
            time.sleep(0.001)

    yield follow
    for comparison in comparisons:
        comparison.close()
        comparison.close()


# The start


def test_stage_begins_where_another_one_is():
    first, second = StageEnv(), StageEnv()
    first.reset(seed=3, options={"scene": {"place": "beach"}, "scene_changes": False})
    for action in [RUN_RIGHT] * 12 + [LEAP] * 4:
        *_, info = first.step(action)
    options = {"conditioner_state": info["conditioner_state"], "scene_changes": False}
    _, started = second.reset(seed=8, options=options)
    np.testing.assert_equal(started["pose"], info["pose"])
    np.testing.assert_equal(started["keypoints"], info["keypoints"])
    assert (started["scene"], started["text"]) == (info["scene"], info["text"])
    assert (started["hearts"], started["score"]) == (3, 0)
    near = started["objects"][started["objects"][:, 0] >= 0]
    assert (np.abs(near[:, 1]) >= 120).all()
    for action in [LEAP] * 20 + [TALK] * 5:
        *_, expected = first.step(action)
        *_, info = second.step(action)
        np.testing.assert_equal(info["pose"], expected["pose"])
        np.testing.assert_equal(info["audio"], expected["audio"])


def test_a_world_of_stage_and_its_teacher_stay_in_the_same_pose(tiny_folder):
    world = open_world(str(tiny_folder))
    game = Game(world, seed=1, prompt="a night city in the rain")
    game.reset()
    view = game.step(RUN_RIGHT)
    twin = Twin(world.teacher.make())
    twin.begin(moment(game, view, world.teacher.start()))
    game.set_prompt("a beach")
    for action in (RUN_RIGHT, LEAP, LEAP, LEAP):
        game.step(action)
    while twin.num_steps < 5:
        twin.step(game.branch)
    mine, teachers = world.teacher.start(), twin.env._conditioner.state()
    assert set(mine) == set(teachers)
    for name, array in mine.items():
        np.testing.assert_array_equal(array, teachers[name], err_msg=name)
    assert twin.env.scene.place == "beach"


# Following


def test_it_begins_at_once_where_the_world_is_and_then_follows(followed):
    game, comparison = compared()
    game.reset()
    for action in (1, 2, 3):
        view = game.step(action)
    followed(comparison, game, view)
    assert tuple(comparison.pair.teacher_frame[5, 5]) == (0, 0, 0)  # nothing was played again
    assert comparison.pair.teacher_frame[0, 0, 0] == 113
    assert comparison.pair.view is view
    view = game.step(4)
    followed(comparison, game, view)
    assert tuple(comparison.pair.teacher_frame[5, 5]) == (1, 40, 0)
    assert [step for step, _ in comparison.pair.trace] == [3, 4]


def test_it_takes_the_words_with_it(followed):
    game, comparison = compared("rain")
    followed(comparison, game, game.reset())
    assert comparison.pair.psnr > 40
    assert comparison.pair.teacher_frame[5, 5, 2] == 0  # the first frame is drawn before the words
    followed(comparison, game, game.step(1))
    assert comparison.pair.teacher_frame[5, 5, 2] == 255
    game.set_prompt(None)
    followed(comparison, game, game.step(1))
    assert comparison.pair.teacher_frame[5, 5, 2] == 0


def test_it_follows_to_another_branch_and_to_another_episode(followed):
    game, comparison = compared()
    view = game.reset()
    for action in (1, 2, 3):
        view = game.step(action)
        followed(comparison, game, view)
    branch = game.branch
    game.branch = branch.beginning(2, 0)  # as after going back
    followed(comparison, game, replace(view, num_steps=2), begins=True)
    assert comparison.pair.teacher_frame[0, 0, 0] == 113
    assert [step for step, _ in comparison.pair.trace] == [1, 2]
    followed(comparison, game, game.step(9))
    assert comparison.pair.teacher_frame[5, 5, 1] == 90
    assert [step for step, _ in comparison.pair.trace] == [1, 2, 3]
    followed(comparison, game, game.reset(), begins=True)
    assert comparison.pair.teacher_frame[0, 0, 0] == 120
    assert [step for step, _ in comparison.pair.trace] == [0]


def test_words_typed_after_going_back_count_even_if_the_steps_are_the_same():
    game, _ = compared()
    view = game.reset()
    twin = Twin(MarkedEnv())
    twin.begin(moment(game, view, game.playable.teacher.start()))
    for _ in range(3):
        game.step(1)
    for _ in range(3):
        twin.step(game.branch)
    assert twin.is_on(game.branch, 3)
    other = game.branch.beginning(2, 0)
    other.actions += [1, 1]
    assert twin.is_on(other, 4)
    other.prompts.append((2, "snow"))
    assert not twin.is_on(other, 4)


def test_a_teacher_that_loses_goes_on_where_it_is(followed):
    game, comparison = compared(over_after=2)
    followed(comparison, game, game.reset())
    for _ in range(3):
        followed(comparison, game, game.step(1))
    assert comparison.pair.teacher_frame[0, 0, 0] == 111  # of its own second episode
    assert comparison.pair.teacher_frame[5, 5, 0] == 1


def test_running_backwards_shows_what_the_teacher_drew(followed):
    game, comparison = compared()
    views = [game.reset()]
    followed(comparison, game, views[0])
    for action in (3, 6, 9):
        views.append(game.step(action))
        followed(comparison, game, views[-1])
    comparison.show_past(views[2])
    assert abs(int(comparison.pair.teacher_frame[12, 20, 1]) - 60) <= 4  # JPEG
    assert [step for step, _ in comparison.pair.trace] == [0, 1, 2]
    assert comparison.pair.psnr == comparison.pair.trace[-1][1]


# The window


def test_f2_splits_the_window_and_joins_it_again():
    env = CountingEnv()
    with playing(env, fps=50, teacher=linked(env)) as (window, session):
        press_until(window, session, pygame.K_F2, lambda: window._drawn_pair is not None)
        surface = pygame.display.get_surface()
        run_until(window, session, lambda: window._drawn_pair.view.num_steps > 5)
        pair = window._drawn_pair
        world, teacher = (surface.get_at((x, 250))[0] for x in (240, 720))
        assert world == pair.view.num_steps > teacher > 0  # it began later
        assert session.view.num_steps > 2
        press_until(window, session, pygame.K_F2, lambda: session.comparison is None)
        run_until(window, session, lambda: window._drawn_pair is None)


def test_f2_without_a_teacher_says_why():
    with playing(CountingEnv()) as (window, session):
        press_until(window, session, pygame.K_F2, lambda: "not here" in window.overlays.message)
        assert session.comparison is None
    assert "teacher itself" in open_teacher().no_teacher


def test_a_teacher_that_fails_is_told_and_the_game_goes_on():
    def fails():
        raise OSError("no such game")

    link = TeacherLink(make=fails, start=lambda: {})
    with playing(CountingEnv(), teacher=link) as (window, session):
        press(pygame.K_F2)
        run_until(window, session, lambda: session.comparison and session.comparison.error)
        count = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > count)
        assert str(session.comparison.error) == "no such game"
