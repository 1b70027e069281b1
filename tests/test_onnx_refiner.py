"""The refiner as ONNX Runtime runs it draws what the plain one draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.onnx_refiner import FirstLayer, RefinerGraph, _of_ramps
from engine.torch_engine import TorchEngine
from midas_world.conditions import POSE, Conditions, stack_conditions
from midas_world.refiner import Refiner
from midas_world.skeleton_maps import NUM_RINGS
from midas_world.world import World
from tests.engines import seeded
from tests.test_refiner import frames_and_conditions, make_small

PLACES = ((20, 14), (9, 10), (33, 17), (0, 0), (39, 23))


def windows_of(
    refiner: Refiner, frames: Tensor, conditions: Conditions
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the graph is given, and where it lies in the frames."""
    keypoints = refiner.keypoints(conditions)
    corners = refiner.corners(keypoints)
    return frames[refiner.places(corners)], keypoints - corners[:, None], corners


def test_its_graph_draws_what_the_refiner_draws():
    refiner = make_small()
    frames, conditions = frames_and_conditions(*PLACES)
    windows, keypoints, corners = windows_of(refiner, frames, conditions)
    drawn = RefinerGraph(refiner)(windows, keypoints, refiner.known(conditions))
    expected = refiner(frames, conditions)[refiner.places(corners)]
    assert drawn.dtype == torch.uint8
    assert (drawn != windows).float().mean() > 0.7
    difference = (drawn.int() - expected.int()).abs()
    assert difference.max() <= 1  # a rounding on the edge falls to either side
    assert (difference > 0).float().mean() < 1e-3


def test_what_a_new_refiner_draws_is_what_it_is_shown():
    refiner = make_small(seed=None)
    frames, conditions = frames_and_conditions(*PLACES)
    windows, keypoints, _ = windows_of(refiner, frames, conditions)
    drawn = RefinerGraph(refiner)(windows, keypoints, refiner.known(conditions))
    assert torch.equal(drawn, windows)


@pytest.mark.parametrize("length", [0.0, 0.03, 1.0, 30.0])
def test_its_first_layer_is_the_refiners(length: float):
    refiner = make_small()
    height, width = refiner.config.window
    windows = torch.randint(0, 256, (3, height, width, 3), generator=seeded(0))
    count = refiner.conditions.num_keypoints
    keypoints = torch.rand(3, count, 2, generator=seeded(1)) * torch.tensor((width, height))
    # The limb between the first two keypoints; the other one is a disc. A bone much shorter than
    # these is nothing but rounding, in which direction it points included.
    keypoints[:, 1] = keypoints[:, 0] + length * torch.tensor((0.6, -0.8))
    expected = refiner._first(windows.permute(0, 3, 1, 2) / 127.5 - 1.0, keypoints)
    squares = windows.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # (B, h, 2, w, 2, 3)
    pixels = squares.permute(0, 2, 4, 5, 1, 3).flatten(1, 3).flatten(2).float()
    made = FirstLayer(refiner)(pixels, keypoints).unflatten(-1, (height // 2, width // 2))
    # The plain maps keep the distance a little above 0.
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)


def test_ramps_do_as_rings_do():
    near = torch.linspace(0.0, 1.0, 1001)
    levels = torch.arange(NUM_RINGS)[:, None]
    rings = functional.relu(1.0 - (NUM_RINGS * (1.0 - near) - levels).abs())
    ramps = functional.relu(NUM_RINGS * near - levels)
    weight = torch.randn(5, NUM_RINGS, 3, generator=seeded(0))
    made = torch.einsum("drl,rs->dls", _of_ramps(weight), ramps)
    expected = torch.einsum("drl,rs->dls", weight, rings)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_engine_draws_in_the_windows_of_games_that_have_a_pose(
    precision: str, refined_world: World, kept_graphs: Path
):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from engine.onnx_engine import OnnxEngine

    engine = OnnxEngine(refined_world, precision=precision, num_threads=1, folder=kept_graphs)
    plain = TorchEngine(refined_world, device="cpu", dtype=torch.float32)
    states = refined_world.start_states
    given = stack_conditions(
        [state.conditions[-1] for state in states], refined_world.config.world.conditions
    )
    given.present[1, :, POSE] = False
    # Every other row of larger ones: what lies apart in memory is no other frame.
    frames = plain.decode(torch.stack([state.latents[-1] for state in states])).repeat(2, axis=1)
    frames = frames[:, ::2]
    kept = frames.copy()
    drawn, expected = engine.refine(frames, given), plain.refine(frames, given)
    np.testing.assert_array_equal(frames, kept)
    np.testing.assert_array_equal(drawn[1], frames[1])
    assert (drawn != frames).any(axis=(1, 2, 3)).sum() == len(states) - 1
    difference = np.abs(drawn.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
