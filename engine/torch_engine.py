"""The torch engine: runs everywhere, on a CPU or a GPU, and is what other engines are held to.

The backbone, the head and the decoder run in one dtype, cast once; conditions, outcome heads and
the latents between steps stay float32, because a pose in bfloat16 would be off by half a pixel.

On a CUDA device a step is one CUDA graph, and the drawing of its frame another (torch_graphs.py); a
device that refuses to capture them gets the plain path, and the spec says why.

Shapes: B games, R rows of them, F frames, M condition tokens, N tokens per frame, C channels.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.packed_layers import can_pack
from engine.spec import Cache, EngineSpec
from engine.torch_capture import CaptureError, CudaCapturer
from engine.torch_graphs import StepGraphs
from engine.torch_networks import (
    autoencoder_for_play,
    model_for_play,
    native_dtypes,
    refiner_for_play,
)
from midas_world.autoencoder import normalize_frames, quantize_frames, to_grid, to_tokens
from midas_world.conditions import Conditions
from midas_world.diffusion import Sampler, sigma_schedule
from midas_world.kv_cache import KVCache
from midas_world.uncertainty import head_spread
from midas_world.world import World

_log = logging.getLogger(__name__)


class TorchCache:
    """A KV cache whose whole state can be copied out and in."""

    def __init__(self, kv_cache: KVCache) -> None:
        self.kv_cache = kv_cache

    def reset(self) -> None:
        """Forget everything."""
        self.kv_cache.reset()
        self.kv_cache.num_committed = 0

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all that changes."""
        cache = self.kv_cache
        return {
            "keys": cache.keys.clone(),
            "values": cache.values.clone(),
            "frames_held": cache.frames_held.clone(),
            "foretold": cache.foretold.clone(),
            "phase": cache.phase.clone(),
            "num_committed": torch.tensor(cache.num_committed),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly from what `state` gave.

        Raises:
            ValueError: A tensor has another shape than this cache.
        """
        cache = self.kv_cache
        names = "keys", "values", "frames_held", "foretold", "phase"
        for name in names:
            own, given = getattr(cache, name), state[name]
            if own.shape != given.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(own.shape)}, got {tuple(given.shape)}"
                )
        for name in names:
            getattr(cache, name).copy_(state[name])
        cache.num_committed = int(state["num_committed"])


class TorchEngine:
    """Runs a world's networks with PyTorch.

    Args:
        world: What to run; it is not changed.
        device: "cpu" or "cuda"; None takes the GPU if there is one.
        dtype: Of backbone, head and decoder; None takes the first of `native_dtypes`.
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        compile: Compile head and decoder with torch.compile: a minute of waiting for faster steps.
        graphs: Whether steps run as CUDA graphs; None: on a CUDA device they do.
        reason: In words, why the backend was chosen, for the spec.

    Raises:
        ValueError: num_denoise_steps is below 1, or there are to be graphs on another device.
    """

    def __init__(
        self,
        world: World,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        num_denoise_steps: int | None = None,
        compile: bool = False,
        graphs: bool | None = None,
        reason: str = "as asked",
    ) -> None:
        config = world.config.world
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = dtype or native_dtypes(self._device)[0]
        steps = config.diffusion.num_denoise_steps
        steps = steps if num_denoise_steps is None else num_denoise_steps
        sigmas = sigma_schedule(steps)
        self._spec = EngineSpec(
            config=config,
            backend="torch-compile" if compile else "torch",
            device=str(self._device),
            dtype=str(self._dtype).removeprefix("torch."),
            num_denoise_steps=steps,
            reason=reason,
        )
        # Compiled code takes plain weights alone, and lays them out by itself.
        is_packed = self._device.type == "cpu" and not compile and can_pack(self._dtype)
        cast = {"dtype": self._dtype, "device": self._device}
        self._model = model_for_play(world.model, **cast, is_packed=is_packed)
        self._head = self._model.head
        self._sampler = Sampler(self._head, sigmas)
        self._autoencoder = autoencoder_for_play(world.autoencoder, **cast, is_packed=is_packed)
        self._encoder = world.autoencoder if is_packed else self._autoencoder
        self._refiner = refiner_for_play(world.refiner, **cast)
        if compile:
            self._compile()
        self._graphs: StepGraphs | None = None
        if graphs is None:
            # An engine made of this one runs some networks elsewhere, with graphs of its own.
            graphs = self._device.type == "cuda" and type(self) is TorchEngine
        if graphs:
            if self._device.type != "cuda":
                raise ValueError(f"graphs need a CUDA device, got {str(self._device)!r}")
            self._graphs = StepGraphs(
                CudaCapturer(self._device), self._spec, hidden_dtype=self._dtype
            )

    @property
    def spec(self) -> EngineSpec:
        """What this engine runs and on what."""
        return self._spec

    def new_cache(self, batch_size: int) -> TorchCache:
        """Return the empty cache of B games; see `Engine.new_cache`."""
        return TorchCache(self._model.new_cache(batch_size, dtype=self._dtype, device=self._device))

    @torch.inference_mode()
    def prefill(
        self, cache: Cache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        """Replace what the cache remembers of some games by F frames; see `Engine.prefill`."""
        assert isinstance(cache, TorchCache)
        source = self.new_cache(len(rows))
        context, conditions = context.to(self._device), conditions.to(self._device)
        with cache.kv_cache.replacing(rows, source.kv_cache, num_frames=context.shape[1]):
            for frame in range(context.shape[1]):
                self._advance(source, context[:, frame], conditions.frames(frame, frame + 1))

    @torch.inference_mode()
    def step(
        self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make the next frame of every game and add it to the cache; see `Engine.step`."""
        made = self._step_by_graph(cache, latents, conditions, noise)
        if made is not None:
            return made
        hidden = self._advance(cache, latents, conditions)
        return self._make(hidden, latents, noise)

    @torch.inference_mode()
    def step_with_spread(
        self,
        cache: Cache,
        latents: Tensor,
        conditions: Conditions,
        noise: Tensor,
        extra_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make the next frame and tell the head's spread; see `SpreadEngine.step_with_spread`."""
        made = self._step_by_graph(cache, latents, conditions, noise)
        if made is not None:
            assert self._graphs is not None
            hidden = self._graphs.hidden(len(latents))
        else:
            hidden = self._advance(cache, latents, conditions)
        # Not in one batch with the frame's own pass: that would change its last bits.
        context = latents.to(device=self._device, dtype=self._dtype)
        spread = head_spread(self._head, hidden, context, extra_noise.to(self._device))
        return *(made or self._make(hidden, latents, noise)), spread.cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        frames = self._frames_by_graph(latents, None)
        if frames is not None:
            return frames
        return self._pixels(latents.to(self._device)).cpu().numpy()

    @torch.inference_mode()
    def draw(self, latents: Tensor, conditions: Conditions) -> np.ndarray:
        """Return frames as they are shown, in one go on the device; see `Engine.draw`."""
        frames = self._frames_by_graph(latents, conditions)
        if frames is not None:
            return frames
        return self._shown(latents.to(self._device), conditions.to(self._device)).cpu().numpy()

    @torch.inference_mode()
    def refine(self, frames: np.ndarray, conditions: Conditions) -> np.ndarray:
        """Return decoded frames with the character drawn anew; see `Engine.refine`."""
        self._spec.check_refines(frames)
        assert self._refiner is not None
        decoded = torch.tensor(frames, device=self._device)
        return self._refiner(decoded, conditions.to(self._device)).cpu().numpy()

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C)."""
        self._spec.check_frames(frames)
        pixels = normalize_frames(torch.tensor(np.ascontiguousarray(frames), device=self._device))
        return to_tokens(self._encoder.encode(pixels)).contiguous().cpu()

    def _compile(self) -> None:
        self._sampler = torch.compile(self._sampler, dynamic=False)
        self._autoencoder.decoder.compile(dynamic=False)
        if self._refiner is not None:
            self._refiner.redraw = torch.compile(self._refiner.redraw, dynamic=False)

    def _step_by_graph(
        self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return what `step` does, or None where there are no graphs."""
        if self._graphs is None:
            return None
        assert isinstance(cache, TorchCache)
        try:
            return self._graphs.step(
                self, cache, cache.kv_cache, latents=latents, conditions=conditions, noise=noise
            )
        except CaptureError as error:
            self._give_up_graphs(error)
            return None

    def _frames_by_graph(self, latents: Tensor, conditions: Conditions | None) -> np.ndarray | None:
        """Return what `draw` does, without conditions what `decode` does; None: no graph does."""
        if self._graphs is None:
            return None
        try:
            return self._graphs.frames(self, latents, conditions)
        except CaptureError as error:
            self._give_up_graphs(error)
            return None

    def _give_up_graphs(self, error: CaptureError) -> None:
        _log.warning("%s; the plain path runs instead, which is slower", error)
        self._graphs = None
        self._spec = replace(self._spec, reason=f"{self._spec.reason}; no graphs: {error}")

    def _advance(self, cache: Cache, latents: Tensor, conditions: Conditions) -> Tensor:
        """Return the next frame's hidden states, (B, N, Z), and add the last frame to the cache."""
        assert isinstance(cache, TorchCache)
        hidden = self._hidden(cache.kv_cache, latents.to(self._device), conditions.to(self._device))
        cache.kv_cache.commit()
        return hidden

    def _make(
        self, hidden: Tensor, latents: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `step` does, of hidden states (B, N, Z)."""
        made = self._sample(hidden, latents.to(self._device), noise.to(self._device))
        latents, reward, termination = (tensor.cpu() for tensor in made)
        return latents, reward, termination

    def _sample(
        self, hidden: Tensor, latents: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `step` does, all on the device."""
        change = self._sampler(latents, hidden, noise)
        outcome = self._model.outcome
        reward_logits, termination_logits = outcome(hidden.float())
        return (
            latents + change * self._model.change_std,
            outcome.reward(reward_logits),
            termination_logits.sigmoid(),
        )

    def _pixels(self, latents: Tensor) -> Tensor:
        """Return the frames of latents (B, N, C), uint8 (B, H, W, 3), both on the device."""
        grid = to_grid(latents, self._spec.config.grid)
        grid = grid.to(dtype=self._dtype, memory_format=torch.channels_last)
        return quantize_frames(self._autoencoder.decode(grid)).contiguous()

    def _shown(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Return the frames of latents (B, N, C) as they are shown, all on the device."""
        frames = self._pixels(latents)
        return frames if self._refiner is None else self._refiner(frames, conditions)

    def _hidden(self, cache: KVCache, latents: Tensor, conditions: Conditions) -> Tensor:
        """Return the present frame's hidden states, (R, N, Z); writes its slot of the cache."""
        return self._model.step_hidden(latents, conditions, cache)
