import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded

from engine.on_torch.engine import TorchEngine
from envs.stage.controller import ACTIONS as NAMES
from envs.world.env import WorldEnv
from envs.world.state import WorldState
from envs.world.vector_env import WorldVectorEnv
from midas_world.checkpoint import save_tensors
from midas_world.config import load_preset
from midas_world.types import CheckpointError
from midas_world.world import World, load_world
from tests.fakes import FakeEngine, make_tiny_world, noisy

ROOT = Path(__file__).parents[1]
RUN = NAMES.index("run_right")
LATER = (14, 14, 0, RUN, 5, 0)


@pytest.fixture
def env(tiny_world: World) -> WorldEnv:
    env = WorldEnv(tiny_world)
    env.reset(seed=5, options={"prompt": "a desert at night"})
    for action in (RUN, RUN, 14):
        env.step(action)
    return env


def play(env: WorldEnv, actions=LATER) -> list[bytes]:
    return [env.step(action)[0].tobytes() for action in actions]


def test_an_equal_state_and_equal_actions_give_equal_frames_in_a_fresh_process(
    env, tiny_folder, tmp_path
):
    path = tmp_path / "state.safetensors"
    env.save_state().save(path)
    expected = sha256(b"".join(play(env))).hexdigest()
    code = f"""
from hashlib import sha256
from envs.world.env import WorldEnv
from envs.world.state import WorldState
env = WorldEnv({str(tiny_folder)!r})
env.restore_state(WorldState.load({str(path)!r}))
print(sha256(b"".join(env.step(action)[0].tobytes() for action in {LATER})).hexdigest())
"""
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert made.stdout.strip() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_is_the_state(tiny_world, tmp_path, dtype):
    engine = TorchEngine(tiny_world, device="cpu", dtype=dtype)
    env = WorldEnv(tiny_world, engine=engine)
    env.reset(seed=1)
    state = env.save_state()
    state.save(tmp_path / "state.safetensors")
    expected = play(env)
    env.restore_state(WorldState.load(tmp_path / "state.safetensors"))
    assert play(env) == expected
    env.restore_state(state)
    assert play(env) == expected, "playing on changed a saved state"


def test_clock_end_words_and_resets_are_part_of_the_state(tiny_world, fake):
    env = WorldEnv(tiny_world, engine=fake, horizon=4)
    env.reset(seed=2, options={"prompt": "a beach"})
    env.step(RUN)
    state = env.save_state()

    def rest():
        steps = [env.step(0) for _ in range(3)]
        with pytest.raises(ResetNeeded):
            env.step(0)
        starts = [env.reset()[1]["start_state"] for _ in range(6)]
        return [
            (frame.tobytes(), *step[:3], info["step"], info["text"]) for frame, *step, info in steps
        ], starts

    first = rest()
    env.restore_state(state)
    assert rest() == first
    assert "in the seaside" in first[0][0][-1]
    env.reset(seed=3)
    [env.step(0) for _ in range(4)]
    ended = env.save_state()
    env.reset()
    env.restore_state(ended)
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_lives_are_part_of_the_state_and_forks_copy_them(tiny_world, fake):
    env = WorldEnv(tiny_world, engine=fake)
    env.reset(seed=0)
    fake.costs = [1.0, 1.0]
    env.step(RUN)
    state = env.save_state()
    assert env.step(RUN)[4]["lives"] == 1
    env.restore_state(state)
    assert env.step(RUN)[4]["lives"] == 2
    games = env.fork(2)
    fake.costs = [1.0, 0.0, 1.0]
    for lives, is_over in ((1, False), (1, False), (0, True)):
        _, _, terminated, _, infos = games.step([RUN, 0])
        assert infos["lives"].tolist() == [lives] * 2
        assert terminated.tolist() == [is_over] * 2
    games.restore_state(state)
    assert games.step([RUN, 0])[-1]["lives"].tolist() == [2, 2]


