"""What every engine answers, whatever backend runs the networks.

An engine holds weights and nothing that changes: what changes while a game is played is the cache,
made by `Engine.new_cache` and passed in. Above the engine everything is float32 torch tensors on
the CPU or NumPy; dtypes, devices and memory layouts of a backend end here.

Shapes: B games, F frames, N latent tokens per frame, C their channels, M condition tokens, H W
pixels, K classes of things, J entry codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from midas_world.config import WorldConfig
from midas_world.model.conditions import Conditions, stack_conditions
from midas_world.types import StepConditions


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What an engine runs and on what.

    Attributes:
        config: Of the world: picture, steps per second, tokens and conditions.
        backend: "torch", "onnx", "tensorrt" or "rtx".
        device: Where the networks run, such as "cpu" or "cuda:0".
        dtype: What most of their weights are, such as "bfloat16".
        num_denoise_steps: K, head passes per frame.
        reason: In words, why this backend and dtype were chosen.
    """

    config: WorldConfig
    backend: str
    device: str
    dtype: str
    num_denoise_steps: int
    reason: str = ""

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return self.config.height, self.config.width, 3

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(N, C)."""
        return self.config.tokens_per_frame, self.config.token_channels

    @property
    def positions_per_frame(self) -> int:
        """M + N: backbone positions of one frame."""
        return self.config.conditions.num_tokens + self.config.tokens_per_frame

    @property
    def fps(self) -> int:
        """Steps per second."""
        return self.config.fps

    def stack(self, steps: Sequence[StepConditions]) -> Conditions:
        """Return the conditions of B games at one step, (B, 1, ...), without entry codes."""
        capacity = self.config.entries.capacity
        return stack_conditions(steps, self.config.conditions, capacity=capacity)

    def check_frames(self, frames: np.ndarray) -> None:
        """Check that frames are uint8 (B, H, W, 3).

        Raises:
            ValueError: They have another shape or dtype.
        """
        expected = self.frame_shape
        if frames.ndim != 4 or frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise ValueError(
                f"frames must be uint8 of shape (B, {', '.join(map(str, expected))}), "
                f"got {frames.dtype} of shape {frames.shape}"
            )

    def __str__(self) -> str:
        """Words for a window or a log."""
        steps = self.num_denoise_steps
        return f"{self.backend} {self.dtype} on {self.device}, {steps} denoise steps"


class Made(NamedTuple):
    """What a step made; float32, new, on the CPU.

    Attributes:
        latents: (B, N, C) of the new frames.
        reward: (B,) expected.
        cost: (B,) probability of a hit.
        termination: (B,) probability of the episode's end.
        entries: (B, 2, K + 1) probabilities of what comes next at the left and at the right; the
            last class is nothing.
        gone: (B, J) bool: told codes whose things are no more.
    """

    latents: Tensor
    reward: Tensor
    cost: Tensor
    termination: Tensor
    entries: Tensor
    gone: Tensor


class Cache(Protocol):
    """What an engine remembers of the frames of B games. Only the engine that made it reads it."""

    def reset(self) -> None:
        """Forget everything, so that the next frames are those of a new cache."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all that changes, under fixed names and shapes."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly from what `state` gave."""
        ...


class Engine(Protocol):
    """Runs a world's networks for B games at once."""

    @property
    def spec(self) -> EngineSpec:
        """What this engine runs and on what."""
        ...

    def new_cache(self, batch_size: int) -> Cache:
        """Return the empty cache of B games.

        Raises:
            ValueError: batch_size is below 1.
        """
        ...

    def prefill(
        self, cache: Cache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        """Replace what the cache remembers of some games by F frames; other games are untouched.

        Args:
            cache: Changed.
            context: (R, F, N, C) float32 latents, for each frame those of the frame before it;
                F may be 0.
            conditions: (R, F, ...) of each frame.
            rows: The R games.
        """
        ...

    def step(self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor) -> Made:
        """Make the next frame of every game and add it to the cache.

        Args:
            cache: Changed.
            latents: (B, N, C) float32 of the last frame.
            conditions: (B, 1, ...) of the next frame.
            noise: (B, N, C) float32, standard normal times the temperature.
        """
        ...

    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        ...

    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C).

        Raises:
            ValueError: The frames have another shape or dtype.
        """
        ...
