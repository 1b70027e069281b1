"""What a step pays and ends, and what environments keep for all their episodes."""

from dataclasses import replace

import numpy as np
import pytest

from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from envs.stage.scene import Scene
from envs.stage.words import scene_from_text
from envs.world.env import WorldEnv
from envs.world.vector_env import WorldVectorEnv
from midas_world.world import World
from tests.fakes import FakeEngine

RUN = ACTIONS.index("run_right")


def with_unit(world: World, unit: float) -> World:
    config = world.config
    return replace(world, config=replace(config, world=replace(config.world, reward_unit=unit)))


def make(world: World, **kwargs) -> WorldEnv:
    env = WorldEnv(world, engine=FakeEngine(world.config.world), **kwargs)
    env.reset(seed=0)
    return env


def tell(env, *, rewards=(), costs=(), terminations=()) -> None:
    env.engine.rewards = list(rewards)
    env.engine.costs = list(costs)
    env.engine.terminations = list(terminations)


def test_thresholds_can_be_set_and_follow_the_world_s_unit(tiny_world):
    env = make(with_unit(tiny_world, 0.1))
    tell(env, rewards=[-0.1, 0.04])
    assert [env.step(0)[1] for _ in range(2)] == [pytest.approx(-0.1), 0.0]
    env = make(tiny_world, reward_threshold=2.0, cost_threshold=0.1, termination_threshold=0.9)
    tell(env, rewards=[1.5], costs=[0.2], terminations=[0.8])
    _, reward, terminated, _, info = env.step(0)
    assert (reward, terminated, info["cost"]) == (0.0, False, 1.0)


def test_expected_outcomes_are_paid_as_they_are(tiny_world):
    env = make(tiny_world, outcomes="expected")
    tell(env, rewards=[0.25], costs=[0.75])
    _, reward, _, _, info = env.step(0)
    assert (reward, info["cost"], info["lives"]) == (0.25, 0.75, 2)


def test_sampled_outcomes_are_whole_and_right_in_the_mean(tiny_world):
    world = with_unit(tiny_world, 0.5)
    config = replace(world.config, world=replace(world.config.world, lives=0))
    env = make(replace(world, config=config), outcomes="sample", horizon=10**6)
    count = 400
    tell(env, rewards=[-0.15] * count, costs=[0.3] * count, terminations=[0.0] * count)
    state = env.save_state()
    steps = [env.step(0) for _ in range(count)]
    assert {step[1] for step in steps} == {0.0, -0.5}
    assert np.mean([step[1] for step in steps]) == pytest.approx(-0.15, abs=0.05)
    assert np.mean([step[4]["cost"] for step in steps]) == pytest.approx(0.3, abs=0.1)
    env.restore_state(state)
    tell(env, rewards=[-0.15] * 50)
    assert [env.step(0)[1] for _ in range(50)] == [step[1] for step in steps[:50]]
    tell(env, terminations=[1.0])
    assert env.step(0)[2]


def test_users_functions_stand_in_the_place_of_reward_cost_and_end(tiny_world, fake):
    seen = []

    def reward(outlook):
        seen.append(outlook)
        return outlook.velocity

    options = {
        "reward": reward,
        "cost": lambda outlook: outlook.height > 0,
        "end": lambda outlook: outlook.step >= 3,
    }
    games = WorldVectorEnv(2, tiny_world, engine=fake, **options)
    games.reset(seed=0)
    games.engine.terminations = [1.0] * 3
    for step in range(3):
        _, rewards, terminated, _, infos = games.step(np.array([RUN, 0]))
        assert terminated.tolist() == [step == 2] * 2
    assert rewards[0] == pytest.approx(6.0)
    assert rewards[1] == pytest.approx(0.0)
    assert infos["cost"].tolist() == [0.0, 0.0]
    outlook = seen[-1]
    assert outlook.latents.shape == (2, *games.engine.spec.latent_shape)
    assert outlook.keypoints.shape == (2, 15, 2)
    assert outlook.keypoints[0, 2, 0] == pytest.approx(40.0, abs=0.5)  # the pelvis, in the middle
    assert 0 <= outlook.x[0] < 1600
    env = make(tiny_world, reward=lambda outlook: np.zeros(3))
    with pytest.raises(ValueError, match=r"reward must return a finite value per game"):
        env.step(0)


def test_frame_skip_holds_an_action_and_adds_up(tiny_world):
    plain, env = make(tiny_world), make(tiny_world, frame_skip=3)
    for each in (plain, env):
        tell(each, rewards=[1.0, 0.2, 2.0], costs=[0.9, 0.0, 0.8])
    steps = [plain.step(RUN) for _ in range(3)]
    frame, reward, _, _, info = env.step(RUN)
    np.testing.assert_array_equal(frame, steps[-1][0])
    assert reward == 3.0
    assert (info["cost"], info["lives"], info["step"]) == (2.0, 1, 3)
    assert info["expected_reward"] == pytest.approx(3.2)
    assert info["hit_probability"] == pytest.approx(1 - 0.1 * 0.2)


