"""Going back in a game: the ring of what was shown, bookmarks, and the keys that use them."""

import numpy as np
import pygame
import pytest

from envs.play.game.game import Game
from envs.play.game.opening import open_world
from envs.play.game.playable import Playable
from envs.play.game.rewind import Rewind
from envs.play.game.time_travel import Bookmarks
from envs.stage.controller import ACTIONS
from tests.fakes import CountingEnv, SavingEnv
from tests.windows import playable, playing, press, press_until, release, run_until

KICK, RUN_RIGHT = ACTIONS.index("kick"), ACTIONS.index("run_right")


@pytest.fixture(scope="module")
def world(tiny_folder) -> Playable:
    return open_world(str(tiny_folder))


def play_on(game: Game, rewind: Rewind | None, actions) -> list[np.ndarray]:
    frames = []
    for action in actions:
        view = game.step(action)
        frames.append(view.frame)
        if rewind is not None:
            rewind.add(game, view)
    return frames


def begun(
    env: CountingEnv | Playable, rewind: Rewind | None = None, **options
) -> tuple[Game, Rewind]:
    """Return a game that has begun, and what it can go back in."""
    played = env if isinstance(env, Playable) else playable(env)
    game = Game(played, **({"seed": 0} | options))
    rewind = Rewind(100) if rewind is None else rewind
    rewind.add(game, game.reset(), is_jump=True)
    return game, rewind


# The ring


@pytest.mark.parametrize(("steps_per_state", "num_back"), [(1, 3), (4, 1), (4, 2), (4, 12)])
def test_a_world_goes_on_bit_equal_from_where_it_went_back_to(world, steps_per_state, num_back):
    actions = [RUN_RIGHT] * 5 + [KICK] * 5 + [2] * 6
    game, rewind = begun(world, seed=3, prompt="a beach")
    rewind.steps_per_state = steps_per_state
    frames = play_on(game, rewind, actions)
    assert len({frame.tobytes() for frame in frames}) > 10
    for _ in range(num_back):
        shown = rewind.back()
    view = rewind.resume(game)
    left = len(actions) - num_back
    np.testing.assert_array_equal(view.frame, frames[left - 1])
    assert (shown.num_steps, view.num_steps, len(game.branch.actions)) == (left, left, left)
    again = play_on(game, rewind, actions[left:])
    for frame, expected in zip(again, frames[left:], strict=True):
        np.testing.assert_array_equal(frame, expected)
    assert len(rewind) == len(actions) + 1


def test_going_back_shows_what_was_shown_down_to_the_first_moment():
    game, rewind = begun(SavingEnv())
    play_on(game, rewind, [KICK] * 9)
    steps = []
    while (view := rewind.back()) is not None:
        steps.append(view.num_steps)
        assert abs(int(view.frame[0, 0, 0]) - view.num_steps) <= 3  # JPEG
        assert view.frame.shape == (24, 40, 3)
    assert steps == list(range(8, -1, -1))
    assert rewind.num_before == 0
    assert rewind.resume(game).num_steps == 0


def test_going_back_leads_through_resets_into_the_episode_before():
    game, rewind = begun(SavingEnv(), seed=5)
    play_on(game, rewind, [KICK] * 4)
    rewind.add(game, game.reset_to_next_start(), is_jump=True)
    play_on(game, rewind, [RUN_RIGHT])
    seen = [rewind.back().num_steps for _ in range(3)]
    assert seen == [0, 4, 3]
    assert rewind.resume(game).num_steps == 3
    assert game.branch.seed == 5
    assert game.step(KICK).total_reward == 4.0


def test_an_ended_episode_can_be_gone_back_into():
    game, rewind = begun(SavingEnv(over_after=6))
    rewind.steps_per_state = 4
    play_on(game, rewind, [KICK] * 6)
    assert game.is_over
    assert rewind.resume(game).is_over
    rewind.back()
    assert not rewind.resume(game).is_over
    assert not game.is_over
    assert game.step(KICK).is_over


def test_words_typed_after_the_moment_are_taken_back_and_earlier_ones_stay():
    env = SavingEnv()
    game, rewind = begun(env)
    rewind.steps_per_state = 5
    play_on(game, rewind, [KICK] * 2)
    game.set_prompt("rain")
    play_on(game, rewind, [KICK] * 2)
    game.set_prompt("snow")
    play_on(game, rewind, [KICK] * 2)
    for prompt, num_back in (("snow", 1), ("rain", 1), ("rain", 1), (None, 1)):
        for _ in range(num_back):
            rewind.back()
        rewind.resume(game)
        assert (game.prompt, env.prompt) == (prompt, prompt)
    assert game.branch.prompts == []


def test_an_environment_without_states_plays_again_from_its_reset():
    env = CountingEnv()
    game, rewind = begun(env, Rewind(5), seed=7, prompt="fog")
    play_on(game, rewind, [KICK, RUN_RIGHT] * 10)
    for _ in range(3):
        rewind.back()
    told = []
    view = rewind.resume(game, on_step=lambda done, total: told.append((done, total)))
    assert view.num_steps == 17
    assert tuple(view.frame[0, 0]) == (17, 10 * KICK, 255)
    assert told[0] == (1, 17)
    assert told[-1] == (17, 17)
    assert env.resets == [(7, None), (7, None)]


