import numpy as np
import pytest
import torch

from engine.rollout import Rollout
from midas_world.config import load_preset
from midas_world.types import StepConditions
from midas_world.world import StartState
from tests.fakes import FakeEngine, make_start_state


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine(load_preset("tiny").world)


def pose(value: float) -> StepConditions:
    return StepConditions(pose=np.full(39, value, np.float32), text="someone walks right")


def at(px: float) -> StepConditions:
    """Return conditions with the camera at a place within its loop of 400 px."""
    made = np.zeros(39, np.float32)
    made[36] = px / 400
    return StepConditions(pose=made)


def test_a_game_begun_anew_among_others_equals_the_game_alone(engine, tiny_world):
    starts = tiny_world.start_states
    batch = Rollout(engine, 2)
    batch.reset(starts[:2], seeds=[1, 2])
    other = Rollout(engine)
    other.reset([starts[0]], seeds=[1])
    for step in range(5):
        batch.step([pose(0.1 * step), pose(0.3)])
        other.step([pose(0.1 * step)])
    batch.reset([starts[2]], seeds=[7], rows=[1])
    alone = Rollout(engine)
    alone.reset([starts[2]], seeds=[7])
    for step in range(5):
        batch.step([pose(0.2), pose(0.1 * step)])
        other.step([pose(0.2)])
        alone.step([pose(0.1 * step)])
    torch.testing.assert_close(batch.latents[1], alone.latents[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(batch.latents[0], other.latents[0], rtol=1e-4, atol=1e-4)
    assert batch.num_steps.tolist() == [10, 5]


def walk(rollout: Rollout, steps: range) -> list[torch.Tensor]:
    """Return the codes told to a FakeEngine at each step of 6 px, (B, J, 2)."""
    fake = rollout.engine
    fake.told.clear()
    for step in steps:
        rollout.step([at(6.0 * step % 400)] * rollout.batch_size)
    return list(fake.told)


def lively(fake: FakeEngine) -> FakeEngine:
    """Let coins come every other strip."""
    fake.entries[:, 0] = fake.entries[:, -1] = 0.5
    return fake


def test_forks_meet_the_same_things_again_unless_they_are_reseeded(fake):
    rollout = Rollout(lively(fake))
    rollout.reset([start_of(fake)], seeds=[4])
    walk(rollout, range(1, 10))
    state = rollout.state()
    told = walk(rollout, range(10, 30))
    fork = Rollout(fake)
    fork.load_state(state)
    assert torch.equal(torch.stack(walk(fork, range(10, 30))), torch.stack(told))
    fork.load_state(state)
    fork.reseed([77])
    assert not torch.equal(torch.stack(walk(fork, range(10, 30))), torch.stack(told))


def start_of(fake: FakeEngine, *things: tuple[int, float], px: float = 0.0) -> StartState:
    """Return a start state of one frame that shows things, the camera at a place."""
    latents = torch.zeros(1, *fake.spec.latent_shape)
    shown = np.float32(things).reshape(-1, 2)
    return StartState(latents=latents, conditions=(at(px),), things=shown)


def codes_at(rollout: Rollout, px: float) -> list[list[float]]:
    """Return the codes told at a step with the camera there, by class and px from the middle."""
    fake = rollout.engine
    assert isinstance(fake, FakeEngine)
    rollout.step([at(px)] * rollout.batch_size)
    told = fake.told[-1][0]
    return [[kind, round(place, 2)] for kind, place in told.tolist() if kind >= 0]


def test_what_a_start_state_shows_is_told_while_it_is_in_view_and_when_it_comes_back(fake):
    rollout = Rollout(fake)
    rollout.reset([start_of(fake, (6, 4.0), px=200.0)], seeds=[0])
    assert codes_at(rollout, 190.0) == [[6, 14.0]]
    assert codes_at(rollout, 140.0) == []  # 64 px off, where the picture and 14 px more end at 54
    assert codes_at(rollout, 210.0) == [[6, -6.0]]
    rollout.replace_context([start_of(fake, (2, -3.0), px=300.0)], rows=[0])
    assert codes_at(rollout, 302.0) == [[2, -5.0]]


def test_what_is_gone_is_told_no_more_and_comes_back_with_a_state(fake):
    rollout = Rollout(fake)
    rollout.reset([start_of(fake, (6, 4.0), (2, 20.0), px=200.0)], seeds=[0])
    state = rollout.state()
    assert codes_at(rollout, 200.0) == [[6, 4.0], [2, 20.0]]
    fake.gone[0] = True  # the nearest one
    assert codes_at(rollout, 220.0) == [[2, 0.0], [6, -16.0]]
    fake.gone[0] = False
    for camera in (220.0, 100.0, 200.0):
        told = codes_at(rollout, camera)
    assert told == [[6, 4.0]]
    kept = rollout.state()
    rollout.load_state(state)
    assert codes_at(rollout, 200.0) == [[6, 4.0], [2, 20.0]]
    fork = Rollout(fake)
    fork.load_state(kept)
    assert codes_at(fork, 200.0) == [[6, 4.0]]


def test_without_a_pose_the_camera_stays(fake):
    rollout = Rollout(lively(fake))
    rollout.reset([start_of(fake, (3, 9.0), px=200.0)], seeds=[0])
    fake.told.clear()
    for _ in range(3):
        rollout.step([StepConditions()])
    expected = torch.full((1, fake.spec.config.entries.capacity, 2), -1.0)
    expected[0, 0] = torch.tensor([3.0, 9.0])
    assert all(torch.equal(codes, expected) for codes in fake.told)


def test_only_with_temperature_frames_are_made_from_noise():
    cold, warm = (
        FakeEngine(load_preset("tiny", [f"world.head.temperature={t}"]).world) for t in (0, 0.5)
    )
    start = make_start_state(cold.spec.config, 0)
    for fake, is_equal in ((cold, True), (warm, False)):
        rollout = Rollout(fake, 2)
        rollout.reset([start, start], seeds=[1, 2])
        rollout.step([pose(0.1)] * 2)
        assert torch.equal(rollout.latents[0], rollout.latents[1]) == is_equal


def test_the_first_frame_is_the_start_state_s_last(engine, tiny_world):
    start = tiny_world.start_states[1]
    rollout = Rollout(engine)
    rollout.reset([start], seeds=[0])
    np.testing.assert_array_equal(rollout.frames(), engine.decode(start.latents[-1:]))


def test_wrong_calls_say_what_is_wrong(fake):
    rollout, start = Rollout(fake, 2), make_start_state(fake.spec.config, 0)
    other = StartState(latents=torch.zeros(1, 4, 8), conditions=(StepConditions(),))
    for call, words in (
        (lambda: rollout.step([pose(0.0)] * 2), "game 0 has no start state"),
        (lambda: rollout.step([pose(0.0)]), r"one per game \(2\), got 1"),
        (lambda: rollout.reset([start], seeds=[0]), r"one start state per game \(2\), got 1"),
        (lambda: rollout.reset([start] * 2, seeds=[0]), r"one seed per start state \(2\), got 1"),
        (lambda: rollout.replace_context([start] * 2, rows=[1, 1]), "different games of 0 to 1"),
        (lambda: rollout.reset([start], seeds=[0], rows=[2]), "different games of 0 to 1"),
        (lambda: rollout.reset([other], seeds=[0], rows=[0]), "latents of shape"),
        (lambda: rollout.load_state(Rollout(fake, 1).state()), "latents must have shape"),
        (lambda: rollout.load_state({}), "lacks 'latents'"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
