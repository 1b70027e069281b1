"""The TensorRT engine: head and decoder as engine files, all else of a step with torch.

It holds a torch engine on the same stream, whose sampler and decoder are the engine files:
conditions, backbone, motion, scenery and outcomes are torch's. Each file's work is one
CUDA graph for each number of games, between buffers that pycuda owns.

Shapes: B games, N tokens per frame, C their channels, c latent channels, h w fine grid, H W pixels.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.on_tensorrt.build import (
    EngineFile,
    Target,
    capability_here,
    default_folder,
    provide_engine,
)
from engine.on_tensorrt.graphs import head_inputs
from engine.on_tensorrt.memory import CudaDevice, Device
from engine.on_tensorrt.plan import DEFAULT_PLANS, PLAN_GRAPHS, TrtPlan, load_plans
from engine.on_tensorrt.runtime import EXTRAS, EngineLoadError, LoadedEngine
from engine.on_torch.engine import TorchCache, TorchEngine
from engine.spec import Cache, EngineSpec, Made
from midas_world.files import write_whole
from midas_world.model.conditions import Conditions
from midas_world.model.head import Guidance
from midas_world.user_folders import or_not_kept
from midas_world.world import World

BACKENDS = {"tensorrt": "tensorrt", "rtx": "tensorrt-rtx"}

_log = logging.getLogger(__name__)


class TensorRTEngine:
    """Runs a world's head and decoder with TensorRT on an NVIDIA GPU.

    Engine files that are not there are built first, which takes minutes, and kept.

    Args:
        world: What to run; it is not changed.
        backend: "tensorrt" or "rtx".
        plans: One of the head and one of the decoder: names, or paths of YAML files.
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
        target = Target(
            flavour=flavour,
            capability=capability or capability_here(),
            folder=folder or default_folder(),
        )
        steps = world.config.world.head.num_denoise_steps
        steps = steps if num_denoise_steps is None else num_denoise_steps
        with self._memory.active():
            networks = {
                plan.graph: _open(world, name, plan, target, steps, load, self._memory)
                for name, plan in chosen.items()
            }
            self._torch = TorchEngine(
                world,
                device=self._memory.torch_device,
                num_denoise_steps=steps,
                sampler=_HeadNetwork(networks["head"]),
                decode=lambda grid: networks["decoder"]({"latents": grid}),
            )
        precisions = {plan.graph: plan.precision for plan in chosen.values()}
        self._spec = replace(
            self._torch.spec,
            backend=backend,
            dtype="/".join(precisions[graph] for graph in PLAN_GRAPHS),
            reason=reason,
        )

    @property
    def spec(self) -> EngineSpec:
        """What this engine runs and on what."""
        return self._spec

    def new_cache(self, batch_size: int) -> TorchCache:
        """Return the empty cache of B games; see `Engine.new_cache`."""
        with self._memory.active():
            return self._torch.new_cache(batch_size)

    def prefill(
        self, cache: Cache, context: Tensor, conditions: Conditions, *, rows: Sequence[int]
    ) -> None:
        """Replace what the cache remembers of some games by F frames; see `Engine.prefill`."""
        with self._memory.active():
            self._torch.prefill(cache, context, conditions, rows=rows)

    def step(self, cache: Cache, latents: Tensor, conditions: Conditions, noise: Tensor) -> Made:
        """Make the next frame of every game and add it to the cache; see `Engine.step`."""
        with self._memory.active():
            return self._torch.step(cache, latents, conditions, noise)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Return the frames of latents (B, N, C) as a new array, uint8 (B, H, W, 3)."""
        with self._memory.active():
            return self._torch.decode(latents)

    def encode(self, frames: np.ndarray) -> Tensor:
        """Return the latents of frames, uint8 (B, H, W, 3), as float32 (B, N, C)."""
        with self._memory.active():
            return self._torch.encode(frames)


class _Network:
    """An engine file on the device, for any number of games."""

    def __init__(self, file: EngineFile, engine: Any, memory: Device, max_batch: int) -> None:
        self._file, self._engine, self._memory = file, engine, memory
        self._max_batch = max_batch
        # By number of games: buffers of all tensors, and what runs between them.
        self._lanes: dict[int, tuple[dict[str, Tensor], Callable[[], None]]] = {}
        (self._output,) = (n for n, item in file.tensors.items() if item["kind"] == "output")

    def __call__(self, given: Mapping[str, Tensor]) -> Tensor:
        """Return the output, (B, ...) float32, of inputs by name, (B, ...)."""
        batch = len(next(iter(given.values())))
        made = []
        for start in range(0, batch, self._max_batch):
            stop = min(start + self._max_batch, batch)
            if stop - start not in self._lanes:
                self._lanes[stop - start] = self._new_lane(stop - start)
            buffers, run = self._lanes[stop - start]
            for name, tensor in given.items():
                buffers[name].copy_(tensor[start:stop])
            run()
            made.append(buffers[self._output].clone())
        return torch.cat(made)

    def _new_lane(self, batch: int) -> tuple[dict[str, Tensor], Callable[[], None]]:
        tensors, memory = self._file.tensors, self._memory
        buffers = {n: memory.tensor((batch, *item["shape"][1:])) for n, item in tensors.items()}
        bound = self._engine.bind(
            {name: tensor.data_ptr() for name, tensor in buffers.items()},
            {n: tuple(buffers[n].shape) for n, item in tensors.items() if item["kind"] == "input"},
        )
        run = memory.capture(lambda: bound.enqueue(memory.stream))
        # What TensorRT for RTX has compiled by now, for the next start.
        if kernels := self._engine.runtime_cache():
            with or_not_kept():
                write_whole(_kernels_path(self._file), kernels)
        return buffers, run


class _HeadNetwork(nn.Module):
    """The head's engine file in the place of torch's sampler."""

    def __init__(self, network: _Network) -> None:
        super().__init__()
        self._network = network

    def forward(self, guidance: Guidance, noise: Tensor) -> Tensor:
        """Return the next frame's latents, (B, c, h, w) float32, of noise (B, c, h, w)."""
        return self._network(head_inputs(guidance, noise))


def _open(
    world: World,
    name: str,
    plan: TrtPlan,
    target: Target,
    num_denoise_steps: int,
    load: Callable[..., Any],
    memory: Device,
) -> _Network:
    """Return a plan's engine file on the device, building it once more if it is refused."""
    while True:
        file = provide_engine(world, name, plan, target, num_denoise_steps=num_denoise_steps)
        kernels = _kernels_path(file)
        known = kernels.read_bytes() if kernels.is_file() else b""
        try:
            engine = load(file.contents, flavour=target.flavour, runtime_cache=known)
            return _Network(file, engine, memory, plan.batch.max)
        except EngineLoadError as error:
            if file.is_new:
                raise
            _log.warning("%s: %s; building it again", file.path.name, error)
            file.path.unlink()
            kernels.unlink(missing_ok=True)


def _kernels_path(file: EngineFile) -> Path:
    return file.path.with_suffix(".kernels")
