"""What training knows of each frame: codes and what becomes of them, tallies, what comes next."""

import numpy as np
import pytest
import torch

from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from envs.stage.policies import make_policy
from midas_world.config import load_preset
from midas_world.train.latents import coming_classes, encode_frames, tallies, thing_codes
from tests.training import CAMERA, CPU, LOOP, make_episode, tiny

OUTSIDE, STRIP, HALF = 14, 8, 40
STAGE = load_preset("stage").world


def test_latents_line_up_with_conditions_rewards_hits_and_ends(store, coder):
    first, second = make_episode(1), make_episode(2)
    assert store.starts.tolist() == [0, 31, 62]
    rows = np.array([2, 30, 31])
    assert store.gather(rows).shape == (3, 8, 6, 10)
    frames = np.stack((first.frames[2], first.frames[30], second.frames[0]))
    expected = encode_frames(frames, coder, device=CPU).float()
    torch.testing.assert_close(store.gather(rows), expected, rtol=0.02, atol=0.05)
    # Frame 3 stands beside the reward of the action that led to it.
    assert store.reward[3:7].tolist() == first.rewards[2:6].tolist()
    assert store.reward[[0, 31]].tolist() == [0.0, 0.0]
    assert store.cost[31:].tolist() == second.extras["cost"].tolist()
    assert store.terminated.nonzero().flatten().tolist() == [30, 61]
    conditions = store.conditions
    assert torch.equal(conditions.pose[0, 31:], torch.from_numpy(second.pose))
    assert torch.equal(conditions.audio[0, :31], torch.from_numpy(first.audio))
    assert conditions.present.all()
    codes, gone = thing_codes(store.frames.things[31:], second.pose, tiny().world)
    assert np.array_equal(conditions.entries[0, 31:], codes)
    assert np.array_equal(store.gone[31:], gone)
    assert np.array_equal(conditions.tally[0, 31:], tallies(second.extras["cost"], tiny().world))
    # Nothing of the first episode is known in the second.
    assert not gone[0].any()
    assert store.gone.any()


@pytest.fixture(scope="module")
def stage() -> dict[str, np.ndarray]:
    """Return things, poses, rewards and costs of an episode of Stage with coins collected."""
    env, policy = StageEnv(), make_policy("reckless")
    frame, info = env.reset(seed=3, options={"scene_changes": False})
    policy.reset(np.random.default_rng(3))
    rows = [(info["things"], info["pose"], 0.0, 0.0)]
    for step in range(160):
        # There and back, so that what was collected would be met again.
        action = ACTIONS.index("run_left") if step >= 110 else policy.act(frame, info)
        frame, reward, ended, _, info = env.step(action)
        rows.append((info["things"], info["pose"], reward, info["cost"]))
        if ended:
            break
    names = ("things", "pose", "reward", "cost")
    return {name: np.stack(part) for name, part in zip(names, zip(*rows, strict=True), strict=True)}


def listed(things: np.ndarray) -> dict[tuple[float, float], float]:
    """Return the places of things (O, 6) from the middle of Stage's picture."""
    return {(t[0], t[5]): float(t[1]) - STAGE.width / 2 for t in things if t[0] >= 0}


def test_codes_are_of_all_things_in_view_and_gone_where_the_teacher_lists_them_no_more(stage):
    codes, gone = thing_codes(stage["things"], stage["pose"], STAGE)
    reach = STAGE.width / 2 + STAGE.entries.outside
    num_gone = 0
    for row, things in enumerate(stage["things"]):
        now = listed(things)
        left = codes[row][(codes[row, :, 0] >= 0) & ~gone[row]].tolist()
        seen = [[name[0], place] for name, place in now.items() if abs(place) <= reach]
        assert sorted(left) == sorted(seen)
        is_told = codes[row, :, 0] >= 0
        assert (np.diff(np.abs(codes[row, is_told, 1])) >= 0).all()
        assert not gone[row, ~is_told].any()
        for kind, place in codes[row, gone[row]].tolist():
            # Where it was a step before, but for the camera's way.
            before = {n: p for n, p in listed(stage["things"][row - 1]).items() if n not in now}
            assert any(n[0] == kind and abs(p - place) < 12 for n, p in before.items())
            num_gone += 1
    assert num_gone >= 2


