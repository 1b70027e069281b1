"""Every backend answers the same calls alike: held to plain float32 torch, and to itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.on_torch.engine import TorchEngine
from engine.spec import Engine, Made
from midas_world.model.conditions import Conditions
from midas_world.types import StepConditions
from midas_world.world import World
from tests.engines import ON_GPU, make_backend, play, psnr, steps_of, with_codes
from tests.fakes import randn, seeded

STEPS = 50
BATCH = 3

# Largest and mean distance of latents from float32 torch after 50 steps from the same noise, in
# standard deviations of those latents, and the least PSNR of the frames. The weights are random:
# they damp errors less than trained ones do. float32 differs by the order of sums alone; bfloat16
# keeps 8 bits of every number; in int8 the decoder alone is eight-bit.
# Measured over three games: a half of these distances or less, and 4 dB or more above these PSNRs.
# Of tensorrt, the backbone is in bfloat16, head and decoder in float16, which keeps 11 bits.
COARSE = ("torch-bfloat16", "torch-cuda", "tensorrt", "rtx")
EXACT = {"torch-float32": (1e-4, 1e-5, 80.0), "onnx": (1e-3, 1e-4, 38.0)}
TOLERANCES = EXACT | dict.fromkeys(COARSE, (0.15, 0.015, 42.0))
# A game of a batch and the game alone after 10 steps, likewise: products of other sizes sum in
# another order.
BATCH_TOLERANCES = EXACT | dict.fromkeys(COARSE, (0.4, 0.03))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.gpu if name in ON_GPU else ())
        for name in sorted(TOLERANCES)
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def engine(name: str, tiny_world: World, kept_graphs: Path) -> Engine:
    return make_backend(name, tiny_world, kept_graphs)


@pytest.fixture(scope="module")
def plain(tiny_world: World) -> TorchEngine:
    return TorchEngine(tiny_world, device="cpu", dtype=torch.float32)


def one_step(engine: Engine, batch: int, seed: int) -> tuple[Tensor, Conditions, Tensor]:
    """Return random latents, conditions and noise of one step."""
    shape = (batch, *engine.spec.latent_shape)
    steps = [steps_of(engine, 2, game=seed + row)[1] for row in range(batch)]
    return (
        randn(*shape, seed=seed),
        with_codes(engine.spec.stack(steps), seeded(seed + 2000)),
        randn(*shape, seed=seed + 1000),
    )


def test_spec_tells_what_runs(engine: Engine, plain: TorchEngine, name: str):
    spec = engine.spec
    assert spec.config == plain.spec.config
    assert spec.num_denoise_steps == plain.spec.num_denoise_steps
    assert spec.backend == name.partition("-")[0]
    assert spec.reason
    assert spec.backend in str(spec)


def test_fifty_steps_are_close_to_float32_torch(engine, plain, tiny_world, name):
    latents, rewards = play(engine, tiny_world, STEPS, games=[0])
    expected, expected_rewards = play(plain, tiny_world, STEPS, games=[0])
    largest, mean, least_psnr = TOLERANCES[name]
    scale = expected.std()
    distance = (latents - expected).abs() / scale
    assert distance.max() <= largest
    assert distance.mean() <= mean
    assert (rewards - expected_rewards).abs().max() <= largest
    # Of standard deviation 1 again, which decoders, int8 ones above all, are made for.
    made, right = engine.decode(latents[-1] / scale), plain.decode(expected[-1] / scale)
    assert psnr(made, right) >= least_psnr
    # Frames of rollouts that stand still or fade would be close, too.
    assert expected[-1].std() > 0.1
    assert (expected[-1] - expected[-2]).std() > 0.01


def test_equal_seeds_give_equal_frames_bit_for_bit(engine: Engine, tiny_world: World):
    first, first_rewards = play(engine, tiny_world, 6, games=[0, 1])
    second, second_rewards = play(engine, tiny_world, 6, games=[0, 1])
    assert torch.equal(first, second)
    assert torch.equal(first_rewards, second_rewards)
    np.testing.assert_array_equal(engine.decode(first[-1]), engine.decode(second[-1]))


def test_a_game_of_a_batch_is_the_game_alone(engine: Engine, tiny_world: World, name: str):
    together, _ = play(engine, tiny_world, 10, games=[0, 1, 2])
    for place in range(BATCH):
        alone, _ = play(engine, tiny_world, 10, games=[place])
        distance = (together[:, place] - alone[:, 0]).abs() / alone.std()
        assert distance.max() <= BATCH_TOLERANCES[name][0]
        assert distance.mean() <= BATCH_TOLERANCES[name][1]
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.1


def test_loaded_cache_states_go_on_exactly(engine: Engine):
    cache, other = engine.new_cache(2), engine.new_cache(2)
    for seed in range(6):  # one more than the ring holds
        engine.step(cache, *one_step(engine, 2, seed))
        engine.step(other, *one_step(engine, 2, seed + 50))
    state = cache.state()
    expected = [engine.step(cache, *one_step(engine, 2, seed))[0] for seed in (7, 8)]
    other.load_state(state)
    actual = [engine.step(other, *one_step(engine, 2, seed))[0] for seed in (7, 8)]
    assert torch.equal(torch.stack(actual), torch.stack(expected))
    # The copy did not change with its cache.
    cache.load_state(state)
    assert torch.equal(engine.step(cache, *one_step(engine, 2, 7))[0], expected[0])


def test_a_reset_cache_is_a_new_one(engine: Engine):
    used, new = engine.new_cache(1), engine.new_cache(1)
    for seed in range(5):
        engine.step(used, *one_step(engine, 1, seed))
    used.reset()
    for seed in (3, 4):
        expected = engine.step(new, *one_step(engine, 1, seed))[0]
        assert torch.equal(engine.step(used, *one_step(engine, 1, seed))[0], expected)


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_prefill_leaves_other_rows_as_they_are(engine: Engine, frames: int):
    cache, untouched = engine.new_cache(BATCH), engine.new_cache(BATCH)
    for seed in range(3):
        for each in (cache, untouched):
            engine.step(each, *one_step(engine, BATCH, seed))
    context = randn(1, frames, *engine.spec.latent_shape, seed=1)
    past = [steps_of(engine, frames + 1, game=9)[frame + 1] for frame in range(frames)]
    given = engine.spec.stack(past or [StepConditions()])
    conditions = given.map(lambda tensor: tensor.transpose(0, 1)).frames(0, frames)
    engine.prefill(cache, context, conditions, rows=[1])
    step = one_step(engine, BATCH, 5)
    after, before = engine.step(cache, *step)[0], engine.step(untouched, *step)[0]
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


def test_prefilled_frames_are_those_stepped_through(engine: Engine, name: str):
    frames = 3
    steps = [one_step(engine, 1, seed) for seed in range(frames + 1)]
    stepped, filled = engine.new_cache(1), engine.new_cache(1)
    for step in steps[:-1]:
        engine.step(stepped, *step)
    conditions = Conditions.join([step[1] for step in steps[:-1]])
    context = torch.stack([step[0] for step in steps[:-1]], dim=1)
    engine.prefill(filled, context, conditions, rows=[0])
    expected = engine.step(stepped, *steps[-1])
    actual = engine.step(filled, *steps[-1])
    # The positions differ by a whole number of frames, and so do the rotations' roundings.
    largest = TOLERANCES[name][0]
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=largest, atol=largest)


def test_results_are_new_float32_tensors(engine: Engine):
    cache = engine.new_cache(2)
    first = engine.step(cache, *one_step(engine, 2, 0))
    kept = [tensor.clone() for tensor in first]
    engine.step(cache, *one_step(engine, 2, 1))
    for name, tensor, copy in zip(Made._fields, first, kept, strict=True):
        assert tensor.dtype == (torch.bool if name == "gone" else torch.float32)
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, copy)
    assert first.latents.shape == (2, *engine.spec.latent_shape)
    assert first.reward.shape == first.cost.shape == first.termination.shape == (2,)
    num_classes = engine.spec.config.entries.num_classes
    assert first.entries.shape == (2, 2, num_classes + 1)
    assert first.gone.shape == (2, engine.spec.config.entries.capacity)
    for chance in (first.cost, first.termination, first.entries):
        assert ((chance >= 0) & (chance <= 1)).all()
    torch.testing.assert_close(first.entries.sum(dim=-1), torch.ones(2, 2), rtol=0, atol=1e-3)


def test_inputs_are_left_as_they_are(engine: Engine):
    latents, conditions, noise = one_step(engine, 2, 0)
    copies = latents.clone(), noise.clone(), conditions.pose.clone()
    engine.step(engine.new_cache(2), latents, conditions, noise)
    for tensor, copy in zip((latents, noise, conditions.pose), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_frames_are_new_writable_uint8(engine: Engine, plain: TorchEngine, name: str):
    latents = randn(2, *engine.spec.latent_shape, seed=3)
    frames = engine.decode(latents)
    assert frames.shape == (2, *engine.spec.frame_shape)
    assert frames.dtype == np.uint8
    assert frames.flags["C_CONTIGUOUS"]
    assert frames.flags["WRITEABLE"]
    assert not np.shares_memory(frames, engine.decode(latents))
    assert psnr(frames, plain.decode(latents)) >= TOLERANCES[name][2]


def test_encoded_frames_are_close_to_float32_torch(engine: Engine, plain: TorchEngine, name: str):
    frames = np.random.default_rng(0).integers(0, 256, (2, *engine.spec.frame_shape), np.uint8)
    latents = engine.encode(frames)
    assert latents.shape == (2, *engine.spec.latent_shape)
    assert latents.dtype == torch.float32
    largest = TOLERANCES[name][0]
    torch.testing.assert_close(latents, plain.encode(frames), rtol=largest, atol=largest)
    mirrored = frames[:, :, ::-1]  # not contiguous
    assert torch.equal(engine.encode(mirrored), engine.encode(mirrored.copy()))


def test_what_does_not_fit_is_refused(engine: Engine):
    with pytest.raises(ValueError, match="batch_size"):
        engine.new_cache(0)
    with pytest.raises(ValueError, match="must have shape"):
        engine.new_cache(2).load_state(engine.new_cache(3).state())
    for frames in (np.zeros((1, 3, 3, 3), np.uint8), np.zeros((1, 48, 80, 3), np.float32)):
        with pytest.raises(ValueError, match=r"uint8 of shape \(B, 48, 80, 3\)"):
            engine.encode(frames)


def test_outcomes_are_close_to_float32_torch(engine: Engine, plain: TorchEngine, name: str):
    step = one_step(engine, 2, 0)
    made = engine.step(engine.new_cache(2), *step)
    expected = plain.step(plain.new_cache(2), *step)
    largest = TOLERANCES[name][0]
    for field in ("reward", "cost", "termination", "entries"):
        mine, theirs = getattr(made, field), getattr(expected, field)
        torch.testing.assert_close(mine, theirs, rtol=largest, atol=largest)


def test_the_same_codes_are_gone_as_by_float32_torch(engine: Engine, plain: TorchEngine):
    steps = [one_step(engine, BATCH, seed) for seed in range(24)]
    made = torch.stack([engine.step(engine.new_cache(BATCH), *step).gone for step in steps])
    expected = torch.stack([plain.step(plain.new_cache(BATCH), *step).gone for step in steps])
    is_told = torch.stack([conditions.entries[:, 0, :, 0] >= 0 for _, conditions, _ in steps])
    for is_gone in (True, False):
        assert (expected[is_told] == is_gone).sum() >= 5
    assert not made[~is_told].any()
    # A logit near 0 may fall to either side where numbers are coarse.
    most = 0.0 if engine.spec.dtype == "float32" else 0.05
    assert (made != expected)[is_told].float().mean() <= most
