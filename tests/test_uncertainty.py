import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.rollout import Rollout
from engine.torch_engine import TorchEngine
from midas_world.conditions import stack_conditions
from midas_world.config import load_preset
from midas_world.evaluate.forced import sequence_conditions
from midas_world.evaluate.rollouts import EndlessEngine
from midas_world.evaluate.spreads import (
    Spreads,
    correlation_at_same_step,
    correlation_with_interval,
    roc_with_interval,
)
from midas_world.evaluate.uncertainty_section import verdicts
from midas_world.evaluate.wrong_contexts import Windows, plaid_frame, wrong_contexts
from midas_world.types import StepConditions
from midas_world.uncertainty import head_spread, uncertainty_noise
from midas_world.world import World
from tests.fakes import FakeEngine

SHAPE = (15, 8)


@pytest.fixture(scope="module")
def engine(tiny_world: World) -> TorchEngine:
    return TorchEngine(tiny_world, device="cpu", dtype=torch.float32)


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pose(value: float) -> StepConditions:
    return StepConditions(pose=np.full(48, value, np.float32), text="someone walks right")


def sure_head(x: Tensor, sigma: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
    return context + hidden


def unsure_head(x: Tensor, sigma: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
    """A head whose answer leans on the noise as far as its hidden states say."""
    assert torch.all(sigma == 1)
    return context + hidden * x


def test_draws_are_normal_and_always_the_same():
    noise = uncertainty_noise(64, SHAPE)
    assert noise.shape == (64, *SHAPE)
    assert torch.equal(noise, uncertainty_noise(64, SHAPE))
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
    with pytest.raises(ValueError, match="at least 2, got 1"):
        uncertainty_noise(1, SHAPE)


def test_spread_is_what_the_answer_owes_to_the_noise():
    context = seeded(3, *SHAPE, seed=1)
    hidden = torch.tensor([0.0, 0.5, 2.0])[:, None, None].expand(3, *SHAPE)
    extra = uncertainty_noise(16, SHAPE)[:, None].expand(-1, 3, -1, -1)
    spread = head_spread(unsure_head, hidden, context, extra)
    expected = extra[:, 0].var(dim=0).mean().sqrt() * torch.tensor([0.0, 0.5, 2.0])
    torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-5)
    assert spread.dtype == torch.float32
    certain = head_spread(sure_head, hidden, context, extra)
    torch.testing.assert_close(certain, torch.zeros(3))


def test_spread_refuses_draws_of_another_shape():
    context = torch.zeros(2, *SHAPE)
    for shape in ((1, 2, *SHAPE), (4, 1, *SHAPE), (4, 2, 15, 9)):
        with pytest.raises(ValueError, match=r"shape \(S, 2, 15, 8\) with S at least 2"):
            head_spread(sure_head, context, context, torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_are_bit_equal_with_and_without_spread(tiny_world, dtype):
    engine = TorchEngine(tiny_world, device="cpu", dtype=dtype)
    plain, watched = engine.new_cache(2), engine.new_cache(2)
    extra = seeded(3, 2, *SHAPE, seed=9)
    latents = seeded(2, *SHAPE, seed=0)
    for step in range(6):
        conditions = stack_conditions([pose(0.1 * step), pose(0.5)], engine.spec.config.conditions)
        noise = seeded(2, *SHAPE, seed=step)
        made = engine.step(plain, latents, conditions, noise)
        *same, spread = engine.step_with_spread(watched, latents, conditions, noise, extra)
        assert all(torch.equal(a, b) for a, b in zip(made, same, strict=True))
        assert spread.shape == (2,)
        assert (spread > 0).all()
        latents = made[0]
    assert all(torch.equal(value, watched.state()[key]) for key, value in plain.state().items())


def test_the_engines_spread_is_that_of_the_models_head(engine, tiny_world):
    model = tiny_world.model
    latents, extra = seeded(1, *SHAPE, seed=0), seeded(5, 1, *SHAPE, seed=1)
    conditions = stack_conditions([pose(0.3)], engine.spec.config.conditions)
    *_, spread = engine.step_with_spread(
        engine.new_cache(1), latents, conditions, torch.zeros_like(latents), extra
    )
    with torch.no_grad():
        hidden = model.hidden(latents[:, None], torch.zeros(1, 1), conditions)[:, 0]
        drawn = [model.head(x, torch.ones(1), hidden, latents) for x in extra]
    expected = torch.stack(drawn).var(dim=0).mean().sqrt()
    torch.testing.assert_close(spread[0], expected, rtol=1e-4, atol=1e-5)


def test_a_rollout_with_uncertainty_plays_the_same_game(engine, tiny_world):
    starts = list(tiny_world.start_states[:2])
    plain, watched = Rollout(engine, 2), Rollout(engine, 2, num_uncertainty_draws=3)
    for rollout in (plain, watched):
        rollout.reset(starts, seeds=[1, 2])
    for step in range(4):
        conditions = [pose(0.1 * step), pose(-0.2)]
        made, seen = plain.step(conditions), watched.step(conditions)
        assert made.uncertainty is None
        assert seen.uncertainty is not None
        assert seen.uncertainty.shape == (2,)
        assert seen.uncertainty.dtype == np.float32
        assert torch.equal(made.latents, seen.latents)
    state, other = plain.state(), watched.state()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)
    again = Rollout(engine, 2, num_uncertainty_draws=3)
    again.reset(starts, seeds=[5, 6])
    again.load_state(state)
    np.testing.assert_array_equal(
        again.step([pose(0.9)] * 2).uncertainty, watched.step([pose(0.9)] * 2).uncertainty
    )


def test_a_rollout_refuses_what_has_no_spread():
    class Plain:
        spec = FakeEngine(load_preset("tiny").world).spec

        def new_cache(self, batch_size: int):
            return None

    with pytest.raises(ValueError, match="'fake' backend gives no uncertainty"):
        Rollout(Plain(), num_uncertainty_draws=4)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        Rollout(FakeEngine(load_preset("tiny").world), num_uncertainty_draws=1)


def test_an_endless_engine_passes_the_spread_on():
    class Engine:
        def step_with_spread(self, termination: np.ndarray):
            return "latents", "reward", termination, "spread"

    engine = EndlessEngine(Engine())
    made = engine.step_with_spread(np.array([0.9]))
    assert made[2].tolist() == [0.0]
    assert made[3] == "spread"
    assert engine.num_ends == 1


def windows(*, texts: tuple[str, ...], runs: list[int]) -> Windows:
    count, length = len(texts), 5
    config = load_preset("tiny").world.conditions
    rng = np.random.default_rng(0)
    rows = [
        sequence_conditions([pose(float(row))] * length, config).to(torch.device("cpu"))
        for row in range(count)
    ]
    return Windows(
        run=np.array(runs),
        texts=texts,
        frames=rng.integers(0, 256, (count, length, 48, 80, 3), dtype=np.uint8),
        latents=seeded(count, length, *SHAPE, seed=0),
        conditions=rows[0].__class__(
            **{
                name: torch.cat([getattr(row, name) for row in rows])
                for name in ("pose", "text", "audio", "present")
            }
        ),
    )


def test_each_wrong_context_is_wrong_in_one_way():
    real = windows(texts=("a beach", "a beach", "a wood", "a wood"), runs=[0, 0, 1, 1])
    assert real.partners is not None
    assert real.partners.tolist() == [2, 2, 0, 0]
    found = dict(wrong_contexts(real, encode=FakeAutoencoder.encode, rng=np.random.default_rng(0)))
    assert len(found) == 8
    words = found["words of another scene"]
    assert torch.equal(words.conditions.text, real.conditions.text[[2, 2, 0, 0]])
    assert torch.equal(words.conditions.pose, real.conditions.pose)
    assert torch.equal(words.latents, real.latents)
    theirs = found["pose, words and sound of another episode"]
    assert torch.equal(theirs.conditions.pose, real.conditions.pose[[2, 2, 0, 0]])
    in_turn = found["frames of two scenes in turn"].latents
    assert torch.equal(in_turn[:, [0, 2, 4]], real.latents[:, [0, 2, 4]])
    assert torch.equal(in_turn[:, [1, 3]], real.latents[[2, 2, 0, 0]][:, [1, 3]])
    order = found["frames in random order"].latents
    assert not torch.equal(order, real.latents)
    torch.testing.assert_close(order.sum(dim=1), real.latents.sum(dim=1))
    upside_down = found["frames upside down"].frames
    np.testing.assert_array_equal(upside_down[:, :, 0], real.frames[:, :, -1])
    for name in ("frames with noise of 32 levels", "nothing but noise", "frames upside down"):
        assert found[name].latents.shape == real.latents.shape
        assert not np.array_equal(found[name].frames, real.frames)
    still = found["a foreign picture, a plaid"].latents
    assert torch.equal(still[:, 0], still[:, -1])
    assert not torch.equal(still[0], still[1])


class FakeAutoencoder:
    @staticmethod
    def encode(frames: np.ndarray) -> Tensor:
        assert frames.dtype == np.uint8
        mean = torch.from_numpy(frames.astype(np.float32)).mean(dim=(1, 2, 3))
        return mean[:, None, None].expand(-1, *SHAPE)


def test_without_another_scene_there_are_no_words_of_one():
    alone = windows(texts=("a beach", "a wood"), runs=[0, 0])
    assert alone.partners is None
    found = dict(wrong_contexts(alone, encode=FakeAutoencoder.encode, rng=np.random.default_rng(0)))
    assert "words of another scene" not in found
    assert "frames in random order" in found


def test_plaids_are_full_of_colour_and_differ():
    rng = np.random.default_rng(0)
    one, other = (plaid_frame(48, 80, rng=rng) for _ in range(2))
    assert one.shape == (48, 80, 3)
    assert one.std(axis=(0, 1)).min() > 20
    assert np.abs(one.astype(int) - other).mean() > 20


def spreads(spread: np.ndarray, error: np.ndarray | None = None, *, runs: int = 4) -> Spreads:
    count = len(spread)
    return Spreads(
        run=np.arange(count) % runs,
        step=np.arange(count) // runs,
        spread=spread,
        error=np.full(count, np.nan) if error is None else error,
    )


def test_intervals_hold_the_value_and_narrow_where_runs_agree():
    rng = np.random.default_rng(0)
    real, far = spreads(rng.normal(0, 1, 80)), spreads(rng.normal(1.5, 1, 80))
    value, low, high = roc_with_interval(real, far, rng=rng)
    assert 0.5 < low < value < high < 1.0
    apart = roc_with_interval(real, spreads(rng.normal(50, 1, 80)), rng=rng)
    assert apart == (1.0, 1.0, 1.0)
    x = rng.normal(0, 1, 80)
    value, low, high = correlation_with_interval(spreads(x, x + rng.normal(0, 1, 80)), rng=rng)
    assert 0 < low < value < high < 1


def test_correlation_at_the_same_step_does_not_see_the_step():
    rng = np.random.default_rng(0)
    step = np.repeat(np.arange(40.0), 8)
    common = spreads(step + rng.normal(0, 0.1, 320), step + rng.normal(0, 0.1, 320), runs=8)
    assert correlation_with_interval(common, rng=rng)[0] > 0.99
    assert abs(correlation_at_same_step(common)) < 0.2
    own = rng.normal(0, 1, 320)
    assert correlation_at_same_step(spreads(step + own, step + own, runs=8)) == pytest.approx(1.0)
    assert math.isnan(correlation_at_same_step(spreads(own, own, runs=4)))


def test_verdicts_follow_the_numbers():
    lines = verdicts({"a": 0.95, "b": 0.8, "c": 0.5, "d": 0.1, "e": 0.9})
    assert [line.rpartition(": ")[2] for line in lines] == ["a; e.", "b.", "c.", "d."]
    assert "Not told apart" in lines[2]
    assert "falls" in lines[3]
    assert verdicts({"a": 1.0}) == ["Told apart from real play (AUROC at least 0.9): a."]
