"""Worlds with a refiner: every engine draws alike, and rollouts by the right conditions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bench.timing import time_parts
from engine.on_onnx.engine import OnnxEngine
from engine.on_torch.engine import TorchEngine
from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.checkpoint import CheckpointError
from midas_world.config import load_preset
from midas_world.types import StepConditions
from midas_world.world import World, load_world
from tests.engines import psnr, steps_of
from tests.fakes import FakeEngine, make_tiny_world
from tests.training import REFINED


def test_a_world_keeps_its_refiner(refined_world: World):
    assert any(name.startswith("refiner.") for name in refined_world.tensors())
    assert refined_world.refiner is not None
    assert refined_world.refiner.output.weight.abs().max() > 0


def test_a_world_whose_refiner_is_missing_is_a_checkpoint_error(refined_world: World, tmp_path):
    plain = load_preset("tiny", [REFINED[-1]])
    folder = make_tiny_world(tmp_path / "world", config=plain)
    config_text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text((refined_world.folder / "config.yaml").read_text())
    with pytest.raises(CheckpointError, match=r"does not fit its config: missing key"):
        load_world(folder)
    for file in refined_world.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.yaml").write_text(config_text)
    with pytest.raises(CheckpointError, match=r"unknown key refiner\."):
        load_world(folder)


@pytest.fixture(scope="module", params=["torch", "torch-bfloat16", "onnx-float32", "onnx-int8"])
def engine(request: pytest.FixtureRequest, refined_world: World, kept_graphs: Path) -> Engine:
    backend, _, precision = request.param.partition("-")
    if backend == "torch":
        return TorchEngine(
            refined_world, device="cpu", dtype=getattr(torch, precision or "float32")
        )
    return OnnxEngine(refined_world, precision=precision, folder=kept_graphs)


def test_every_engine_draws_alike(engine, refined_world: World):
    plain = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    latents = torch.stack([state.latents[-1] for state in refined_world.start_states])
    decoded = plain.decode(latents)
    given = plain.spec.stack([state.conditions[-1] for state in refined_world.start_states])
    kept = decoded.copy()
    drawn, expected = engine.refine(decoded, given), plain.refine(decoded, given)
    np.testing.assert_array_equal(decoded, kept)
    assert drawn.dtype == np.uint8
    assert (drawn != decoded).any(axis=(1, 2, 3)).all()
    assert psnr(drawn, expected) >= 38.0
    alone = engine.refine(decoded[1:2], given.pick([1]))
    assert psnr(alone, drawn[1:2]) >= 38.0


def test_an_engine_without_a_refiner_says_so(tiny_world: World):
    engine = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    with pytest.raises(ValueError, match="this world has no refiner"):
        engine.refine(np.zeros((1, 48, 80, 3), np.uint8), None)


def test_frames_of_another_shape_are_refused(refined_world: World):
    engine = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    with pytest.raises(ValueError, match="frames must be uint8"):
        engine.refine(np.zeros((1, 24, 40, 3), np.uint8), None)


def test_a_rollout_draws_by_the_conditions_of_its_present_frames(refined_world: World):
    engine = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    states = list(refined_world.start_states[:2])
    rollout = Rollout(engine, 2)
    rollout.reset(states, seeds=[1, 2])

    def expected(steps: list[StepConditions]) -> np.ndarray:
        return engine.refine(engine.decode(rollout.latents), engine.spec.stack(steps))

    first = [state.conditions[-1] for state in states]
    np.testing.assert_array_equal(rollout.frames(), expected(first))
    steps = [steps_of(engine, 2, game=game)[1] for game in (4, 5)]
    rollout.step(steps)
    np.testing.assert_array_equal(rollout.frames(), expected(steps))
    np.testing.assert_array_equal(rollout.frames([1])[0], rollout.frames()[1])
    rollout.replace_context([states[1]], rows=[0])
    np.testing.assert_array_equal(rollout.frames(), expected([states[1].conditions[-1], steps[1]]))


def test_a_state_shows_its_frame_again_and_one_without_is_refused(refined_world: World):
    engine = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    rollout, other = Rollout(engine, 1), Rollout(engine, 1)
    rollout.reset([refined_world.start_states[0]], seeds=[1])
    rollout.step([steps_of(engine, 2, game=4)[1]])
    state, shown = rollout.state(), rollout.frames()
    rollout.step([steps_of(engine, 2, game=5)[1]])
    other.load_state(state)
    np.testing.assert_array_equal(other.frames(), shown)
    with pytest.raises(ValueError, match=r"the state lacks 'shown\.pose'"):
        other.load_state({k: v for k, v in state.items() if not k.startswith("shown.")})


def test_worlds_without_a_refiner_are_not_refined():
    engine = FakeEngine(load_preset("tiny").world)
    assert not engine.spec.config.is_refined
    rollout = Rollout(engine, 1)
    assert not any(name.startswith("shown.") for name in rollout.state())


def test_the_benchmark_times_it(refined_world: World):
    engine = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    start = refined_world.start_states[0]
    assert "refiner" in time_parts(engine, start, batch_size=1, num_steps=1)
