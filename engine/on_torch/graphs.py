"""A torch engine's step, and the decoding of its frame, as CUDA graphs: one launch each.

A step of small networks on a GPU is mostly the time to launch its hundreds of kernels. A graph
launches them all at once; what it reads and writes lies at fixed addresses, so nothing is
allocated from one step to the next. Inputs go up in one copy and results come down in one, and the
host waits for those results alone. The next frame is decoded while the host works on, if the last
one was asked for.

The same modules run as in the plain engine, on the same numbers; only the place in the ring of the
KV cache is read from a tensor (`GraphCache`). On the CPU that, the buffers and the order of the
work are tested with a stand-in for capture, and that nothing captured stops the host or reads from
it on a pretended device (tests/test_capturable.py). Capture itself was not run on a device yet: the
tests of tests/test_torch_graphs.py that are marked `gpu` do that.

Graphs of one engine share their memory for intermediate results: threads wait for one another.

Shapes: B games, N tokens per frame, C their channels, T positions per frame, H W pixels.
"""

import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from engine.on_torch.capture import CaptureError, Capturer, Pack
from engine.spec import EngineSpec, Made
from midas_world.model.conditions import Conditions
from midas_world.model.entries import Fate
from midas_world.model.head import Guidance
from midas_world.model.kv_cache import KVCache

# What of a KV cache a step changes, beside the slot that it writes.
_CHANGED = "frames_held", "before", "camera", "audio"


class Networks(Protocol):
    """What is captured: methods of the engine, tensors in and out on its device."""

    def _guide(
        self, cache: KVCache, latents: Tensor, conditions: Conditions
    ) -> tuple[Guidance, Fate]: ...

    def _make(
        self, guided: tuple[Guidance, Fate], conditions: Conditions, noise: Tensor
    ) -> Made: ...

    def _pixels(self, latents: Tensor) -> Tensor: ...


