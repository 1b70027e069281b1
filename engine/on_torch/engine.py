"""The torch engine: runs everywhere, on a CPU or a GPU, and is what other engines are held to.

The backbone, the head's convolutions and the decoder run in one dtype, cast once; what is around
them and the latents between steps stay float32 (networks.py).

Shapes: B games, R rows of them, F frames, N tokens per frame, C their channels, K classes of
things, w columns of the fine grid.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engine.on_torch.networks import Sampler, autoencoder_for_play, model_for_play, native_dtypes
from engine.spec import Cache, EngineSpec, Made
from midas_world.model.autoencoder import normalize_frames, quantize_frames
from midas_world.model.conditions import Conditions
from midas_world.model.kv_cache import KVCache
from midas_world.model.world_model import Guided
from midas_world.plain_torch import plain_torch
from midas_world.world import World

# What of a KV cache changes, beside the count of frames.
_CHANGING = "keys", "values", "frames_held", "before", "camera", "audio"


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
        state = {name: getattr(cache, name).clone() for name in _CHANGING}
        return state | {"num_committed": torch.tensor(cache.num_committed)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly from what `state` gave.

        Raises:
            ValueError: A tensor has another shape than this cache.
        """
        cache = self.kv_cache
        for name in _CHANGING:
            own, given = getattr(cache, name), state[name]
            if own.shape != given.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(own.shape)}, got {tuple(given.shape)}"
                )
        for name in _CHANGING:
            getattr(cache, name).copy_(state[name])
        cache.num_committed = int(state["num_committed"])


class TorchEngine:
    """Runs a world's networks with PyTorch.

    Args:
        world: What to run; it is not changed.
        device: "cpu" or "cuda"; None takes the GPU if there is one.
        dtype: Of the large networks; None takes the first of `native_dtypes`.
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        backend: What it is called, for the spec.
        sampler: In the place of the head's own: runs it elsewhere, from guidance and noise.
        decode: In the place of the decoder, likewise: latents (B, c, h, w) float32 to pixels.
        reason: In words, why the backend was chosen, for the spec.

    Raises:
        ValueError: num_denoise_steps is below 1.
    """

    def __init__(
        self,
        world: World,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        num_denoise_steps: int | None = None,
        backend: str = "torch",
        sampler: nn.Module | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
        reason: str = "as asked",
    ) -> None:
        config = world.config.world
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = dtype or native_dtypes(self._device)[0]
        steps = config.head.num_denoise_steps
        steps = steps if num_denoise_steps is None else num_denoise_steps
        self._spec = EngineSpec(
            config=config,
            backend=backend,
            device=str(self._device),
            dtype=str(self._dtype).removeprefix("torch."),
            num_denoise_steps=steps,
            reason=reason,
        )
        cast = {"dtype": self._dtype, "device": self._device}
        self._model = model_for_play(world.model, **cast)
        self._sampler = sampler or Sampler(self._model, steps)
        self._autoencoder = autoencoder_for_play(world.autoencoder, **cast)
        self._decode = decode

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
                given = conditions.frames(frame, frame + 1)
                self._guide(source.kv_cache, context[:, frame], given)
                source.kv_cache.commit()

    @torch.inference_mode()
    def step(self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor) -> Made:
        """Make the next frame of every game and add it to the cache; see `Engine.step`."""
        assert isinstance(cache, TorchCache)
        conditions = conditions.to(self._device)
        guided = self._guide(cache.kv_cache, latents.to(self._device), conditions)
        cache.kv_cache.commit()
        made = self._make(guided, conditions, noise.to(self._device))
        return Made(*(tensor.cpu() for tensor in made))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        return self._pixels(latents.to(self._device)).cpu().numpy()

    @plain_torch()
    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C)."""
        self._spec.check_frames(frames)
        pixels = normalize_frames(torch.tensor(np.ascontiguousarray(frames), device=self._device))
        return self._model.to_tokens(self._autoencoder.encode(pixels)).contiguous().cpu()

    def _guide(self, cache: KVCache, latents: Tensor, conditions: Conditions) -> Guided:
        """Return what `WorldModel.step_guidance` does; writes its slot of the cache."""
        return self._model.step_guidance(latents, conditions, cache)

    def _make(self, guided: Guided, conditions: Conditions, noise: Tensor) -> Made:
        """Return what `step` does, all on the device."""
        model, (guidance, fate, coming) = self._model, guided
        latents = self._sampler(guidance, model.to_grid(noise))
        logits = model.outcomes(latents, guidance, model.near(conditions), fate.told)
        return Made(
            latents=model.to_tokens(latents).contiguous(),
            reward=model.outcome.reward(logits.reward),
            cost=logits.cost.sigmoid(),
            termination=logits.termination.sigmoid(),
            entries=coming.softmax(dim=-1),
            gone=fate.gone > 0,
        )

    def _pixels(self, latents: Tensor) -> Tensor:
        """Return the frames of latents (B, N, C), uint8 (B, H, W, 3), both on the device."""
        grid = self._model.to_grid(latents)
        if self._decode is not None:
            return quantize_frames(self._decode(grid)).contiguous()
        grid = grid.to(dtype=self._dtype, memory_format=torch.channels_last)
        return quantize_frames(self._autoencoder.decode(grid)).contiguous()
