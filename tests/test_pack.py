"""Start states of a packed world: from teacher episodes, an equal share of what they show."""

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from midas_world.model.autoencoder import Autoencoder
from midas_world.train.pack import NUM_START_STATES, make_start_states, recorded_start_states
from tests.training import tiny

PLACES = ("hill", "hill", "hill", "lake", "lake", "wood", "moor", "town", "port")
TIMES = ("day", "day", "night", "dawn", "dusk")


class SceneTeacher(gym.Env[np.ndarray, np.int64]):
    """Shows some scenes more often than others; one in three changes after a few steps."""

    def __init__(self, fields: tuple[str, ...], *, num_steps: int = 100) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (48, 80, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(3)
        self._fields, self._last = fields, num_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._step, self._changes = 0, self.np_random.random() < 1 / 3
        self._draw_scene()
        return self._frame(), self._info()

    def step(self, action):
        self._step += 1
        if self._changes and self._step == 2:
            self._draw_scene()
        return self._frame(), 0.0, self._step >= self._last, False, self._info()

    def _draw_scene(self) -> None:
        place, time = (str(self.np_random.choice(names)) for names in (PLACES, TIMES))
        scene = {"place": place, "time_of_day": time, "weather": "clear"}
        self._scene = {name: scene[name] for name in self._fields}

    def _frame(self) -> np.ndarray:
        return np.full((48, 80, 3), 20 * self._step % 256, np.uint8)

    def _info(self) -> dict[str, Any]:
        things = np.full((2, 6), -1.0, np.float32)
        things[0, :3] = 3, 50 + self._step, 30
        return {"scene": dict(self._scene), "text": "words", "things": things}


def descriptions(*fields: str) -> list[str]:
    config = tiny("data.policy_factory=''")
    coder = Autoencoder(config.world.autoencoder).eval()
    states = make_start_states(SceneTeacher(fields), coder, config)
    assert all(len(s.latents) == config.world.backbone.context_frames for s in states)
    # The things of its last frame, from the middle of 80 px.
    last = config.world.backbone.context_frames - 1
    assert all(s.things.tolist() == [[3.0, 10.0 + last]] for s in states)
    return [state.description for state in states]


def test_every_place_and_time_takes_an_equal_share():
    found = Counter(descriptions("place", "time_of_day", "weather"))
    assert len(found) == len(set(PLACES)) * len(set(TIMES)) == 24
    assert set(found.values()) == {2}


def test_where_only_the_place_is_known_places_take_an_equal_share():
    found = Counter(descriptions("place", "weather"))
    assert set(found.values()) == {8}
    assert sum(found.values()) == NUM_START_STATES


def test_where_nothing_is_known_every_episode_gives_one():
    assert descriptions() == ["words"] * NUM_START_STATES


def test_recordings_whose_actions_nobody_names_are_told(data):
    config = tiny("data.env_id=''")
    with pytest.raises(ValueError, match=r"there must be actions: data\.teacher\.actions"):
        recorded_start_states(data / "train", Autoencoder(config.world.autoencoder).eval(), config)


def test_a_teacher_whose_episodes_are_too_short_is_told():
    config = tiny("data.policy_factory=''")
    teacher = SceneTeacher((), num_steps=1)
    with pytest.raises(ValueError, match="none can be begun from"):
        make_start_states(teacher, Autoencoder(config.world.autoencoder).eval(), config)
