"""What is captured as CUDA graphs can be captured: nothing of it stops the host or reads from it.

Without a GPU, on a pretended one (fake_cuda.py). Of every size of world, its shapes too are seen.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from engine.on_torch.engine import TorchEngine
from midas_world.config import ProjectConfig, load_preset
from midas_world.model.conditions import Conditions
from midas_world.types import StepConditions
from tests.fake_cuda import CUDA, FakeCuda, UncapturableError, engine_on

BATCH = 2
CONFIGS: dict[str, Callable[[], ProjectConfig]] = {
    "tiny": lambda: load_preset("tiny"),
    "stage": lambda: load_preset("stage"),
    "stage-hd": lambda: load_preset("stage-hd"),
    "paper": lambda: load_preset("paper"),
}

OFFENDERS: dict[str, Callable[[Tensor], object]] = {
    "a number is read": lambda x: x[0, 0].item(),
    "a branch on a number": lambda x: 1 if x.any() else 2,
    "numbers are read": lambda x: x.tolist(),
    "a tensor of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a tensor made on the CPU and moved": lambda x: torch.arange(3).to(x.device),
    "a constant of the CPU": lambda x: x * torch.tensor(2.0),
    "an operand of the CPU": lambda x: torch.add(x, torch.ones(3)),
    "a download": lambda x: x.cpu(),
    "a download into what is there": lambda x: torch.zeros(3, 3).copy_(x),
    "an upload into what is there": lambda x: x.copy_(torch.zeros(3, 3)),
    "an index of numbers": lambda x: x[[0, 2]],
    "a mask as index": lambda x: x[x > 0],
    "a mask as index of some": lambda x: x[:, (x > 0)[0]],
    "writing by a mask": lambda x: x.index_put((x > 0,), x.new_zeros(())),
    "which are true": lambda x: (x > 0).nonzero(),
    "where they are true": lambda x: torch.where(x > 0),
    "what is true": lambda x: torch.masked_select(x, x > 0),
    "what there is": lambda x: torch.unique(x),
    "whether all are equal": lambda x: torch.equal(x, x + 1),
    "repeats by numbers": lambda x: torch.repeat_interleave(x, (x[0] > 0).long(), dim=0),
}


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    """Return a pretended device that is active."""
    cuda = FakeCuda()
    with cuda.active():
        yield cuda


def one_step(engine: TorchEngine, value: float) -> tuple[Tensor, Conditions, Tensor]:
    latents = torch.full((BATCH, *engine.spec.latent_shape), value)
    given = [StepConditions(text="a person runs")] * BATCH
    return latents, engine.spec.stack(given), latents


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_and_decoding_can_be_captured_and_move_what_they_must(name: str, cuda: FakeCuda):
    config = CONFIGS[name]()
    engine = engine_on(cuda, config, torch.bfloat16)
    cache, step = engine.new_cache(BATCH), one_step(engine, 1.0)
    made = engine.step(cache, *step).latents
    engine.decode(made)
    assert engine._graphs is not None, engine.spec.reason
    assert cuda.num_captured == 2

    def moved(work: Callable[[], object]) -> tuple[int, int, list[str]]:
        for record in (cuda.uploads, cuda.downloads, cuda.launches):
            record.clear()
        work()
        return len(cuda.uploads), len(cuda.downloads), cuda.launches

    # Up goes what is given; the place in the ring is a launch; down comes what was made. The frame
    # of the step was asked for last time, so it comes down with it, and then lies there.
    assert moved(lambda: engine.step(cache, *step)) == (1, 2, ["copy_", "fill_", "copy_", "copy_"])
    assert moved(lambda: engine.decode(made)) == (0, 0, [])
    others = one_step(engine, 2.0)[0]
    assert moved(lambda: engine.decode(others)) == (1, 1, ["copy_", "copy_"])
    assert moved(lambda: engine.step(cache, *step)) == (1, 1, ["copy_", "fill_", "copy_"])


@pytest.mark.parametrize("name", OFFENDERS)
def test_what_a_graph_would_refuse_is_found(name: str, cuda: FakeCuda):
    x = torch.zeros(3, 3, device=CUDA)
    with cuda.capturing(), pytest.raises(UncapturableError):
        OFFENDERS[name](x)


def test_what_is_found_reaches_the_test_and_is_no_fallback(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
):
    def pixels(engine: TorchEngine, latents: Tensor) -> Tensor:
        return real(engine, latents) + torch.tensor([1], dtype=torch.uint8, device=CUDA)

    real = TorchEngine._pixels
    monkeypatch.setattr(TorchEngine, "_pixels", pixels)
    engine = engine_on(cuda, CONFIGS["tiny"](), torch.bfloat16)
    step = one_step(engine, 1.0)
    made = engine.step(engine.new_cache(BATCH), *step).latents
    with pytest.raises(UncapturableError, match="tensors of the CPU"):
        engine.decode(made)
