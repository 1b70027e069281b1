import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs  # noqa: F401 - registers the ids
from engine.on_torch.engine import TorchEngine
from envs.stage.controller import ACTIONS as NAMES
from envs.world.env import WorldEnv
from envs.world.spaces import ACTIONS, OBSERVATIONS
from envs.world.vector_env import WorldVectorEnv
from midas_world.world import World
from tests.fakes import FakeEngine, noisy

RUN = NAMES.index("run_right")
MODES = [mode.value for mode in AutoresetMode]


class EndingEngine(FakeEngine):
    """Ends, hits and rewards each game by its own noise: games of a batch end at other steps."""

    def step(self, cache, latents, conditions, noise):
        made = super().step(cache, latents, conditions, noise)
        luck = noise.mean(dim=(1, 2)) / noise[0].numel() ** -0.5
        ends, hits = (luck > 1.5).float(), (luck < -0.5).float()
        return made._replace(reward=luck, cost=hits, termination=ends)


@pytest.fixture
def ending(tiny_world: World) -> EndingEngine:
    return EndingEngine(noisy(tiny_world.config.world))


def test_each_game_equals_the_game_alone(engine, tiny_world):
    def actions(game: int, step: int) -> int:
        return (RUN, 5, 14, 0, RUN)[(step + 2 * game) % 5]

    options = {"prompt": [None, "a desert at night", None], "start_state": [2, None, "beach"]}
    modes = {"engine": engine, "observation": "latent", "render_mode": "rgb_array"}
    games = WorldVectorEnv(3, tiny_world, **modes)
    batch = [games.reset(seed=7, options=options)]
    batch += [games.step(np.array([actions(game, step) for game in range(3)])) for step in range(6)]
    for game in range(3):
        env = WorldEnv(tiny_world, **modes)
        own = {name: values[game] for name, values in options.items()}
        alone = [env.reset(seed=7 + game, options=own)]
        alone += [env.step(actions(game, step)) for step in range(6)]
        for one, all_games in zip(alone, batch, strict=True):
            # float32; a batch of another size is summed in another order.
            np.testing.assert_allclose(all_games[0][game], one[0], rtol=1e-4, atol=1e-4)
            for name in ("step", "text", "pose", "audio", "action_name"):
                np.testing.assert_array_equal(all_games[-1][name][game], one[-1][name])
        difference = games.render()[game].astype(int) - env.render()
        assert np.abs(difference).max() <= 1


def test_each_game_of_the_shipped_world_in_bfloat16_is_close_to_the_game_alone(shipped_world):
    # Random weights would not damp what rounding does.
    world = shipped_world
    engine = TorchEngine(world, device="cpu", dtype=torch.bfloat16)
    games, env = WorldVectorEnv(2, world, engine=engine), WorldEnv(world, engine=engine)
    batch, _ = games.reset(seed=5)
    alone, _ = env.reset(seed=6)
    for step in range(5):
        assert np.abs(batch[1].astype(int) - alone).mean() <= 1, step
        batch, alone = games.step(np.array([0, RUN]))[0], env.step(RUN)[0]
    assert np.abs(batch[0].astype(int) - alone).mean() > 2


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_it_does_what_gymnasium_s_own_vector_does(tiny_world, ending, mode, observation):
    def make():
        return WorldEnv(tiny_world, engine=ending, horizon=6, observation=observation)

    theirs = SyncVectorEnv([make] * 4, autoreset_mode=mode)
    options = {"engine": ending, "horizon": 6, "observation": observation}
    ours = WorldVectorEnv(4, tiny_world, autoreset_mode=mode, **options)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    steps = [[vector.reset(seed=5) for vector in (ours, theirs)]]
    ends, truncations, deaths = 0, 0, 0
    actions = np.random.default_rng(0).integers(15, size=(25, 4))
    for action in actions:
        steps.append([vector.step(action) for vector in (ours, theirs)])
        over = steps[-1][0][2] | steps[-1][0][3]
        ends, truncations = ends + steps[-1][0][2].sum(), truncations + steps[-1][0][3].sum()
        infos = steps[-1][0][-1]
        infos = infos.get("final_info", infos)
        deaths += (steps[-1][0][2] & (infos["lives"] == 0)).sum()
        if mode == "Disabled" and over.any():
            mask = {"reset_mask": over.copy()}
            steps.append([vector.reset(options=mask) for vector in (ours, theirs)])
    assert ends > deaths > 1
    assert truncations > 1
    for number, (our, their) in enumerate(steps):
        assert data_equivalence(our, their, exact=True), number


