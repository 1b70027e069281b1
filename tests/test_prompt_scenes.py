"""A prompt that speaks of another scene begins in it, and cuts to it where the world says so."""

import dataclasses

import numpy as np
import pytest
import torch

from envs.play.game.game import Game
from envs.play.game.opening import open_world
from envs.play.replay.recorded import Tape, make_recorded
from envs.play.replay.resimulate import resimulate
from envs.stage.scene import Scene
from envs.stage.words import scene_from_text
from envs.world.env import WorldEnv
from envs.world.starts import find_scene
from envs.world.vector_env import WorldVectorEnv
from midas_world.sessions.session import load_session
from midas_world.types import StepConditions
from midas_world.world import StartState, World
from tests.fakes import START_SCENES, make_tiny_world

PLACES = [scene.place for scene in START_SCENES]


def cutting(world: World) -> World:
    settings = dataclasses.replace(world.config.world, prompt_scenes=True)
    return dataclasses.replace(world, config=dataclasses.replace(world.config, world=settings))


@pytest.fixture
def world(tiny_world: World) -> World:
    return cutting(tiny_world)


def shown(env: WorldEnv) -> torch.Tensor:
    """Return the latents that the next frame follows from."""
    return env.save_state().tensors["rollout.latents"][0]


def starts(*descriptions: str) -> list[StartState]:
    latents, conditions = torch.zeros(1, 1, 1), (StepConditions(),)
    return [
        StartState(latents=latents, conditions=conditions, description=text)
        for text in descriptions
    ]


def test_the_first_phrase_counts_most_and_the_same_words_again_change_nothing():
    known = starts("beach, noon, red", "city, noon, red", "city, night, blue", "desert, night, red")
    assert find_scene("city, noon, red", known, present=0) == 1
    assert find_scene("city, night, red", known, present=1) == 2
    assert find_scene("city, night, red", known, present=2) == 2
    assert find_scene("beach, night, red", known, present=0) == 0  # no other place for the night
    assert find_scene("forest, noon, red", known, present=0) == 0  # nobody has it
    twins = starts("city, night", "city, night")
    assert [find_scene("city, night", twins, present=index) for index in (0, 1)] == [0, 1]


def test_a_prompt_at_the_reset_chooses_the_start_state(world):
    env = WorldEnv(world)
    for index, words in enumerate(("the seaside", "a neon city", "a winter forest")):
        for seed in range(3):
            _, info = env.reset(seed=seed, options={"prompt": words})
            assert info["start_state"] == index
    _, info = env.reset(seed=0, options={"prompt": "a neon city", "start_state": 2})
    assert info["start_state"] == 2
    with pytest.raises(ValueError, match="'hello' is about the scene"):
        env.reset(seed=0, options={"prompt": "hello"})


def test_a_prompt_on_the_way_cuts_and_clock_and_noise_go_on(world):
    env = WorldEnv(world)
    env.reset(seed=3, options={"start_state": 0})
    for action in (1, 2, 3):
        env.step(action)
    before = env.save_state().tensors["rollout.generators"]
    env.set_prompt(f"a {PLACES[2]}")
    torch.testing.assert_close(shown(env), world.start_states[2].latents[-1].float())
    torch.testing.assert_close(env.save_state().tensors["rollout.generators"], before)
    _, _, _, _, info = env.step(0)
    assert info["step"] == 4
    assert scene_from_text(info["text"], Scene()).place == PLACES[2]


def test_words_for_the_scene_that_is_there_or_for_none_do_not_cut(world):
    env = WorldEnv(world)
    env.reset(seed=3, options={"start_state": 1})
    env.step(2)
    before = shown(env)
    for words in (f"a {PLACES[1]}", "wave hello", None):
        if words == "wave hello":
            with pytest.raises(ValueError, match="wave: with keys, not with words"):
                env.set_prompt(words)
        else:
            env.set_prompt(words)
        assert torch.equal(shown(env), before)


def test_a_world_that_does_not_say_so_cuts_at_the_reset_alone(tiny_world):
    env = WorldEnv(tiny_world)
    _, info = env.reset(seed=3, options={"prompt": f"a {PLACES[2]}"})
    assert info["start_state"] == 2
    env.reset(seed=3, options={"start_state": 0})
    env.step(2)
    before = shown(env)
    env.set_prompt(f"a {PLACES[2]}")
    assert torch.equal(shown(env), before)


def test_equal_games_with_equal_prompts_give_equal_frames_also_from_a_saved_state(world):
    def play(env: WorldEnv) -> list[bytes]:
        frames = [env.step(2)[0].tobytes()]
        env.set_prompt(f"a {PLACES[2]}")
        frames += [env.step(action)[0].tobytes() for action in (2, 3)]
        env.set_prompt(f"a {PLACES[2]}")  # once more: no cut
        return [*frames, env.step(4)[0].tobytes()]

    env = WorldEnv(world)
    env.reset(seed=3, options={"start_state": 0})
    state = env.save_state()
    first = play(env)
    env.restore_state(state)
    assert play(env) == first
    other = WorldEnv(world)
    other.reset(seed=3, options={"start_state": 0})
    assert play(other) == first


def test_games_of_a_batch_cut_each_by_itself(world):
    games = WorldVectorEnv(3, world)
    games.reset(seed=1, options={"start_state": [0, 0, 0]})
    games.step(np.array([2, 2, 2]))
    before = games.save_state().tensors["rollout.latents"]
    games.set_prompt(f"a {PLACES[2]}", games=[1])
    after = games.save_state().tensors["rollout.latents"]
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    torch.testing.assert_close(after[1], world.start_states[2].latents[-1].float())
    observation, *_ = games.step(np.array([2, 2, 2]))
    assert observation.shape[0] == 3


def test_a_recorded_game_with_cuts_runs_again_equal_and_can_be_gone_on_from(world, tmp_path):
    folder = make_tiny_world(tmp_path / "cutting", config=world.config)
    game = Game(open_world(str(folder)), seed=4, prompt="the seaside")
    game.recorder.start(tmp_path / "session", fps=20, on_error=pytest.fail)
    views = [game.reset(), *(game.step(2) for _ in range(3))]
    assert game.branch.start_state == 0
    game.set_prompt("a neon city")
    views += [game.step(action) for action in (2, 3)]
    game.set_prompt("a neon city")
    views += [game.step(action) for action in (2, 3)]
    views += [game.reset_to_next_start(), game.step(4)]  # the start that is next, not the words'
    assert game.branch.start_state == 1
    views += [game.reset_to_next_start(), game.step(4)]
    assert game.branch.start_state == 2
    game.recorder.stop(wait=True)
    tape = Tape(load_session(tmp_path / "session"))
    result = resimulate(tape, make_recorded(tape.session, world=str(folder)))
    assert str(result) == f"all {len(views)} frames are equal"
    for number in (0, 3, 6, 9, 11):
        goal, _ = tape.snapshots(number)
        np.testing.assert_array_equal(game.restore(goal).frame, views[number].frame)
    game.close()


def test_words_change_the_scene_and_not_the_pose(world, tiny_world):
    poses = []
    for each in (world, tiny_world):
        env = WorldEnv(each)
        env.reset(seed=3, options={"start_state": 0})
        env.step(4)
        env.set_prompt("a neon city")
        poses.append([env.step(action)[-1]["pose"] for action in (4, 5, 0)])
    np.testing.assert_array_equal(*poses)
