from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import make_engine
from engine.on_torch.engine import TorchEngine
from engine.spec import Made
from midas_world.config import load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.conditions import Conditions
from midas_world.model.entries import kept
from midas_world.model.world_model import Before, WorldModel
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import KeyMap, World
from tests.engines import steps_of, with_codes
from tests.fakes import randn, seeded


def conditions_of(engine: TorchEngine, frames: int) -> list[Conditions]:
    """Return conditions of one game in which all is told, codes too."""
    generator = seeded(6)
    steps = [replace(step, text="a person runs") for step in steps_of(engine, 21)]
    told = [step for step in steps if step.pose is not None and step.audio is not None]
    return [with_codes(engine.spec.stack([step]), generator) for step in told[:frames]]


def test_step_equals_the_model_over_the_whole_sequence(engine, tiny_world):
    frames = 4
    steps = conditions_of(engine, frames)
    latents = randn(1, frames, *engine.spec.latent_shape, seed=1)
    cache = engine.new_cache(1)
    noise = randn(1, *engine.spec.latent_shape, seed=2)
    *_, made = (
        engine.step(cache, latents[:, frame], steps[frame], noise) for frame in range(frames)
    )
    model = tiny_world.model
    hidden = model.hidden(latents, torch.zeros(1, frames), Conditions.join(steps))[:, -1]
    before = Before(
        latents=model.to_grid(latents[:, -2]),
        camera=model.conditions.cues(steps[-2]).camera,
        audio=steps[-2].audio[:, 0],
    )
    fate = model.fate(steps[-1])
    entries = kept(steps[-1].entries[:, 0], fate.gone)
    last = model.to_grid(latents[:, -1])
    shown = model.with_own_hits(steps[-1], fate)
    guidance, _ = model.guide(last, shown, before, hidden, entries=entries)
    expected = model.sample(guidance, model.to_grid(noise), num_denoise_steps=1)
    logits = model.outcomes(expected, guidance, model.near(steps[-1]), fate.told)
    whole = Made(
        latents=model.to_tokens(expected),
        reward=model.outcome.reward(logits.reward),
        cost=logits.cost.sigmoid(),
        termination=logits.termination.sigmoid(),
        entries=model.prior(hidden, steps[-1].entries[:, 0]).softmax(dim=-1),
        gone=fate.gone > 0,
    )
    for a, b in zip(made, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_told_codes_and_the_tally_change_the_frame(engine):
    (step,) = conditions_of(engine, 1)
    latents = randn(1, *engine.spec.latent_shape, seed=1)
    none = replace(step, entries=torch.full_like(step.entries, -1.0))
    hit = replace(step, tally=torch.tensor([[[1 / 3, 1.0]]]))
    made, *others = (
        engine.step(engine.new_cache(1), latents, given, torch.zeros_like(latents)).latents
        for given in (step, none, hit)
    )
    assert all((made - other).abs().max() > 1e-3 for other in others)


def test_a_world_without_things_or_a_camera_plays():
    config = load_preset("dream")
    world = World(
        folder=Path("none"),
        config=config,
        autoencoder=Autoencoder(config.world.autoencoder).eval(),
        model=WorldModel(config.world).eval(),
        start_states=(),
        keymap=KeyMap(actions=("none",), keys={}),
    )
    engine = TorchEngine(world, device="cpu", dtype=torch.float32)
    latents = torch.zeros(1, *engine.spec.latent_shape)
    made = engine.step(engine.new_cache(1), latents, engine.spec.stack([StepConditions()]), latents)
    assert made.entries.tolist() == [[[1.0], [1.0]]]
    assert made.gone.tolist() == [[False] * config.world.entries.capacity]


def test_encode_equals_the_autoencoder(engine, tiny_world):
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), dtype=np.uint8)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1.0
    expected = tiny_world.model.to_tokens(tiny_world.autoencoder.encode(pixels))
    torch.testing.assert_close(engine.encode(frames), expected, rtol=1e-5, atol=1e-5)


def test_more_denoise_steps_change_the_frame(tiny_world):
    latents = torch.zeros(1, 15, 32)
    noise = randn(1, 15, 32, seed=9)
    made = []
    for steps in (1, 2):
        engine = TorchEngine(tiny_world, device="cpu", dtype=torch.float32, num_denoise_steps=steps)
        assert engine.spec.num_denoise_steps == steps
        (step,) = conditions_of(engine, 1)
        made.append(engine.step(engine.new_cache(1), latents, step, noise)[0])
    assert not torch.allclose(*made)
    with pytest.raises(ValueError, match="num_denoise_steps"):
        TorchEngine(tiny_world, num_denoise_steps=0)


def test_backends_that_are_not_here_say_so(tiny_world):
    with pytest.raises(BackendUnavailableError, match="backend='torch'"):
        make_engine(tiny_world, "tensorrt")
    with pytest.raises(ValueError, match="did you mean 'torch'"):
        make_engine(tiny_world, "torhc")
    assert make_engine(tiny_world).spec.backend == "torch"
