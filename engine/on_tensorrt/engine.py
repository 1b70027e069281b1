"""A torch engine whose head and decoder are TensorRT's engine files; all else of a step is torch's.

Shapes: B games, c latent channels, h w fine grid, H W pixels.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from engine.on_tensorrt.build import Target, capability_here, provide_engine
from engine.on_tensorrt.graphs import head_inputs
from engine.on_tensorrt.plan import load_plan
from engine.on_tensorrt.runtime import EngineRunner
from engine.on_torch.engine import TorchEngine
from midas_world.model.head import Guidance
from midas_world.world import World


def make_tensorrt(
    world: World,
    backend: str,
    *,
    num_denoise_steps: int,
    folder: Path,
    device: str = "cuda",
    capability: int | None = None,
    reason: str = "as asked",
) -> TorchEngine:
    """Return an engine that runs a world's head and decoder with TensorRT on an NVIDIA GPU.

    Engine files that are not there are built first, which takes minutes, and kept.

    Args:
        world: What to run; it is not changed.
        backend: "tensorrt" or "rtx".
        num_denoise_steps: Head passes per frame.
        folder: Where engine files are kept.
        device: Of torch's part.
        capability: Of that device; None asks torch.
        reason: In words, why the backend was chosen, for the spec.

    Raises:
        BackendUnavailableError: A package or a GPU is missing, or TensorRT cannot build a graph or
            load what was built.
    """
    target = Target(backend=backend, capability=capability or capability_here(), folder=folder)

    def open_network(graph: str) -> "_InParts":
        path = provide_engine(world, graph, target, num_denoise_steps=num_denoise_steps)
        return _InParts(EngineRunner(path, backend=backend), load_plan(graph).max_batch)

    decoder = open_network("decoder")
    return TorchEngine(
        world,
        device=device,
        num_denoise_steps=num_denoise_steps,
        backend=backend,
        sampler=_Head(open_network("head")),
        decode=lambda grid: decoder({"latents": grid}),
        reason=reason,
    )


class _InParts:
    """An engine file for any number of games."""

    def __init__(self, runner: EngineRunner, max_batch: int) -> None:
        self._runner, self._max_batch = runner, max_batch

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        """Return the output, (B, ...) float32, of inputs by name, (B, ...)."""
        parts = zip(*(tensor.split(self._max_batch) for tensor in given.values()), strict=True)
        return torch.cat([self._runner.run(dict(zip(given, part, strict=True))) for part in parts])


class _Head(nn.Module):
    """The head's engine file in the place of torch's sampler."""

    def __init__(self, network: _InParts) -> None:
        super().__init__()
        self._network = network

    def forward(self, guidance: Guidance, noise: Tensor) -> Tensor:
        """Return the next frame's latents, (B, c, h, w) float32, of noise (B, c, h, w)."""
        return self._network(head_inputs(guidance, noise))
