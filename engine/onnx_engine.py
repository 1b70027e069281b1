"""The ONNX Runtime engine: the fastest on a CPU.

In "int8" the products of backbone and sampler and the convolutions of the decoder are eight-bit;
conditions, attention, norms, outcome heads and the latents between steps stay float32. The KV
cache is never copied: the graph reads the ring where it lies and gives the new frame's rows alone.

Shapes: B games, R rows of them, F frames, T positions per frame, N tokens per frame, C channels.
"""

import functools
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.onnx_export import discard_graph, export_graphs
from engine.onnx_graphs import UNSEEN, graph_names
from engine.onnx_runtime import Session
from engine.spec import Cache, Engine, EngineSpec
from engine.torch_engine import TorchCache
from midas_world.autoencoder import normalize_frames, to_tokens
from midas_world.conditions import POSE, Conditions
from midas_world.diffusion import sigma_schedule
from midas_world.kv_cache import KVCache
from midas_world.types import CheckpointError
from midas_world.uncertainty import head_spread
from midas_world.world import World

DEFAULT_PRECISION = "int8"

_log = logging.getLogger(__name__)


class OnnxCache(TorchCache):
    """A KV cache whose whole state can be copied out and in, and arrays for graphs to write to."""

    def __init__(self, kv_cache: KVCache, spec: EngineSpec) -> None:
        super().__init__(kv_cache)
        layers, batch, heads, rows, size = kv_cache.keys.shape
        tokens, channels = spec.latent_shape
        width, hidden_width = spec.config.backbone.width, spec.config.hidden_width
        new_rows = (layers, batch, heads, spec.positions_per_frame, size)
        self.tokens = np.empty((batch, spec.positions_per_frame, width), np.float32)
        self.hidden = np.empty((batch, tokens, hidden_width), np.float32)
        # The changes that conditions foretell, for worlds with a renderer.
        self.changes = np.empty((batch, tokens, spec.config.num_changes * channels), np.float32)
        self.new_keys = np.empty(new_rows, np.float32)
        self.new_values = np.empty(new_rows, np.float32)
        self.mask = np.empty((batch, rows), np.float32)


