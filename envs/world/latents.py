"""A teacher seen through a world's encoder, so that policies of latents play both.

Shapes: B games, N latent tokens per frame, C latent channels.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from engine.shared import shared_engine, shared_world
from envs.world.spaces import LATENT_LIMIT, observation_space
from midas_world.config import TeacherConfig
from midas_world.teachers.env import fit_frame
from midas_world.world import World


class _Eyes:
    """Sees frames as a world shows them with observation="latent"."""

    def __init__(self, world: str | Path | World, backend: str) -> None:
        name = world.folder if isinstance(world, World) else world
        loaded = shared_world(name, trust=False)
        self._engine = shared_engine(name, loaded, backend, num_denoise_steps=None)
        self._fit = (loaded.config.data.teacher or TeacherConfig()).fit
        self.space = observation_space("latent", self._engine.spec)

    def see(self, frames: Any) -> np.ndarray:
        """Return (B, N, C) float32 of (B, H, W, 3) uint8, which are fitted to the world's size."""
        size = self._engine.spec.frame_shape[:2]
        fitted = np.stack([fit_frame(frame, size, fit=self._fit) for frame in frames])
        latents = self._engine.encode(fitted).cpu().numpy()
        return latents.clip(-LATENT_LIMIT, LATENT_LIMIT)


class LatentObservation(gym.ObservationWrapper[Any, Any, Any]):
    """The latents of an environment's frames, (N, C), as those of a world.

    Args:
        env: Whose observations are pictures.
        world: Whose encoder sees them: a shipped world's name, a folder, or a loaded world.
        backend: What runs it.
    """

    def __init__(
        self, env: gym.Env[Any, Any], world: str | Path | World = "stage", *, backend: str = "auto"
    ) -> None:
        super().__init__(env)
        self._eyes = _Eyes(world, backend)
        self.observation_space = self._eyes.space

    def observation(self, observation: Any) -> np.ndarray:
        """Return the latents of a frame."""
        return self._eyes.see(observation[None])[0]


class LatentVectorObservation(VectorWrapper[Any, Any, Any]):
    """`LatentObservation` of B games, (B, N, C); one pass of the encoder sees them all."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        world: str | Path | World = "stage",
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(env)
        self._eyes = _Eyes(world, backend)
        self.single_observation_space = self._eyes.space
        self.observation_space = batch_space(self._eyes.space, self.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin games anew; see the environment."""
        frames, infos = self.env.reset(seed=seed, options=options)
        return self._eyes.see(frames), infos

    def step(self, actions: Any) -> tuple[np.ndarray, Any, Any, Any, dict[str, Any]]:
        """Step all games; what those that have ended showed last is seen likewise."""
        frames, rewards, terminations, truncations, infos = self.env.step(actions)
        if "final_obs" in infos:
            rows = np.flatnonzero(infos["_final_obs"])
            seen = self._eyes.see(np.stack([infos["final_obs"][row] for row in rows]))
            for row, latents in zip(rows, seen, strict=True):
                infos["final_obs"][row] = latents
        return self._eyes.see(frames), rewards, terminations, truncations, infos