def test_a_reset_touches_its_own_games_only(engine, tiny_world):
    games, others = (
        WorldVectorEnv(3, tiny_world, engine=engine, autoreset_mode="Disabled") for _ in range(2)
    )
    action = np.full(3, RUN)
    for vector in (games, others):
        vector.reset(seed=1)
        before = [vector.step(action) for _ in range(3)][-1][0]
    mask = np.array([False, True, False])
    after, infos = games.reset(seed=[None, 40, None], options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    np.testing.assert_array_equal(infos["_start_state"], mask)
    alone = WorldEnv(tiny_world, engine=engine)
    frame, _ = alone.reset(seed=40)
    for _ in range(4):
        assert np.abs(after[1].astype(int) - frame).max() <= 1
        after, _, _, _, infos = games.step(action)
        expected = others.step(action)[0]
        # The same batch of the same rows: only game 1 is another.
        np.testing.assert_array_equal(after[~mask], expected[~mask])
        frame = alone.step(RUN)[0]
    np.testing.assert_array_equal(infos["step"], [7, 4, 7])


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_samples_of_the_spaces_can_be_played(tiny_world, ending, observation, action):
    modes = {"observation": observation, "action": action, "render_mode": "rgb_array"}
    games = WorldVectorEnv(2, tiny_world, engine=ending, **modes)
    games.action_space.seed(0)
    observations, _ = games.reset(seed=0)
    assert games.observation_space.contains(observations)
    for _ in range(3):
        actions = games.action_space.sample()
        observations, rewards, terminated, truncated, infos = games.step(actions)
        assert games.observation_space.contains(observations)
        assert rewards.dtype == np.float64
        assert terminated.dtype == truncated.dtype == np.bool_
        assert ("action_name" in infos) == (action != "conditions")
    assert len(games.render()) == 2


def test_resets_without_a_seed_differ_and_go_on_in_each_game_s_stream(tiny_world, ending):
    first, other = (WorldVectorEnv(4, tiny_world, engine=ending) for _ in range(2))
    seeds = {rng.integers(2**62) for vector in (first, other) for rng in vector.np_random}
    assert len(seeds) == 8
    runs = []
    for vector in (first, other):
        vector.reset(seed=2)
        runs.append([vector.reset()[1]["start_state"].tolist() for _ in range(8)])
    assert runs[0] == runs[1]
    assert len({tuple(starts) for starts in runs[0]}) > 1
    assert first.np_random_seed == (2, 3, 4, 5)


def test_given_frames_are_encoded_once_for_all_games(tiny_world, ending, monkeypatch):
    calls = []
    encode = ending.encode
    monkeypatch.setattr(ending, "encode", lambda frames: calls.append(1) or encode(frames))
    games = WorldVectorEnv(3, tiny_world, engine=ending)
    start = {"frames": np.full((1, 48, 80, 3), 200, np.uint8)}
    frames, infos = games.reset(seed=0, options={"start_state": start})
    assert len(calls) == 1
    assert infos["start_state"].tolist() == [-1] * 3
    np.testing.assert_array_equal(frames[0], frames[2])


def test_latent_games_never_decode_until_someone_looks(tiny_world, fake):
    modes = {"engine": fake, "observation": "latent", "render_mode": "rgb_array", "horizon": 2}
    games, env = WorldVectorEnv(2, tiny_world, **modes), WorldEnv(tiny_world, **modes)
    latents, _ = games.reset(seed=0)
    assert latents.shape == (2, *fake.spec.latent_shape)
    assert latents.dtype == np.float32
    for _ in range(4):
        games.step(np.array([0, 1]))
    env.reset(seed=0)
    env.step(0)
    assert fake.num_decoded == 0
    games.render(), games.render(), env.render(), env.render()
    assert fake.num_decoded == 2


def test_wrong_calls_say_what_is_wrong(tiny_world, ending):
    games = WorldVectorEnv(2, tiny_world, engine=ending, horizon=1, autoreset_mode="Disabled")
    for call in (lambda: games.step(np.zeros(2, int)), games.observe, games.save_state):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded, match="without reset_mask"):
        games.reset(options={"reset_mask": np.array([True, False])})
    games.reset(seed=0)
    for actions in (np.zeros(3, int), 0, [0, 15], [0, 0.5]):
        with pytest.raises(InvalidAction):
            games.step(actions)
    games.step([0, 0])
    with pytest.raises(ResetNeeded, match=r"games \[0, 1\] have ended"):
        games.step([0, 0])
    for options, message in (
        ({"reset_mask": [True, False]}, "NumPy array of bool"),
        ({"reset_mask": np.zeros(2, bool)}, "true somewhere"),
        ({"reset_mask": np.ones(3, bool)}, "shape"),
        ({"prompt": ["a", "b", "c"]}, "list of 2, got 3"),
        ({"promt": "a"}, "did you mean 'prompt'"),
    ):
        with pytest.raises(ValueError, match=message):
            games.reset(options=options)
    with pytest.raises(ValueError, match="one entry per game"):
        games.reset(seed=[1])
    for num_envs, options, message in (
        (0, {}, "num_envs"),
        (1, {"render_mode": "human"}, "render_mode"),
        (1, {"autoreset_mode": "Never"}, "AutoresetMode"),
    ):
        with pytest.raises(ValueError, match=message):
            WorldVectorEnv(num_envs, tiny_world, engine=ending, **options)