def test_a_coin_that_pays_is_gone_in_that_row_and_not_told_afterwards(stage):
    codes, gone = thing_codes(stage["things"], stage["pose"], STAGE)
    paid = np.flatnonzero(stage["reward"] > 0.5)
    assert len(paid)
    for row in paid:
        (place,) = codes[row, gone[row] & (codes[row, :, 0] <= 2), 1]
        assert abs(place) < 24  # beside the character
        if row + 1 < len(codes):
            assert not gone[row + 1].any()
            coins = codes[row + 1, (codes[row + 1, :, 0] >= 0) & (codes[row + 1, :, 0] <= 2), 1]
            assert not (np.abs(coins - place) < 12).any()


def test_only_what_was_in_a_picture_before_is_told_where_that_is_asked_for(stage):
    every, _ = thing_codes(stage["things"], stage["pose"], STAGE)
    codes, gone = thing_codes(stage["things"], stage["pose"], STAGE, only_seen=True)
    seen: set[tuple[float, float]] = set()
    entered = 0
    for row, things in enumerate(stage["things"]):
        known = {name for name, place in listed(things).items() if name in seen}
        reach = STAGE.width / 2 + STAGE.entries.outside
        expected = [[n[0], p] for n, p in listed(things).items() if n in known and abs(p) <= reach]
        left = codes[row][(codes[row, :, 0] >= 0) & ~gone[row]].tolist()
        assert sorted(left) == sorted(expected)
        entered += (every[row, :, 0] >= 0).sum() - (codes[row, :, 0] >= 0).sum()
        seen |= {name for name, place in listed(things).items() if abs(place) < STAGE.width / 2}
    assert entered > 5
    assert gone.any()


def test_tallies_are_of_the_hits_before_a_row():
    cost = np.zeros(80, np.float32)
    cost[[2, 3, 5, 9]] = 1
    found = tallies(cost, STAGE)
    assert found.dtype == np.float32
    lives = [3, 3, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0]
    since = [64, 64, 64, 1, 1, 2, 1, 2, 3, 4, 1, 2]
    np.testing.assert_allclose(found[:12, 0], np.array(lives) / 3, rtol=1e-6)
    assert found[:12, 1].tolist() == since
    assert found[72:76, 1].tolist() == [63, 64, 64, 64]
    assert (tallies(cost, load_preset("dream").world)[:, 0] == 1).all()


def test_what_is_said_to_come_next_comes_next():
    entered = 0
    for seed in range(8):
        episode = make_episode(seed, num_steps=60)
        things, pose = episode.extras["things"], episode.pose
        coming = coming_classes(things, pose, tiny().world)
        none = tiny().world.entries.num_classes
        reach = HALF + OUTSIDE
        # The camera's place without the loop, as the fake episode makes it.
        moved = np.round(np.diff(pose[:, CAMERA].astype(np.float64)) * LOOP)
        camera = np.concatenate(([0.0], np.cumsum((moved + LOOP / 2) % LOOP - LOOP / 2)))
        camera += float(pose[0, CAMERA]) * LOOP
        strips = {
            side: np.floor((camera + sign * reach) / STRIP).astype(int)
            for side, sign in ((0, -1), (1, 1))
        }
        for row in range(len(things) - 1):
            for side, sign in ((0, -1), (1, 1)):
                new = strips[side][row + 1]
                if new != strips[side][row] + sign:
                    continue  # the camera uncovers nothing new
                listed = things[row + 1][things[row + 1, :, 0] >= 0]
                places = np.floor((listed[:, 1] - HALF + camera[row + 1]) / STRIP)
                kinds = listed[places == new, 0]
                entered += len(kinds)
                assert coming[row, side] == (kinds[-1] if len(kinds) else none)
    assert entered > 20
