"""The ONNX Runtime engine: the fastest on a CPU.

The decoder's convolutions are eight-bit; what makes the next step's latents stays float32, so that
errors do not add up. The KV cache is never copied: the graph reads the ring where it lies and gives
the new frame's rows alone.

Shapes: B games, R rows of them, F frames, T positions per frame, N tokens per frame, C channels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.on_onnx.export import export_graphs
from engine.on_onnx.graphs import GUIDANCE, HEAD_OUTPUTS, backbone_inputs, make_graph
from engine.on_onnx.runtime import GraphRunner
from engine.on_torch.engine import TorchCache
from engine.spec import Cache, Engine, EngineSpec, Made
from midas_world.model.autoencoder import normalize_frames
from midas_world.model.conditions import Conditions
from midas_world.model.diffusion import sigma_schedule
from midas_world.model.kv_cache import KVCache
from midas_world.plain_torch import plain_torch
from midas_world.world import World


class OnnxCache(TorchCache):
    """A KV cache whose whole state can be copied out and in, and arrays for graphs to write to."""

    def __init__(self, kv_cache: KVCache, guidance: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(kv_cache)
        layers, batch, heads, _, size = kv_cache.keys.shape
        own = kv_cache.positions_per_frame
        self.guidance = {
            name: np.empty((batch, *shape), np.float32) for name, shape in guidance.items()
        }
        self.rows = {
            name: np.empty((layers, batch, heads, own, size), np.float32)
            for name in ("new_keys", "new_values")
        }


class OnnxEngine(Engine):
    """Runs a world's networks with ONNX Runtime on the CPU.

    The graphs are exported on first use, which takes a minute or two, and kept in the user's
    cache folder.

    Args:
        world: What to run; it is not changed.
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Above the folder of graphs; None is the user's cache.
        reason: In words, why it was chosen, for the spec.

    Raises:
        ValueError: num_denoise_steps is below 1.
        BackendUnavailableError: The graphs are not there and cannot be exported.
    """

    def __init__(
        self,
        world: World,
        *,
        num_denoise_steps: int | None = None,
        folder: Path | None = None,
        reason: str = "as asked",
    ) -> None:
        config = world.config.world
        steps = config.head.num_denoise_steps if num_denoise_steps is None else num_denoise_steps
        sigma_schedule(steps)  # says what is wrong with a number of steps
        self._world = world
        self._spec = EngineSpec(
            config=config,
            backend="onnx",
            device="cpu",
            dtype="int8",
            num_denoise_steps=steps,
            reason=reason,
        )
        head = make_graph("head", world, num_denoise_steps=1, batch_size=1).inputs
        self._guidance = {name: tuple(head[name].shape[1:]) for name in GUIDANCE}
        paths = export_graphs(world, num_denoise_steps=steps, folder=folder)
        threads = torch.get_num_threads()
        self._sessions = {n: GraphRunner(path, num_threads=threads) for n, path in paths.items()}

    @property
    def spec(self) -> EngineSpec:
        """What this engine runs and on what."""
        return self._spec

    def new_cache(self, batch_size: int) -> OnnxCache:
        """Return the empty cache of B games; see `Engine.new_cache`."""
        cpu = torch.device("cpu")
        kv_cache = self._world.model.new_cache(batch_size, dtype=torch.float32, device=cpu)
        return OnnxCache(kv_cache, self._guidance)

    def prefill(
        self, cache: Cache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        """Replace what the cache remembers of some games by F frames; see `Engine.prefill`."""
        assert isinstance(cache, OnnxCache)
        source = self.new_cache(len(rows))
        with cache.kv_cache.replacing(rows, source.kv_cache, num_frames=context.shape[1]):
            for frame in range(context.shape[1]):
                self._advance(source, context[:, frame], conditions.frames(frame, frame + 1))

    def step(self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor) -> Made:
        """Make the next frame of every game and add it to the cache; see `Engine.step`."""
        assert isinstance(cache, OnnxCache)
        gone, coming = self._advance(cache, latents, conditions)
        batch = len(latents)
        made = Made(
            latents=torch.empty(latents.shape),
            reward=torch.empty(batch),
            cost=torch.empty(batch),
            termination=torch.empty(batch),
            entries=torch.from_numpy(coming),
            gone=torch.from_numpy(gone),
        )
        names = {"next_latents": "latents"}
        outputs = {name: getattr(made, names.get(name, name)).numpy() for name in HEAD_OUTPUTS}
        given = {"latents": _array(latents), "noise": _array(noise)}
        self._sessions["head"].run(given | cache.guidance, outputs)
        return made

    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        frames = np.empty((len(latents), *self._spec.frame_shape), np.uint8)
        self._sessions["decoder"].run({"latents": _array(latents)}, {"frames": frames})
        return frames

    @plain_torch()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C).

        By torch: games seldom begin at given frames, and the encoder would be one more graph.
        """
        self._spec.check_frames(frames)
        pixels = normalize_frames(torch.from_numpy(np.ascontiguousarray(frames)))
        return self._world.model.to_tokens(self._world.autoencoder.encode(pixels)).contiguous()

    def _advance(
        self, cache: OnnxCache, latents: Tensor, conditions: Conditions
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run one frame through the backbone; the cache gets its rows and the head's guidance.

        Returns:
            Which codes are gone, (B, J) bool; chances of what enters next, (B, 2, K + 1).
        """
        ring = cache.kv_cache
        start = ring.slot * ring.positions_per_frame
        own = slice(start, start + ring.positions_per_frame)
        camera = np.empty(len(latents), np.float32)
        gone = np.empty(conditions.entries.shape[::2], bool)
        num_classes = self._spec.config.entries.num_classes
        coming = np.empty((len(latents), 2, num_classes + 1), np.float32)
        given = backbone_inputs(latents, conditions, ring)
        self._sessions["backbone"].run(
            {name: _array(tensor) for name, tensor in given.items()},
            {**cache.guidance, **cache.rows, "camera": camera, "gone": gone, "coming": coming},
        )
        ring.keys.numpy()[:, :, :, own] = cache.rows["new_keys"]
        ring.values.numpy()[:, :, :, own] = cache.rows["new_values"]
        ring.before.copy_(latents)
        ring.camera.copy_(torch.from_numpy(camera))
        ring.audio.copy_(conditions.audio[:, 0])
        ring.commit()
        return gone, coming


def _array(tensor: Tensor) -> np.ndarray:
    """Return a CPU tensor as a contiguous array, of the same memory where it can be."""
    return tensor.contiguous().numpy()
