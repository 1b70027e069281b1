"""Stand-ins without trained weights: a tiny world, an engine of plain sums, a counting env."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from engine.spec import EngineSpec, Made
from envs.play.game.moments import View
from envs.stage.conditioner import StageConditioner
from envs.stage.controller import ACTIONS
from envs.stage.env import ACTION_KEYS
from envs.stage.scene import Scene
from midas_world.config import ProjectConfig, WorldConfig, load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.conditions import Conditions
from midas_world.model.world_model import WorldModel
from midas_world.train.loop import seeded_weights
from midas_world.world import KeyMap, StartState, save_world

START_SCENES = (
    Scene("beach", "noon", "clear", "red jacket"),
    Scene("night city", "night", "rain", "white suit"),
    Scene("snow forest", "morning", "snow", "green coat"),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def stage_keymap() -> KeyMap:
    return KeyMap(actions=ACTIONS, keys=ACTION_KEYS)


def view_of(frame: np.ndarray) -> View:
    """Return what a window shows of a game whose frame this is."""
    return View(frame=frame, num_steps=0, action_name="", total_reward=0.0, is_over=False)


def randomize(module: nn.Module, seed: int) -> None:
    """Fill the weights from a seed, the zero-initialised ones too, so that pictures move."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and parameter.numel():
                std = parameter[0].numel() ** -0.5
                parameter.normal_(0.0, std, generator=generator)


def make_start_state(config: WorldConfig, seed: int, *, frames: int = 3) -> StartState:
    """Return a start state of Stage with random latents and a true conditioner state."""
    generator = seeded(seed)
    scene = START_SCENES[seed % len(START_SCENES)]
    conditioner = StageConditioner()
    conditions = [conditioner.reset(scene=scene, rng=np.random.default_rng(seed))]
    conditions += [conditioner.step(2) for _ in range(frames - 1)]
    shape = (frames, config.tokens_per_frame, config.token_channels)
    return StartState(
        latents=torch.randn(shape, generator=generator),
        conditions=tuple(conditions),
        things=np.array([(seed % 7, 12.0), (6, -24.5)], np.float32),
        conditioner_state=conditioner.state(),
        description=f"{scene.place}, {scene.time_of_day}, {scene.weather}, {scene.outfit}",
    )


@torch.no_grad()
def damp(model: WorldModel) -> None:
    """Let random weights damp what goes wrong, as trained ones do.

    The next frame is mostly of moved copies, which fade.
    """
    operators, output = model.motion.operators, model.head.output
    noise = randn(*operators.shape, seed=4)
    operators.mul_(0.6).add_(0.03 * noise)
    output.weight.mul_(0.25)
    assert output.bias is not None
    channels = model.config.autoencoder.latent_channels
    output.bias[channels:] = 0.0
    output.bias[channels] = -2.0


def make_tiny_world(folder: Path, *, config: ProjectConfig | None = None) -> Path:
    """Write a tiny world with random weights and three start states; return its folder."""
    config = config or load_preset("tiny")
    with seeded_weights(0):  # `randomize` leaves biases as they are made
        autoencoder, model = Autoencoder(config.world.autoencoder), WorldModel(config.world)
    randomize(autoencoder, 1)
    randomize(model, 2)
    with torch.no_grad():
        last = model.outcome.trunk[-1]  # episodes of random weights should last
        last.weight[-2:] = 0.0
        last.bias[-2:] = -20.0
    damp(model)
    save_world(
        folder,
        config=config,
        autoencoder=autoencoder,
        model=model,
        start_states=[make_start_state(config.world, seed) for seed in range(3)],
        keymap=stage_keymap(),
    )
    return folder


def noisy(config: WorldConfig) -> WorldConfig:
    """Return a config of frames that are made from noise, so that games have their own chance."""
    return replace(config, head=replace(config.head, temperature=1.0))