@pytest.mark.parametrize("observation", ["pixels", "latent", "dict"])
def test_a_game_that_ends_under_a_held_action_shows_its_last_moment(tiny_world, observation):
    class Ending(FakeEngine):
        def step(self, cache, latents, conditions, noise):
            made = super().step(cache, latents, conditions, noise)
            self.count += 1
            made.termination[0] = float(self.count == 2)
            return made

    engine = Ending(tiny_world.config.world)
    engine.count = -99
    options = {"engine": engine, "observation": observation, "autoreset_mode": "Disabled"}
    plain = WorldVectorEnv(2, tiny_world, **options)
    games = WorldVectorEnv(2, tiny_world, frame_skip=4, **options)
    plain.reset(seed=1), games.reset(seed=1)
    steps = [plain.step(np.array([RUN, RUN])) for _ in range(4)]
    engine.count = 0
    seen, _, terminated, _, infos = games.step(np.array([RUN, RUN]))
    assert terminated.tolist() == [True, False]
    assert infos["step"].tolist() == [2, 4]
    assert infos["action_name"].tolist() == ["run_right"] * 2
    for name, rows in seen.items() if observation == "dict" else [("", seen)]:
        for game, step in ((0, 1), (1, 3)):
            shown = steps[step][0]
            shown = shown[name] if observation == "dict" else shown
            np.testing.assert_array_equal(rows[game], shown[game])


def test_a_choice_of_actions_is_the_action_space(tiny_world):
    env = make(tiny_world, actions=("idle", "run_right"))
    assert env.action_space.n == 2
    assert env.action_names == ("idle", "run_right")
    assert env.step(1)[4]["action_name"] == "run_right"
    assert env.fork(2).single_action_space.n == 2


def test_start_states_and_prompt_of_the_constructor_outlive_resets(tiny_world, fake):
    games = WorldVectorEnv(
        8, tiny_world, engine=fake, start_states=[0, "snow forest"], horizon=1, prompt="night"
    )
    _, infos = games.reset(seed=0)
    begun = set()
    for _ in range(4):
        begun |= set(infos["start_state"].tolist())
        texts = games.step(np.zeros(8, int))[4]["text"].tolist()
        infos = games.step(np.zeros(8, int))[4]
    assert all(scene_from_text(text, Scene()).time_of_day == "night" for text in texts)
    assert begun == {0, 2}
    env = make(tiny_world, start_states=1)
    assert env.reset()[1]["start_state"] == 1
    assert env.reset(options={"start_state": 2})[1]["start_state"] == 2


def test_hits_end_no_episode_of_care(tiny_world):
    env = make(tiny_world, task="care")
    tell(env, costs=[1.0] * 5, rewards=[1.0] * 5, terminations=[0.0, 0.0, 1.0, 1.0, 1.0])
    steps = [env.step(RUN) for _ in range(5)]
    assert not any(step[2] for step in steps)
    assert [step[4]["lives"] for step in steps] == [2, 1, 0, 0, 0]
    assert [step[4]["cost"] for step in steps] == [1.0] * 5
    assert sum(step[1] for step in steps) == 5.0
    teacher = StageEnv(task="care")
    teacher.reset(seed=1)
    steps = [teacher.step(RUN) for _ in range(400)]
    assert sum(step[4]["cost"] for step in steps) > 3
    assert not any(step[2] for step in steps)
    assert steps[-1][4]["lives"] == 0


def test_the_goal_pays_and_ends_where_it_is_in_the_world_as_in_the_game(tiny_world):
    for kind in ("world", "teacher"):
        for goal, steps_to_go in ((60.0, 9), (-60.0 % 1600, 9)):
            action = RUN if goal < 800 else ACTIONS.index("run_left")
            env = StageEnv(task="goal", goal=goal)
            _, info = env.reset(seed=0, options={"x": 0.0})
            if kind == "world":
                env = make(tiny_world, task="goal", goal=goal, action="conditions")
            rewards, ended = [], False
            teacher = StageEnv()
            teacher.reset(seed=0, options={"x": 0.0})
            while not ended and len(rewards) < 20:
                taken = {"pose": teacher.step(action)[4]["pose"]} if kind == "world" else action
                _, reward, ended, _, info = env.step(taken)
                rewards.append(reward)
            assert ended
            assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
            x = info["pose"][36] * 1600
            assert 14.0 < min(abs(x - goal), 1600 - abs(x - goal)) <= 20.0
            assert abs(len(rewards) - steps_to_go) <= 3


@pytest.mark.parametrize("kind", ["world", "teacher"])
@pytest.mark.parametrize(("goal", "way"), [("60 px to the right", 60.0), ("60 left", -60.0)])
def test_words_for_a_goal_count_from_where_an_episode_begins(tiny_world, kind, goal, way):
    options = {"task": "goal", "goal": goal}
    env = StageEnv(**options) if kind == "teacher" else make(tiny_world, **options)
    action = RUN if way > 0 else ACTIONS.index("run_left")
    for seed in (1, 2):
        _, info = env.reset(seed=seed)
        start, ended = info["pose"][36] * 1600, False
        for _ in range(30):
            _, reward, ended, _, info = env.step(action)
            if ended:
                break
        assert (reward, ended) == (1.0, True)
        off = abs((info["pose"][36] * 1600 - start - way + 800) % 1600 - 800)
        assert 14.0 < off <= 20.0
    with pytest.raises(ValueError, match="like '300 px to the right', got 'home'"):
        StageEnv(task="goal", goal="home")


def test_a_goal_in_words_is_part_of_the_state(tiny_world):
    env, other = (make(tiny_world, task="goal", goal=goal) for goal in ("60 right", "90 right"))
    state = env.save_state()
    assert other.save_state().tensors["goals"] != state.tensors["goals"]
    other.restore_state(state)
    assert other.save_state().tensors["goals"] == state.tensors["goals"]
    older = {name: tensor for name, tensor in state.tensors.items() if name != "goals"}
    other.restore_state(replace(state, tensors=older))
