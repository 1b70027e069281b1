"""Steps as CUDA graphs: the same tests with a stand-in for capture and, if there is one, a GPU."""

import pytest
import torch
from torch import Tensor

from engine.on_torch.capture import CaptureError
from engine.on_torch.engine import TorchEngine
from tests.graphs import (
    BATCH,
    RING,
    StandIn,
    assert_alike,
    make_pair,
    one_step,
    with_stand_in,
)


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def pair(request, tiny_world) -> tuple[TorchEngine, TorchEngine]:
    """Return an engine with graphs and a plain one, on the same device, both in float32."""
    return make_pair(request.param, tiny_world)


def test_steps_are_those_of_the_plain_engine(pair):
    graphed, plain = pair
    caches = graphed.new_cache(BATCH), plain.new_cache(BATCH)
    for seed in range(2 * RING + 1):
        step = one_step(plain, seed)
        made = graphed.step(caches[0], *step)
        assert_alike(made, plain.step(caches[1], *step))
        frames, expected = graphed.decode(made[0]), plain.decode(made[0])
        assert abs(frames.astype(int) - expected).max() <= int(torch.cuda.is_available())
    assert_alike(tuple(caches[0].state().values()), tuple(caches[1].state().values()))
    assert graphed._graphs is not None, graphed.spec.reason


def test_caches_of_one_size_do_not_mix(pair):
    graphed, plain = pair
    mine, theirs = ([engine.new_cache(BATCH) for _ in range(2)] for engine in pair)
    for seed in range(RING + 1):
        for place in (0, 1):
            step = one_step(plain, seed + 10 * place)
            assert_alike(graphed.step(mine[place], *step), plain.step(theirs[place], *step))


def test_the_frame_is_decoded_once_and_only_where_the_last_was_looked_at(tiny_world):
    stand_in = StandIn()
    engine = with_stand_in(tiny_world, stand_in)
    cache = engine.new_cache(BATCH)
    latents = engine.step(cache, *one_step(engine, 0))[0]
    engine.decode(latents)
    assert stand_in.replays == [0, 1]
    latents = engine.step(cache, *one_step(engine, 1))[0]
    assert stand_in.replays == [0, 1, 0, 1]  # before anybody asked
    first, second = engine.decode(latents), engine.decode(latents)
    assert stand_in.replays == [0, 1, 0, 1]
    second[:] = 0  # not the same array
    assert first.any()
    for seed in (2, 3):
        engine.step(cache, *one_step(engine, seed))
    assert stand_in.replays == [0, 1, 0, 1, 0, 1, 0]
    stand_in.replays.clear()
    for seed in (4, 5):
        engine.step(cache, *one_step(engine, seed))
        engine.decode(one_step(engine, 9)[0])  # not what was just made
    assert stand_in.replays == [0, 1, 0, 1]


def test_what_cannot_be_captured_runs_plainly_and_says_why(tiny_world):
    refused = "operation not permitted when stream is capturing"
    engine = with_stand_in(tiny_world, StandIn(error=f"CUDA error: {refused}\nmore words"))
    plain = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    caches = engine.new_cache(BATCH), plain.new_cache(BATCH)
    for seed in range(RING + 1):
        step = one_step(plain, seed)
        assert_alike(engine.step(caches[0], *step), plain.step(caches[1], *step))
    assert refused in engine.spec.reason
    assert "more words" not in engine.spec.reason


def test_decoding_that_cannot_be_captured_runs_plainly(tiny_world):
    stand_in = StandIn()
    engine = with_stand_in(tiny_world, stand_in)
    cache = engine.new_cache(BATCH)
    latents = engine.step(cache, *one_step(engine, 0))[0]
    stand_in.error = "no"
    frames = engine.decode(latents)
    assert "CUDA graphs cannot be had: no" in engine.spec.reason
    plain = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    assert (frames == plain.decode(latents)).all()
    engine.step(cache, *one_step(engine, 1))


def test_a_refused_capture_leaves_the_frames_held(tiny_world):
    engine = with_stand_in(tiny_world, StandIn(error="no"))
    cache, (latents, conditions, noise) = engine.new_cache(BATCH), one_step(engine, 0)
    assert engine._graphs is not None
    given = {"latents": latents, "conditions": conditions, "noise": noise}
    with pytest.raises(CaptureError), torch.inference_mode():
        engine._graphs.step(engine, cache, cache.kv_cache, **given)
    assert cache.kv_cache.frames_held.tolist() == [0] * BATCH
    assert cache.kv_cache.num_committed == 0
    assert not cache.kv_cache.before.any()
    assert not cache.kv_cache.camera.any()


def test_graphs_are_refused_on_a_cpu(tiny_world):
    with pytest.raises(ValueError, match="graphs need a CUDA device, got 'cpu'"):
        TorchEngine(tiny_world, device="cpu", graphs=True)
    assert TorchEngine(tiny_world, device="cpu")._graphs is None


@pytest.mark.gpu
def test_on_a_gpu_a_step_waits_for_its_results_alone_and_allocates_nothing(tiny_world):
    engine = TorchEngine(tiny_world, device="cuda")
    cache = engine.new_cache(BATCH)
    steps = [one_step(engine, seed) for seed in range(2 * RING)]

    def play() -> list[Tensor]:
        made = []
        for step in steps:
            made.append(engine.step(cache, *step)[0])
            engine.decode(made[-1])
        return made

    play()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        play()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    assert "no graphs" not in engine.spec.reason


@pytest.mark.gpu
def test_on_a_gpu_an_engine_outlives_the_graphs_of_its_caches(tiny_world):
    """Memory that graphs share must not go with the last cache."""
    engine = TorchEngine(tiny_world, device="cuda")
    for seed in range(3):
        cache = engine.new_cache(1)
        engine.step(cache, *one_step(engine, seed, batch=1))
        del cache
    assert engine._graphs is not None, engine.spec.reason