def test_restoring_neither_steps_nor_decodes(tiny_world, fake, monkeypatch):
    env = WorldEnv(tiny_world, engine=fake, render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.step(RUN)[0]
    state = env.save_state()
    env.step(0)
    fake.num_decoded = 0
    monkeypatch.setattr(fake, "step", None)
    env.restore_state(state)
    assert fake.num_decoded == 0
    np.testing.assert_array_equal(env.render(), frame)
    np.testing.assert_array_equal(env.observe(), frame)
    assert fake.num_decoded == 1


def test_a_vector_goes_on_exactly_over_its_autoresets(tiny_world, tmp_path):
    engine = TorchEngine(tiny_world, device="cpu")
    games = WorldVectorEnv(2, tiny_world, engine=engine, horizon=3)
    games.reset(seed=4)
    games.step([RUN, 0])
    games.save_state().save(tmp_path / "state.safetensors")

    def rest(games):
        steps = [games.step([RUN, action]) for action in (0, 14, 5, 0, 0, RUN)]
        return [(step[0].tobytes(), step[3].tolist(), step[-1]["step"].tolist()) for step in steps]

    expected = rest(games)
    other = WorldVectorEnv(2, tiny_world, engine=engine, horizon=3)
    other.restore_state(WorldState.load(tmp_path / "state.safetensors"))
    assert rest(other) == expected


def test_forks_go_on_from_the_present_and_leave_it_alone(tiny_world):
    engine = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    env = WorldEnv(tiny_world, engine=engine, observation="latent")
    env.reset(seed=3)
    env.step(RUN)
    state = env.save_state()
    games = env.fork(3)
    assert games.engine is engine
    np.testing.assert_array_equal(games.observe(), np.stack([env.observe()] * 3))
    latents = [games.step([RUN, RUN, 5])[0] for _ in range(3)][-1]
    # One noise for all: what differs is what was done, but for how products of 3 rows round.
    np.testing.assert_allclose(latents[0], latents[1], rtol=1e-4, atol=1e-5)
    assert np.abs(latents[0] - latents[2]).max() > 1e-3
    untouched = env.save_state()
    assert all(torch.equal(untouched.tensors[name], state.tensors[name]) for name in state.tensors)
    alone = [env.step(RUN)[0] for _ in range(3)][-1]
    np.testing.assert_allclose(latents[0], alone, rtol=1e-4, atol=1e-4)
    assert games.save_state().num_games == 3


def test_forks_with_seeds_have_noise_of_their_own(tiny_world):
    engine = FakeEngine(noisy(tiny_world.config.world))
    env = WorldEnv(tiny_world, engine=engine, observation="latent", horizon=2)
    env.reset(seed=3)
    games, again = (env.fork(3, seeds=[1, 2, 1]) for _ in range(2))
    latents, others = games.step([0, 0, 0])[0], again.step([0, 0, 0])[0]
    np.testing.assert_array_equal(latents, others)
    np.testing.assert_array_equal(latents[0], latents[2])
    assert (latents[0] != latents[1]).any()
    with pytest.raises(ValueError, match=r"one per game \(3\), got 2"):
        env.fork(3, seeds=[1, 2])


def test_a_state_of_many_games_can_be_picked_from(tiny_world, fake):
    games = WorldVectorEnv(3, tiny_world, engine=fake, observation="latent")
    games.reset(seed=0)
    games.step([RUN, 0, 14])
    state = games.save_state()
    games.restore_state(state.select([2, 2, 0]))
    after = games.step([0, 0, 0])[0]
    games.restore_state(state)
    expected = games.step([0, 0, 0])[0]
    np.testing.assert_array_equal(after, expected[[2, 2, 0]])
    env = WorldEnv(tiny_world, engine=fake, observation="latent")
    env.restore_state(state.select([1]))
    np.testing.assert_array_equal(env.step(0)[0], expected[1])
    for wrong in ([], [3], [-1]):
        with pytest.raises(ValueError, match="indices 0 to 2"):
            state.select(wrong)


def test_a_state_that_does_not_fit_is_refused(env, tiny_world, tmp_path):
    state = env.save_state()
    other = load_world(make_tiny_world(tmp_path / "other", config=load_preset("tiny")))
    for tensor in other.model.parameters():
        tensor.data.add_(0.1)
    with pytest.raises(ValueError, match="another world"):
        WorldEnv(other).restore_state(state)
    bits = TorchEngine(tiny_world, device="cpu", dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must have shape .* torch.float64"):
        WorldEnv(tiny_world, engine=bits).restore_state(state)
    two = WorldState(tensors=state.select([0, 0]).tensors, world=state.world)
    with pytest.raises(ValueError, match="must be of 1 or 1 games, got 2"):
        env.restore_state(two)
    for name in ("rng", "rollout.book.lives", "rollout.latents"):
        rest = {key: value for key, value in state.tensors.items() if key != name}
        with pytest.raises(ValueError, match="the state lacks"):
            env.restore_state(WorldState(tensors=rest, world=state.world))


def _even_increment(words):
    return words.index_fill(1, torch.tensor([3]), 2)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("rollout.generators", lambda rows: torch.full_like(rows, 255), "generators of the state"),
        ("rollout.generators", lambda rows: rows[:, :-8], "generators of the state"),
        ("rollout.generators", lambda rows: rows.float(), "generators of the state"),
        ("rng", lambda rows: torch.full_like(rows, -1), "rng of the state is no generator's"),
        ("rng", _even_increment, "rng of the state is no generator's"),
        ("rng", lambda rows: rows[:, :-1], "rng must have shape"),
        ("rng", lambda rows: rows.float(), "rng must have shape .* and be torch.int64"),
        ("over", lambda rows: rows.float(), "over must have shape"),
        ("rollout.book.lives", lambda rows: rows[:, None], "lives must have shape"),
        ("starts", lambda rows: rows - 9, "starts of the state are none of this world's"),
        ("scenes", lambda rows: rows + 99, "scenes of the state are none of this world's"),
        ("pose", lambda rows: rows[:, 1:], "pose must have shape"),
        ("conditioner.scene", lambda rows: rows + 99, "conditioner's state cannot be used"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(tiny_world, fake, name, damage, words):
    env = WorldEnv(tiny_world, engine=fake)
    env.reset(seed=1)
    state = env.save_state()
    damaged = WorldState(
        tensors={**state.tensors, name: damage(state.tensors[name])}, world=state.world
    )
    env.reset(seed=2, options={"prompt": "a beach"})
    env.step(RUN)
    before = env.save_state().tensors
    with pytest.raises(ValueError, match=words):
        env.restore_state(damaged)
    after = env.save_state().tensors
    assert before.keys() == after.keys()
    for key, rows in before.items():
        torch.testing.assert_close(after[key], rows, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ValueError, match=words):
        WorldEnv(tiny_world, engine=fake).restore_state(damaged)


def test_a_file_that_is_no_state_is_refused(env, tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match="no state at"):
        WorldState.load(path)
    env.save_state().save(path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not safetensors" * 9):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"state.safetensors is .*corrupt"):
            WorldState.load(path)
    save_tensors({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="holds no state of a world"):
        WorldState.load(path)
