"""A prompt that speaks of another scene cuts to a start state of it, where the world says so."""

import dataclasses

import numpy as np
import pytest
import torch

from envs.starts import find_scene
from envs.vector_env import WorldVectorEnv
from envs.world_env import WorldEnv
from midas_world.types import StepConditions
from midas_world.world import StartState, World
from tests.fakes import START_SCENES

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


def test_what_is_new_counts_most_and_the_rest_stays_as_it_was():
    known = starts("beach, noon, red", "city, noon, red", "city, night, blue", "city, night, red")
    assert find_scene("city, noon, red", known, present=0) == 1
    assert find_scene("city, night, red", known, present=0) == 3
    assert find_scene("city, noon, blue", known, present=1) == 2
    assert find_scene("beach, noon, red", known, present=0) is None  # nothing is new
    assert find_scene("desert, noon, red", known, present=0) is None  # nobody has it
    night = starts("city, noon", "night city, night", "city, night")
    assert find_scene("city, night", night, present=0) == 2


def test_a_prompt_at_the_reset_chooses_the_start_state(world):
    env = WorldEnv(world)
    for index, words in enumerate(("the seaside", "a neon city", "a winter forest")):
        for seed in range(3):
            _, info = env.reset(seed=seed, options={"prompt": words})
            assert info["start_state"] == index
            assert words in env.step(0)[-1]["text"]
    _, info = env.reset(seed=0, options={"prompt": "a neon city", "start_state": 2})
    assert info["start_state"] == 2
    chosen = {
        env.reset(seed=seed, options={"prompt": "hello"})[1]["start_state"] for seed in range(12)
    }
    assert chosen == {0, 1, 2}


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
    assert f"a {PLACES[2]}" in info["text"]


def test_words_for_the_scene_that_is_there_or_for_none_do_not_cut(world):
    env = WorldEnv(world)
    env.reset(seed=3, options={"start_state": 1})
    env.step(2)
    before = shown(env)
    for words in (f"a {PLACES[1]}", "wave hello", None):
        env.set_prompt(words)
        assert torch.equal(shown(env), before)


def test_a_world_that_does_not_say_so_never_cuts(tiny_world):
    env = WorldEnv(tiny_world)
    env.reset(seed=3, options={"start_state": 0})
    env.step(2)
    before = shown(env)
    env.set_prompt(f"a {PLACES[2]}")
    assert torch.equal(shown(env), before)


def test_a_prompt_that_cannot_be_used_changes_nothing(world):
    env = WorldEnv(world)
    env.reset(seed=3, options={"start_state": 0})
    env.step(2)
    before = env.save_state().tensors
    with pytest.raises(ValueError, match="at most 512 bytes"):
        env.set_prompt(f"a {PLACES[2]}" * 100)
    after = env.save_state().tensors
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


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