class OnnxEngine(Engine):
    """Runs a world's networks with ONNX Runtime on the CPU.

    The graphs are exported on first use, which takes a minute or two, and kept in the user's
    cache folder.

    Args:
        world: What to run; it is not changed.
        precision: "int8" or "float32".
        num_threads: That work on one graph; None is as many as torch would use.
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Above the folder of graphs; None is the user's cache.
        reason: In words, why it was chosen, for the spec.

    Raises:
        ValueError: num_denoise_steps or num_threads is below 1, or no precision has this name.
        BackendUnavailableError: The graphs are not there and cannot be exported.
    """

    def __init__(
        self,
        world: World,
        *,
        precision: str = DEFAULT_PRECISION,
        num_threads: int | None = None,
        num_denoise_steps: int | None = None,
        folder: Path | None = None,
        reason: str = "as asked",
    ) -> None:
        config = world.config.world
        steps = config.diffusion.num_denoise_steps
        steps = steps if num_denoise_steps is None else num_denoise_steps
        sigma_schedule(steps)  # says what is wrong with a number of steps
        threads = torch.get_num_threads() if num_threads is None else num_threads
        if threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {threads}")
        self._world, self._folder, self._num_threads = world, folder, threads
        self._spec = EngineSpec(
            config=config,
            backend="onnx",
            device="cpu",
            dtype=precision,
            num_denoise_steps=steps,
            reason=reason,
        )
        self._sessions = self._load(graph_names(config), steps)

    @property
    def spec(self) -> EngineSpec:
        """What this engine runs and on what."""
        return self._spec

    def new_cache(self, batch_size: int) -> OnnxCache:
        """Return the empty cache of B games; see `Engine.new_cache`."""
        kv_cache = KVCache(
            self._spec.config.backbone,
            batch_size=batch_size,
            positions_per_frame=self._spec.positions_per_frame,
            dtype=torch.float32,
            device=torch.device("cpu"),
            foretold_shape=self._spec.config.foretold_shape,
        )
        return OnnxCache(kv_cache, self._spec)

    def prefill(
        self, cache: Cache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        """Replace what the cache remembers of some games by F frames; see `Engine.prefill`."""
        assert isinstance(cache, OnnxCache)
        source = self.new_cache(len(rows))
        with cache.kv_cache.replacing(rows, source.kv_cache, num_frames=context.shape[1]):
            for frame in range(context.shape[1]):
                self._advance(source, context[:, frame], conditions.frames(frame, frame + 1))

    def step(
        self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make the next frame of every game and add it to the cache; see `Engine.step`."""
        assert isinstance(cache, OnnxCache)
        self._advance(cache, latents, conditions)
        return self._make(cache, latents, noise)

    def step_with_spread(
        self,
        cache: Cache,
        latents: Tensor,
        conditions: Conditions,
        noise: Tensor,
        extra_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make the next frame and tell the head's spread; see `SpreadEngine.step_with_spread`.

        The first call exports and loads one more graph.
        """
        assert isinstance(cache, OnnxCache)
        self._advance(cache, latents, conditions)
        hidden = torch.from_numpy(cache.hidden)
        spread = head_spread(self._predict_from_noise, hidden, latents, extra_noise)
        return *self._make(cache, latents, noise), spread

    def _predict_from_noise(
        self, noise: Tensor, _: Tensor, hidden: Tensor, context: Tensor
    ) -> Tensor:
        """Return the head's prediction at sigma = 1, as `DiffusionHead` is called."""
        made = torch.empty(noise.shape)
        self._one_step_sampler.run(
            {"latents": _array(context), "hidden": _array(hidden), "noise": _array(noise)},
            {"next_latents": made.numpy()},
        )
        # With one denoise step, the sampler's result is the prediction, in latents.
        return (made - context) / self._world.model.change_std

    @functools.cached_property
    def _one_step_sampler(self) -> Session:
        """The head alone, as a sampler of one step."""
        return self._load(("sampler",), 1)["sampler"]

    def _load(self, names: Sequence[str], num_denoise_steps: int) -> dict[str, Session]:
        """Return graphs ready to run, exporting those that are missing or corrupt."""

        def export() -> dict[str, Path]:
            return export_graphs(
                self._world,
                num_denoise_steps=num_denoise_steps,
                precision=self._spec.dtype,
                names=names,
                folder=self._folder,
            )

        sessions = {}
        for name, path in export().items():
            try:
                sessions[name] = Session(path, num_threads=self._num_threads)
            except CheckpointError as error:
                _log.warning("%s; exporting it again", error)
                discard_graph(path)
                sessions[name] = Session(export()[name], num_threads=self._num_threads)
        return sessions

    def _make(
        self, cache: OnnxCache, latents: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `step` does, of the hidden states that the cache holds."""
        batch = len(latents)
        made = torch.empty(latents.shape)
        reward, termination = torch.empty(batch), torch.empty(batch)
        self._sessions["sampler"].run(
            {"latents": _array(latents), "hidden": cache.hidden, "noise": _array(noise)},
            {"next_latents": made.numpy()},
        )
        self._sessions["outcome"].run(
            {"hidden": cache.hidden},
            {"reward": reward.numpy(), "termination": termination.numpy()},
        )
        return made, reward, termination

    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        frames = np.empty((len(latents), *self._spec.frame_shape), np.uint8)
        self._sessions["decoder"].run({"latents": _array(latents)}, {"frames": frames})
        return frames

    @torch.no_grad()
    def refine(self, frames: np.ndarray, conditions: Conditions) -> np.ndarray:
        """Return decoded frames with the character drawn anew; see `Engine.refine`."""
        self._spec.check_refines(frames)
        refiner = self._world.refiner
        assert refiner is not None
        keypoints = refiner.keypoints(conditions)
        corners = refiner.corners(keypoints)
        height, width = refiner.config.window
        places = [np.s_[y : y + height, x : x + width] for x, y in corners.tolist()]
        windows = np.stack([frame[place] for frame, place in zip(frames, places, strict=True)])
        drawn = np.empty_like(windows)
        self._sessions["refiner"].run(
            {
                "windows": windows,
                "keypoints": _array(keypoints - corners[:, None]),
                "known": _array(refiner.known(conditions)),
            },
            {"drawn": drawn},
        )
        refined = frames.copy()
        is_posed = conditions.present[:, 0, POSE].tolist()
        for game in itertools.compress(range(len(frames)), is_posed):
            refined[game][places[game]] = drawn[game]
        return refined

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C).

        By torch: games seldom begin at given frames, and the encoder would be the largest graph.
        """
        self._spec.check_frames(frames)
        pixels = normalize_frames(torch.from_numpy(np.ascontiguousarray(frames)))
        return to_tokens(self._world.autoencoder.encode(pixels)).contiguous()

    def _advance(self, cache: OnnxCache, latents: Tensor, conditions: Conditions) -> None:
        """Run one frame through the backbone; the cache gets its rows and its hidden states."""
        ring = cache.kv_cache
        given = {**_condition_arrays(conditions), "latents": _array(latents)}
        changes, made = {}, {"tokens": cache.tokens}
        if self._spec.config.is_foretold:
            given["last_foretold"] = _array(ring.last_foretold(latents))
            changes = {"changes": cache.changes}
            made |= {"foretold": ring.foretold.numpy(), **changes}
        if self._spec.config.transport.is_moving:
            given["last_phase"] = _array(ring.phase)
        self._sessions["conditions"].run(given, made)
        if self._spec.config.transport.is_moving:
            ring.phase.copy_(self._world.model.conditions.camera_phase(conditions)[:, 0])
        start = ring.slot * ring.positions_per_frame
        own = slice(start, start + ring.positions_per_frame)
        cache.mask[:] = np.where(ring.mask()[:, 0, 0].numpy(), 0.0, UNSEEN)
        # The present frame meets attention by itself; what its slot holds is a frame too old.
        cache.mask[:, own] = UNSEEN
        cosine, sine = ring.rope()
        self._sessions["backbone"].run(
            {
                "tokens": cache.tokens,
                "cosine": cosine.numpy(),
                "sine": sine.numpy(),
                "mask": cache.mask,
                "keys": ring.keys.numpy(),
                "values": ring.values.numpy(),
                **changes,
            },
            {
                "hidden": cache.hidden,
                "new_keys": cache.new_keys,
                "new_values": cache.new_values,
            },
        )
        ring.keys.numpy()[:, :, :, own] = cache.new_keys
        ring.values.numpy()[:, :, :, own] = cache.new_values
        ring.commit()


def _condition_arrays(conditions: Conditions) -> dict[str, np.ndarray]:
    """Return the conditions of one frame, (B, 1, ...), as a graph's inputs."""
    return {
        "pose": _array(conditions.pose[:, 0]),
        "text": _array(conditions.text[:, 0]),
        "audio": _array(conditions.audio[:, 0]),
        "present": _array(conditions.present[:, 0]),
    }


def _array(tensor: Tensor) -> np.ndarray:
    """Return a CPU tensor as a contiguous array, of the same memory where it can be."""
    return tensor.contiguous().numpy()
