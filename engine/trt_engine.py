"""The TensorRT engine: sampler and decoder as engine files, all else of a step with torch.

Condition encoder, backbone, outcome heads and refiner run with torch on the same stream. A step's K
denoise steps and the drawing of its frame are one CUDA graph: whoever then asks for that frame gets
it without another call of the network. The frame is drawn as the last one was asked for, decoded or
refined as well; if nobody asked for that, the denoise steps run alone.

Shapes: B games, N tokens per frame, C channels, D width, H W pixels.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.cache_folder import write_whole
from engine.spec import Cache
from engine.torch_engine import TorchCache, TorchEngine
from engine.trt_build import (
    EngineFile,
    Target,
    capability_here,
    default_folder,
    provide_engine,
)
from engine.trt_memory import CudaDevice, Device
from engine.trt_plan import DEFAULT_PLANS, PLAN_GRAPHS, TrtPlan, load_plans
from engine.trt_runtime import EXTRAS, EngineLoadError, LoadedEngine
from midas_world.conditions import Conditions, stack_conditions
from midas_world.types import StepConditions
from midas_world.world import World

BACKENDS = {"tensorrt": "tensorrt", "rtx": "tensorrt-rtx"}

Parts = tuple[str, ...]
"""Of "sample", "decode" and "refine", which are done one after another."""

_DECODING = ("decode",)
_SHOWING = ("decode", "refine")

_log = logging.getLogger(__name__)


class TensorRTEngine(TorchEngine):
    """Runs a world's head and decoder with TensorRT on an NVIDIA GPU.

    Engine files that are not there are built first, which takes minutes, and kept.

    Args:
        world: What to run; it is not changed.
        backend: "tensorrt" or "rtx".
        plans: One of the sampler and one of the decoder: names, or paths of YAML files.
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Where engine files are kept; None is the user's cache.
        device: None is torch's current GPU; a test's own where there is none.
        capability: Of that device; None asks torch.
        load: Puts an engine file on the device; a test's own where there is no GPU.
        reason: In words, why the backend was chosen, for the spec.

    Raises:
        ValueError: num_denoise_steps is below 1, or the plans are not one of each graph.
        BackendUnavailableError: TensorRT, pycuda or a GPU is missing.
        EngineBuildError: TensorRT cannot build a plan.
        EngineLoadError: TensorRT does not take a file that it has just built.
    """

    def __init__(
        self,
        world: World,
        *,
        backend: str = "tensorrt",
        plans: Sequence[str | Path] = DEFAULT_PLANS,
        num_denoise_steps: int | None = None,
        folder: Path | None = None,
        device: Device | None = None,
        capability: int | None = None,
        load: Callable[..., Any] = LoadedEngine,
        reason: str = "as asked",
    ) -> None:
        flavour = BACKENDS[backend]
        chosen = load_plans(plans)
        if sorted(plan.graph for plan in chosen.values()) != sorted(PLAN_GRAPHS):
            raise ValueError(f"plans must be one of each of {', '.join(PLAN_GRAPHS)}, got {plans}")
        self._memory: Device = device or CudaDevice(extra=EXTRAS[flavour])
        with self._memory.active():
            super().__init__(
                world,
                device=self._memory.torch_device,
                num_denoise_steps=num_denoise_steps,
                reason=reason,
            )
        precisions = {plan.graph: plan.precision for plan in chosen.values()}
        self._spec = replace(
            self._spec,
            backend=backend,
            dtype=f"{precisions['sampler']}/{precisions['decoder']}",
            reason=reason,
        )
        target = Target(
            flavour=flavour,
            capability=capability or capability_here(),
            folder=folder or default_folder(),
        )
        self._load = load
        self._engines: dict[str, Any] = {}
        self._files: dict[str, EngineFile] = {}
        with self._memory.active():
            for name, plan in chosen.items():
                self._open(world, name, plan, target)
        self._max_batch = min(plan.batch.max for plan in chosen.values())
        self._lanes: dict[int, _Lane] = {}
        # What draws the next step's frames, as the last one's were asked for: games of latents
        # never are.
        self._watched: Parts = ()
        # Whose frames lie in a lane: what drew them of which latents and conditions.
        self._drawn: tuple[Parts, list[Tensor]] | None = None
        self._given: Conditions | None = None

    def prefill(
        self, cache: Cache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        """Replace what the cache remembers of some games by F frames; see `Engine.prefill`."""
        with self._memory.active():
            super().prefill(cache, context, conditions, rows=rows)

    def new_cache(self, batch_size: int) -> TorchCache:
        """Return the empty cache of B games; see `TorchEngine.new_cache`."""
        with self._memory.active():
            return super().new_cache(batch_size)

    def step(
        self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make the next frame of every game and add it to the cache; see `Engine.step`."""
        self._given = conditions
        with self._memory.active():
            return super().step(cache, latents, conditions, noise)

    def step_with_spread(
        self,
        cache: Cache,
        latents: Tensor,
        conditions: Conditions,
        noise: Tensor,
        extra_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make the next frame; the spread is of torch's head, in its dtype."""
        self._given = conditions
        with self._memory.active():
            return super().step_with_spread(cache, latents, conditions, noise, extra_noise)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        return self._frames(_DECODING, latents, None)

    @torch.inference_mode()
    def draw(self, latents: Tensor, conditions: Conditions) -> np.ndarray:
        """Return frames as they are shown, in one go on the device; see `Engine.draw`."""
        if self._refiner is None:
            return self._frames(_DECODING, latents, None)
        return self._frames(_SHOWING, latents, conditions)

    def refine(self, frames: np.ndarray, conditions: Conditions) -> np.ndarray:
        """Return decoded frames with the character drawn anew, by torch; see `Engine.refine`."""
        with self._memory.active():
            return super().refine(frames, conditions)

    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C)."""
        with self._memory.active():
            return super().encode(frames)

    def _make(
        self, hidden: Tensor, latents: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `step` does, of hidden states (B, N, Z)."""
        self._drawn = None
        made = []
        size = self._max_batch
        # The frames of several parts would lie in one buffer.
        drawing = self._watched if len(latents) <= size else ()
        self._watched = ()
        for parts in zip(hidden.split(size), latents.split(size), noise.split(size), strict=True):
            lane = self._lane(len(parts[0]))
            for own, part in zip((lane.hidden, lane.latents, lane.noise), parts, strict=True):
                own.copy_(part)
            if "refine" in drawing:
                assert self._given is not None
                lane.take(self._given)
            self._run(lane, ("sample", *drawing))
            made.append(lane.next_latents.cpu().clone())
        next_latents = torch.cat(made)
        if drawing:
            self._drawn = drawing, _copies(next_latents, self._given)
        outcome = self._model.outcome
        reward_logits, termination_logits = outcome(hidden.float())
        return (
            next_latents,
            outcome.reward(reward_logits).cpu(),
            termination_logits.sigmoid().cpu(),
        )

    def _frames(self, drawing: Parts, latents: Tensor, conditions: Conditions | None) -> np.ndarray:
        """Return the frames that parts of a step draw: those of the last step, or others anew."""
        self._watched = drawing
        with self._memory.active():
            if self._drawn is not None and self._drawn[0] == drawing:
                # Without conditions, those of the step do not matter.
                asked = zip(self._drawn[1], _tensors(latents, conditions), strict=False)
                if all(own.shape == its.shape and torch.equal(own, its) for own, its in asked):
                    return self._lane(len(latents)).frames.cpu().numpy().copy()
            self._drawn = None
            made = []
            for start in range(0, len(latents), self._max_batch):
                part = latents[start : start + self._max_batch]
                lane = self._lane(len(part))
                lane.next_latents.copy_(part)
                if conditions is not None:
                    lane.take(conditions.rows(start, start + len(part)))
                self._run(lane, drawing)
                made.append(lane.frames.cpu().numpy().copy())
            return np.concatenate(made) if len(made) != 1 else made[0]

    def _lane(self, batch: int) -> "_Lane":
        """Return the buffers and CUDA graphs of a batch size, made at its first use."""
        if batch not in self._lanes:
            self._lanes[batch] = _Lane(self, batch)
        return self._lanes[batch]

    def _run(self, lane: "_Lane", parts: Parts) -> None:
        """Do parts of a step one after another, as one CUDA graph, captured at its first use."""
        if parts not in lane.graphs:
            lane.graphs[parts] = lane.capture(parts)
            self._keep_kernels()
        lane.graphs[parts]()

    def _open(self, world: World, name: str, plan: TrtPlan, target: Target) -> None:
        """Put a plan's engine file on the device, building it once more if it is refused."""
        for is_second in (False, True):
            file = provide_engine(
                world, name, plan, target, num_denoise_steps=self._spec.num_denoise_steps
            )
            kernels = _kernels_path(file)
            try:
                self._engines[plan.graph] = self._load(
                    file.contents,
                    flavour=target.flavour,
                    runtime_cache=kernels.read_bytes() if kernels.is_file() else b"",
                )
                self._files[plan.graph] = file
                return
            except EngineLoadError as error:
                if is_second or file.is_new:
                    raise
                _log.warning("%s: %s; building it again", file.path.name, error)
                file.path.unlink()
                kernels.unlink(missing_ok=True)

    def _keep_kernels(self) -> None:
        """Write what TensorRT for RTX has compiled, for the next start."""
        for graph, engine in self._engines.items():
            if kernels := engine.runtime_cache():
                write_whole(_kernels_path(self._files[graph]), kernels)


