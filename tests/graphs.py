"""Graphs without a GPU: a stand-in for capture, engines with it, and steps to make."""

from dataclasses import replace

import torch

from engine.on_torch.capture import WARM_UP_RUNS
from engine.on_torch.engine import TorchEngine
from engine.on_torch.graphs import StepGraphs
from midas_world.model.conditions import Conditions
from midas_world.types import StepConditions
from midas_world.world import World
from tests.fakes import make_start_state

RING = 4
BATCH = 2


class StandIn:
    """Capture on a CPU: the work itself is what repeats it; counts what is repeated."""

    def __init__(self, *, error: str = "") -> None:
        self.error = error
        self.replays: list[int] = []
        self.num_captured = 0

    def memory(self, num_bytes):
        return torch.zeros(num_bytes, dtype=torch.uint8), torch.zeros(num_bytes, dtype=torch.uint8)

    def capture(self, work):
        for _ in range(WARM_UP_RUNS):
            work()
        if self.error:
            raise RuntimeError(self.error)
        number, self.num_captured = self.num_captured, self.num_captured + 1

        def replay():
            self.replays.append(number)
            work()

        return replay

    def mark(self):
        return lambda: None


def with_stand_in(world: World, stand_in: StandIn) -> TorchEngine:
    engine = TorchEngine(world, device="cpu", dtype=torch.float32)
    engine._graphs = StepGraphs(stand_in, engine.spec)
    return engine


def make_pair(kind: str, world: World) -> tuple[TorchEngine, TorchEngine]:
    if kind == "cuda":
        make = {"device": "cuda", "dtype": torch.float32}
        return TorchEngine(world, **make), TorchEngine(world, graphs=False, **make)
    plain = TorchEngine(world, device="cpu", dtype=torch.float32)
    return with_stand_in(world, StandIn()), plain


def one_step(engine: TorchEngine, seed: int, *, batch: int = BATCH) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *engine.spec.latent_shape)
    start = make_start_state(engine.spec.config, seed)
    given = [StepConditions() if (seed + row) % 3 else start.conditions[1] for row in range(batch)]
    return (
        torch.randn(shape, generator=generator),
        with_codes(engine.spec.stack(given), generator),
        torch.randn(shape, generator=generator),
    )


def with_codes(conditions: Conditions, generator: torch.Generator) -> Conditions:
    """Return conditions with the first two codes of each game told, and some lives lost."""
    entries = conditions.entries.clone()
    entries[:, :, :2, 0] = torch.randint(
        0, 7, entries[:, :, :2, 0].shape, generator=generator
    ).float()
    entries[:, :, :2, 1] = 80 * torch.rand(entries[:, :, :2, 1].shape, generator=generator) - 40
    tally = torch.rand(conditions.tally.shape, generator=generator) * torch.tensor([1.0, 64.0])
    return replace(conditions, entries=entries, tally=tally)


def assert_alike(made: tuple, expected: tuple) -> None:
    for a, b in zip(made, expected, strict=True):
        # The same kernels in the same order: nothing else may differ on the CPU.
        tolerance = 1e-5 if torch.cuda.is_available() else 0.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