@pytest.mark.parametrize("state_bytes", [100, 50_000, 400_000])
def test_memory_stays_within_its_budget_for_ever(state_bytes):
    budget = 2_000_000
    env = SavingEnv(state_bytes=state_bytes)
    game, rewind = begun(env, Rewind(60, budget_bytes=budget))
    for _ in range(300):
        play_on(game, rewind, [KICK])
        assert rewind.num_bytes <= budget
    assert 4 <= len(rewind) <= 61
    if state_bytes <= 50_000:
        assert len(rewind) > 50  # what was asked for fits, states and all
    num_kept = len(rewind)
    while rewind.back() is not None:
        pass
    assert rewind.resume(game).num_steps == 300 - (num_kept - 1)
    assert rewind.num_bytes < state_bytes + 2_000  # what came later is forgotten


def test_states_are_no_denser_than_the_budget_wants():
    env = SavingEnv(state_bytes=100_000)
    game, rewind = begun(env, Rewind(100, budget_bytes=3_000_000))
    play_on(game, rewind, [KICK] * 100)
    assert 4 <= rewind.steps_per_state <= 5
    assert env.num_saved <= 26
    for _ in range(50):
        rewind.back()
    env.num_steps_made = 0
    rewind.resume(game)
    assert env.num_steps_made < rewind.steps_per_state


# Bookmarks


def test_bookmarks_take_free_numbers_and_then_the_oldest():
    bookmarks = Bookmarks()
    game = Game(playable(SavingEnv()), seed=0)
    moments = [game.snapshot(game.reset())]
    moments += [game.snapshot(game.step(KICK)) for _ in range(10)]
    assert [bookmarks.drop(moment) for moment in moments] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]
    assert [number for number, _ in bookmarks.shown] == list(range(1, 10))
    assert bookmarks.get(1) is moments[9]
    assert Bookmarks().get(1) is None


def test_a_bookmark_of_a_world_is_the_start_of_branches(world):
    game = Game(world, seed=1)
    game.reset()
    play_on(game, None, [RUN_RIGHT] * 3)
    game.set_prompt("a night city")
    moment = game.snapshot(game.step(KICK))
    frames = play_on(game, None, [KICK, 2, 2])
    for _ in range(2):
        view = game.restore(moment)
        np.testing.assert_array_equal(view.frame, moment.view.frame)
        assert (view.num_steps, game.prompt) == (4, "a night city")
        again = play_on(game, None, [KICK, 2, 2])
        np.testing.assert_array_equal(np.stack(again), np.stack(frames))
    game.restore(moment)
    other = play_on(game, None, [RUN_RIGHT, RUN_RIGHT, RUN_RIGHT])
    assert (other[-1] != frames[-1]).any()


# The keys


def test_holding_backspace_runs_backwards_and_letting_go_plays_on():
    with playing(SavingEnv(), fps=100) as (window, session):
        run_until(window, session, lambda: session.view.num_steps >= 20)
        press_until(window, session, pygame.K_BACKSPACE, lambda: session.status == "rewinding")
        highest = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps <= highest - 8)
        release(pygame.K_BACKSPACE)
        run_until(window, session, lambda: session.status == "playing")
        lowest = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > lowest)


def test_a_short_press_goes_back_one_step_and_a_pause_stays_one():
    with playing(SavingEnv(), fps=100) as (window, session):
        run_until(window, session, lambda: session.view.num_steps >= 3)
        press_until(window, session, pygame.K_p, lambda: session.status == "paused")
        count = session.view.num_steps
        press(pygame.K_BACKSPACE)
        release(pygame.K_BACKSPACE)
        run_until(window, session, lambda: session.view.num_steps < count)
        run_until(window, session, lambda: session.status == "paused")
        assert session.view.num_steps >= count - 2


def test_running_backwards_ends_with_the_window_s_focus():
    with playing(SavingEnv(), fps=100) as (window, session):
        run_until(window, session, lambda: session.view.num_steps >= 3)
        press_until(window, session, pygame.K_BACKSPACE, lambda: session.status == "rewinding")
        pygame.event.post(pygame.Event(pygame.WINDOWFOCUSLOST))
        run_until(window, session, lambda: session.status == "playing")


def test_backspace_at_the_very_beginning_stays_there():
    with playing(SavingEnv(), fps=100) as (window, session):
        press_until(window, session, pygame.K_BACKSPACE, lambda: session.status == "rewinding")
        run_until(window, session, lambda: session.view.num_steps == 0)
        for _ in range(3):
            window.run_once(session)
        assert session.status == "rewinding"
        release(pygame.K_BACKSPACE)
        run_until(window, session, lambda: session.view.num_steps > 2)


def test_b_drops_a_bookmark_and_its_number_jumps_there():
    env = SavingEnv()
    with playing(env, fps=100) as (window, session):
        press_until(window, session, pygame.K_p, lambda: session.status == "paused")
        marked = session.view.num_steps
        press_until(window, session, pygame.K_b, lambda: session.past.bookmarks.shown)
        press_until(window, session, pygame.K_p, lambda: session.view.num_steps > marked + 10)
        env.delay_s = 0.05  # so that the jump's own view can be seen
        press_until(window, session, pygame.K_1, lambda: session.view.num_steps <= marked + 2)
        assert session.status == "playing"


def test_a_number_without_a_bookmark_says_so():
    with playing(SavingEnv(), fps=100) as (window, session):
        press(pygame.K_7)
        told = "there is no bookmark 7: B drops one"
        run_until(window, session, lambda: window.overlays.message == told)