class _Lane:
    """Buffers of one batch size, and the CUDA graphs that work on them."""

    def __init__(self, engine: TensorRTEngine, batch: int) -> None:
        memory, spec = engine._memory, engine._spec
        tokens, channels = spec.latent_shape
        self.latents = memory.tensor((batch, tokens, channels), torch.float32)
        self.noise = memory.tensor((batch, tokens, channels), torch.float32)
        self.hidden = memory.tensor((batch, tokens, spec.config.hidden_width), torch.float32)
        self.next_latents = memory.tensor((batch, tokens, channels), torch.float32)
        self.frames = memory.tensor((batch, *spec.frame_shape), torch.uint8)
        sampler = _bind(
            engine._engines["sampler"],
            {"latents": self.latents, "hidden": self.hidden, "noise": self.noise},
            {"next_latents": self.next_latents},
        )
        decoder = _bind(
            engine._engines["decoder"], {"latents": self.next_latents}, {"frames": self.frames}
        )
        refiner, self._memory = engine._refiner, memory
        self._work: dict[str, Callable[[], object]] = {
            "sample": lambda: sampler.enqueue(memory.stream),
            "decode": lambda: decoder.enqueue(memory.stream),
        }
        if refiner is not None:
            nothing = stack_conditions([StepConditions()] * batch, spec.config.conditions)
            self.conditions = nothing.to(memory.torch_device)
            # Over the frames themselves: whoever runs it decodes them before.
            self._work["refine"] = lambda: self.frames.copy_(refiner(self.frames, self.conditions))
        self.graphs: dict[Parts, Callable[[], None]] = {}

    def take(self, conditions: Conditions) -> None:
        """Let the conditions that the refiner reads become these, (B, 1, ...)."""
        for name, own in vars(self.conditions).items():
            own.copy_(getattr(conditions, name))

    def capture(self, parts: Parts) -> Callable[[], None]:
        """Return the replay of the CUDA graph of parts of a step."""

        def work() -> None:
            for part in parts:
                self._work[part]()

        return self._memory.capture(work)


def _tensors(latents: Tensor, conditions: Conditions | None) -> list[Tensor]:
    return [latents, *(vars(conditions).values() if conditions is not None else ())]


def _copies(latents: Tensor, conditions: Conditions | None) -> list[Tensor]:
    """Return copies, for the caller may write into its own."""
    return [tensor.clone() for tensor in _tensors(latents, conditions)]


def _bind(engine: Any, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Any:
    addresses = {name: tensor.data_ptr() for name, tensor in {**inputs, **outputs}.items()}
    return engine.bind(addresses, {name: tuple(tensor.shape) for name, tensor in inputs.items()})


def _kernels_path(file: EngineFile) -> Path:
    return file.path.with_suffix(".kernels")