class FakeCache:
    def __init__(self, batch_size: int) -> None:
        self.total = torch.zeros(batch_size)

    def reset(self) -> None:
        self.total.zero_()

    def state(self) -> dict[str, Tensor]:
        return {"total": self.total.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.total.copy_(state["total"])


class FakeEngine:
    """An engine of plain arithmetic; what its next steps give is set from outside.

    Attributes:
        rewards: Of its next steps, then 0.
        costs: Likewise.
        terminations: Likewise.
        entries: (2, K + 1) what it says of every game.
        gone: (J,) likewise.
        told: Codes of each step's conditions.
        tallies: Likewise.
    """

    def __init__(self, config: WorldConfig) -> None:
        self.spec = EngineSpec(
            config=config, backend="fake", device="cpu", dtype="float32", num_denoise_steps=1
        )
        self.rewards: list[float] = []
        self.costs: list[float] = []
        self.terminations: list[float] = []
        num_classes = config.entries.num_classes
        self.entries = torch.zeros(2, num_classes + 1)
        self.entries[:, -1] = 1.0
        self.gone = torch.zeros(config.entries.capacity, dtype=torch.bool)
        self.told: list[Tensor] = []
        self.tallies: list[Tensor] = []
        self.num_decoded = 0
        self.prefilled: list[tuple[int, int]] = []

    def new_cache(self, batch_size: int) -> FakeCache:
        return FakeCache(batch_size)

    def prefill(
        self, cache: FakeCache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        assert context.shape[:2] == conditions.pose.shape[:2]
        for place, row in enumerate(rows):
            self.prefilled.append((row, context.shape[1]))
            cache.total[row] = context[place].sum() + conditions.pose[place].sum()

    def step(
        self, cache: FakeCache, latents: Tensor, conditions: Conditions, noise: Tensor
    ) -> Made:
        cache.total += conditions.pose.sum(dim=(1, 2))
        self.told.append(conditions.entries[:, 0].clone())
        self.tallies.append(conditions.tally[:, 0].clone())
        drift = torch.sin(cache.total)[:, None, None]
        batch = len(latents)
        reward, cost, termination = (
            torch.full((batch,), given.pop(0) if given else 0.0)
            for given in (self.rewards, self.costs, self.terminations)
        )
        return Made(
            latents=0.8 * latents + 0.2 * noise + 0.1 * drift,
            reward=reward,
            cost=cost,
            termination=termination,
            entries=self.entries.expand(batch, -1, -1).clone(),
            gone=self.gone.expand(batch, -1).clone(),
        )

    def decode(self, latents: Tensor) -> np.ndarray:
        self.num_decoded += 1
        height, width, _ = self.spec.frame_shape
        pixels = (latents[..., :3].mean(dim=1) * 60 + 128).clamp(0, 255).byte().numpy()
        return np.tile(pixels[:, None, None], (1, height, width, 1))

    def encode(self, frames: np.ndarray) -> Tensor:
        count, channels = self.spec.latent_shape
        mean = torch.tensor(frames, dtype=torch.float32).mean(dim=(1, 2, 3)) / 255
        return mean[:, None, None].expand(-1, count, channels).clone()


class CountingEnv(gym.Env[np.ndarray, np.int64]):
    """Frames whose red is the step, green ten times the action and blue 1 after a prompt."""

    def __init__(
        self,
        *,
        num_actions: int = 15,
        over_after: int = 10**9,
        delay_s: float = 0.0,
        reward: float = 1.0,
    ):
        self.action_space = spaces.Discrete(num_actions)
        self.observation_space = spaces.Box(0, 255, (24, 40, 3), np.uint8)
        self.over_after = over_after
        self.delay_s = delay_s
        self.reward = reward
        self.prompt: str | None = None
        self.resets: list[tuple[int | None, Any]] = []
        self.is_closed = False
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.resets.append((seed, options))
        self._step = 0
        return self._frame(0), {}

    def step(self, action):
        time.sleep(self.delay_s)
        self._step += 1
        over = self._step >= self.over_after
        return self._frame(int(action)), self.reward, over, False, {"text": f"action {action}"}

    def set_prompt(self, text: str | None) -> None:
        self.prompt = text

    def understand(self, text: str) -> str:
        return text

    def close(self) -> None:
        self.is_closed = True

    def _frame(self, action: int) -> np.ndarray:
        frame = np.zeros((24, 40, 3), np.uint8)
        frame[:] = (self._step % 256, 10 * action, 255 if self.prompt else 0)
        return frame


class SavingEnv(CountingEnv):
    """A CountingEnv whose state is a value, of as many bytes as wanted."""

    def __init__(self, *, state_bytes: int = 1000, **values):
        super().__init__(**values)
        self.state_bytes = state_bytes
        self.num_saved = 0
        self.num_steps_made = 0
        self._action = 0

    def step(self, action):
        self._action = int(action)
        self.num_steps_made += 1
        return super().step(action)

    def save_state(self):
        self.num_saved += 1
        words = np.frombuffer((self.prompt or "").encode(), np.uint8)
        return {
            "step": np.array([self._step, self._action]),
            "words": words,
            "rest": np.zeros(self.state_bytes, np.uint8),
        }

    def restore_state(self, state):
        self._step, self._action = (int(value) for value in state["step"])
        self.prompt = state["words"].tobytes().decode() or None

    def observe(self):
        return self._frame(self._action)