class GraphCache(KVCache):
    """A KV cache's own tensors, with the place in the ring as a tensor that a graph can read."""

    def __init__(self, cache: KVCache) -> None:
        self.__dict__.update(cache.__dict__)
        device = cache.keys.device
        self._cache = cache
        self._committed = torch.zeros((), dtype=torch.int64, device=device)
        self._rows = torch.arange(cache.positions_per_frame, device=device)

    def follow(self) -> None:
        """Take over the frame count of the cache; a launch, not a copy from the host's memory."""
        self.num_committed = self._cache.num_committed
        self._committed.fill_(self.num_committed)

    def rope(self) -> tuple[Tensor, Tensor]:
        """Return cosine and sine for the present frame, each (T, head_dim), float32."""
        positions = self._offsets + (self._committed * self.positions_per_frame).double()
        angles = positions[:, None] * self._frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().float(), angles.sin().float()

    def mask(self) -> Tensor:
        """Return which cached rows the present frame sees, (B, 1, 1, context_frames * T) bool."""
        frames = self.config.context_frames
        age = (self._committed % frames - self._slots) % frames
        seen = age[None] <= self.frames_held[:, None]
        return seen.repeat_interleave(self.positions_per_frame, dim=1)[:, None, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Change the present frame's slot of a layer and return all its keys and values."""
        slot = self._committed % self.config.context_frames
        rows = slot * self.positions_per_frame + self._rows
        self.keys[layer].index_copy_(2, rows, keys.to(self.keys.dtype))
        self.values[layer].index_copy_(2, rows, values.to(self.values.dtype))
        return self.keys[layer], self.values[layer]

    def commit(self) -> None:
        """Make the present frame part of the past; the cache it was made of counts it."""
        self.frames_held.add_(1).clamp_(max=self.config.context_frames - 1)


class _Lane:
    """Inputs and results of a number of games, for all caches of so many."""

    def __init__(self, capturer: Capturer, spec: EngineSpec, batch: int) -> None:
        config, latent, real = spec.config, (batch, *spec.latent_shape), torch.float32
        sizes, entries = config.conditions, config.entries
        numbers = Pack(
            capturer,
            {
                "latents": (latent, real),
                "noise": (latent, real),
                "entries": ((batch, 1, entries.capacity, 2), real),
                "tally": ((batch, 1, 2), real),
                "pose": ((batch, 1, sizes.pose_size), real),
                "text": ((batch, 1, sizes.text_length), torch.int64),
                "audio": ((batch, 1, sizes.audio_size), real),
                "present": ((batch, 1, 3), torch.bool),
                "made.latents": (latent, real),
                "made.reward": ((batch,), real),
                "made.cost": ((batch,), real),
                "made.termination": ((batch,), real),
                "made.entries": ((batch, 2, entries.num_classes + 1), real),
                "made.gone": ((batch, entries.capacity), torch.bool),
            },
        )
        # What a step reads, what it makes, and of that what is decoded.
        self.given = numbers.between("latents", "present")
        self.made = numbers.between("made.latents", "made.gone")
        self.decoded = numbers.between("made.latents", "made.latents")
        names = [field.name for field in fields(Conditions)]
        self.conditions = Conditions(**{name: numbers.device[name] for name in names})
        self.frames = Pack(capturer, {"frames": ((batch, *spec.frame_shape), torch.uint8)})
        self.decode: Callable[[], None] | None = None
        # Whether the last step's frames were asked for.
        self.is_watched = False
        # What waits until the frames of `decoded` are there, if they are on their way.
        self.wait_for_frames: Callable[[], None] | None = None


class StepGraphs:
    """An engine's graphs: one per cache for its step; per number of games, one that decodes."""

    def __init__(self, capturer: Capturer, spec: EngineSpec) -> None:
        self._capturer, self._spec = capturer, spec
        self._lanes: dict[int, _Lane] = {}
        self._lock = threading.Lock()
        # By the engine's cache: its graph goes with it.
        self._steps: WeakKeyDictionary[object, tuple[GraphCache, Callable[[], None]]] = (
            WeakKeyDictionary()
        )

    def step(
        self,
        networks: Networks,
        owner: object,
        cache: KVCache,
        *,
        latents: Tensor,
        conditions: Conditions,
        noise: Tensor,
    ) -> Made:
        """Do what `Engine.step` does; the first step of a cache captures its graph.

        Raises:
            CaptureError: The step cannot be captured; frames that the cache remembers are as
                before.
            ValueError: An input has another shape than the cache's games.
        """
        with self._lock:
            lane = self._lane(cache.keys.shape[1])
            lane.given.fill({"latents": latents, "noise": noise, **vars(conditions)})
            lane.given.upload()
            lane.wait_for_frames = None
            if owner not in self._steps:
                self._steps[owner] = self._capture_step(networks, cache, lane)
            graph_cache, replay = self._steps[owner]
            graph_cache.follow()
            replay()
            cache.num_committed += 1
            lane.made.download()
            wait = self._capturer.mark()
            if lane.is_watched:
                self._decode(lane)
                lane.is_watched = False
            wait()
            return Made(*(tensor.clone() for tensor in lane.made.host.values()))

    def frames(self, networks: Networks, latents: Tensor) -> np.ndarray | None:
        """Return the frames of latents (B, N, C), uint8 (B, H, W, 3); None: no B games play here.

        Raises:
            CaptureError: Decoding cannot be captured.
        """
        with self._lock:
            lane = self._lanes.get(len(latents))
            asked = {"made.latents": latents}
            if lane is None or latents.shape != lane.decoded.host["made.latents"].shape:
                return None
            if lane.decode is None:
                lane.decode = self._capture_decoding(networks, lane)
            # Whoever asks for other frames than the last step's says nothing of the next one's.
            lane.is_watched = lane.decoded.holds(asked)
            if not lane.is_watched:
                lane.decoded.fill(asked)
                lane.decoded.upload()
            if not lane.is_watched or lane.wait_for_frames is None:
                self._decode(lane)
            assert lane.wait_for_frames is not None
            lane.wait_for_frames()
            return lane.frames.host["frames"].numpy().copy()

    def _decode(self, lane: _Lane) -> None:
        """Begin to decode what lies in a lane."""
        assert lane.decode is not None
        lane.decode()
        lane.frames.download()
        lane.wait_for_frames = self._capturer.mark()

    def _capture_decoding(self, networks: Networks, lane: _Lane) -> Callable[[], None]:
        latents, frames = lane.decoded.device["made.latents"], lane.frames.device["frames"]
        return self._captured(lambda: frames.copy_(networks._pixels(latents)))

    def _capture_step(
        self, networks: Networks, cache: KVCache, lane: _Lane
    ) -> tuple[GraphCache, Callable[[], None]]:
        graph_cache = GraphCache(cache)
        graph_cache.follow()
        given = lane.given.device

        def work() -> None:
            guided = networks._guide(graph_cache, given["latents"], lane.conditions)
            graph_cache.commit()
            made = networks._make(guided, lane.conditions, given["noise"])
            for own, tensor in zip(lane.made.device.values(), made, strict=True):
                own.copy_(tensor)

        # The runs before capture write the slot that the step itself is about to write, which
        # nobody sees; what they count and remember is taken back.
        changed = [getattr(cache, name) for name in _CHANGED]
        before = [tensor.clone() for tensor in changed]
        try:
            return graph_cache, self._captured(work)
        finally:
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)

    def _captured(self, work: Callable[[], object]) -> Callable[[], None]:
        def quiet() -> None:
            work()

        try:
            return self._capturer.capture(quiet)
        except RuntimeError as error:
            words = str(error).partition("\n")[0]
            raise CaptureError(f"CUDA graphs cannot be had: {words}") from error

    def _lane(self, batch: int) -> _Lane:
        if batch not in self._lanes:
            self._lanes[batch] = _Lane(self._capturer, self._spec, batch)
        return self._lanes[batch]
